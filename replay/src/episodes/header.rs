//! What stands in an episode file beside its rows: the metadata and the schema that follows from it.

use crate::{ActionMask, Encoding, ReplayError, StateStore};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use parquet::file::metadata::KeyValue;
use std::ops::Range;
use std::sync::Arc;

/// Under what the episodes of a file were played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpisodeFileHeader {
    /// Elements per state.
    pub width: usize,
    /// Number of actions.
    pub actions: u32,
    /// How states are laid out in the file.
    pub encoding: Encoding,
    /// Hash of the specification of the states.
    pub spec_hash: String,
    /// Version of the set of actions.
    pub action_set: String,
    /// The configuration of the reward, as JSON; not interpreted here.
    pub reward: String,
    /// Fingerprints of what the episodes were played on; none holds a line break.
    pub sources: Vec<String>,
    /// What played, as JSON; not interpreted here. Absent where that is not known, or not one policy alone.
    pub policy: Option<String>,
    /// Whether every row holds the q-values of its state.
    pub q_values: bool,
    /// Whether every row says who decided; the policy did where none does.
    pub safe_rule: bool,
}

/// What a reader needs a file to be; a file under another specification is refused by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expect<'a> {
    /// Hash of the specification of the states.
    pub spec_hash: &'a str,
    /// Version of the set of actions.
    pub action_set: &'a str,
}

/// The last byte of a row group, exclusive, and the CRC-32C of its bytes from the end of the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupSum {
    pub(super) end: u64,
    pub(super) sum: u32,
}

/// After its metadata, a Parquet file has the length of it and `PAR1`.
pub(super) const FOOTER_TAIL_BYTES: usize = 8;

const FORMAT: &str = "episodes";
const VERSION: &str = "1";
/// The only value of [`key::Q_VALUES`] and [`key::SAFE_RULE`]; a file without the key has no such column.
const PRESENT: &str = "present";
/// A CRC-32C in hexadecimal.
const SUM_DIGITS: usize = 8;

mod key {
    pub(super) const FORMAT: &str = "bellwether.format";
    pub(super) const VERSION: &str = "bellwether.format_version";
    pub(super) const WIDTH: &str = "bellwether.width";
    pub(super) const ACTIONS: &str = "bellwether.actions";
    pub(super) const STATE: &str = "bellwether.state";
    pub(super) const SPEC_HASH: &str = "bellwether.spec_hash";
    pub(super) const ACTION_SET: &str = "bellwether.action_set";
    pub(super) const REWARD: &str = "bellwether.reward";
    pub(super) const SOURCES: &str = "bellwether.sources";
    pub(super) const POLICY: &str = "bellwether.policy";
    pub(super) const Q_VALUES: &str = "bellwether.q_values";
    pub(super) const SAFE_RULE: &str = "bellwether.safe_rule";
    pub(super) const ROW_GROUPS: &str = "bellwether.row_groups";
    pub(super) const FOOTER: &str = "bellwether.footer_crc32c";
}

impl EpisodeFileHeader {
    pub(super) fn check(&self) -> Result<(), ReplayError> {
        let refuse = |key, value: String, reason| Err(ReplayError::Setting { key, value, reason });
        if self.width == 0 || self.width > StateStore::MAX_WIDTH {
            return refuse("width", self.width.to_string(), "a state has 1 to 65,535 elements");
        }
        if self.actions == 0 || self.actions as usize > ActionMask::MAX_ACTIONS {
            return refuse("actions", self.actions.to_string(), "there are 1 to 32 actions");
        }
        if let Some(source) = self.sources.iter().find(|source| source.contains(['\n', '\r']) || source.is_empty()) {
            return refuse("sources", source.clone(), "a fingerprint is one line that is not empty");
        }
        Ok(())
    }

