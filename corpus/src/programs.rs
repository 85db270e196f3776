//! The C programs of the jobs and emulations, for whoever wants to see one run: source to be compiled, and the parameters of a run.
//!
//! All of them are one program; a run's parameters are written over a line of at-signs in it, so that programs differ in nothing
//! but those bytes. They refuse to run in a home without their marker.

/// The sources in the order in which they are joined.
const SOURCES: [&str; 13] = [
    include_str!("../programs/harness/harness.c"),
    include_str!("../programs/harness/intruder.c"),
    include_str!("../programs/benign/edit.c"),
    include_str!("../programs/benign/files.c"),
    include_str!("../programs/benign/rewrite.c"),
    include_str!("../programs/benign/setup.c"),
    include_str!("../programs/benign/system.c"),
    include_str!("../programs/emulations/persist.c"),
    include_str!("../programs/emulations/ransom.c"),
    include_str!("../programs/emulations/remote.c"),
    include_str!("../programs/emulations/steal.c"),
    include_str!("../programs/emulations/wipe.c"),
    include_str!("../programs/harness/end.c"),
];

/// Bytes that the parameters of a run have.
const PLACE: usize = 92;

/// One run of a job or emulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run<'a> {
    /// Its name, as in [`jobs`](crate::jobs).
    pub job: &'a str,
    /// What all that is drawn in it follows from.
    pub seed: u64,
    /// How often the job is done.
    pub rounds: u32,
}

/// All programs as one C source, for a compiler of C11 on Linux: `cc -O1 -x c -`.
pub fn c_source() -> String {
    SOURCES.iter().flat_map(|source| [*source, "\n\n"]).collect()
}

/// The compiled [`c_source`] with the parameters of a run, whose peer is on three ports of loopback. None where the program has no
/// place for them, or the name is too long for it.
pub fn with_parameters(compiled: &[u8], run: Run<'_>) -> Option<Vec<u8>> {
    let Run { job, seed, rounds } = run;
    let parameters = format!("{job} {seed} {rounds} 127.0.0.1 8080 4000 443");
    let at = compiled.windows(PLACE).position(|part| part.iter().all(|byte| *byte == b'@'))?;
    let mut program = compiled.to_vec();
    let place = program.get_mut(at..at + PLACE)?;
    place.fill(b' ');
    place.get_mut(..parameters.len())?.copy_from_slice(parameters.as_bytes());
    Some(program)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    #[test]
    fn the_source_is_that_of_the_folder() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
        let mut paths = vec![folder.join("harness/harness.c"), folder.join("harness/intruder.c")];
        for class in ["benign", "emulations"] {
            let mut found: Vec<_> =
                fs::read_dir(folder.join(class)).unwrap().map(|entry| entry.unwrap().path()).collect();
            found.retain(|path| path.extension().is_some_and(|extension| extension == "c"));
            found.sort();
            paths.extend(found);
        }
        paths.push(folder.join("harness/end.c"));
        let read: String =
            paths.iter().flat_map(|path| [fs::read_to_string(path).unwrap(), "\n\n".to_owned()]).collect();
        assert_eq!(c_source(), read);
    }

    #[test]
    fn parameters_take_their_place_and_nothing_else() {
        let compiled = [b"head ".as_slice(), &[b'@'; PLACE], b" tail"].concat();
        let program = with_parameters(&compiled, Run { job: "a", seed: 7, rounds: 2 }).unwrap();
        assert_eq!(program.len(), compiled.len());
        assert!(program.starts_with(b"head a 7 2 127.0.0.1 8080 4000 443 ") && program.ends_with(b" tail"));
        assert_eq!(with_parameters(b"nothing", Run { job: "a", seed: 7, rounds: 2 }), None);
        assert_eq!(with_parameters(&compiled, Run { job: &"x".repeat(90), seed: 7, rounds: 2 }), None);
    }
}
