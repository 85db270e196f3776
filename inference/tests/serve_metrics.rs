//! What a scrape says, read by an independent parser.
#![allow(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

mod manifests;
mod nets;

use std::collections::BTreeSet;

use bellwether_inference::Policy;
use bellwether_inference::policy::{Latency, Options};
use bellwether_inference::serve::metrics::Metrics;
use manifests::release;
use nets::{Draw, state_for};
use prometheus_parse::{Scrape, Value};
use proptest::prelude::*;

const WIDTHS: [usize; 3] = [12, 16, 5];

fn scrape(text: &str) -> Scrape {
    assert!(text.ends_with("# EOF\n"), "{text}");
    Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap()
}

/// The value of a row without labels, where the parser keeps it to itself.
fn plain(text: &str, name: &str) -> f64 {
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("{name} is not in {text}")).parse().unwrap()
}

/// The value of the one row that has all these labels.
fn value(scrape: &Scrape, name: &str, labels: &[(&str, &str)]) -> f64 {
    let has = |sample: &&prometheus_parse::Sample| {
        sample.metric == name && labels.iter().all(|(label, value)| sample.labels.get(label) == Some(*value))
    };
    let found: Vec<_> = scrape.samples.iter().filter(has).collect();
    let [sample] = found.as_slice() else { panic!("{name} {labels:?}: {found:?}") };
    match sample.value {
        Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => value,
        ref other => panic!("{name}: {other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_scrape_says_what_was_decided_and_refused(
        decisions in 0_usize..60,
        refusals in 0_usize..20,
        swap in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let (first, second) = (Draw(seed).mlp(&WIDTHS), Draw(seed ^ 1).mlp(&WIDTHS));
        let options = Options { time_every: 1, ..Options::default() };
        let policy = Policy::new(release(&first), Some(4), options).unwrap();
        let metrics = Metrics::of_policy(&policy);
        let mut decider = policy.decider();
        let (mut by_action, mut certified) = (vec![0.0; 5], 0.0);
        for number in 0..decisions {
            let answer = decider.decide(&state_for(&first, seed ^ number as u64), &[true; 5]).unwrap();
            by_action[answer.decision.action] += 1.0;
            certified += f64::from(u8::from(answer.decision.certified));
        }
        for _ in 0..refusals {
            prop_assert!(decider.decide(&[f32::NAN; 12], &[true; 5]).is_err());
        }
        let version = policy.status().champion.version.to_string();
        if swap {
            // The same model again, under another number: its counts go on in the same rows.
            policy.swap(release(&first), Some(5)).unwrap();
            policy.swap(release(&second), None).unwrap();
        }
        let text = metrics.render();
        let page = scrape(&text);
        let model = ("model_version", version.as_str());
        for (action, count) in policy.actions().iter().zip(by_action) {
            prop_assert_eq!(value(&page, "bellwether_decisions_total", &[model, ("action", action)]), count);
        }
        prop_assert_eq!(value(&page, "bellwether_decisions_certified_total", &[model]), certified);
        prop_assert_eq!(value(&page, "bellwether_model_overflows_total", &[model]), 0.0);
        let reason = [("reason", "non_finite_state")];
        prop_assert_eq!(value(&page, "bellwether_decision_refusals_total", &reason), refusals as f64);
        prop_assert_eq!(value(&page, "bellwether_decision_refusals_total", &[("reason", "state_width")]), 0.0);
        prop_assert_eq!(value(&page, "bellwether_model_swaps_total", &[]), if swap { 2.0 } else { 0.0 });
        let (role, number) = if swap { ("previous", "5") } else { ("champion", "4") };
        let info = [model, ("role", role), ("model_number", number)];
        prop_assert_eq!(value(&page, "bellwether_model_info", &info), 1.0);
        prop_assert_eq!(value(&page, "bellwether_models_resident", &[]), if swap { 2.0 } else { 1.0 });
        let histogram = page.samples.iter().find(|sample| sample.metric == "bellwether_decision_duration_seconds");
        let Some(Value::Histogram(buckets)) = histogram.map(|sample| &sample.value) else { panic!("{page:?}") };
        prop_assert_eq!(buckets.len(), Latency::BOUNDS + 1);
        prop_assert_eq!((buckets[0].less_than, buckets[20].less_than), (2.5e-7, f64::INFINITY));
        prop_assert!(buckets.array_windows().all(|[low, high]| low.less_than < high.less_than && low.count <= high.count));
        prop_assert_eq!(buckets[20].count, decisions as f64);
        prop_assert_eq!(plain(&text, "bellwether_decision_duration_seconds_count"), decisions as f64);
        // Every decision is at least as long as the bucket below it says, and no longer than its own.
        let sum = plain(&text, "bellwether_decision_duration_seconds_sum");
        let single = |bucket: usize| buckets[bucket].count - if bucket == 0 { 0.0 } else { buckets[bucket - 1].count };
        let low: f64 = (1..=20).map(|bucket| single(bucket) * buckets[bucket - 1].less_than).sum();
        prop_assert!(sum >= low && sum.is_finite());
    }
}

#[test]
fn no_row_is_told_twice_and_rows_stay_few_however_often_models_change() {
    let network = |seed| Draw(seed).mlp(&WIDTHS);
    let policy = Policy::new(release(&network(0)), Some(0), Options::default()).unwrap();
    let metrics = Metrics::of_policy(&policy);
    let mut decider = policy.decider();
    for seed in 1..60 {
        policy.swap(release(&network(seed)), Some(seed as u32)).unwrap();
        decider.decide(&state_for(&network(seed), seed), &[true; 5]).unwrap();
    }
    let text = metrics.render();
    let rows: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let names: BTreeSet<&str> = rows.iter().map(|row| row.rsplit_once(' ').unwrap().0).collect();
    assert_eq!(names.len(), rows.len());
    // 32 models that are gone, and two in memory.
    let decided = rows.iter().filter(|row| row.starts_with("bellwether_decisions_total{")).count();
    assert_eq!(decided, (32 + 2) * 5);
}
