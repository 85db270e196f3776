//! What operators put beside a server: alert rules and a dashboard are queries that parse, over metrics and labels that a server
//! tells, and name no label that their results lack.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use bellwether_inference::serve::proto::policy::DecideRequest;
use prometheus_parse::Scrape;
use promql_parser::parser::{self, AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorSelector};

use crate::nets::state_for;
use crate::observed::eventually;
use crate::started::{client, network, start};

type Labels = BTreeSet<String>;

/// What a metric is called, and the labels of its rows.
type Known = BTreeMap<String, Labels>;

/// Labels that Prometheus itself adds to whatever it scrapes.
const SCRAPED: [&str; 2] = ["instance", "job"];

fn root(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)).unwrap()
}

fn labels<'a>(names: impl IntoIterator<Item = &'a str>) -> Labels {
    names.into_iter().map(str::to_owned).collect()
}

/// The tables of the manual, which other tests hold against the metrics that there are.
fn manual() -> Known {
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let page = root("docs/serving.md") + &root("docs/stages.md") + &root("docs/training-metrics.md");
    let rows = page.lines().map(|line| line.split('|').collect::<Vec<_>>());
    let metrics = rows.filter(|cells| cells.len() == 5).flat_map(|cells| {
        let labels: Labels = quoted(cells[2]).into_iter().collect();
        quoted(cells[1]).into_iter().map(move |name| (name, labels.clone()))
    });
    metrics.filter(|(name, _)| name.starts_with("bellwether_") || name.starts_with("process_")).collect()
}

