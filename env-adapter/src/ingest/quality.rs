//! The data-quality report: what was read, what was left out and why.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::digest::{ContentHash, EpisodeDigest, short_hash};
use crate::Label;

/// Examples kept of each kind of finding; all are counted.
pub const MAX_EXAMPLES: usize = 20;
/// Distinct names counted one by one in a tally; the rest is counted together.
pub const MAX_NAMES: usize = 1000;
/// Bytes kept of a text from the input.
const MAX_TEXT: usize = 200;

/// What was read and what is wrong with it. Counts are complete; of examples the first [`MAX_EXAMPLES`] are kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct QualityReport {
    /// Files read.
    pub files: u64,
    /// Episodes handed on.
    pub episodes: u64,
    /// Events handed on.
    pub events: u64,
    /// Episodes by label.
    pub labels: LabelCounts,
    /// Episodes without an event, by id. They are counted and not stored in telemetry files.
    pub empty_episodes: Examples,
    /// Episodes of one event, by id.
    pub one_event_episodes: Examples,
    /// Episodes whose recording does not hold the whole run.
    pub incomplete_episodes: u64,
    /// Ids met again. The second episode of a name is left out.
    pub duplicate_ids: Examples,
    /// Episodes with the calls of an earlier one, by id. They are kept; a split keeps them on one side.
    pub duplicate_contents: Examples,
    /// Contents that carry both labels, by the id of the episode that contradicts.
    pub contradicting_labels: Examples,
    /// Episodes without a label, by id.
    pub missing_labels: Examples,
    /// Calls whose number or name is not known, with their counts. They are kept under that name.
    pub unknown_calls: Tally,
    /// Calls left out because they are not on the list of recorded calls.
    pub not_recorded: Tally,
    /// Lines left out.
    pub bad_lines: Problems,
    /// Rows of a telemetry file left out or contradicting their episode.
    pub bad_rows: Problems,
    /// Keys or columns that the format does not know, with the lines or rows that have them. Their values are not read.
    pub unknown_keys: Tally,
    /// Values left out of an event that was kept, by field.
    pub dropped_fields: Tally,
    /// Values replaced by a token, by kind.
    pub redacted: Tally,
    /// Other counts of a source, by name.
    pub notes: Tally,
    #[serde(skip)]
    seen: Seen,
}

/// Episodes by label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LabelCounts {
    /// Benign.
    pub benign: u64,
    /// Malicious.
    pub malicious: u64,
    /// Without a label.
    pub missing: u64,
}

/// A count with its first examples.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Examples {
    /// How many there are.
    pub count: u64,
    /// The first of them.
    pub examples: Vec<String>,
}

/// Counts by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Tally {
    /// Counts of the first [`MAX_NAMES`] names.
    pub counts: BTreeMap<String, u64>,
    /// What bears further names.
    #[serde(default)]
    pub others: u64,
}

/// Faulty places in files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Problems {
    /// How many there are.
    pub count: u64,
    /// The first of them.
    pub examples: Vec<Problem>,
}

/// One faulty place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Problem {
    /// The file.
    pub file: String,
    /// Line, from 1, or row of a table, from 0.
    pub line: u64,
    /// What is wrong.
    pub reason: String,
}

/// What is remembered to find duplicates: short hashes.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    ids: HashSet<[u8; 16]>,
    /// Labels met with each content: bit 0 benign, bit 1 malicious.
    contents: HashMap<ContentHash, u8>,
}

impl QualityReport {
    /// Notes an id before its episode is read; false if it was met before, and the episode is to be left out.
    pub fn admit(&mut self, id: &str) -> bool {
        let new = self.seen.ids.insert(short_hash(id.as_bytes()));
        if !new {
            self.duplicate_ids.add(id);
        }
        new
    }

