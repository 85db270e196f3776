//! Tells the program which source it is made of, where that is known: the commit, and whether what is compiled was changed
//! since. Without git, or outside a checkout, it is made all the same and says that it does not know. With the feature `tch` it
//! finds libtorch where it was linked with it.

use std::path::Path;
use std::process::Command;

/// What the program is compiled from. Anything else may change without the program being another.
const COMPILED: [&str; 11] = [
    "Cargo.lock",
    "Cargo.toml",
    "artifact",
    "build.rs",
    "corpus",
    "env-adapter",
    "inference",
    "registry",
    "replay",
    "src",
    "trainer",
];

fn main() {
    if let Some(folder) = std::env::var_os("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo::rustc-link-arg=-Wl,-rpath={}", folder.display());
        // Nothing names the part for CUDA devices, which only registers itself.
        println!("cargo::rustc-link-arg=-Wl,--no-as-needed");
        println!("cargo::rustc-link-arg=-ltorch");
    }
    // A change of these is a change of the answer; whatever else changes, the program is not built again for it.
    for path in COMPILED {
        println!("cargo::rerun-if-changed={path}");
    }
    // A checkout that only contains this one, vendored for example, says nothing about it.
    if git(&["rev-parse", "--show-prefix"]).as_deref() != Some("") {
        return;
    }
    // In a linked work tree HEAD and the branches lie in two different places; git knows both.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "logs/HEAD", "packed-refs"].into_iter().chain(branch.as_deref()) {
        let path = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists());
        if let Some(path) = path {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    if let Some(revision) = git(&["rev-parse", "HEAD"]) {
        println!("cargo::rustc-env=BELLWETHER_REVISION={revision}");
        let changes = git(&[&["status", "--porcelain", "--"], &COMPILED[..]].concat());
        if let Some(changes) = changes {
            println!("cargo::rustc-env=BELLWETHER_MODIFIED={}", !changes.is_empty());
        }
    }
}

/// What git says, without the line break at the end; nothing where there is no git or it fails.
fn git(arguments: &[&str]) -> Option<String> {
    // `git status` would refresh the index, for which another process may hold the lock.
    let ran = Command::new("git").arg("--no-optional-locks").args(arguments).output().ok()?;
    let said = String::from_utf8(ran.stdout).ok()?;
    ran.status.success().then(|| said.trim_end().to_owned())
}