/// The name of the metric that a row belongs to, and what the row's ending adds to its labels.
fn metric<'a>(known: &Known, name: &'a str) -> Option<(&'a str, &'static [&'static str])> {
    if known.contains_key(name) {
        return Some((name, &[]));
    }
    let endings: [(&str, &[&str]); 3] = [("_bucket", &["le"]), ("_count", &[]), ("_sum", &[])];
    endings.iter().find_map(|(ending, added)| {
        let base = name.strip_suffix(ending).filter(|base| known.contains_key(*base) && base.ends_with("_seconds"))?;
        Some((base, *added))
    })
}

/// The labels that the rows of a result have; what cannot be right is an error.
fn result(known: &Known, expression: &Expr) -> Result<Labels, String> {
    match expression {
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Ok(Labels::new()),
        Expr::Paren(inner) => result(known, &inner.expr),
        Expr::Unary(inner) => result(known, &inner.expr),
        Expr::Subquery(inner) => result(known, &inner.expr),
        Expr::VectorSelector(selected) => rows(known, selected),
        Expr::MatrixSelector(selected) => rows(known, &selected.vs),
        Expr::Aggregate(AggregateExpr { expr, modifier, .. }) => {
            let inner = result(known, expr)?;
            match modifier {
                None => Ok(Labels::new()),
                Some(LabelModifier::Include(kept)) => {
                    contained(&labels(kept.labels.iter().map(String::as_str)), &inner)
                }
                Some(LabelModifier::Exclude(dropped)) => {
                    Ok(inner.into_iter().filter(|label| !dropped.labels.contains(label)).collect())
                }
            }
        }
        Expr::Binary(BinaryExpr { lhs, rhs, modifier, .. }) => {
            let (left, right) = (result(known, lhs)?, result(known, rhs)?);
            let matching = modifier.as_ref().and_then(|modifier| modifier.matching.as_ref());
            match matching {
                Some(LabelModifier::Include(on)) => {
                    let on = labels(on.labels.iter().map(String::as_str));
                    contained(&contained(&on, &left)?, &right)?;
                }
                Some(LabelModifier::Exclude(_)) => {}
                // Rows of both sides meet where all their labels are equal, so there must be the same ones.
                None if !left.is_empty() && !right.is_empty() && left != right => {
                    return Err(format!("{left:?} on the left, {right:?} on the right: their rows never meet"));
                }
                None => {}
            }
            Ok(if left.is_empty() { right } else { left })
        }
        Expr::Call(Call { func, args }) => {
            let mut found = Labels::new();
            for argument in &args.args {
                found.extend(result(known, argument)?);
            }
            let over = args.args.last().map(|last| last.to_string()).unwrap_or_default();
            match func.name {
                "rate" | "increase"
                    if !["_total", "_bucket", "_count", "_sum"].iter().any(|end| over.contains(end)) =>
                {
                    Err(format!("{} over {over}, which is no counter", func.name))
                }
                "histogram_quantile" if !found.remove("le") => Err(format!("{over} has no buckets (le)")),
                "absent" => Ok(Labels::new()),
                _ => Ok(found),
            }
        }
        Expr::Extension(_) => Err("an extension".to_owned()),
    }
}

/// The labels of the rows that are selected.
fn rows(known: &Known, VectorSelector { name, matchers, .. }: &VectorSelector) -> Result<Labels, String> {
    let name = name.as_deref().ok_or("rows of any metric are selected")?;
    let (base, added) = metric(known, name).ok_or_else(|| format!("there is no metric {name}"))?;
    let all: Labels = known[base].iter().cloned().chain(labels(SCRAPED)).chain(labels(added.iter().copied())).collect();
    contained(&labels(matchers.matchers.iter().map(|matcher| matcher.name.as_str())), &all)?;
    Ok(all)
}

/// `some`, where all of it is in `all`.
fn contained(some: &Labels, all: &Labels) -> Result<Labels, String> {
    match some.difference(all).next() {
        None => Ok(some.clone()),
        Some(label) => Err(format!("there is no label {label}, but {all:?}")),
    }
}

/// Parses an expression; the labels of its result.
fn check(known: &Known, expression: &str) -> Result<Labels, String> {
    result(known, &parser::parse(expression)?)
}

/// The rules of the files for Prometheus, each as its lines.
fn rules() -> Vec<String> {
    let files = ["alerts.yml", "loop.yml", "training.yml"];
    let page: String = files.map(|file| root(&format!("deploy/prometheus/{file}"))).concat();
    let rules = page.split("- alert: ").skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert!(rules.len() > 10, "{page}");
    rules
}

/// The expression of a rule: on the line of its key, or on the deeper lines that follow.
fn expression(rule: &str) -> String {
    let depth = |line: &str| line.len() - line.trim_start().len();
    let mut lines = rule.lines().skip_while(|line| !line.trim_start().starts_with("expr: "));
    let key = lines.next().unwrap();
    match key.trim_start().strip_prefix("expr: ").unwrap() {
        "|" => lines.take_while(|line| depth(line) > depth(key)).collect::<Vec<_>>().join("\n"),
        whole => whole.to_owned(),
    }
}

#[tokio::test]
async fn the_manual_names_the_labels_that_rows_have() {
    let known = manual();
    let server = start(|config| config.http = Some(([127, 0, 0, 1], 0).into()));
    let state = state_for(&network(1), 1);
    client(&server).await.decide(DecideRequest { state, ..DecideRequest::default() }).await.unwrap();
    // A request is counted after its client has the answer.
    eventually("the request", || server.metrics().render().contains("bellwether_requests_total{"));
    let text = server.metrics().render();
    let page = Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap();
    let mut seen = BTreeSet::new();
    for sample in &page.samples {
        let (base, _) = metric(&known, &sample.metric).unwrap_or_else(|| panic!("{}", sample.metric));
        let has: Labels = sample.labels.keys().cloned().collect();
        let wanted = known[base].clone();
        // A histogram's buckets are told apart by one more, which the parser keeps to itself.
        assert!(has == wanted, "{}: {has:?}, and {wanted:?} in the manual", sample.metric);
        seen.insert(base);
    }
    for metric in ["bellwether_decisions_total", "bellwether_requests_total", "bellwether_model_info"] {
        assert!(seen.contains(metric), "{text}");
    }
}

#[test]
fn alert_rules_are_sound_and_their_texts_name_labels_of_the_result() {
    let known = manual();
    for rule in rules() {
        let name = rule.lines().next().unwrap();
        let found = check(&known, &expression(&rule)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let named = rule
            .split("$labels.")
            .skip(1)
            .map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap().to_owned());
        contained(&named.collect(), &found).unwrap_or_else(|error| panic!("{name}: its texts: {error}"));
    }
}

#[test]
fn dashboards_ask_sound_questions_and_their_legends_name_labels_of_the_answers() {
    let known = manual();
    let dashboards: Vec<serde_json::Value> = ["bellwether", "training"]
        .map(|name| serde_json::from_str(&root(&format!("deploy/grafana/{name}.json"))).unwrap())
        .into();
    let mut asked = 0;
    let panels = dashboards.iter().flat_map(|dashboard| dashboard["panels"].as_array().unwrap());
    for target in panels.filter_map(|panel| panel["targets"].as_array()).flatten() {
        let expression = target["expr"].as_str().unwrap();
        let whole = [("$__rate_interval", "5m"), ("$instance", ".*"), ("$run", ".*")];
        let found =
            check(&known, &whole.iter().fold(expression.to_owned(), |all, (name, value)| all.replace(name, value)));
        let found = found.unwrap_or_else(|error| panic!("{expression}: {error}"));
        let legend = target["legendFormat"].as_str().unwrap_or_default();
        let named = legend.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap().trim().to_owned());
        contained(&named.collect(), &found).unwrap_or_else(|error| panic!("{expression}: {legend}: {error}"));
        asked += 1;
    }
    assert!(asked > 40, "{asked} questions");
}

#[test]
fn what_cannot_be_right_is_found() {
    let known = manual();
    for (expression, says) in [
        ("sum by (instance) (rate(bellwether_decisions_total[5m])", "unclosed"),
        ("rate(bellwether_decisions_total)", "expected type"),
        ("bellwether_decision_total", "no metric bellwether_decision_total"),
        ("bellwether_decisions_total{model=\"1\"}", "no label model"),
        ("sum by (reason) (bellwether_decisions_total)", "no label reason"),
        ("rate(bellwether_in_flight[5m])", "no counter"),
        ("histogram_quantile(0.99, sum by (instance) (rate(bellwether_decision_duration_seconds_bucket[5m])))", "le"),
        ("sum by (instance) (bellwether_in_flight) / bellwether_in_flight_limit", "never meet"),
        ("bellwether_in_flight > on (method) bellwether_in_flight_limit", "no label method"),
    ] {
        let error = check(&known, expression).unwrap_err();
        assert!(error.contains(says), "{expression}: {error}");
    }
    assert_eq!(check(&known, "sum by (action) (rate(bellwether_decisions_total[5m])) > 1"), Ok(labels(["action"])));
}