    /// Counts an episode that was handed on.
    pub fn observe(&mut self, episode: &EpisodeDigest) {
        let id = &episode.episode_id.0;
        self.episodes += 1;
        self.events += episode.events;
        let bit = match episode.label {
            Some(Label::Benign) => {
                self.labels.benign += 1;
                1
            }
            Some(Label::Malicious) => {
                self.labels.malicious += 1;
                2
            }
            None => {
                self.labels.missing += 1;
                self.missing_labels.add(id);
                0
            }
        };
        if !episode.complete {
            self.incomplete_episodes += 1;
        }
        match episode.events {
            // Nothing is no content: two empty episodes are not duplicates of each other.
            0 => return self.empty_episodes.add(id),
            1 => self.one_event_episodes.add(id),
            _ => {}
        }
        match self.seen.contents.get_mut(&episode.content) {
            None => {
                self.seen.contents.insert(episode.content, bit);
            }
            Some(labels) => {
                self.duplicate_contents.add(id);
                if *labels != 3 && *labels | bit == 3 {
                    self.contradicting_labels.add(id);
                }
                *labels |= bit;
            }
        }
    }

    /// Whether nothing was left out and nothing contradicts. Duplicates of content, missing labels and short episodes
    /// are properties of the data and leave a report clean.
    pub fn is_clean(&self) -> bool {
        self.bad_lines.count == 0
            && self.bad_rows.count == 0
            && self.duplicate_ids.count == 0
            && self.contradicting_labels.count == 0
            && self.unknown_keys.total() == 0
            && self.dropped_fields.total() == 0
    }
}

impl Examples {
    /// Counts one more.
    pub fn add(&mut self, example: &str) {
        self.count += 1;
        if self.examples.len() < MAX_EXAMPLES {
            self.examples.push(clipped(example));
        }
    }

    /// Counts one more unless it is the example that was added last.
    pub fn add_once(&mut self, example: &str) {
        if self.examples.last().is_none_or(|last| *last != clipped(example)) {
            self.add(example);
        }
    }
}

impl Tally {
    /// Adds to the count of a name.
    pub fn add(&mut self, name: &str, count: u64) {
        if count == 0 {
            return;
        }
        if let Some(counted) = self.counts.get_mut(name) {
            *counted += count;
        } else if self.counts.len() < MAX_NAMES {
            *self.counts.entry(clipped(name)).or_default() += count;
        } else {
            self.others += count;
        }
    }

    /// The sum over all names.
    pub fn total(&self) -> u64 {
        self.counts.values().sum::<u64>() + self.others
    }
}

impl Problems {
    /// Counts one more.
    pub fn add(&mut self, file: &str, line: u64, reason: &str) {
        self.count += 1;
        if self.examples.len() < MAX_EXAMPLES {
            self.examples.push(Problem { file: clipped(file), line, reason: clipped(reason) });
        }
    }
}

/// A text from the input made fit for a report: of bounded length and without control characters.
fn clipped(text: &str) -> String {
    let mut clipped = String::with_capacity(text.len().min(MAX_TEXT));
    for letter in text.chars() {
        if clipped.len() + letter.len_utf8() > MAX_TEXT {
            clipped.push('…');
            break;
        }
        clipped.push(if letter.is_control() { '\u{fffd}' } else { letter });
    }
    clipped
}

