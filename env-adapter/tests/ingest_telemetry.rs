//! Telemetry Parquet: exact round trips, and files that are damaged, foreign or out of order.
#![cfg(feature = "ingest")]
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod arbitrary;

use std::sync::{Arc, OnceLock};

use arbitrary::{Episode, Kept, episode, episodes, hand_to};
use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use bellwether_env_adapter::ingest::{
    IngestError, QualityReport, RowFault, TelemetryReader, TelemetryWriter, WriterOptions, fuzz,
};
use bellwether_env_adapter::{EventKind, EventSink, Label};
use parquet::arrow::ArrowWriter;
use proptest::prelude::*;

fn write(episodes: &[Episode], options: WriterOptions) -> Vec<u8> {
    let mut writer = TelemetryWriter::with_options(Vec::new(), options).unwrap();
    hand_to(episodes, &mut writer).unwrap();
    writer.finish().unwrap().0
}

fn read(bytes: &[u8]) -> Result<Vec<Episode>, IngestError> {
    let mut kept = Kept::default();
    TelemetryReader::from_bytes(bytes.to_vec())?.read(&mut kept)?;
    Ok(kept.0)
}

fn small_groups(row_group_rows: usize) -> WriterOptions {
    WriterOptions { row_group_rows, ..WriterOptions::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_written_reads_back_exactly(episodes in episodes(4, 0..12), row_group_rows in 1usize..20) {
        let expected: Vec<Episode> = episodes.iter().filter(|episode| !episode.events.is_empty()).cloned().collect();
        let bytes = write(&episodes, small_groups(row_group_rows));
        prop_assert_eq!(read(&bytes).unwrap(), expected);
        // The same input gives the same bytes.
        prop_assert_eq!(bytes, write(&episodes, small_groups(row_group_rows)));
    }

    #[test]
    fn flipped_bytes_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut bytes = sample().clone();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        fuzz::fuzz_telemetry(&bytes);
    }

    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz::fuzz_telemetry(&bytes);
    }
}

/// A small file with every column in use.
fn sample() -> &'static Vec<u8> {
    static SAMPLE: OnceLock<Vec<u8>> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let many = prop::collection::vec(episode("x".to_owned(), 20..40), 3).new_tree(&mut runner).unwrap();
        let mut episodes = proptest::strategy::ValueTree::current(&many);
        for (index, episode) in episodes.iter_mut().enumerate() {
            episode.attributes.episode_id.0 = index.to_string();
        }
        write(&episodes, small_groups(30))
    })
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = sample();
    for length in 0..bytes.len() {
        assert!(read(&bytes[..length]).is_err(), "cut to {length} of {} bytes", bytes.len());
    }
    let error = read(&bytes[..bytes.len() / 2]).unwrap_err();
    assert!(matches!(error, IngestError::Parquet(_)), "{error}");
}

#[test]
fn the_truth_about_an_episode_over_several_row_groups_stands_in_its_last_row() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let tree = episode("long".to_owned(), 100..101).new_tree(&mut runner).unwrap();
    for complete in [true, false] {
        // 96 rows fill whole groups exactly, 100 do not.
        for rows in [1, 4, 8, 96, 97, 100] {
            let mut episode = proptest::strategy::ValueTree::current(&tree);
            episode.events.truncate(rows);
            episode.attributes.complete = complete;
            let bytes = write(std::slice::from_ref(&episode), small_groups(2));
            assert_eq!(read(&bytes).unwrap(), [episode]);
        }
    }
}

#[test]
fn a_file_without_episodes_is_a_file() {
    assert_eq!(read(&write(&[], WriterOptions::default())).unwrap(), []);
}

#[test]
fn the_writer_refuses_what_breaks_the_order_or_a_range() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let tree = episode("e".to_owned(), 2..3).new_tree(&mut runner).unwrap();
    let episode = proptest::strategy::ValueTree::current(&tree);
    let first = &episode.events[0];
    let faulty = [
        ("seq", first.clone()),
        ("stage", bellwether_env_adapter::EventBuf { stage: 3, ..first.clone() }),
        ("name", bellwether_env_adapter::EventBuf { name: String::new(), seq: 99, ..first.clone() }),
        ("entropy", bellwether_env_adapter::EventBuf { entropy: Some(f32::NAN), seq: 99, ..first.clone() }),
        ("isolation", bellwether_env_adapter::EventBuf { isolation: Some(4), seq: 99, ..first.clone() }),
    ];
    for (what, event) in faulty {
        let mut writer = TelemetryWriter::new(Vec::new()).unwrap();
        writer.begin(&episode.attributes).unwrap();
        writer.event(&first.as_event()).unwrap();
        let error = writer.event(&event.as_event()).unwrap_err();
        assert!(matches!(error, IngestError::Event { .. }) && error.to_string().contains(what), "{what}: {error}");
    }
    let mut writer = TelemetryWriter::new(Vec::new()).unwrap();
    assert!(matches!(writer.end(true), Err(IngestError::OutOfTurn(_))));
    assert!(matches!(writer.event(&first.as_event()), Err(IngestError::OutOfTurn(_))));
    writer.begin(&episode.attributes).unwrap();
    assert!(matches!(writer.begin(&episode.attributes), Err(IngestError::OutOfTurn(_))));
    assert!(matches!(writer.finish(), Err(IngestError::OutOfTurn(_))));
}

