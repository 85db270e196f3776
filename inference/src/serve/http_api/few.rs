//! Lists and parameters of JSON that stop where there are too many: a body of 1 MiB would otherwise become tens of them.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// A list of at most `MOST`.
#[derive(Debug)]
pub(super) struct Few<T, const MOST: usize>(pub(super) Vec<T>);

/// Parameters: numbers, texts and truth values by name, at most [`MAX_PARAMETERS`].
#[derive(Debug, Default)]
pub(super) struct Parameters(pub(super) Map<String, Value>);

/// Most parameters of a question or of one of its tensors.
const MAX_PARAMETERS: usize = 64;

impl<T, const MOST: usize> Default for Few<T, MOST> {
    fn default() -> Self {
        Few(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for Few<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(List::<T, MOST>(PhantomData))
    }
}

struct List<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for List<T, MOST> {
    type Value = Few<T, MOST>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "a list of at most {MOST}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Few<T, MOST>, A::Error> {
        let mut few = Vec::new();
        while let Some(next) = list.next_element()? {
            if few.len() == MOST {
                return Err(A::Error::custom(format_args!("a list of more than {MOST}; give at most {MOST}")));
            }
            few.push(next);
        }
        Ok(Few(few))
    }
}

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Named)
    }
}

struct Named;

impl<'de> Visitor<'de> for Named {
    type Value = Parameters;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("parameters by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parameters, A::Error> {
        let mut parameters = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if parameters.len() == MAX_PARAMETERS {
                let text = format_args!("more than {MAX_PARAMETERS} parameters; give at most {MAX_PARAMETERS}");
                return Err(A::Error::custom(text));
            }
            let value = map.next_value_seed(Scalar { name: &name })?;
            // Of two with one name, neither is what was meant for certain.
            if parameters.insert(name.clone(), value).is_some() {
                let name = super::inference_json::short(&name);
                return Err(A::Error::custom(format_args!("parameter {name} is given twice; give it once")));
            }
        }
        Ok(Parameters(parameters))
    }
}

/// The value of the parameter with this name.
struct Scalar<'a> {
    name: &'a str,
}

impl Scalar<'_> {
    fn unlike<E: Error>(&self, found: &str) -> E {
        let name = super::inference_json::short(self.name);
        E::custom(format_args!("parameter {name} is {found}, expected a number, text, true or false"))
    }
}

impl<'de> DeserializeSeed<'de> for Scalar<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scalar<'_> {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a number, text, true or false")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Err(self.unlike("null"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Value, A::Error> {
        Err(self.unlike("a list"))
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Value, A::Error> {
        Err(self.unlike("an object"))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static READ: Cell<usize> = const { Cell::new(0) };
    }

    /// Counts how many were read.
    #[derive(Debug)]
    struct Counted;

    impl<'de> Deserialize<'de> for Counted {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            READ.set(READ.get() + 1);
            u64::deserialize(deserializer).map(|_| Counted)
        }
    }

    #[test]
    fn nothing_behind_the_limit_is_read() {
        let list = |count: usize| format!("[{}]", vec!["0"; count].join(","));
        let read = |text: &str| serde_json::from_str::<Few<Counted, 16>>(text).map(|few| few.0.len());
        assert_eq!(read(&list(16)).unwrap(), 16);
        READ.set(0);
        let error = read(&list(100_000)).unwrap_err().to_string();
        assert!(error.contains("give at most 16 at line 1 column 35"), "{error}");
        assert_eq!(READ.get(), 17);
    }

    #[test]
    fn parameters_are_few_and_plain() {
        let read = |text: &str| serde_json::from_str::<Parameters>(text).map_err(|error| error.to_string());
        let Parameters(all) = read(r#"{"a": 1, "b": -1, "c": 0.5, "d": "x\n", "e": true}"#).unwrap();
        let expected = serde_json::json!({"a": 1, "b": -1, "c": 0.5, "d": "x\n", "e": true});
        assert_eq!(Value::Object(all), expected);
        let deep = "[".repeat(100);
        for (text, expected) in [
            (r#"{"a": null}"#, "parameter a is null"),
            (r#"{"a": {"b": 1}}"#, "parameter a is an object"),
            (&format!(r#"{{"a": {deep}"#), "parameter a is a list, expected a number, text, true or false"),
            (r#"{"a": 1, "a": 2}"#, "parameter a is given twice"),
            ("3", "expected parameters by name"),
        ] {
            let error = read(text).map(|_| ()).unwrap_err();
            assert!(error.contains(expected), "{text}: {error:?}");
        }
    }
}
