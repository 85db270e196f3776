//! Turns the messages of `bellwether.telemetry.v1` into Rust, for the feature `proto` alone.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "proto")]
    {
        println!("cargo::rerun-if-changed=proto");
        let files = protox::compile(["bellwether/telemetry/v1/telemetry.proto"], ["proto"])?;
        prost_build::Config::new().compile_fds(files)?;
    }
    Ok(())
}
