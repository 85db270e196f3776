//! What tests said about themselves in the report of nextest.

use std::collections::BTreeSet;

/// How a test begins the line in which it says that it, or a part of it, was not run: `skipped: it needs root`, or
/// `skipped the_test: it needs root`.
const MARK: &str = "skipped";

/// What the output of a test is enclosed in.
const TAGS: [&str; 2] = ["<system-out>", "<system-err>"];

/// Every such line in a report, once.
pub(super) fn skipped(report: &str) -> BTreeSet<String> {
    let said = |line: &str| {
        let line = line.trim_start();
        let line = TAGS.iter().find_map(|tag| line.strip_prefix(tag)).unwrap_or(line);
        let text = line.strip_prefix(MARK)?;
        let text = text.strip_prefix(": ").or_else(|| text.strip_prefix(' '))?;
        // The output of a test ends with the tag that encloses it.
        let text = text.split('<').next().unwrap_or(text);
        Some(unescaped(text.trim_end()))
    };
    report.lines().filter_map(said).collect()
}

fn unescaped(text: &str) -> String {
    let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    entities.iter().fold(text.to_owned(), |text, (entity, character)| text.replace(entity, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_and_unescaped() {
        let report = "<testcase name=\"a\">\n  <system-out>running\nskipped: a needs root &amp; strace &lt;6&gt;\n\
                      skipped: b</system-out>\n<system-err>skipped: b</system-err>\n    \
                      <system-err>skipped c: no compiler\nit was not skipped: d\nskippedly</system-err>";
        assert_eq!(
            skipped(report).into_iter().collect::<Vec<_>>(),
            ["a needs root & strace <6>", "b", "c: no compiler"]
        );
    }
}
