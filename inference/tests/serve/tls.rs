//! TLS: who is let in, who is not, and certificates that change while connections stand.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use bellwether_inference::serve::proto::policy::policy_service_client::PolicyServiceClient;
use bellwether_inference::serve::{ServeError, Server, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::admin::private;
use crate::limits::question;
use crate::started::{config, policy, start, until};

pub(crate) type Authority = CertifiedIssuer<'static, KeyPair>;

pub(crate) fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for localhost and its key.
fn issued(authority: &Authority) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (params.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

pub(crate) fn files(folder: &Path, server: &Authority, clients: Option<&Authority>) -> TlsFiles {
    let (certificate, key) = issued(server);
    TlsFiles {
        certificate: private(folder, "certificate.pem", &certificate),
        key: private(folder, "key.pem", &key),
        client_ca: clients.map(|authority| private(folder, "clients.pem", &authority.pem())),
    }
}

async fn connect(server: &Server, tls: ClientTlsConfig) -> Result<Channel, tonic::transport::Error> {
    let port = server.endpoints().grpc.unwrap().port();
    let endpoint = Endpoint::from_shared(format!("https://localhost:{port}")).unwrap();
    endpoint.tls_config(tls).unwrap().connect().await
}

fn trusting(authority: &Authority) -> ClientTlsConfig {
    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem()))
}

async fn is_answered(server: &Server, tls: ClientTlsConfig) -> bool {
    match connect(server, tls).await {
        // With TLS 1.3 a client learns only afterwards that its certificate was refused.
        Ok(channel) => PolicyServiceClient::new(channel).decide(question()).await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test]
async fn clients_that_trust_the_server_are_answered_and_plain_text_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, other) = (authority(), authority());
    let server = start(|config| config.tls = Some(files(folder.path(), &ours, None)));
    assert!(is_answered(&server, trusting(&ours)).await);
    assert!(!is_answered(&server, trusting(&other)).await);
    let address = server.endpoints().grpc.unwrap();
    let plain = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await;
    if let Ok(channel) = plain {
        assert!(PolicyServiceClient::new(channel).decide(question()).await.is_err());
    }
    assert!(is_answered(&server, trusting(&ours)).await);
}

#[tokio::test]
async fn with_an_authority_for_clients_only_theirs_are_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, clients, other) = (authority(), authority(), authority());
    let server = start(|config| config.tls = Some(files(folder.path(), &ours, Some(&clients))));
    let identity = |authority: &Authority| {
        let (certificate, key) = issued(authority);
        Identity::from_pem(certificate, key)
    };
    assert!(is_answered(&server, trusting(&ours).identity(identity(&clients))).await);
    assert!(!is_answered(&server, trusting(&ours).identity(identity(&other))).await);
    assert!(!is_answered(&server, trusting(&ours)).await);
}

/// Connections that begin a handshake and do not go on: every other one with the first half of a `ClientHello`.
async fn half_open(server: &Server) -> Vec<TcpStream> {
    const HALF: [u8; 43] = {
        let mut hello = [7; 43];
        // A record of 512 bytes with a greeting of 508, in the version and form of TLS 1.2 and later; its random bytes begin.
        let head = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
        let mut index = 0;
        while index < head.len() {
            hello[index] = head[index];
            index += 1;
        }
        hello
    };
    let mut half_open = Vec::new();
    for index in 0..100 {
        let mut stream = TcpStream::connect(server.endpoints().grpc.unwrap()).await.unwrap();
        if index % 2 == 0 {
            stream.write_all(&HALF).await.unwrap();
        }
        half_open.push(stream);
    }
    half_open
}

#[tokio::test]
async fn half_open_handshakes_block_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let ours = authority();
    let server = start(|config| {
        config.tls = Some(files(folder.path(), &ours, None));
        config.times.handshake_ms = 60_000;
    });
    let half_open = half_open(&server).await;
    until("all of them", || server.shared().connections.now() == half_open.len()).await;
    assert!(is_answered(&server, trusting(&ours)).await);
    drop(half_open);
    until("their end", || server.shared().connections.now() == 0).await;
}

