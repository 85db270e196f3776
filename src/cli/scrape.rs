//! A page of metrics over HTTP, on loopback alone: all that Prometheus asks of a program that serves nothing else.

use std::io::{self, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};

use super::Failure;

/// How long a question may take to arrive, and its answer to be taken.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest head of a request, in bytes.
const HEAD_BYTES: usize = 8 << 10;

/// Makes the page when it is asked for.
pub(crate) type Page = Box<dyn Fn() -> String + Send>;

/// Answers on a loopback address from now on; with the port that was found.
pub(crate) fn listen(address: SocketAddr, page: Page) -> Result<SocketAddr, Failure> {
    if !address.ip().is_loopback() {
        return Err(Failure::usage(anyhow!("--metrics {address} is reached by others: give a loopback address")));
    }
    let listener = TcpListener::bind(address).with_context(|| format!("metrics cannot be told on {address}"))?;
    let bound = listener.local_addr()?;
    let answering = move || {
        for stream in listener.incoming() {
            // One after the other: whoever asks slowly holds up whoever else asks for numbers, and for two seconds at most.
            match stream.and_then(|stream| answer(stream, &page)) {
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
    fn a_page_is_told_on_loopback_alone() {
        let page = || Box::new(|| "running 7\n".to_owned());
        assert!(listen(([0, 0, 0, 0], 0).into(), page()).is_err());
        let address = listen(([127, 0, 0, 1], 0).into(), page()).unwrap();
        let answer = ask(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nrunning 7\n"), "{answer}");
        assert!(ask(address, "GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        // Whoever sends too much, or goes, is let go; the next one is answered.
        assert_eq!(ask(address, &"x".repeat(20_000)), "");
        assert!(ask(address, "GET /metrics HTTP/1.0\r\n\r\n").ends_with("running 7\n"));
    }
}
