//! The service log: a file that may fail, and somebody who hears of it.
//!
//! Whoever logs must not be told: a line about a log that cannot be written would be the next one to fail. So the first failure is a
//! complaint for standard error, and all are counted. Nor do they wait: threads that decide log too, and a disk may not answer. So
//! lines are written by a thread of their own, and what does not fit into its queue is lost and counted.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use super::chain::Chain;
use super::log_file::{LogFile, LogFileError, ServiceLogConfig};

/// The log of a service, for all of its threads.
#[derive(Debug)]
pub struct ServiceLog {
    sender: SyncSender<Box<[u8]>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    counts: Arc<Counts>,
}

/// What became of the lines of a service log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceLogCounts {
    /// They are in the file.
    pub written: u64,
    /// They found the queue full, or came after the end.
    pub dropped: u64,
    /// The system refused to write them.
    pub failed: u64,
    /// Whether the file cannot be put aside, and grows past its limits.
    pub stuck: bool,
}

#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
    stuck: AtomicBool,
    ending: AtomicBool,
}

/// A file, and what was said of it.
#[derive(Debug)]
struct Writing<L> {
    path: PathBuf,
    lines: L,
    /// Lines that were lost since the last one that was written.
    lost: u64,
    /// Lines that were dropped, as far as that was said.
    dropped: u64,
}

/// Lines that can wait for the disk.
const QUEUE: usize = 1_024;

/// How long the thread sleeps at most before it looks whether it should end, in case that nothing woke it.
const NAP: Duration = Duration::from_secs(1);

/// Where lines go.
trait Lines: Send + 'static {
    fn append(&mut self, lines: &[u8], now: SystemTime) -> io::Result<()>;
    fn stuck(&mut self) -> Option<io::Error>;
    fn is_stuck(&self) -> bool;
}

impl Lines for LogFile {
    fn append(&mut self, lines: &[u8], now: SystemTime) -> io::Result<()> {
        LogFile::append(self, lines, now)
    }

    fn stuck(&mut self) -> Option<io::Error> {
        LogFile::stuck(self)
    }

    fn is_stuck(&self) -> bool {
        LogFile::is_stuck(self)
    }
}

impl ServiceLog {
    /// Opens the file of the log, or makes it, and starts the thread that writes it. `complain` hears what is to be said of the log on
    /// standard error: once when writing or putting aside begins to fail, and once when lines are written again.
    ///
    /// # Errors
    /// As [`LogFile::open`], or a thread that the system refuses.
    pub fn start(
        config: &ServiceLogConfig,
        complain: impl FnMut(&str) + Send + 'static,
    ) -> Result<ServiceLog, LogFileError> {
        let lines = LogFile::open(&config.path, config.rotation, now())?;
        let writing = Writing { path: config.path.clone(), lines, lost: 0, dropped: 0 };
        start(writing, complain)
    }

