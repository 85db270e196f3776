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

/// The files of one run, by their names in the folder of programs.
#[derive(Debug)]
pub(crate) struct Sample {
    /// The program.
    pub(crate) program: String,
    /// The shell script of a run with steps, else an empty file.
    pub(crate) steps: String,
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
        let shell = run.language.starts_with("sh");
        let in_c = matches!(run.language.as_str(), "c" | "sh-c");
        let job = if shell { "run_steps" } else { run.job.name.as_str() };
        let [first, second, third] = run.ports;
        let parameters = format!("{job} {} {} {} {first} {second} {third}", run.seed, run.rounds, run.peer);
        let program_bytes = with_parameters(if in_c { &self.compiled } else { &self.script }, &parameters)?;
        let steps_bytes = if shell { self.steps(run)? } else { Vec::new() };
        let (program, steps) = (format!("{}.program", run.name), format!("{}.steps", run.name));
        fs::write(self.scratch.join(&program), &program_bytes)?;
        fs::write(self.scratch.join(&steps), &steps_bytes)?;
        Ok(Sample { program, steps, name: format!("{}{}", run.program, if in_c { "" } else { ".py" }) })
    }

    /// The shell script of a run: the shared beginning, what its class shares, the steps themselves.
    fn steps(&self, run: &Run) -> Result<Vec<u8>> {
        let malicious = run.job.label == "malicious";
        let shared = if malicious { "harness/intruder.sh" } else { "harness/everyday.sh" };
        let mut parts = vec![self.folder.join("harness/steps.sh"), self.folder.join(shared)];
        let class = if malicious { "emulations" } else { "benign" };
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
