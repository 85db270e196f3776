//! The JSON schemas that are checked in under `docs/formats/`, beside the types that they describe.

use std::path::Path;

use bellwether_artifact::audit::Verification as AuditVerification;
use bellwether_env_adapter::ingest::ValidationReport;
use bellwether_registry::{Move, Published, RegistryProblem, RunReport, RunSummary, Verification};
use bellwether_trainer::config::TrainConfig;
use bellwether_trainer::offline::OfflineConfig;
use bellwether_trainer::sweep::SweepConfig;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, schema_for};
use serde_json::Value;

use super::{
    audit, compare, decide, detonation, doctor, estimate, evaluate, export, ingest, keys, learn, quickstart, record,
    recover, release, runs, split, sweep, train, vault,
};

/// Set to write the files anew.
const UPDATE: &str = "UPDATE_SCHEMAS";

/// The files and what they must hold: those of the verbs that this build has.
fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        ("train-config.schema.json", config_schema::<TrainConfig>()),
        ("audit-report.schema.json", schema_for!(audit::Report).to_value()),
        ("audit-verify.schema.json", schema_for!(AuditVerification).to_value()),
        ("vault-list.schema.json", schema_for!(Vec<vault::Row>).to_value()),
        ("vault-restore.schema.json", schema_for!(vault::Restoration).to_value()),
        ("vault-settle.schema.json", schema_for!(vault::Settled).to_value()),
        ("vault-purge.schema.json", schema_for!(vault::Purged).to_value()),
        ("train-report.schema.json", schema_for!(train::Report).to_value()),
        ("learn-config.schema.json", config_schema::<OfflineConfig>()),
        ("sweep-config.schema.json", config_schema::<SweepConfig>()),
        ("sweep-report.schema.json", schema_for!(sweep::Report).to_value()),
        ("learn-report.schema.json", schema_for!(learn::Report).to_value()),
        ("estimates.schema.json", schema_for!(estimate::Report).to_value()),
        ("evaluation.schema.json", schema_for!(evaluate::Report).to_value()),
        ("quickstart-report.schema.json", schema_for!(quickstart::Report).to_value()),
        ("decision.schema.json", schema_for!(decide::Answer<'_>).to_value()),
        ("detonation-report.schema.json", schema_for!(detonation::Report).to_value()),
        ("recover-report.schema.json", schema_for!(recover::Report).to_value()),
        ("record-report.schema.json", schema_for!(record::Report).to_value()),
        ("doctor-report.schema.json", schema_for!(doctor::Report).to_value()),
        ("export-report.schema.json", schema_for!(export::Report).to_value()),
        ("ingest-report.schema.json", schema_for!(ingest::Report<'_>).to_value()),
        ("split-report.schema.json", schema_for!(split::Report).to_value()),
        ("validation-report.schema.json", schema_for!(ValidationReport).to_value()),
        ("runs-list.schema.json", schema_for!(Vec<RunSummary>).to_value()),
        ("runs-show.schema.json", schema_for!(RunReport).to_value()),
        ("runs-verify.schema.json", schema_for!(Verification).to_value()),
        ("runs-report.schema.json", schema_for!(runs::Drawn).to_value()),
        ("runs-compare.schema.json", schema_for!(compare::Comparison).to_value()),
        ("release-promote.schema.json", schema_for!(release::Promotion).to_value()),
        ("release-sign.schema.json", schema_for!(release::Signed).to_value()),
        ("release-rollback.schema.json", schema_for!(Move).to_value()),
        ("release-list.schema.json", schema_for!(Vec<Published>).to_value()),
        ("release-verify.schema.json", schema_for!(Vec<RegistryProblem>).to_value()),
        ("keys-generate.schema.json", schema_for!(keys::Generated).to_value()),
        ("keys-show.schema.json", schema_for!(Vec<keys::Shown>).to_value()),
        #[cfg(feature = "serve")]
        ("serve-listening.schema.json", schema_for!(super::serve::Listening<'_>).to_value()),
        #[cfg(feature = "serve")]
        ("stage-listening.schema.json", schema_for!(super::sandbox::Listening).to_value()),
        #[cfg(feature = "serve")]
        ("loop-working.schema.json", schema_for!(super::looping::Working<'_>).to_value()),
    ]
}

/// The schema without the defaults: `--print-config` says them, and they change more often than the keys.
fn config_schema<T: JsonSchema>() -> Value {
    let forget = RecursiveTransform(|schema: &mut Schema| drop(schema.remove("default")));
    let settings = SchemaSettings::default().with_transform(forget);
    SchemaGenerator::new(settings).into_root_schema_for::<T>().to_value()
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
            "docs/formats/{name} is stale: see what changed after `{UPDATE}=1 cargo test --features serve schemas`"
        );
    }
}
