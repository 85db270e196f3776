//! The requests of HTTP/1 with which conversations over the decoy network begin.

use bellwether_artifact::Visible;
use bellwether_env_adapter::redact::Redactor;

use crate::network::{Contact, Protocol};

/// A request, as far as its first kibibyte goes. Its text is redacted, and spelled as [`Visible`] does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Request {
    /// Address that the sample turned to.
    pub(super) address: String,
    pub(super) port: u16,
    pub(super) method: String,
    /// What it is for, as it was sent.
    pub(super) target: String,
    /// `1.0` or `1.1`.
    pub(super) version: &'static str,
    /// As the request says, or the address.
    pub(super) host: String,
    /// Empty where it names none.
    pub(super) user_agent: String,
    /// What followed the headers.
    pub(super) body: String,
    /// All of it.
    pub(super) data: String,
}

/// Headers that fit into what is kept of a conversation.
const MOST_HEADERS: usize = 256;

impl Request {
    /// The request with which a conversation begins; none where it begins with something else.
    pub(super) fn of(contact: &Contact) -> Option<Request> {
        if contact.protocol != Protocol::Tcp {
            return None;
        }
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let body = match request.parse(&contact.first).ok()? {
            httparse::Status::Complete(head) => contact.first.get(head..).unwrap_or_default(),
            // The rest of the head was never sent, or is not kept.
            httparse::Status::Partial => &[],
        };
        let (method, target) = (request.method?, request.path?);
        let version = if request.version? == 0 { "1.0" } else { "1.1" };
        let header = |name: &str| {
            let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
            found.map(|header| shown(header.value))
        };
        let address = contact.to.ip().to_string();
        Some(Request {
            port: contact.to.port(),
            method: shown(method.as_bytes()),
            target: shown(target.as_bytes()),
            version,
            host: header("host").filter(|host| !host.is_empty()).unwrap_or_else(|| address.clone()),
            user_agent: header("user-agent").unwrap_or_default(),
            body: shown(body),
            data: shown(&contact.first),
            address,
        })
    }

    /// Where it went, as an address of the web.
    pub(super) fn uri(&self) -> String {
        let Request { target, host, port, .. } = self;
        if target.contains("://") || self.method == "CONNECT" {
            return target.clone();
        }
        match *port == 80 || host.contains(':') {
            true => format!("http://{host}{target}"),
            false => format!("http://{host}:{port}{target}"),
        }
    }
}

/// Bytes of the sample as text that can be looked at, without values that may be personal.
fn shown(bytes: &[u8]) -> String {
    let text = Visible::new(bytes).to_string();
    Redactor::default().redact(&text, &mut String::new()).to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contact(first: &[u8], port: u16) -> Contact {
        let to = format!("198.18.0.7:{port}").parse().unwrap();
        Contact { protocol: Protocol::Tcp, to, sent_bytes: 0, received_bytes: 0, first: first.to_vec() }
    }

    #[test]
    fn requests_are_told_from_other_talk() {
        let found = |first: &[u8], port| Request::of(&contact(first, port));
        let whole = found(
            b"POST /in?a=1 HTTP/1.1\r\nHOST: c2.example\r\nUser-Agent: </td>\xff\r\n\r\nto a@b.example\x1b[2J",
            8080,
        );
        let whole = whole.unwrap();
        assert_eq!(whole.uri(), "http://c2.example:8080/in?a=1");
        assert_eq!((whole.method.as_str(), whole.version, whole.user_agent.as_str()), ("POST", "1.1", r"</td>\xff"));
        assert!(
            whole.body.starts_with("to <email:")
                && whole.body.ends_with(r"\u{1b}[2J")
                && !whole.data.contains("a@b.example"),
            "{whole:?}"
        );
        // What was cut off in its headers is told as far as it goes.
        let cut = found(b"GET / HTTP/1.0\r\nHost: x.example\r\nCookie: aaaa", 80).unwrap();
        assert_eq!((cut.uri().as_str(), cut.body.as_str()), ("http://x.example/", ""));
        assert!(found(b"GET / HTTP/1.0\r\n\r\n", 80).unwrap().uri().contains("://198.18.0.7/"));
        let proxied = found(b"CONNECT x.example:443 HTTP/1.1\r\n\r\n", 3128).unwrap();
        assert_eq!(proxied.uri(), "x.example:443");
        for (other, port) in [
            (&b"PROMPT\n"[..], 80),
            (b"GET /", 80),
            (b"PUT 4\nabcd", 80),
            (b"PRI * HTTP/2.0\r\n\r\n", 80),
            (b"\x16\x03\x01\x02\x00\x01", 443),
            (b"SSH-2.0-x\r\n", 22),
            (b"", 80),
        ] {
            assert_eq!(found(other, port), None, "{other:?}");
        }
        let packet = Contact { protocol: Protocol::Udp, ..contact(b"GET / HTTP/1.1\r\n\r\n", 80) };
        assert_eq!(Request::of(&packet), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Whatever is sent, what is told of it can be looked at.
        #[test]
        fn no_bytes_do_harm(head in "(GET|POST) /[ -~]{0,9} HTTP/1[.][01]\r\n", rest in prop::collection::vec(any::<u8>(), 0..600)) {
            for bytes in [[head.as_bytes(), &rest].concat(), rest] {
                if let Some(request) = Request::of(&contact(&bytes, 80)) {
                    let Request { method, target, host, user_agent, body, data, .. } = &request;
                    for text in [method, target, host, user_agent, body, data] {
                        prop_assert!(text.chars().all(|character| !character.is_control()), "{text:?}");
                    }
                }
            }
        }
    }
}
