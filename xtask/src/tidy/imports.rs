//! Which crate may import which, and what every crate declares about itself.

use std::path::Path;

use anyhow::Context;

use super::Finding;
use crate::workspace::{Package, Workspace};

/// For each crate the ones of ours that it may import, in any kind of dependency; `artifact` is open to all but `xtask`.
const ALLOWED: [(&str, &[&str]); 11] = [
    ("bellwether", &["*"]),
    ("bellwether-artifact", &[]),
    ("bellwether-corpus", &["bellwether-artifact"]),
    ("bellwether-env-adapter", &["bellwether-artifact"]),
    ("bellwether-inference", &["bellwether-artifact", "bellwether-env-adapter"]),
    (
        "bellwether-peers",
        &["bellwether-artifact", "bellwether-env-adapter", "bellwether-inference", "bellwether-replay"],
    ),
    ("bellwether-registry", &["bellwether-artifact"]),
    ("bellwether-replay", &["bellwether-artifact"]),
    (
        "bellwether-sandbox",
        &["bellwether-artifact", "bellwether-env-adapter", "bellwether-inference", "bellwether-replay"],
    ),
    (
        "bellwether-trainer",
        &[
            "bellwether-artifact",
            "bellwether-env-adapter",
            "bellwether-inference",
            "bellwether-registry",
            "bellwether-replay",
        ],
    ),
    ("xtask", &[]),
];

/// Crates that hold `unsafe` in named modules and deny it elsewhere; all others forbid it.
const UNSAFE: [&str; 3] = ["bellwether-inference", "bellwether-sandbox", "bellwether-trainer"];

/// Checks every member's imports, lints and stance on `unsafe`.
pub(super) fn check(workspace: &Workspace) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for package in &workspace.packages {
        let manifest = relative(&workspace.root, &package.manifest_path)?;
        findings.extend(imports(&manifest, package));
        let text = workspace.read(&manifest)?;
        if !inherits_lints(&text).with_context(|| format!("{manifest} is no TOML"))? {
            findings.push(Finding::of(&manifest, "does not inherit the lints: add `[lints]` with `workspace = true`"));
        }
        let folder = manifest.strip_suffix("Cargo.toml").unwrap_or_default();
        let roots = ["src/lib.rs", "src/main.rs"].map(|file| format!("{folder}{file}"));
        for root in roots.into_iter().filter(|root| workspace.files.contains(root)) {
            let text = workspace.read(&root)?;
            let forbids = text.contains("#![forbid(unsafe_code)]");
            let denies = UNSAFE.contains(&package.name.as_str()) && text.contains("#![deny(unsafe_code)]");
            if !forbids && !denies {
                findings.push(Finding::of(&root, "does not forbid unsafe code: add `#![forbid(unsafe_code)]`"));
            }
        }
    }
    Ok(findings)
}

fn imports(manifest: &str, package: &Package) -> Vec<Finding> {
    let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == package.name) else {
        let message =
            format!("`{}` is in no list of allowed imports: add it to xtask/src/tidy/imports.rs", package.name);
        return vec![Finding::of(manifest, message)];
    };
    let ours = package.dependencies.iter().filter(|dependency| dependency.path.is_some());
    let forbidden = ours.filter(|dependency| !allowed.contains(&"*") && !allowed.contains(&dependency.name.as_str()));
    let message =
        |name: &str| format!("{} must not import {name}: ARCHITECTURE.md says who may import whom", package.name);
    forbidden.map(|dependency| Finding::of(manifest, message(&dependency.name))).collect()
}

fn inherits_lints(manifest: &str) -> anyhow::Result<bool> {
    let table: toml::Table = manifest.parse()?;
    let inherited = table.get("lints").and_then(|lints| lints.get("workspace"));
    Ok(inherited.and_then(toml::Value::as_bool) == Some(true))
}

fn relative(root: &Path, path: &Path) -> anyhow::Result<String> {
    let inside = path.strip_prefix(root).with_context(|| format!("{} lies outside the workspace", path.display()))?;
    Ok(inside.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    fn check(name: &str, dependencies: &[(&str, bool)], expected: usize) {
        let dependencies = dependencies
            .iter()
            .map(|(name, ours)| Dependency { name: (*name).to_owned(), path: ours.then(|| "folder".into()) })
            .collect();
        let package = Package { name: name.to_owned(), manifest_path: "Cargo.toml".into(), dependencies };
        let found = imports("Cargo.toml", &package);
        assert_eq!(found.len(), expected, "{found:?}");
    }

    #[test]
    fn who_may_import_whom() {
        check("bellwether", &[("bellwether-trainer", true), ("anything-of-ours", true)], 0);
        check("bellwether-inference", &[("bellwether-env-adapter", true), ("serde", false)], 0);
        check("bellwether-inference", &[("bellwether-trainer", true), ("bellwether-replay", true)], 2);
        check("bellwether-artifact", &[("bellwether-registry", true)], 1);
        check("bellwether-unheard-of", &[], 1);
        check("xtask", &[("bellwether-artifact", true)], 1);
    }

    #[test]
    fn lints_are_inherited() {
        assert!(inherits_lints("[package]\nname = 'a'\n[lints]\nworkspace = true").unwrap());
        assert!(!inherits_lints("[package]\nname = 'a'").unwrap());
        assert!(!inherits_lints("[lints]\nworkspace = false").unwrap());
    }
}
