//! The numbers of a loop, in the text format of Prometheus, over HTTP on loopback.

use std::fmt::Write as _;
use std::io::{self, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use bellwether_sandbox::intake::Counts;

use super::Failure;

/// What is told.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    pub(crate) counts: Counts,
    pub(crate) decisions: AtomicU64,
    pub(crate) safe_rule: AtomicU64,
    pub(crate) partial: AtomicU64,
}

/// How long a question may take to arrive, and its answer to be taken.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest head of a request, in bytes.
const HEAD_BYTES: usize = 8 << 10;

impl Numbers {
    /// The page; `answers` says whether the policy does.
    fn text(&self, answers: bool) -> String {
        let own = [
            ("policy_answers", "Whether the policy answers.", false, u64::from(answers)),
            ("decisions", "Decisions of all episodes.", true, self.decisions.load(Ordering::Relaxed)),
            ("safe_rule", "Decisions of the safe rule.", true, self.safe_rule.load(Ordering::Relaxed)),
            ("partial", "Episodes whose record is not whole.", true, self.partial.load(Ordering::Relaxed)),
        ];
        let mut text = String::new();
        for (name, help, grows, value) in self.counts.all().into_iter().chain(own) {
            let (suffix, kind) = if grows { ("_total", "counter") } else { ("", "gauge") };
            let name = format!("bellwether_loop_{name}{suffix}");
            _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
        }
        text
    }
}

/// Whether the policy answers.
type Answers = Box<dyn Fn() -> bool + Send>;

/// Answers on a loopback address from now on; with the port that was found.
pub(crate) fn tell(address: SocketAddr, numbers: Arc<Numbers>, answers: Answers) -> Result<SocketAddr, Failure> {
    if !address.ip().is_loopback() {
        return Err(Failure::usage(anyhow!("--metrics {address} is reached by others: give a loopback address")));
    }
    let listener = TcpListener::bind(address).with_context(|| format!("metrics cannot be told on {address}"))?;
    let bound = listener.local_addr()?;
    let answering = move || {
        for stream in listener.incoming() {
            // One after the other: whoever asks slowly holds up whoever else asks for numbers, and for two seconds at most.
            match stream.and_then(|stream| answer(stream, &|| numbers.text(answers()))) {
                Ok(()) => {}
                Err(error) => {
                    tracing::debug!(%error, "a question after metrics was not answered");
                    thread::sleep(Duration::from_millis(10));
                }
            }
        }
    };
    thread::Builder::new().name("bellwether-metrics".to_owned()).spawn(answering)?;
    Ok(bound)
}

fn answer(mut stream: TcpStream, page: &dyn Fn() -> String) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    stream.set_write_timeout(Some(PATIENCE))?;
    let (mut head, mut piece) = (Vec::new(), [0; 1_024]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || head.len() > HEAD_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => head.extend_from_slice(&piece[..read]),
        }
    }
    let (status, body) = match head.starts_with(b"GET /metrics ") {
        true => ("200 OK", page()),
        false => ("404 Not Found", "GET /metrics\n".to_owned()),
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        _ = stream.read_to_string(&mut answer);
        answer
    }

    #[test]
    fn numbers_are_told_on_loopback_alone() {
        let numbers = Arc::new(Numbers::default());
        assert!(tell(([0, 0, 0, 0], 0).into(), Arc::clone(&numbers), Box::new(|| true)).is_err());
        numbers.counts.released.store(7, Ordering::Relaxed);
        let address = tell(([127, 0, 0, 1], 0).into(), numbers, Box::new(|| false)).unwrap();
        let answer = ask(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("# TYPE bellwether_loop_released_total counter\nbellwether_loop_released_total 7\n"));
        assert!(answer.contains("# TYPE bellwether_loop_policy_answers gauge\nbellwether_loop_policy_answers 0\n"));
        assert!(ask(address, "GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        // Whoever sends too much, or goes, is let go; the next one is answered.
        assert_eq!(ask(address, &"x".repeat(20_000)), "");
        assert!(ask(address, "GET /metrics HTTP/1.0\r\n\r\n").contains("bellwether_loop_running 0\n"));
    }

    #[test]
    fn the_manual_has_a_row_for_every_number() {
        let page = include_str!("../../docs/stages.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `bellwether_loop_")?.split('`').next());
        let mut manual: Vec<String> = rows.map(|name| format!("bellwether_loop_{name}")).collect();
        let text = Numbers::default().text(true);
        let told = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let mut told: Vec<String> = told.map(str::to_owned).collect();
        manual.sort();
        told.sort();
        assert_eq!(manual, told);
    }
}
