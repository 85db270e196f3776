//! Grouped cross-validation: folds that keep families together.

use std::collections::BTreeMap;

use bellwether_env_adapter::Label;
use rand::RngExt;

use super::error::EvaluationError;
use crate::streams::stream;

/// What the split needs to know of an episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoldItem {
    /// Family or intrusion, a number of [`Groups`](super::Groups).
    pub group: u32,
    /// What the sample is.
    pub label: Label,
    /// Hash of what was recorded, where exact duplicates shall stay together even across groups.
    pub content: Option<[u8; 16]>,
}

/// A set of episodes that must stay together.
#[derive(Clone, Copy, Debug, Default)]
struct Component {
    benign: u64,
    malicious: u64,
}

/// The fold of each episode, `0..folds`.
///
/// Groups are never split, and neither are exact duplicates: groups that share one are joined. Components are shuffled by
/// the seed, then dealt out from the largest share of its class to the smallest, each to the fold where the sum of squared
/// class shares grows least; ties go to the fold with fewer episodes, then to the lower number.
///
/// # Errors
/// [`EvaluationError::Folds`] below 2 folds, [`EvaluationError::TooFewGroups`] where a class has fewer components than
/// folds, so that some fold could not be evaluated.
pub fn grouped_folds(items: &[FoldItem], folds: u32, seed: u64) -> Result<Vec<u32>, EvaluationError> {
    if folds < 2 {
        return Err(EvaluationError::Folds { folds });
    }
    let component_of = components(items);
    let count = component_of.iter().map(|&component| component as usize + 1).max().unwrap_or(0);
    let mut sizes = vec![Component::default(); count];
    for (item, &component) in items.iter().zip(&component_of) {
        match item.label {
            Label::Benign => sizes[component as usize].benign += 1,
            Label::Malicious => sizes[component as usize].malicious += 1,
        }
    }
    for (class, groups) in [
        ("benign", sizes.iter().filter(|size| size.benign > 0).count()),
        ("malicious", sizes.iter().filter(|size| size.malicious > 0).count()),
    ] {
        if groups < folds as usize {
            return Err(EvaluationError::TooFewGroups { class, groups, folds });
        }
    }
    let total_benign = sizes.iter().map(|size| size.benign).sum::<u64>() as f64;
    let total_malicious = sizes.iter().map(|size| size.malicious).sum::<u64>() as f64;
    let share = |size: &Component| [size.benign as f64 / total_benign, size.malicious as f64 / total_malicious];

    let mut order: Vec<u32> = (0..count as u32).collect();
    let mut rng = stream(seed, "folds");
    for last in (1..order.len()).rev() {
        order.swap(last, rng.random_range(0..=last as u32) as usize);
    }
    let largest = |component: u32| share(&sizes[component as usize]).into_iter().fold(0.0, f64::max);
    order.sort_by(|&a, &b| largest(b).total_cmp(&largest(a)));

    let mut held = vec![([0.0f64; 2], 0u64); folds as usize];
    let mut fold_of_component = vec![0; count];
    for component in order {
        let size = &sizes[component as usize];
        let added = share(size);
        let growth = |fold: usize| -> f64 {
            let shares = held[fold].0;
            (0..2).map(|class| (2.0 * shares[class] + added[class]) * added[class]).sum()
        };
        let best = (0..held.len())
            .min_by(|&a, &b| growth(a).total_cmp(&growth(b)).then(held[a].1.cmp(&held[b].1)).then(a.cmp(&b)))
            .unwrap_or(0);
        for (class, added) in added.into_iter().enumerate() {
            held[best].0[class] += added;
        }
        held[best].1 += size.benign + size.malicious;
        fold_of_component[component as usize] = best as u32;
    }
    Ok(component_of.iter().map(|&component| fold_of_component[component as usize]).collect())
}

