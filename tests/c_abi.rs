//! The C ABI from C and C++: the library built as its page says, the examples compiled with sanitizers and compared with the
//! program, and what C can do wrong.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and says what it skips")]

mod program;

use std::ffi::OsStr;
use std::fmt::Write;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bellwether_artifact::keys::PrivateKey;
use bellwether_artifact::signature::ReleaseSignature;
use bellwether_artifact::{OnnxFile, Sha256, durable, release};
use bellwether_env_adapter::spec::FeatureSpec;
use bellwether_env_adapter::window::WindowConfig;
use bellwether_inference::model::{Contract, Expectation, encode, load};
use bellwether_inference::release::golden_vector;
use bellwether_inference::{Engine, Isa};
use program::bellwether_with;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Everything that a compiler would say is an error.
const STRICT: [&str; 4] = ["-pedantic", "-Wall", "-Wextra", "-Werror"];

/// Ends a program that misuses memory or does what has no meaning.
const SANITIZERS: [&str; 4] = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1"];

/// One language and a compiler for it.
#[derive(Clone, Copy)]
struct Compiler {
    program: &'static str,
    standard: &'static str,
    extension: &'static str,
}

/// A state, and which actions are allowed where that is said.
struct Question {
    state: Vec<(usize, f32)>,
    mask: Option<Vec<bool>>,
}

fn shipped_model() -> PathBuf {
    Path::new(ROOT).join("models/quickstart")
}

/// The folder with the shared and the static library, built with the profile that this test was built with.
fn library() -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_bellwether")).parent().unwrap();
    let profile = match folder.file_name().and_then(OsStr::to_str).unwrap() {
        "debug" => "dev",
        other => other,
    };
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(ROOT).args(["rustc", "--quiet", "--offline", "--locked", "--profile", profile, "--target-dir"]);
    cargo.arg(folder.parent().unwrap());
    cargo.args(["--package", "bellwether-inference", "--features", "ffi", "--crate-type", "cdylib,staticlib"]);
    succeed(&mut cargo, "");
    folder.to_path_buf()
}

