//! ARCHITECTURE.md names every folder and crate that exists, and none that does not.

use std::collections::BTreeSet;

use super::Finding;
use crate::workspace::Workspace;

const DOCUMENT: &str = "ARCHITECTURE.md";

/// Compares the map with the land.
pub(super) fn check(workspace: &Workspace) -> anyhow::Result<Vec<Finding>> {
    if !workspace.files.iter().any(|file| file == DOCUMENT) {
        return Ok(vec![Finding::of(DOCUMENT, "is missing: write the map of the folders and what they never do")]);
    }
    let text = workspace.read(DOCUMENT)?;
    let packages: Vec<&str> = workspace.packages.iter().map(|package| package.name.as_str()).collect();
    Ok(compare(&text, &workspace.files, &packages))
}

fn compare(text: &str, files: &[String], packages: &[&str]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut named_folders = BTreeSet::new();
    let mut words = BTreeSet::new();
    for (number, word) in code_words(text) {
        words.insert(word);
        if let Some(folder) = word.strip_suffix('/').filter(|folder| is_path(folder)) {
            named_folders.insert(folder);
            let prefix = format!("{folder}/");
            if !files.iter().any(|file| file.starts_with(&prefix)) {
                findings.push(Finding::at(DOCUMENT, number, format!("`{word}` does not exist: name it no longer")));
            }
        } else if word.starts_with("bellwether-") && !packages.contains(&word) {
            findings.push(Finding::at(DOCUMENT, number, format!("there is no crate `{word}`: name it no longer")));
        }
    }
    let folders: BTreeSet<&str> =
        files.iter().filter_map(|file| file.split_once('/')).map(|(folder, _)| folder).collect();
    for folder in folders.into_iter().filter(|folder| !folder.starts_with('.') && !named_folders.contains(folder)) {
        findings.push(Finding::of(
            DOCUMENT,
            format!("does not name `{folder}/`: say what it holds and what it never does"),
        ));
    }
    for package in packages.iter().filter(|package| !words.contains(*package)) {
        findings.push(Finding::of(DOCUMENT, format!("does not name the crate `{package}`: say which folder it is")));
    }
    findings
}

/// Whether every part of a path is made of what our folders are called by; placeholders in capitals are not.
fn is_path(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.');
    !text.is_empty() && text.split('/').all(|part| !part.is_empty() && part != ".." && part.bytes().all(plain))
}

/// The words inside code spans and code blocks, with the number of their line.
pub(super) fn code_words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().flat_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        let spans: Vec<&str> = match (fence, fenced) {
            (true, _) => Vec::new(),
            (_, true) => vec![line],
            _ => line.split('`').skip(1).step_by(2).collect(),
        };
        let words =
            spans.into_iter().flat_map(str::split_whitespace).map(|word| word.trim_matches([',', ';', ':', '(', ')']));
        words.map(move |word| (index + 1, word)).collect::<Vec<_>>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, files: &[&str], packages: &[&str], expected: &[&str]) {
        let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        let found: Vec<String> = compare(text, &files, packages).iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found:?} should contain {expected:?}");
        }
    }

    #[test]
    fn the_map_and_the_land_agree() {
        let files = ["artifact/src/lib.rs", "docs/a.md", "README.md", ".ci/run"];
        let map = "```text\nartifact/  bellwether-artifact, files\ndocs/\n```\nRun folders are `RUNS/one/`.\n";
        check(map, &files, &["bellwether-artifact"], &[]);
        check(
            "`artifact/` is `bellwether-artifact`, `docs/` too, `artifact/src/`",
            &files,
            &["bellwether-artifact"],
            &[],
        );
        check("`artifact/`", &files, &["xtask"], &["does not name `docs/`", "does not name the crate `xtask`"]);
        check(
            "`artifact/` `docs/`\n`gone/` `artifact/gone/`",
            &files,
            &[],
            &["md:2: `gone/`", "md:2: `artifact/gone/`"],
        );
        check("`artifact/` `docs/` `bellwether-gone`", &files, &[], &["no crate `bellwether-gone`"]);
        check("artifact/ docs/", &files, &[], &["`artifact/`", "`docs/`"]);
    }
}
