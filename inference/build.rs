//! Turns the protocols of the server into Rust, for the feature `serve` alone.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "serve")]
    serve::generate()?;
    Ok(())
}

#[cfg(feature = "serve")]
mod serve {
    use std::error::Error;
    use std::path::PathBuf;

    use protox::Compiler;

    /// The protocols, and where their imports lie. The messages of telemetry are the adapter's own.
    const FILES: [&str; 2] = ["bellwether/policy/v1/policy.proto", "inference.proto"];
    const INCLUDES: [&str; 2] = ["proto", "../env-adapter/proto"];

    #[expect(clippy::disallowed_methods, reason = "what a build makes for itself is no artefact")]
    pub(super) fn generate() -> Result<(), Box<dyn Error>> {
        for folder in INCLUDES {
            println!("cargo::rerun-if-changed={folder}");
        }
        let mut compiler = Compiler::new(INCLUDES)?;
        compiler.include_source_info(true).include_imports(true).open_files(FILES)?;
        // Reflection answers from these bytes.
        let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("Cargo sets OUT_DIR")?);
        std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
        tonic_prost_build::configure()
            .build_transport(false)
            .extern_path(".bellwether.telemetry.v1", "::bellwether_env_adapter::proto")
            .bytes(".bellwether.policy.v1.DecideRequest.feature_spec")
            .bytes(".bellwether.policy.v1.DecideRequest.state_bytes")
            .bytes(".bellwether.policy.v1.ReadyState.state_bytes")
            .bytes(".inference.ModelInferRequest.raw_input_contents")
            .compile_fds(compiler.file_descriptor_set())?;
        Ok(())
    }
}
