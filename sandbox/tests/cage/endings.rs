//! How samples end, and that nothing of them is left.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bellwether_sandbox::Limits;
use bellwether_sandbox::cage::{Cage, Ending, Program};
use bellwether_sandbox::isolation::{Proof, terminate};

use crate::runs::{PATIENCE, can_cage, compiled, lives, run, shell, start};

#[test]
fn a_command_runs_as_the_user_and_to_its_end() {
    if !can_cage() {
        return;
    }
    let (ending, text) = run(shell("id -u; id -g; hostname; pwd; exit 3"));
    assert_eq!((ending, text.as_str()), (Ending::Code(3), "1000\n1000\ndesk\n/home/user/work\n"));
}

#[test]
fn a_start_that_fails_says_at_which_step_and_leaves_nothing() {
    if !can_cage() {
        return;
    }
    let groups = groups_of(std::process::id());
    let mut plan = shell("true");
    plan.program = Program::Path("/no/such/program".to_owned());
    let held = Cage::start(&plan).unwrap();
    let (init, first) = (held.enclosure.init(), held.pid.as_raw_nonzero().get());
    held.gate.open().unwrap();
    assert_eq!(held.enclosure.wait(PATIENCE).unwrap(), Some(Ending::Code(127)));
    let failure = held.enclosure.failed_start().unwrap();
    assert!(failure.to_string().contains("start the program"), "{failure}");
    drop((held.enclosure, held.cgroup));
    all_end(&[init, first]);
    let mut plan = shell("true");
    plan.folder = "/nowhere".to_owned();
    let failure = Cage::start(&plan).unwrap_err();
    assert!(failure.to_string().contains("enter the working folder"), "{failure}");
    plan.folder = "/".to_owned();
    plan.files.push(placed("/etc/x"));
    let failure = Cage::start(&plan).unwrap_err();
    assert!(failure.to_string().contains("outside"), "{failure}");
    // Two files of one path: the second cannot be made.
    plan.files = vec![placed("/home/user/x"), placed("/home/user/x")];
    let failure = Cage::start(&plan).unwrap_err();
    assert!(failure.to_string().contains("write the file /tmp/home/user/x"), "{failure}");
    assert_eq!(groups_of(std::process::id()), groups);
}

/// Waits for processes to be gone: the kernel calls a group empty when the last task in it can run nothing any more, which is a
/// moment before the task is away.
fn all_end(pids: &[i32]) {
    let started = Instant::now();
    while pids.iter().any(|pid| lives(*pid)) {
        assert!(started.elapsed() < PATIENCE, "one of {pids:?} lives on");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn placed(path: &str) -> bellwether_sandbox::cage::Placed {
    bellwether_sandbox::cage::Placed { path: path.to_owned(), bytes: Vec::new(), mode: 0o644, modified_s: None }
}

/// Groups of a process's samples that exist, wherever in the hierarchies.
fn groups_of(pid: u32) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let prefix = format!("bellwether-{pid}-");
    let mut left = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = left.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().starts_with(&prefix) {
                    found.push(entry.path());
                }
                left.push(entry.path());
            }
        }
    }
    found
}

#[test]
fn a_sample_whose_gate_never_opens_never_runs() {
    if !can_cage() {
        return;
    }
    let held = Cage::start(&shell("true")).unwrap();
    let first = held.pid.as_raw_nonzero().get();
    assert!(lives(first));
    let status = std::fs::read_to_string(format!("/proc/{first}/status")).unwrap();
    for line in ["NoNewPrivs:\t1", "CapPrm:\t0000000000000000", "CapBnd:\t0000000000000000"] {
        assert!(status.contains(line), "{status}");
    }
    drop(held);
    all_end(&[first]);
}

const DAEMONS: &str = r#"int main(void) {
    for (int at = 0; at < 10; at++) if (fork() == 0) {
        setsid();
        signal(SIGTERM, SIG_IGN); signal(SIGHUP, SIG_IGN);
        if (fork()) _exit(0);
        setsid();
        puts("daemon"); fflush(stdout);
        for (;;) pause();
    }
    while (wait(0) > 0) {}
    puts("all"); fflush(stdout);
    for (;;) pause();
}"#;

