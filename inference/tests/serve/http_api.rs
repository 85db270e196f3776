//! HTTP: the answers of gRPC in another form, the same refusals, and clients that mean no good.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::Duration;

use bellwether_inference::serve::{Phase, ServeConfig, Server};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

use crate::nets::state_for;
use crate::observed::{eventually, number};
use crate::started::{WIDTH, network, policy, start};
use crate::tls::{authority, files};

/// What a server answered.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn of(bytes: &[u8]) -> Answer {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head, body: bytes[end + 4..].to_vec() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.to_lowercase().starts_with(&format!("{name}: ")).then(|| &line[name.len() + 2..]))
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

fn http(change: impl FnOnce(&mut ServeConfig)) -> (Server, SocketAddr) {
    let server = start(|config| {
        config.http = Some(([127, 0, 0, 1], 0).into());
        change(config);
    });
    let address = server.endpoints().http.unwrap();
    (server, address)
}

fn send(address: SocketAddr, head: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(&[head.as_bytes(), b"\r\n\r\n", body].concat()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    Answer::of(&bytes)
}

fn get(address: SocketAddr, path: &str) -> Answer {
    send(address, &format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close"), b"")
}

fn post(address: SocketAddr, path: &str, headers: &str, body: &[u8]) -> Answer {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}{headers}");
    send(address, &head, body)
}

fn question(states: &[Vec<f32>]) -> Value {
    json!({"inputs": [{"name": "state", "datatype": "FP32", "shape": [states.len(), WIDTH], "data": states}]})
}

const INFER: &str = "/v2/models/policy/infer";

#[test]
fn what_is_served_is_described() {
    let (server, address) = http(|_| ());
    let version = server.shared().policy.status().champion.version.to_string();
    for (path, expected) in [
        ("/v2/health/live", json!({"live": true})),
        ("/v2/health/ready", json!({"ready": true})),
        ("/v2/models/policy/ready", json!({"name": "policy", "ready": true})),
        ("/v2/models/policy/versions/1/ready", json!({"name": "policy", "ready": true})),
    ] {
        let answer = get(address, path);
        assert_eq!((answer.status, answer.json()), (200, expected), "{path}");
    }
    let server_metadata = get(address, "/v2").json();
    assert_eq!(server_metadata["name"], "bellwether");
    assert!(server_metadata["extensions"].as_array().unwrap().contains(&json!("binary_tensor_data")));
    let model = get(address, "/v2/models/policy").json();
    assert_eq!(model["versions"], json!([version]));
    assert_eq!(model["inputs"][0], json!({"name": "state", "datatype": "FP32", "shape": [-1, WIDTH]}));
    assert_eq!(model["outputs"][1], json!({"name": "action", "datatype": "INT64", "shape": [-1]}));
    let not_ready = get(address, "/v2/models/policy/versions/9/ready");
    assert_eq!((not_ready.status, not_ready.json()["ready"].clone()), (503, json!(false)));
}

#[test]
fn configuration_statistics_and_index_are_those_of_grpc() {
    let (server, address) = http(|_| ());
    let champion = server.shared().policy.status().champion.version.to_string();
    let question = question(&[vec![0.5; WIDTH], vec![0.25; WIDTH]]).to_string();
    assert_eq!(post(address, INFER, "", question.as_bytes()).status, 200);
    for path in ["/v2/models/policy/config", "/v2/models/policy/versions/1/config"] {
        let config = get(address, path).json();
        assert_eq!((&config["name"], &config["input"][0]["dims"]), (&json!("policy"), &json!([WIDTH])));
        assert_eq!(config["output"][1], json!({"name": "action", "data_type": "TYPE_INT64", "dims": []}));
    }
    for path in ["/v2/models/stats", "/v2/models/policy/stats", "/v2/models/policy/versions/1/stats"] {
        let told = get(address, path).json();
        let [model] = &told["model_stats"].as_array().unwrap()[..] else { panic!("{told}") };
        assert_eq!((&model["version"], &model["inference_count"]), (&json!(champion), &json!(2)));
        assert_eq!(model["inference_stats"]["success"]["count"], json!(1));
        assert!(model["inference_stats"]["compute_infer"]["ns"].as_u64().unwrap() > 0);
    }
    for body in ["", "{\"ready\": true}"] {
        let index = post(address, "/v2/repository/index", "", body.as_bytes()).json();
        assert_eq!(index, json!([{"name": "policy", "version": champion, "state": "READY", "reason": ""}]));
    }
    assert_eq!(post(address, "/v2/repository/index", "", b"{\"redy\": true}").status, 400);
    for change in ["load", "unload"] {
        let refused = post(address, &format!("/v2/repository/models/policy/{change}"), "", b"{}");
        assert_eq!(refused.status, 501);
        assert!(refused.error().contains("bellwether.policy.v1.Admin"));
    }
    assert_eq!(get(address, "/v2/models/policy/versions/7/config").status, 404);
}

#[test]
fn answers_are_those_of_the_engine_in_json_and_in_bytes() {
    let (server, address) = http(|_| ());
    let states: Vec<Vec<f32>> = (0..40).map(|seed| state_for(&network(1), seed)).collect();
    let policy = policy(1);
    let mut decider = policy.decider();
    let mut expected: (Vec<i64>, Vec<f32>) = Default::default();
    for state in &states {
        let answer = decider.decide(state, &[true; 5]).unwrap();
        expected.0.push(answer.decision.action as i64);
        expected.1.extend_from_slice(answer.decision.q_values);
    }
    let as_json = post(address, INFER, "", question(&states).to_string().as_bytes());
    assert_eq!((as_json.status, as_json.header("content-type")), (200, Some("application/json")));
    let told = as_json.json();
    let version = server.shared().policy.status().champion.version.to_string();
    assert_eq!((&told["model_name"], &told["model_version"]), (&json!("policy"), &json!(version)));
    let output = |name: &str| {
        let outputs = told["outputs"].as_array().unwrap();
        outputs.iter().find(|output| output["name"] == name).unwrap().clone()
    };
    assert_eq!(serde_json::from_value::<Vec<i64>>(output("action")["data"].clone()).unwrap(), expected.0);
    assert_eq!(serde_json::from_value::<Vec<f32>>(output("q_values")["data"].clone()).unwrap(), expected.1);
    assert_eq!(output("q_values")["shape"], json!([40, 5]));

    let bytes: Vec<u8> = states.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
    let head = json!({
        "id": "a",
        "parameters": {"binary_data_output": true},
        "inputs": [{"name": "state", "datatype": "FP32", "shape": [40, WIDTH], "parameters": {"binary_data_size": bytes.len()}}],
        "outputs": [{"name": "q_values"}],
    });
    let head = head.to_string();
    let length = format!("\r\ninference-header-content-length: {}", head.len());
    let answer = post(address, "/v2/models/policy/versions/1/infer", &length, &[head.as_bytes(), &bytes].concat());
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/octet-stream")));
    let json_length: usize = answer.header("inference-header-content-length").unwrap().parse().unwrap();
    let told: Value = serde_json::from_slice(&answer.body[..json_length]).unwrap();
    assert_eq!((told["id"].as_str(), told["outputs"].as_array().unwrap().len()), (Some("a"), 1));
    let values: Vec<f32> =
        answer.body[json_length..].as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
    assert_eq!(values, expected.1);
}

#[test]
fn refusals_name_what_is_wrong() {
    let (server, address) = http(|config| config.limits.message_bytes = 4_096);
    let check = |answer: Answer, status: u16, expected: &str| {
        let error = answer.error();
        assert!(
            answer.status == status && error.contains(expected),
            "{} {error:?} should be {status} {expected:?}",
            answer.status
        );
    };
    let infer = |body: &Value| post(address, INFER, "", body.to_string().as_bytes());
    let state = vec![0.5; WIDTH];
    let mut beyond = state.clone();
    beyond[3] = 1e30;
    check(infer(&question(&[beyond])), 400, "value 3 of the state");
    check(infer(&question(&[vec![0.5; WIDTH + 1]])), 400, "shape");
    let wide = json!({"inputs": [{"name": "state", "datatype": "FP32", "shape": [1, WIDTH + 1], "data": vec![0.5; WIDTH + 1]}]});
    check(infer(&wide), 400, "13");
    check(post(address, INFER, "", b"{"), 400, "EOF while parsing");
    check(post(address, INFER, "\r\ninference-header-content-length: x", b"{}"), 400, "Content-Length");
    check(post(address, INFER, "\r\ninference-header-content-length: 9", b"{}"), 400, "9 bytes of JSON");
    check(post(address, INFER, "\r\ncontent-encoding: gzip", b"{}"), 415, "compressed");
    check(post(address, INFER, "", &[b' '; 4_097]), 413, "at most 4096 bytes");
    let chunked = format!("POST {INFER} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked");
    let chunks = format!("1001\r\n{}\r\n0\r\n\r\n", " ".repeat(0x1001));
    check(send(address, &chunked, chunks.as_bytes()), 413, "at most 4096 bytes");
    check(
        post(address, "/v2/models/other/infer", "", question(std::slice::from_ref(&state)).to_string().as_bytes()),
        404,
        "other",
    );
    check(post(address, "/v2/models/policy/versions/9/infer", "", question(&[state]).to_string().as_bytes()), 404, "9");
    check(get(address, "/v2/models/other"), 404, "other");
    check(get(address, "/nothing"), 404, "nothing at this path");
    let wrong = get(address, INFER);
    assert_eq!(wrong.header("allow"), Some("POST"));
    check(wrong, 405, "POST");
    let counted = |route: &str, code: &str| {
        let labels = [("protocol", "http"), ("method", route), ("code", code)];
        number(&server.metrics().render(), "bellwether_requests_total", &labels)
    };
    eventually("the count of what was too large", || counted("/v2/models/:model/infer", "413") == 2.0);
    eventually("the count of unknown paths", || counted("unknown", "404") == 1.0);
    assert_eq!(counted("/v2/models/:model/infer", "405"), 1.0);
}

#[test]
fn one_request_too_many_is_refused_at_once() {
    let (server, address) = http(|config| config.limits.in_flight = 1);
    let body = question(&[vec![0.5; WIDTH]]).to_string();
    let head =
        format!("POST {INFER} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    let mut slow = TcpStream::connect(address).unwrap();
    slow.write_all(head.as_bytes()).unwrap();
    eventually("the slow request", || server.shared().in_flight.now() == 1);
    let answer = post(address, INFER, "", body.as_bytes());
    assert_eq!((answer.status, answer.error()), (429, "1 requests are being answered; try again".to_owned()));
    slow.write_all(body.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    slow.read_to_end(&mut bytes).unwrap();
    assert_eq!(Answer::of(&bytes).status, 200);
    eventually("the end of the slow request", || server.shared().in_flight.now() == 0);
}

#[test]
fn bodies_that_do_not_come_and_clients_that_go_hold_nothing() {
    let (server, address) = http(|config| config.times.request_ms = 50);
    let head = format!("POST {INFER} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 100");
    let late = send(address, &head, b"{");
    assert_eq!(late.status, 408);
    let (patient, address) = http(|config| config.times.request_ms = 60_000);
    let mut gone = TcpStream::connect(address).unwrap();
    gone.write_all(format!("{head}\r\n\r\n{{").as_bytes()).unwrap();
    eventually("the request", || patient.shared().in_flight.now() == 1);
    drop(gone);
    eventually("its end", || patient.shared().in_flight.now() == 0 && patient.shared().http_connections.now() == 0);
    drop(server);
}

#[test]
fn a_token_is_wanted_where_one_is_set() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&token).unwrap();
    file.write_all(b"0123456789abcdef").unwrap();
    let (_server, address) = http(|config| config.auth.token_file = Some(token.clone()));
    let body = question(&[vec![0.5; WIDTH]]).to_string();
    for (headers, status) in [
        ("", 401),
        ("\r\nauthorization: Bearer 0123456789abcdeX", 401),
        ("\r\nauthorization: Bearer 0123456789abcdef", 200),
    ] {
        assert_eq!(post(address, INFER, headers, body.as_bytes()).status, status, "{headers}");
    }
    for (path, status) in
        [("/v2/health/live", 200), ("/v2/health/ready", 200), ("/metrics", 401), ("/v2", 401), ("/no", 401)]
    {
        assert_eq!(get(address, path).status, status, "{path}");
    }
    let (_server, address) = http(|config| {
        config.auth.token_file = Some(token.clone());
        config.auth.open_metrics = true;
        config.auth.open_health = false;
    });
    assert_eq!((get(address, "/metrics").status, get(address, "/v2/health/live").status), (200, 401));
}

#[test]
fn metrics_are_scraped_and_one_connection_serves_many_requests() {
    let (server, address) = http(|_| ());
    let body = question(&[vec![0.5; WIDTH]]).to_string();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let request = format!("POST {INFER} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    // All at once: they are answered in their order.
    stream.write_all(request.repeat(20).as_bytes()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 21);
    let page = &text[text.find("# HELP").unwrap()..];
    assert!(
        text.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8")
            && page.ends_with("# EOF\n")
    );
    let labels = [("protocol", "http"), ("method", "/v2/models/:model/infer"), ("code", "200")];
    assert_eq!(number(page, "bellwether_requests_total", &labels), 20.0);
    assert_eq!(number(page, "bellwether_in_flight", &[("what", "http_connections")]), 1.0);
    let decided: f64 = policy(1)
        .actions()
        .iter()
        .map(|action| number(page, "bellwether_decisions_total", &[("action", action)]))
        .sum();
    assert_eq!(decided, 20.0);
    assert_eq!(server.drain(|_| ()).connections, 0);
}

#[test]
fn a_draining_server_ends_what_it_has_begun() {
    let (server, address) = http(|_| ());
    let body = question(&[vec![0.5; WIDTH]]).to_string();
    let mut slow = TcpStream::connect(address).unwrap();
    let head = format!("POST {INFER} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
    slow.write_all(head.as_bytes()).unwrap();
    eventually("the slow request", || server.shared().in_flight.now() == 1);
    let idle = TcpStream::connect(address).unwrap();
    eventually("both connections", || server.shared().http_connections.now() == 2);
    let shared = Arc::clone(server.shared());
    let draining = std::thread::spawn(move || server.drain(|_| ()));
    eventually("the drain", || shared.phase() == Phase::Draining);
    slow.write_all(body.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    slow.read_to_end(&mut bytes).unwrap();
    let answer = Answer::of(&bytes);
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    let left = draining.join().unwrap();
    assert_eq!(left.in_flight, 0);
    drop(idle);
}

#[test]
fn connections_that_say_nothing_are_closed() {
    let (server, address) = http(|config| {
        config.times.idle_ms = 150;
        config.times.handshake_ms = 150;
    });
    let beginnings = [
        "",
        "GET /v2",
        "GET /v2/health/live HTTP/1.1\r\nhost: a\r\n",
        "GET /v2/health/live HTTP/1.1\r\nhost: a\r\n\r\n",
    ];
    let mut open = Vec::new();
    for beginning in beginnings {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(beginning.as_bytes()).unwrap();
        open.push(stream);
    }
    for mut stream in open {
        let mut answer = Vec::new();
        // A peer that is cut off may be told so by a reset.
        let _ = stream.read_to_end(&mut answer);
    }
    eventually("their end", || server.shared().http_connections.now() == 0);
    assert_eq!(get(address, "/v2/health/live").status, 200);
}

#[test]
fn heads_that_are_too_large_are_refused() {
    let (server, address) = http(|config| config.limits.header_bytes = 8_192);
    let large = send(address, &format!("GET /v2 HTTP/1.1\r\nhost: a\r\nx: {}", "x".repeat(20_000)), b"");
    let many = send(address, &format!("GET /v2 HTTP/1.1\r\nhost: a{}", "\r\nx: y".repeat(200)), b"");
    assert_eq!((large.status, many.status), (431, 431));
    eventually("their end", || server.shared().http_connections.now() == 0);
}

#[test]
fn with_certificates_http_is_encrypted() {
    let folder = tempfile::tempdir().unwrap();
    let ours = authority();
    let (_server, address) = http(|config| config.tls = Some(files(folder.path(), &ours, None)));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ours.pem().as_bytes()).unwrap()).unwrap();
    let mut tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    // A client that could speak either is told which one is spoken here.
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let connection = ClientConnection::new(Arc::new(tls), "localhost".try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(connection, TcpStream::connect(address).unwrap());
    stream.write_all(b"GET /v2/health/live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert_eq!(Answer::of(&answer).status, 200);
    assert_eq!(stream.conn.alpn_protocol(), Some(b"http/1.1".as_slice()));
    let mut plain = TcpStream::connect(address).unwrap();
    plain.write_all(b"GET /v2/health/live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"));
}
