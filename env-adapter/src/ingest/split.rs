//! Train, valid and test without leaks: episodes that belong together stay on one side.
//!
//! Exact duplicates always belong together, and by family so do the episodes of a family. Groups are put in an order
//! that a hash of the seed gives, and each goes to the side that lacks most of its share, separately for benign and
//! malicious groups. The result depends on the episodes and the seed alone, not on their order in the file.

use std::collections::{BTreeMap, HashMap};
use std::io::BufRead;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::IngestError;
use super::csv::{End, Fields};
use super::digest::{ContentHash, EpisodeDigest};
use super::quality::{Examples, LabelCounts};
use crate::{EpisodeAttributes, Event, EventSink, Label};

/// A part of a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// What is learnt from.
    Train = 0,
    /// What choices are made on.
    Valid = 1,
    /// What is looked at once.
    Test = 2,
}

/// What keeps episodes together.
#[derive(Clone, Copy, Debug)]
pub enum SplitBy<'a> {
    /// Family and content: unseen families on every side.
    Family,
    /// Content alone.
    Content,
    /// A list says where each episode goes.
    List(&'a SplitList),
}

/// The share of each side, by number of episodes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shares {
    /// Share of train.
    pub train: f64,
    /// Share of valid.
    pub valid: f64,
    /// Share of test.
    pub test: f64,
}

/// Where every episode goes.
#[derive(Clone, Debug, Default)]
pub struct Assignment {
    sides: HashMap<String, Side>,
    /// Episodes by label, of train, valid and test.
    pub counts: [LabelCounts; 3],
    /// Episodes that the list does not name; they go nowhere.
    pub unlisted: Examples,
    /// Names of the list that no episode has.
    pub absent: Examples,
    /// What stands on more than one side: nothing, unless a list wants it so.
    pub leaks: Leaks,
}

/// What several parts have in common and should not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Leaks {
    /// Ids in more than one part.
    pub ids: Examples,
    /// Contents in more than one part, by the id of an episode.
    pub contents: Examples,
    /// Families in more than one part. No fault of a split by content.
    pub families: Examples,
}

/// A list of episodes with their sides.
#[derive(Clone, Debug, Default)]
pub struct SplitList {
    exact: BTreeMap<String, Side>,
    /// Names without their file suffix: traces are files, and an episode is named by its file's stem.
    stems: BTreeMap<String, Side>,
}

/// Longest field of a list, in bytes.
const MAX_FIELD_BYTES: usize = 4096;

impl Side {
    /// All sides.
    pub const ALL: [Side; 3] = [Side::Train, Side::Valid, Side::Test];

    /// The name in lists and of the files of a split.
    pub const fn name(self) -> &'static str {
        match self {
            Side::Train => "train",
            Side::Valid => "valid",
            Side::Test => "test",
        }
    }

    fn from_name(name: &str) -> Option<Side> {
        Some(match name {
            "train" | "training" => Side::Train,
            "valid" | "validation" | "val" => Side::Valid,
            "test" => Side::Test,
            _ => return None,
        })
    }
}

impl Default for Shares {
    fn default() -> Self {
        Shares { train: 0.7, valid: 0.15, test: 0.15 }
    }
}

/// Says where each episode goes.
///
/// # Errors
/// [`IngestError::Split`] for no episodes, shares that are no shares, or a list that names none of the episodes.
pub fn assign(
    episodes: &[EpisodeDigest],
    by: SplitBy<'_>,
    shares: Shares,
    seed: u64,
) -> Result<Assignment, IngestError> {
    if episodes.is_empty() {
        return Err(IngestError::Split("there are no episodes".to_owned()));
    }
    let shares = [shares.train, shares.valid, shares.test];
    let sum: f64 = shares.iter().sum();
    if shares.iter().any(|share| !(0.0..=1.0).contains(share)) || (sum - 1.0).abs() > 1e-6 {
        return Err(IngestError::Split(format!("the shares {shares:?} should lie between 0 and 1 and sum to 1")));
    }
    let mut assignment = match by {
        SplitBy::Family => assign_groups(episodes, true, shares, seed),
        SplitBy::Content => assign_groups(episodes, false, shares, seed),
        SplitBy::List(list) => list.assign(episodes)?,
    };
    let mut parts: [Vec<&EpisodeDigest>; 3] = Default::default();
    for episode in episodes {
        if let Some(side) = assignment.side(&episode.episode_id.0) {
            parts[side as usize].push(episode);
            let counts = &mut assignment.counts[side as usize];
            match episode.label {
                Some(Label::Benign) => counts.benign += 1,
                Some(Label::Malicious) => counts.malicious += 1,
                None => counts.missing += 1,
            }
        }
    }
    assignment.leaks = leaks(&parts);
    Ok(assignment)
}

