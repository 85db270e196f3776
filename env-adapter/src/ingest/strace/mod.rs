//! Logs of `strace -f`, with or without `-ttt` and `-y`.
//!
//! Calls that were cut by others are joined and handed on when they return, so that the order is that in which their
//! results were known and each thread's own order is kept. Thread groups come from `CLONE_THREAD`, parents from the
//! calls that create processes, paths from `-y` or from the folders and descriptors that were followed. What a log does
//! not tell stays null.

mod calls;
mod errno;
mod line;
mod process;
mod sidecar;
mod sockets;
mod text;
mod values;

use std::collections::VecDeque;
use std::io::{self, BufRead};
use std::path::Path;

use super::files::{self, list};
use super::intake::Intake;
use super::lines::{Lines, MAX_LINE_BYTES};
use super::{IngestError, Options, QualityReport};
use crate::calls::{is_recorded, kind_of};
use crate::sensor::MAX_ARGS_BYTES;
use crate::{Event, EventSink};
use line::{Says, Stamp};
use process::{Origin, Pending, Processes, Thread};
use text::CallText;

pub use sidecar::Description;

/// Lines read ahead to learn which of several calls created a thread.
const MAX_AHEAD: usize = 4096;
/// Bytes of such lines.
const MAX_AHEAD_BYTES: usize = 16 << 20;
/// The thread of a log that names none.
const NO_TID: u32 = 0;

/// Reads the log at `path`, or every `*.strace` and `*.strace.gz` below the folder at `path` in the order of their names.
/// A `NAME.json` beside `NAME.strace` describes it (see [`Description`]); without one the episode is `NAME`, without a
/// label.
///
/// # Errors
/// [`IngestError::NothingFound`] for a folder without logs, [`IngestError::NotThisFormat`] for a file in which no line
/// is one of strace, [`IngestError::Sidecar`], [`IngestError::Io`], and the errors of the sink.
pub fn read_strace<S: EventSink + ?Sized>(
    path: &Path,
    options: &Options,
    sink: &mut S,
    report: &mut QualityReport,
) -> Result<(), IngestError> {
    let metadata = std::fs::metadata(path).map_err(|source| IngestError::io(path, source))?;
    let logs = match metadata.is_dir() {
        false => vec![path.to_owned()],
        true => {
            let mut files = Vec::new();
            list(path, 4, &mut files)?;
            files.retain(|file| stem(file).is_some());
            files.sort();
            files
        }
    };
    if logs.is_empty() {
        return Err(IngestError::NothingFound {
            path: path.to_owned(),
            format: "strace",
            expected: "logs are named NAME.strace, as `strace -f -ttt -y -o NAME.strace COMMAND` writes them",
        });
    }
    for log in logs {
        let name =
            stem(&log).unwrap_or_else(|| log.file_stem().and_then(|stem| stem.to_str()).unwrap_or("log").to_owned());
        let beside = log.with_file_name(format!("{name}.json"));
        let description = match beside.is_file() {
            true => Description::read(&beside, &name, report)?,
            false => Description::unknown(&name),
        };
        let from = files::open(&log)?;
        let read = |report: &QualityReport| report.events + report.not_recorded.total();
        let (calls, bad) = (read(report), report.bad_lines.count);
        read_strace_log(from, &log.display().to_string(), &description, options, sink, report)?;
        // One broken log among many is counted; a file that somebody named and that is no log is a mistake.
        if log == path && read(report) == calls && report.bad_lines.count > bad {
            return Err(IngestError::NotThisFormat {
                path: log,
                format: "a strace log",
                reason: "none of its lines is a call; give the file that `strace -f -ttt -y -o FILE` wrote".to_owned(),
            });
        }
    }
    Ok(())
}

/// The name of a log without its ending; none for another file.
fn stem(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let stem = name.strip_suffix(".strace").or_else(|| name.strip_suffix(".strace.gz"))?;
    (!stem.is_empty()).then(|| stem.to_owned())
}

/// Reads one log from a stream; `file` is its name in the report.
///
/// # Errors
/// [`IngestError::Stream`] when the stream fails, and the errors of the sink.
pub fn read_strace_log<S: EventSink + ?Sized>(
    from: impl BufRead,
    file: &str,
    description: &Description,
    options: &Options,
    sink: &mut S,
    report: &mut QualityReport,
) -> Result<(), IngestError> {
    report.files += 1;
    let mut intake = Intake::new(sink, report, options.redactor.as_ref()).clipping_args(MAX_ARGS_BYTES);
    if !intake.begin(&description.attributes)? {
        return Ok(());
    }
    let mut log = Log {
        intake,
        file,
        description,
        keep_all: options.keep_all_calls,
        processes: Processes::new(description.cwd.as_deref()),
        clock: Clock::default(),
        seq: 0,
    };
    let mut source = Source { lines: Lines::new(from), ahead: VecDeque::new(), ahead_bytes: 0 };
    while let Some((number, bytes)) = source.next()? {
        log.line(number, &bytes, &mut source)?;
    }
    log.finish(source.lines.ended())
}

