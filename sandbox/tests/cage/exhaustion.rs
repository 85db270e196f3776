//! Attempts to use up what the host has: the disk, the memory, the table of processes.

use bellwether_sandbox::Limits;
use bellwether_sandbox::cage::Ending;

use crate::runs::{PATIENCE, compiled, run, start};

#[test]
fn filling_the_disk() {
    let Some(mut plan) = compiled("filling_the_disk", include_str!("samples/filling_the_disk.c"), &[]) else {
        return;
    };
    plan.limits = Limits { storage_bytes: 8 << 20, ..Limits::default() };
    let (ending, text) = run(plan);
    assert_eq!(ending, Ending::Code(0), "{text}");
    let number =
        |label: &str| text.lines().find_map(|line| line.strip_prefix(label)?.trim().parse::<u64>().ok()).unwrap();
    assert!((3 << 20..=4 << 20).contains(&number("home ")), "{text}");
    assert!((3 << 20..=4 << 20).contains(&number("scratch ")), "{text}");
    assert!(number("inodes ") < 65_536, "{text}");
    assert!(text.contains("home ENOSPC"), "{text}");
}

#[test]
fn filling_the_memory() {
    let Some(mut plan) = compiled("filling_the_memory", include_str!("samples/filling_the_memory.c"), &[]) else {
        return;
    };
    plan.limits = Limits { memory_bytes: 64 << 20, ..Limits::default() };
    let running = start(plan);
    if !running.cgroup.holds().memory {
        eprintln!("skipped filling_the_memory: no control group for memory can be made here");
        return;
    }
    // The kernel may take the init along, and then the end of the first process is not told.
    let ending = running.enclosure.wait(PATIENCE);
    assert!(matches!(ending, Ok(Some(Ending::Signal(9))) | Err(_)), "{ending:?}");
    let pressure = running.cgroup.pressure();
    assert!(pressure.out_of_memory_kills >= 1 && pressure.peak_memory_bytes <= 65 << 20, "{pressure:?}");
}

#[test]
fn filling_the_table_of_processes() {
    let Some(mut plan) =
        compiled("filling_the_table_of_processes", include_str!("samples/filling_the_table_of_processes.c"), &[])
    else {
        return;
    };
    plan.limits = Limits { tasks: 32, ..Limits::default() };
    let running = start(plan);
    let counted = running.cgroup.holds().tasks;
    assert_eq!(running.enclosure.wait(PATIENCE).unwrap(), Some(Ending::Code(0)));
    let pressure = running.cgroup.pressure();
    let (_, text) = running.finish();
    let number =
        |label: &str| text.lines().find_map(|line| line.strip_prefix(label)?.trim().parse::<u64>().ok()).unwrap();
    // The first process is one of the 32.
    assert!(number("forks ") <= 31 && number("threads ") <= 31, "{text}");
    // An ordinary user's limit of resources counts the init as well, and is reached first.
    let counted = counted && rustix::process::geteuid().is_root();
    assert!(!counted || pressure.refused_forks >= 1, "{pressure:?}");
}