    pub(super) fn metadata(&self) -> Vec<KeyValue> {
        let state = match self.encoding {
            Encoding::Dense => "dense",
            Encoding::Sparse => "sparse",
        };
        let pairs = [
            (key::FORMAT, FORMAT.to_owned()),
            (key::VERSION, VERSION.to_owned()),
            (key::WIDTH, self.width.to_string()),
            (key::ACTIONS, self.actions.to_string()),
            (key::STATE, state.to_owned()),
            (key::SPEC_HASH, self.spec_hash.clone()),
            (key::ACTION_SET, self.action_set.clone()),
            (key::REWARD, self.reward.clone()),
            (key::SOURCES, self.sources.join("\n")),
        ];
        let policy = self.policy.iter().map(|policy| (key::POLICY, policy.clone()));
        let q_values = self.q_values.then(|| (key::Q_VALUES, PRESENT.to_owned()));
        let safe_rule = self.safe_rule.then(|| (key::SAFE_RULE, PRESENT.to_owned()));
        pairs
            .into_iter()
            .chain(policy)
            .chain(q_values)
            .chain(safe_rule)
            .map(|(key, value)| KeyValue::new(key.to_owned(), value))
            .collect()
    }

    /// The pairs that are known when all row groups are written: their sums, and room for the sum of the footer.
    pub(super) fn closing_metadata(sums: &[GroupSum]) -> [KeyValue; 2] {
        let text: Vec<String> = sums.iter().map(|group| format!("{}:{:08x}", group.end, group.sum)).collect();
        [
            KeyValue::new(key::ROW_GROUPS.to_owned(), text.join(",")),
            KeyValue::new(key::FOOTER.to_owned(), "0".repeat(SUM_DIGITS)),
        ]
    }

    /// The header and the sums of the row groups, from the metadata of a file.
    pub(super) fn parse(metadata: Option<&Vec<KeyValue>>) -> Result<(Self, Vec<GroupSum>), ReplayError> {
        let find = |key: &str| {
            let pair = metadata.into_iter().flatten().find(|pair| pair.key == key);
            pair.and_then(|pair| pair.value.as_deref())
        };
        let get = |key: &str| find(key).ok_or_else(|| refuse(format!("its metadata lacks `{key}`")));
        if get(key::FORMAT)? != FORMAT {
            return Err(refuse(format!("it is a `{}` file, not an `{FORMAT}` file", get(key::FORMAT)?)));
        }
        if get(key::VERSION)? != VERSION {
            return Err(refuse(format!(
                "it has version `{}`, and only version {VERSION} is known",
                get(key::VERSION)?
            )));
        }
        let number = |key| get(key)?.parse().map_err(|_| refuse(format!("`{key}` in its metadata is no number")));
        let present = |key| match find(key) {
            None => Ok(false),
            Some(PRESENT) => Ok(true),
            Some(other) => Err(refuse(format!("`{key}` in its metadata is `{other}`, which means nothing"))),
        };
        let header = EpisodeFileHeader {
            width: number(key::WIDTH)? as usize,
            actions: number(key::ACTIONS)?,
            encoding: match get(key::STATE)? {
                "dense" => Encoding::Dense,
                "sparse" => Encoding::Sparse,
                other => return Err(refuse(format!("its states are `{other}`, neither dense nor sparse"))),
            },
            spec_hash: get(key::SPEC_HASH)?.to_owned(),
            action_set: get(key::ACTION_SET)?.to_owned(),
            reward: get(key::REWARD)?.to_owned(),
            sources: get(key::SOURCES)?.lines().map(str::to_owned).collect(),
            policy: find(key::POLICY).map(str::to_owned),
            q_values: present(key::Q_VALUES)?,
            safe_rule: present(key::SAFE_RULE)?,
        };
        header.check().map_err(|error| refuse(error.to_string()))?;
        let sums = get(key::ROW_GROUPS)?.split_terminator(',').map(GroupSum::parse).collect::<Option<Vec<_>>>();
        let sums = sums.ok_or_else(|| refuse("the sums of its row groups are malformed"))?;
        Ok((header, sums))
    }

