//! What an operator says about a server.

use std::net::SocketAddr;
use std::path::{Display, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{DecisionLogConfig, LogFileError, Rotation, ServeError, ServiceLogConfig, TraceConfig, WatchConfig};

/// Everything that a server is told before it starts. Every default is safe: loopback alone, no admin, everything bounded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServeConfig {
    /// Address of the gRPC listener over TCP; port 0 takes a free one.
    pub grpc: Option<SocketAddr>,
    /// Path of the gRPC listener over a Unix socket, which is made for its owner alone.
    pub unix: Option<PathBuf>,
    /// Address of the HTTP listener.
    pub http: Option<SocketAddr>,
    /// Address of the listener for admin calls over TCP; it wants a token of its own.
    pub admin: Option<SocketAddr>,
    /// Path of the listener for admin calls over a Unix socket.
    pub admin_unix: Option<PathBuf>,
    /// Threads that answer, 1 to 64. Each has connections of its own; a decision is far shorter than a hand-over.
    pub threads: usize,
    /// Permits addresses other than loopback without TLS.
    pub plaintext_beyond_loopback: bool,
    /// What clients may use up.
    pub limits: ServeLimits,
    /// How long things may take.
    pub times: ServeTimes,
    /// Certificates for the TCP listeners; without them they speak plain text.
    pub tls: Option<TlsFiles>,
    /// Who may call.
    pub auth: AuthConfig,
    /// Where decisions are logged; nowhere without it.
    pub decisions: Option<DecisionLogConfig>,
    /// Where whoever runs the server writes its service log; to standard error without it. The server itself opens no such
    /// file.
    pub log: Option<ServiceLogConfig>,
    /// Where spans of requests go; nowhere without it.
    pub traces: Option<TraceConfig>,
    /// How whoever runs the server looks for new models.
    pub watch: WatchConfig,
}

/// What clients may use up. What is beyond is refused at once; nothing queues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServeLimits {
    /// Connections for gRPC, those that still shake hands too.
    pub connections: usize,
    /// The same of the HTTP listener.
    pub http_connections: usize,
    /// The same of the admin listeners, so that clients do not shut operators out.
    pub admin_connections: usize,
    /// Requests for decisions that are being answered, sessions left out; also how many answers may wait for clients that do not
    /// take them.
    pub in_flight: usize,
    /// Sessions.
    pub sessions: usize,
    /// Questions after health, and as many streams of health and reflection.
    pub probes: usize,
    /// Streams of one connection.
    pub streams_per_connection: u32,
    /// Bytes of a message.
    pub message_bytes: usize,
    /// Bytes of the headers of a request.
    pub header_bytes: u32,
    /// Questions in a batch.
    pub batch: usize,
    /// Events in one message of a session.
    pub events_per_message: usize,
    /// Episodes that are open on one stream.
    pub episodes_per_stream: usize,
    /// Episodes that are open on all streams; one takes up to 250 KiB.
    pub episodes: usize,
}

/// How long things may take, in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServeTimes {
    /// A request that is no stream; a shorter deadline of the client counts.
    pub request_ms: u64,
    /// From the first byte of a connection to the end of its handshakes.
    pub handshake_ms: u64,
    /// A stream on which nothing comes from the client.
    pub stream_idle_ms: u64,
    /// What is ready for a client that does not take it.
    pub write_ms: u64,
    /// A connection without a request; it is told to go away.
    pub idle_ms: u64,
    /// Between two questions whether the other end is still there.
    pub keepalive_ms: u64,
    /// The answer to that question.
    pub keepalive_timeout_ms: u64,
    /// Between saying that the server leaves and taking no more connections.
    pub leave_ms: u64,
    /// What is left of requests when the server stops; then, and for a second at least, what waits for the log of decisions.
    pub drain_ms: u64,
}

/// Files for TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM; readable by its owner alone.
    pub key: PathBuf,
    /// Authorities of client certificates, PEM. With it every client of a TCP listener must have a certificate of theirs.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
}

