//! What tracing costs: jobs bare, under this tracer and under `strace -f`, in turns: `cargo run --release --example jobs
//! -p bellwether-sandbox -- [ROUNDS]`. Prints medians of wall and processor time, and the tracer's extra time as a share of
//! strace's. Processor time says less on idle cores, and more where others use them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a program for developers")]

#[path = "../tests/launch/mod.rs"]
mod launch;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use bellwether_env_adapter::Event;
use bellwether_env_adapter::calls::strace_filter;
use bellwether_sandbox::tracer::{Flow, Options, Sink};

struct Count(u64);

impl Sink for Count {
    fn event(&mut self, _: &Event<'_>) -> Flow {
        self.0 += 1;
        Flow::Go
    }
}

struct Job {
    name: &'static str,
    words: Vec<String>,
}

impl Job {
    fn command(&self, before: &[&str], folder: &Path) -> Command {
        let words: Vec<&str> = before.iter().copied().chain(self.words.iter().map(String::as_str)).collect();
        launch::command(Path::new(words[0]), &words[1..], folder, &folder.join("out"))
    }
}

fn main() {
    let rounds = std::env::args().nth(1).map_or(9, |word| word.parse::<usize>().expect("a number of rounds"));
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/deeds.c");
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let forks = "i=0; while [ $i -lt 150 ]; do /bin/true; i=$((i+1)); done";
    let jobs = [
        Job { name: "tar", words: words(&["/bin/tar", "-cf", &path("a.tar"), "-C", "/usr", "include"]) },
        Job {
            name: "compile",
            words: words(&["/usr/bin/cc", "-O2", "-D_GNU_SOURCE", "-c", "-o", &path("a.o"), source.to_str().unwrap()]),
        },
        Job { name: "forks", words: words(&["/bin/sh", "-c", forks]) },
    ];
    let strace: Option<PathBuf> =
        ["/usr/bin/strace", "/bin/strace"].map(PathBuf::from).into_iter().find(|at| at.is_file());
    let strace = strace.map(|at| at.display().to_string()).expect("strace, to compare with: apt-get install strace");
    let (log, listed) = (path("log"), format!("trace={}", strace_filter()));
    let all = [strace.as_str(), "-f", "-o", &log];
    let same = [strace.as_str(), "-f", "--seccomp-bpf", "-yy", "-s", "512", "-xx", "-e", &listed, "-o", &log];
    println!("medians of {rounds} rounds, milliseconds; extra time as a share of that of `strace -f`");
    for job in &jobs {
        let (mut walls, mut busy): ([Vec<f64>; 4], [Vec<f64>; 4]) = Default::default();
        let mut events = 0;
        for _ in 0..rounds {
            let plain: [&[&str]; 3] = [&[], &all, &same];
            for (at, before) in plain.into_iter().enumerate() {
                let began = (Instant::now(), processor_seconds());
                assert!(job.command(before, folder.path()).status().unwrap().success());
                note(&mut walls[at], &mut busy[at], began);
            }
            let began = (Instant::now(), processor_seconds());
            let mut count = Count(0);
            launch::trace(job.command(&[], folder.path()), Options::default(), &mut count);
            note(&mut walls[3], &mut busy[3], began);
            events = count.0;
        }
        println!("{}: {events} events", job.name);
        for (what, times) in [("wall", walls), ("processor", busy)] {
            let [bare, all, same, ours] = times.map(|mut times| {
                times.sort_by(f64::total_cmp);
                times[times.len() / 2]
            });
            println!(
                "  {what:9}  bare {bare:7.1}  strace -f {all:7.1}  strace of the same calls {same:7.1}  traced {ours:7.1}  \
                 share {:.2}, of the same calls {:.2}",
                (ours - bare) / (all - bare),
                (ours - bare) / (same - bare),
            );
        }
    }
}

fn note(walls: &mut Vec<f64>, busy: &mut Vec<f64>, (wall, processor): (Instant, f64)) {
    walls.push(wall.elapsed().as_secs_f64() * 1e3);
    busy.push((processor_seconds() - processor) * 1e3);
}

/// Processor time of this process and of all that it has waited for.
fn processor_seconds() -> f64 {
    [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN]
        .into_iter()
        .map(|who| {
            let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
            // SAFETY: the kernel writes one `rusage`, all of whose bit patterns are values of it.
            let usage = unsafe {
                assert_eq!(libc::getrusage(who, usage.as_mut_ptr()), 0);
                usage.assume_init()
            };
            let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 * 1e-6;
            seconds(usage.ru_utime) + seconds(usage.ru_stime)
        })
        .sum()
}
