//! The processes of an episode, as its events tell of them.

use std::collections::BTreeMap;

use bellwether_env_adapter::Event;
use bellwether_env_adapter::event::flags;

use super::record::ProcessRecord;

/// Processes of a stage that are described; what others did stands under their numbers alone.
const MOST_PROCESSES: usize = 16_384;

/// Threads of a process that are listed.
const MOST_THREADS: usize = 1_024;

/// Gathers processes from events, which come in the order of stage and number.
#[derive(Clone, Debug, Default)]
pub(super) struct Processes {
    stages: BTreeMap<u8, Stage>,
}

#[derive(Clone, Debug, Default)]
struct Stage {
    processes: Vec<ProcessRecord>,
    /// Where the last process of a number stands.
    latest: BTreeMap<u32, usize>,
    further: u64,
    events: u64,
    last_ns: u64,
}

impl Processes {
    /// Takes the next event.
    pub(super) fn event(&mut self, event: &Event<'_>) {
        let time_ns = event.time_ns.unwrap_or(0);
        let stage = self.stages.entry(event.stage).or_default();
        stage.events += 1;
        stage.last_ns = stage.last_ns.max(time_ns);
        let Some(pid) = event.pid else { return };
        let Some(at) = stage.place(pid, event.ppid, time_ns) else { return };
        let succeeded = event.ret.is_some_and(|ret| ret >= 0);
        match event.name {
            "clone" | "fork" | "vfork" if succeeded => {
                let Some(child) = event.ret.and_then(|child| u32::try_from(child).ok()) else { return };
                if event.flags.unwrap_or(0) & flags::THREAD != 0 {
                    let threads = &mut stage.processes[at].threads;
                    if threads.len() < MOST_THREADS {
                        threads.push(child);
                    }
                } else {
                    let ProcessRecord { program, arguments, .. } = stage.processes[at].clone();
                    // A number that comes around again is another process.
                    stage.latest.remove(&child);
                    if let Some(child) = stage.place(child, Some(pid), time_ns) {
                        let child = &mut stage.processes[child];
                        (child.program, child.arguments) = (program, arguments);
                    }
                }
            }
            "execve" | "execveat" if succeeded => {
                let process = &mut stage.processes[at];
                process.program = event.path.unwrap_or_default().to_owned();
                process.arguments = event.args.map(arguments).unwrap_or_default();
            }
            "exit_group" => {
                let process = &mut stage.processes[at];
                process.ended_ns = Some(time_ns);
                // The kernel keeps the lowest eight bits.
                process.exit_code = event.args.and_then(|code| code.trim().parse::<i32>().ok()).map(|code| code & 0xff);
            }
            _ => {}
        }
    }

    /// How many events a stage had, and when the last one was, in nanoseconds since the stage began.
    pub(super) fn seen(&self, stage: u8) -> (u64, u64) {
        self.stages.get(&stage).map_or((0, 0), |stage| (stage.events, stage.last_ns))
    }

    /// The processes of a stage in the order of their beginnings, and how many more there were.
    pub(super) fn take(&mut self, stage: u8) -> (Vec<ProcessRecord>, u64) {
        self.stages.remove(&stage).map(|stage| (stage.processes, stage.further)).unwrap_or_default()
    }
}

impl Stage {
    /// Where the process stands, which may be new; nowhere beyond the most that are described.
    fn place(&mut self, pid: u32, ppid: Option<u32>, began_ns: u64) -> Option<usize> {
        if let Some(at) = self.latest.get(&pid) {
            let process = &mut self.processes[*at];
            // Who made it stands in its own events; a sibling's maker is not its parent.
            process.ppid = ppid.or(process.ppid);
            return Some(*at);
        }
        if self.processes.len() == MOST_PROCESSES {
            self.further += 1;
            return None;
        }
        self.latest.insert(pid, self.processes.len());
        self.processes.push(ProcessRecord {
            pid,
            ppid,
            program: String::new(),
            arguments: Vec::new(),
            threads: vec![pid],
            began_ns,
            ended_ns: None,
            exit_code: None,
        });
        Some(self.processes.len() - 1)
    }
}

/// The list of arguments as it stands in an event, `["a", "b"]`, whose end may be cut off.
fn arguments(list: &str) -> Vec<String> {
    let inner = list.strip_prefix('[').unwrap_or(list);
    let inner = inner.strip_suffix(']').unwrap_or(inner);
    let inner = inner.strip_prefix('"').unwrap_or(inner);
    let inner = inner.strip_suffix('"').unwrap_or(inner);
    if inner.is_empty() { Vec::new() } else { inner.split("\", \"").map(str::to_owned).collect() }
}

#[cfg(test)]
mod tests {
    use bellwether_env_adapter::EventKind;
    use proptest::prelude::*;

    use super::*;

    fn call<'a>(pid: u32, ppid: Option<u32>, name: &'a str, ret: Option<i64>) -> Event<'a> {
        Event { stage: 1, pid: Some(pid), ppid, ret, ..Event::named(0, EventKind::Process, name) }
    }

    fn gathered(events: &[Event<'_>]) -> Vec<ProcessRecord> {
        let mut processes = Processes::default();
        events.iter().for_each(|event| processes.event(event));
        processes.take(1).0
    }

    #[test]
    fn what_became_of_each_process() {
        let run =
            Event { path: Some("/bin/sh"), args: Some(r#"["sh", "-c", "true"]"#), ..call(1, None, "execve", Some(0)) };
        let failed = Event { path: Some("/bin/no"), ..call(2, Some(1), "execve", Some(-1)) };
        let thread = Event { flags: Some(flags::THREAD), ..call(2, Some(1), "clone", Some(9)) };
        let exit = Event { args: Some("257"), time_ns: Some(5), ..call(2, Some(1), "exit_group", None) };
        let found =
            gathered(&[run, call(1, None, "fork", Some(2)), failed, thread, exit, call(1, None, "vfork", Some(2))]);
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(
            (found[0].program.as_str(), &found[0].arguments[..]),
            ("/bin/sh", &["sh", "-c", "true"].map(str::to_owned)[..])
        );
        assert_eq!(
            (found[1].ppid, found[1].program.as_str(), &found[1].threads[..]),
            (Some(1), "/bin/sh", &[2, 9][..])
        );
        assert_eq!((found[1].exit_code, found[1].ended_ns, found[2].exit_code), (Some(1), Some(5), None));
    }

    #[test]
    fn a_cut_list_of_arguments_reads_as_far_as_it_goes() {
        for (list, expected) in [
            ("[]", &[][..]),
            (r#"["a"]"#, &["a"]),
            (r#"["a", "b c", "d"#, &["a", "b c", "d"]),
            (r#"["a", ""]"#, &["a", ""]),
        ] {
            assert_eq!(arguments(list), expected, "{list}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Whatever events say, every number of a process is told of, parents stand before their children's records only by the
        /// order of their beginnings, and nothing panics.
        #[test]
        fn every_process_of_an_event_is_told_of(
            events in prop::collection::vec((0_u32..6, 0_u32..6, 0_usize..5, -2_i64..8), 0..60),
        ) {
            let names = ["fork", "execve", "exit_group", "openat", "clone"];
            let events: Vec<Event<'_>> =
                events.iter().map(|(pid, ppid, name, ret)| call(*pid, Some(*ppid), names[*name], Some(*ret))).collect();
            let found = gathered(&events);
            for event in &events {
                prop_assert!(found.iter().any(|process| Some(process.pid) == event.pid));
            }
        }
    }
}