/// Who may call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// File with the token that callers bear; readable by its owner alone.
    pub token_file: Option<PathBuf>,
    /// File with the token that callers of the admin listener bear.
    pub admin_token_file: Option<PathBuf>,
    /// Whether health can be asked for without a token.
    pub open_health: bool,
    /// Whether reflection answers without a token.
    pub open_reflection: bool,
    /// Whether metrics are told without a token.
    pub open_metrics: bool,
}

impl Default for ServeConfig {
    fn default() -> Self {
        ServeConfig {
            grpc: Some(SocketAddr::from(([127, 0, 0, 1], 50_051))),
            unix: None,
            http: None,
            admin: None,
            admin_unix: None,
            threads: 1,
            plaintext_beyond_loopback: false,
            limits: ServeLimits::default(),
            times: ServeTimes::default(),
            tls: None,
            auth: AuthConfig::default(),
            decisions: None,
            log: None,
            traces: None,
            watch: WatchConfig::default(),
        }
    }
}

impl Default for ServeLimits {
    fn default() -> Self {
        ServeLimits {
            connections: 4_096,
            http_connections: 1_024,
            admin_connections: 64,
            in_flight: 1_024,
            sessions: 1_024,
            probes: 256,
            streams_per_connection: 128,
            message_bytes: 1 << 20,
            header_bytes: 16 << 10,
            batch: 256,
            events_per_message: 8_192,
            episodes_per_stream: 64,
            episodes: 1_024,
        }
    }
}

impl Default for ServeTimes {
    fn default() -> Self {
        ServeTimes {
            request_ms: 5_000,
            handshake_ms: 5_000,
            stream_idle_ms: 600_000,
            write_ms: 30_000,
            idle_ms: 300_000,
            keepalive_ms: 20_000,
            keepalive_timeout_ms: 10_000,
            leave_ms: 0,
            drain_ms: 10_000,
        }
    }
}

impl Default for AuthConfig {
    fn default() -> Self {
        AuthConfig {
            token_file: None,
            admin_token_file: None,
            open_health: true,
            open_reflection: false,
            open_metrics: false,
        }
    }
}

