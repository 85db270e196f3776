//! Where the figures come from: without it they say little.

use std::process::Command;

use anyhow::Context;
use serde::Deserialize;

use crate::workspace::{Workspace, output};

/// Peers that are crates, as they are called.
const CRATES: [(&str, &str); 2] = [("tonic", "tonic"), ("tract-onnx", "tract")];

/// A sentence about the machine, the compiler and the peers that are crates.
pub(super) fn describe(workspace: &Workspace) -> anyhow::Result<String> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| model_of(&text));
    let cpu = cpu.unwrap_or_else(|| format!("a processor of {}", std::env::consts::ARCH));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").ok();
    let load = load.as_deref().and_then(|text| text.split(' ').next()).unwrap_or("unknown");
    let compiler = output(Command::new("rustc").arg("--version"))?;
    let compiler = compiler.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let peers = versions(&workspace.read("Cargo.lock")?)?;
    Ok(format!("On {cpu} with {threads} threads, the load being {load} at the start; {compiler}, {peers}."))
}

/// The name of the first processor.
fn model_of(cpuinfo: &str) -> Option<String> {
    let value = |line: &str| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then(|| value.trim().to_owned())
    };
    cpuinfo.lines().find_map(value)
}

/// Names and versions of the peers that are crates, as they are locked.
fn versions(lock: &str) -> anyhow::Result<String> {
    #[derive(Deserialize)]
    struct Lock {
        package: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        version: String,
    }
    let lock: Lock = toml::from_str(lock).context("Cargo.lock is no lock file")?;
    let version = |(package, name): &(&str, &str)| {
        let found = lock.package.iter().find(|one| one.name == *package);
        let found = found.with_context(|| format!("Cargo.lock knows no {package}"))?;
        Ok(format!("{name} {}", found.version))
    };
    Ok(CRATES.iter().map(version).collect::<anyhow::Result<Vec<_>>>()?.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_processor_is_named() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nprocessor\t: 1\nmodel name\t: Other\n";
        assert_eq!(model_of(text).as_deref(), Some("Some CPU @ 2 GHz"));
        assert_eq!(model_of("processor\t: 0\nCPU implementer\t: 0x41\n"), None);
    }

    #[test]
    fn peers_have_the_versions_that_are_locked() {
        let package = |name: &str| format!("[[package]]\nname = \"{name}\"\nversion = \"1.2.3\"\n");
        assert_eq!(versions(&(package("tonic") + &package("tract-onnx"))).unwrap(), "tonic 1.2.3, tract 1.2.3");
        assert!(versions(&package("tonic")).unwrap_err().to_string().contains("tract-onnx"));
    }
}
