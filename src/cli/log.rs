//! The log on standard error.

use tracing_subscriber::EnvFilter;

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
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        Format::Text => builder.with_target(false).init(),
        Format::Json => builder.json().init(),
    }
    if let Some((level, error)) = refused {
        tracing::warn!("{LEVEL} is {level:?}, which names no level: {error}; warnings are logged");
    }
}