    /// Appends a line, at the time of the wall clock when it is its turn. Never waits.
    pub fn append(&self, line: &[u8]) {
        if self.counts.ending.load(Ordering::Acquire) || self.sender.try_send(line.into()).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What became of the lines so far.
    pub fn counts(&self) -> ServiceLogCounts {
        let Counts { written, dropped, failed, stuck, .. } = &*self.counts;
        ServiceLogCounts {
            written: written.load(Ordering::Relaxed),
            dropped: dropped.load(Ordering::Relaxed),
            failed: failed.load(Ordering::Relaxed),
            stuck: stuck.load(Ordering::Relaxed),
        }
    }

    /// Writes what waits, as far as the disk takes it `within` this time; whether it took all. What is logged from now on is dropped.
    pub fn finish(&self, within: Duration) -> bool {
        const LOOK: Duration = Duration::from_millis(1);
        let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() else { return true };
        self.counts.ending.store(true, Ordering::Release);
        // Wakes; a full queue needs no waking.
        let _ = self.sender.try_send(Box::default());
        let began = Instant::now();
        while !thread.is_finished() && began.elapsed() < within {
            thread::sleep(LOOK);
        }
        thread.is_finished()
    }
}

fn start<L: Lines>(
    writing: Writing<L>,
    complain: impl FnMut(&str) + Send + 'static,
) -> Result<ServiceLog, LogFileError> {
    let (sender, receiver) = sync_channel(QUEUE);
    let counts = Arc::new(Counts::default());
    let owned = Arc::clone(&counts);
    let thread = thread::Builder::new().name("service-log".to_owned());
    let thread = thread.spawn(move || write(&receiver, writing, &owned, complain)).map_err(LogFileError::Thread)?;
    Ok(ServiceLog { sender, thread: Mutex::new(Some(thread)), counts })
}

/// Writes until the log ends and nothing waits.
fn write<L: Lines>(
    receiver: &Receiver<Box<[u8]>>,
    mut writing: Writing<L>,
    counts: &Counts,
    mut complain: impl FnMut(&str),
) {
    loop {
        let line = if counts.ending.load(Ordering::Acquire) {
            receiver.try_recv().ok()
        } else {
            match receiver.recv_timeout(NAP) {
                Err(RecvTimeoutError::Timeout) => continue,
                received => received.ok(),
            }
        };
        let Some(line) = line else { return };
        if line.is_empty() {
            continue;
        }
        if let Some(said) = writing.append(&line, now(), counts) {
            complain(&said);
        }
    }
}

impl<L: Lines> Writing<L> {
    fn append(&mut self, line: &[u8], now: SystemTime, counts: &Counts) -> Option<String> {
        let Writing { path, lines, lost, dropped } = self;
        let written = lines.append(line, now);
        let stuck = lines.stuck();
        counts.stuck.store(lines.is_stuck(), Ordering::Relaxed);
        let path = path.display();
        match written {
            Err(error) => {
                counts.failed.fetch_add(1, Ordering::Relaxed);
                *lost += 1;
                (*lost == 1).then(|| {
                    let cause = Chain(&error);
                    format!("cannot write the log {path}: {cause}; lines are lost until it can be: make room or mend the disk")
                })
            }
            Ok(()) => {
                counts.written.fetch_add(1, Ordering::Relaxed);
                // Those that found the queue full, while the disk did not answer, are lost as well.
                let all_dropped = counts.dropped.load(Ordering::Relaxed);
                let lost = std::mem::take(lost) + (all_dropped - std::mem::replace(dropped, all_dropped));
                let again = (lost > 0).then(|| format!("the log {path} is written again; {lost} lines were lost"));
                let grows = stuck.map(|error| {
                    let cause = Chain(&error);
                    format!("the log {path} cannot be put aside, and grows: {cause}; let the folder be written to")
                });
                match (again, grows) {
                    (Some(again), Some(grows)) => Some(format!("{again}; {grows}")),
                    (again, grows) => again.or(grows),
                }
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a log tells the time; nothing computed depends on it")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines that fail, and files that are stuck, as long as they are told to.
    #[derive(Default)]
    struct Failing {
        full: bool,
        stuck: bool,
        told: bool,
    }

    impl Lines for Failing {
        fn append(&mut self, _: &[u8], _: SystemTime) -> io::Result<()> {
            self.told &= self.stuck;
            if self.full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }

        fn stuck(&mut self) -> Option<io::Error> {
            let first = self.stuck && !std::mem::replace(&mut self.told, self.stuck);
            first.then(|| io::ErrorKind::PermissionDenied.into())
        }

        fn is_stuck(&self) -> bool {
            self.stuck
        }
    }

    #[test]
    fn each_failure_is_said_once_and_all_are_counted() {
        let counts = Counts::default();
        let mut writing = Writing { path: "a.jsonl".into(), lines: Failing::default(), lost: 0, dropped: 0 };
        let mut append = |full, stuck| {
            (writing.lines.full, writing.lines.stuck) = (full, stuck);
            writing.append(b"line\n", SystemTime::UNIX_EPOCH, &counts)
        };
        assert_eq!(append(false, false), None);
        let said = append(true, false).unwrap();
        assert!(said.starts_with("cannot write the log a.jsonl: no storage space; lines are lost"), "{said}");
        assert_eq!((append(true, false), append(true, false)), (None, None));
        assert_eq!(append(false, false).unwrap(), "the log a.jsonl is written again; 3 lines were lost");
        assert_eq!(append(false, false), None);
        let said = append(false, true).unwrap();
        assert!(said.starts_with("the log a.jsonl cannot be put aside, and grows: permission denied"), "{said}");
        assert_eq!((append(false, true), append(false, false)), (None, None));
        assert!(append(false, true).is_some() && append(true, false).is_some());
        let said = append(false, true).unwrap();
        assert!(said.contains("written again; 1 lines were lost; the log a.jsonl cannot be put aside"), "{said}");
        let found = [&counts.written, &counts.failed].map(|count| count.load(Ordering::Relaxed));
        assert_eq!((found, counts.stuck.load(Ordering::Relaxed)), ([8, 4], true));
    }

    /// Lines that are not taken until they are let through.
    struct Held(std::sync::mpsc::Receiver<()>);

    impl Lines for Held {
        fn append(&mut self, _: &[u8], _: SystemTime) -> io::Result<()> {
            self.0.recv().map_err(io::Error::other)
        }

        fn stuck(&mut self) -> Option<io::Error> {
            None
        }

        fn is_stuck(&self) -> bool {
            false
        }
    }

    #[test]
    fn nobody_waits_for_a_disk_that_does_not_answer_and_what_is_lost_is_counted() {
        let (through, held) = sync_channel(0);
        let (said, complaints) = std::sync::mpsc::channel();
        let writing = Writing { path: "a.jsonl".into(), lines: Held(held), lost: 0, dropped: 0 };
        let log = start(writing, move |complaint| said.send(complaint.to_owned()).unwrap()).unwrap();
        // One is with the disk, some wait, and the others are lost.
        for _ in 0..QUEUE + 100 {
            log.append(b"line\n");
        }
        let ServiceLogCounts { written, dropped, failed, .. } = log.counts();
        assert!((written, failed) == (0, 0) && [99, 100].contains(&dropped), "{dropped} were dropped");
        assert!(!log.finish(Duration::ZERO));
        log.append(b"line\n");
        assert_eq!(log.counts().dropped, dropped + 1);
        for _ in 0..QUEUE as u64 + 100 - dropped {
            through.send(()).unwrap();
        }
        drop(through);
        let first = complaints.recv().unwrap();
        assert!(
            first.starts_with("the log a.jsonl is written again; ") && first.ends_with(" lines were lost"),
            "{first}"
        );
        // The thread ends when it has written what waited.
        assert!(complaints.recv().is_err());
        assert_eq!(log.counts().written, QUEUE as u64 + 100 - dropped);
    }
}
