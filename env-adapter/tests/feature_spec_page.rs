//! The page of the feature specification says what the code does.

use bellwether_env_adapter::{FeatureSpec, WindowConfig};

#[test]
fn the_page_is_current() {
    let page = include_str!("../../docs/formats/feature-spec-v1.md");
    let spec = FeatureSpec::v1(WindowConfig::default());
    let advice = "print it again: cargo run -p bellwether-env-adapter --example feature_spec_page";
    assert!(page.contains(&spec.markdown_table()), "the table of elements is stale; {advice}");
    assert!(page.contains(&spec.hash_hex()), "the hash is stale; {advice}");
}
