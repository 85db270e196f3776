//! The seccomp program of a sample, made from the list of recorded calls and the list of refused ones.
//!
//! It is loaded once, before the sample's first instruction, and never changes: what an isolation level denies is denied by
//! the tracer or by the kernel's own objects. Decisions rest on the architecture, the number and two register arguments;
//! everything else about a call is judged by the tracer while the caller is stopped.
//!
//! A sample may add filters of its own. The kernel takes the strictest answer of all filters, and stricter than "ask the
//! tracer" are: kill, trap, fail, and "ask a listener". The first three keep the call from running, so nothing happens
//! unseen; a listener could let it run, so no sample gets one ([`refusal`]).

mod rules;

pub(crate) use rules::{PIDFD_SEND_SIGNAL, asks_for_processors, attaches_memory};
pub use rules::{Rule, refusal, rule, starts_process};

use libc::sock_filter;

/// `AUDIT_ARCH_X86_64`.
const ARCH: u32 = 0xc000_003e;

// Offsets in `seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
/// The low halves of the first, second, third and fourth argument, on a little-endian machine; the high half follows each.
const FIRST: u32 = 16;
const SECOND: u32 = 24;
const THIRD: u32 = 32;
const FOURTH: u32 = 40;

// Instructions of classic BPF.
const LOAD: u16 = 0x20;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const AND: u16 = 0x54;
const GO: u16 = 0x05;
const RETURN: u16 = 0x06;

/// A seccomp program, ready to be loaded.
#[derive(Clone)]
pub struct Program(Vec<sock_filter>);

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Program({} instructions)", self.0.len())
    }
}

impl Default for Program {
    fn default() -> Self {
        Program::new()
    }
}

impl Program {
    /// The program of every sample.
    pub fn new() -> Program {
        Program::made(false)
    }

    /// The same for samples whose waiting is skipped: calls that wait for a time and calls that ask what time it is stop the caller,
    /// too ([`Options::skip_waits`](crate::tracer::Options::skip_waits)).
    pub fn with_time() -> Program {
        Program::made(true)
    }

    fn made(time: bool) -> Program {
        let mut steps = vec![
            step(LOAD, ARCHITECTURE),
            branch(IF_EQUAL, ARCH, 1, 0),
            // A foreign architecture has other numbers for everything: there is nothing to read, and no reason to go on.
            step(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
            step(LOAD, NUMBER),
            branch(IF_AT_LEAST, rules::X32 as u32, 0, 1),
            step(RETURN, ASK),
        ];
        steps.extend(tree(&ranges(time)));
        Program(steps)
    }

    /// Its instructions, to be loaded with `SECCOMP_SET_MODE_FILTER`: fewer than 4,096.
    pub fn instructions(&self) -> &[sock_filter] {
        &self.0
    }
}

/// The answer that stops the caller for its tracer; without a tracer the call fails with ENOSYS. The tracer goes by the number
/// and the arguments alone: a filter of the sample's own may ask it too, with any message.
const ASK: u32 = libc::SECCOMP_RET_TRACE;

/// The answer for a call that is not made and says that it succeeded.
const DONE: u32 = libc::SECCOMP_RET_ERRNO;

/// What the program does with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Returns this.
    Return(u32),
    /// Looks at the request of an `ioctl`.
    Requests,
    /// Pretends to have set the limit on core files, which `setrlimit` names first.
    FirstLimit,
    /// The same for `prlimit64`, which names it second and only asks where the third argument is null.
    SecondLimit,
    /// Looks whether a `futex` waits until a time.
    Futex,
}

fn answer(number: u32, time: bool) -> Answer {
    match number {
        rules::IOCTL => return Answer::Requests,
        rules::SETRLIMIT => return Answer::FirstLimit,
        rules::PRLIMIT64 => return Answer::SecondLimit,
        rules::FUTEX if time => return Answer::Futex,
        number if time && rules::TIMES.contains(&number) => return Answer::Return(ASK),
        _ => {}
    }
    Answer::Return(match rule(u64::from(number)) {
        Rule::Allow => libc::SECCOMP_RET_ALLOW,
        Rule::Record(_) | Rule::Judge(_) | Rule::Refuse { .. } => ASK,
        Rule::Absent => libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32,
    })
}

