//! Which crate may import which, and what every crate declares about itself.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;

use super::Finding;
use crate::workspace::{Package, Workspace};

/// The page that says who may import whom, and the heading above its table.
const DOCUMENT: &str = "ARCHITECTURE.md";
const HEADING: &str = "## Who may import whom";

/// For each crate the ones of ours that it may import, in any kind of dependency; `None` where it may import all.
type Allowed = BTreeMap<String, Option<Vec<String>>>;

/// Crates that hold `unsafe` in named modules and deny it elsewhere; all others forbid it.
const UNSAFE: [&str; 3] = ["bellwether-inference", "bellwether-sandbox", "bellwether-trainer"];

/// Checks every member's imports, lints and stance on `unsafe`.
pub(super) fn check(workspace: &Workspace) -> anyhow::Result<Vec<Finding>> {
    let allowed = allowed(&workspace.read(DOCUMENT)?);
    let mut findings = Vec::new();
    for name in allowed.keys().filter(|name| !workspace.packages.iter().any(|package| package.name == **name)) {
        findings.push(Finding::of(DOCUMENT, format!("`{name}` may import, but does not exist: name it no longer")));
    }
    for package in &workspace.packages {
        let manifest = relative(&workspace.root, &package.manifest_path)?;
        findings.extend(imports(&manifest, package, &allowed));
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

/// The table of the page: a crate, and the ones of ours that it may import, or `none ...` or `all`.
fn allowed(text: &str) -> Allowed {
    let below = text.lines().skip_while(|line| *line != HEADING).skip(1).take_while(|line| !line.starts_with("## "));
    let block = below.skip_while(|line| !line.starts_with("```")).skip(1).take_while(|line| !line.starts_with("```"));
    let full = |name: &str| match name {
        "bellwether" | "xtask" => name.to_owned(),
        short => format!("bellwether-{short}"),
    };
    let row = |line: &str| {
        let (name, rest) = line.split_once(' ')?;
        let rest = rest.trim();
        let crates = match rest.split(' ').next()? {
            "all" => None,
            "none" => Some(Vec::new()),
            _ => Some(rest.split(',').map(|name| full(name.trim())).collect()),
        };
        Some((full(name), crates))
    };
    block.filter_map(row).collect()
}

fn imports(manifest: &str, package: &Package, allowed: &Allowed) -> Vec<Finding> {
    let Some(allowed) = allowed.get(&package.name) else {
        let message = format!("{DOCUMENT} does not say what `{}` may import: add it to the table there", package.name);
        return vec![Finding::of(manifest, message)];
    };
    let ours = package.dependencies.iter().filter(|dependency| dependency.path.is_some());
    let forbidden = ours.filter(|dependency| allowed.as_ref().is_some_and(|names| !names.contains(&dependency.name)));
    let message = |name: &str| format!("{} must not import {name}: {DOCUMENT} says who may import whom", package.name);
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

    const PAGE: &str = "## Who may import whom\n\n```text\nartifact    none of ours; open to all\n\
                        inference   env-adapter, artifact\nbellwether  all\nxtask       none: it calls\n```\n## More\n\
                        ```text\nother  all\n```\n";

    fn check(name: &str, dependencies: &[(&str, bool)], expected: usize) {
        let dependencies = dependencies
            .iter()
            .map(|(name, ours)| Dependency { name: (*name).to_owned(), path: ours.then(|| "folder".into()) })
            .collect();
        let package = Package { name: name.to_owned(), manifest_path: "Cargo.toml".into(), dependencies };
        let found = imports("Cargo.toml", &package, &allowed(PAGE));
        assert_eq!(found.len(), expected, "{found:?}");
    }

    #[test]
    fn who_may_import_whom() {
        check("bellwether", &[("bellwether-trainer", true), ("anything-of-ours", true)], 0);
        check("bellwether-inference", &[("bellwether-env-adapter", true), ("serde", false)], 0);
        check("bellwether-inference", &[("bellwether-trainer", true), ("bellwether-replay", true)], 2);
        check("bellwether-artifact", &[("bellwether-registry", true)], 1);
        check("bellwether-unheard-of", &[], 1);
        check("bellwether-other", &[], 1);
        check("xtask", &[("bellwether-artifact", true)], 1);
    }

    #[test]
    fn lints_are_inherited() {
        assert!(inherits_lints("[package]\nname = 'a'\n[lints]\nworkspace = true").unwrap());
        assert!(!inherits_lints("[package]\nname = 'a'").unwrap());
        assert!(!inherits_lints("[lints]\nworkspace = false").unwrap());
    }
}