#[test]
fn terminating_ends_daemons_in_sessions_of_their_own() {
    let Some(plan) = compiled("terminating_ends_daemons_in_sessions_of_their_own", DAEMONS, &[]) else { return };
    let mut running = start(plan);
    running.read_until("all\n");
    let listed = running.cgroup.processes().unwrap();
    assert!(!running.cgroup.holds().listing || listed.len() == 12, "init, first and ten: {listed:?}");
    let ended = terminate(&running.enclosure, &running.cgroup, PATIENCE).unwrap();
    let expected = if running.cgroup.holds().listing { Proof::EmptyCgroup } else { Proof::EndedInit };
    assert_eq!(ended.proof, expected);
    assert!(ended.killed_after <= ended.empty_after);
    all_end(&listed);
    // Once more is as good as once.
    terminate(&running.enclosure, &running.cgroup, PATIENCE).unwrap();
}

#[test]
fn terminating_ends_a_fork_bomb() {
    let Some(mut plan) = compiled(
        "terminating_ends_a_fork_bomb",
        r#"int main(void) {
            puts("begin"); fflush(stdout);
            for (;;) if (fork() == 0) { signal(SIGCHLD, SIG_IGN); if (getpid() % 3 == 0) _exit(0); }
        }"#,
        &[],
    ) else {
        return;
    };
    plan.limits = Limits { tasks: 40, ..Limits::default() };
    let mut running = start(plan);
    running.read_until("begin\n");
    std::thread::sleep(Duration::from_millis(50));
    terminate(&running.enclosure, &running.cgroup, PATIENCE).unwrap();
    assert!(running.cgroup.processes().unwrap().is_empty());
    let folders: Vec<PathBuf> = running.cgroup.folders().map(PathBuf::from).collect();
    drop(running);
    assert!(folders.iter().all(|folder| !folder.exists()));
}

#[test]
fn a_chain_of_a_hundred_processes_ends_at_once() {
    let Some(mut plan) = compiled(
        "a_chain_of_a_hundred_processes_ends_at_once",
        r#"int main(void) {
            for (int depth = 0; depth < 100; depth++) if (fork()) { wait(0); for (;;) pause(); }
            puts("deep"); fflush(stdout);
            for (;;) pause();
        }"#,
        &[],
    ) else {
        return;
    };
    plan.limits = Limits { tasks: 128, ..Limits::default() };
    let mut running = start(plan);
    running.read_until("deep\n");
    let listed = running.cgroup.processes().unwrap();
    terminate(&running.enclosure, &running.cgroup, PATIENCE).unwrap();
    all_end(&listed);
}

#[test]
fn dropping_what_holds_a_sample_ends_it() {
    let Some(plan) = compiled("dropping_what_holds_a_sample_ends_it", DAEMONS, &[]) else { return };
    let mut running = start(plan);
    running.read_until("all\n");
    let (listed, init) = (running.cgroup.processes().unwrap(), running.enclosure.init());
    drop(running.enclosure);
    all_end(&[init]);
    all_end(&listed);
}

/// In its second role this test is a supervisor that is killed.
#[test]
fn a_sample_dies_with_its_supervisor() {
    if !can_cage() {
        return;
    }
    const ROLE: &str = "BELLWETHER_TEST_SUPERVISOR";
    const NAME: &str = "endings::a_sample_dies_with_its_supervisor";
    if std::env::var_os(ROLE).is_some() {
        let held = Cage::start(&shell("sleep 600 & sleep 600")).unwrap();
        held.gate.open().unwrap();
        println!("\nheld {} {}", held.enclosure.init(), held.pid);
        std::thread::sleep(Duration::from_secs(600));
        return;
    }
    let mut supervisor = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(ROLE, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(supervisor.stdout.take().unwrap()).lines();
    let held = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("held ").map(str::to_owned)).unwrap();
    let numbers: Vec<i32> = held.split(' ').map(|number| number.parse().unwrap()).collect();
    assert!(numbers.iter().all(|pid| lives(*pid)));
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    all_end(&numbers);
    // What it could not remove is removed by whoever comes next.
    let left = groups_of(supervisor.id());
    let next = Cage::start(&shell("true")).unwrap();
    assert_eq!(left.len(), next.cgroup.folders().count(), "{left:?}");
    assert_eq!(groups_of(supervisor.id()), [] as [PathBuf; 0]);
}

#[test]
fn many_cages_at_once_do_not_mix() {
    if !can_cage() {
        return;
    }
    let threads: Vec<_> = (0..6)
        .map(|number| {
            std::thread::spawn(move || run(shell(&format!("echo {number} > /tmp/x; sleep 0.05; cat /tmp/x"))))
        })
        .collect();
    for (number, thread) in threads.into_iter().enumerate() {
        assert_eq!(thread.join().unwrap(), (Ending::Code(0), format!("{number}\n")));
    }
}
