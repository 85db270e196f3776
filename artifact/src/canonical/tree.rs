//! The tree that a value is serialised into before it is written, so that keys can be sorted and checked.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};

use serde::ser::{
    Impossible, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use super::{CanonicalError, MAX_DEPTH};

/// A JSON value whose scalars are spelled already.
pub(super) enum Node {
    /// `null`, a bool or a number, as it is written.
    Literal(String),
    /// A string, unescaped.
    Text(String),
    /// An array.
    List(Vec<Node>),
    /// An object, sorted by the bytes of its keys.
    Object(BTreeMap<String, Node>),
}

impl Node {
    /// Whether a non-empty object stands anywhere in this list.
    pub(super) fn holds_objects(&self) -> bool {
        match self {
            Node::Object(fields) => !fields.is_empty(),
            Node::List(items) => items.iter().any(Node::holds_objects),
            Node::Literal(_) | Node::Text(_) => false,
        }
    }
}

/// Turns one value into a [`Node`].
pub(super) struct TreeSerializer {
    pub(super) depth: u32,
}

/// A list in the making; `variant` wraps it as `{"variant": [...]}`.
pub(super) struct ListBuilder {
    depth: u32,
    items: Vec<Node>,
    variant: Option<&'static str>,
}

/// An object in the making; `variant` wraps it as `{"variant": {...}}`.
pub(super) struct ObjectBuilder {
    depth: u32,
    fields: BTreeMap<String, Node>,
    key: Option<String>,
    variant: Option<&'static str>,
}

type Result<T = Node> = std::result::Result<T, CanonicalError>;

fn wrap(variant: Option<&'static str>, node: Node) -> Node {
    match variant {
        Some(name) => Node::Object(BTreeMap::from([(name.to_owned(), node)])),
        None => node,
    }
}

// `{:?}` of a float is the shortest decimal that reads back exactly, always with a point or an exponent: valid JSON.
fn float(finite: bool, value: impl Debug) -> Result {
    let text = format!("{value:?}");
    if finite { Ok(Node::Literal(text)) } else { Err(CanonicalError::NotFinite(text)) }
}

fn literal(value: impl Display) -> Result {
    Ok(Node::Literal(value.to_string()))
}

impl TreeSerializer {
    fn child(depth: u32) -> Result<TreeSerializer> {
        if depth >= MAX_DEPTH { Err(CanonicalError::TooDeep) } else { Ok(TreeSerializer { depth: depth + 1 }) }
    }

    fn list(self, length: Option<usize>, variant: Option<&'static str>) -> ListBuilder {
        // The length is the value's own claim, so it only guides small allocations.
        ListBuilder { depth: self.depth, items: Vec::with_capacity(length.unwrap_or(0).min(1024)), variant }
    }

    fn object(self, variant: Option<&'static str>) -> ObjectBuilder {
        ObjectBuilder { depth: self.depth, fields: BTreeMap::new(), key: None, variant }
    }
}

impl Serializer for TreeSerializer {
    type Ok = Node;
    type Error = CanonicalError;
    type SerializeSeq = ListBuilder;
    type SerializeTuple = ListBuilder;
    type SerializeTupleStruct = ListBuilder;
    type SerializeTupleVariant = ListBuilder;
    type SerializeMap = ObjectBuilder;
    type SerializeStruct = ObjectBuilder;
    type SerializeStructVariant = ObjectBuilder;

    fn serialize_bool(self, value: bool) -> Result {
        literal(value)
    }
    fn serialize_i8(self, value: i8) -> Result {
        literal(value)
    }
    fn serialize_i16(self, value: i16) -> Result {
        literal(value)
    }
    fn serialize_i32(self, value: i32) -> Result {
        literal(value)
    }
    fn serialize_i64(self, value: i64) -> Result {
        literal(value)
    }
    fn serialize_i128(self, value: i128) -> Result {
        literal(value)
    }
    fn serialize_u8(self, value: u8) -> Result {
        literal(value)
    }
    fn serialize_u16(self, value: u16) -> Result {
        literal(value)
    }
    fn serialize_u32(self, value: u32) -> Result {
        literal(value)
    }
    fn serialize_u64(self, value: u64) -> Result {
        literal(value)
    }
    fn serialize_u128(self, value: u128) -> Result {
        literal(value)
    }
    fn serialize_f32(self, value: f32) -> Result {
        float(value.is_finite(), value)
    }
    fn serialize_f64(self, value: f64) -> Result {
        float(value.is_finite(), value)
    }
    fn serialize_char(self, value: char) -> Result {
        Ok(Node::Text(value.to_string()))
    }
    fn serialize_str(self, value: &str) -> Result {
        Ok(Node::Text(value.to_owned()))
    }
    fn serialize_bytes(self, value: &[u8]) -> Result {
        value.iter().map(literal).collect::<Result<Vec<Node>>>().map(Node::List)
    }
    fn serialize_none(self) -> Result {
        self.serialize_unit()
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result {
        literal("null")
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result {
        self.serialize_unit()
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result {
        self.serialize_str(variant)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result {
        Ok(wrap(Some(variant), value.serialize(TreeSerializer::child(self.depth)?)?))
    }
    fn serialize_seq(self, length: Option<usize>) -> Result<ListBuilder> {
        Ok(self.list(length, None))
    }
    fn serialize_tuple(self, length: usize) -> Result<ListBuilder> {
        Ok(self.list(Some(length), None))
    }
    fn serialize_tuple_struct(self, _: &'static str, length: usize) -> Result<ListBuilder> {
        Ok(self.list(Some(length), None))
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<ListBuilder> {
        Ok(TreeSerializer::child(self.depth)?.list(Some(length), Some(variant)))
    }
    fn serialize_map(self, _: Option<usize>) -> Result<ObjectBuilder> {
        Ok(self.object(None))
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<ObjectBuilder> {
        Ok(self.object(None))
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<ObjectBuilder> {
        Ok(TreeSerializer::child(self.depth)?.object(Some(variant)))
    }
}

impl ListBuilder {
    fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.items.push(value.serialize(TreeSerializer::child(self.depth)?)?);
        Ok(())
    }

    fn finish(self) -> Result {
        Ok(wrap(self.variant, Node::List(self.items)))
    }
}

impl ObjectBuilder {
    fn insert<T: Serialize + ?Sized>(&mut self, key: String, value: &T) -> Result<()> {
        let node = value.serialize(TreeSerializer::child(self.depth)?)?;
        match self.fields.insert(key.clone(), node) {
            Some(_) => Err(CanonicalError::DuplicateKey(key)),
            None => Ok(()),
        }
    }

    fn finish(self) -> Result {
        Ok(wrap(self.variant, Node::Object(self.fields)))
    }
}

macro_rules! list_builder {
    ($($trait:ident :: $method:ident),*) => {$(
        impl $trait for ListBuilder {
            type Ok = Node;
            type Error = CanonicalError;
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
                self.push(value)
            }
            fn end(self) -> Result {
                self.finish()
            }
        }
    )*};
}

list_builder!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);

macro_rules! object_builder {
    ($($trait:ident),*) => {$(
        impl $trait for ObjectBuilder {
            type Ok = Node;
            type Error = CanonicalError;
            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<()> {
                self.insert(key.to_owned(), value)
            }
            fn end(self) -> Result {
                self.finish()
            }
        }
    )*};
}

object_builder!(SerializeStruct, SerializeStructVariant);

impl SerializeMap for ObjectBuilder {
    type Ok = Node;
    type Error = CanonicalError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<()> {
        self.key = Some(key.serialize(KeySerializer)?);
        Ok(())
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        match self.key.take() {
            Some(key) => self.insert(key, value),
            None => Err(CanonicalError::Custom("a map gave a value before its key".into())),
        }
    }
    fn end(self) -> Result {
        self.finish()
    }
}

/// Turns a map key into text: strings as they are, integers in decimal, fieldless variants by name.
struct KeySerializer;

macro_rules! refused_keys {
    ($($method:ident($type:ty) = $what:literal),*) => {$(
        fn $method(self, _: $type) -> Result<String> {
            Err(CanonicalError::UnsupportedKey($what))
        }
    )*};
}

macro_rules! integer_keys {
    ($($method:ident($type:ty)),*) => {$(
        fn $method(self, value: $type) -> Result<String> {
            Ok(value.to_string())
        }
    )*};
}

impl Serializer for KeySerializer {
    type Ok = String;
    type Error = CanonicalError;
    type SerializeSeq = Impossible<String, CanonicalError>;
    type SerializeTuple = Impossible<String, CanonicalError>;
    type SerializeTupleStruct = Impossible<String, CanonicalError>;
    type SerializeTupleVariant = Impossible<String, CanonicalError>;
    type SerializeMap = Impossible<String, CanonicalError>;
    type SerializeStruct = Impossible<String, CanonicalError>;
    type SerializeStructVariant = Impossible<String, CanonicalError>;

    integer_keys!(
        serialize_i8(i8),
        serialize_i16(i16),
        serialize_i32(i32),
        serialize_i64(i64),
        serialize_i128(i128),
        serialize_u8(u8),
        serialize_u16(u16),
        serialize_u32(u32),
        serialize_u64(u64),
        serialize_u128(u128),
        serialize_char(char),
        serialize_str(&str)
    );
    refused_keys!(
        serialize_bool(bool) = "a bool",
        serialize_f32(f32) = "a float",
        serialize_f64(f64) = "a float",
        serialize_bytes(&[u8]) = "a byte string"
    );

    fn serialize_none(self) -> Result<String> {
        Err(CanonicalError::UnsupportedKey("null"))
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<String> {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<String> {
        Err(CanonicalError::UnsupportedKey("null"))
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<String> {
        Err(CanonicalError::UnsupportedKey("null"))
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<String> {
        Ok(variant.to_owned())
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<String> {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<String> {
        Err(CanonicalError::UnsupportedKey("a variant with content"))
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq> {
        Err(CanonicalError::UnsupportedKey("a list"))
    }
    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple> {
        Err(CanonicalError::UnsupportedKey("a list"))
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct> {
        Err(CanonicalError::UnsupportedKey("a list"))
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant> {
        Err(CanonicalError::UnsupportedKey("a list"))
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap> {
        Err(CanonicalError::UnsupportedKey("an object"))
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct> {
        Err(CanonicalError::UnsupportedKey("an object"))
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant> {
        Err(CanonicalError::UnsupportedKey("an object"))
    }
}