    pub(super) fn require(&self, expect: Expect<'_>) -> Result<(), ReplayError> {
        let pairs = [
            ("state specification", expect.spec_hash, &self.spec_hash),
            ("set of actions", expect.action_set, &self.action_set),
        ];
        match pairs.into_iter().find(|(_, expected, found)| expected != found) {
            Some((what, expected, found)) => {
                Err(ReplayError::Mismatch { what, expected: expected.to_owned(), found: found.clone() })
            }
            None => Ok(()),
        }
    }

    /// The columns, in order.
    pub(super) fn schema(&self) -> SchemaRef {
        let mut fields = vec![
            Field::new("episode_id", DataType::Utf8, false),
            Field::new("step", DataType::UInt32, false),
            Field::new("stage", DataType::UInt8, false),
        ];
        match self.encoding {
            Encoding::Dense => {
                let list = DataType::FixedSizeList(value_field(), self.width as i32);
                fields.push(Field::new("state", list, false));
            }
            Encoding::Sparse => {
                fields.push(Field::new("state_index", DataType::List(index_field()), false));
                fields.push(Field::new("state_value", DataType::List(value_field()), false));
            }
        }
        fields.extend([
            Field::new("action_mask", DataType::UInt32, false),
            Field::new("action", DataType::UInt8, true),
            Field::new("r0", DataType::Float32, true),
            Field::new("r1", DataType::Float32, true),
            Field::new("behaviour_probability", DataType::Float32, true),
            Field::new("terminated", DataType::Boolean, false),
            Field::new("truncated", DataType::Boolean, false),
            Field::new("partial", DataType::Boolean, false),
            Field::new("label", DataType::Utf8, true),
            Field::new("events_seen", DataType::UInt64, false),
        ]);
        if self.q_values {
            let list = DataType::FixedSizeList(value_field(), self.actions as i32);
            fields.push(Field::new("q_values", list, false));
        }
        if self.safe_rule {
            fields.push(Field::new("safe_rule", DataType::Boolean, true));
        }
        Arc::new(Schema::new(fields))
    }
}

impl GroupSum {
    fn parse(text: &str) -> Option<Self> {
        let (end, sum) = text.split_once(':')?;
        Some(GroupSum { end: end.parse().ok()?, sum: u32::from_str_radix(sum, 16).ok()? })
    }
}

/// Writes the sum of a footer into the room that was left for it; `footer` is the Parquet metadata alone.
pub(super) fn seal(footer: &mut [u8]) -> Result<(), ReplayError> {
    let room = room(footer).ok_or_else(|| refuse("its footer has no room for a checksum"))?;
    let sum = crc32c::crc32c(footer);
    footer[room].copy_from_slice(format!("{sum:08x}").as_bytes());
    Ok(())
}

/// Sets the checksum of a changed file right, where it has one; tests of the checks behind it begin so.
pub(crate) fn reseal(file: &mut [u8]) -> bool {
    let Some((content, &mut [a, b, c, d, ..])) = file.split_last_chunk_mut::<FOOTER_TAIL_BYTES>() else { return false };
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    let Some(at) = content.len().checked_sub(length) else { return false };
    let footer = &mut content[at..];
    let Some(room) = room(footer) else { return false };
    footer[room].fill(b'0');
    seal(footer).is_ok()
}

/// Whether a footer is what [`seal`] left, byte for byte.
pub(super) fn is_sealed(mut footer: Vec<u8>) -> bool {
    let Some(room) = room(&footer) else { return false };
    let found = footer[room.clone()].to_vec();
    footer[room].fill(b'0');
    found == format!("{:08x}", crc32c::crc32c(&footer)).as_bytes()
}

/// Where the digits of the sum stand: after its key, the type of the field and the length, one byte each.
fn room(footer: &[u8]) -> Option<Range<usize>> {
    let name = key::FOOTER.as_bytes();
    let start = footer.windows(name.len()).rposition(|window| window == name)? + name.len() + 2;
    Some(start..start + SUM_DIGITS).filter(|room| room.end <= footer.len())
}

pub(super) fn value_field() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Float32, false))
}

pub(super) fn index_field() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::UInt16, false))
}

pub(super) fn refuse(reason: impl Into<String>) -> ReplayError {
    ReplayError::EpisodeFile { reason: reason.into() }
}