/// Numbers from which on an answer holds, in order.
fn ranges(time: bool) -> Vec<(u32, Answer)> {
    let mut ranges: Vec<(u32, Answer)> = Vec::new();
    for number in 0..=1024 {
        let answer = answer(number, time);
        if ranges.last().is_none_or(|(_, last)| *last != answer) {
            ranges.push((number, answer));
        }
    }
    ranges
}

/// A binary search for the range of the number, which is in the accumulator.
fn tree(ranges: &[(u32, Answer)]) -> Vec<sock_filter> {
    match ranges {
        [] => vec![step(RETURN, libc::SECCOMP_RET_KILL_PROCESS)],
        [(_, answer)] => leaf(*answer),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let (below, above) = (tree(low), tree(high));
            let mut steps = match u8::try_from(below.len()) {
                Ok(skip) => vec![branch(IF_AT_LEAST, high[0].0, skip, 0)],
                Err(_) => vec![branch(IF_AT_LEAST, high[0].0, 0, 1), step(GO, below.len() as u32)],
            };
            steps.extend(below);
            steps.extend(above);
            steps
        }
    }
}

fn leaf(answer: Answer) -> Vec<sock_filter> {
    match answer {
        Answer::Return(value) => vec![step(RETURN, value)],
        Answer::Requests => {
            let mut steps = vec![step(LOAD, SECOND)];
            for request in rules::REFUSED_REQUESTS {
                steps.extend([branch(IF_EQUAL, request, 0, 1), step(RETURN, ASK)]);
            }
            steps.push(step(RETURN, libc::SECCOMP_RET_ALLOW));
            steps
        }
        Answer::FirstLimit => vec![
            step(LOAD, FIRST),
            branch(IF_EQUAL, libc::RLIMIT_CORE, 0, 1),
            step(RETURN, DONE),
            step(RETURN, libc::SECCOMP_RET_ALLOW),
        ],
        Answer::SecondLimit => vec![
            step(LOAD, SECOND),
            branch(IF_EQUAL, libc::RLIMIT_CORE, 0, 4),
            step(LOAD, THIRD),
            branch(IF_EQUAL, 0, 0, 3),
            step(LOAD, THIRD + 4),
            branch(IF_EQUAL, 0, 0, 1),
            step(RETURN, libc::SECCOMP_RET_ALLOW),
            step(RETURN, DONE),
        ],
        Answer::Futex => {
            let mut steps = vec![step(LOAD, SECOND), step(AND, rules::FUTEX_COMMAND)];
            let waits = rules::FUTEX_WAITS;
            for (at, command) in waits.into_iter().enumerate() {
                // Over the others, and the answer for those that wait for nothing.
                steps.push(branch(IF_EQUAL, command, (waits.len() - at) as u8, 0));
            }
            steps.extend([
                step(RETURN, libc::SECCOMP_RET_ALLOW),
                step(LOAD, FOURTH),
                branch(IF_EQUAL, 0, 0, 3),
                step(LOAD, FOURTH + 4),
                branch(IF_EQUAL, 0, 0, 1),
                step(RETURN, libc::SECCOMP_RET_ALLOW),
                step(RETURN, ASK),
            ]);
            steps
        }
    }
}

fn step(code: u16, k: u32) -> sock_filter {
    branch(code, k, 0, 0)
}

