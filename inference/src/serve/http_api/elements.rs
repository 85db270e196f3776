//! Elements of a tensor from JSON to bytes and back, as the binary form of the protocol has them: little-endian, row after row.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeSeq, Serializer};

/// What an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Datatype {
    /// A float of 32 bits.
    Fp32,
    /// A whole number of 64 bits.
    Int64,
    /// True or false; a byte of 1 or 0.
    Bool,
}

/// Reads the `data` of a tensor of this shape: one flat list, or lists in lists as the shape says.
pub(super) struct Elements<'a> {
    pub(super) datatype: Datatype,
    pub(super) shape: &'a [usize],
}

/// Writes elements as one flat list.
pub(super) struct Flat<'a> {
    pub(super) datatype: Datatype,
    pub(super) bytes: &'a [u8],
}

impl Datatype {
    /// The type with this name, where it is one of those that models take and give.
    pub(super) fn of(name: &str) -> Option<Self> {
        match name {
            "FP32" => Some(Datatype::Fp32),
            "INT64" => Some(Datatype::Int64),
            "BOOL" => Some(Datatype::Bool),
            _ => None,
        }
    }

    /// Bytes of an element.
    pub(super) fn width(self) -> usize {
        match self {
            Datatype::Fp32 => 4,
            Datatype::Int64 => 8,
            Datatype::Bool => 1,
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Datatype::Fp32 => "a number",
            Datatype::Int64 => "a whole number of 64 bits",
            Datatype::Bool => "true or false",
        }
    }
}

impl<'de> DeserializeSeed<'de> for Elements<'_> {
    type Value = Vec<u8>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<u8>, D::Error> {
        let Elements { datatype, shape } = self;
        let expected = shape.iter().product::<usize>();
        let mut read = Read { datatype, shape, expected, bytes: Vec::new(), form: None };
        deserializer.deserialize_seq(Level { read: &mut read, depth: 0 })?;
        let count = read.bytes.len() / datatype.width();
        if count != expected {
            return Err(D::Error::custom(format!("{count} elements where the shape has {expected}")));
        }
        Ok(read.bytes)
    }
}

/// How far the elements are read.
struct Read<'a> {
    datatype: Datatype,
    shape: &'a [usize],
    /// Elements of the shape.
    expected: usize,
    bytes: Vec<u8>,
    /// At which depth elements stand, once one was seen.
    form: Option<usize>,
}

/// A list, or an element of one.
struct Level<'r, 'a> {
    read: &'r mut Read<'a>,
    depth: usize,
}