impl ServeConfig {
    /// Refuses what no server can or should do, before any port or file is touched.
    ///
    /// # Errors
    /// [`ServeError::Config`] with the key.
    pub fn validate(&self) -> Result<(), ServeError> {
        let ServeConfig { limits, times, auth, tls, .. } = self;
        if self.grpc.is_none() && self.unix.is_none() && self.http.is_none() {
            return Err(refused("grpc", "no listener is given: set grpc, unix or http"));
        }
        let counts = [
            ("threads", self.threads, 64),
            ("limits.connections", limits.connections, 1 << 20),
            ("limits.http_connections", limits.http_connections, 1 << 20),
            ("limits.admin_connections", limits.admin_connections, 1 << 20),
            ("limits.in_flight", limits.in_flight, 1 << 20),
            ("limits.sessions", limits.sessions, 1 << 20),
            ("limits.probes", limits.probes, 1 << 20),
            ("limits.streams_per_connection", limits.streams_per_connection as usize, 1 << 16),
            ("limits.message_bytes", limits.message_bytes, 1 << 30),
            ("limits.header_bytes", limits.header_bytes as usize, 1 << 20),
            ("limits.batch", limits.batch, 1 << 16),
            ("limits.events_per_message", limits.events_per_message, 1 << 20),
            ("limits.episodes_per_stream", limits.episodes_per_stream, 1 << 16),
            ("limits.episodes", limits.episodes, 1 << 20),
        ];
        for (key, value, most) in counts {
            if value == 0 || value > most {
                return Err(refused(key, &format!("it is {value}: give a number from 1 to {most}")));
            }
        }
        const DAY_MS: u64 = 86_400_000;
        let durations = [
            ("times.request_ms", times.request_ms),
            ("times.handshake_ms", times.handshake_ms),
            ("times.stream_idle_ms", times.stream_idle_ms),
            ("times.write_ms", times.write_ms),
            ("times.idle_ms", times.idle_ms),
            ("times.keepalive_ms", times.keepalive_ms),
            ("times.keepalive_timeout_ms", times.keepalive_timeout_ms),
        ];
        for (key, value) in durations {
            if value == 0 || value > DAY_MS {
                return Err(refused(
                    key,
                    &format!("it is {value}: give milliseconds from 1 to {DAY_MS}, which is a day"),
                ));
            }
        }
        if let Some(decisions) = &self.decisions {
            let (found, limit) = (decisions.queue, DecisionLogConfig::MAX_QUEUE);
            if found == 0 || found > limit {
                return Err(refused("decisions.queue", &format!("it is {found}: give a number from 1 to {limit}")));
            }
            const KEYS: [&str; 3] =
                ["decisions.rotation.max_bytes", "decisions.rotation.max_age_seconds", "decisions.rotation.keep"];
            check_rotation(&decisions.rotation, KEYS)?;
        }
        if let Some(log) = &self.log {
            const KEYS: [&str; 3] = ["log.rotation.max_bytes", "log.rotation.max_age_seconds", "log.rotation.keep"];
            check_rotation(&log.rotation, KEYS)?;
            if self.decisions.as_ref().is_some_and(|decisions| decisions.path == log.path) {
                let path = log.path.display();
                return Err(refused(
                    "log.path",
                    &format!("{path} is decisions.path too: give each log a file of its own"),
                ));
            }
        }
        if let Some(traces) = &self.traces {
            traces.validate()?;
        }
        self.watch.validate()?;
        for (key, value) in [("times.leave_ms", times.leave_ms), ("times.drain_ms", times.drain_ms)] {
            if value > DAY_MS {
                return Err(refused(key, &format!("it is {value}: give milliseconds up to {DAY_MS}, which is a day")));
            }
        }
        // Certificates of clients are no credential here: whoever may ask for decisions has one too.
        if self.admin.is_some() && auth.admin_token_file.is_none() {
            let reason = "an admin listener over TCP wants a credential of its own: set auth.admin_token_file";
            return Err(refused("admin", reason));
        }
        let addresses = [("grpc", self.grpc), ("http", self.http), ("admin", self.admin)];
        for (key, address) in addresses.into_iter().filter_map(|(key, address)| Some((key, address?))) {
            if !address.ip().is_loopback() && tls.is_none() && !self.plaintext_beyond_loopback {
                let reason =
                    format!("{address} is reached from other machines: set tls, or plaintext_beyond_loopback = true");
                return Err(refused(key, &reason));
            }
        }
        if let Some(path) = same(&self.unix, &self.admin_unix) {
            return Err(refused("admin_unix", &format!("{path} is unix too: give admin calls a socket of their own")));
        }
        if let Some(path) = same(&auth.token_file, &auth.admin_token_file) {
            let reason = format!("{path} is auth.token_file too: give admin calls a token of their own");
            return Err(refused("auth.admin_token_file", &reason));
        }
        Ok(())
    }
}

impl ServeTimes {
    pub(super) fn request(&self) -> Duration {
        Duration::from_millis(self.request_ms)
    }

    pub(super) fn handshake(&self) -> Duration {
        Duration::from_millis(self.handshake_ms)
    }

    pub(super) fn stream_idle(&self) -> Duration {
        Duration::from_millis(self.stream_idle_ms)
    }

    pub(super) fn write(&self) -> Duration {
        Duration::from_millis(self.write_ms)
    }

    pub(super) fn idle(&self) -> Duration {
        Duration::from_millis(self.idle_ms)
    }

    pub(super) fn keepalive(&self) -> Duration {
        Duration::from_millis(self.keepalive_ms)
    }

    pub(super) fn keepalive_timeout(&self) -> Duration {
        Duration::from_millis(self.keepalive_timeout_ms)
    }

    pub(super) fn leave(&self) -> Duration {
        Duration::from_millis(self.leave_ms)
    }