impl fmt::Display for QualityReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LabelCounts { benign, malicious, missing } = self.labels;
        writeln!(f, "{} episodes, {} events", self.episodes, self.events)?;
        writeln!(f, "  benign {benign}, malicious {malicious}, without a label {missing}")?;
        let plain = [("incomplete episodes", self.incomplete_episodes)];
        for (what, count) in plain.into_iter().filter(|(_, count)| *count > 0) {
            writeln!(f, "  {what}: {count}")?;
        }
        for (what, examples) in [
            ("empty episodes (not stored)", &self.empty_episodes),
            ("episodes of one event", &self.one_event_episodes),
            ("ids met again (left out)", &self.duplicate_ids),
            ("episodes with the calls of an earlier one", &self.duplicate_contents),
            ("contents with both labels", &self.contradicting_labels),
        ] {
            if let Some(first) = examples.examples.first() {
                writeln!(f, "  {what}: {}, the first is {first}", examples.count)?;
            }
        }
        for (what, tally) in [
            ("unknown calls (kept)", &self.unknown_calls),
            ("calls not on the list (left out)", &self.not_recorded),
            ("unknown keys or columns (not read)", &self.unknown_keys),
            ("values left out", &self.dropped_fields),
            ("values redacted", &self.redacted),
            ("notes", &self.notes),
        ] {
            if tally.total() > 0 {
                writeln!(f, "  {what}: {} ({tally})", tally.total())?;
            }
        }
        for (what, unit, problems) in
            [("bad lines (left out)", "line", &self.bad_lines), ("bad rows (left out)", "row", &self.bad_rows)]
        {
            if problems.count > 0 {
                writeln!(f, "  {what}: {}", problems.count)?;
                for Problem { file, line, reason } in &problems.examples {
                    writeln!(f, "    {file}, {unit} {line}: {reason}")?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Tally {
    /// The largest counts first, by name where they are equal; eight at most.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts: Vec<_> = self.counts.iter().collect();
        counts.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        let shown = counts.len().min(8);
        for (index, (name, count)) in counts[..shown].iter().enumerate() {
            write!(f, "{}{name} {count}", if index > 0 { ", " } else { "" })?;
        }
        if counts.len() > shown || self.others > 0 {
            write!(f, ", ...")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EpisodeId;

    fn digest(id: &str, label: Option<Label>, events: u64, content: u8) -> EpisodeDigest {
        EpisodeDigest {
            episode_id: EpisodeId(id.to_owned()),
            label,
            family: None,
            events,
            complete: true,
            content: ContentHash([content; 16]),
        }
    }

    #[test]
    fn contradictions_are_counted_once_per_content() {
        let mut report = QualityReport::default();
        for (id, label) in
            [("a", Label::Benign), ("b", Label::Malicious), ("c", Label::Benign), ("d", Label::Malicious)]
        {
            report.observe(&digest(id, Some(label), 5, 1));
        }
        report.observe(&digest("e", Some(Label::Benign), 5, 2));
        assert_eq!(report.contradicting_labels.count, 1);
        assert_eq!(report.contradicting_labels.examples, ["b"]);
        assert_eq!(report.duplicate_contents.count, 3);
        assert!(!report.is_clean());
    }

    #[test]
    fn empty_episodes_are_no_duplicates() {
        let mut report = QualityReport::default();
        report.observe(&digest("a", None, 0, 1));
        report.observe(&digest("b", None, 0, 1));
        assert_eq!((report.empty_episodes.count, report.duplicate_contents.count), (2, 0));
        assert_eq!(report.labels.missing, 2);
    }

    #[test]
    fn examples_and_names_are_bounded_and_counts_are_not() {
        let mut report = QualityReport::default();
        for index in 0..3000u64 {
            report.bad_lines.add("f", index, &"x\u{7}".repeat(1000));
            report.unknown_calls.add(&format!("call{index}"), 2);
        }
        assert_eq!((report.bad_lines.count, report.bad_lines.examples.len()), (3000, MAX_EXAMPLES));
        assert_eq!((report.unknown_calls.counts.len(), report.unknown_calls.total()), (MAX_NAMES, 6000));
        assert!(report.bad_lines.examples[0].reason.len() <= MAX_TEXT + 3);
        assert!(!report.to_string().contains('\u{7}'));
    }

    #[test]
    fn the_report_reads_back_from_json() {
        let mut report = QualityReport::default();
        assert!(report.admit("a") && !report.admit("a"));
        report.observe(&digest("a", Some(Label::Benign), 1, 3));
        report.bad_lines.add("f", 3, "why");
        let back: QualityReport = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        assert_eq!(back.to_string(), report.to_string());
        assert_eq!(back.duplicate_ids, report.duplicate_ids);
    }
}
