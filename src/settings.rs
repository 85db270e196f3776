//! Layered configuration: a flag beats the environment, the environment beats the file, the file beats the defaults.

use std::path::Path;

use anyhow::{Context, anyhow};
use config::{Config, File, FileFormat, Value};
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};

/// Prefix of environment variables that are configuration: `BELLWETHER__TRAINER__BATCH_SIZE=64`.
const PREFIX: &str = "BELLWETHER__";

/// Resolves a configuration from its defaults, an optional TOML file, the environment and `key=value` flags.
///
/// Values of the environment and of flags are TOML values; what is none is a string. An unknown key is refused.
///
/// # Errors
/// An unreadable file, a value that does not fit its key, a key that does not exist.
pub(crate) fn resolve<T>(file: Option<&Path>, flags: &[String]) -> anyhow::Result<T>
where
    T: Default + Serialize + DeserializeOwned,
{
    resolve_from(PREFIX, file, flags)
}

/// [`resolve`], with variables of another prefix: one program's configuration is none of another's.
///
/// # Errors
/// As that one.
pub(crate) fn resolve_from<T>(prefix: &str, file: Option<&Path>, flags: &[String]) -> anyhow::Result<T>
where
    T: Default + Serialize + DeserializeOwned,
{
    let mut origins: Vec<String> = file.iter().map(|path| format!("file {}", path.display())).collect();
    let mut layers: Vec<(String, String, String)> = Vec::new();
    for (name, value) in std::env::vars_os() {
        // What is not ours may be any bytes.
        let Some((name, key)) = name.to_str().and_then(|name| Some((name, name.strip_prefix(prefix)?))) else {
            continue;
        };
        let origin = format!("variable {name}");
        let value = value.into_string().map_err(|_| anyhow!("{origin}: its value is not UTF-8"))?;
        layers.push((key.to_ascii_lowercase().replace("__", "."), origin, value));
    }
    layers.sort();
    origins.extend(layers.iter().map(|(_, origin, _)| origin.clone()));
    for flag in flags {
        let (key, value) =
            flag.split_once('=').with_context(|| format!("`--set {flag}` is not of the form key=value"))?;
        layers.push((key.trim().to_owned(), format!("flag --set {flag}"), value.trim().to_owned()));
    }
    let mut builder = Config::builder().add_source(Config::try_from(&T::default())?);
    if let Some(path) = file {
        // Read here: the crate would guess at endings and hide why a file cannot be read.
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        builder = builder.add_source(File::from_str(&text, FileFormat::Toml));
    }
    for (key, origin, text) in layers {
        let value = toml_value(&origin, &text);
        builder = builder.set_override(&key, value).map_err(|error| anyhow!("{origin}: {error}"))?;
    }
    // Flags are before the user's eyes; what else had a say may be forgotten.
    let shown = if origins.is_empty() { String::new() } else { format!(" ({})", origins.join(", ")) };
    builder
        .build()
        .and_then(Config::try_deserialize)
        .map_err(|error| anyhow!("the configuration{shown} is wrong: {error}"))
}

/// A configuration as a TOML file in which a comment before each key says what it is.
///
/// # Errors
/// A value that TOML has no spelling for.
pub(crate) fn page<T: Serialize + JsonSchema>(config: &T) -> anyhow::Result<String> {
    let schema = schemars::schema_for!(T).to_value();
    let text = toml::to_string(config).context("the configuration has no spelling in TOML")?;
    let (mut page, mut table) = (String::new(), Vec::new());
    for line in text.lines() {
        let path = match (line.strip_prefix('['), line.split_once(" = ")) {
            (Some(header), _) => {
                table = header.trim_end_matches(']').split('.').collect();
                table.clone()
            }
            (None, Some((key, _))) => [&table[..], &[key]].concat(),
            (None, None) => Vec::new(),
        };
        if let Some(description) = description(&schema, &path) {
            page.extend(wrapped(description));
        }
        page.push_str(line);
        page.push('\n');
    }
    Ok(page)
}

/// What a schema says about the key at a path.
fn description<'a>(schema: &'a serde_json::Value, path: &[&str]) -> Option<&'a str> {
    let mut at = schema;
    for (depth, key) in path.iter().enumerate() {
        at = at.get("properties")?.get(key)?;
        if depth + 1 < path.len()
            && let Some(pointer) = at.get("$ref").and_then(|pointer| pointer.as_str()?.strip_prefix('#'))
        {
            at = schema.pointer(pointer)?;
        }
    }
    if path.is_empty() { None } else { at.get("description")?.as_str() }
}

/// A text as comments of at most 110 characters a line.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec!["#".to_owned()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < 110 => *line += &format!(" {word}"),
            _ => lines.push(format!("# {word}")),
        }
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

/// Parses `text` as a TOML value; what is none is a string.
fn toml_value(origin: &str, text: &str) -> Value {
    let parsed = Config::builder().add_source(File::from_str(&format!("value = {text}"), FileFormat::Toml)).build();
    let kind = match parsed.and_then(|config| config.get::<Value>("value")) {
        Ok(value) => value.kind,
        Err(_) => config::ValueKind::String(text.to_owned()),
    };
    Value::new(Some(&origin.to_owned()), kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellwether_trainer::config::TrainConfig;

    fn with(flags: &[&str]) -> anyhow::Result<TrainConfig> {
        resolve(None, &flags.iter().map(|flag| (*flag).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn defaults_stand_where_nothing_is_said() {
        assert_eq!(with(&[]).unwrap(), TrainConfig::default());
    }

    #[test]
    fn flags_set_numbers_lists_and_nested_keys() {
        let config = with(&["seed=7", "trainer.dropout=[0.25, 0.5]", "trainer.isolation=true"]).unwrap();
        assert_eq!((config.seed, config.trainer.isolation), (7, true));
        assert_eq!(config.trainer.dropout, vec![0.25, 0.5]);
        assert_eq!(config.trainer.batch_size, TrainConfig::default().trainer.batch_size);
    }

    #[test]
    fn a_flag_beats_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file.as_file(), b"seed = 3\n[trainer]\nupdates = 9\n").unwrap();
        let config: TrainConfig = resolve(Some(file.path()), &["seed=4".to_owned()]).unwrap();
        assert_eq!((config.seed, config.trainer.updates), (4, 9));
    }

    #[test]
    fn a_page_gives_back_what_it_was_made_of_and_explains_every_key() {
        let config =
            with(&["seed=7", "trainer.learning_rate=0.003", "network.hidden=[32]", "reward.harm.kib_sent=0.25"]);
        let config = config.unwrap();
        let page = page(&config).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file.as_file(), page.as_bytes()).unwrap();
        assert_eq!(resolve::<TrainConfig>(Some(file.path()), &[]).unwrap(), config);
        assert!(page.contains("\nlearning_rate = 0.003\n"), "{page}");
        let lines: Vec<&str> = page.lines().collect();
        for (index, line) in lines.iter().enumerate().filter(|(_, line)| line.contains(" = ") || line.starts_with('['))
        {
            assert!(index > 0 && lines[index - 1].starts_with("# "), "nothing explains `{line}`");
        }
        assert!(lines.iter().all(|line| line.chars().count() <= 110));
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_refused_by_name() {
        for (flag, part) in [
            ("trainer.bach_size=3", "bach_size"),
            ("nonsense.key=1", "nonsense"),
            ("trainer.updates=many", "updates"),
            ("seed", "key=value"),
        ] {
            let error = format!("{:#}", with(&[flag]).unwrap_err());
            assert!(error.contains(part), "{flag}: {error}");
        }
    }
}
