//! What the machine has, as the operating system tells it. Nothing here decides a result.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

/// Memory, in bytes; null where the system does not say.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Memory {
    /// What the machine has.
    pub(crate) total_bytes: Option<u64>,
    /// What a new process can have without others being pushed out.
    pub(crate) available_bytes: Option<u64>,
    /// What this process and those beside it in its control group may have together.
    pub(crate) limit_bytes: Option<u64>,
}

/// Room in a file system.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Disk {
    /// The folder that was asked about; it need not exist yet.
    pub(crate) folder: PathBuf,
    /// Bytes that this user may still write; null where the system does not say.
    pub(crate) free_bytes: Option<u64>,
    /// Size of the file system in bytes.
    pub(crate) total_bytes: Option<u64>,
}

/// The name of the processor; none where the system does not say.
pub(crate) fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Features of the processor that matter to kernels for neural networks, the oldest first.
#[cfg(target_arch = "x86_64")]
pub(crate) fn processor_features() -> Vec<&'static str> {
    let known = [
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("avx", is_x86_feature_detected!("avx")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512vl", is_x86_feature_detected!("avx512vl")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ];
    known.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
}

/// Features of the processor that matter to kernels for neural networks, the oldest first.
#[cfg(target_arch = "aarch64")]
pub(crate) fn processor_features() -> Vec<&'static str> {
    let known = [
        ("neon", std::arch::is_aarch64_feature_detected!("neon")),
        ("dotprod", std::arch::is_aarch64_feature_detected!("dotprod")),
        ("bf16", std::arch::is_aarch64_feature_detected!("bf16")),
        ("sve", std::arch::is_aarch64_feature_detected!("sve")),
    ];
    known.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
}

/// Features of the processor that matter to kernels for neural networks: none is known for this family.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) fn processor_features() -> Vec<&'static str> {
    Vec::new()
}

/// The memory of the machine.
pub(crate) fn memory() -> Memory {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    Memory {
        total_bytes: kib(&text, "MemTotal:"),
        available_bytes: kib(&text, "MemAvailable:"),
        // The word `max` stands for no limit.
        limit_bytes: limit.and_then(|limit| limit.trim().parse().ok()),
    }
}

/// A line of `/proc/meminfo`, in bytes.
fn kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The room where `folder` is, or will be made.
pub(crate) fn disk(folder: &Path) -> Disk {
    let here = PathBuf::from(".");
    let standing = folder.ancestors().find(|above| above.exists()).unwrap_or(&here);
    let found = rustix::fs::statvfs(standing).ok();
    Disk {
        folder: folder.to_path_buf(),
        free_bytes: found.as_ref().and_then(|found| found.f_bavail.checked_mul(found.f_frsize)),
        total_bytes: found.as_ref().and_then(|found| found.f_blocks.checked_mul(found.f_frsize)),
    }
}

/// Where the system would find a program.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// The library of ONNX Runtime: what `ORT_DYLIB_PATH` names and nothing else, or the one in a Python wheel.
pub(crate) fn onnx_runtime() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("ORT_DYLIB_PATH") {
        return Some(PathBuf::from(named)).filter(|path| path.is_file());
    }
    let environments = [
        std::env::var_os("VIRTUAL_ENV").map(PathBuf::from),
        Some(PathBuf::from("target/venv")),
        Some(PathBuf::from(".venv")),
        std::env::home_dir().map(|home| home.join(".local")),
        Some(PathBuf::from("/usr/local")),
        Some(PathBuf::from("/usr")),
    ];
    environments.into_iter().flatten().find_map(|environment| wheel(&environment))
}

/// The library of ONNX Runtime in a Python environment.
fn wheel(environment: &Path) -> Option<PathBuf> {
    let versions = entries(&environment.join("lib"), "python3");
    let packages =
        versions.iter().flat_map(|version| ["site-packages", "dist-packages"].map(|name| version.join(name)));
    packages.flat_map(|packages| entries(&packages.join("onnxruntime/capi"), "libonnxruntime.so")).next()
}

/// What in a folder has a name that begins so, sorted; nothing where the folder cannot be read.
fn entries(folder: &Path, beginning: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(beginning))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "inputs of a test need not outlive a power cut")]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_the_kernel_writes_it() {
        let text = "MemTotal:       16 kB\nMemFree:  3 kB\nMemAvailable:\t8 kB\nOdd: many kB\n";
        assert_eq!(kib(text, "MemTotal:"), Some(16_384));
        assert_eq!(kib(text, "MemAvailable:"), Some(8_192));
        assert_eq!((kib(text, "Odd:"), kib(text, "Swap:")), (None, None));
    }

    #[test]
    fn a_folder_that_is_to_be_made_has_the_room_of_what_stands_above_it() {
        let folder = tempfile::tempdir().unwrap();
        let (stands, later) = (disk(folder.path()), disk(&folder.path().join("a/b")));
        assert!(later.total_bytes.is_some_and(|bytes| bytes > 0));
        assert_eq!(stands.total_bytes, later.total_bytes);
        assert!(disk(Path::new("none/such")).total_bytes.is_some());
    }

    #[test]
    fn a_wheel_is_found_in_its_environment() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(wheel(folder.path()), None);
        let capi = folder.path().join("lib/python3.12/site-packages/onnxruntime/capi");
        std::fs::create_dir_all(&capi).unwrap();
        std::fs::write(capi.join("libonnxruntime_providers_shared.so"), "").unwrap();
        assert_eq!(wheel(folder.path()), None);
        std::fs::write(capi.join("libonnxruntime.so.1.23.2"), "").unwrap();
        assert_eq!(wheel(folder.path()), Some(capi.join("libonnxruntime.so.1.23.2")));
    }
}
