//! Episode files: what is written is what is read, and what is damaged or breaks a rule is refused.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

use bellwether_replay::episodes::{
    End, EpisodeFileHeader, EpisodeParts, EpisodeReader, EpisodeWriter, Expect, Loaded, Parts, PlayedParts, Step,
    StepRow, Written,
};
use bellwether_replay::{
    ActionMask, BufferConfig, Encoding, ReplayBuffer, ReplayError, SampleSpec, StateRows as _, fuzz,
};
use proptest::collection::vec;
use proptest::prelude::*;
use std::io::{self, Write};

const WIDTH: usize = 6;
const ACTIONS: u32 = 5;
const EXPECT: Expect<'_> = Expect { spec_hash: "spec-a", action_set: "2" };

fn header(encoding: Encoding) -> EpisodeFileHeader {
    EpisodeFileHeader {
        width: WIDTH,
        actions: ACTIONS,
        encoding,
        spec_hash: EXPECT.spec_hash.into(),
        action_set: EXPECT.action_set.into(),
        reward: r#"{"window":0.01}"#.into(),
        sources: vec!["sha256:aa".into(), "sha256:bb".into()],
        policy: None,
        q_values: false,
        safe_rule: false,
    }
}

/// The header of a file for these rows.
fn header_of(encoding: Encoding, rows: &[StepRow]) -> EpisodeFileHeader {
    let q_values = rows.iter().any(|row| row.q_values.is_some());
    let policy = q_values.then(|| r#"{"version":"b"}"#.to_owned());
    let safe_rule = rows.iter().any(|row| row.played.is_some_and(|played| played.safe_rule));
    EpisodeFileHeader { policy, q_values, safe_rule, ..header(encoding) }
}

fn encoding() -> impl Strategy<Value = Encoding> {
    prop_oneof![Just(Encoding::Dense), Just(Encoding::Sparse)]
}

/// Whole episodes with names of their own, ending in every way there is; all rows have q-values, or none, and some say who
/// decided.
fn episodes(most: usize) -> impl Strategy<Value = Vec<Vec<StepRow>>> {
    let value = || prop_oneof![3 => Just(0.0_f32), 1 => Just(-0.0_f32), 2 => -1e6_f32..1e6];
    let state = vec(value(), WIDTH);
    let values = (state, vec(value(), ACTIONS as usize));
    let step =
        (values, 0..ACTIONS, 0_u32..32, -1.0_f32..1.0, -1.0_f32..1.0, 0.001_f32..=1.0, 0_u64..100, any::<bool>());
    let label = prop_oneof![Just(None), Just(Some("benign".to_owned())), Just(Some("schädlich".to_owned()))];
    let episode = (vec(step, 1..20), 0..4_u32, any::<bool>(), label, "[a-z0-9]{1,8}");
    (vec(episode, 0..most), any::<bool>(), any::<bool>()).prop_map(|(episodes, valued, told)| {
        let mut all = Vec::new();
        for (number, (steps, end, partial, label, name)) in episodes.into_iter().enumerate() {
            let last = steps.len() - 1;
            let (mut stage, mut events_seen) = (1, 0);
            let mut rows = Vec::new();
            for (i, ((state, q_values), action, mask, r0, r1, behaviour_probability, events, second)) in
                steps.into_iter().enumerate()
            {
                stage = if second && i > last / 2 { 2 } else { stage };
                events_seen += events;
                // The final state of an episode that was cut off comes without an action.
                let safe_rule = told && mask % 3 == 0;
                let played = PlayedParts { action, r0, r1, behaviour_probability, safe_rule };
                let played = (i < last || end != 0).then_some(played);
                rows.push(StepRow {
                    episode_id: format!("{number}-{name}"),
                    step: i as u32,
                    stage,
                    state,
                    action_mask: ActionMask::from_bits(mask | 1 << action),
                    played,
                    end: (i == last).then_some(if end <= 1 { End::Truncated } else { End::Terminated }),
                    partial: i == last && partial,
                    label: label.clone(),
                    events_seen,
                    q_values: valued.then_some(q_values),
                });
            }
            all.push(rows);
        }
        all
    })
}

fn write(episodes: &[Vec<StepRow>], encoding: Encoding, group_bytes: usize) -> Vec<u8> {
    let header = header_of(encoding, &episodes.concat());
    let mut writer = EpisodeWriter::new(Vec::new(), header.clone()).unwrap().with_row_group_bytes(group_bytes);
    episodes.iter().flatten().for_each(|row| writer.write(&row.as_step()).unwrap());
    let (bytes, written) = writer.finish().unwrap();
    let partial = episodes.iter().filter(|rows| rows.last().unwrap().partial).count() as u64;
    let steps = episodes.iter().flatten().count() as u64;
    assert_eq!(written, Written { episodes: episodes.len() as u64, steps, partial });
    assert_eq!(EpisodeReader::from_bytes(bytes.clone(), None).unwrap().header(), &header);
    bytes
}

fn read(bytes: Vec<u8>) -> Result<Vec<StepRow>, ReplayError> {
    let mut reader = EpisodeReader::from_bytes(bytes, Some(EXPECT))?;
    let (mut rows, mut row) = (Vec::new(), StepRow::default());
    while reader.next(&mut row)? {
        rows.push(row.clone());
    }
    Ok(rows)
}

/// Rows with the bits of their states, which `==` on floats does not tell apart.
fn bits(rows: &[StepRow]) -> Vec<(StepRow, Vec<u32>)> {
    rows.iter().map(|row| (row.clone(), row.state.iter().map(|v| v.to_bits()).collect())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_written_is_what_is_read(episodes in episodes(12), encoding in encoding(), group_bytes in 1_usize..5000) {
        let bytes = write(&episodes, encoding, group_bytes);
        let rows = read(bytes.clone()).unwrap();
        prop_assert_eq!(bits(&rows), bits(&episodes.concat()));
        fuzz::fuzz_episode_file(&bytes);
        prop_assert_eq!(write(&episodes, encoding, group_bytes), bytes, "the same rows give the same bytes");
    }

    #[test]
    fn an_episode_that_breaks_off_is_kept_and_flagged(episodes in episodes(6), kept in 1_usize..20, group_bytes in 1_usize..5000) {
        prop_assume!(!episodes.is_empty());
        let mut rows = episodes.concat();
        // The last episode stops short of its end, anywhere.
        let last = episodes.last().unwrap();
        prop_assume!(last.len() > 1);
        rows.truncate(rows.len() - last.len() + kept.min(last.len() - 1));
        let header = header_of(Encoding::Sparse, &rows);
        let mut writer = EpisodeWriter::new(Vec::new(), header).unwrap().with_row_group_bytes(group_bytes);
        rows.iter().for_each(|row| writer.write(&row.as_step()).unwrap());
        let (bytes, written) = writer.finish().unwrap();
        let end = rows.last_mut().unwrap();
        (end.end, end.partial) = (Some(End::Truncated), true);
        let partial = rows.iter().filter(|row| row.partial).count() as u64;
        prop_assert_eq!(written, Written { episodes: episodes.len() as u64, steps: rows.len() as u64, partial });
        prop_assert_eq!(read(bytes).unwrap(), rows);
    }

    /// Every byte that a disk or a network may change or lose is noticed, or it did not matter.
    #[test]
    fn damage_is_refused_or_harmless(
        episodes in episodes(6), encoding in encoding(), at in any::<proptest::sample::Index>(), flip in 1_u8..=255, what in 0..4,
    ) {
        let mut bytes = write(&episodes, encoding, 500);
        let footer = {
            let end = bytes.len() - 8;
            end - u32::from_le_bytes(bytes[end..end + 4].try_into().unwrap()) as usize
        };
        match what {
            0 => bytes.truncate(at.index(bytes.len())),
            1 => { let at = at.index(footer); bytes[at] ^= flip; }
            _ => { let at = footer + at.index(bytes.len() - footer); bytes[at] ^= flip; }
        }
        match read(bytes) {
            Ok(rows) => {
                prop_assert!(what == 1 && episodes.is_empty(), "only where there are no rows, the start of the file is idle");
                prop_assert_eq!(rows, episodes.concat());
            }
            Err(error) => prop_assert!(error.to_string().len() > 20, "{}", error),
        }
    }

    /// With checksums that match, the rules still hold for every row that is given out.
    #[test]
    fn forgery_is_refused_or_harmless(
        episodes in episodes(6), encoding in encoding(), changes in vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = write(&episodes, encoding, 500);
        let end = bytes.len() - 8;
        let footer = end - u32::from_le_bytes(bytes[end..end + 4].try_into().unwrap()) as usize;
        changes.iter().for_each(|(at, byte)| bytes[footer + at.index(end - footer)] = *byte);
        // The body sets the checksum right.
        fuzz::fuzz_episode_file(&bytes);
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert!(read(bytes.clone()).is_err());
        fuzz::fuzz_episode_file(&bytes);
        // The same with the frame of a Parquet file around it.
        let length = (bytes.len() as u32).to_le_bytes();
        prop_assert!(read([&b"PAR1"[..], &bytes, &length, b"PAR1"].concat()).is_err());
    }

    #[test]
    fn parts_hold_whole_episodes_and_together_everything(episodes in episodes(12), per_part in 1_u64..5) {
        let header = header_of(Encoding::Sparse, &episodes.concat());
        let mut parts = EpisodeParts::new(Memory::default(), header, per_part).unwrap();
        for (ended, episode) in episodes.iter().enumerate() {
            for row in episode {
                // At any moment, what was closed holds all but the part under way.
                prop_assert_eq!(parts.closed_parts(), ended / per_part as usize);
                parts.write(&row.as_step()).unwrap();
            }
        }
        let (memory, written) = parts.finish().unwrap();
        prop_assert_eq!(written.episodes, episodes.len() as u64);
        prop_assert_eq!(memory.closed.len(), episodes.len().div_ceil(per_part as usize));
        let mut rows = Vec::new();
        for (part, (bytes, written)) in memory.closed.into_iter().enumerate() {
            let of_part = &episodes[part * per_part as usize..];
            prop_assert_eq!(written.episodes as usize, of_part.len().min(per_part as usize));
            rows.extend(read(bytes).unwrap());
        }
        prop_assert_eq!(rows, episodes.concat());
    }

    #[test]
    fn what_the_safe_rule_decided_is_no_transition_where_the_policy_alone_is_learned_from(
        episodes in episodes(8),
        encoding in encoding(),
    ) {
        let rows = episodes.concat();
        let bytes = write(&episodes, encoding, 500);
        let capacity = rows.len().max(2);
        let config = BufferConfig { width: WIDTH, actions: ACTIONS, capacity };
        let load = |reader: EpisodeReader| {
            let mut buffer = ReplayBuffer::new(config).unwrap();
            let (mut reader, stream) = (reader, buffer.add_stream());
            let loaded = reader.load(&mut buffer, stream, |_| 0.0).unwrap();
            (buffer, loaded, reader)
        };
        let open = || EpisodeReader::from_bytes(bytes.clone(), Some(EXPECT)).unwrap();
        let ((all, loaded, _), (alone, counted, mut reader)) = (load(open()), load(open().policy_alone()));
        prop_assert_eq!(counted, loaded, "counts are of what stands in the file");
        let spec = SampleSpec { gamma: 0.5, ..SampleSpec::default() };
        let mut transitions = 0;
        for (at, row) in rows.iter().enumerate() {
            let (before, after) = (all.transition(at as u32, &spec).unwrap(), alone.transition(at as u32, &spec).unwrap());
            let safe_rule = row.played.is_some_and(|played| played.safe_rule);
            prop_assert_eq!(after.is_some(), before.is_some() && !safe_rule);
            transitions += u64::from(after.is_some());
        }
        prop_assert_eq!(reader.survey(|_| {}).unwrap().transitions, transitions);
    }

    #[test]
    fn a_file_loads_into_a_buffer(episodes in episodes(8), encoding in encoding()) {
        let rows = episodes.concat();
        let bytes = write(&episodes, encoding, 500);
        let mut buffer = ReplayBuffer::new(BufferConfig { width: WIDTH, actions: ACTIONS, capacity: rows.len().max(2) }).unwrap();
        let stream = buffer.add_stream();
        let mut reader = EpisodeReader::from_bytes(bytes, Some(EXPECT)).unwrap();
        prop_assert_eq!(reader.rows(), rows.len() as u64);
        let loaded = reader.load(&mut buffer, stream, |row| row.played.map_or(f32::NAN, |parts| 0.75 * parts.r0 + 0.25 * parts.r1)).unwrap();
        prop_assert_eq!(loaded, Loaded {
            episodes: episodes.len() as u64,
            steps: rows.iter().filter(|row| row.played.is_some()).count() as u64,
            safe_rule: rows.iter().filter(|row| row.played.is_some_and(|played| played.safe_rule)).count() as u64,
            partial: rows.iter().filter(|row| row.partial).count() as u64,
        });
        prop_assert_eq!(buffer.states_held(), rows.len());
        let mut state = vec![0.0; WIDTH];
        let spec = SampleSpec { gamma: 0.5, ..SampleSpec::default() };
        for (at, row) in rows.iter().enumerate() {
            buffer.gather(at, &mut state);
            prop_assert_eq!(&state, &row.state);
            let transition = buffer.transition(at as u32, &spec).unwrap();
            match (row.played, row.end) {
                (None, _) | (Some(_), Some(End::Truncated)) => prop_assert_eq!(transition, None),
                (Some(played), end) => {
                    let transition = transition.unwrap();
                    prop_assert_eq!(transition.action, played.action);
                    prop_assert_eq!(transition.reward, 0.75 * played.r0 + 0.25 * played.r1);
                    prop_assert_eq!(transition.mask, row.action_mask);
                    let (discount, next) = if end.is_some() { (0.0, at) } else { (0.5, at + 1) };
                    prop_assert_eq!((transition.discount, transition.next_row as usize), (discount, next));
                }
            }
        }
    }
}

/// Parts in memory.
#[derive(Default)]
struct Memory {
    closed: Vec<(Vec<u8>, Written)>,
}

impl Parts for Memory {
    type Writer = Vec<u8>;
    fn open(&mut self, part: u32) -> io::Result<Vec<u8>> {
        assert_eq!(part as usize, self.closed.len());
        Ok(Vec::new())
    }
    fn close(&mut self, part: u32, writer: Vec<u8>, written: Written) -> io::Result<()> {
        assert_eq!(part as usize, self.closed.len());
        self.closed.push((writer, written));
        Ok(())
    }
}

fn step(episode_id: &str, step: u32, end: Option<End>) -> Step<'_> {
    Step {
        episode_id,
        step,
        stage: 1,
        state: &[0.0, 0.5, 0.0, 0.0, 1.0, 0.0],
        action_mask: ActionMask::from_bits(0b00111),
        played: Some(PlayedParts { action: 1, r0: 0.5, r1: -1.0, behaviour_probability: 0.5, safe_rule: false }),
        end,
        partial: false,
        label: Some("benign"),
        events_seen: 10,
        q_values: None,
    }
}

#[test]
fn a_step_that_breaks_a_rule_is_refused_with_its_place_and_the_next_may_come() {
    let end = Some(End::Terminated);
    let (zeros, nan) = ([0.0; WIDTH - 1], [f32::NAN; WIDTH]);
    let by = |action, r0, behaviour_probability, safe_rule| {
        Some(PlayedParts { action, r0, r1: 0.0, behaviour_probability, safe_rule })
    };
    let played = |action, r0, behaviour_probability| by(action, r0, behaviour_probability, false);
    let first = [
        ("a name", Step { episode_id: "", ..step("a", 0, None) }),
        ("begins with step 0", step("a", 1, None)),
        ("5 elements", Step { state: &zeros, ..step("a", 0, None) }),
        ("finite", Step { state: &nan, ..step("a", 0, None) }),
        ("mask", Step { action_mask: ActionMask::from_bits(0), ..step("a", 0, None) }),
        ("mask", Step { action_mask: ActionMask::from_bits(1 << 5), ..step("a", 0, None) }),
        ("forbids action 3", Step { played: played(3, 0.0, 0.5), ..step("a", 0, None) }),
        ("forbids action 300", Step { played: played(300, 0.0, 0.5), ..step("a", 0, None) }),
        ("not finite", Step { played: played(0, f32::NAN, 0.5), ..step("a", 0, None) }),
        ("probability", Step { played: played(0, 0.0, 0.0), ..step("a", 0, None) }),
        ("probability", Step { played: played(0, 0.0, f32::NAN), ..step("a", 0, None) }),
        ("no action", Step { played: None, ..step("a", 0, None) }),
        ("no action", Step { played: None, ..step("a", 0, end) }),
        ("partial", Step { partial: true, ..step("a", 0, None) }),
        ("who decided", Step { played: by(0, 0.0, 0.5, true), ..step("a", 0, None) }),
        ("has q-values", Step { q_values: Some(&zeros), ..step("a", 0, None) }),
    ];
    let second = [
        ("has not ended", step("b", 0, None)),
        ("step 1 comes next", step("a", 0, None)),
        ("step 1 comes next", step("a", 2, None)),
        ("stages never fall", Step { stage: 0, ..step("a", 1, None) }),
        ("they never fall", Step { events_seen: 9, ..step("a", 1, None) }),
        ("label changes", Step { label: None, ..step("a", 1, None) }),
    ];
    let mut writer = EpisodeWriter::new(Vec::new(), header(Encoding::Dense)).unwrap();
    let refuse = |writer: &mut EpisodeWriter<Vec<u8>>, cases: &[(&str, Step<'_>)]| {
        for (reason, wrong) in cases {
            let before = writer.written();
            let error = writer.write(wrong).unwrap_err();
            assert!(matches!(error, ReplayError::Step { .. }), "{error:?}");
            let (text, place) = (error.to_string(), format!("row {} (episode `{}`", before.steps, wrong.episode_id));
            assert!(text.contains(reason) && text.starts_with(&place), "{text} does not say `{reason}`");
            assert_eq!(writer.written(), before);
        }
    };
    refuse(&mut writer, &first);
    writer.write(&step("a", 0, None)).unwrap();
    refuse(&mut writer, &second);
    writer.write(&step("a", 1, end)).unwrap();
    refuse(&mut writer, &[("has ended", step("a", 2, end)), ("has ended", step("a", 0, None))]);
    writer.write(&step("b", 0, end)).unwrap();
    assert_eq!(read(writer.finish().unwrap().0).unwrap().len(), 3);
}

#[test]
fn q_values_stand_in_all_rows_or_in_none() {
    let header = EpisodeFileHeader { q_values: true, ..header(Encoding::Dense) };
    let mut writer = EpisodeWriter::new(Vec::new(), header).unwrap();
    let good = [-1.5, 0.0, 0.25, 1e-30, 3.0];
    let infinite = [f32::INFINITY; ACTIONS as usize];
    for (q_values, reason) in
        [(None, "has no q-values"), (Some(&good[1..]), "4 q-values"), (Some(&infinite[..]), "finite")]
    {
        let error = writer.write(&Step { q_values, ..step("a", 0, None) }).unwrap_err().to_string();
        assert!(error.contains(reason), "{error} does not say `{reason}`");
    }
    let step = Step { q_values: Some(&good), ..step("a", 0, Some(End::Terminated)) };
    writer.write(&step).unwrap();
    let rows = read(writer.finish().unwrap().0).unwrap();
    assert_eq!(rows.iter().map(StepRow::as_step).collect::<Vec<_>>(), [step]);
}

#[test]
fn another_specification_is_refused_by_name() {
    let bytes = write(&[], Encoding::Dense, 1000);
    for (expect, says) in [
        (Expect { spec_hash: "spec-b", ..EXPECT }, "the state specification `spec-a`, and `spec-b` is needed"),
        (Expect { action_set: "3", ..EXPECT }, "the set of actions `2`, and `3` is needed"),
    ] {
        let error = EpisodeReader::from_bytes(bytes.clone(), Some(expect)).unwrap_err();
        assert!(matches!(error, ReplayError::Mismatch { .. }) && error.to_string().contains(says), "{error}");
    }
    let reader = EpisodeReader::from_bytes(bytes, None).unwrap();
    assert_eq!(reader.header(), &header(Encoding::Dense));
}

#[test]
fn a_header_out_of_range_is_refused() {
    let good = header(Encoding::Dense);
    for wrong in [
        EpisodeFileHeader { width: 0, ..good.clone() },
        EpisodeFileHeader { width: 70_000, ..good.clone() },
        EpisodeFileHeader { actions: 0, ..good.clone() },
        EpisodeFileHeader { actions: 33, ..good.clone() },
        EpisodeFileHeader { sources: vec!["a\nb".into()], ..good.clone() },
        EpisodeFileHeader { sources: vec!["a\r".into()], ..good.clone() },
    ] {
        assert!(matches!(EpisodeWriter::new(Vec::new(), wrong), Err(ReplayError::Setting { .. })));
    }
    let parts = EpisodeParts::new(Memory::default(), good, 0);
    assert!(matches!(parts, Err(ReplayError::Setting { key: "episodes_per_part", .. })));
}

/// A disk that is full after some bytes.
struct Disk {
    left: usize,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let taken = bytes.len().min(self.left);
        self.left -= taken;
        Ok(taken)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_an_error_wherever_it_strikes() {
    let end = Some(End::Terminated);
    let whole = {
        let mut writer = EpisodeWriter::new(Vec::new(), header(Encoding::Sparse)).unwrap().with_row_group_bytes(1);
        ["a", "b", "c"].iter().for_each(|name| writer.write(&step(name, 0, end)).unwrap());
        writer.finish().unwrap().0.len()
    };
    for left in (0..whole).step_by(37) {
        let run = || {
            let mut writer = EpisodeWriter::new(Disk { left }, header(Encoding::Sparse))?.with_row_group_bytes(1);
            for name in ["a", "b", "c"] {
                writer.write(&step(name, 0, end))?;
            }
            writer.finish().map(|_| ())
        };
        let error = run().unwrap_err();
        assert!(matches!(error, ReplayError::Io { .. }), "{left} of {whole} bytes: {error:?}");
    }
}

#[test]
fn a_file_is_read_from_disk_as_from_memory() {
    let end = Some(End::Terminated);
    let mut writer =
        EpisodeWriter::new(tempfile::tempfile().unwrap(), header(Encoding::Sparse)).unwrap().with_row_group_bytes(1);
    ["a", "b", "c"].iter().for_each(|name| writer.write(&step(name, 0, end)).unwrap());
    let (file, _) = writer.finish().unwrap();
    let mut reader = EpisodeReader::open(file, Some(EXPECT)).unwrap();
    let mut row = StepRow::default();
    for name in ["a", "b", "c"] {
        assert!(reader.next(&mut row).unwrap());
        assert_eq!(row.as_step(), step(name, 0, end));
    }
    assert!(!reader.next(&mut row).unwrap() && !reader.next(&mut row).unwrap());
}