#[tokio::test]
async fn half_open_handshakes_end() {
    let folder = tempfile::tempdir().unwrap();
    let ours = authority();
    let server = start(|config| {
        config.tls = Some(files(folder.path(), &ours, None));
        config.times.handshake_ms = 300;
    });
    for mut stream in half_open(&server).await {
        // Whatever the server still says, it closes.
        let mut said = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut said)).await.unwrap();
    }
    until("their end", || server.shared().connections.now() == 0).await;
}

#[tokio::test]
async fn certificates_are_read_again_when_they_change_and_kept_when_they_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let (before, after) = (authority(), authority());
    let server = start(|config| config.tls = Some(files(folder.path(), &before, None)));
    assert!(is_answered(&server, trusting(&before)).await);
    let replace = |name: &str, text: &str| {
        let new = private(folder.path(), "new", text);
        std::fs::rename(new, folder.path().join(name)).unwrap();
    };
    replace("key.pem", "no key");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert!(is_answered(&server, trusting(&before)).await);
    let (certificate, key) = issued(&after);
    replace("certificate.pem", &certificate);
    // A key that others can read is not used until they cannot.
    let new = private(folder.path(), "new", &key);
    let mode = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    mode(&new, 0o644);
    std::fs::rename(new, folder.path().join("key.pem")).unwrap();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert!(is_answered(&server, trusting(&before)).await);
    mode(&folder.path().join("key.pem"), 0o600);
    for _ in 0..100 {
        if is_answered(&server, trusting(&after)).await {
            assert!(!is_answered(&server, trusting(&before)).await);
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the new certificate is not served");
}

#[test]
fn files_that_cannot_be_used_are_refused_before_anything_listens() {
    let folder = tempfile::tempdir().unwrap();
    let ours = authority();
    let good = files(folder.path(), &ours, None);
    let (_, other_key) = issued(&ours);
    let other_key = private(folder.path(), "other-key.pem", &other_key);
    let empty = private(folder.path(), "empty.pem", "");
    let open = private(folder.path(), "open.pem", &std::fs::read_to_string(&good.key).unwrap());
    std::fs::set_permissions(&open, Permissions::from_mode(0o644)).unwrap();
    let absent = folder.path().join("absent");
    // Each with the file that is to blame, what is wrong with it and what to do.
    for (tls, blamed, wrong, advice) in [
        (
            TlsFiles { certificate: empty.clone(), ..good.clone() },
            &empty,
            "no tls.certificate: it holds none",
            "give certificates in PEM",
        ),
        (TlsFiles { key: empty.clone(), ..good.clone() }, &empty, "no tls.key", "give a private key in PEM"),
        (
            TlsFiles { key: other_key, ..good.clone() },
            &good.certificate,
            "other-key.pem) are no pair",
            "and the key of that one",
        ),
        (TlsFiles { key: open.clone(), ..good.clone() }, &open, "mode 644", "chmod 600"),
        (TlsFiles { key: absent.clone(), ..good.clone() }, &absent, "No such file", "give a file"),
        (
            TlsFiles { client_ca: Some(empty.clone()), ..good.clone() },
            &empty,
            "no tls.client_ca: it holds none",
            "give certificates in PEM",
        ),
        (
            TlsFiles { certificate: absent.clone(), ..good.clone() },
            &absent,
            "no tls.certificate: ",
            "give certificates in PEM",
        ),
    ] {
        let mut config = config();
        config.tls = Some(tls);
        let error = Server::start(config, policy(1), "policy", None).unwrap_err();
        assert!(matches!(&error, ServeError::File { path, .. } if path == blamed), "{error}");
        let text = error.to_string();
        assert!(text.contains(wrong) && text.contains(advice), "{wrong}, {advice}: {text}");
    }
}
