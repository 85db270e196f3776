//! Releases that are damaged, forged or not what is served: each is refused for its own reason, and serving goes on.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a failed set-up is a failed test, and its files need not outlive a power cut"
)]

mod manifests;
mod nets;
mod released;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use bellwether_artifact::release::{MANIFEST_FILE, ONNX_FILE, SIGNATURE_FILE};
use bellwether_artifact::signature::ReleaseSignature;
use bellwether_artifact::{GoldenVector, ModelManifest, Sha256};
use bellwether_inference::model::Contract;
use bellwether_inference::watch::{Reason, WatchOptions, Watcher};
use bellwether_inference::{Decider, Policy};
use nets::state_for;
use released::{ALL, Releases, contract, key, network, patient, trust};

/// A policy that serves number 1, watched with key 1 trusted.
struct Served {
    releases: Releases,
    policy: Policy,
    decider: Decider,
    watcher: Watcher,
}

impl Served {
    fn new() -> Self {
        Served::with(WatchOptions { trusted: Some(trust(&[1])), ..patient() })
    }

    fn with(options: WatchOptions) -> Self {
        let releases = Releases::new();
        let policy = releases.policy();
        let decider = policy.decider();
        let watcher = releases.watch(&policy, options);
        Served { releases, policy, decider, watcher }
    }

    /// Number 2, sound as yet.
    fn sound(&self) -> std::path::PathBuf {
        self.releases.add(2, &network(2));
        self.releases.folder(2)
    }

    /// Number 2 is refused for this reason with a text that holds `part`, once, and number 1 goes on to decide as before.
    #[track_caller]
    fn refuses(mut self, reason: Reason, part: &str) {
        let state = state_for(&network(1), 5);
        let values = |decider: &mut Decider| {
            let answer = decider.decide(&state, &ALL).unwrap();
            (answer.model.number, answer.decision.q_values.to_vec())
        };
        let before = values(&mut self.decider);
        assert_eq!(before.0, Some(1));
        for _ in 0..2 {
            let status = self.watcher.check_now();
            let refusal = status.last_refusal.clone().unwrap_or_else(|| panic!("nothing was refused: {status:?}"));
            assert_eq!((refusal.reason, refusal.number), (reason, Some(2)), "{}", refusal.text);
            assert!(refusal.text.contains(part), "`{part}` is not in: {}", refusal.text);
        }
        let refused: u64 = Reason::ALL.into_iter().map(|reason| self.watcher.counts().refused(reason)).sum();
        assert_eq!((self.watcher.counts().refused(reason), refused), (1, 1));
        assert_eq!(values(&mut self.decider), before);
        assert_eq!((self.policy.status().swaps, self.policy.status().models_resident), (0, 1));
        // And the next sound one is served.
        self.releases.add(3, &network(3));
        assert_eq!(self.watcher.check_now().serving.number, Some(3));
    }
}

/// Writes over a file of a release.
fn overwrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// Publishes number 2 from a changed manifest, signed like a sound one.
fn changed(served: &Served, change: impl FnOnce(&mut ModelManifest)) {
    served.releases.add_changed(2, &network(2), &contract(), change);
}

#[test]
fn half_copied() {
    let served = Served::new();
    overwrite(&served.sound().join(ONNX_FILE), |bytes| bytes.truncate(bytes.len() / 2));
    served.refuses(Reason::NetworkBytes, "copy the release again");
}

#[test]
fn truncated_manifest() {
    let served = Served::with(patient());
    overwrite(&served.sound().join(MANIFEST_FILE), |bytes| bytes.truncate(bytes.len() / 2));
    served.refuses(Reason::Manifest, "model.json");
}

#[test]
fn truncated_manifest_of_a_signed_release() {
    let served = Served::new();
    overwrite(&served.sound().join(MANIFEST_FILE), |bytes| bytes.truncate(bytes.len() / 2));
    served.refuses(Reason::SignatureInvalid, "was changed");
}

#[test]
fn wrong_hash() {
    let served = Served::new();
    overwrite(&served.sound().join(ONNX_FILE), |bytes| bytes[300] ^= 1);
    served.refuses(Reason::NetworkHash, "SHA-256");
}

#[test]
fn a_network_longer_than_its_manifest_says() {
    let served = Served::new();
    overwrite(&served.sound().join(ONNX_FILE), |bytes| bytes.push(0));
    served.refuses(Reason::NetworkBytes, "model.onnx");
}

#[test]
fn a_network_larger_than_any() {
    let served = Served::with(WatchOptions { max_bytes: 100_000, ..patient() });
    let folder = served.sound();
    // A hole on the disk: it must be refused by its size, not by reading it.
    fs::OpenOptions::new().write(true).open(folder.join(ONNX_FILE)).unwrap().set_len(1 << 40).unwrap();
    served.refuses(Reason::TooLarge, "100000");
}