/// The component of each item, numbered by first appearance: items joined by a group or by a content.
fn components(items: &[FoldItem]) -> Vec<u32> {
    let mut parent: Vec<u32> = (0..items.len() as u32).collect();
    fn root(parent: &mut [u32], mut node: u32) -> u32 {
        while parent[node as usize] != node {
            parent[node as usize] = parent[parent[node as usize] as usize];
            node = parent[node as usize];
        }
        node
    }
    let mut first_of_group = BTreeMap::new();
    let mut first_of_content = BTreeMap::new();
    for (i, item) in items.iter().enumerate() {
        let same_group = *first_of_group.entry(item.group).or_insert(i as u32);
        let same_content =
            item.content.map_or(i as u32, |content| *first_of_content.entry(content).or_insert(i as u32));
        for other in [same_group, same_content] {
            let (a, b) = (root(&mut parent, i as u32), root(&mut parent, other));
            // The smaller root wins so that the numbering does not depend on the order of joins.
            parent[a.max(b) as usize] = a.min(b);
        }
    }
    let mut numbers = BTreeMap::new();
    (0..items.len() as u32)
        .map(|i| {
            let next = numbers.len() as u32;
            *numbers.entry(root(&mut parent, i)).or_insert(next)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn item(group: u32, malicious: bool, content: Option<u8>) -> FoldItem {
        FoldItem {
            group,
            label: if malicious { Label::Malicious } else { Label::Benign },
            content: content.map(|byte| [byte; 16]),
        }
    }

    #[test]
    fn classes_are_dealt_out_evenly() {
        // 40 benign loners and 10 intrusions of 3: with 5 folds, 8 benign and 6 malicious each.
        let mut items: Vec<FoldItem> = (0..40).map(|group| item(group, false, None)).collect();
        items.extend((0..30).map(|i| item(100 + i / 3, true, None)));
        let folds = grouped_folds(&items, 5, 3).unwrap();
        for fold in 0..5 {
            let in_fold = |malicious: bool| {
                let label = item(0, malicious, None).label;
                items.iter().zip(&folds).filter(|(item, f)| **f == fold && item.label == label).count()
            };
            assert_eq!((in_fold(false), in_fold(true)), (8, 6), "fold {fold}");
        }
    }

    #[test]
    fn the_seed_decides() {
        let items: Vec<FoldItem> = (0..60).map(|i| item(i, i % 3 == 0, None)).collect();
        assert_eq!(grouped_folds(&items, 5, 1), grouped_folds(&items, 5, 1));
        assert_ne!(grouped_folds(&items, 5, 1), grouped_folds(&items, 5, 2));
    }

    #[test]
    fn refusals() {
        let items = [item(0, false, None), item(1, false, None), item(2, true, None)];
        assert_eq!(grouped_folds(&items, 1, 0), Err(EvaluationError::Folds { folds: 1 }));
        assert_eq!(
            grouped_folds(&items, 2, 0),
            Err(EvaluationError::TooFewGroups { class: "malicious", groups: 1, folds: 2 })
        );
        assert!(grouped_folds(&[], 2, 0).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn neither_groups_nor_duplicates_are_split(
            rows in prop::collection::vec((0u32..40, any::<bool>(), prop::option::weighted(0.3, 0u8..20)), 1..120),
            folds in 2u32..6,
            seed: u64,
        ) {
            let items: Vec<FoldItem> = rows.iter().map(|&(group, malicious, content)| item(group, malicious, content)).collect();
            let Ok(fold_of) = grouped_folds(&items, folds, seed) else { return Ok(()) };
            prop_assert_eq!(fold_of.len(), items.len());
            for (a, fa) in items.iter().zip(&fold_of) {
                prop_assert!(*fa < folds);
                for (b, fb) in items.iter().zip(&fold_of) {
                    if a.group == b.group || (a.content.is_some() && a.content == b.content) {
                        prop_assert_eq!(fa, fb);
                    }
                }
            }
        }

        #[test]
        fn every_fold_holds_both_classes_where_groups_are_of_one_size(
            benign in 6u32..60, malicious in 6u32..30, folds in 2u32..6, seed: u64,
        ) {
            let mut items: Vec<FoldItem> = (0..benign).map(|group| item(group, false, None)).collect();
            items.extend((0..malicious * 2).map(|i| item(1000 + i / 2, true, None)));
            let fold_of = grouped_folds(&items, folds, seed).unwrap();
            for fold in 0..folds {
                for malicious in [false, true] {
                    let label = item(0, malicious, None).label;
                    prop_assert!(items.iter().zip(&fold_of).any(|(item, &f)| f == fold && item.label == label));
                }
            }
        }
    }
}
