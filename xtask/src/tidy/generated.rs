//! Files that are made from something else and checked in so that a change of them is seen.

use std::collections::BTreeSet;
use std::fs;

use anyhow::Context;

use super::{Finding, c_header};
use crate::workspace::{Workspace, cargo, output};

/// A file and what makes its content.
type Generated = (&'static str, fn(&Workspace) -> anyhow::Result<String>);

const FILES: [Generated; 2] =
    [("xtask/inference-tree.txt", inference_tree), ("inference/include/bellwether.h", c_header::header)];

/// Compares every generated file with what would be written now.
pub(super) fn check(workspace: &Workspace) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (file, make) in FILES {
        let wanted = make(workspace)?;
        let stands = fs::read_to_string(workspace.root.join(file)).unwrap_or_default();
        findings.extend(difference(file, &stands, &wanted));
    }
    Ok(findings)
}

/// Writes every generated file anew.
#[expect(clippy::disallowed_methods, reason = "a source file under version control is no artefact")]
pub(super) fn write(workspace: &Workspace) -> anyhow::Result<()> {
    for (file, make) in FILES {
        fs::write(workspace.root.join(file), make(workspace)?).with_context(|| format!("cannot write {file}"))?;
    }
    Ok(())
}

/// The first line in which two texts differ.
fn difference(file: &str, stands: &str, wanted: &str) -> Option<Finding> {
    if stands == wanted {
        return None;
    }
    let (mut old, mut new) = (stands.lines(), wanted.lines());
    let mut line = 1;
    let (old, new) = loop {
        match (old.next(), new.next()) {
            (old, new) if old == new && old.is_some() => line += 1,
            pair => break pair,
        }
    };
    let quoted = |text: Option<&str>| text.map_or("nothing".to_owned(), |text| format!("{text:?}"));
    let advice = "look whether the change is wanted, then `cargo xtask tidy --write`";
    Some(Finding::at(file, line, format!("has {}, should have {}: {advice}", quoted(old), quoted(new))))
}

/// The crates that the policy runtime pulls in with its default features, one name per line.
fn inference_tree(_: &Workspace) -> anyhow::Result<String> {
    // Names only: a new patch version of a crate is no news, a new crate is.
    let options = ["--package", "bellwether-inference", "--edges", "normal", "--target", "x86_64-unknown-linux-gnu"];
    let format = ["--prefix", "none", "--format", "{p}"];
    let tree = output(cargo().arg("tree").args(options).args(format))?;
    let names: BTreeSet<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let header =
        "# The crates in the policy runtime with default features. `cargo xtask tidy --write` writes this file.\n";
    Ok(names.into_iter().fold(header.to_owned(), |text, name| text + name + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_named() {
        assert_eq!(difference("f", "a\nb\n", "a\nb\n"), None);
        let message = |stands, wanted| difference("f", stands, wanted).unwrap().to_string();
        assert!(message("a\nb\n", "a\nc\n").starts_with("f:2: has \"b\", should have \"c\""));
        assert!(message("a\n", "a\nc\n").starts_with("f:2: has nothing, should have \"c\""));
        assert!(message("a\nb\n", "a\n").starts_with("f:2: has \"b\", should have nothing"));
        assert!(message("a", "a\n").starts_with("f:2: has nothing, should have nothing"));
    }
}