#[test]
fn a_manifest_larger_than_any() {
    let served = Served::with(patient());
    let folder = served.sound();
    fs::OpenOptions::new().write(true).open(folder.join(MANIFEST_FILE)).unwrap().set_len(1 << 40).unwrap();
    served.refuses(Reason::TooLarge, "model.json");
}

#[test]
fn no_signature() {
    let served = Served::new();
    fs::remove_file(served.sound().join(SIGNATURE_FILE)).unwrap();
    served.refuses(Reason::SignatureMissing, "no signature.json");
}

#[test]
fn bad_signature() {
    let served = Served::new();
    let path = served.sound().join(SIGNATURE_FILE);
    let mut signature = ReleaseSignature::from_json(&fs::read(&path).unwrap()).unwrap();
    signature.signature[10] ^= 1;
    fs::write(&path, signature.to_json().unwrap()).unwrap();
    served.refuses(Reason::SignatureInvalid, "not one of this model.json");
}

#[test]
fn truncated_signature() {
    let served = Served::new();
    overwrite(&served.sound().join(SIGNATURE_FILE), |bytes| bytes.truncate(bytes.len() / 2));
    served.refuses(Reason::SignatureMalformed, "is no signature");
}

#[test]
fn signature_by_another_key() {
    let served = Served::new();
    let folder = served.sound();
    let manifest = fs::read(folder.join(MANIFEST_FILE)).unwrap();
    let signature = ReleaseSignature::sign(&manifest, &key(2));
    fs::write(folder.join(SIGNATURE_FILE), signature.to_json().unwrap()).unwrap();
    served.refuses(Reason::SignatureUntrusted, "not trusted here");
}

#[test]
fn signature_of_another_model() {
    let served = Served::new();
    fs::copy(served.releases.folder(1).join(SIGNATURE_FILE), served.sound().join(SIGNATURE_FILE)).unwrap();
    served.refuses(Reason::SignatureInvalid, "another's");
}

#[test]
fn a_changed_manifest_that_is_signed_no_more() {
    let served = Served::new();
    overwrite(&served.sound().join(MANIFEST_FILE), |bytes| bytes.push(b'\n'));
    served.refuses(Reason::SignatureInvalid, "was changed");
}

#[test]
fn a_changed_manifest_where_no_signature_is_demanded() {
    let served = Served::with(patient());
    overwrite(&served.sound().join(MANIFEST_FILE), |bytes| {
        *bytes = String::from_utf8(bytes.clone()).unwrap().replace("\"policy\"", "\"puppet\"").into_bytes();
    });
    served.refuses(Reason::Manifest, "changed after it was sealed");
}

#[test]
fn a_network_that_is_a_link_out_of_the_folder() {
    let served = Served::new();
    let folder = served.sound();
    let outside = tempfile::tempdir().unwrap();
    fs::rename(folder.join(ONNX_FILE), outside.path().join(ONNX_FILE)).unwrap();
    symlink(outside.path().join(ONNX_FILE), folder.join(ONNX_FILE)).unwrap();
    served.refuses(Reason::Link, "model.onnx is a link out of the folder");
}

#[test]
fn a_manifest_that_is_a_link_out_of_the_folder() {
    let served = Served::new();
    let folder = served.sound();
    fs::remove_file(folder.join(MANIFEST_FILE)).unwrap();
    symlink("../000001/model.json", folder.join(MANIFEST_FILE)).unwrap();
    served.refuses(Reason::Link, "model.json is a link out of the folder");
}

#[test]
fn a_folder_that_is_a_link_out_of_the_releases() {
    let served = Served::new();
    let outside = tempfile::tempdir().unwrap();
    fs::rename(served.sound(), outside.path().join("release")).unwrap();
    symlink(outside.path().join("release"), served.releases.folder(2)).unwrap();
    served.refuses(Reason::Link, "outside");
}

#[test]
fn a_pipe_in_the_place_of_a_network() {
    let served = Served::new();
    let path = served.sound().join(ONNX_FILE);
    fs::remove_file(&path).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    // Reading it would wait for a writer that never comes.
    served.refuses(Reason::Link, "no plain file");
}

#[test]
fn a_folder_in_the_place_of_a_manifest() {
    let served = Served::new();
    let path = served.sound().join(MANIFEST_FILE);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    served.refuses(Reason::Link, "no plain file");
}

#[test]
fn links_that_stay_inside_are_followed() {
    let served = Served::new();
    let folder = served.sound();
    // As a volume of a cluster has them, so that all files change at once.
    fs::create_dir(folder.join("..data")).unwrap();
    for file in [MANIFEST_FILE, ONNX_FILE, SIGNATURE_FILE] {
        fs::rename(folder.join(file), folder.join("..data").join(file)).unwrap();
        symlink(Path::new("..data").join(file), folder.join(file)).unwrap();
    }
    assert_eq!(served.watcher.check_now().serving.number, Some(2));
}

