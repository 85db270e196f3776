//! Whatever sources, operators and files do, a watched policy serves what a few rules say: random sequences against a model of them.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a failed set-up is a failed test, and its files need not outlive a power cut"
)]

mod manifests;
mod nets;
mod released;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use bellwether_artifact::Sha256;
use bellwether_artifact::release::ONNX_FILE;
use bellwether_inference::model::Contract;
use bellwether_inference::policy::Options;
use bellwether_inference::watch::{Reason, Source, SourceError, VersionPolicy, Wanted, WatchOptions, Watcher, open};
use bellwether_inference::{Policy, Precision};
use proptest::prelude::*;
use released::{Releases, contract, network, patient};

/// Wants whatever number was put there, of releases in this folder.
#[derive(Clone)]
struct Wish(Arc<Mutex<Option<u32>>>, PathBuf);

impl Source for Wish {
    fn describe(&self) -> String {
        "a wish".to_owned()
    }

    fn wanted(&mut self) -> Result<Option<Wanted>, SourceError> {
        let number = *self.0.lock().unwrap();
        let folder = |number: u32| self.1.join(format!("{number:06}"));
        Ok(number.map(|number| Wanted { folder: folder(number), number: Some(number), within: None }))
    }

    fn find(&mut self, which: &VersionPolicy) -> Result<Option<Wanted>, SourceError> {
        let VersionPolicy::Pinned(number) = which else { unreachable!("only numbers are looked for") };
        Wish(Arc::new(Mutex::new(Some(*number))), self.1.clone()).wanted()
    }
}

/// What may happen to a watched policy.
#[derive(Clone, Copy, Debug)]
enum Step {
    Want(u32),
    RollBack,
    SwapByHand(u32),
    Pin,
    Unpin,
    Forgive,
    /// The program ends, and one begins that knows what this one wrote down.
    Restart,
}

/// Numbers 1 to 3 are sound, 4 is damaged and 5 reads other states.
const SOUND: u32 = 3;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..=5_u32).prop_map(Step::Want),
        2 => Just(Step::RollBack),
        1 => (1..=SOUND).prop_map(Step::SwapByHand),
        1 => Just(Step::Pin),
        2 => Just(Step::Unpin),
        1 => Just(Step::Forgive),
        2 => Just(Step::Restart),
    ]
}

/// The rules, without files, threads and networks.
#[derive(Debug)]
struct Rules {
    champion: u32,
    previous: Option<u32>,
    pinned: bool,
    rolled_back: BTreeSet<u32>,
    refused: BTreeSet<u32>,
    settled: Option<u32>,
    wanted: u32,
    /// Whether what is wanted was served since it is wanted.
    brought: bool,
    swapped: u64,
    refusals: u64,
}

impl Rules {
    fn install(&mut self, number: u32) {
        self.previous = Some(std::mem::replace(&mut self.champion, number));
        self.rolled_back.remove(&number);
    }

    fn look(&mut self) {
        let wanted = self.wanted;
        if self.settled == Some(wanted) || self.pinned {
            return;
        }
        self.settled = Some(wanted);
        if self.refused.contains(&wanted) {
            return;
        }
        if wanted == self.champion {
            self.brought = true;
            return;
        }
        if wanted > SOUND || self.rolled_back.contains(&wanted) {
            self.refused.insert(wanted);
            self.refusals += 1;
        } else {
            self.install(wanted);
            self.brought = true;
            self.swapped += 1;
        }
    }

    /// What another program does not know: refused files, which it looks at again, counts, and the model before this one.
    fn restart(&mut self) {
        self.settled = Some(self.wanted).filter(|wanted| self.brought && !self.rolled_back.contains(wanted));
        self.refused.clear();
        self.previous = None;
        (self.swapped, self.refusals) = (0, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_happens_the_rules_say_what_is_served(steps in proptest::collection::vec(step(), 1..16)) {
        let releases = shelf();
        let wish = Wish(Arc::new(Mutex::new(Some(1))), releases.root().to_path_buf());
        let folder = tempfile::tempdir().unwrap();
        let options = WatchOptions { memory: Some(folder.path().join("memory.json")), ..patient() };
        let start = || {
            let (release, number) = open(&mut wish.clone(), |_| contract(), &options).unwrap();
            let precision = Precision::Exact;
            let policy = Policy::new(release, number, Options { precision, ..Options::default() }).unwrap();
            let watcher = Watcher::start(policy.clone(), wish.clone(), options.clone()).unwrap();
            (policy, watcher)
        };
        let (mut policy, mut watcher) = start();
        let mut rules = Rules {
            champion: 1,
            previous: None,
            pinned: false,
            rolled_back: BTreeSet::new(),
            refused: BTreeSet::new(),
            settled: None,
            wanted: 1,
            brought: false,
            swapped: 0,
            refusals: 0,
        };
        watcher.check_now();
        rules.look();
        for step in steps {
            match step {
                Step::Want(number) => {
                    *wish.0.lock().unwrap() = Some(number);
                    rules.brought &= rules.wanted == number;
                    rules.wanted = number;
                }
                Step::RollBack => {
                    let done = policy.roll_back().is_ok();
                    prop_assert_eq!(done, !rules.pinned && rules.previous.is_some());
                    if let Some(previous) = rules.previous.filter(|_| done) {
                        let bad = std::mem::replace(&mut rules.champion, previous);
                        if bad != previous {
                            rules.rolled_back.insert(bad);
                        }
                        rules.previous = None;
                    }
                }
                Step::SwapByHand(number) => {
                    let done = policy.swap(manifests::release(&network(u64::from(number))), Some(number)).is_ok();
                    prop_assert_eq!(done, !rules.pinned);
                    if done {
                        rules.install(number);
                    }
                }
                Step::Pin => { policy.pin(); rules.pinned = true; }
                Step::Unpin => { policy.unpin(); rules.pinned = false; }
                Step::Forgive => {
                    watcher.forgive();
                    rules.rolled_back.clear();
                    rules.refused.clear();
                    rules.settled = None;
                    rules.brought = false;
                }
                Step::Restart => {
                    watcher.write_down();
                    drop(watcher);
                    (policy, watcher) = start();
                    rules.restart();
                }
            }
            let status = watcher.check_now();
            rules.look();
            let counts = watcher.counts();
            let refusals: u64 = Reason::ALL.into_iter().map(|reason| counts.refused(reason)).sum();
            prop_assert_eq!(status.serving.number, Some(rules.champion), "{:?}", rules);
            prop_assert_eq!((counts.swapped, refusals), (rules.swapped, rules.refusals), "{:?}", rules);
            let previous = policy.status().previous.and_then(|model| model.number);
            prop_assert_eq!(previous, rules.previous, "{:?}", rules);
            prop_assert_eq!(policy.status().models_resident, 1 + usize::from(previous.is_some()));
        }
    }
}

/// The releases that the rules speak of, published once.
fn shelf() -> &'static Releases {
    static SHELF: OnceLock<Releases> = OnceLock::new();
    SHELF.get_or_init(|| {
        let releases = Releases::new();
        for number in 2..=4 {
            releases.add(number, &network(u64::from(number)));
        }
        let damaged = releases.folder(4).join(ONNX_FILE);
        let mut bytes = fs::read(&damaged).unwrap();
        bytes[200] ^= 1;
        fs::write(&damaged, bytes).unwrap();
        let other = Contract { feature_spec: Sha256::of(b"other"), ..contract() };
        releases.add_changed(5, &network(5), &other, |_| {});
        releases
    })
}
