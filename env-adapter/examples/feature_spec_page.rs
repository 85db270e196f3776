//! Prints `docs/formats/feature-spec-v1.md` with a fresh table of elements; redirect it over the page.

use std::io::Write;

use bellwether_env_adapter::{FeatureSpec, WindowConfig};

fn main() -> std::io::Result<()> {
    let page = include_str!("../../docs/formats/feature-spec-v1.md");
    let spec = FeatureSpec::v1(WindowConfig::default());
    let head = page.split("<!-- elements -->").next().unwrap_or_default();
    let hash = spec.hash_hex();
    write!(
        std::io::stdout(),
        "{head}<!-- elements -->\nSHA-256 for windows of 16 events or 100 ms: `{hash}`\n\n{}<!-- end of elements -->\n",
        spec.markdown_table()
    )
}
