//! Who started whom.

use std::collections::BTreeMap;

use super::record::ProcessRecord;

/// The processes of a stage, by who started them.
pub(super) struct Tree<'a> {
    processes: &'a [ProcessRecord],
    /// Of each process, the positions of those that it started.
    children: Vec<Vec<usize>>,
    roots: Vec<usize>,
}

impl<'a> Tree<'a> {
    /// The tree of these processes, which stand in the order of their beginnings. Who was started by nobody of them is a root.
    pub(super) fn of(processes: &'a [ProcessRecord]) -> Tree<'a> {
        let mut latest: BTreeMap<u32, usize> = BTreeMap::new();
        let mut tree = Tree { processes, children: vec![Vec::new(); processes.len()], roots: Vec::new() };
        for (position, process) in processes.iter().enumerate() {
            // A parent stands before its children, so that there are no circles; numbers come around.
            match process.ppid.and_then(|parent| latest.get(&parent)) {
                Some(parent) => tree.children[*parent].push(position),
                None => tree.roots.push(position),
            }
            latest.insert(process.pid, position);
        }
        tree
    }

    /// Every process behind its parent, with its depth from 0.
    pub(super) fn rows(&self) -> Vec<(usize, &'a ProcessRecord)> {
        let mut rows = Vec::with_capacity(self.processes.len());
        let mut open: Vec<(usize, usize)> = self.roots.iter().rev().map(|root| (0, *root)).collect();
        while let Some((depth, position)) = open.pop() {
            rows.push((depth, &self.processes[position]));
            open.extend(self.children[position].iter().rev().map(|child| (depth + 1, *child)));
        }
        rows
    }

    /// Builds a value for each process from those of its children, and returns those of the roots. Deeper than `depth` there are
    /// no children: what is below stands beside.
    pub(super) fn folded<T>(&self, depth: usize, mut build: impl FnMut(&ProcessRecord, Vec<T>) -> T) -> Vec<T> {
        let rows = self.rows();
        // From the last row to the first, all of a process' descendants are built before it.
        let mut waiting: Vec<Vec<T>> = (0..=depth + 1).map(|_| Vec::new()).collect();
        for (at, process) in rows.into_iter().rev() {
            let at = at.min(depth);
            let children = if at < depth { std::mem::take(&mut waiting[at + 1]) } else { Vec::new() };
            let built = build(process, children.into_iter().rev().collect());
            waiting[at].push(built);
        }
        let mut roots = std::mem::take(&mut waiting[0]);
        roots.reverse();
        roots
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn process(pid: u32, ppid: Option<u32>) -> ProcessRecord {
        ProcessRecord {
            pid,
            ppid,
            program: String::new(),
            arguments: Vec::new(),
            threads: vec![pid],
            began_ns: 0,
            ended_ns: None,
            exit_code: None,
        }
    }

    fn text(processes: &[ProcessRecord], depth: usize) -> String {
        let build = |process: &ProcessRecord, children: Vec<String>| format!("{}({})", process.pid, children.join(" "));
        Tree::of(processes).folded(depth, build).join(" ")
    }

    #[test]
    fn trees() {
        let chain: Vec<_> = (1..=5).map(|pid| process(pid, pid.checked_sub(1).filter(|parent| *parent > 0))).collect();
        assert_eq!(text(&chain, 64), "1(2(3(4(5()))))");
        assert_eq!(text(&chain, 2), "1(2(3() 4() 5()))");
        let wide =
            [process(1, None), process(2, Some(1)), process(3, Some(1)), process(4, Some(2)), process(9, Some(8))];
        assert_eq!(text(&wide, 64), "1(2(4()) 3()) 9()");
        // The number 2 comes around.
        let again = [process(1, None), process(2, Some(1)), process(2, Some(2)), process(3, Some(2))];
        assert_eq!(text(&again, 64), "1(2(2(3())))");
        assert_eq!(text(&[process(1, Some(1))], 64), "1()");
    }

    proptest! {
        #[test]
        fn nobody_is_lost(parents in prop::collection::vec((0_u32..12, 0_u32..12), 0..60), depth in 0_usize..5) {
            let processes: Vec<_> = parents.iter().map(|(pid, parent)| process(*pid, Some(*parent))).collect();
            prop_assert_eq!(Tree::of(&processes).rows().len(), processes.len());
            let mut count = 0;
            Tree::of(&processes).folded(depth, |_, _: Vec<()>| count += 1);
            prop_assert_eq!(count, processes.len());
            prop_assert_eq!(text(&processes, depth).matches('(').count(), processes.len());
        }
    }
}
