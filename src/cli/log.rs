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
    File(std::sync::MutexGuard<'static, LogFile>),
}

/// The file, once one is named.
#[cfg(feature = "serve")]
static FILE: std::sync::OnceLock<std::sync::Mutex<LogFile>> = std::sync::OnceLock::new();

#[cfg(feature = "serve")]
use bellwether_inference::serve::{LogFile, ServiceLogConfig};

/// Logs to a file from now on.
#[cfg(feature = "serve")]
pub(crate) fn to_file(config: &ServiceLogConfig) -> anyhow::Result<()> {
    use anyhow::Context as _;

    #[expect(clippy::disallowed_methods, reason = "a log tells the time; nothing computed depends on it")]
    let now = std::time::SystemTime::now();
    let file = LogFile::open(&config.path, config.rotation, now).context("there is nowhere to log to")?;
    // A second call would find the first file, which it then goes on with.
    let _ = FILE.set(std::sync::Mutex::new(file));
    Ok(())
}

impl MakeWriter<'_> for Destination {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        #[cfg(feature = "serve")]
        if let Some(file) = FILE.get() {
            return Line::File(file.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        }
        Line::Stderr(io::stderr())
    }
}

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Line::Stderr(stderr) => stderr.write(bytes),
            #[cfg(feature = "serve")]
            Line::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Line::Stderr(stderr) => stderr.flush(),
            #[cfg(feature = "serve")]
            Line::File(file) => file.flush(),
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
