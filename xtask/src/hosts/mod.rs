//! `cargo xtask hosts`: the sandbox on hosts with other control groups than this one's.
//!
//! A kernel is booted in QEMU for each layout. The guest sees this machine's files, read-only, so what was built here runs there,
//! as root and as an ordinary user, in places of the tree where processes are on real hosts (`checks.sh`).
#![allow(clippy::disallowed_methods, reason = "what a guest boots from is scratch")]

mod kernel;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::workspace::{Workspace, cargo, output};
use kernel::Kernel;

/// A guest that says nothing for so long has hung.
const SILENCE: Duration = Duration::from_secs(5 * 60);

/// What must be on the machine: the file, and the Debian package that brings it.
const TOOLS: [(&str, &str); 3] = [
    ("/usr/bin/qemu-system-x86_64", "qemu-system-x86"),
    ("/bin/busybox", "busybox-static"),
    ("/usr/bin/setpriv", "util-linux"),
];

/// Options of `hosts`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder with `boot` and `lib/modules`, as the package of a kernel unpacks; may be given several times.
    #[arg(long, default_value = "/")]
    kernel: Vec<PathBuf>,
    /// Boot with this layout alone; may be given several times.
    #[arg(long, value_enum)]
    layout: Vec<Layout>,
    /// Emulate the processor, where /dev/kvm is missing or boots no ordinary kernel.
    #[arg(long)]
    emulate: bool,
}

/// How control groups are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Layout {
    /// Hierarchies of version 1 alone.
    V1,
    /// The hierarchy of version 2 alone.
    V2,
    /// Controllers in hierarchies of version 1, and one of version 2 beside them.
    Hybrid,
}

/// Builds what is checked, boots every kernel with every layout, and fails if any check did.
pub(crate) fn run(args: &Args) -> Result<()> {
    require_tools()?;
    ensure!(
        args.emulate || fs::File::options().read(true).write(true).open("/dev/kvm").is_ok(),
        "/dev/kvm cannot be opened; --emulate does without, some twenty times slower"
    );
    let kernels: Vec<Kernel> = args.kernel.iter().map(|folder| Kernel::find(folder)).collect::<Result<_>>()?;
    let workspace = Workspace::load()?;
    output(cargo().args(["build", "--profile", "ci", "--locked", "--package", "bellwether", "--bin", "bellwether"]))?;
    let layouts = if args.layout.is_empty() { Layout::value_variants() } else { &args.layout };
    let mut results = Vec::new();
    for kernel in &kernels {
        for layout in layouts {
            let said = boot(kernel, *layout, args, &workspace)?;
            results.extend(said.into_iter().map(|line| format!("{} {line}", kernel.release)));
        }
    }
    println!("\n==> summary");
    for line in &results {
        println!("{line}");
    }
    let failed = results.iter().filter(|line| !line.ends_with(" 0")).count();
    ensure!(failed == 0, "{failed} of {} checks failed; the last number of each is its exit code", results.len());
    Ok(())
}

/// Says all at once what is missing, with the command that installs it.
fn require_tools() -> Result<()> {
    let missing: Vec<&str> =
        TOOLS.iter().filter(|(file, _)| !Path::new(file).exists()).map(|(_, package)| *package).collect();
    ensure!(missing.is_empty(), "install what is missing with: apt-get install {}", missing.join(" "));
    Ok(())
}

/// A guest, which ends with this.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots a kernel with a layout, shows what it says, and returns its results.
fn boot(kernel: &Kernel, layout: Layout, args: &Args, workspace: &Workspace) -> Result<Vec<String>> {
    let name = layout.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    println!("\n==> {} {name}", kernel.release);
    let folder = tempfile::tempdir()?;
    let settings = format!(
        "layout={name}\nsource={}\nprogram={}\n",
        quoted(&workspace.root.display().to_string()),
        quoted(&workspace.target.join("ci/bellwether").display().to_string()),
    );
    let files =
        [("init", include_str!("init.sh")), ("checks.sh", include_str!("checks.sh")), ("settings", settings.as_str())];
    let packed = kernel.pack(&folder.path().join("guest"), &files)?;
    let mut qemu = Command::new("qemu-system-x86_64");
    let processor: &[&str] =
        if args.emulate { &["-accel", "tcg,thread=multi", "-cpu", "max"] } else { &["-accel", "kvm", "-cpu", "host"] };
    qemu.args(processor).args(["-smp", "2", "-m", "3G", "-nodefaults", "-no-user-config", "-display", "none"]);
    qemu.args(["-no-reboot", "-serial", "stdio", "-append", "console=ttyS0 quiet panic=-1"]);
    qemu.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(packed);
    qemu.args(["-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"]);
    let mut guest = Guest(qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot run QEMU")?);
    let lines = BufReader::new(guest.0.stdout.take().context("QEMU has an output")?).split(b'\n');
    let (said, hears) = mpsc::channel();
    // It ends with the guest's output.
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| said.send(line)));
    let mut results = Vec::new();
    loop {
        let line = match hears.recv_timeout(SILENCE) {
            Ok(line) => line,
            Err(mpsc::RecvTimeoutError::Disconnected) => bail!("the guest ended before all was checked"),
            Err(mpsc::RecvTimeoutError::Timeout) => bail!(
                "the guest said nothing for {} minutes{}",
                SILENCE.as_secs() / 60,
                if args.emulate { "" } else { "; try --emulate" }
            ),
        };
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        println!("{line}");
        if let Some(result) = line.strip_prefix("result ") {
            results.push(result.to_owned());
        }
        if line == "finished" {
            return Ok(results);
        }
    }
}

/// A word for the shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