#[track_caller]
fn succeed(command: &mut Command, input: &str) -> String {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // What a program does not read is its own affair; how it ends is looked at below.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The first of these programs that compiles, sanitizers included; says by name what is not run for want of one.
fn compiler(test: &str, language: &str, programs: &[&'static str], standard: &'static str) -> Option<Compiler> {
    let extension = if language == "C" { "c" } else { "cpp" };
    let runs = |program: &&&str| {
        let version = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    };
    let Some(program) = programs.iter().find(runs) else {
        println!("skipped: {test} needs a {language} compiler: {}", programs.join(" or "));
        return None;
    };
    Some(Compiler { program, standard, extension })
}

fn c(test: &str) -> Option<Compiler> {
    compiler(test, "C", &["gcc", "cc"], "-std=c99")
}

impl Compiler {
    /// What turns the sanitizers on, nothing where the compiler came without them.
    fn sanitizers(self, test: &str, folder: &Path) -> &'static [&'static str] {
        let file = folder.join("empty").with_extension(self.extension);
        std::fs::File::create_new(&file).unwrap().write_all(b"int main(void) { return 0; }\n").unwrap();
        let mut command = Command::new(self.program);
        command.args(SANITIZERS).arg(file).arg("-o").arg(folder.join("empty")).stderr(Stdio::null());
        let builds = command.status().is_ok_and(|status| status.success());
        if builds && Command::new(folder.join("empty")).status().is_ok_and(|status| status.success()) {
            return &SANITIZERS;
        }
        println!("skipped: the sanitizers of {test}: {} has none that run here", self.program);
        &[]
    }

    /// Compiles a file into a program.
    #[track_caller]
    fn build(self, file: &str, options: &[&str], libraries: &[&OsStr], program: &Path) {
        let mut command = Command::new(self.program);
        command.current_dir(ROOT).arg(self.standard).args(STRICT).args(options).args(["-I", "inference/include"]);
        succeed(command.arg(file).args(libraries).arg("-o").arg(program), "");
    }

    /// Compiles a file against the shared library.
    #[track_caller]
    fn build_shared(self, file: &str, options: &[&str], library: &Path, program: &Path) {
        let search = format!("-L{}", library.display());
        let found = format!("-Wl,-rpath,{}", library.display());
        let libraries = [&search, "-lbellwether_inference", &found, "-lm"].map(OsStr::new);
        self.build(file, options, &libraries, program);
    }
}

/// The golden states of the shipped model, and some that were made up, with masks of every kind.
fn questions() -> Vec<Question> {
    let manifest = release::read_manifest(&shipped_model()).unwrap();
    let golden = manifest.golden.iter().map(|vector| Question {
        state: vector.state.iter().map(|(index, value)| (*index as usize, *value)).collect(),
        mask: Some(vector.mask.clone()),
    });
    let made_up = (0..200_usize).map(|seed| Question {
        state: (0..512).filter(|i| (i * 31 + seed) % 7 == 0).map(|i| (i, ((i * seed) % 97) as f32 / 96.0)).collect(),
        mask: (seed % 32 != 0).then(|| (0..5).map(|action| seed >> action & 1 == 1).collect()),
    });
    golden.chain(made_up).collect()
}

/// What the program answers, in the form of the examples: action, margin, certified, bound, version, q-values.
fn expected(questions: &[Question], model: &Path, precision: &str, target: Option<&str>) -> Vec<String> {
    let mut lines = String::new();
    for question in questions {
        let mut line = serde_json::json!({ "state": question.state });
        if let Some(mask) = &question.mask {
            line["mask"] = serde_json::json!(mask);
        }
        writeln!(lines, "{line}").unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let mut arguments = vec!["decide", "--model", model.to_str().unwrap(), "--precision", precision];
    arguments.extend(target.iter().flat_map(|target| ["--target-fpr", target]));
    let answers = bellwether_with(folder.path(), &arguments, &lines).expect(0).stdout;
    let shown = |answer: &str| {
        let answer: serde_json::Value = serde_json::from_str(answer).unwrap();
        let number = |value: &serde_json::Value| value.as_f64().map_or(f32::INFINITY, |value| value as f32);
        let certified = u8::from(answer["certified"].as_bool().unwrap());
        let (action, version) = (answer["action"].as_str().unwrap(), answer["model_version"].as_str().unwrap());
        let mut line =
            format!("{action} {} {certified} {} {version}", number(&answer["margin"]), number(&answer["bound"]));
        for value in answer["q_values"].as_array().unwrap() {
            write!(line, " {}", number(value)).unwrap();
        }
        line
    };
    answers.lines().map(shown).collect()
}

/// The questions as the examples read them.
fn asked(questions: &[Question]) -> String {
    let mut lines = String::new();
    for question in questions {
        match &question.mask {
            None => lines.push('-'),
            Some(mask) => lines.extend(mask.iter().map(|allowed| if *allowed { '1' } else { '0' })),
        }
        for (index, value) in &question.state {
            write!(lines, " {index}:{value}").unwrap();
        }
        lines.push('\n');
    }
    lines
}

/// The answers of an example with its numbers, of nine digits, as the f32 that they stand for.
fn answered(output: &str) -> Vec<String> {
    let word = |word: &str| match (word.len(), word.parse::<f32>()) {
        // A version is sixteen digits, which can look like a number.
        (16, _) | (_, Err(_)) => word.to_owned(),
        (_, Ok(number)) => number.to_string(),
    };
    output.lines().map(|line| line.split(' ').map(word).collect::<Vec<_>>().join(" ")).collect()
}

/// Another model of the same contract.
fn other_model(folder: &Path) -> PathBuf {
    let release::Release { mut manifest, onnx } = release::read(&shipped_model()).unwrap();
    let window = &manifest.features.window;
    let window = WindowConfig { max_events: window.max_events, max_ns: window.max_ns, max_windows: window.max_windows };
    let spec = FeatureSpec::v1(window);
    let contract = Contract::sandbox(spec.width(), Sha256::from_bytes(spec.hash()));
    let mut mlp = load(&onnx, &Expectation::new(contract.clone())).unwrap();
    mlp.layers.last_mut().unwrap().bias[0] -= 0.5;
    let onnx = encode(&mlp, &contract).unwrap();
    let engine = Engine::new(&mlp, Isa::best()).unwrap();
    manifest.onnx = OnnxFile { sha256: Sha256::of(&onnx), bytes: onnx.len() as u64 };
    for vector in &mut manifest.golden {
        let state = vector.dense_state(engine.width());
        *vector = golden_vector(&engine, &mut engine.scratch(), &state, &vector.mask).unwrap();
    }
    let path = folder.join("other");
    release::publish(&path, &manifest.sealed().unwrap(), &onnx, release::Companions::default()).unwrap();
    path
}

#[test]
fn the_shared_library_exports_one_symbol() {
    let library = library().join("libbellwether_inference.so");
    let mut nm = Command::new("nm");
    nm.args(["--dynamic", "--defined-only", "--format=posix"]).arg(&library);
    if Command::new("nm").arg("--version").output().is_err() {
        println!("skipped: the_shared_library_exports_one_symbol needs nm, of binutils");
        return;
    }
    let symbols = succeed(&mut nm, "");
    let names: Vec<&str> = symbols.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, ["bellwether_get_api"]);
}

#[test]
fn the_example_in_c_answers_as_the_program_does() {
    let test = "the_example_in_c_answers_as_the_program_does";
    let Some(compiler) = c(test) else { return };
    let (library, folder, questions) = (library(), tempfile::tempdir().unwrap(), questions());
    let (shared, whole) = (folder.path().join("shared"), folder.path().join("static"));
    let sanitizers = compiler.sanitizers(test, folder.path());
    compiler.build_shared("inference/examples/c/decide.c", sanitizers, &library, &shared);
    let archive = library.join("libbellwether_inference.a");
    let system = ["-lpthread", "-ldl", "-lm"].map(OsStr::new);
    let libraries = [&[archive.as_os_str()], &system[..]].concat();
    compiler.build("inference/examples/c/decide.c", &[], &libraries, &whole);
    let model = shipped_model();
    for (precision, target) in
        [("exact", None), ("certified", None), ("exact", Some("0.05")), ("certified", Some("0.01"))]
    {
        let expected = expected(&questions, &model, precision, target);
        for program in [&shared, &whole] {
            let mut command = Command::new(program);
            let output = succeed(command.arg(&model).arg(precision).args(target), &asked(&questions));
            assert_eq!(answered(&output), expected, "{}", program.display());
        }
    }
}

#[test]
fn the_example_in_c_takes_a_release_of_a_trusted_key_alone() {
    let Some(compiler) = c("the_example_in_c_takes_a_release_of_a_trusted_key_alone") else { return };
    let (library, folder, questions) = (library(), tempfile::tempdir().unwrap(), questions());
    let program = folder.path().join("decide");
    compiler.build_shared("inference/examples/c/decide.c", &[], &library, &program);
    let (release::Release { manifest, onnx }, key) =
        (release::read(&shipped_model()).unwrap(), PrivateKey::from_seed(&[1; 32]));
    let signature = ReleaseSignature::sign(manifest.to_json().unwrap().as_bytes(), &key).to_json().unwrap();
    let signed = folder.path().join("signed");
    let companions = release::Companions { signature: Some(signature.as_bytes()), ..Default::default() };
    release::publish(&signed, &manifest, &onnx, companions).unwrap();
    let keys = folder.path().join("release.pub");
    durable::write_bytes(&keys, key.public().to_pem().as_bytes()).unwrap();
    let run = |model: &Path| {
        let mut command = Command::new(&program);
        command.arg(model).args(["exact", "-"]).arg(&keys);
        command
    };
    let expected = expected(&questions, &signed, "exact", None);
    assert_eq!(answered(&succeed(&mut run(&signed), &asked(&questions))), expected);
    let unsigned = run(&shipped_model()).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(unsigned.stderr).unwrap();
    assert!(!unsigned.status.success() && said.contains("only signed ones are taken"), "{said}");
}

#[test]
fn the_example_in_cpp_answers_as_the_program_does_before_and_after_a_swap() {
    let test = "the_example_in_cpp_answers_as_the_program_does_before_and_after_a_swap";
    let Some(compiler) = compiler(test, "C++", &["g++", "c++"], "-std=c++17") else { return };
    let (library, folder, questions) = (library(), tempfile::tempdir().unwrap(), questions());
    let program = folder.path().join("decide");
    let sanitizers = compiler.sanitizers(test, folder.path());
    compiler.build_shared("inference/examples/cpp/decide.cpp", sanitizers, &library, &program);
    let (model, other) = (shipped_model(), other_model(folder.path()));
    for precision in ["exact", "certified"] {
        let before = expected(&questions, &model, precision, None);
        let after = expected(&questions, &other, precision, None);
        assert_ne!(before, after);
        let asked = asked(&questions);
        let output =
            succeed(Command::new(&program).arg(&model).arg(precision).arg(&other), &format!("{asked}\n{asked}"));
        assert_eq!(answered(&output), [before, after].concat());
    }
    let missing = Command::new(&program).arg(folder.path().join("missing")).output().unwrap();
    let said = String::from_utf8(missing.stderr).unwrap();
    assert_eq!((missing.status.code(), said.starts_with("release_io: cannot open ")), (Some(1), true), "{said}");
}

#[test]
fn what_c_does_wrong_is_refused_and_threads_see_whole_models() {
    let test = "what_c_does_wrong_is_refused_and_threads_see_whole_models";
    // Atomics came with C11.
    let Some(compiler) = compiler(test, "C", &["gcc", "cc"], "-std=c11") else { return };
    let (library, folder) = (library(), tempfile::tempdir().unwrap());
    let program = folder.path().join("edges");
    let options = [compiler.sanitizers(test, folder.path()), &["-pthread"]].concat();
    compiler.build_shared("tests/c_abi/edges.c", &options, &library, &program);
    let (model, other) = (shipped_model(), other_model(folder.path()));
    let output = succeed(Command::new(&program).arg(model).arg(other).arg(folder.path().join("missing")), "");
    assert_eq!(output, "done\n");
}
