//! What was asked of each model through the Open Inference Protocol, over gRPC and HTTP.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bellwether_artifact::ModelVersion;

use super::answer::Refused;
use super::proto::inference::{InferStatistics, ModelStatistics, StatisticDuration};

/// Figures of the models that were asked last. One lock a request: what is counted together is told together.
#[derive(Debug, Default)]
pub(super) struct Statistics {
    models: Mutex<Vec<(ModelVersion, Figures)>>,
}

/// Where the time of a request went that was answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spent {
    pub(super) rows: usize,
    /// From the message to states and masks.
    pub(super) input: Duration,
    /// Deciding, of all rows.
    pub(super) infer: Duration,
    /// From values to the message.
    pub(super) output: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    rows: u64,
    answered: u64,
    input: Duration,
    infer: Duration,
    output: Duration,
    refused: u64,
    refusing: Duration,
    last: Option<SystemTime>,
}

/// Models whose figures are kept, far more than a policy holds.
const MOST: usize = 32;

impl Statistics {
    /// Counts a request that was answered.
    pub(super) fn answered(&self, model: ModelVersion, spent: Spent) {
        let Spent { rows, input, infer, output } = spent;
        let now = now();
        self.count(model, |figures| {
            figures.rows += rows as u64;
            figures.answered += 1;
            figures.input += input;
            figures.infer += infer;
            figures.output += output;
            figures.last = Some(now);
        });
    }

    /// Counts a request that the model refused; who asked for another model did not ask this one.
    pub(super) fn refused(&self, model: ModelVersion, refused: &Refused, time: Duration) {
        if !matches!(refused, Refused::NotServed { .. }) {
            self.count(model, |figures| {
                figures.refused += 1;
                figures.refusing += time;
            });
        }
    }

    /// What was asked of a model; zeros where nothing was.
    pub(super) fn tell(&self, name: &str, model: ModelVersion) -> ModelStatistics {
        let found = self.lock().iter().find(|(version, _)| *version == model).map(|(_, figures)| *figures);
        let Figures { rows, answered, input, infer, output, refused, refusing, last } = found.unwrap_or_default();
        let spent = |count, time: Duration| Some(StatisticDuration { count, ns: whole(time.as_nanos()) });
        let since = last.and_then(|last| last.duration_since(SystemTime::UNIX_EPOCH).ok());
        ModelStatistics {
            name: name.to_owned(),
            version: model.to_string(),
            last_inference: since.map_or(0, |since| whole(since.as_millis())),
            inference_count: rows,
            execution_count: rows,
            inference_stats: Some(InferStatistics {
                success: spent(answered, input + infer + output),
                fail: spent(refused, refusing),
                queue: spent(answered, Duration::ZERO),
                compute_input: spent(answered, input),
                compute_infer: spent(answered, infer),
                compute_output: spent(answered, output),
            }),
        }
    }

    fn count(&self, model: ModelVersion, change: impl FnOnce(&mut Figures)) {
        let mut models = self.lock();
        // The one that was asked last is behind.
        match models.iter().position(|(version, _)| *version == model) {
            Some(at) => models[at..].rotate_left(1),
            None => {
                if models.len() == MOST {
                    models.remove(0);
                }
                models.push((model, Figures::default()));
            }
        }
        if let Some((_, figures)) = models.last_mut() {
            change(figures);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(ModelVersion, Figures)>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn whole(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[expect(clippy::disallowed_methods, reason = "a statistic tells the time; no decision depends on it")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: usize) -> ModelVersion {
        format!("{number:016x}").parse().unwrap()
    }

    #[test]
    fn a_model_that_is_asked_keeps_its_figures_while_others_come_and_go() {
        let statistics = Statistics::default();
        let [input, infer, output] = [3, 5, 7].map(Duration::from_nanos);
        for number in 1..=100 {
            statistics.answered(version(number), Spent { rows: 1, input, infer, output });
            statistics.answered(version(0), Spent { rows: 2, input, infer, output });
        }
        let told = statistics.tell("a", version(0));
        assert_eq!((told.inference_count, told.execution_count), (200, 200));
        let InferStatistics { success, fail, compute_infer, .. } = told.inference_stats.unwrap();
        assert_eq!(success, Some(StatisticDuration { count: 100, ns: 1_500 }));
        assert_eq!(compute_infer, Some(StatisticDuration { count: 100, ns: 500 }));
        assert_eq!(fail, Some(StatisticDuration { count: 0, ns: 0 }));
        assert!(told.last_inference > 0);
        assert_eq!(statistics.lock().len(), MOST);
        assert_eq!(statistics.tell("a", version(69)).inference_count, 0);
        assert_eq!(statistics.tell("a", version(70)).inference_count, 1);
    }

    #[test]
    fn only_the_models_own_refusals_count() {
        let statistics = Statistics::default();
        let elsewhere = Refused::NotServed { asked: "7".to_owned(), served: "6".to_owned() };
        statistics.refused(version(1), &elsewhere, Duration::from_nanos(9));
        statistics.refused(version(1), &Refused::Malformed("a".to_owned()), Duration::from_nanos(4));
        let told = statistics.tell("a", version(1));
        assert_eq!(told.inference_stats.unwrap().fail, Some(StatisticDuration { count: 1, ns: 4 }));
        assert_eq!((told.last_inference, told.inference_count), (0, 0));
    }
}