/// The lines of a log, with some read ahead.
struct Source<R> {
    lines: Lines<R>,
    ahead: VecDeque<(u64, Vec<u8>)>,
    ahead_bytes: usize,
}

impl<R: BufRead> Source<R> {
    fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>, IngestError> {
        if let Some((number, bytes)) = self.ahead.pop_front() {
            self.ahead_bytes -= bytes.len();
            return Ok(Some((number, bytes)));
        }
        self.read()
    }

    fn read(&mut self) -> Result<Option<(u64, Vec<u8>)>, IngestError> {
        let failed = |cause: io::Error| IngestError::Stream { doing: "read a strace log", cause };
        let line = self.lines.next().map_err(failed)?;
        // An overlong line keeps its marker: one byte more than any whole line can have.
        Ok(line.map(|line| {
            let mut bytes = line.bytes.to_vec();
            if line.too_long {
                bytes.resize(MAX_LINE_BYTES + 1, b' ');
            }
            (line.number, bytes)
        }))
    }

    /// Which thread's call returns `child`, as the lines to come tell.
    fn parent_of(&mut self, child: u32) -> Result<Option<u32>, IngestError> {
        for (_, bytes) in &self.ahead {
            if let Some(parent) = returns(bytes, child) {
                return Ok(Some(parent));
            }
        }
        while self.ahead.len() < MAX_AHEAD && self.ahead_bytes < MAX_AHEAD_BYTES {
            let Some((number, bytes)) = self.read()? else { break };
            let parent = returns(&bytes, child);
            self.ahead_bytes += bytes.len();
            self.ahead.push_back((number, bytes));
            if parent.is_some() {
                return Ok(parent);
            }
        }
        Ok(None)
    }
}

/// The thread of a line that ends a creating call with the number `child`.
fn returns(bytes: &[u8], child: u32) -> Option<u32> {
    let line = line::parse(bytes).ok()?;
    let Says::Resumed(b"clone" | b"clone3" | b"fork" | b"vfork", rest) = line.says else { return None };
    let result = &rest[memchr::memmem::rfind(rest, b") = ")? + 4..];
    let digits = result.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (line::decimal(&result[..digits]) == Some(u64::from(child))).then_some(line.tid)?
}

/// The time of the log, from its first line.
#[derive(Default)]
struct Clock {
    first: Option<u64>,
    last: u64,
    /// Midnights passed, for stamps of the day.
    midnights: u64,
}

const DAY_NS: u64 = 86_400_000_000_000;

impl Clock {
    /// Nanoseconds since the first stamp, and whether the time went back.
    fn since_first(&mut self, stamp: Stamp) -> (u64, bool) {
        let mut ns = stamp.ns;
        if stamp.of_day {
            ns = ns.saturating_add(self.midnights.saturating_mul(DAY_NS));
            if ns.saturating_add(DAY_NS / 2) < self.last {
                self.midnights += 1;
                ns = ns.saturating_add(DAY_NS);
            }
        }
        let first = *self.first.get_or_insert(ns);
        let back = ns < self.last;
        self.last = self.last.max(ns);
        (ns.saturating_sub(first), back)
    }
}

/// One log on its way.
struct Log<'a, S: ?Sized> {
    intake: Intake<'a, S>,
    file: &'a str,
    description: &'a Description,
    keep_all: bool,
    processes: Processes,
    clock: Clock,
    seq: u64,
}