    pub(super) fn drain(&self) -> Duration {
        Duration::from_millis(self.drain_ms)
    }
}

fn refused(key: &'static str, reason: &str) -> ServeError {
    ServeError::Config { key, reason: reason.to_owned() }
}

/// The path that two keys have in common.
fn same<'a>(one: &'a Option<PathBuf>, other: &Option<PathBuf>) -> Option<Display<'a>> {
    one.as_ref().filter(|path| other.as_ref() == Some(path)).map(|path| path.display())
}

/// Refuses a rotation by the one of its keys that is out of range.
fn check_rotation(rotation: &Rotation, keys: [&'static str; 3]) -> Result<(), ServeError> {
    rotation.check().map_err(|error| match (&error, keys) {
        (LogFileError::Rotation { field, value, low, high }, [first, ..]) => {
            let key = keys.into_iter().find(|key| key.ends_with(field)).unwrap_or(first);
            refused(key, &format!("it is {value}: give a number from {low} to {high}"))
        }
        (_, [first, ..]) => refused(first, &error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_pass_and_listen_on_loopback_alone() {
        let config = ServeConfig::default();
        config.validate().unwrap();
        assert!(config.grpc.unwrap().ip().is_loopback());
        assert_eq!((config.http, config.admin), (None, None));
    }

    /// Each configuration, with the key that must be named, what is wrong with it and what must be said of what to do.
    #[test]
    fn what_should_not_be_served_is_refused_with_its_key_its_value_and_advice() {
        type Change = fn(&mut ServeConfig);
        fn anywhere() -> Option<SocketAddr> {
            "0.0.0.0:81".parse().ok()
        }
        fn file() -> Option<PathBuf> {
            Some(PathBuf::from("/run/bellwether"))
        }
        fn log(change: impl FnOnce(&mut DecisionLogConfig)) -> Option<DecisionLogConfig> {
            let mut log = DecisionLogConfig::new("/run/bellwether");
            change(&mut log);
            Some(log)
        }
        fn service_log(rotation: Rotation) -> Option<ServiceLogConfig> {
            Some(ServiceLogConfig { path: file()?, rotation })
        }
        let with_certificates_alone: Change = |config| {
            let file = PathBuf::from("file.pem");
            config.tls = Some(TlsFiles { certificate: file.clone(), key: file.clone(), client_ca: Some(file) });
            config.admin = config.grpc;
        };
        let day = "give milliseconds from 1 to 86400000";
        let cases: &[(Change, &str, &str, &str)] = &[
            (|config| config.grpc = None, "grpc", "no listener", "set grpc, unix or http"),
            (|config| config.grpc = anywhere(), "grpc", "0.0.0.0:81", "set tls, or plaintext_beyond_loopback = true"),
            (|config| config.http = anywhere(), "http", "0.0.0.0:81", "set tls, or plaintext_beyond_loopback = true"),
            (|config| config.admin = config.grpc, "admin", "over TCP", "set auth.admin_token_file"),
            (with_certificates_alone, "admin", "over TCP", "set auth.admin_token_file"),
            (|config| config.threads = 0, "threads", "it is 0", "give a number from 1 to 64"),
            (|config| config.threads = 65, "threads", "it is 65", "give a number from 1 to 64"),
            (|config| config.limits.connections = 0, "limits.connections", "it is 0", "from 1 to 1048576"),
            (|config| config.limits.http_connections = 0, "limits.http_connections", "it is 0", "from 1 to 1048576"),
            (|config| config.limits.admin_connections = 0, "limits.admin_connections", "it is 0", "from 1 to 1048576"),
            (|config| config.limits.in_flight = 1 << 21, "limits.in_flight", "it is 2097152", "from 1 to 1048576"),
            (|config| config.limits.sessions = 0, "limits.sessions", "it is 0", "from 1 to 1048576"),
            (|config| config.limits.probes = 0, "limits.probes", "it is 0", "from 1 to 1048576"),
            (|config| config.limits.streams_per_connection = 0, "limits.streams_per_connection", "it is 0", "to 65536"),
            (|config| config.limits.message_bytes = 0, "limits.message_bytes", "it is 0", "from 1 to 1073741824"),
            (|config| config.limits.header_bytes = 0, "limits.header_bytes", "it is 0", "from 1 to 1048576"),
            (|config| config.limits.batch = 65_537, "limits.batch", "it is 65537", "from 1 to 65536"),
            (
                |config| config.limits.events_per_message = 0,
                "limits.events_per_message",
                "it is 0",
                "from 1 to 1048576",
            ),
            (
                |config| config.limits.episodes_per_stream = 0,
                "limits.episodes_per_stream",
                "it is 0",
                "from 1 to 65536",
            ),
            (|config| config.limits.episodes = 0, "limits.episodes", "it is 0", "from 1 to 1048576"),
            (|config| config.times.request_ms = 0, "times.request_ms", "it is 0", day),
            (|config| config.times.handshake_ms = 0, "times.handshake_ms", "it is 0", day),
            (|config| config.times.stream_idle_ms = 86_400_001, "times.stream_idle_ms", "it is 86400001", day),
            (|config| config.times.write_ms = 0, "times.write_ms", "it is 0", day),
            (|config| config.times.idle_ms = 0, "times.idle_ms", "it is 0", day),
            (|config| config.times.keepalive_ms = 0, "times.keepalive_ms", "it is 0", day),
            (|config| config.times.keepalive_timeout_ms = 0, "times.keepalive_timeout_ms", "it is 0", day),
            (|config| config.times.leave_ms = 86_400_001, "times.leave_ms", "it is 86400001", "up to 86400000"),
            (|config| config.times.drain_ms = 86_400_001, "times.drain_ms", "it is 86400001", "up to 86400000"),
            (|config| config.decisions = log(|log| log.queue = 0), "decisions.queue", "it is 0", "from 1 to 1048576"),
            (
                |config| config.decisions = log(|log| log.rotation.max_bytes = 9),
                "decisions.rotation.max_bytes",
                "it is 9",
                "from 4096 to",
            ),
            (
                |config| config.decisions = log(|log| log.rotation.keep = 0),
                "decisions.rotation.keep",
                "it is 0",
                "from 1 to 10000",
            ),
            (
                |config| config.log = service_log(Rotation { max_age_seconds: 0, ..Rotation::default() }),
                "log.rotation.max_age_seconds",
                "it is 0",
                "from 1 to",
            ),
            (
                |config| (config.log, config.decisions) = (service_log(Rotation::default()), log(|_| ())),
                "log.path",
                "/run/bellwether is decisions.path too",
                "give each log a file of its own",
            ),
            (
                |config| (config.unix, config.admin_unix) = (file(), file()),
                "admin_unix",
                "/run/bellwether is unix too",
                "give admin calls a socket of their own",
            ),
            (
                |config| (config.auth.token_file, config.auth.admin_token_file) = (file(), file()),
                "auth.admin_token_file",
                "/run/bellwether is auth.token_file too",
                "give admin calls a token of their own",
            ),
        ];
        for (change, expected, wrong, advice) in cases {
            let mut config = ServeConfig::default();
            change(&mut config);
            let error = config.validate().unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, ServeError::Config { key, .. } if key == *expected), "{expected}: {text}");
            assert!(text.contains(wrong) && text.contains(advice), "{wrong}, {advice}: {text}");
        }
    }

    #[test]
    fn what_an_operator_says_in_so_many_words_is_served() {
        let mut config =
            ServeConfig { grpc: "0.0.0.0:0".parse().ok(), plaintext_beyond_loopback: true, ..ServeConfig::default() };
        config.validate().unwrap();
        config.admin = Some(([127, 0, 0, 1], 0).into());
        config.auth.admin_token_file = Some(PathBuf::from("token"));
        config.validate().unwrap();
    }
}
