//! What several fuzzers need.
#![forbid(unsafe_code)]

use std::path::Path;

use bellwether_inference::model::{Contract, Expectation};
use bellwether_inference::policy::Options;
use bellwether_inference::serve::fuzz::Front;
use bellwether_inference::{Isa, Policy, load_release};

/// Runs `body` with a server of the model that ships, which has no listeners and is made once.
///
/// # Panics
/// Where the model is not there, or is refused.
pub fn with_front(body: impl FnOnce(&Front)) {
    thread_local! {
        static FRONT: Front = {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/quickstart");
            let manifest = bellwether_artifact::release::read_manifest(&folder).expect("the manifest that ships");
            let contract = Contract::sandbox(manifest.features.width as usize, manifest.features.spec_sha256);
            let release = load_release(&folder, &Expectation::new(contract), Isa::best()).expect("the model that ships");
            Front::new(Policy::new(release, None, Options::default()).expect("a policy")).expect("a server")
        };
    }
    FRONT.with(body);
}
