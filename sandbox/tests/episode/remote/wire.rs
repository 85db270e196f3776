//! Nothing is lost or doubled on the way, however often the connection breaks.

use std::sync::Arc;

use bellwether_env_adapter::Action;
use bellwether_env_adapter::ingest::telemetry::TelemetryReader;
use bellwether_sandbox::episode::Partial;
use bellwether_sandbox::stage::{Fault, Question};
use proptest::prelude::*;

use super::super::{Paused, Rule, play};
use super::stages::{Busy, breaking, client, serve, setup};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Every event, question and feedback arrives once and in order, each action takes hold once; pauses are those of the
    /// schedule. Where the connection breaks too often in a row the episode says that the stage was lost.
    #[test]
    fn what_breaks_on_the_way_is_taken_up_where_it_ended(
        windows in prop::collection::vec(1u32..40, 1..12),
        raise in prop::collection::vec(any::<bool>(), 12),
        lives in prop::collection::vec(300usize..20_000, 0..6),
        verdict in prop_oneof![Just(Action::Release), Just(Action::Terminate)],
    ) {
        let folder = tempfile::tempdir().unwrap();
        let stage = Arc::new(Busy { windows: windows.clone(), ..Busy::default() });
        let (server, path) = serve(folder.path(), stage.clone(), |config| config.backlog_records = 64);
        let clock = Arc::new(Paused::default());
        let remote = client(&breaking(folder.path(), &path, lives.clone()), clock.clone());
        let setup = setup(folder.path(), b"sample");
        let mut judge = Rule(|question: &Question| Ok(match question.close.is_last() {
            true => verdict,
            false if raise[question.step as usize] && question.mask[1] => Action::RaiseIsolation,
            false => Action::Continue,
        }));
        let (report, _, outer) = play(&setup, [&remote, &remote], &mut judge);
        let pauses: Vec<u64> = clock.0.lock().unwrap().clone();
        prop_assert!(pauses.iter().chain(&outer).all(|pause| [1_000, 2_000, 4_000].contains(pause)), "{pauses:?}");
        for pair in pauses.windows(2).filter(|pair| pair[1] > 1_000) {
            prop_assert_eq!(pair[0] * 2, pair[1]);
        }

        let done = stage.done.lock().unwrap().clone();
        let decided: Vec<_> = report.decisions.iter().map(|decision| (decision.decision.clone(), decision.action)).collect();
        let carried: Vec<_> = done.iter().map(|command| (command.decision.clone(), command.action)).collect();
        prop_assert_eq!(&decided[..carried.len()], &carried[..], "each decision is carried out once, in order");

        let lost = report.outcomes.iter().flat_map(|outcome| &outcome.faults).any(|fault| matches!(fault, Fault::Lost { .. }));
        let unstarted = matches!(report.partial[..], [Partial::Unstarted { .. }]);
        if lives.len() <= 3 {
            prop_assert!(!lost && !unstarted, "at most three breaks in a row: {:?} {:?}", report.partial, report.outcomes);
        }
        let files = report.files.as_ref().unwrap();
        if !lost && !unstarted {
            let events: u64 = windows.iter().map(|events| u64::from(*events)).sum();
            prop_assert_eq!(files.events, events);
            prop_assert_eq!(&report.partial[..], &[][..]);
            prop_assert_eq!((report.verdict, carried.len()), (Some(verdict), windows.len()));
            prop_assert_eq!(report.strays, 0);
            drop(server);
        }
        let mut seen = Seen::default();
        TelemetryReader::open(&files.telemetry).unwrap().read(&mut seen).unwrap();
        prop_assert!(seen.0.iter().copied().eq(0..seen.0.len() as u64), "without a gap and in order");
        prop_assert_eq!(seen.0.len() as u64, files.events);
    }
}

#[derive(Default)]
struct Seen(Vec<u64>);

impl bellwether_env_adapter::EventSink for Seen {
    type Error = std::convert::Infallible;

    fn begin(&mut self, _: &bellwether_env_adapter::EpisodeAttributes) -> Result<(), Self::Error> {
        Ok(())
    }

    fn event(&mut self, event: &bellwether_env_adapter::Event<'_>) -> Result<(), Self::Error> {
        self.0.push(event.seq);
        Ok(())
    }

    fn end(&mut self, _: bool) -> Result<(), Self::Error> {
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// However many episodes share a stage, its client and its bounds, each has all of its own and nothing of another's.
    #[test]
    fn several_episodes_at_once_lose_nothing(
        episodes in prop::collection::vec(1u64..4, 2..6),
        windows in prop::collection::vec(1u32..40, 1..8),
        backlog in 1usize..64,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let stage = Arc::new(Busy { windows: windows.clone(), ..Busy::default() });
        let (server, path) = serve(folder.path(), stage.clone(), |config| {
            config.runs = episodes.len();
            config.backlog_records = backlog;
        });
        let remote = client(&path, Arc::new(Paused::default()));
        let events: u64 = windows.iter().map(|events| u64::from(*events)).sum();
        let reports: Vec<_> = std::thread::scope(|scope| {
            let played: Vec<_> = (0..).zip(&episodes).map(|(number, raise)| {
                let (folder, remote) = (folder.path().join(format!("{number}")), &remote);
                scope.spawn(move || {
                    let mut setup = setup(&folder, b"sample");
                    setup.episode = bellwether_env_adapter::EpisodeId(format!("e{number}"));
                    // Each raises at questions of its own.
                    let mut judge = Rule(|question: &Question| Ok(match question.close.is_last() {
                        true => Action::Release,
                        false if u64::from(question.step) % raise == 0 && question.mask[1] => Action::RaiseIsolation,
                        false => Action::Continue,
                    }));
                    play(&setup, [remote, remote], &mut judge).0
                })
            }).collect();
            played.into_iter().map(|played| played.join().unwrap()).collect()
        });
        for (report, raise) in reports.iter().zip(&episodes) {
            prop_assert_eq!((report.partial.len(), report.verdict, report.strays), (0, Some(Action::Release), 0));
            let files = report.files.as_ref().unwrap();
            let mut seen = Seen::default();
            TelemetryReader::open(&files.telemetry).unwrap().read(&mut seen).unwrap();
            prop_assert!(seen.0.iter().copied().eq(0..events), "without a gap and in order");
            prop_assert_eq!(report.decisions.len(), windows.len());
            let raised = (0..windows.len() as u64 - 1).filter(|step| step % raise == 0).count().min(3);
            let levels = report.decisions.iter().filter(|decision| decision.action == Action::RaiseIsolation).count();
            prop_assert_eq!(levels, raised);
        }
        prop_assert_eq!(stage.done.lock().unwrap().len(), episodes.len() * windows.len());
        prop_assert_eq!(server.runs(), (0, 0), "what was fetched is forgotten");
    }
}
