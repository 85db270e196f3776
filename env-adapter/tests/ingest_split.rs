//! Splits without leaks, and validation of files and of what they share.
#![cfg(feature = "ingest")]
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod arbitrary;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use arbitrary::{Episode, Kept, episodes, hand_to};
use bellwether_env_adapter::ingest::{
    ContentHash, DigestSink, EpisodeDigest, IngestError, Shares, Side, SplitBy, SplitList, SplitSink, TelemetryWriter,
    assign, fuzz, validate,
};
use bellwether_env_adapter::{EpisodeId, EventSink, Label};
use proptest::prelude::*;

fn digests() -> impl Strategy<Value = Vec<EpisodeDigest>> {
    let label = prop::option::of(prop_oneof![Just(Label::Benign), Just(Label::Malicious)]);
    let one = (label, prop::option::of(0u8..8), 0u8..20, 0u64..3);
    prop::collection::vec(one, 1..60).prop_map(|all| {
        let digest = |(index, (label, family, content, events)): (usize, (_, Option<u8>, u8, u64))| EpisodeDigest {
            episode_id: EpisodeId(format!("e{index}")),
            label,
            family: family.map(|family| format!("f{family}")),
            events,
            complete: true,
            content: ContentHash([content; 16]),
        };
        all.into_iter().enumerate().map(digest).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn nothing_leaks_and_nothing_is_lost(mut digests in digests(), seed in any::<u64>(), by_family in any::<bool>()) {
        let by = if by_family { SplitBy::Family } else { SplitBy::Content };
        let assignment = assign(&digests, by, Shares::default(), seed).unwrap();
        prop_assert_eq!(assignment.leaks.contents.count, 0);
        prop_assert!(!by_family || assignment.leaks.families.count == 0);
        let mut sides: BTreeMap<ContentHash, BTreeSet<Side>> = BTreeMap::new();
        for digest in &digests {
            let side = assignment.side(&digest.episode_id.0).unwrap();
            if digest.events > 0 {
                sides.entry(digest.content).or_default().insert(side);
            }
        }
        prop_assert!(sides.values().all(|sides| sides.len() == 1));
        let total: u64 = assignment.counts.iter().map(|counts| counts.benign + counts.malicious + counts.missing).sum();
        prop_assert_eq!(total, digests.len() as u64);
        // The order of the episodes does not matter.
        digests.reverse();
        let again = assign(&digests, by, Shares::default(), seed).unwrap();
        for digest in &digests {
            prop_assert_eq!(again.side(&digest.episode_id.0), assignment.side(&digest.episode_id.0));
        }
    }

    #[test]
    fn any_list_is_read_or_refused(text in "(id|trace|split|train|valid|test|[a-c]|,|\"|\n|\r\n| ){0,40}") {
        fuzz::fuzz_split_list(text.as_bytes());
        fuzz::fuzz_split_list(format!("id,split\n{text}").as_bytes());
    }

    #[test]
    fn a_split_copies_every_episode_to_its_side(episodes in episodes(6, 1..5), seed in any::<u64>()) {
        prop_assume!(!episodes.is_empty());
        let mut sink = DigestSink::default();
        hand_to(&episodes, &mut sink).unwrap();
        let assignment = assign(&sink.episodes, SplitBy::Content, Shares::default(), seed).unwrap();
        let mut split = SplitSink::new(&assignment, [Kept::default(), Kept::default(), Kept::default()]);
        hand_to(&episodes, &mut split).unwrap();
        for (kept, side) in split.into_sinks().into_iter().zip(Side::ALL) {
            let of_side = |episode: &&Episode| assignment.side(&episode.attributes.episode_id.0) == Some(side);
            prop_assert_eq!(kept.0, episodes.iter().filter(of_side).cloned().collect::<Vec<_>>());
        }
    }
}

fn many(count: usize) -> Vec<EpisodeDigest> {
    let digest = |index: usize| EpisodeDigest {
        episode_id: EpisodeId(format!("e{index}")),
        label: Some(if index.is_multiple_of(3) { Label::Malicious } else { Label::Benign }),
        family: Some(format!("f{}", index % 30)),
        events: 9,
        complete: true,
        content: ContentHash(u128::to_le_bytes(index as u128)),
    };
    (0..count).map(digest).collect()
}

#[test]
fn shares_are_met_for_each_class_and_seeds_differ() {
    let digests = many(600);
    let sides = |seed| {
        let assignment = assign(&digests, SplitBy::Family, Shares::default(), seed).unwrap();
        for (counts, share) in assignment.counts.iter().zip([0.7, 0.15, 0.15]) {
            for (found, total) in [(counts.benign, 400.0), (counts.malicious, 200.0)] {
                assert!((found as f64 / total - share).abs() < 0.11, "{:?}", assignment.counts);
            }
        }
        digests.iter().map(|digest| assignment.side(&digest.episode_id.0)).collect::<Vec<_>>()
    };
    assert_eq!(sides(1), sides(1));
    assert_ne!(sides(1), sides(2));
}

#[test]
fn what_cannot_be_split_says_why() {
    let digests = many(3);
    let error = |episodes: &[EpisodeDigest], by, shares| assign(episodes, by, shares, 0).unwrap_err().to_string();
    assert!(error(&[], SplitBy::Content, Shares::default()).contains("no episodes"));
    for shares in [(0.5, 0.2, 0.2), (1.5, -0.5, 0.0), (f64::NAN, 0.5, 0.5)] {
        let (train, valid, test) = shares;
        assert!(error(&digests, SplitBy::Content, Shares { train, valid, test }).contains("shares"));
    }
    let list = SplitList::read("id,split\nother,train\n".as_bytes()).unwrap();
    assert!(error(&digests, SplitBy::List(&list), Shares::default()).contains("none of the episodes"));
}

#[test]
fn a_list_names_episodes_or_their_files() {
    let text = "trace,label,split\r\ne0.txt,x,train\r\n\"e1\",y,valid\r\ngone.txt,z,test\r\n\r\n";
    let list = SplitList::read(text.as_bytes()).unwrap();
    assert_eq!(list.len(), 3);
    let assignment = assign(&many(3), SplitBy::List(&list), Shares::default(), 0).unwrap();
    let sides: Vec<_> = ["e0", "e1", "e2"].map(|id| assignment.side(id)).into();
    assert_eq!(sides, [Some(Side::Train), Some(Side::Valid), None]);
    assert_eq!(
        (assignment.unlisted.examples, assignment.absent.examples),
        (vec!["e2".to_owned()], vec!["gone.txt".to_owned()])
    );
    for (text, line) in [
        ("", 1),
        ("id,part\n", 1),
        ("name,split\n", 1),
        ("id,split\na,train\nb,middle\n", 3),
        ("id,split\na,train\na,test\n", 3),
        ("id,split\na.txt,train\na.log,test\n", 3),
        ("id,split\na\n", 2),
        ("id,split\n,train\n", 2),
    ] {
        match SplitList::read(text.as_bytes()) {
            Err(IngestError::SplitList { line: found, .. }) => assert_eq!(found, line, "{text:?}"),
            other => panic!("{text:?}: {other:?}"),
        }
    }
}

#[test]
fn validation_finds_what_files_share() {
    let folder = tempfile::tempdir().unwrap();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let tree = arbitrary::episode("a".to_owned(), 3..4).new_tree(&mut runner).unwrap();
    let mut first = proptest::strategy::ValueTree::current(&tree);
    first.attributes.label = Some(Label::Benign);
    first.attributes.family = Some("f".to_owned());
    let mut copy = first.clone();
    copy.attributes.episode_id.0 = "b".to_owned();
    let mut other = first.clone();
    other.attributes.episode_id.0 = "c".to_owned();
    other.attributes.family = None;
    other.events.truncate(2);
    let write = |name: &str, episodes: &[Episode]| {
        let path = folder.path().join(name);
        let file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).open(&path).unwrap();
        let mut writer = TelemetryWriter::new(file).unwrap();
        hand_to(episodes, &mut writer).unwrap();
        writer.finish().unwrap().0.flush().unwrap();
        path
    };
    let (train, clean, leaking) = (write("train", &[first.clone()]), write("clean", &[other]), write("leak", &[copy]));
    let report = validate(&[&train, &clean]);
    assert!(report.is_clean(), "{report}");
    let report = validate(&[&train, &leaking]);
    assert!(!report.is_clean());
    assert_eq!((report.leaks.contents.count, report.leaks.families.count, report.leaks.ids.count), (1, 1, 0));
    let report = validate(&[&train, &train]);
    assert_eq!(report.leaks.ids.count, 1);
    // What cannot be read is reported beside what can.
    let missing = folder.path().join("missing");
    let report = validate(&[&train, &missing]);
    assert!(report.files[0].error.is_none() && report.files[1].error.is_some() && !report.is_clean());
    let text = serde_json::to_string(&report).unwrap();
    assert!(text.contains("missing") && report.to_string().contains("not read to its end"));
    let mut sink = DigestSink::default();
    sink.begin(&first.attributes).unwrap();
    sink.end(true).unwrap();
    assert_eq!(sink.episodes[0].events, 0);
}
