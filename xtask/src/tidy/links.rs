//! Links between the documents lead somewhere.

use std::path::{Component, Path, PathBuf};

use super::Finding;
use crate::workspace::Workspace;

/// Checks every relative link of every Markdown file, and the heading it points to.
pub(super) fn check(workspace: &Workspace) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for file in workspace.with_extension(&["md"]) {
        for (line, target) in links(&workspace.read(file)?) {
            findings.extend(follow(workspace, file, line, &target)?);
        }
    }
    Ok(findings)
}

fn follow(workspace: &Workspace, file: &str, line: usize, target: &str) -> anyhow::Result<Option<Finding>> {
    let elsewhere = target.contains("://") || target.starts_with("mailto:");
    if elsewhere {
        return Ok(None);
    }
    let (path, heading) = target.split_once('#').map_or((target, None), |(path, heading)| (path, Some(heading)));
    let aim = if path.is_empty() { Some(PathBuf::from(file)) } else { resolve(file, path) };
    let Some(aim) = aim else {
        return Ok(Some(Finding::at(file, line, format!("{target} leads out of the project"))));
    };
    let name = aim.to_string_lossy().into_owned();
    let is_folder = workspace.files.iter().any(|known| Path::new(known).starts_with(&aim));
    if !is_folder {
        return Ok(Some(Finding::at(file, line, format!("{target} leads nowhere: there is no {name}"))));
    }
    match heading {
        Some(heading) if name.ends_with(".md") => {
            let found = headings(&workspace.read(&name)?).any(|known| known == heading);
            Ok((!found).then(|| Finding::at(file, line, format!("{name} has no heading #{heading}"))))
        }
        _ => Ok(None),
    }
}

/// The path that a link in `file` means, relative to the root; `None` where it climbs out.
fn resolve(file: &str, link: &str) -> Option<PathBuf> {
    let mut path = Path::new(file).parent()?.to_path_buf();
    for part in Path::new(link).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir if path.pop() => {}
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(path)
}

/// The targets of inline links and images outside code, with the number of their line.
fn links(text: &str) -> Vec<(usize, String)> {
    prose(text)
        .flat_map(|(number, line)| {
            let outside: String = line.split('`').step_by(2).collect();
            let targets: Vec<(usize, String)> = outside
                .split("](")
                .skip(1)
                .filter_map(|rest| rest.split([')', ' ']).next())
                .map(|target| (number, target.to_owned()))
                .collect();
            targets
        })
        .collect()
}

/// The anchors of a document's headings, as common hosts make them.
fn headings(text: &str) -> impl Iterator<Item = String> {
    prose(text).filter_map(|(_, line)| {
        let title = line.trim_start_matches('#');
        let heading = title.len() < line.len() && title.starts_with(' ');
        let slug = |character: char| match character {
            ' ' => Some('-'),
            '-' | '_' => Some(character),
            _ if character.is_alphanumeric() => Some(character),
            _ => None,
        };
        heading.then(|| title.trim().to_lowercase().chars().filter_map(slug).collect())
    })
}

/// The lines outside code blocks, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fence && !fenced).then_some((index + 1, line))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_found_outside_code() {
        let text = "[a](b.md) and [c](d.md#e \"title\")\n```\n[x](y)\n```\n`[x](y)` ![i](f.png)";
        let found = links(text);
        let expected = [(1, "b.md"), (1, "d.md#e"), (5, "f.png")].map(|(line, target)| (line, target.to_owned()));
        assert_eq!(found, expected);
    }

    #[test]
    fn headings_become_anchors() {
        let text = "# The `house`, in short\n#not one\n```\n# nor this\n```\n## 3. Formats_x";
        assert_eq!(headings(text).collect::<Vec<_>>(), ["the-house-in-short", "3-formats_x"]);
    }

    #[test]
    fn links_are_relative_to_their_file() {
        let resolved = |file, link| resolve(file, link).map(|path| path.to_string_lossy().into_owned());
        assert_eq!(resolved("docs/a.md", "../README.md").as_deref(), Some("README.md"));
        assert_eq!(resolved("docs/a.md", "./formats/b.md").as_deref(), Some("docs/formats/b.md"));
        assert_eq!(resolved("README.md", "../outside"), None);
        assert_eq!(resolved("README.md", "/etc"), None);
    }
}
