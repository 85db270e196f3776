//! JSON with one spelling per value.
//!
//! The rules: object keys sorted by their UTF-8 bytes, no key twice, no spaces, integers in decimal, floats as the
//! shortest decimal that reads back as the same number of the same width (`0.1_f32` is `0.1`), NaN and infinities
//! refused, strings escaped only where JSON demands it. The spelling comes from the value's own `Serialize` and not
//! through `serde_json::Value`, so no Cargo feature of another crate can change a byte.

mod tree;

use std::fmt::Write as _;

use serde::Serialize;

use tree::{Node, TreeSerializer};

/// Why a value has no canonical JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// A float is NaN or infinite; JSON has no spelling for it.
    #[error("a number is {0}, which JSON cannot hold: leave the field out or make it null where a value is missing")]
    NotFinite(String),
    /// An object has the same key twice, as flattened maps can.
    #[error("the key {0:?} occurs twice in one object: rename one of them")]
    DuplicateKey(String),
    /// A map key is neither a string nor an integer nor a fieldless variant.
    #[error("a map key is {0}: use strings or integers as keys")]
    UnsupportedKey(&'static str),
    /// The value nests deeper than readers accept.
    #[error("the value nests deeper than {MAX_DEPTH} levels: flatten it")]
    TooDeep,
    /// The value's own serialisation failed.
    #[error("{0}")]
    Custom(String),
}

impl serde::ser::Error for CanonicalError {
    fn custom<T: std::fmt::Display>(message: T) -> CanonicalError {
        CanonicalError::Custom(message.to_string())
    }
}

/// Deepest nesting that is written; `serde_json` reads 128 levels.
const MAX_DEPTH: u32 = 100;

/// The canonical JSON of `value`, on one line without a line break at its end: what is hashed.
///
/// # Errors
/// [`CanonicalError`] where the value has no JSON or no single one.
///
/// ```
/// # use std::collections::BTreeMap;
/// let value = BTreeMap::from([("b", 0.1_f32), ("a", 1.0)]);
/// assert_eq!(bellwether_artifact::canonical_json(&value)?, r#"{"a":1.0,"b":0.1}"#);
/// # Ok::<(), bellwether_artifact::CanonicalError>(())
/// ```
pub fn canonical_json(value: &(impl Serialize + ?Sized)) -> Result<String, CanonicalError> {
    let mut out = String::new();
    write_compact(&value.serialize(TreeSerializer { depth: 0 })?, &mut out);
    Ok(out)
}

/// The same value laid out for people: two spaces per level, lists without objects on one line, a line break at the end.
/// As deterministic as [`canonical_json`].
///
/// # Errors
/// As [`canonical_json`].
pub fn canonical_json_pretty(value: &(impl Serialize + ?Sized)) -> Result<String, CanonicalError> {
    let mut out = String::new();
    write_pretty(&value.serialize(TreeSerializer { depth: 0 })?, 0, &mut out);
    out.push('\n');
    Ok(out)
}

fn write_compact(node: &Node, out: &mut String) {
    match node {
        Node::Literal(text) => out.push_str(text),
        Node::Text(text) => write_text(text, out),
        Node::List(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_compact(item, out);
            }
            out.push(']');
        }
        Node::Object(fields) => {
            out.push('{');
            for (index, (key, value)) in fields.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_text(key, out);
                out.push(':');
                write_compact(value, out);
            }
            out.push('}');
        }
    }
}

fn write_pretty(node: &Node, level: usize, out: &mut String) {
    match node {
        Node::List(items) if node.holds_objects() => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { ",\n" } else { "\n" });
                indent(level + 1, out);
                write_pretty(item, level + 1, out);
            }
            out.push('\n');
            indent(level, out);
            out.push(']');
        }
        Node::Object(fields) if !fields.is_empty() => {
            out.push('{');
            for (index, (key, value)) in fields.iter().enumerate() {
                out.push_str(if index > 0 { ",\n" } else { "\n" });
                indent(level + 1, out);
                write_text(key, out);
                out.push_str(": ");
                write_pretty(value, level + 1, out);
            }
            out.push('\n');
            indent(level, out);
            out.push('}');
        }
        _ => write_compact(node, out),
    }
}

fn indent(level: usize, out: &mut String) {
    for _ in 0..level {
        out.push_str("  ");
    }
}

fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{0}'..='\u{1f}' => {
                // Writing into a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
    #[serde(rename_all = "snake_case")]
    enum Shape {
        Unit,
        Newtype(f32),
        Pair(i8, char),
        Named { zeta: Option<bool>, alpha: () },
    }

    fn check(value: &impl Serialize, expected: &str) {
        assert_eq!(canonical_json(value).unwrap(), expected);
    }

    #[test]
    fn spellings() {
        check(
            &json!({"b": [1, 2.0, "x"], "a": {"d": null, "c": true}}),
            r#"{"a":{"c":true,"d":null},"b":[1,2.0,"x"]}"#,
        );
        check(
            &(0.1_f32, 0.1_f64, 1.0_f64, -0.0_f64, 1e300, 1e-7, u64::MAX, i64::MIN, u128::MAX),
            &format!("[0.1,0.1,1.0,-0.0,1e300,1e-7,{},{},{}]", u64::MAX, i64::MIN, u128::MAX),
        );
        check(&"\"\\\n\r\t\u{1}\u{7f}é😀/", "\"\\\"\\\\\\n\\r\\t\\u0001\u{7f}é😀/\"");
        check(&BTreeMap::from([(10, 'a'), (9, 'b')]), r#"{"10":"a","9":"b"}"#);
        check(
            &[Shape::Unit, Shape::Newtype(1.5), Shape::Pair(-1, 'q'), Shape::Named { zeta: None, alpha: () }],
            r#"["unit",{"newtype":1.5},{"pair":[-1,"q"]},{"named":{"alpha":null,"zeta":null}}]"#,
        );
        check(&Some(&[0_u8, 255][..]), "[0,255]");
    }

    #[test]
    fn what_has_no_spelling_is_refused() {
        #[derive(Serialize)]
        struct Twice {
            key: u8,
            #[serde(flatten)]
            rest: BTreeMap<&'static str, u8>,
        }
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(matches!(canonical_json(&[number]), Err(CanonicalError::NotFinite(_))));
            assert!(matches!(canonical_json(&[number as f32]), Err(CanonicalError::NotFinite(_))));
        }
        let twice = Twice { key: 1, rest: BTreeMap::from([("key", 2)]) };
        assert_eq!(canonical_json(&twice), Err(CanonicalError::DuplicateKey("key".into())));
        assert!(matches!(canonical_json(&BTreeMap::from([((1, 2), 3)])), Err(CanonicalError::UnsupportedKey(_))));
        let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
        assert_eq!(canonical_json(&deep), Err(CanonicalError::TooDeep));
    }

    #[test]
    fn pretty_keeps_flat_lists_on_one_line() {
        let value = json!({"pairs": [[1, 0.5], [2, 1.0]], "rows": [{"a": 1}], "none": {}, "empty": []});
        let expected = "{\n  \"empty\": [],\n  \"none\": {},\n  \"pairs\": [[1,0.5],[2,1.0]],\n  \"rows\": [\n    {\n      \"a\": 1\n    }\n  ]\n}\n";
        assert_eq!(canonical_json_pretty(&value).unwrap(), expected);
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            prop::num::f64::NORMAL.prop_map(Value::from),
            prop::num::f64::SUBNORMAL.prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::hash_map(any::<String>(), inner, 0..8)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn both_layouts_read_back_as_the_value(value in values()) {
            let compact = canonical_json(&value).unwrap();
            let pretty = canonical_json_pretty(&value).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Value>(&compact).unwrap(), &value);
            let again: Value = serde_json::from_str(&pretty).unwrap();
            prop_assert_eq!(canonical_json(&again).unwrap(), compact);
        }

        #[test]
        fn floats_read_back_bit_for_bit(single in any::<f32>(), double in any::<f64>()) {
            prop_assume!(single.is_finite() && double.is_finite());
            let text = canonical_json(&(single, double)).unwrap();
            let (one, two): (f32, f64) = serde_json::from_str(&text).unwrap();
            prop_assert_eq!((one.to_bits(), two.to_bits()), (single.to_bits(), double.to_bits()));
        }

        #[test]
        fn insertion_order_does_not_matter(pairs in prop::collection::hash_map(any::<String>(), any::<i32>(), 0..20)) {
            let sorted: BTreeMap<_, _> = pairs.clone().into_iter().collect();
            let hashed: HashMap<_, _> = pairs;
            prop_assert_eq!(canonical_json(&sorted).unwrap(), canonical_json(&hashed).unwrap());
        }
    }
}
