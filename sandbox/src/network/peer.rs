//! The other end of every connection: it takes what it is given, answers what has an answer, and does no harm.

use crate::draw::Draw;

/// One connection's other end. It does no input or output itself: bytes go in, bytes come out.
pub(super) struct Peer {
    draw: Draw,
    state: State,
    /// The beginning of a line that has not ended yet.
    line: Vec<u8>,
}

enum State {
    /// The first line says what kind of talk it is.
    First,
    /// Header lines of a request, up to an empty one; then the answer.
    Headers { answer: Answer, length: u64 },
    /// So many bytes are still to come.
    Body { left: u64, answer: Answer },
    /// A shell is prompted: commands that are still to be sent, the last first.
    Prompt { left: Vec<&'static str> },
    /// Lines, each with an answer.
    Lines,
    /// All is said.
    Done,
}

#[derive(Clone)]
enum Answer {
    /// A page of so many bytes, or the usual one.
    Page(Option<u64>),
    Script,
    /// An upload was taken.
    Taken,
    /// The same, for a talk in plain lines.
    TakenLine,
}

/// Longest line that is kept together.
const MOST_LINE: usize = 4_096;

/// Longest page that is given out.
const MOST_PAGE: u64 = 1 << 20;

/// What somebody at the other end of a shell looks at first, and then takes along.
const LOOKS: [&str; 7] = ["id", "uname -a", "ls -la", "cat /etc/passwd", "ls Documents", "env", "cat /proc/version"];
const TAKES: [&str; 4] =
    ["cat .bash_history", "cat .ssh/id_ed25519", "head -n 5 .aws/credentials", "cat .netrc .git-credentials"];

impl Peer {
    /// A peer whose answers are drawn from a seed.
    pub(super) fn new(seed: u64) -> Peer {
        Peer { draw: Draw::new(seed, "decoy peer"), state: State::First, line: Vec::new() }
    }