impl Assignment {
    /// The side of an episode; none where a list does not name it.
    pub fn side(&self, episode_id: &str) -> Option<Side> {
        self.sides.get(episode_id).copied()
    }
}

fn assign_groups(episodes: &[EpisodeDigest], by_family: bool, shares: [f64; 3], seed: u64) -> Assignment {
    let mut groups = Groups::new(episodes.len());
    let mut contents: HashMap<ContentHash, usize> = HashMap::new();
    let mut families: HashMap<&str, usize> = HashMap::new();
    for (index, episode) in episodes.iter().enumerate() {
        // Nothing is no content: empty episodes need not stay together.
        if episode.events > 0 {
            let first = *contents.entry(episode.content).or_insert(index);
            groups.join(first, index);
        }
        if let (true, Some(family)) = (by_family, &episode.family) {
            let first = *families.entry(family).or_insert(index);
            groups.join(first, index);
        }
    }
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for index in 0..episodes.len() {
        members.entry(groups.root(index)).or_default().push(index);
    }
    // (class, order, key, members): the class first, so that each is dealt out separately.
    let mut dealt: Vec<_> = members
        .into_values()
        .map(|members| {
            let class = members.iter().map(|&index| class(episodes[index].label)).max().unwrap_or(0);
            let key = members.iter().map(|&index| episodes[index].episode_id.0.as_str()).min().unwrap_or("");
            (class, order(seed, key), key, members)
        })
        .collect();
    dealt.sort_unstable_by(|a, b| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)));
    let mut sides = HashMap::with_capacity(episodes.len());
    for class in 0..=2 {
        let of_class = || dealt.iter().filter(move |group| group.0 == class);
        let total: usize = of_class().map(|group| group.3.len()).sum();
        let mut taken = [0usize; 3];
        for (_, _, _, members) in of_class() {
            let lack = |side: Side| {
                let target = shares[side as usize] * total as f64;
                if target > 0.0 { (target - taken[side as usize] as f64) / target } else { f64::NEG_INFINITY }
            };
            let side = Side::ALL.into_iter().reduce(|best, side| if lack(side) > lack(best) { side } else { best });
            let side = side.unwrap_or(Side::Train);
            taken[side as usize] += members.len();
            sides.extend(members.iter().map(|&index| (episodes[index].episode_id.0.clone(), side)));
        }
    }
    Assignment { sides, ..Assignment::default() }
}

/// Unlabelled, benign, malicious: a group that holds several is dealt out with the highest.
fn class(label: Option<Label>) -> u8 {
    match label {
        None => 0,
        Some(Label::Benign) => 1,
        Some(Label::Malicious) => 2,
    }
}

fn order(seed: u64, key: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"split");
    hash.update(seed.to_le_bytes());
    hash.update(key.as_bytes());
    hash.finalize().into()
}

/// Disjoint sets of episodes.
struct Groups(Vec<usize>);

impl Groups {
    fn new(count: usize) -> Self {
        Groups((0..count).collect())
    }

    fn root(&mut self, mut index: usize) -> usize {
        while self.0[index] != index {
            self.0[index] = self.0[self.0[index]];
            index = self.0[index];
        }
        index
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b)] = a.min(b);
    }
}

/// What the parts have in common: ids, contents and families that stand in more than one.
pub fn leaks<E: std::borrow::Borrow<EpisodeDigest>>(parts: &[Vec<E>]) -> Leaks {
    let mut leaks = Leaks::default();
    let mut ids: HashMap<&str, (usize, bool)> = HashMap::new();
    let mut contents: HashMap<ContentHash, (usize, bool)> = HashMap::new();
    let mut families: HashMap<&str, (usize, bool)> = HashMap::new();
    for (part, episodes) in parts.iter().enumerate() {
        for episode in episodes.iter().map(std::borrow::Borrow::borrow) {
            let id = episode.episode_id.0.as_str();
            if meets(ids.entry(id).or_insert((part, false)), part) {
                leaks.ids.add(id);
            }
            if episode.events > 0 && meets(contents.entry(episode.content).or_insert((part, false)), part) {
                leaks.contents.add(id);
            }
            if let Some(family) = &episode.family
                && meets(families.entry(family).or_insert((part, false)), part)
            {
                leaks.families.add(family);
            }
        }
    }
    leaks
}

/// Whether something first met in one part is now met in another, for the first time.
fn meets((first, counted): &mut (usize, bool), part: usize) -> bool {
    *first != part && !std::mem::replace(counted, true)
}

