//! The first look at a model file: every protobuf field against an allow-list, before anything is allocated.
//!
//! A protobuf decoder skips what it does not know, merges what stands twice and allocates a struct for two bytes of
//! input. None of that is wanted of a file that may be hostile, so the bytes are walked here first, in place.

use super::{ModelError, limits};

/// What a field holds.
enum Kind {
    /// A number of up to 64 bits.
    Number,
    /// An f32.
    Single,
    /// UTF-8 of bounded length.
    Text,
    /// Raw bytes.
    Bytes,
    /// Another message.
    Message(&'static Schema),
}

/// A permitted field: its number, whether it may stand more than once, what it holds.
struct Field(u32, bool, Kind);

/// A permitted message.
struct Schema {
    name: &'static str,
    fields: &'static [Field],
}

const ONCE: bool = false;
const MANY: bool = true;

/// What every model file may hold around this graph.
const fn model(graph: &'static Schema) -> [Field; 6] {
    [
        Field(1, ONCE, Kind::Number),
        Field(2, ONCE, Kind::Text),
        Field(3, ONCE, Kind::Text),
        Field(7, ONCE, Kind::Message(graph)),
        Field(8, MANY, Kind::Message(&OPERATOR_SET)),
        Field(14, MANY, Kind::Message(&ENTRY)),
    ]
}

static MODEL: Schema = Schema { name: "ModelProto", fields: &model(&GRAPH) };
static GENERAL_MODEL: Schema = Schema { name: "ModelProto", fields: &model(&GENERAL_GRAPH) };
static OPERATOR_SET: Schema =
    Schema { name: "OperatorSetIdProto", fields: &[Field(1, ONCE, Kind::Text), Field(2, ONCE, Kind::Number)] };
static ENTRY: Schema =
    Schema { name: "StringStringEntryProto", fields: &[Field(1, ONCE, Kind::Text), Field(2, ONCE, Kind::Text)] };
static GRAPH: Schema = Schema {
    name: "GraphProto",
    fields: &[
        Field(1, MANY, Kind::Message(&NODE)),
        Field(2, ONCE, Kind::Text),
        Field(5, MANY, Kind::Message(&TENSOR)),
        Field(11, MANY, Kind::Message(&VALUE_INFO)),
        Field(12, MANY, Kind::Message(&VALUE_INFO)),
    ],
};
static NODE: Schema = Schema {
    name: "NodeProto",
    fields: &[
        Field(1, MANY, Kind::Text),
        Field(2, MANY, Kind::Text),
        Field(3, ONCE, Kind::Text),
        Field(4, ONCE, Kind::Text),
        Field(5, MANY, Kind::Message(&ATTRIBUTE)),
    ],
};
static ATTRIBUTE: Schema = Schema {
    name: "AttributeProto",
    fields: &[
        Field(1, ONCE, Kind::Text),
        Field(3, ONCE, Kind::Number),
        Field(8, MANY, Kind::Number),
        Field(20, ONCE, Kind::Number),
    ],
};
static GENERAL_GRAPH: Schema = Schema {
    name: "GraphProto",
    fields: &[
        Field(1, MANY, Kind::Message(&GENERAL_NODE)),
        Field(2, ONCE, Kind::Text),
        Field(5, MANY, Kind::Message(&TENSOR)),
        Field(11, MANY, Kind::Message(&VALUE_INFO)),
        Field(12, MANY, Kind::Message(&VALUE_INFO)),
        Field(13, MANY, Kind::Message(&VALUE_INFO)),
    ],
};
static GENERAL_NODE: Schema = Schema {
    name: "NodeProto",
    fields: &[
        Field(1, MANY, Kind::Text),
        Field(2, MANY, Kind::Text),
        Field(3, ONCE, Kind::Text),
        Field(4, ONCE, Kind::Text),
        Field(5, MANY, Kind::Message(&GENERAL_ATTRIBUTE)),
        Field(7, ONCE, Kind::Text),
    ],
};
static GENERAL_ATTRIBUTE: Schema = Schema {
    name: "AttributeProto",
    fields: &[
        Field(1, ONCE, Kind::Text),
        Field(2, ONCE, Kind::Single),
        Field(3, ONCE, Kind::Number),
        Field(4, ONCE, Kind::Text),
        Field(5, ONCE, Kind::Message(&TENSOR)),
        Field(7, MANY, Kind::Single),
        Field(8, MANY, Kind::Number),
        Field(20, ONCE, Kind::Number),
    ],
};
static TENSOR: Schema = Schema {
    name: "TensorProto",
    fields: &[
        Field(1, MANY, Kind::Number),
        Field(2, ONCE, Kind::Number),
        Field(8, ONCE, Kind::Text),
        Field(9, ONCE, Kind::Bytes),
    ],
};
static VALUE_INFO: Schema =
    Schema { name: "ValueInfoProto", fields: &[Field(1, ONCE, Kind::Text), Field(2, ONCE, Kind::Message(&TYPE))] };
static TYPE: Schema = Schema { name: "TypeProto", fields: &[Field(1, ONCE, Kind::Message(&TENSOR_TYPE))] };
static TENSOR_TYPE: Schema =
    Schema { name: "TypeProto.Tensor", fields: &[Field(1, ONCE, Kind::Number), Field(2, ONCE, Kind::Message(&SHAPE))] };
static SHAPE: Schema = Schema { name: "TensorShapeProto", fields: &[Field(1, MANY, Kind::Message(&DIMENSION))] };
static DIMENSION: Schema =
    Schema { name: "TensorShapeProto.Dimension", fields: &[Field(1, ONCE, Kind::Number), Field(2, ONCE, Kind::Text)] };

/// Which files are walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kinds {
    /// Those that the native engine evaluates.
    Native,
    /// Those that only ONNX Runtime does: attributes hold more.
    General,
}

