//! How the releases of a policy are read: by which engines, and whose signature they must bear.

use std::ffi::c_char;
use std::path::Path;

use bellwether_artifact::keys::TrustedKeys;
use bellwether_artifact::release::{self, MANIFEST_FILE, Release};
use bellwether_artifact::{MAX_MANIFEST_BYTES, Sha256, durable, signature};
use bellwether_env_adapter::spec::FeatureSpec;
use bellwether_env_adapter::window::WindowConfig;

use super::abi::{
    BELLWETHER_ENGINE_NATIVE, BELLWETHER_ENGINE_ORT, BELLWETHER_ISA_AVX2, BELLWETHER_ISA_AVX512, BELLWETHER_ISA_BEST,
    BELLWETHER_ISA_SCALAR, Code, Options,
};
use super::edge::{Fault, text};
use crate::engine::Isa;
use crate::model::{Contract, Expectation};
use crate::release::{Engines, LoadedRelease, check_release};

/// What a policy demands of releases.
#[derive(Debug)]
pub(super) struct Loading {
    engines: Engines,
    /// Where given, a release must be signed with one of them.
    trusted: Option<TrustedKeys>,
}

impl Default for Loading {
    /// The native engine, and any release.
    fn default() -> Self {
        Loading { engines: Isa::best().into(), trusted: None }
    }
}

impl Loading {
    /// What the options say.
    ///
    /// # Safety
    /// Texts in the options are NULL or end with a NUL.
    pub(super) unsafe fn of(options: &Options) -> Result<Loading, Fault> {
        let isa = match options.isa {
            BELLWETHER_ISA_BEST => Isa::best(),
            BELLWETHER_ISA_SCALAR => Isa::Scalar,
            BELLWETHER_ISA_AVX2 => Isa::Avx2,
            BELLWETHER_ISA_AVX512 => Isa::Avx512,
            unknown => return Err(unlisted("isa", unknown)),
        };
        // SAFETY: the caller's promise.
        let (keys, library) = unsafe {
            let keys = given(options.trusted_keys, "trusted_keys in options")?;
            (keys, given(options.onnx_runtime_library, "onnx_runtime_library in options")?)
        };
        let engines = match options.engine {
            BELLWETHER_ENGINE_NATIVE => Isa::into(isa),
            BELLWETHER_ENGINE_ORT => both(isa, library, options.onnx_runtime_sessions)?,
            unknown => return Err(unlisted("engine", unknown)),
        };
        let trusted = keys.map(|path| TrustedKeys::read(path).map_err(|error| Fault::new(Code::TrustedKeys, error)));
        Ok(Loading { engines, trusted: trusted.transpose()? })
    }

    /// Loads a release and checks it against this library's feature specification, at the model's own window limits: those are
    /// part of the policy's terms, so a model of other windows cannot follow.
    pub(super) fn load(&self, folder: &str) -> Result<LoadedRelease, Fault> {
        let folder = Path::new(folder);
        let Release { manifest, onnx } = self.read(folder)?;
        let window = &manifest.features.window;
        let window =
            WindowConfig { max_events: window.max_events, max_ns: window.max_ns, max_windows: window.max_windows };
        let spec = FeatureSpec::v1(window);
        let contract = Contract::sandbox(spec.width(), Sha256::from_bytes(spec.hash()));
        Ok(check_release(manifest, &onnx, &Expectation::new(contract), self.engines.clone())?)
    }

    fn read(&self, folder: &Path) -> Result<Release, Fault> {
        let Some(trusted) = &self.trusted else { return Ok(release::read(folder)?) };
        // Believed before anything of it is parsed.
        let signed = durable::read(&release::manifest_path(folder), MAX_MANIFEST_BYTES)?;
        trusted.check(&signed, signature::read_bytes(folder)?.as_deref())?;
        let (release, bytes) = release::read_with_bytes(folder)?;
        if bytes != signed {
            let message =
                format_args!("{MANIFEST_FILE} changed while it was read: try again when the copy is complete");
            return Err(Fault::new(Code::SignatureInvalid, message));
        }
        Ok(release)
    }
}

/// A text that may be left out.
///
/// # Safety
/// It is NULL or ends with a NUL.
unsafe fn given<'a>(pointer: *const c_char, name: &str) -> Result<Option<&'a Path>, Fault> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    Ok(Some(Path::new(unsafe { text(pointer, name) }?)))
}

#[cfg(feature = "ort")]
fn both(isa: Isa, library: Option<&Path>, sessions: u32) -> Result<Engines, Fault> {
    let runtime = crate::engine::OnnxRuntime { library: library.map(Path::to_owned), sessions: sessions as usize };
    // Here and not at the first model that wants it, which may come months later.
    runtime.load().map_err(crate::release::ReleaseError::from)?;
    Ok(Engines { isa, onnx_runtime: Some(runtime) })
}

#[cfg(not(feature = "ort"))]
fn both(_: Isa, _: Option<&Path>, _: u32) -> Result<Engines, Fault> {
    let message = "this library was built without ONNX Runtime: build it with the features ffi and ort";
    Err(Fault::new(Code::EngineUnavailable, message))
}

/// A number that the header does not list.
pub(super) fn unlisted(field: &str, found: u32) -> Fault {
    Fault::new(Code::InvalidArgument, format_args!("{field} in options is {found}, which the header does not list"))
}