impl<S: EventSink + ?Sized> Log<'_, S> {
    fn line<R: BufRead>(&mut self, number: u64, bytes: &[u8], source: &mut Source<R>) -> Result<(), IngestError> {
        if bytes.len() > MAX_LINE_BYTES {
            self.bad(number, &format!("longer than {MAX_LINE_BYTES} bytes"));
            return Ok(());
        }
        if bytes.trim_ascii().is_empty() {
            return Ok(());
        }
        let line = match line::parse(bytes) {
            Ok(line) => line,
            Err(reason) => {
                self.bad(number, reason);
                return Ok(());
            }
        };
        let time_ns = line.time.map(|stamp| {
            let (ns, back) = self.clock.since_first(stamp);
            self.intake.report.notes.add("lines whose time goes back", u64::from(back));
            ns
        });
        if line.says == Says::Remark {
            self.intake.report.notes.add("remarks of strace", 1);
            return Ok(());
        }
        let tid = line.tid.unwrap_or(NO_TID);
        if let Origin::Ambiguous = self.processes.meet(tid) {
            match source.parent_of(tid)? {
                Some(parent) => self.processes.adopt(parent, tid),
                None => self.processes.meet_stranger(tid),
            }
        }
        match line.says {
            Says::Call(text) => self.whole(number, tid, time_ns, text, None),
            Says::Unfinished(text) => {
                self.unfinished(number, tid, text);
                Ok(())
            }
            Says::Resumed(name, rest) => self.resumed(number, tid, time_ns, name, rest),
            Says::Signal => {
                self.intake.report.not_recorded.add("signal", 1);
                Ok(())
            }
            Says::Superseded(_) | Says::Ended => {
                let lost = match line.says {
                    Says::Superseded(by) => self.processes.supersede(tid, by),
                    _ => self.processes.end(tid),
                };
                match lost {
                    Some((thread, pending)) => self.never_returned(tid, thread, &pending, time_ns),
                    None => Ok(()),
                }
            }
            Says::Remark => Ok(()),
        }
    }

    fn unfinished(&mut self, number: u64, tid: u32, text: &[u8]) {
        let Some(call) = text::split_open(text) else {
            return self.bad(number, "no name of a call before `(`");
        };
        let birth = calls::birth(&call);
        match self.processes.pause(tid, Pending { line: number, text: text.to_vec(), birth, child: None }) {
            Ok(None) => {}
            Ok(Some(lost)) => self.bad(lost.line, "the call never returned, and its thread made another"),
            Err(reason) => self.bad(number, reason),
        }
    }

    fn resumed(
        &mut self,
        number: u64,
        tid: u32,
        time_ns: Option<u64>,
        name: &[u8],
        rest: &[u8],
    ) -> Result<(), IngestError> {
        let Some(mut pending) = self.processes.resume(tid) else {
            self.bad(number, "a call goes on that had not begun");
            return Ok(());
        };
        let same = pending.text.strip_prefix(name).is_some_and(|rest| rest.first() == Some(&b'('));
        // A call whose name strace did not know at first is `???`.
        if !same && name != b"???" {
            self.bad(number, "a call goes on under another name");
            return Ok(());
        }
        if pending.text.len() + rest.len() > MAX_LINE_BYTES {
            self.bad(number, "longer than the limit when joined");
            return Ok(());
        }
        pending.text.extend_from_slice(rest);
        let text = std::mem::take(&mut pending.text);
        self.whole(number, tid, time_ns, &text, Some(pending))
    }

    /// A call that has returned.
    fn whole(
        &mut self,
        number: u64,
        tid: u32,
        time_ns: Option<u64>,
        text: &[u8],
        pending: Option<Pending>,
    ) -> Result<(), IngestError> {
        let call = match text::split(text) {
            Ok(call) => call,
            Err(reason) => {
                self.bad(number, reason);
                return Ok(());
            }
        };
        if let Some(birth) = calls::birth(&call)
            && let Some(child) = call.result.ret.and_then(|ret| u32::try_from(ret).ok()).filter(|child| *child > 0)
        {
            self.processes.born(tid, birth, child, pending.and_then(|pending| pending.child));
        }
        let mut stranger = Thread::stranger(None);
        let thread = self.processes.thread(tid).unwrap_or(&mut stranger);
        let fields = calls::read(&call, thread, self.description.decoys.as_ref());
        let place = (thread.tgid, thread.ppid);
        self.hand_on(number, tid, place, time_ns, &call, &fields)
    }

    /// A call that its thread did not live to see return.
    fn never_returned(
        &mut self,
        tid: u32,
        mut thread: Thread,
        pending: &Pending,
        time_ns: Option<u64>,
    ) -> Result<(), IngestError> {
        let Some(call) = text::split_open(&pending.text) else { return Ok(()) };
        let fields = calls::read(&call, &mut thread, self.description.decoys.as_ref());
        self.hand_on(pending.line, tid, (thread.tgid, thread.ppid), time_ns, &call, &fields)
    }

    fn hand_on(
        &mut self,
        number: u64,
        tid: u32,
        (tgid, ppid): (Option<u32>, Option<u32>),
        time_ns: Option<u64>,
        call: &CallText<'_>,
        fields: &calls::Fields,
    ) -> Result<(), IngestError> {
        if !self.keep_all && !is_recorded(call.name) {
            self.intake.report.not_recorded.add(call.name, 1);
            return Ok(());
        }
        let named = |id: u32| (id != NO_TID).then_some(id);
        let event = Event {
            time_ns,
            pid: tgid.and_then(named),
            tid: named(tid),
            ppid: ppid.and_then(named),
            path: fields.path.as_deref(),
            path2: fields.path2.as_deref(),
            args: fields.args.as_deref(),
            peer_addr: fields.peer.as_ref().map(|(address, _)| address.as_str()),
            peer_port: fields.peer.as_ref().and_then(|(_, port)| *port),
            bytes: fields.bytes,
            entropy: fields.entropy,
            ret: call.result.ret.filter(|ret| *ret < 0 || !calls::returns_address(call.name)),
            errno: call.result.errno,
            flags: fields.flags,
            created: fields.created,
            ..Event::named(self.seq, kind_of(call.name), call.name)
        };
        match self.intake.event(&event)? {
            None => self.seq += 1,
            Some(fault) => self.bad(number, &fault.to_string()),
        }
        Ok(())
    }

    fn finish(mut self, ended: bool) -> Result<(), IngestError> {
        let last = self.clock.first.map(|first| self.clock.last - first);
        for (tid, thread, pending) in self.processes.unreturned() {
            self.never_returned(tid, thread, &pending, last)?;
        }
        // A log that breaks off before its first process ends does not hold the whole run.
        let complete = self.description.whole.unwrap_or(ended && self.processes.root_ended());
        self.intake.end(complete)
    }

    fn bad(&mut self, number: u64, reason: &str) {
        self.intake.report.bad_lines.add(self.file, number, reason);
    }
}
