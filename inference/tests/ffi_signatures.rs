//! Signatures over the C ABI: which releases are refused where keys are trusted, and with which number.
#![allow(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

mod border;
mod manifests;
mod nets;

use std::ffi::{CStr, CString};
use std::path::Path;
use std::ptr;

use bellwether_artifact::keys::PrivateKey;
use bellwether_artifact::signature::ReleaseSignature;
use bellwether_artifact::{durable, release};
use bellwether_inference::ffi::{Code, Options, Status};
use border::{Opened, Shelf, api, contract, message, network};
use manifests::sealed;

/// The version of the champion and how often it was swapped.
fn served(policy: &Opened) -> (Vec<std::ffi::c_char>, u64) {
    // SAFETY: zeros are a value of the struct.
    let mut status: Status = unsafe { std::mem::zeroed() };
    status.size = size_of::<Status>();
    // SAFETY: the policy is open, the struct has the size that it states.
    assert_eq!(unsafe { (api().policy_status)(policy.0, &raw mut status) }, Code::Ok);
    (status.champion.to_vec(), status.swaps)
}

#[track_caller]
fn refused(code: Code, expected: Code, says: &str) {
    assert_eq!(code, expected, "{}", message());
    assert!(message().contains(says), "{says:?} is not in {:?}", message());
}

#[test]
fn where_keys_are_trusted_a_release_that_none_of_them_signed_is_refused_with_its_number() {
    let shelf = Shelf::new();
    let keys = tempfile::tempdir().unwrap();
    let (trusted, stranger) = (PrivateKey::from_seed(&[1; 32]), PrivateKey::from_seed(&[2; 32]));
    let pem = trusted.public().to_pem();
    durable::write_bytes(keys.path().join("release.pub"), pem.as_bytes()).unwrap();
    let path = |path: &Path| CString::new(path.to_str().unwrap()).unwrap();
    let put = |name: &str, seed: u64, signature: &dyn Fn(&[u8]) -> Option<String>| {
        let (manifest, onnx) = sealed(&network(seed), &contract(64), |_| {});
        let signature = signature(manifest.to_json().unwrap().as_bytes());
        let companions =
            release::Companions { signature: signature.as_ref().map(String::as_bytes), ..Default::default() };
        release::publish(&shelf.folder(name), &manifest, &onnx, companions).unwrap();
        shelf.path(name)
    };
    let by = |key: &PrivateKey, bytes: &[u8]| Some(ReleaseSignature::sign(bytes, key).to_json().unwrap());
    let good = put("good", 1, &|bytes| by(&trusted, bytes));
    let next = put("next", 2, &|bytes| by(&trusted, bytes));
    let wrong = [
        (put("bare", 3, &|_| None), Code::SignatureMissing, "release sign"),
        (put("torn", 4, &|_| Some("{}".to_owned())), Code::SignatureMalformed, "signature.json"),
        (put("strange", 5, &|bytes| by(&stranger, bytes)), Code::SignatureUntrusted, "not trusted"),
        (put("moved", 6, &|_| by(&trusted, b"another manifest")), Code::SignatureInvalid, "not one of this"),
        // Nothing of it is parsed before it is believed.
        (shelf.put("spoilt", &network(7)), Code::SignatureMissing, "release sign"),
    ];
    durable::write_bytes(shelf.folder("spoilt").join("model.json"), b"{").unwrap();

    let open = |folder: &CStr, keys: &CStr| {
        let options = Options { trusted_keys: keys.as_ptr(), ..Options::default() };
        let mut policy = ptr::null_mut();
        // SAFETY: all pointers are of living things.
        let code = unsafe { (api().policy_open)(folder.as_ptr(), &raw const options, &raw mut policy) };
        (code, (code == Code::Ok).then(|| Opened(policy)))
    };
    refused(open(&good, &path(&keys.path().join("absent"))).0, Code::TrustedKeys, "absent");
    refused(open(&good, &path(tempfile::tempdir().unwrap().path())).0, Code::TrustedKeys, "");
    for (folder, code, says) in &wrong {
        refused(open(folder, &path(keys.path())).0, *code, says);
        drop(Opened::new(&good, None));
    }
    let (code, policy) = open(&good, &path(&keys.path().join("release.pub")));
    assert_eq!(code, Code::Ok, "{}", message());
    // The keys were read: they hold for all that comes, whatever becomes of the files.
    keys.close().unwrap();
    let policy = policy.unwrap();
    let before = served(&policy);
    for (folder, code, says) in &wrong {
        // SAFETY: the policy is open, the folders end with NUL.
        unsafe {
            refused((api().policy_swap)(policy.0, folder.as_ptr()), *code, says);
            refused((api().policy_try_out)(policy.0, folder.as_ptr(), 0.5), *code, says);
        }
        assert_eq!(served(&policy), before);
    }
    // SAFETY: as above.
    assert_eq!(unsafe { (api().policy_swap)(policy.0, next.as_ptr()) }, Code::Ok, "{}", message());
    assert_ne!(served(&policy), before);
}
