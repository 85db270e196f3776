//! Habits of the sources: no overlong files, nothing unfinished, no path of one machine, no cause that is told twice.

use super::Finding;
use crate::workspace::Workspace;

/// Past this many lines a file is likely to hold an idea without a name.
const LONG: usize = 600;

/// Marks of unfinished work, split so that this file does not hold them.
const UNFINISHED: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];

/// Checks every text file that people write.
pub(super) fn check(workspace: &Workspace) -> anyhow::Result<Vec<Finding>> {
    let machine = machine_paths(workspace);
    let mut findings = Vec::new();
    for file in workspace
        .with_extension(&["rs", "md", "toml", "py", "sh", "c", "h", "cpp", "hpp", "ipynb", "json", "yml", "yaml"])
    {
        let text = workspace.read(file)?;
        findings.extend(inspect(file, &text, &machine));
    }
    Ok(findings)
}

fn inspect(file: &str, text: &str, machine: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lines = text.lines().count();
    if file.ends_with(".rs") && lines > LONG {
        findings.push(Finding::of(file, format!("{lines} lines: is an idea missing its name?")).into_warning());
    }
    if file.ends_with(".rs") {
        findings.extend(told_twice(file, text));
    }
    for (index, line) in text.lines().enumerate() {
        let marked = |mark: &&&str| line.split(|byte: char| !byte.is_ascii_alphanumeric()).any(|word| word == **mark);
        if let Some(mark) = UNFINISHED.iter().find(marked) {
            findings.push(Finding::at(file, index + 1, format!("{mark}: finish it or leave it out")));
        }
        if let Some(path) = machine.iter().find(|path| names(line, path)) {
            findings.push(Finding::at(file, index + 1, format!("{path} is a path of this machine alone")));
        }
    }
    findings
}

/// Error texts that hold their cause and hand it on as well: whoever prints the chain of causes then says it twice. A
/// field called `source` and what is marked `#[from]` are handed on.
fn told_twice(file: &str, text: &str) -> Vec<Finding> {
    let advice = "the chain of causes says it again: leave it out, or call the field `cause`";
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut findings = Vec::new();
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| !line.starts_with("//")) {
        let attribute = line.starts_with("#[error(") || index > 0 && lines[index - 1] == "#[error(";
        let handed_on = line.contains(concat!("{sou", "rce}"))
            || line.contains("{0}") && lines.get(index + 1).is_some_and(|next| next.contains("(#[from]"));
        if attribute && handed_on {
            findings.push(Finding::at(file, index + 1, advice));
        }
    }
    findings
}

/// Whether `line` names `path` itself or something below it, and not a longer path that happens to contain it.
fn names(line: &str, path: &str) -> bool {
    let part_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    line.match_indices(path).any(|(at, _)| {
        let before = line.as_bytes()[..at].last().copied();
        let after = line.as_bytes().get(at + path.len()).copied();
        !before.is_some_and(|byte| part_of_name(byte) || byte == b'/') && !after.is_some_and(part_of_name)
    })
}

/// Folders that exist here and mean nothing elsewhere: the checkout and Cargo's own.
fn machine_paths(workspace: &Workspace) -> Vec<String> {
    let cargo_home = std::env::var("CARGO_HOME").ok();
    let roots = [Some(workspace.root.to_string_lossy().into_owned()), cargo_home];
    // A root such as /src would be found inside many an honest path.
    roots.into_iter().flatten().filter(|path| path.matches('/').count() >= 2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn habits() {
        let machine = ["/some/checkout".to_owned()];
        let check = |file: &str, text: &str, expected: &[&str]| {
            let found: Vec<String> = inspect(file, text, &machine).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected);
        };
        check("a.rs", "fn main() {}\n// mastodon\n", &[]);
        check("a.rs", concat!("\n// FIX", "ME: later"), &[concat!("a.rs:2: FIX", "ME: finish it or leave it out")]);
        let twice = ": the chain of causes says it again: leave it out, or call the field `cause`";
        check("a.rs", concat!("#[error(\"no: {sou", "rce}\")]\nA { source: E },"), &[&format!("a.rs:1{twice}")]);
        check("a.rs", concat!("#[error(\n    \"no: {sou", "rce}\"\n)]"), &[&format!("a.rs:2{twice}")]);
        check("a.rs", "#[error(\"no: {0}\")]\nA(#[from] E),", &[&format!("a.rs:1{twice}")]);
        check("a.rs", "#[error(\"no: {0}\")]\nA(String),\n#[error(transparent)]\nB(#[from] E),", &[]);
        check("a.md", "see /some/checkout/file", &["a.md:1: /some/checkout is a path of this machine alone"]);
        check("a.md", "see /home/user/some/checkout/file and /some/checkout.txt", &[]);
        check("a.rs", &"\n".repeat(601), &["a.rs: warning: 601 lines: is an idea missing its name?"]);
        check("a.md", &"\n".repeat(601), &[]);
    }
}
