//! Nanoseconds that the border to C adds to a decision: the same policy asked by Rust and over the table of functions.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench fails loudly, and criterion's macros document nothing")]

use std::ffi::CString;
use std::hint::black_box;
use std::path::Path;
use std::ptr;

use bellwether_artifact::{Sha256, release};
use bellwether_env_adapter::spec::FeatureSpec;
use bellwether_env_adapter::window::WindowConfig;
use bellwether_inference::ffi::{
    BELLWETHER_API_VERSION, BELLWETHER_PRECISION_EXACT, BELLWETHER_TIME_NEVER, Code, Options, bellwether_get_api,
};
use bellwether_inference::model::{Contract, Expectation};
use bellwether_inference::{Isa, Policy, Precision, load_release, policy};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn border(criterion: &mut Criterion) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/quickstart");
    let manifest = release::read_manifest(&folder).unwrap();
    let window = &manifest.features.window;
    let window = WindowConfig { max_events: window.max_events, max_ns: window.max_ns, max_windows: window.max_windows };
    let spec = FeatureSpec::v1(window);
    let contract = Contract::sandbox(spec.width(), Sha256::from_bytes(spec.hash()));
    let (width, actions) = (contract.width, contract.actions.len());
    let states: Vec<Vec<f32>> = manifest.golden.iter().map(|vector| vector.dense_state(width)).collect();
    let (mask, bytes) = (vec![true; actions], vec![1_u8; actions]);
    for precision in [Precision::Exact, Precision::Certified] {
        let mut group = criterion.benchmark_group(format!("the shipped model, {precision:?}"));
        group.throughput(Throughput::Elements(1));

        let loaded = load_release(&folder, &Expectation::new(contract.clone()), Isa::best()).unwrap();
        let options = policy::Options { precision, time_every: 0, ..policy::Options::default() };
        let mut decider = Policy::new(loaded, None, options).unwrap().decider();
        let mut next = states.iter().cycle();
        group.bench_function("from Rust", |bencher| {
            bencher.iter(|| {
                let state = black_box(next.next().unwrap());
                black_box(decider.decide(state, &mask).unwrap().decision.action);
            });
        });

        // SAFETY: the table of a known version is not NULL and stays valid.
        let api = unsafe { &*bellwether_get_api(BELLWETHER_API_VERSION) };
        let path = CString::new(folder.to_str().unwrap()).unwrap();
        let chosen = if precision == Precision::Exact { BELLWETHER_PRECISION_EXACT } else { 0 };
        let options = Options { precision: chosen, time_every: BELLWETHER_TIME_NEVER, ..Options::default() };
        let (mut opened, mut decider) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: all pointers are of living things.
        unsafe {
            assert_eq!((api.policy_open)(path.as_ptr(), &raw const options, &raw mut opened), Code::Ok);
            assert_eq!((api.decider_create)(opened, &raw mut decider), Code::Ok);
        }
        for (name, target) in [("from C", 0.0), ("from C, for a false-positive rate", 0.05)] {
            // SAFETY: the decider is freed below.
            assert_eq!(unsafe { (api.decider_set_target_fpr)(decider, target) }, Code::Ok);
            let mut decision = std::mem::MaybeUninit::uninit();
            let mut q_values = vec![0.0_f32; actions];
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    let state = black_box(next.next().unwrap());
                    let (state, mask, values) = (state.as_ptr(), bytes.as_ptr(), q_values.as_mut_ptr());
                    let place = decision.as_mut_ptr();
                    // SAFETY: all pointers are of living things, of the lengths that are given.
                    let code = unsafe {
                        (api.decide)(decider, state, width, mask, actions, ptr::null(), place, values, actions)
                    };
                    assert_eq!(code, Code::Ok);
                    black_box(&decision);
                });
            });
        }
        // SAFETY: neither is used again.
        unsafe {
            assert_eq!(((api.decider_free)(decider), (api.policy_close)(opened)), (Code::Ok, Code::Ok));
        }
        group.finish();
    }
}

criterion_group!(benches, border);
criterion_main!(benches);
