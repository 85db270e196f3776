//! The columns that are constant over an episode or have few values, gathered over a row group.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::schema::types::ColumnDescPtr;

use super::keyed::{Dictionary, Hybrid, chunk};
use super::{KINDS, column};
use crate::{EpisodeAttributes, Event, Label};

/// The columns of few values, of all rows of the open row group.
#[derive(Default)]
pub(super) struct Group {
    /// (rows, attributes) in order; the last run belongs to the current episode.
    pub(super) runs: Vec<(usize, Arc<EpisodeAttributes>)>,
    /// Bytes of text in the attributes.
    pub(super) attribute_bytes: usize,
    stage: Vec<u8>,
    kind: Vec<u8>,
}

/// Whether a column is encoded by [`Group`].
pub(super) fn is_keyed(name: &str) -> bool {
    matches!(
        name,
        column::EPISODE_ID
            | column::STAGE
            | column::KIND
            | column::LABEL
            | column::FAMILY
            | column::SOURCE
            | column::SAMPLE_SHA256
    )
}

impl Group {
    /// An episode begins, or goes on in a new row group.
    pub(super) fn begin(&mut self, attributes: Arc<EpisodeAttributes>) {
        let texts = [&attributes.family, &attributes.source, &attributes.sample_sha256];
        let optional: usize = texts.into_iter().flatten().map(String::len).sum();
        self.attribute_bytes += attributes.episode_id.0.len() + optional;
        self.runs.push((0, attributes));
    }

    /// The next row, of the episode that began last.
    #[inline]
    pub(super) fn push(&mut self, event: &Event<'_>) {
        if let Some((rows, _)) = self.runs.last_mut() {
            *rows += 1;
        }
        self.stage.push(event.stage);
        self.kind.push(event.kind as u8);
    }

    /// Encodes the column `name`.
    pub(super) fn chunk(
        &self,
        name: &str,
        column: &ColumnDescPtr,
        rows: usize,
        level: i32,
    ) -> Result<(Bytes, ColumnCloseResult), ParquetError> {
        let attribute = |of: fn(&EpisodeAttributes) -> Option<&str>| {
            let mut dictionary = Dictionary::default();
            let mut keys: BTreeMap<&str, u32> = BTreeMap::new();
            let runs: Vec<(usize, Option<u32>)> = self
                .runs
                .iter()
                .map(|(rows, attributes)| {
                    let key = |text| *keys.entry(text).or_insert_with(|| dictionary.add_text(text));
                    (*rows, of(attributes).map(key))
                })
                .collect();
            let (mut present, mut hybrid) = (Hybrid::new(1), Hybrid::new(dictionary.width()));
            // Most neighbours have the same label, family or source: one run says it for all of them.
            for same in runs.chunk_by(|a, b| a.1 == b.1) {
                let rows = same.iter().map(|(rows, _)| rows).sum();
                let key = same[0].1;
                present.run(u32::from(key.is_some()), rows);
                if let Some(key) = key {
                    hybrid.run(key, rows);
                }
            }
            let present = (column.max_def_level() > 0).then_some(present);
            chunk(column, rows, dictionary, present, hybrid, level)
        };
        match name {
            column::EPISODE_ID => attribute(|attributes| Some(&attributes.episode_id.0)),
            column::LABEL => attribute(|attributes| attributes.label.map(Label::name)),
            column::FAMILY => attribute(|attributes| attributes.family.as_deref()),
            column::SOURCE => attribute(|attributes| attributes.source.as_deref()),
            column::SAMPLE_SHA256 => attribute(|attributes| attributes.sample_sha256.as_deref()),
            column::STAGE => {
                // Keys are the stages themselves; no stage is 0.
                let mut dictionary = Dictionary::default();
                for stage in 0..=2 {
                    dictionary.add_number(stage);
                }
                let mut hybrid = Hybrid::new(dictionary.width());
                hybrid.numbers(&self.stage);
                chunk(column, rows, dictionary, None, hybrid, level)
            }
            _ => {
                let mut dictionary = Dictionary::default();
                for (_, kind) in KINDS {
                    dictionary.add_text(kind);
                }
                let mut hybrid = Hybrid::new(dictionary.width());
                hybrid.numbers(&self.kind);
                chunk(column, rows, dictionary, None, hybrid, level)
            }
        }
    }
}
