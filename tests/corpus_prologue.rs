//! The shipped recordings tell nothing of a run's class before its own work begins.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail loudly")]

use bellwether_env_adapter::ingest::TelemetryReader;
use bellwether_env_adapter::{EpisodeAttributes, Event, EventSink, FeatureSpec, Featurizer, Label, WindowConfig};

/// States of the episodes that have a prologue, at the mark between it and their work, and at their end.
struct States {
    featurizer: Featurizer,
    is_malicious: bool,
    malicious: Vec<bool>,
    /// Episodes without a prologue, benign and malicious ones.
    bare: [usize; 2],
    before: Vec<Vec<f32>>,
    whole: Vec<Vec<f32>>,
    marked: bool,
}

impl States {
    fn of(recordings: &'static [u8]) -> States {
        let mut states = States {
            featurizer: Featurizer::new(FeatureSpec::v1(WindowConfig::default())),
            is_malicious: false,
            malicious: Vec::new(),
            bare: [0; 2],
            before: Vec::new(),
            whole: Vec::new(),
            marked: false,
        };
        TelemetryReader::from_bytes(recordings).unwrap().read(&mut states).unwrap();
        states
    }
}

impl EventSink for States {
    type Error = std::convert::Infallible;

    fn begin(&mut self, attributes: &EpisodeAttributes) -> Result<(), Self::Error> {
        self.featurizer.begin(1, 0);
        self.is_malicious = attributes.label == Some(Label::Malicious);
        self.marked = false;
        Ok(())
    }

    fn event(&mut self, event: &Event<'_>) -> Result<(), Self::Error> {
        if !self.marked && event.path.is_some_and(|path| path.ends_with(bellwether_corpus::PAYLOAD_MARK)) {
            self.before.push(self.featurizer.close_window().as_slice().to_vec());
            self.malicious.push(self.is_malicious);
            self.marked = true;
        }
        self.featurizer.observe(event);
        Ok(())
    }

    fn end(&mut self, _complete: bool) -> Result<(), Self::Error> {
        if self.marked {
            self.whole.push(self.featurizer.close_window().as_slice().to_vec());
        } else {
            self.bare[usize::from(self.is_malicious)] += 1;
        }
        Ok(())
    }
}

/// Scores of a ridge logistic regression, each episode judged by a fit to the other four fifths.
///
/// The order of the file is drawn, so neighbours are of no common family; the folds are not grouped by family, because
/// an artefact of a family would count against the recordings, too.
fn cross_validated_scores(states: &[Vec<f32>], malicious: &[bool]) -> Vec<f64> {
    const FOLDS: usize = 5;
    let width = states[0].len();
    let mut scores = vec![0.0; states.len()];
    for fold in 0..FOLDS {
        let train: Vec<usize> = (0..states.len()).filter(|index| index % FOLDS != fold).collect();
        let count = train.len() as f64;
        let mut mean = vec![0.0; width];
        let mut variance = vec![0.0; width];
        for &index in &train {
            for (sum, &value) in mean.iter_mut().zip(&states[index]) {
                *sum += f64::from(value) / count;
            }
        }
        for &index in &train {
            for ((sum, &value), mean) in variance.iter_mut().zip(&states[index]).zip(&mean) {
                *sum += (f64::from(value) - mean).powi(2) / count;
            }
        }
        let scaled = |index: usize| -> Vec<f64> {
            let values = states[index].iter().zip(&mean).zip(&variance);
            values.map(|((&v, mean), variance)| (f64::from(v) - mean) / (variance.sqrt() + 1e-3)).collect()
        };
        let rows: Vec<(Vec<f64>, f64)> =
            train.iter().map(|&i| (scaled(i), f64::from(u8::from(malicious[i])))).collect();
        let share = rows.iter().map(|(_, label)| label).sum::<f64>() / count;
        let mut weights = vec![0.0; width];
        for _ in 0..60 {
            let mut gradient: Vec<f64> = weights.iter().map(|weight| 0.02 * weight).collect();
            for (row, label) in &rows {
                let margin: f64 = row.iter().zip(&weights).map(|(x, w)| x * w).sum();
                let class_weight = 0.5 / if *label > 0.5 { share } else { 1.0 - share };
                let pull = class_weight * (1.0 / (1.0 + (-margin).exp()) - label) / count;
                gradient.iter_mut().zip(row).for_each(|(sum, x)| *sum += pull * x);
            }
            weights.iter_mut().zip(&gradient).for_each(|(weight, slope)| *weight -= 0.1 * slope);
        }
        for index in (0..states.len()).filter(|index| index % FOLDS == fold) {
            scores[index] = scaled(index).iter().zip(&weights).map(|(x, w)| x * w).sum();
        }
    }
    scores
}

/// The share of pairs of one malicious and one benign episode that the scores order rightly; ties count half.
fn area_under_curve(scores: &[f64], malicious: &[bool]) -> f64 {
    let of = |class: bool| {
        let members = scores.iter().zip(malicious).filter(move |(_, label)| **label == class);
        members.map(|(score, _)| *score).collect::<Vec<_>>()
    };
    let (bad, good) = (of(true), of(false));
    let pairs = bad.iter().flat_map(|b| good.iter().map(move |g| b.total_cmp(g)));
    let right: f64 = pairs.map(|order| 0.5 * (1.0 + f64::from(order as i8))).sum();
    right / (bad.len() * good.len()) as f64
}

#[test]
fn a_classifier_on_the_prologue_does_not_beat_chance() {
    let states = States::of(bellwether_corpus::recordings());
    let malicious = states.malicious.iter().filter(|malicious| **malicious).count();
    let benign = states.malicious.len() - malicious;
    assert!(malicious >= 250 && benign >= 600, "{malicious} and {benign}");
    // Whether a run has a prologue says next to nothing either.
    let shares = [(states.bare[0], benign), (states.bare[1], malicious)]
        .map(|(bare, marked)| bare as f64 / (bare + marked) as f64);
    assert!((shares[0] - shares[1]).abs() < 0.1, "{shares:?} are bare");
    let before = area_under_curve(&cross_validated_scores(&states.before, &states.malicious), &states.malicious);
    let whole = area_under_curve(&cross_validated_scores(&states.whole, &states.malicious), &states.malicious);
    println!("AUC {before:.3} before the mark, {whole:.3} on the whole run");
    // The standard error of the area under chance is 0.0199 for these numbers of episodes; three of them are allowed.
    assert!(before < 0.560, "the prologue betrays the class: AUC {before:.3}");
    // The same classifier must be able to tell the classes where there is something to tell.
    assert!(whole > 0.9, "the classifier is too weak to prove anything: AUC {whole:.3}");
}
