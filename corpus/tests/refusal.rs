//! Every program of the corpus refuses to run outside a made-up home, and no path leads out of one.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "tests fail loudly, and write scratch files"
)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// Status with which programs refuse.
const REFUSED: i32 = 3;

fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("programs")
}

/// The names of the jobs that have a program in `language`.
fn jobs_in(language: &str) -> Vec<(String, String)> {
    let table = bellwether_corpus::jobs().lines().skip(1).map(|line| line.split(',').collect::<Vec<_>>());
    let found = table.filter(|fields| fields[3].split('+').any(|l| l == language));
    found.map(|fields| (fields[0].to_owned(), fields[1].to_owned())).collect()
}

/// Harness, jobs and emulations as one source, in the recorder's order.
fn joined(extension: &str) -> String {
    let mut paths = vec![programs().join("harness/harness"), programs().join("harness/intruder")];
    for class in ["benign", "emulations"] {
        let entries = fs::read_dir(programs().join(class)).unwrap().map(|entry| entry.unwrap().path());
        let mut found: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
        found.sort();
        paths.extend(found);
    }
    paths.push(programs().join("harness/end"));
    let texts = paths.into_iter().map(|path| fs::read_to_string(path.with_extension(extension)).unwrap());
    texts.collect::<Vec<_>>().join("\n\n")
}

/// Whether a tool is there; a test that needs it says by name that it is skipped.
fn has(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        println!("skipped: {tool} is not installed");
    }
    found
}

fn compile(source: &str, to: &Path) {
    let mut cc = Command::new("cc").args(["-O1", "-x", "c", "-", "-o"]).arg(to).stdin(Stdio::piped()).spawn().unwrap();
    cc.stdin.take().unwrap().write_all(source.as_bytes()).unwrap();
    assert!(cc.wait().unwrap().success());
}

/// A home without a marker, with one document in it.
fn plain_home() -> TempDir {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("Documents")).unwrap();
    fs::write(home.path().join("Documents/letter.txt"), "kept").unwrap();
    home
}

/// Everything below a folder, with contents.
fn contents(folder: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
            found.push((path, None));
        } else {
            found.push((path.clone(), Some(fs::read(path).unwrap())));
        }
    }
    found.sort();
    found
}

fn in_home(command: &mut Command, home: &Path) -> Output {
    command.env("HOME", home).current_dir(home).stdin(Stdio::null()).output().unwrap()
}

fn assert_refused(job: &str, output: &Output) {
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(REFUSED), "{job}: {words}");
}

#[test]
fn python_programs_refuse_a_home_without_the_marker() {
    if !has("python3") {
        return;
    }
    let (home, scratch) = (plain_home(), tempfile::tempdir().unwrap());
    let before = contents(home.path());
    for (job, _) in jobs_in("python") {
        let place = "@".repeat(92);
        let program = scratch.path().join("program.py");
        fs::write(&program, joined("py").replace(&place, &format!("{job} 1 1 127.0.0.1 9 9 9"))).unwrap();
        assert_refused(&job, &in_home(Command::new("python3").arg(&program), home.path()));
    }
    assert_eq!(contents(home.path()), before);
}

#[test]
fn c_programs_refuse_a_home_without_the_marker() {
    if !has("cc") {
        return;
    }
    let (home, scratch) = (plain_home(), tempfile::tempdir().unwrap());
    let before = contents(home.path());
    let program = scratch.path().join("program");
    compile(&joined("c"), &program);
    let compiled = fs::read(&program).unwrap();
    let at = compiled.windows(92).position(|part| part.iter().all(|&byte| byte == b'@')).unwrap();
    for (number, (job, _)) in jobs_in("c").into_iter().enumerate() {
        let mut changed = compiled.clone();
        let parameters = format!("{:92}", format!("{job} 1 1 127.0.0.1 9 9 9"));
        changed[at..at + 92].copy_from_slice(parameters.as_bytes());
        // A fresh name each time: a program that has just run cannot be written to.
        let program = scratch.path().join(format!("program-{number}"));
        fs::write(&program, changed).unwrap();
        let copied = fs::metadata(scratch.path().join("program")).unwrap().permissions();
        fs::set_permissions(&program, copied).unwrap();
        assert_refused(&job, &in_home(&mut Command::new(&program), home.path()));
    }
    assert_eq!(contents(home.path()), before);
}