    /// Whether it wants to end the connection, once its answer is sent.
    pub(super) const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Takes in bytes and adds the answer to `out`.
    pub(super) fn take(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Done => return,
                State::Body { left, answer } => {
                    let part = (*left).min(bytes.len() as u64) as usize;
                    *left -= part as u64;
                    bytes = &bytes[part..];
                    if *left == 0 {
                        let answer = answer.clone();
                        self.give(&answer, out);
                    }
                }
                _ => {
                    let end = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
                    let room = end.min(MOST_LINE - self.line.len());
                    self.line.extend_from_slice(&bytes[..room]);
                    bytes = &bytes[room..];
                    if self.line.ends_with(b"\n") || self.line.len() == MOST_LINE {
                        let line = std::mem::take(&mut self.line);
                        self.line(&line, out);
                    }
                }
            }
        }
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        match &mut self.state {
            State::First => self.first(line, out),
            State::Headers { answer, length } => {
                let text = String::from_utf8_lossy(line).to_ascii_lowercase();
                if let Some(given) = text.strip_prefix("content-length:").and_then(|rest| rest.trim().parse().ok()) {
                    *length = given;
                }
                if text.trim().is_empty() {
                    match (answer.clone(), *length) {
                        // Only an upload has a body that is waited for.
                        (answer @ Answer::Taken, left @ 1..) => self.state = State::Body { left, answer },
                        (answer, _) => self.give(&answer, out),
                    }
                }
            }
            State::Prompt { left } => {
                if line == b"--\n" {
                    match left.pop() {
                        Some(command) => out.extend_from_slice(format!("{command}\n").as_bytes()),
                        None => self.state = State::Done,
                    }
                }
            }
            State::Lines => self.acknowledge(out),
            State::Body { .. } | State::Done => {}
        }
    }

    fn first(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let text = String::from_utf8_lossy(line).into_owned();
        let words: Vec<&str> = text.split_whitespace().collect();
        let http = words.len() == 3 && words[2].starts_with("HTTP/");
        self.state = match words.first() {
            Some(&("GET" | "HEAD")) => {
                let place = words.get(1).copied().unwrap_or_default();
                let sized = place.rsplit_once('=').and_then(|(_, size)| size.parse().ok());
                let answer = if place.contains("script") { Answer::Script } else { Answer::Page(sized) };
                State::Headers { answer, length: 0 }
            }
            Some(&("PUT" | "POST")) if http => State::Headers { answer: Answer::Taken, length: 0 },
            Some(&("PUT" | "POST")) => match words.get(1).and_then(|size| size.parse().ok()) {
                Some(left @ 1..) => State::Body { left, answer: Answer::TakenLine },
                _ => {
                    self.give(&Answer::TakenLine, out);
                    return;
                }
            },
            Some(&"PROMPT") => {
                let mut left: Vec<&'static str> = Vec::new();
                for (from, least, end) in [(&TAKES[..], 1, 4), (&LOOKS[..], 2, 5)] {
                    let mut from = from.to_vec();
                    for _ in 0..self.draw.number(least, end) {
                        left.push(from.swap_remove(self.draw.number(0, from.len() as u64) as usize));
                    }
                }
                out.extend_from_slice(left.pop().map(|command| format!("{command}\n")).unwrap_or_default().as_bytes());
                State::Prompt { left }
            }
            _ => {
                self.acknowledge(out);
                State::Lines
            }
        };
    }

    fn acknowledge(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("OK {}\n", self.draw.number(0, 1_000)).as_bytes());
    }

    fn give(&mut self, answer: &Answer, out: &mut Vec<u8>) {
        let body = match answer {
            Answer::Page(Some(size)) => {
                let size = (*size).min(MOST_PAGE);
                self.draw.bytes(size, size + 1)
            }
            Answer::Page(None) => b"version 3\n".to_vec(),
            Answer::Script => b"#!/bin/sh\nuname -a\necho done > $HOME/work/answer\n".to_vec(),
            Answer::Taken => Vec::new(),
            Answer::TakenLine => {
                out.extend_from_slice(b"OK\n");
                self.state = State::Done;
                return;
            }
        };
        out.extend_from_slice(format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
        out.extend_from_slice(&body);
        self.state = State::Done;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn talk(parts: &[&[u8]]) -> (Vec<u8>, bool) {
        let (mut peer, mut out) = (Peer::new(5), Vec::new());
        parts.iter().for_each(|part| peer.take(part, &mut out));
        let done = peer.is_done();
        (out, done)
    }

    #[test]
    fn talks_of_every_kind_are_answered() {
        let cases: [(&[u8], &str, bool); 8] = [
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\nversion 3\n", true),
            (b"GET / HTTP/1.1\r\nHost: a\r\n", "", false),
            (b"POST /x HTTP/1.1\r\nContent-Length: 3\r\n\r\nab", "", false),
            (b"POST /x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", true),
            (b"POST /x HTTP/1.1\r\n\r\n", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", true),
            (b"PUT 4\nabcd", "OK\n", true),
            (b"PUT -1\n", "OK\n", true),
            (b"", "", false),
        ];
        for (given, answer, done) in cases {
            let (out, is_done) = talk(&[given]);
            assert_eq!((String::from_utf8_lossy(&out).as_ref(), is_done), (answer, done), "{given:?}");
        }
        let (out, _) = talk(&[b"GET /file=70000 HTTP/1.0\r\n\r\n"]);
        assert!(out.len() > 70_000);
        let (out, done) = talk(&[b"hello\n", b"again\nand again\n"]);
        assert_eq!(
            (out.iter().filter(|byte| **byte == b'\n').count(), out.starts_with(b"OK "), done),
            (3, true, false)
        );
    }

    #[test]
    fn a_prompted_shell_gets_commands_one_by_one_until_there_are_none() {
        let (mut peer, mut sent) = (Peer::new(9), 0);
        let mut out = Vec::new();
        peer.take(b"PROMPT\n", &mut out);
        while !peer.is_done() {
            assert!(out.ends_with(b"\n"));
            out.clear();
            peer.take(b"what it printed\n--\n", &mut out);
            sent += 1;
        }
        assert!((3..=7).contains(&sent), "{sent}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// However the bytes are parted, the talk is the same, and memory stays bounded.
        #[test]
        fn the_parts_in_which_bytes_come_do_not_matter(
            first in prop::sample::select(vec!["GET /a=3 HTTP/1.0\r\n\r\n", "PUT 7\n", "PROMPT\n", "POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\n", "x\n"]),
            rest in prop::collection::vec(any::<u8>(), 0..9_000),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        ) {
            let bytes: Vec<u8> = first.bytes().chain(rest).collect();
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
            at.sort_unstable();
            let parts: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(talk(&parts), talk(&[&bytes]));
        }
    }
}