impl Read<'_> {
    fn push<E: Error>(&mut self, depth: usize, bytes: &[u8]) -> Result<(), E> {
        match self.form {
            Some(form) if form == depth => {}
            None if depth == 1 || depth == self.shape.len() => self.form = Some(depth),
            _ => return Err(E::custom(self.at("lists within lists must be as deep as the shape, or not be there"))),
        }
        if self.bytes.len() / self.datatype.width() == self.expected {
            return Err(E::custom(self.at(format_args!("more than the {} of the shape", self.expected))));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn at(&self, what: impl fmt::Display) -> String {
        format!("element {}: {what}", self.bytes.len() / self.datatype.width())
    }

    fn mistaken<E: Error>(&self, found: &str) -> E {
        E::custom(self.at(format_args!("{found}, expected {}", self.datatype.expected())))
    }
}

impl<'de> DeserializeSeed<'de> for Level<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_, '_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}, or a list of them as the shape says", self.read.datatype.expected())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Level { read, depth } = self;
        if depth >= read.shape.len() {
            return Err(A::Error::custom(read.at("lists are deeper than the shape")));
        }
        let mut count = 0_usize;
        while list.next_element_seed(Level { read: &mut *read, depth: depth + 1 })?.is_some() {
            count += 1;
        }
        // A flat list is counted as a whole, at the end.
        if read.form != Some(1) && count != read.shape[depth] {
            let expected = read.shape[depth];
            return Err(A::Error::custom(read.at(format_args!("a list of {count} where the shape has {expected}"))));
        }
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        match self.read.datatype {
            Datatype::Bool => self.read.push(self.depth, &[u8::from(value)]),
            _ => Err(self.read.mistaken("a truth value")),
        }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        match (self.read.datatype, i64::try_from(value)) {
            (Datatype::Fp32, _) => self.read.push(self.depth, &(value as f32).to_le_bytes()),
            (Datatype::Int64, Ok(value)) => self.read.push(self.depth, &value.to_le_bytes()),
            _ => Err(self.read.mistaken("a number")),
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        match self.read.datatype {
            Datatype::Fp32 => self.read.push(self.depth, &(value as f32).to_le_bytes()),
            Datatype::Int64 => self.read.push(self.depth, &value.to_le_bytes()),
            Datatype::Bool => Err(self.read.mistaken("a number")),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        match self.read.datatype {
            // What is too large becomes infinite here, and is refused with all that is.
            Datatype::Fp32 => self.read.push(self.depth, &(value as f32).to_le_bytes()),
            _ => Err(self.read.mistaken("a broken number")),
        }
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Err(self.read.mistaken("text"))
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Err(self.read.mistaken("null"))
    }
}

impl Serialize for Flat<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Flat { datatype, bytes } = *self;
        let mut list = serializer.serialize_seq(Some(bytes.len() / datatype.width()))?;
        match datatype {
            Datatype::Fp32 => {
                bytes.as_chunks().0.iter().try_for_each(|four| list.serialize_element(&f32::from_le_bytes(*four)))?;
            }
            Datatype::Int64 => {
                bytes.as_chunks().0.iter().try_for_each(|eight| list.serialize_element(&i64::from_le_bytes(*eight)))?;
            }
            Datatype::Bool => bytes.iter().try_for_each(|byte| list.serialize_element(&(*byte != 0)))?,
        }
        list.end()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(datatype: Datatype, shape: &[usize], text: &str) -> Result<Vec<u8>, String> {
        let mut json = serde_json::Deserializer::from_str(text);
        Elements { datatype, shape }.deserialize(&mut json).map_err(|error| error.to_string())
    }

    /// Lists in lists, as the shape says.
    fn nested(values: &[f32], shape: &[usize]) -> String {
        match shape {
            [] | [_] => serde_json::to_string(values).unwrap(),
            [_, inner @ ..] => {
                let each = values.chunks(inner.iter().product());
                format!("[{}]", each.map(|part| nested(part, inner)).collect::<Vec<_>>().join(", "))
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn flat_and_nested_lists_give_the_bytes_of_the_elements(
            shape in proptest::collection::vec(1_usize..5, 1..4),
            seed in proptest::collection::vec(any::<f32>().prop_filter("JSON has none", |value| value.is_finite()), 64),
        ) {
            let values = &seed[..shape.iter().product()];
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            let flat = serde_json::to_string(values).unwrap();
            for text in [&flat, &nested(values, &shape)] {
                prop_assert_eq!(read(Datatype::Fp32, &shape, text), Ok(bytes.clone()));
            }
            let written = serde_json::to_string(&Flat { datatype: Datatype::Fp32, bytes: &bytes }).unwrap();
            prop_assert_eq!(written, flat);
        }

        #[test]
        fn whatever_is_read_has_as_many_elements_as_the_shape(
            shape in proptest::collection::vec(1_usize..4, 1..4),
            text in "[\\[\\],0-2 ]{0,40}",
        ) {
            if let Ok(bytes) = read(Datatype::Int64, &shape, &text) {
                prop_assert_eq!(bytes.len(), 8 * shape.iter().product::<usize>());
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let check = |datatype, shape: &[usize], text: &str, expected: &str| {
            let error = read(datatype, shape, text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error:?} should contain {expected:?}");
        };
        check(Datatype::Fp32, &[2, 2], "[1, 2, 3]", "3 elements where the shape has 4");
        check(Datatype::Fp32, &[2], "[1, 2, 3, what", "element 2: more than the 2 of the shape");
        check(Datatype::Fp32, &[1, 2], "[[1, 2, 3]]", "element 2: more than the 2 of the shape");
        check(Datatype::Fp32, &[2, 2], "[[1, 2], [3]]", "element 3: a list of 1 where the shape has 2");
        check(Datatype::Fp32, &[2, 2], "[[1, 2]]", "element 2: a list of 1 where the shape has 2");
        check(Datatype::Fp32, &[2, 2], "[1, [2]]", "element 1: lists within lists");
        check(Datatype::Fp32, &[1, 1, 2], "[[1, 2]]", "element 0: lists within lists");
        check(Datatype::Fp32, &[2], "[[1, 2]]", "element 0: lists are deeper than the shape");
        check(Datatype::Fp32, &[2], "[1, null]", "element 1: null, expected a number");
        check(Datatype::Fp32, &[2], "[\"1\", 2]", "element 0: text, expected a number");
        check(Datatype::Fp32, &[2], "3", "expected a number, or a list");
        check(Datatype::Bool, &[2], "[true, 1]", "element 1: a number, expected true or false");
        check(Datatype::Int64, &[1], "[0.5]", "element 0: a broken number, expected a whole number");
        check(Datatype::Int64, &[1], "[9223372036854775808]", "element 0: a number, expected a whole number");
        check(Datatype::Int64, &[1], "[true]", "element 0: a truth value");
        assert_eq!(read(Datatype::Bool, &[2, 1], "[[true], [false]]"), Ok(vec![1, 0]));
        assert_eq!(read(Datatype::Int64, &[2], "[-1, 9223372036854775807]").map(|bytes| bytes.len()), Ok(16));
        assert_eq!(read(Datatype::Fp32, &[1], "[1e60]"), Ok(f32::INFINITY.to_le_bytes().to_vec()));
    }
}
