//! Who is let in: so many at a time, over TCP with a certificate alone, by certificates that change.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bellwether_env_adapter::{Action, EpisodeId};
use bellwether_sandbox::peer::{Address, ClientIdentity, ClientTls};
use bellwether_sandbox::stage::remote::{Endpoint, Listen, RemoteStage, StageConfig, StageServer};
use bellwether_sandbox::stage::{Question as Asked, Stage};

use super::super::{Paused, Rule, play};
use super::stages::{Busy, client, serve, setup, until};

/// Certificates of two authorities, for servers and clients.
pub(super) fn certificates(folder: &Path) {
    let write = |name: &str, text: String| {
        use std::os::unix::fs::OpenOptionsExt;
        let file = std::fs::File::options().create_new(true).write(true).mode(0o600).open(folder.join(name));
        std::io::Write::write_all(&mut file.unwrap(), text.as_bytes()).unwrap();
    };
    for (authority, names) in [("ours", ["server", "client"]), ("theirs", ["impostor", "stranger"])] {
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = rcgen::CertifiedIssuer::self_signed(parameters, rcgen::KeyPair::generate().unwrap()).unwrap();
        write(&format!("{authority}.pem"), issuer.pem());
        for name in names {
            let key = rcgen::KeyPair::generate().unwrap();
            let leaf = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
            write(&format!("{name}.pem"), leaf.signed_by(&key, &issuer).unwrap().pem());
            write(&format!("{name}.key"), key.serialize_pem());
        }
    }
}

#[test]
fn only_clients_with_a_certificate_are_heard_over_tcp() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    certificates(folder.path());
    let tls = |client_ca| bellwether_inference::serve::TlsFiles {
        certificate: path("server.pem"),
        key: path("server.key"),
        client_ca,
    };
    let address = ([127, 0, 0, 1], 0).into();
    let stage = Arc::new(Busy { windows: vec![3; 3], ..Busy::default() });
    let open = StageConfig::new(1, Listen::Tcp { address, tls: tls(None) });
    assert!(StageServer::start(open, stage.clone()).is_err(), "never without the authority of clients");
    let config = StageConfig::new(1, Listen::Tcp { address, tls: tls(Some(path("ours.pem"))) });
    let server = StageServer::start(config, stage.clone()).unwrap();
    let Endpoint::Tcp(bound) = server.endpoint().clone() else { panic!("{:?}", server.endpoint()) };
    let address: Address = format!("https://localhost:{}", bound.port()).parse().unwrap();
    for (name, authority, heard) in [("stranger", "ours", false), ("client", "theirs", false), ("client", "ours", true)]
    {
        let tls = ClientTls {
            authority: path(&format!("{authority}.pem")),
            identity: Some(ClientIdentity {
                certificate: path(&format!("{name}.pem")),
                key: path(&format!("{name}.key")),
            }),
        };
        let remote =
            RemoteStage::new(1, &address, Some(&tls), Default::default(), Arc::new(Paused::default())).unwrap();
        let mut setup = setup(&path(&format!("{name}-{authority}")), b"x");
        setup.episode = EpisodeId(format!("{name}-{authority}"));
        let remote: &dyn Stage = &remote;
        let mut judge =
            Rule(|asked: &Asked| Ok(if asked.close.is_last() { Action::Release } else { Action::Continue }));
        let (report, _, _) = play(&setup, [remote, remote], &mut judge);
        assert_eq!(report.verdict.is_some(), heard, "{name} {authority}: {:?}", report.partial);
    }
    assert_eq!(stage.ended.load(Ordering::Relaxed), 1);
}

/// Whether a stage runs a file.
fn runs(folder: &Path, name: &str, remote: &RemoteStage) -> bool {
    let mut setup = setup(&folder.join(name), b"x");
    setup.episode = EpisodeId(name.to_owned());
    let mut judge = Rule(|asked: &Asked| Ok(if asked.close.is_last() { Action::Release } else { Action::Continue }));
    play(&setup, [remote, remote], &mut judge).0.verdict.is_some()
}

#[test]
fn certificates_that_change_are_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    certificates(folder.path());
    let tls = bellwether_inference::serve::TlsFiles {
        certificate: path("server.pem"),
        key: path("server.key"),
        client_ca: Some(path("ours.pem")),
    };
    let stage = Arc::new(Busy { windows: vec![3; 3], ..Busy::default() });
    let config = StageConfig::new(1, Listen::Tcp { address: ([127, 0, 0, 1], 0).into(), tls });
    let server = StageServer::start(config, stage).unwrap();
    let Endpoint::Tcp(bound) = server.endpoint().clone() else { panic!("{:?}", server.endpoint()) };
    let address: Address = format!("https://localhost:{}", bound.port()).parse().unwrap();
    let trusting = |authority: &str| {
        let identity = ClientIdentity { certificate: path("client.pem"), key: path("client.key") };
        let tls = ClientTls { authority: path(authority), identity: Some(identity) };
        RemoteStage::new(1, &address, Some(&tls), Default::default(), Arc::new(Paused::default())).unwrap()
    };
    assert!(runs(folder.path(), "before", &trusting("ours.pem")));
    assert!(!runs(folder.path(), "too-early", &trusting("theirs.pem")));
    for file in ["pem", "key"] {
        std::fs::rename(path(&format!("impostor.{file}")), path(&format!("server.{file}"))).unwrap();
    }
    let mut attempt = 0;
    until("the other certificate", || {
        // Files are looked at once a second.
        std::thread::sleep(Duration::from_millis(50));
        attempt += 1;
        runs(folder.path(), &format!("after-{attempt}"), &trusting("theirs.pem"))
    });
    assert!(!runs(folder.path(), "too-late", &trusting("ours.pem")));
}

#[test]
fn one_connection_too_many_is_closed_and_the_next_is_let_in_again() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Arc::new(Busy { windows: vec![3; 3], ..Busy::default() });
    let (_server, path) = serve(folder.path(), stage, |config| config.connections = 2);
    let held = [(); 2].map(|()| UnixStream::connect(&path).unwrap());
    let mut third = UnixStream::connect(&path).unwrap();
    assert_eq!(third.read(&mut [0; 64]).unwrap(), 0, "it is closed without a word");
    let remote = client(&path, Arc::new(Paused::default()));
    assert!(!runs(folder.path(), "full", &remote));
    drop(held);
    let mut attempt = 0;
    until("room", || {
        attempt += 1;
        runs(folder.path(), &format!("free-{attempt}"), &remote)
    });
}

#[test]
fn a_stage_that_leaves_does_not_wait_for_whoever_is_gone() {
    use super::protocol::{Raw, announce};
    let folder = tempfile::tempdir().unwrap();
    let stage = Arc::new(Busy { windows: vec![1; 10], ..Busy::default() });
    let (server, path) = serve(folder.path(), stage.clone(), |config| config.lease = Duration::from_millis(300));
    Raw::connect(&path).detonate(announce(b"x"), &[b"x"]).unwrap();
    until("the end of a sample that nobody follows", || stage.ended.load(Ordering::Relaxed) == 1);
    assert_eq!(server.runs(), (0, 1), "its outcome waits to be fetched");
    // Its wait would be told here for ten minutes.
    let mut waits = 0;
    assert_eq!(
        server.drain(|_| {
            waits += 1;
            waits < 5_000
        }),
        0
    );
    assert!(waits < 5_000);
}