/// Walks the whole file. Afterwards each field is one of the allow-list, ends where its parent ends or before, and there
/// are at most [`limits::MAX_FIELDS`] of them.
pub(super) fn check(bytes: &[u8], kinds: Kinds) -> Result<(), ModelError> {
    let schema = match kinds {
        Kinds::Native => &MODEL,
        Kinds::General => &GENERAL_MODEL,
    };
    Cursor { bytes, offset: 0, fields: 0 }.message(schema, bytes.len())
}

struct Cursor<'a> {
    bytes: &'a [u8],
    offset: usize,
    fields: usize,
}

impl Cursor<'_> {
    /// The message from here to `end`. Schemas form a tree, so the depth of recursion is that of the tree.
    fn message(&mut self, schema: &'static Schema, end: usize) -> Result<(), ModelError> {
        let mut seen = 0_u64;
        while self.offset < end {
            let offset = self.offset;
            self.fields += 1;
            if self.fields > limits::MAX_FIELDS {
                return Err(ModelError::TooManyFields { offset, limit: limits::MAX_FIELDS });
            }
            let key = self.number(end)?;
            let field = u32::try_from(key >> 3).map_err(|_| malformed(offset, "a field number past 32 bits"))?;
            let Some(Field(_, many, kind)) = schema.fields.iter().find(|known| known.0 == field) else {
                return Err(refused(schema.name, field, offset));
            };
            // Every permitted number is below 64.
            let bit = 1_u64 << field;
            if !many && seen & bit != 0 {
                return Err(ModelError::RepeatedField { offset, message: schema.name, field });
            }
            seen |= bit;
            match (kind, key & 7) {
                (Kind::Number, 0) => {
                    self.number(end)?;
                }
                (Kind::Single, 5) if end - self.offset >= size_of::<f32>() => self.offset += size_of::<f32>(),
                (Kind::Text, 2) => {
                    let (start, stop) = self.span(end)?;
                    if stop - start > limits::MAX_TEXT_BYTES {
                        let (bytes, limit) = (stop - start, limits::MAX_TEXT_BYTES);
                        return Err(ModelError::TextTooLong { offset, message: schema.name, bytes, limit });
                    }
                    if std::str::from_utf8(&self.bytes[start..stop]).is_err() {
                        return Err(malformed(start, "a text that is not UTF-8"));
                    }
                    self.offset = stop;
                }
                (Kind::Bytes, 2) => self.offset = self.span(end)?.1,
                (Kind::Message(inner), 2) => {
                    let (_, stop) = self.span(end)?;
                    self.message(inner, stop)?;
                }
                (_, wire) => {
                    let reason = format!("field {field} of {} has wire type {wire}", schema.name);
                    return Err(ModelError::Malformed { offset, reason });
                }
            }
        }
        Ok(())
    }

    /// A length and the span that it announces; the cursor stands at its start.
    fn span(&mut self, end: usize) -> Result<(usize, usize), ModelError> {
        let at = self.offset;
        let length = self.number(end)?;
        let room = end - self.offset;
        match usize::try_from(length) {
            Ok(length) if length <= room => Ok((self.offset, self.offset + length)),
            _ => Err(ModelError::Malformed {
                offset: at,
                reason: format!("{length} bytes are announced and {room} are left"),
            }),
        }
    }

    /// A base-128 number of at most ten bytes.
    fn number(&mut self, end: usize) -> Result<u64, ModelError> {
        let at = self.offset;
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            if self.offset >= end {
                return Err(malformed(at, "a number is cut off"));
            }
            let byte = self.bytes[self.offset];
            self.offset += 1;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(malformed(at, "a number past 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(malformed(at, "a number past 64 bits"))
    }
}

fn malformed(offset: usize, reason: &str) -> ModelError {
    ModelError::Malformed { offset, reason: reason.to_owned() }
}

/// The error of a field that is not on the list; the ones that attackers like have their own.
fn refused(message: &'static str, field: u32, offset: usize) -> ModelError {
    match (message, field) {
        ("TensorProto", 13 | 14) => ModelError::ExternalData { offset },
        ("ModelProto", 25) => ModelError::Functions { offset },
        ("GraphProto", 15) => ModelError::SparseInitializer { offset },
        ("AttributeProto", 6 | 11) => ModelError::Subgraph { offset },
        _ => ModelError::UnknownField { offset, message, field },
    }
}
