//! A kernel as its package unpacks, and the first root file system of a guest that boots it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Modules that a guest loads, unless the kernel has them built in; a kernel without one says so as it boots.
const MODULES: [&str; 5] = ["virtio_pci", "9pnet_virtio", "9p", "overlay", "tun"];

/// A kernel and its modules.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) image: PathBuf,
    pub(super) release: String,
    modules: PathBuf,
}

impl Kernel {
    /// The newest kernel in a folder that holds `boot` and `lib/modules`.
    pub(super) fn find(root: &Path) -> Result<Kernel> {
        let entries = fs::read_dir(root.join("boot")).into_iter().flatten().flatten();
        let mut releases: Vec<String> = entries
            .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("vmlinuz-").map(str::to_owned))
            .filter(|release| root.join("lib/modules").join(release).is_dir())
            .collect();
        releases.sort_by_key(|release| numbers(release));
        let release = releases.pop().with_context(|| {
            format!(
                "there is no kernel with modules in {}; `apt-get install linux-image-amd64` brings one, or unpack a package with \
                 `dpkg -x` and say --kernel FOLDER",
                root.display()
            )
        })?;
        let modules = root.join("lib/modules").join(&release);
        ensure!(
            modules.join("modules.dep").exists(),
            "{} has no modules.dep; `depmod -b {} {release}` makes it",
            modules.display(),
            root.display()
        );
        Ok(Kernel { image: root.join("boot").join(format!("vmlinuz-{release}")), release, modules })
    }

    /// Fills a folder with a shell, the modules in the order in which they load, and `files`, and packs it as the kernel wants it.
    pub(super) fn pack(&self, folder: &Path, files: &[(&str, &str)]) -> Result<PathBuf> {
        for name in ["bin", "dev", "host", "modules", "proc"] {
            fs::create_dir_all(folder.join(name))?;
        }
        fs::copy("/bin/busybox", folder.join("bin/busybox")).context("cannot copy /bin/busybox")?;
        for (name, text) in files {
            fs::write(folder.join(name), text)?;
        }
        fs::set_permissions(folder.join("init"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let mut order = String::new();
        for path in load_order(&fs::read_to_string(self.modules.join("modules.dep"))?) {
            let name = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".xz");
            let target = folder.join("modules").join(name);
            if path.ends_with(".xz") {
                let status =
                    Command::new("xz").arg("-dc").arg(self.modules.join(path)).stdout(File::create(target)?).status();
                ensure!(status.context("cannot run xz; install xz-utils")?.success(), "cannot unpack {path}");
            } else {
                fs::copy(self.modules.join(path), target).with_context(|| format!("cannot copy {path}"))?;
            }
            order.push_str(name);
            order.push('\n');
        }
        fs::write(folder.join("modules/order"), order)?;
        let packed = folder.with_extension("cpio");
        let mut find = Command::new("find").arg(".").current_dir(folder).stdout(Stdio::piped()).spawn()?;
        let names = find.stdout.take().context("find has an output")?;
        let status = Command::new("/bin/busybox")
            .args(["cpio", "-o", "-H", "newc"])
            .current_dir(folder)
            .stdin(names)
            .stdout(File::create(&packed)?)
            .stderr(Stdio::null())
            .status()?;
        ensure!(find.wait()?.success() && status.success(), "cannot pack {}", folder.display());
        Ok(packed)
    }
}

/// The numbers in a release, by which 6.12 comes after 6.1.
fn numbers(release: &str) -> Vec<u64> {
    release.split(|character: char| !character.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// The files of [`MODULES`] and of what they need, each after what it needs, by the lines `FILE: NEEDS...` of `modules.dep`.
fn load_order(dependencies: &str) -> Vec<&str> {
    let mut order: Vec<&str> = Vec::new();
    for module in MODULES {
        let line = dependencies.lines().find_map(|line| {
            let (file, needs) = line.split_once(':')?;
            (file.rsplit('/').next()?.split('.').next()? == module).then_some((file, needs))
        });
        let Some((file, needs)) = line else { continue };
        // What is needed first stands last.
        for path in needs.split_whitespace().rev().chain([file]) {
            if !order.contains(&path) {
                order.push(path);
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_load_after_what_they_need_and_once() {
        let dependencies = "kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz\n\
                            kernel/fs/9p/9pother.ko.xz:\n\
                            kernel/drivers/net/tun.ko.xz:\n\
                            kernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz\n";
        let order: Vec<&str> = load_order(dependencies).iter().filter_map(|path| path.rsplit('/').next()).collect();
        assert_eq!(order, ["netfs.ko.xz", "9pnet.ko.xz", "9pnet_virtio.ko.xz", "9p.ko.xz", "tun.ko.xz"]);
    }

    #[test]
    fn the_newest_kernel_with_modules_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        for (release, modules) in [("6.1.0-9-amd64", true), ("6.12.1-amd64", true), ("6.13.0-amd64", false)] {
            fs::create_dir_all(folder.path().join("boot")).unwrap();
            fs::write(folder.path().join(format!("boot/vmlinuz-{release}")), "").unwrap();
            if modules {
                fs::create_dir_all(folder.path().join("lib/modules").join(release)).unwrap();
                fs::write(folder.path().join("lib/modules").join(release).join("modules.dep"), "").unwrap();
            }
        }
        assert_eq!(Kernel::find(folder.path()).unwrap().release, "6.12.1-amd64");
        fs::remove_file(folder.path().join("lib/modules/6.12.1-amd64/modules.dep")).unwrap();
        let error = Kernel::find(folder.path()).unwrap_err().to_string();
        assert!(error.contains("depmod -b"), "{error}");
        let error = Kernel::find(&folder.path().join("boot")).unwrap_err().to_string();
        assert!(error.contains("apt-get install"), "{error}");
    }
}
