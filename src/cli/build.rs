//! Facts about this build and this machine that verbs hand to the libraries.

use anyhow::anyhow;
use bellwether_artifact::SourceRevision;
use bellwether_inference::Isa;

use super::Failure;

/// The code that runs, as far as the build knew it.
pub(crate) fn source() -> SourceRevision {
    SourceRevision {
        package: env!("CARGO_PKG_VERSION").to_owned(),
        revision: option_env!("BELLWETHER_REVISION").map(str::to_owned),
        modified: option_env!("BELLWETHER_MODIFIED").map(|modified| modified == "true"),
    }
}

/// The instruction set: the widest of the processor, or the one that `BELLWETHER_ISA` names. It changes no byte.
pub(crate) fn isa() -> Result<Isa, Failure> {
    let Ok(name) = std::env::var("BELLWETHER_ISA") else { return Ok(Isa::best()) };
    let isa: Isa = name.parse().map_err(|error| Failure::usage(anyhow!("BELLWETHER_ISA: {error}")))?;
    if isa.is_available() {
        return Ok(isa);
    }
    Err(Failure::usage(anyhow!("BELLWETHER_ISA: this processor has no {}", isa.name())))
}
