//! Arbitrary episodes, and a sink that keeps them.
#![allow(dead_code, unreachable_pub, reason = "each test takes what it needs")]

use std::convert::Infallible;

use bellwether_env_adapter::{EpisodeAttributes, EpisodeId, Event, EventBuf, EventKind, EventSink, Label};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

/// An episode as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Episode {
    pub attributes: EpisodeAttributes,
    pub events: Vec<EventBuf>,
}

/// Keeps all episodes; `complete` in their attributes is what was said at the end.
#[derive(Default)]
pub struct Kept(pub Vec<Episode>);

impl EventSink for Kept {
    type Error = Infallible;

    fn begin(&mut self, attributes: &EpisodeAttributes) -> Result<(), Infallible> {
        self.0.push(Episode { attributes: attributes.clone(), events: Vec::new() });
        Ok(())
    }

    fn event(&mut self, event: &Event<'_>) -> Result<(), Infallible> {
        self.0.last_mut().unwrap().events.push(event.into());
        Ok(())
    }

    fn end(&mut self, complete: bool) -> Result<(), Infallible> {
        self.0.last_mut().unwrap().attributes.complete = complete;
        Ok(())
    }
}

pub fn hand_to<S: EventSink>(episodes: &[Episode], sink: &mut S) -> Result<(), S::Error> {
    for episode in episodes {
        // Many sources learn only at the end that a recording was cut short.
        let attributes = EpisodeAttributes { complete: true, ..episode.attributes.clone() };
        sink.begin(&attributes)?;
        for event in &episode.events {
            sink.event(&event.as_event())?;
        }
        sink.end(episode.attributes.complete)?;
    }
    Ok(())
}

pub fn kind() -> impl Strategy<Value = EventKind> {
    prop_oneof![
        Just(EventKind::Syscall),
        Just(EventKind::File),
        Just(EventKind::Network),
        Just(EventKind::Process),
        Just(EventKind::Memory),
        Just(EventKind::Behaviour),
    ]
}

type Text = Option<String>;

/// An event; `seq` is the distance from the event before it and is made absolute by [`episode`].
pub fn event() -> impl Strategy<Value = EventBuf> {
    let place = (0u64..3, of(any::<u64>()), of(any::<u32>()), of(any::<u32>()), of(any::<u32>()));
    let texts = (
        prop_oneof!["[a-z]{1,12}", "\\PC{1,12}", Just("openat".to_owned())],
        of(any::<String>()),
        of(any::<String>()),
        of(any::<String>()),
        of(any::<String>()),
    );
    let numbers = (of(any::<u16>()), of(any::<u64>()), of(0f32..=8.0), of(any::<i64>()), of(any::<i32>()));
    let bits = (of(any::<u32>()), of(any::<bool>()), of(any::<bool>()), of(0u8..=3), of(any::<bool>()));
    (kind(), place, texts, numbers, bits).prop_map(
        |(
            kind,
            (gap, time_ns, pid, tid, ppid),
            (name, path, path2, args, peer_addr),
            (peer_port, bytes, entropy, ret, errno),
            (flags, created, denied, isolation, raced),
        ): (_, _, (String, Text, Text, Text, Text), _, _)| EventBuf {
            stage: 1,
            seq: gap,
            time_ns,
            pid,
            tid,
            ppid,
            kind,
            name,
            path,
            path2,
            args,
            peer_addr,
            peer_port,
            bytes,
            entropy,
            ret,
            errno,
            flags,
            created,
            denied,
            isolation,
            raced,
        },
    )
}

/// One episode of `sizes` events over one or two stages.
pub fn episode(id: String, sizes: std::ops::Range<usize>) -> impl Strategy<Value = Episode> {
    let label = of(prop_oneof![Just(Label::Benign), Just(Label::Malicious)]);
    let attributes = (label, of(any::<String>()), of("[a-z-]{1,8}"), of("[0-9a-f]{64}"), any::<bool>());
    (attributes, vec(event(), sizes), any::<prop::sample::Index>()).prop_map(move |(attributes, mut events, second)| {
        let (label, family, source, sample_sha256, complete) = attributes;
        let second = second.index(events.len() + 1);
        let mut next = 0;
        for (index, event) in events.iter_mut().enumerate() {
            if index == second {
                next = 0;
            }
            event.stage = if index < second { 1 } else { 2 };
            event.seq += next;
            next = event.seq + 1;
        }
        let episode_id = EpisodeId(id.clone());
        let attributes = EpisodeAttributes { episode_id, label, family, source, sample_sha256, complete };
        Episode { attributes, events }
    })
}

/// Episodes with different ids.
pub fn episodes(count: usize, sizes: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Episode>> {
    let one = move |index: usize| {
        let sizes = sizes.clone();
        "\\PC{0,6}".prop_flat_map(move |tail| episode(format!("{index}-{tail}"), sizes.clone()))
    };
    (0..=count).prop_flat_map(move |count| (0..count).map(&one).collect::<Vec<_>>())
}
