//! Every reader takes any bytes: it may refuse or count them, never panic.
#![cfg(feature = "ingest")]

use bellwether_env_adapter::ingest::fuzz;
use proptest::prelude::*;

/// Text made of pieces of a format, so that more than the first byte is reached.
fn pieces(pieces: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => prop::sample::select(pieces).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
        1 => any::<u64>().prop_map(|number| number.to_string().into_bytes()),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

const STRACE: &[&str] = &[
    "\n",
    "1 ",
    "2 ",
    "[pid 3] ",
    "1700000000.5 ",
    "10:00:00 ",
    "openat(",
    "AT_FDCWD",
    "</tmp>",
    "\"/a\\x2f",
    "\"",
    ", ",
    "O_RDWR|O_CREAT",
    ")",
    " = ",
    "3",
    "-1 ENOENT (No such file)",
    "?",
    "0x7f00",
    "<unfinished ...>",
    "<... openat resumed>",
    "<... clone resumed>",
    "clone(",
    "clone3({flags=CLONE_VM|CLONE_THREAD",
    "vfork(",
    "} => {parent_tid=[2]}",
    "sendto(3<TCP:[1.2.3.4:5->6.7.8.9:10]>, ",
    "{sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr(\"8.8.8.8\")}",
    "sendmmsg(3, [{msg_len=4294967295",
    "iov_base=\"ab\"",
    "execve(\"/bin/sh\", [\"sh\", \"-c\"",
    "+++ exited with 0 +++",
    "+++ superseded by execve in pid 2 +++",
    "--- SIGCHLD {} ---",
    "chdir(\"..\"",
    "dup2(3, 4",
    "fcntl(3, F_DUPFD, 0",
    "mmap(NULL, 1, PROT_EXEC, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0",
    "nanosleep({tv_sec=1, tv_nsec=5}",
    "fchmod(3, 0755",
    "symlink(\"a\", \"b\"",
    "<",
    ">",
    "[",
    "]",
    "{",
    "}",
    "/* x",
    "*/",
    "\\",
    "memfd_create(\"x\", MFD_CLOEXEC",
];

const JSONL: &[&str] = &[
    "\n",
    "{",
    "}",
    "\"episode_id\":\"a\"",
    "\"episode_id\":\"b\"",
    ",",
    "\"name\":\"read\"",
    "\"seq\":",
    "1",
    "-1",
    "1e99",
    "null",
    "\"stage\":2",
    "\"label\":\"benign\"",
    "\"kind\":\"file\"",
    "\"entropy\":9",
    "\"complete\":false",
    "\"colour\":[1,2]",
    "\"path\":\"a@b.com\"",
    "\"\\ud800\"",
];

const CSV: &[&str] = &["id,label,calls\n", "\n", ",", "\"", "a", "benign", "malicious", "NtClose ", " ", "\r\n"];

const ADFA: &[&str] = &["1 ", "2 ", "999 ", "99999999999 ", "x ", "\n", "-", "265"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn strace(text in pieces(STRACE)) {
        fuzz::fuzz_strace(&text);
    }

    #[test]
    fn jsonl(text in pieces(JSONL)) {
        fuzz::fuzz_jsonl(&text);
    }

    #[test]
    fn calls_csv(text in pieces(CSV)) {
        fuzz::fuzz_calls_csv(&text);
        fuzz::fuzz_calls_csv(&[b"id,label,calls\n", text.as_slice()].concat());
    }

    #[test]
    fn adfa_ld(text in pieces(ADFA)) {
        fuzz::fuzz_adfa_ld(&text);
    }

    #[test]
    fn noise(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        fuzz::fuzz_strace(&bytes);
        fuzz::fuzz_jsonl(&bytes);
        fuzz::fuzz_calls_csv(&bytes);
        fuzz::fuzz_adfa_ld(&bytes);
    }
}