#[test]
fn metadata_of_another_model() {
    let served = Served::new();
    // Signed and sealed, with the hash of the network beside it, but about another.
    changed(&served, |manifest| manifest.widths = vec![12, 99, 5]);
    served.refuses(Reason::MetadataMismatch, "widths");
}

#[test]
fn metadata_and_network_of_two_models() {
    let served = Served::new();
    fs::copy(served.releases.folder(1).join(ONNX_FILE), served.sound().join(ONNX_FILE)).unwrap();
    served.refuses(Reason::NetworkHash, "SHA-256");
}

#[test]
fn swapped_actions() {
    let served = Served::new();
    let mut swapped = contract();
    swapped.actions.swap(2, 3);
    served.releases.add_changed(2, &network(2), &swapped, |_| {});
    served.refuses(Reason::Actions, "actions");
}

#[test]
fn wrong_specification() {
    let served = Served::new();
    let other = Contract { feature_spec: Sha256::of(b"other"), ..contract() };
    served.releases.add_changed(2, &network(2), &other, |_| {});
    served.refuses(Reason::Features, "feature specification");
}

#[test]
fn another_width() {
    let served = Served::new();
    let other = Contract::sandbox(20, Sha256::of(b"spec"));
    served.releases.add_changed(2, &nets::Draw(1).mlp(&[20, 16, 5]), &other, |_| {});
    served.refuses(Reason::Features, "20");
}

#[test]
fn other_windows() {
    let served = Served::new();
    changed(&served, |manifest| manifest.features.window.max_events = 17);
    served.refuses(Reason::Features, "window");
}

#[test]
fn golden_vectors_that_do_not_come_out() {
    let served = Served::new();
    changed(&served, |manifest| {
        let GoldenVector { q_values, mask, action, .. } = &mut manifest.golden[1];
        let best = *action as usize;
        assert!(mask[best]);
        q_values[best] = q_values[best].next_up();
    });
    served.refuses(Reason::GoldenVectors, "golden vector 1");
}

#[test]
fn no_golden_vectors() {
    let served = Served::new();
    changed(&served, |manifest| manifest.golden.clear());
    served.refuses(Reason::GoldenVectors, "export the model again");
}

#[test]
fn a_network_that_is_none() {
    let served = Served::new();
    let (manifest, onnx) = manifests::sealed(&network(2), &contract(), |_| {});
    // The manifest, its hash and its signature are those of the damaged file, so only the parser can tell.
    let onnx = &onnx[..onnx.len() - 7];
    let file = bellwether_artifact::OnnxFile { sha256: Sha256::of(onnx), bytes: onnx.len() as u64 };
    let manifest = ModelManifest { onnx: file, ..manifest }.sealed().unwrap();
    let json = manifest.to_json().unwrap();
    let signature = ReleaseSignature::sign(json.as_bytes(), &key(1)).to_json().unwrap();
    let folder = served.releases.folder(2);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join(ONNX_FILE), onnx).unwrap();
    fs::write(folder.join(SIGNATURE_FILE), signature).unwrap();
    fs::write(folder.join(MANIFEST_FILE), json).unwrap();
    served.refuses(Reason::Network, "model.onnx");
}

#[test]
fn weights_that_are_no_numbers() {
    let served = Served::new();
    let (manifest, onnx) = manifests::sealed(&network(2), &contract(), |_| {});
    // The encoder refuses such weights, so one of them is changed in the file.
    let weight = network(2).layers[0].weights.iter().copied().find(|weight| *weight != 0.0).unwrap();
    let at = onnx.windows(4).position(|bytes| bytes == weight.to_le_bytes()).unwrap();
    let mut onnx = onnx;
    onnx[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let file = bellwether_artifact::OnnxFile { sha256: Sha256::of(&onnx), bytes: onnx.len() as u64 };
    let json = ModelManifest { onnx: file, ..manifest }.sealed().unwrap().to_json().unwrap();
    let signature = ReleaseSignature::sign(json.as_bytes(), &key(1)).to_json().unwrap();
    let folder = served.releases.folder(2);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join(ONNX_FILE), onnx).unwrap();
    fs::write(folder.join(SIGNATURE_FILE), signature).unwrap();
    fs::write(folder.join(MANIFEST_FILE), json).unwrap();
    served.refuses(Reason::Weights, "finite");
}

#[test]
fn a_release_that_is_never_completed_is_neither_served_nor_refused() {
    let served = Served::with(WatchOptions { settle: Duration::ZERO, ..patient() });
    let folder = served.sound();
    fs::remove_file(folder.join(ONNX_FILE)).unwrap();
    fs::write(folder.join(ONNX_FILE), "").unwrap();
    // Listed, then gone: the folder was the latest for a moment.
    fs::remove_file(folder.join(MANIFEST_FILE)).unwrap();
    let status = served.watcher.check_now();
    assert_eq!((status.serving.number, status.last_refusal), (Some(1), None));
    assert_eq!(served.watcher.counts(), Default::default());
}