fn branch(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs a program as the kernel does, and counts its steps.
    fn run(program: &Program, arch: u32, number: u32, args: [u64; 6]) -> (u32, usize) {
        let mut data = [0u8; 64];
        data[0..4].copy_from_slice(&number.to_le_bytes());
        data[4..8].copy_from_slice(&arch.to_le_bytes());
        for (at, arg) in args.iter().enumerate() {
            data[16 + 8 * at..24 + 8 * at].copy_from_slice(&arg.to_le_bytes());
        }
        let (mut at, mut value) = (0, 0u32);
        for taken in 1..=program.0.len() {
            let sock_filter { code, jt, jf, k } = program.0[at];
            at += 1;
            let skip = |yes| usize::from(if yes { jt } else { jf });
            match code {
                AND => value &= k,
                LOAD => value = u32::from_le_bytes(data[k as usize..k as usize + 4].try_into().unwrap()),
                IF_EQUAL => at += skip(value == k),
                IF_AT_LEAST => at += skip(value >= k),
                GO => at += k as usize,
                RETURN => return (k, taken),
                other => panic!("instruction {other:#x}"),
            }
        }
        panic!("the program does not end")
    }

    fn expected(number: u32, args: [u64; 6], time: bool) -> u32 {
        let cores = u64::from(libc::RLIMIT_CORE);
        let waits = rules::FUTEX_WAITS.contains(&(args[1] as u32 & rules::FUTEX_COMMAND)) && args[3] != 0;
        match i64::from(number) {
            libc::SYS_setrlimit if args[0] & 0xffff_ffff == cores => return DONE,
            libc::SYS_prlimit64 if args[1] & 0xffff_ffff == cores && args[2] != 0 => return DONE,
            libc::SYS_setrlimit | libc::SYS_prlimit64 => return libc::SECCOMP_RET_ALLOW,
            libc::SYS_futex if time => return if waits { ASK } else { libc::SECCOMP_RET_ALLOW },
            _ if time && rules::TIMES.contains(&number) => return ASK,
            _ => {}
        }
        if number == rules::IOCTL {
            let refused = rules::REFUSED_REQUESTS.contains(&(args[1] as u32));
            return if refused { ASK } else { libc::SECCOMP_RET_ALLOW };
        }
        match rule(u64::from(number)) {
            Rule::Allow => libc::SECCOMP_RET_ALLOW,
            Rule::Record(_) | Rule::Judge(_) | Rule::Refuse { .. } => ASK,
            Rule::Absent => libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32,
        }
    }

    #[test]
    fn every_number_gets_the_answer_of_its_rule_within_a_few_steps() {
        for (program, time) in [(Program::new(), false), (Program::with_time(), true)] {
            assert!(program.instructions().len() < 1024, "{program:?}");
            for number in (0..2048).chain([0x3fff_ffff, 0x4000_0000, 0x4000_0002, u32::MAX]) {
                let (answer, taken) = run(&program, ARCH, number, [0; 6]);
                assert_eq!(answer, expected(number, [0; 6], time), "{number}");
                assert!(taken <= 28, "{number} takes {taken} steps");
            }
        }
    }

    #[test]
    fn a_foreign_architecture_is_killed_whatever_it_calls() {
        let program = Program::new();
        for arch in [0x4000_0003, 0xc000_00b7, 0, u32::MAX] {
            for number in [0, 4, 11, 59, 0x4000_0000] {
                assert_eq!(run(&program, arch, number, [0; 6]).0, libc::SECCOMP_RET_KILL_PROCESS);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn any_call_gets_the_answer_of_its_rule(
            number in prop_oneof![
                any::<u32>(), 0u32..600, Just(rules::IOCTL), Just(rules::FUTEX), Just(rules::SETRLIMIT), Just(rules::PRLIMIT64)
            ],
            args in prop::array::uniform6(prop_oneof![any::<u64>(), 0_u64..16, (0_u64..16).prop_map(|high| high << 32)]),
            time in any::<bool>(),
            request in prop::option::of(prop::sample::select(rules::REFUSED_REQUESTS.to_vec())),
        ) {
            let mut args = args;
            if let Some(request) = request {
                args[1] = (args[1] & !0xffff_ffff) | u64::from(request);
            }
            let program = if time { Program::with_time() } else { Program::new() };
            prop_assert_eq!(run(&program, ARCH, number, args).0, expected(number, args, time));
        }
    }
}
