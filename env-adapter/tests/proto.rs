//! Events over the wire: what is sent arrives, and what no event can be is refused by name.

mod any_event;

use any_event::event;
use bellwether_env_adapter::proto::{Event, EventError, EventKind, MAX_TEXT_BYTES};
use bellwether_env_adapter::{Event as Record, EventKind as Kind};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn an_event_survives_the_wire(event in event()) {
        prop_assume!(!event.name.is_empty() && event.entropy.is_none_or(|entropy| (0.0..=8.0).contains(&entropy)));
        prop_assume!((1..=2).contains(&event.stage) && event.isolation.is_none_or(|level| level <= 3));
        let message = Event::from(&event.as_event());
        prop_assert_eq!(message.record(), Ok(event.as_event()));
    }
}

fn check(field: &str, change: impl FnOnce(&mut Event)) {
    let mut message = Event::from(&Record::named(0, Kind::File, "openat"));
    assert!(message.record().is_ok());
    change(&mut message);
    match message.record() {
        Err(EventError::Value { field: found, .. } | EventError::Long { field: found, .. }) => assert_eq!(found, field),
        Ok(record) => panic!("{field}: {record:?}"),
    }
}

#[test]
fn what_no_event_can_be_is_refused_by_name() {
    check("stage", |event| event.stage = 0);
    check("stage", |event| event.stage = 257);
    check("kind", |event| event.kind = EventKind::Unspecified.into());
    check("kind", |event| event.kind = 99);
    check("name", |event| event.name.clear());
    check("name", |event| event.name = "n".repeat(MAX_TEXT_BYTES + 1));
    check("path", |event| event.path = Some("p".repeat(MAX_TEXT_BYTES + 1)));
    check("path2", |event| event.path2 = Some("p".repeat(MAX_TEXT_BYTES + 1)));
    check("args", |event| event.args = Some("a".repeat(MAX_TEXT_BYTES + 1)));
    check("peer_addr", |event| event.peer_addr = Some("a".repeat(MAX_TEXT_BYTES + 1)));
    check("peer_port", |event| event.peer_port = Some(65_536));
    check("entropy", |event| event.entropy = Some(f32::NAN));
    check("entropy", |event| event.entropy = Some(8.5));
    check("entropy", |event| event.entropy = Some(-0.5));
    check("isolation", |event| event.isolation = Some(4));
    check("isolation", |event| event.isolation = Some(256));
}
