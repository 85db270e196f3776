//! The JSON schemas that are checked in under `docs/formats/`, beside the types that they describe.

use std::path::Path;

use bellwether_env_adapter::ingest::ValidationReport;
use bellwether_registry::{RunReport, RunSummary, Verification};
use bellwether_trainer::config::TrainConfig;
use schemars::transform::RecursiveTransform;
use schemars::{Schema, SchemaGenerator, generate::SchemaSettings, schema_for};
use serde_json::Value;

use super::{compare, decide, doctor, evaluate, export, ingest, quickstart, split, train};

/// Set to write the files anew.
const UPDATE: &str = "UPDATE_SCHEMAS";

/// The files and what they must hold.
fn schemas() -> [(&'static str, Value); 14] {
    [
        ("train-config.schema.json", config_schema()),
        ("train-report.schema.json", schema_for!(train::Report).to_value()),
        ("evaluation.schema.json", schema_for!(evaluate::Report).to_value()),
        ("quickstart-report.schema.json", schema_for!(quickstart::Report).to_value()),
        ("decision.schema.json", schema_for!(decide::Answer<'_>).to_value()),
        ("doctor-report.schema.json", schema_for!(doctor::Report).to_value()),
        ("export-report.schema.json", schema_for!(export::Report).to_value()),
        ("ingest-report.schema.json", schema_for!(ingest::Report<'_>).to_value()),
        ("split-report.schema.json", schema_for!(split::Report).to_value()),
        ("validation-report.schema.json", schema_for!(ValidationReport).to_value()),
        ("runs-list.schema.json", schema_for!(Vec<RunSummary>).to_value()),
        ("runs-show.schema.json", schema_for!(RunReport).to_value()),
        ("runs-verify.schema.json", schema_for!(Verification).to_value()),
        ("runs-compare.schema.json", schema_for!(compare::Comparison).to_value()),
    ]
}

/// The schema without the defaults: `train --print-config` says them, and they change more often than the keys.
fn config_schema() -> Value {
    let forget = RecursiveTransform(|schema: &mut Schema| drop(schema.remove("default")));
    let settings = SchemaSettings::default().with_transform(forget);
    SchemaGenerator::new(settings).into_root_schema_for::<TrainConfig>().to_value()
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a source file under version control is no artefact")]
fn schemas_that_are_checked_in_are_those_of_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/formats");
    for (name, schema) in schemas() {
        let wanted = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        let path = folder.join(name);
        if std::env::var_os(UPDATE).is_some() {
            std::fs::write(&path, &wanted).unwrap();
        }
        let stands = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            stands == wanted,
            "docs/formats/{name} is stale: see what changed after `{UPDATE}=1 cargo test schemas`"
        );
    }
}