impl SplitList {
    /// Reads a table with a header that has a column `id` or `trace` and a column `split`; the latter holds `train`,
    /// `valid` or `test`. Further columns are left alone.
    ///
    /// # Errors
    /// [`IngestError::SplitList`] with the line, [`IngestError::Stream`] when the stream fails.
    pub fn read(from: impl BufRead) -> Result<Self, IngestError> {
        let mut fields = Fields::new(from);
        let mut list = SplitList::default();
        let fault = |line, reason: &str| Err(IngestError::SplitList { line, reason: reason.to_owned() });
        let Some(header) = row(&mut fields)? else { return fault(1, "the list is empty") };
        let position = |names: &[&str]| header.iter().position(|name| names.contains(&name.as_str()));
        let (Some(id), Some(split)) = (position(&["id", "trace"]), position(&["split"])) else {
            return fault(1, "the first line names no column `id` or `trace`, or no column `split`");
        };
        loop {
            let line = fields.line();
            let Some(row) = row(&mut fields)? else { break };
            if row.iter().all(String::is_empty) {
                continue;
            }
            let (Some(id), Some(split)) = (row.get(id), row.get(split)) else {
                return fault(line, "it has fewer fields than the first line");
            };
            let Some(side) = Side::from_name(&split.to_ascii_lowercase()) else {
                return fault(line, &format!("`{split}` is no part; use train, valid or test"));
            };
            if id.is_empty() {
                return fault(line, "it names no episode");
            }
            if list.exact.insert(id.clone(), side).is_some_and(|before| before != side) {
                return fault(line, &format!("`{id}` is in two parts"));
            }
            if let Some(stem) = Path::new(id).file_stem().and_then(|stem| stem.to_str())
                && stem != id
                && list.stems.insert(stem.to_owned(), side).is_some_and(|before| before != side)
            {
                return fault(line, &format!("`{stem}` is in two parts under different names"));
            }
        }
        Ok(list)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.exact.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty()
    }

    fn assign(&self, episodes: &[EpisodeDigest]) -> Result<Assignment, IngestError> {
        let mut assignment = Assignment::default();
        for episode in episodes {
            let id = &episode.episode_id.0;
            match self.exact.get(id).or_else(|| self.stems.get(id)) {
                Some(side) => {
                    assignment.sides.insert(id.clone(), *side);
                }
                None => assignment.unlisted.add(id),
            }
        }
        if assignment.sides.is_empty() {
            return Err(IngestError::Split(
                "the list names none of the episodes; compare its names with theirs".to_owned(),
            ));
        }
        for id in self.exact.keys() {
            let stem = Path::new(id).file_stem().and_then(|stem| stem.to_str()).unwrap_or(id);
            if !assignment.sides.contains_key(id) && !assignment.sides.contains_key(stem) {
                assignment.absent.add(id);
            }
        }
        Ok(assignment)
    }
}

/// The fields of a row; none at the end of the table.
fn row(fields: &mut Fields<impl BufRead>) -> Result<Option<Vec<String>>, IngestError> {
    let (mut row, mut text) = (Vec::new(), Vec::new());
    loop {
        let line = fields.line();
        let end = fields.field(&mut text, MAX_FIELD_BYTES)?;
        if text.len() > MAX_FIELD_BYTES || row.len() > MAX_FIELD_BYTES {
            return Err(IngestError::SplitList { line, reason: "a field or the line is too long".to_owned() });
        }
        if end == End::File && row.is_empty() && text.is_empty() {
            return Ok(None);
        }
        let Ok(field) = std::str::from_utf8(&text) else {
            return Err(IngestError::SplitList { line, reason: "it is no UTF-8".to_owned() });
        };
        row.push(field.trim().trim_start_matches('\u{feff}').to_owned());
        if end != End::Field {
            return Ok(Some(row));
        }
    }
}

/// Copies each episode to the sink of its side.
pub struct SplitSink<'a, S> {
    assignment: &'a Assignment,
    sinks: [S; 3],
    open: Option<usize>,
}

impl<'a, S: EventSink> SplitSink<'a, S> {
    /// Sinks in the order train, valid, test.
    pub fn new(assignment: &'a Assignment, sinks: [S; 3]) -> Self {
        SplitSink { assignment, sinks, open: None }
    }

    /// The sinks, to be finished.
    pub fn into_sinks(self) -> [S; 3] {
        self.sinks
    }
}

impl<S: EventSink> EventSink for SplitSink<'_, S> {
    type Error = S::Error;

    fn begin(&mut self, attributes: &EpisodeAttributes) -> Result<(), S::Error> {
        self.open = self.assignment.side(&attributes.episode_id.0).map(|side| side as usize);
        match self.open {
            Some(side) => self.sinks[side].begin(attributes),
            None => Ok(()),
        }
    }

    fn event(&mut self, event: &Event<'_>) -> Result<(), S::Error> {
        match self.open {
            Some(side) => self.sinks[side].event(event),
            None => Ok(()),
        }
    }

    fn end(&mut self, complete: bool) -> Result<(), S::Error> {
        match self.open.take() {
            Some(side) => self.sinks[side].end(complete),
            None => Ok(()),
        }
    }
}