#[test]
fn shell_programs_refuse_a_home_without_the_marker() {
    if !has("bash") {
        return;
    }
    let (home, scratch) = (plain_home(), tempfile::tempdir().unwrap());
    let before = contents(home.path());
    for (job, label) in jobs_in("sh") {
        let (class, shared) = if label == "benign" { ("benign", "everyday") } else { ("emulations", "intruder") };
        let parts = ["harness/steps.sh".to_owned(), format!("harness/{shared}.sh"), format!("{class}/steps/{job}.sh")];
        let script: String =
            parts.iter().map(|part| fs::read_to_string(programs().join(part)).unwrap() + "\n").collect();
        let program = scratch.path().join("steps.sh");
        fs::write(&program, script).unwrap();
        let mut command = Command::new("/bin/sh");
        assert_refused(&job, &in_home(command.arg(&program).args(["1", "9", "127.0.0.1"]), home.path()));
    }
    assert_eq!(contents(home.path()), before);
}

#[test]
fn scripts_of_a_line_refuse_a_home_without_the_marker_and_any_other_folder() {
    let begins = fs::read_to_string(programs().join("harness/line.sh")).unwrap();
    let harness = fs::read_to_string(programs().join("harness/harness.py")).unwrap();
    let marker = harness.split_once("MARKER_TEXT = b\"").unwrap().1.split_once("\\n\"").unwrap().0;
    let (plain, marked, scratch) = (plain_home(), plain_home(), tempfile::tempdir().unwrap());
    fs::write(marked.path().join(".decoy-home"), format!("{marker}\n")).unwrap();
    let before = [&plain, &marked].map(|home| contents(home.path()));
    let mut tried = 0;
    for (job, label) in jobs_in("line") {
        let class = if label == "benign" { "benign" } else { "emulations" };
        let text = fs::read_to_string(programs().join(class).join("lines").join(&job)).unwrap();
        for line in text.lines().filter_map(|line| line.strip_prefix("#!")) {
            let program = scratch.path().join("line.sh");
            fs::write(&program, format!("{begins}{line}\n")).unwrap();
            for home in [&plain, &marked] {
                assert_refused(&job, &in_home(Command::new("/bin/sh").arg(&program), home.path()));
            }
            tried += 1;
        }
        assert!(label == "benign" || text.lines().all(|line| line.starts_with("#!")), "{job} begins without the check");
    }
    assert!(tried > 50, "{tried} scripts");
    assert_eq!([&plain, &marked].map(|home| contents(home.path())), before);
    // Where both are right, a script runs.
    let work = marked.path().join("work");
    fs::create_dir(&work).unwrap();
    let program = scratch.path().join("line.sh");
    fs::write(&program, format!("{begins}exit 7\n")).unwrap();
    let mut shell = Command::new("/bin/sh");
    let status = shell.arg(&program).env("HOME", marked.path()).current_dir(&work).status().unwrap();
    assert_eq!(status.code(), Some(7));
}

/// Paths relative to a marked folder, and whether a program may change them.
const PATHS: [(&str, bool); 6] = [
    ("Documents/letter.txt", true),
    (".cache/x", true),
    (".decoy-home", false),
    ("Documents/../../outside", false),
    ("../outside", false),
    ("..", false),
];

#[test]
fn the_guard_of_python_programs_lets_nothing_out() {
    if !has("python3") {
        return;
    }
    let home = plain_home();
    let harness = programs().join("harness/harness.py");
    let script = "import sys; exec(open(sys.argv[1]).read()); ROOTS.append(sys.argv[2]); guard(sys.argv[3])";
    let root = fs::canonicalize(home.path()).unwrap();
    let absolute = PATHS.map(|(path, allowed)| (root.join(path).display().to_string(), allowed));
    for (path, allowed) in absolute.into_iter().chain([("/etc/passwd".to_owned(), false)]) {
        let mut command = Command::new("python3");
        let output = in_home(command.args(["-c", script]).arg(&harness).arg(&root).arg(&path), &root);
        assert_eq!(output.status.code(), Some(if allowed { 0 } else { REFUSED }), "{path}");
    }
}

#[test]
fn the_guard_of_c_programs_lets_nothing_out() {
    if !has("cc") {
        return;
    }
    let home = plain_home();
    let program = home.path().join("guard");
    let main = "int main(int n, char **v) { (void)n; roots[0] = v[1]; root_count = 1; guard(v[2]); return 0; }";
    compile(&format!("{}\n{main}\n", fs::read_to_string(programs().join("harness/harness.c")).unwrap()), &program);
    let root = home.path().display().to_string();
    let absolute = PATHS.map(|(path, allowed)| (format!("{root}/{path}"), allowed));
    for (path, allowed) in absolute.into_iter().chain([("/etc/passwd".to_owned(), false), ("work/x".to_owned(), false)])
    {
        let output = in_home(Command::new(&program).args([&root, &path]), home.path());
        assert_eq!(output.status.code(), Some(if allowed { 0 } else { REFUSED }), "{path}");
    }
}