/// A file that another program wrote: 64-bit integers, plain text, few columns.
fn foreign(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn integers(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn columns<'a>(ids: &[&str], seq: &[i64], more: Vec<(&'a str, ArrayRef)>) -> Vec<(&'a str, ArrayRef)> {
    let rows = ids.len();
    let mut columns = vec![
        ("episode_id", texts(ids)),
        ("stage", integers(&vec![1; rows])),
        ("seq", integers(seq)),
        ("kind", texts(&vec!["file"; rows])),
        ("name", texts(&vec!["openat"; rows])),
    ];
    for (name, array) in more {
        columns.retain(|(column, _)| *column != name);
        columns.push((name, array));
    }
    columns
}

#[test]
fn a_foreign_file_with_wider_types_and_missing_columns_is_read() {
    let more = vec![
        ("pid", Arc::new(Int64Array::from(vec![Some(7), None])) as ArrayRef),
        ("entropy", Arc::new(Float64Array::from(vec![Some(7.5), None])) as ArrayRef),
        ("label", texts(&["benign", "benign"])),
        ("colour", texts(&["red", "green"])),
    ];
    let bytes = foreign(columns(&["a", "a"], &[0, 4], more));
    let reader = TelemetryReader::from_bytes(bytes.clone()).unwrap();
    assert_eq!(reader.unknown_columns(), ["colour"]);
    assert_eq!(reader.rows(), 2);
    let episodes = read(&bytes).unwrap();
    assert_eq!(episodes.len(), 1);
    assert_eq!(episodes[0].attributes.label, Some(Label::Benign));
    assert!(episodes[0].attributes.complete);
    let [first, second] = &episodes[0].events[..] else { panic!("two events") };
    assert_eq!((first.pid, first.entropy, first.kind), (Some(7), Some(7.5), EventKind::File));
    assert_eq!((second.pid, second.entropy, second.seq, second.path.as_deref()), (None, None, 4, None));
}

#[test]
fn faults_name_their_row() {
    type Case<'a> = (Vec<(&'a str, ArrayRef)>, u64, RowFault);
    let cases: Vec<Case<'_>> = vec![
        (columns(&["a", "b", "a"], &[0, 0, 1], vec![]), 2, RowFault::NotContiguous),
        (columns(&["a", "a", "a"], &[0, 2, 1], vec![]), 2, RowFault::OutOfOrder),
        (columns(&["a", "a"], &[3, 3], vec![]), 1, RowFault::OutOfOrder),
        (
            columns(&["a", "a"], &[0, 1], vec![("kind", texts(&["file", "fiel"]))]),
            1,
            RowFault::UnknownKind("fiel".to_owned()),
        ),
        (
            columns(&["a", "a"], &[0, 1], vec![("label", texts(&["bad", "bad"]))]),
            0,
            RowFault::UnknownLabel("bad".to_owned()),
        ),
        (columns(&["a", "a"], &[0, 1], vec![("family", texts(&["x", "y"]))]), 1, RowFault::AttributeChanged("family")),
        (
            columns(&["a", "a"], &[0, 1], vec![("pid", integers(&[1, -1]))]),
            1,
            RowFault::OutOfRange { column: "pid", value: "-1".to_owned(), allowed: "the range of its type" },
        ),
        (
            columns(&["a"], &[0], vec![("stage", integers(&[0]))]),
            0,
            RowFault::OutOfRange { column: "stage", value: "0".to_owned(), allowed: "1 to 2" },
        ),
        (columns(&["a"], &[0], vec![("name", texts(&[""]))]), 0, RowFault::Missing("name")),
    ];
    for (columns, at, expected) in cases {
        let bytes = foreign(columns);
        match read(&bytes) {
            Err(IngestError::Row { row, fault, .. }) => assert_eq!((row, fault), (at, expected.clone())),
            other => panic!("{expected} became {other:?}"),
        }
        // The same faults are counted where the reader is told to go on.
        let (mut report, mut kept) = (QualityReport::default(), Kept::default());
        let reader = TelemetryReader::from_bytes(bytes).unwrap();
        reader.read_counting("f.parquet", &mut kept, &mut report).unwrap();
        assert_eq!((report.bad_rows.count, report.bad_rows.examples[0].line), (1, at), "{expected}");
        let kept: usize = kept.0.iter().map(|episode| episode.events.len()).sum();
        assert!(kept <= 2);
    }
}

#[test]
fn columns_that_do_not_fit_are_named() {
    let mut missing = columns(&["a"], &[0], vec![]);
    missing.retain(|(name, _)| *name != "seq");
    assert!(matches!(read(&foreign(missing)), Err(IngestError::MissingColumn("seq"))));
    for (name, array) in [
        ("pid", Arc::new(Float64Array::from(vec![1.0])) as ArrayRef),
        ("path", integers(&[1])),
        ("created", texts(&["yes"])),
        ("entropy", texts(&["7"])),
        ("episode_id", integers(&[1])),
    ] {
        match read(&foreign(columns(&["a"], &[0], vec![(name, array)]))) {
            Err(IngestError::ColumnType { column, .. }) => assert_eq!(column, name),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn another_version_is_refused() {
    let metadata = vec![("bellwether.telemetry.version".to_owned(), "2".to_owned())];
    let bytes = write(&[], WriterOptions { metadata, ..WriterOptions::default() });
    // The writer's own entry comes first and counts; a file of version 2 has no such entry.
    assert!(read(&bytes).is_ok());
    let batch = RecordBatch::try_from_iter(columns(&["a"], &[0], vec![])).unwrap();
    let entry = parquet::file::metadata::KeyValue::new("bellwether.telemetry.version".to_owned(), "2".to_owned());
    let properties = parquet::file::properties::WriterProperties::builder().set_key_value_metadata(Some(vec![entry]));
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties.build())).unwrap();
    writer.write(&batch).unwrap();
    match read(&writer.into_inner().unwrap()) {
        Err(IngestError::Version(version)) => assert_eq!(version, "2"),
        other => panic!("{other:?}"),
    }
}
