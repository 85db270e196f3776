//! The header of the C ABI, made from its Rust sources.

use std::collections::HashMap;

use anyhow::{Context, ensure};
use cbindgen::{Builder, Config, EnumConfig, Language, RenameRule, Style};

use crate::workspace::Workspace;

/// What the header is made from, in its order.
const SOURCES: [&str; 2] = ["inference/src/ffi/abi.rs", "inference/src/ffi/mod.rs"];

/// Types of C and what Rust calls them.
const NAMES: [(&str, &str); 8] = [
    ("ApiV1", "bellwether_api_v1"),
    ("Code", "bellwether_code"),
    ("Decision", "bellwether_decision"),
    ("DeciderHandle", "bellwether_decider"),
    ("Metrics", "bellwether_metrics"),
    ("Options", "bellwether_options"),
    ("PolicyHandle", "bellwether_policy"),
    ("Status", "bellwether_status"),
];

const PREAMBLE: &str = "\
/* The C ABI of the policy runtime: docs/c-abi.md. Written by `cargo xtask tidy --write` from inference/src/ffi; do not edit. */";

/// The header as it should stand.
pub(super) fn header(workspace: &Workspace) -> anyhow::Result<String> {
    let mut config = Config {
        language: Language::C,
        cpp_compat: true,
        header: Some(PREAMBLE.to_owned()),
        include_guard: Some("BELLWETHER_H".to_owned()),
        no_includes: true,
        sys_includes: vec!["stddef.h".to_owned(), "stdint.h".to_owned()],
        usize_is_size_t: true,
        style: Style::Both,
        line_length: 120,
        enumeration: EnumConfig { rename_variants: RenameRule::QualifiedScreamingSnakeCase, ..EnumConfig::default() },
        ..Config::default()
    };
    let names = NAMES.map(|(rust, c)| (rust.to_owned(), c.to_owned()));
    config.export.rename = HashMap::from(names);
    let mut builder = Builder::new().with_config(config);
    for source in SOURCES {
        ensure!(
            workspace.root.join(source).is_file(),
            "{source} is missing: name the sources of the C ABI in c_header.rs"
        );
        builder = builder.with_src(workspace.root.join(source));
    }
    let bindings = builder.generate().context("cbindgen cannot make the header of the C ABI")?;
    let mut text = Vec::new();
    bindings.write(&mut text);
    String::from_utf8(text).context("the header of the C ABI is no UTF-8")
}
