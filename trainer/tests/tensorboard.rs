//! Event files read back, by a reader that knows the published format alone.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod events;

use bellwether_trainer::metrics::EventWriter;
use events::{Field, at, records, scalars};
use proptest::prelude::*;

#[test]
fn a_file_reads_back() {
    let mut writer = EventWriter::new(Vec::new(), 1000.5).unwrap();
    writer.session_start(301, 1000.75).unwrap();
    writer.scalars(300, [("loss/released", 0.25)], 1001.0).unwrap();
    writer.text("config", 0, "batch_size = 64", 1002.0).unwrap();
    let bytes = writer.into_inner();
    let records = records(&bytes);
    assert_eq!(records.len(), 4);
    assert_eq!(at(&records[0], &[1]), Field::Fixed64(1000.5f64.to_bits()));
    assert_eq!(at(&records[0], &[3]), Field::Bytes(b"brain.Event:2".to_vec()));
    assert_eq!(at(&records[1], &[2]), Field::Varint(301));
    assert_eq!(at(&records[1], &[7, 1]), Field::Varint(1));
    assert_eq!(at(&records[2], &[2]), Field::Varint(300));
    assert_eq!(at(&records[2], &[5, 1, 1]), Field::Bytes(b"loss/released".to_vec()));
    assert_eq!(at(&records[2], &[5, 1, 2]), Field::Fixed32(0.25f32.to_bits()));
    assert_eq!(at(&records[3], &[5, 1, 8, 1]), Field::Varint(7));
    assert_eq!(at(&records[3], &[5, 1, 8, 2, 2, 1]), Field::Varint(1));
    assert_eq!(at(&records[3], &[5, 1, 8, 8]), Field::Bytes(b"batch_size = 64".to_vec()));
    assert_eq!(at(&records[3], &[5, 1, 9, 1, 1]), Field::Bytes(b"text".to_vec()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_scalars_read_back(
        values in prop::collection::vec((".{0,300}", any::<f32>()), 0..6),
        step: u64,
        wall_time: f64,
    ) {
        let mut writer = EventWriter::new(Vec::new(), 0.0).unwrap();
        writer.scalars(step, values.clone(), wall_time).unwrap();
        let bytes = writer.into_inner();
        let records = records(&bytes);
        prop_assert_eq!(at(&records[1], &[1]), Field::Fixed64(wall_time.to_bits()));
        let found: Vec<_> = scalars(&records[1]).into_iter().map(|(tag, at, value)| (tag, at, value.to_bits())).collect();
        let written: Vec<_> = values.into_iter().map(|(tag, value)| (tag, step, value.to_bits())).collect();
        prop_assert_eq!(found, written);
    }
}
