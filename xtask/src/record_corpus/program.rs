//! The programs of the corpus: joined, compiled, and given the parameters of one run.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::Run;

/// Both multi-call programs, before the parameters of a run are written into them.
#[derive(Debug)]
pub(crate) struct Programs {
    compiled: Vec<u8>,
    script: Vec<u8>,
    folder: PathBuf,
    /// Where programs of single runs are put.
    scratch: PathBuf,
}

/// What one run is made of.
#[derive(Debug)]
pub(crate) struct Sample {
    /// The program.
    pub(crate) program: PathBuf,
    /// What it is started with.
    pub(crate) arguments: Vec<String>,
    /// The shell script of a run with steps, else an empty file.
    pub(crate) steps: PathBuf,
    /// What the program is called inside.
    pub(crate) name: String,
}

impl Programs {
    /// Joins the sources under `folder` and compiles the C program.
    pub(crate) fn build(folder: &Path, scratch: &Path) -> Result<Programs> {
        let binary = scratch.join("joined");
        let mut compiler = Command::new("cc")
            .args(["-O1", "-Wall", "-Wextra", "-x", "c", "-", "-o"])
            .arg(&binary)
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot start cc")?;
        compiler.stdin.take().context("cc has no input")?.write_all(&joined(folder, "c")?)?;
        ensure!(compiler.wait()?.success(), "cc refused the programs of the corpus");
        Ok(Programs {
            compiled: fs::read(&binary)?,
            script: joined(folder, "py")?,
            folder: folder.to_owned(),
            scratch: scratch.to_owned(),
        })
    }

    /// Writes the files of one run.
    pub(crate) fn sample(&self, run: &Run) -> Result<Sample> {
        let steps_bytes = if run.language.starts_with("sh") { self.steps(run)? } else { Vec::new() };
        let file = |kind: &str| std::path::absolute(self.scratch.join(format!("{}.{kind}", run.name)));
        let steps = file("steps")?;
        fs::write(&steps, &steps_bytes)?;
        if run.language == "line" {
            let line = self.line(run)?;
            return match line.strip_prefix("#!") {
                Some(script) => {
                    let program = file("program")?;
                    let begins = fs::read_to_string(self.folder.join("harness/line.sh"))?;
                    fs::write(&program, format!("{begins}{}\n", script.trim()))?;
                    Ok(Sample { program, arguments: Vec::new(), steps, name: run.program.clone() })
                }
                None => {
                    let mut words = line.split(' ').map(str::to_owned);
                    // The file itself: what leads to it is Debian's choice.
                    let program = fs::canonicalize(words.next().context("a line begins with a path")?)?;
                    Ok(Sample { program, arguments: words.collect(), steps, name: run.program.clone() })
                }
            };
        }
        let [first, second, third] = run.ports;
        let program_bytes = if run.language == "sh" {
            // As if the script had been started with these: a seed, the port and the peer.
            let start = format!("#!/bin/sh\nset -- {} {first} {}\n", run.seed % (1 << 20), run.peer);
            [start.as_bytes(), &steps_bytes].concat()
        } else {
            let job = if run.language.starts_with("sh") { "run_steps" } else { run.job.name.as_str() };
            let parameters = format!("{job} {} {} {} {first} {second} {third}", run.seed, run.rounds, run.peer);
            let in_c = matches!(run.language.as_str(), "c" | "sh-c");
            with_parameters(if in_c { &self.compiled } else { &self.script }, &parameters)?
        };
        let program = file("program")?;
        fs::write(&program, &program_bytes)?;
        let suffix = if matches!(run.language.as_str(), "python" | "sh-python") { ".py" } else { "" };
        Ok(Sample { program, arguments: Vec::new(), steps, name: format!("{}{suffix}", run.program) })
    }

    /// The command of a run of a single line: a program of the system with its words, or `#!` and a line for the shell.
    fn line(&self, run: &Run) -> Result<String> {
        let path = self.folder.join(run.job.folder()).join("lines").join(&run.job.name);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let lines: Vec<&str> = text.lines().collect();
        ensure!(!lines.is_empty(), "{} is empty", path.display());
        Ok(lines[run.number % lines.len()].to_owned())
    }

    /// The shell script of a run: the shared beginning, what its class shares, the steps themselves.
    fn steps(&self, run: &Run) -> Result<Vec<u8>> {
        let class = run.job.folder();
        let shared = if class == "emulations" { "harness/intruder.sh" } else { "harness/everyday.sh" };
        let mut parts = vec![self.folder.join("harness/steps.sh"), self.folder.join(shared)];
        parts.push(self.folder.join(class).join("steps").join(format!("{}.sh", run.job.name)));
        let mut script = Vec::new();
        for part in parts {
            script.extend(fs::read(&part).with_context(|| format!("cannot read {}", part.display()))?);
            script.push(b'\n');
        }
        Ok(script)
    }
}

/// SHA-256 of the parts, one after the other, as lower-case hex.
pub(super) fn sha256_hex(parts: &[&[u8]]) -> String {
    let digest = parts.iter().fold(Sha256::new(), |digest, part| digest.chain_update(part)).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Harness, jobs and emulations as one source, in the order of their names.
fn joined(folder: &Path, extension: &str) -> Result<Vec<u8>> {
    let mut paths = vec![folder.join("harness/harness"), folder.join("harness/intruder")];
    for class in ["benign", "emulations"] {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder.join(class))? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == extension) {
                found.push(path.with_extension(""));
            }
        }
        found.sort();
        paths.extend(found);
    }
    paths.push(folder.join("harness/end"));
    let mut source = Vec::new();
    for path in paths {
        let path = path.with_extension(extension);
        source.extend(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
        source.extend(b"\n\n");
    }
    Ok(source)
}

/// The program with the run's parameters over its line of at-signs; the length stays.
fn with_parameters(program: &[u8], parameters: &str) -> Result<Vec<u8>> {
    const SIGNS: usize = 92;
    let at = program.windows(SIGNS).position(|part| part.iter().all(|&byte| byte == b'@'));
    let at = at.context("the program has no place for its parameters")?;
    ensure!(parameters.len() <= SIGNS, "the parameters {parameters:?} are longer than their place");
    let mut changed = program.to_vec();
    changed[at..at + SIGNS].fill(b' ');
    changed[at..at + parameters.len()].copy_from_slice(parameters.as_bytes());
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_replace_the_signs_and_nothing_else() {
        let program = [b"head ".as_slice(), &[b'@'; 92], b" tail"].concat();
        let changed = with_parameters(&program, "job 1").unwrap();
        assert_eq!(changed.len(), program.len());
        assert!(changed.starts_with(b"head job 1 ") && changed.ends_with(b" tail"));
        assert!(with_parameters(b"nothing", "job 1").is_err());
        assert!(with_parameters(&program, &"x".repeat(93)).is_err());
    }
}
