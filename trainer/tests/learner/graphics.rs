//! Learners on graphics cards, where this build and this machine have some, against the fused learner on the processor.

use crate::agreement::{agrees_with_fused, takes_the_state_of_fused};
use crate::case::{Case, any_case};
use crate::subject::Subject;
use bellwether_trainer::learner::fused::Isa;
use bellwether_trainer::learner::{Device, LEARNERS, LearnerChoice, LearnerError};
use bellwether_trainer::network::NetworkShape;
use proptest::test_runner::{Config, TestRunner};

/// Graphics cards sum in other orders and have roots, exponentials and logarithms of their own.
const LOOSE: f64 = 25.0;

/// The devices that `learner` finds beside the processor. Where there are none, the skipped test is named.
fn cards(learner: &str, test: &str) -> Vec<Device> {
    let facts = LEARNERS.iter().find(|facts| facts.name == learner).unwrap();
    let cards: Vec<Device> = facts.devices().into_iter().filter(|device| *device != Device::Cpu).collect();
    if cards.is_empty() {
        println!("skipped: {test}: the learner {learner} of this build finds no graphics card");
    }
    cards
}

fn learns_as_fused_does<S: Subject>(make: impl Fn(NetworkShape, &[f32]) -> Result<S, LearnerError>) {
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(32) });
    let on_card = |case: &Case| make(case.shape.clone(), &case.parameters).unwrap().with_target(case);
    let ran = runner.run(&any_case(), |case| {
        agrees_with_fused(&case, on_card(&case), LOOSE);
        takes_the_state_of_fused(&case, on_card(&case));
        Ok(())
    });
    ran.unwrap();
}

#[cfg(feature = "burn")]
#[test]
fn burn_learns_on_graphics_cards_as_fused_does() {
    use bellwether_trainer::learner::burn::BurnLearner;
    for card in cards("burn", "burn_learns_on_graphics_cards_as_fused_does") {
        let named = LearnerChoice::named("burn", card, Isa::best());
        let Ok(LearnerChoice::Burn(device)) = named else { panic!("{card}: {named:?}") };
        learns_as_fused_does(|shape, parameters| BurnLearner::new(shape, parameters, device));
    }
}

#[cfg(feature = "tch")]
#[test]
fn tch_learns_on_graphics_cards_as_fused_does() {
    use bellwether_trainer::learner::tch::TchLearner;
    for card in cards("tch", "tch_learns_on_graphics_cards_as_fused_does") {
        let named = LearnerChoice::named("tch", card, Isa::best());
        let Ok(LearnerChoice::Tch(device)) = named else { panic!("{card}: {named:?}") };
        learns_as_fused_does(|shape, parameters| TchLearner::new(shape, parameters, device));
    }
}
