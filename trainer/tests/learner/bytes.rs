//! Instruction sets and threads do not change a byte.

use crate::case::{Case, any_case, draw};
use crate::gradient::learner;
use bellwether_trainer::learner::fused::{FusedOptions, Isa};
use bellwether_trainer::learner::{Learner, LearnerState, UpdateReport, UpdateSpec};
use proptest::prelude::*;

#[derive(Debug, PartialEq)]
struct Outcome {
    report: [u32; 5],
    errors: Vec<u32>,
    state: [Vec<u32>; 4],
    q: Vec<u32>,
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn run(case: &Case, options: FusedOptions) -> Outcome {
    let mut learner = learner(case, options);
    let mut errors = Vec::new();
    let mut report = UpdateReport::default();
    for _ in 0..2 {
        report = case.with_batch(|batch, noise| learner.update(&case.spec, batch, noise, &mut errors)).unwrap();
    }
    let mut q = Vec::new();
    learner.q_values(&case.states(), &[], &mut q).unwrap();
    let LearnerState { online, target, first_moment, second_moment, .. } = learner.state();
    Outcome {
        report: [report.loss, report.mean_q, report.mean_target, report.max_error, report.gradient_norm]
            .map(f32::to_bits),
        errors: bits(&errors),
        state: [&online, &target, &first_moment, &second_moment].map(|values| bits(values)),
        q: bits(&q),
    }
}

fn check(case: &Case) {
    let reference = run(case, FusedOptions { isa: Isa::Scalar, threads: 1 });
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        for threads in [1, 2, 3] {
            if (isa, threads) != (Isa::Scalar, 1) {
                assert_eq!(run(case, FusedOptions { isa, threads }), reference, "{isa:?} with {threads} threads");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_instruction_set_and_number_of_threads_gives_the_same_bytes(case in any_case()) {
        check(&case);
    }
}

#[test]
fn the_usual_network_gives_the_same_bytes() {
    for (rows, double) in [(1, false), (32, true), (67, false)] {
        let spec =
            UpdateSpec { double, normaliser: rows as f32, dropout: vec![0.3, 0.5, 0.0], ..UpdateSpec::default() };
        check(&draw(vec![64, 256, 256, 6], rows, rows, 1, spec, 9));
    }
}
