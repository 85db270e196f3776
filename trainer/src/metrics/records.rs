//! One JSON object per line: `metrics.jsonl` and `timings.jsonl`.

use std::collections::BTreeMap;
use std::io::{BufRead, Read as _, Write};
use std::marker::PhantomData;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest line that is read, in bytes: a record has some dozens of values.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// What a run was doing when it wrote a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Updates and exploration.
    Train,
    /// Greedy play on episodes that are not trained on.
    Validation,
    /// The choice of operating points on calibration episodes.
    Calibration,
}

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetricsRecord {
    /// What the run was doing.
    pub phase: Phase,
    /// Gradient updates done so far.
    pub update: u64,
    /// Environment steps done so far; 0 where training needs none.
    pub environment_steps: u64,
    /// Episodes ended so far.
    pub episodes: u64,
    /// Values by name (`loss`, `mean_q`, `epsilon`, `return`, ...), sorted. A value that is not finite is written as the
    /// string `NaN`, `inf` or `-inf`, since JSON has no number for it and a diverging run must still tell.
    #[serde(with = "values")]
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub values: BTreeMap<String, f64>,
}

/// One line of `timings.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimingsRecord {
    /// Gradient updates done so far.
    pub update: u64,
    /// Wall-clock time since the run (or its resumption) began, in seconds.
    pub wall_seconds: f64,
    /// Share of it by part of the loop (`sample`, `update`, `validation`, ...), in seconds.
    pub parts_seconds: BTreeMap<String, f64>,
}

/// Why lines cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The stream failed.
    #[error("reading or writing records failed: {0}; check the free space and the permissions of the run's folder")]
    Io(std::io::Error),
    /// A whole line is no record.
    #[error("line {line} is no record: {reason}; the file was changed after the run wrote it")]
    Line {
        /// Number of the line, from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// A line is too long to be a record.
    #[error("line {line} is longer than {MAX_LINE_BYTES} bytes; this is no file of records")]
    TooLong {
        /// Number of the line, from 1.
        line: u64,
    },
    /// A record could not be turned into JSON.
    #[error("a record cannot be written as JSON: {0}")]
    Json(serde_json::Error),
}

impl From<std::io::Error> for MetricsError {
    fn from(cause: std::io::Error) -> Self {
        MetricsError::Io(cause)
    }
}

impl From<serde_json::Error> for MetricsError {
    fn from(cause: serde_json::Error) -> Self {
        MetricsError::Json(cause)
    }
}

/// Appends records, one line each, and counts the bytes so that a checkpoint can hold the offset.
#[derive(Debug)]
pub struct JsonLinesWriter<T, W> {
    writer: W,
    offset: u64,
    line: Vec<u8>,
    record: PhantomData<fn(&T)>,
}

impl<T: Serialize, W: Write> JsonLinesWriter<T, W> {
    /// Goes on at `offset`, the length in bytes of what `writer` holds already (0 for a new file).
    pub fn new(writer: W, offset: u64) -> Self {
        JsonLinesWriter { writer, offset, line: Vec::new(), record: PhantomData }
    }

    /// Appends one record by a single write, and flushes it: a run that is killed leaves whole lines but for the last.
    ///
    /// # Errors
    /// [`MetricsError::Json`] and [`MetricsError::Io`].
    pub fn append(&mut self, record: &T) -> Result<(), MetricsError> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, record)?;
        self.line.push(b'\n');
        self.writer.write_all(&self.line)?;
        self.writer.flush()?;
        self.offset += self.line.len() as u64;
        Ok(())
    }

    /// Length in bytes of everything up to here. A resumed run truncates its file to the offset of its checkpoint.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Gives the stream back.
    pub fn into_inner(self) -> W {
        self.writer
    }
}

/// The records of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonLines<T> {
    /// The whole lines.
    pub records: Vec<T>,
    /// What follows the last newline: the trace of a run that was killed.
    pub partial: Option<PartialLine>,
}

/// A last line without its newline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialLine {
    /// Its number, from 1.
    pub line: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// Where it begins; truncating the file here leaves whole records only.
    pub offset: u64,
}

/// Reads all records; a last line without a newline is reported, not read.
///
/// # Errors
/// [`MetricsError::Line`] with the number of a whole line that is no record, [`MetricsError::TooLong`], and
/// [`MetricsError::Io`].
pub fn read_json_lines<T: DeserializeOwned>(mut reader: impl BufRead) -> Result<JsonLines<T>, MetricsError> {
    let mut records = Vec::new();
    let mut bytes = Vec::new();
    let (mut line, mut offset) = (0, 0);
    loop {
        bytes.clear();
        line += 1;
        let read = reader.by_ref().take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut bytes)? as u64;
        if read > MAX_LINE_BYTES {
            return Err(MetricsError::TooLong { line });
        }
        if bytes.last() != Some(&b'\n') {
            let partial = (read > 0).then_some(PartialLine { line, bytes: read, offset });
            return Ok(JsonLines { records, partial });
        }
        let record =
            serde_json::from_slice(&bytes).map_err(|error| MetricsError::Line { line, reason: error.to_string() })?;
        records.push(record);
        offset += read;
    }
}

