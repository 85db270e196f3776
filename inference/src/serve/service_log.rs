//! The service log: a file that may fail, and somebody who hears of it.
//!
//! Whoever logs must not be told: a line about a log that cannot be written would be the next one to fail. So the first failure is a
//! complaint for standard error, and all are counted.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::chain::Chain;
use super::log_file::{LogFile, LogFileError, ServiceLogConfig};

/// The log of a service, for all of its threads.
#[derive(Debug)]
pub struct ServiceLog {
    writing: Mutex<Writing<LogFile>>,
    counts: Counts,
}

/// What became of the lines of a service log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceLogCounts {
    /// They are in the file.
    pub written: u64,
    /// The system refused to write them.
    pub failed: u64,
    /// Whether the file cannot be put aside, and grows past its limits.
    pub stuck: bool,
}

#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    failed: AtomicU64,
    stuck: AtomicBool,
}

/// A file, and what was said of it.
#[derive(Debug)]
struct Writing<L> {
    path: PathBuf,
    lines: L,
    /// Lines that were lost since the last one that was written.
    lost: u64,
}

/// Where lines go.
trait Lines {
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
    /// Opens the file of the log, or makes it.
    ///
    /// # Errors
    /// As [`LogFile::open`].
    pub fn open(config: &ServiceLogConfig) -> Result<ServiceLog, LogFileError> {
        let lines = LogFile::open(&config.path, config.rotation, now())?;
        let writing = Writing { path: config.path.clone(), lines, lost: 0 };
        Ok(ServiceLog { writing: Mutex::new(writing), counts: Counts::default() })
    }

    /// Appends a line, at the time of the wall clock. What is to be said of the log on standard error comes back: once when writing
    /// or putting aside begins to fail, and once when lines are written again.
    #[must_use = "nobody else says that the log fails"]
    pub fn append(&self, line: &[u8]) -> Option<String> {
        self.lock().append(line, now(), &self.counts)
    }

    /// What became of the lines so far.
    pub fn counts(&self) -> ServiceLogCounts {
        let Counts { written, failed, stuck } = &self.counts;
        ServiceLogCounts {
            written: written.load(Ordering::Relaxed),
            failed: failed.load(Ordering::Relaxed),
            stuck: stuck.load(Ordering::Relaxed),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Writing<LogFile>> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L: Lines> Writing<L> {
    fn append(&mut self, line: &[u8], now: SystemTime, counts: &Counts) -> Option<String> {
        let Writing { path, lines, lost } = self;
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
                let again = match std::mem::take(lost) {
                    0 => None,
                    lost => Some(format!("the log {path} is written again; {lost} lines were lost")),
                };
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
        let mut writing = Writing { path: "a.jsonl".into(), lines: Failing::default(), lost: 0 };
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
}
