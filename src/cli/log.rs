//! The service log: on standard error, or in a file.

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Where lines go: standard error, or the file that was named since.
struct Destination;

/// One line on its way.
enum Line {
    Stderr(io::Stderr),
    #[cfg(feature = "serve")]
    File(&'static ServiceLog),
}

/// The file, once one is named.
#[cfg(feature = "serve")]
static FILE: std::sync::OnceLock<std::sync::Arc<ServiceLog>> = std::sync::OnceLock::new();

#[cfg(feature = "serve")]
use bellwether_inference::serve::{Rotation, ServiceLog, ServiceLogConfig};

/// The file that is logged to. What waits for its disk is written when this is dropped.
#[cfg(feature = "serve")]
pub(crate) struct Logging(pub(crate) std::sync::Arc<ServiceLog>);

#[cfg(feature = "serve")]
impl Drop for Logging {
    fn drop(&mut self) {
        if !self.0.finish(std::time::Duration::from_secs(1)) {
            super::output::complain("the disk of the log does not answer: its last lines are lost");
        }
    }
}

/// Logs to a file from now on.
#[cfg(feature = "serve")]
pub(crate) fn to_file(config: &ServiceLogConfig) -> anyhow::Result<Logging> {
    use anyhow::Context as _;

    let file = ServiceLog::start(config, super::output::complain).context("there is nowhere to log to")?;
    // A second call would find the first file, which it then goes on with.
    Ok(Logging(FILE.get_or_init(|| std::sync::Arc::new(file)).clone()))
}

/// A file for the log of a verb that goes on until it is told to end and has no configuration that names one.
#[cfg(feature = "serve")]
#[derive(clap::Args)]
pub(crate) struct FileFlags {
    /// File to log to, for its owner alone, in place of standard error. It is put aside at 64 MiB or after a day, and the 14 that
    /// were put aside last are kept.
    #[arg(long, value_name = "FILE")]
    log_file: Option<std::path::PathBuf>,
}

#[cfg(feature = "serve")]
impl FileFlags {
    /// Logs to the file from now on, if one was named.
    pub(crate) fn open(&self) -> anyhow::Result<Option<Logging>> {
        let named = |path: &std::path::PathBuf| ServiceLogConfig { path: path.clone(), rotation: Rotation::default() };
        self.log_file.as_ref().map(|path| to_file(&named(path))).transpose()
    }
}

impl MakeWriter<'_> for Destination {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        #[cfg(feature = "serve")]
        if let Some(file) = FILE.get() {
            return Line::File(file);
        }
        Line::Stderr(io::stderr())
    }
}

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Line::Stderr(stderr) => stderr.write(bytes),
            #[cfg(feature = "serve")]
            Line::File(file) => {
                // Where it fails, that is said and counted there.
                file.append(bytes);
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Line::Stderr(stderr) => stderr.flush(),
            #[cfg(feature = "serve")]
            Line::File(_) => Ok(()),
        }
    }
}

/// Form of a log line.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The variable that sets the level.
const LEVEL: &str = "BELLWETHER_LOG";

/// Starts logging; `BELLWETHER_LOG` sets the level, warnings by default.
pub(crate) fn start(format: Format) {
    let asked = std::env::var(LEVEL).ok().map(|level| EnvFilter::try_new(&level).map_err(|error| (level, error)));
    let (filter, refused) = match asked {
        None => (EnvFilter::new("warn"), None),
        Some(Ok(filter)) => (filter, None),
        Some(Err(refused)) => (EnvFilter::new("warn"), Some(refused)),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Destination);
    match format {
        Format::Text => builder.with_target(false).init(),
        Format::Json => builder.json().init(),
    }
    if let Some((level, error)) = refused {
        tracing::warn!("{LEVEL} is {level:?}, which names no level: {error}; warnings are logged");
    }
}