/// Values that may be infinite or no number, in JSON.
mod values {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer, de::Error as _, ser::SerializeMap as _};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Value {
        Number(f64),
        Text(String),
    }

    pub(super) fn serialize<S: Serializer>(values: &BTreeMap<String, f64>, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(values.len()))?;
        for (name, value) in values {
            if value.is_finite() {
                map.serialize_entry(name, value)?;
            } else {
                // `Display` writes NaN, inf and -inf.
                map.serialize_entry(name, &value.to_string())?;
            }
        }
        map.end()
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
        let map = BTreeMap::<String, Value>::deserialize(deserializer)?;
        map.into_iter()
            .map(|(name, value)| match value {
                Value::Number(value) => Ok((name, value)),
                Value::Text(text) => match text.as_str() {
                    "NaN" => Ok((name, f64::NAN)),
                    "inf" => Ok((name, f64::INFINITY)),
                    "-inf" => Ok((name, f64::NEG_INFINITY)),
                    _ => Err(D::Error::custom(format!("the value of `{name}` is no number"))),
                },
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(update: u64, values: &[(&str, f64)]) -> MetricsRecord {
        let values = values.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
        MetricsRecord { phase: Phase::Train, update, environment_steps: 0, episodes: 3, values }
    }

    fn written(records: &[MetricsRecord]) -> Vec<u8> {
        let mut writer = JsonLinesWriter::new(Vec::new(), 0);
        for record in records {
            writer.append(record).unwrap();
        }
        assert_eq!(writer.offset(), writer.writer.len() as u64);
        writer.into_inner()
    }

    #[test]
    fn a_line_is_sorted_and_says_what_is_not_finite() {
        let line = written(&[record(7, &[("loss", f64::NAN), ("epsilon", 0.05), ("max_error", f64::INFINITY)])]);
        let expected = concat!(
            r#"{"phase":"train","update":7,"environment_steps":0,"episodes":3,"#,
            r#""values":{"epsilon":0.05,"loss":"NaN","max_error":"inf"}}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(line.clone()).unwrap(), expected);
        let back = read_json_lines::<MetricsRecord>(&line[..]).unwrap();
        assert!(back.records[0].values["loss"].is_nan());
        assert_eq!(back.partial, None);
    }

    #[test]
    fn bad_lines_are_named() {
        let good = written(&[record(1, &[])]);
        for (tail, line) in [(&b"{}\n"[..], 2), (b"\n", 2), (b"nonsense\n", 2)] {
            let error = read_json_lines::<MetricsRecord>(&[&good[..], tail].concat()[..]).unwrap_err();
            assert!(matches!(error, MetricsError::Line { line: at, .. } if at == line), "{error}");
        }
        let text = br#"{"phase":"train","update":1,"environment_steps":0,"episodes":0,"values":{"loss":"much"}}"#;
        let error = read_json_lines::<MetricsRecord>(&[&text[..], b"\n"].concat()[..]).unwrap_err();
        assert!(error.to_string().contains("`loss` is no number"), "{error}");
        let long = vec![b'x'; MAX_LINE_BYTES as usize + 10];
        assert!(matches!(read_json_lines::<MetricsRecord>(&long[..]), Err(MetricsError::TooLong { line: 1 })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn whole_records_survive_a_cut_anywhere(
            rows in prop::collection::vec((any::<u64>(), prop::collection::btree_map("[a-z_]{1,8}", any::<f64>(), 0..5)), 0..8),
            cut in 0.0f64..=1.0,
        ) {
            let records: Vec<MetricsRecord> = rows
                .into_iter()
                .map(|(update, mut values)| {
                    values.retain(|_, value| !value.is_nan());
                    MetricsRecord { phase: Phase::Validation, update, environment_steps: 1, episodes: 2, values }
                })
                .collect();
            let bytes = written(&records);
            let cut = (cut * bytes.len() as f64) as usize;
            let back = read_json_lines::<MetricsRecord>(&bytes[..cut]).unwrap();
            let whole = bytes[..cut].iter().filter(|&&byte| byte == b'\n').count();
            prop_assert_eq!(&back.records[..], &records[..whole]);
            let offset = written(&records[..whole]).len() as u64;
            let partial = PartialLine { line: whole as u64 + 1, bytes: cut as u64 - offset, offset };
            prop_assert_eq!(back.partial, (partial.bytes > 0).then_some(partial));
        }
    }
}
