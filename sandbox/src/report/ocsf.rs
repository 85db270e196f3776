//! Events of the Open Cybersecurity Schema Framework, version 1.7.0, as JSON Lines.
//!
//! File, process and network activity of the sample, one Detection Finding, and what was done about it as remediation. Reads,
//! writes and traffic are told once for a process and a path or peer, since millions of them say no more.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::net::IpAddr;

use bellwether_env_adapter::behaviour::Facts;
use bellwether_env_adapter::calls::{Operation, name_hash};
use bellwether_env_adapter::event::flags;
use bellwether_env_adapter::{Action, Event, EventKind};
use serde_json::{Map, Value, json};

use super::attack::Seen;
use super::http::Request;
use super::json;
use super::record::{EpisodeRecord, Feedback, ProcessRecord, StageRecord, WindowRecord};
use crate::vault::Removal;

const VERSION: &str = "1.7.0";

/// Classes, by their number.
mod class {
    pub(super) const FILE_ACTIVITY: u64 = 1001;
    pub(super) const PROCESS_ACTIVITY: u64 = 1007;
    pub(super) const DETECTION_FINDING: u64 = 2004;
    pub(super) const NETWORK_ACTIVITY: u64 = 4001;
    pub(super) const HTTP_ACTIVITY: u64 = 4002;
    pub(super) const FILE_REMEDIATION: u64 = 7002;
    pub(super) const PROCESS_REMEDIATION: u64 = 7003;
}

/// Severities, by their number.
mod severity {
    pub(super) const INFORMATIONAL: u64 = 1;
    pub(super) const HIGH: u64 = 4;
}

/// Repeated activities that are told apart; beyond, some are told twice.
const REMEMBERED: usize = 1 << 16;

/// Writes the events one by one.
pub(super) struct Ocsf<'a, W> {
    record: &'a EpisodeRecord,
    out: W,
    /// Activities that were told and come again and again, by hash.
    told: HashSet<u64>,
    /// The processes of each stage by their number; the last one where a number came around.
    processes: HashMap<(u8, u32), &'a ProcessRecord>,
    rows: u64,
}

/// What an activity is called and about.
struct Activity {
    class: u64,
    id: u64,
    /// Told once for a process and an object.
    repeats: bool,
}

impl<'a, W: Write> Ocsf<'a, W> {
    pub(super) fn new(record: &'a EpisodeRecord, out: W) -> Self {
        let of_stage =
            |stage: &'a StageRecord| stage.processes.iter().map(move |process| ((stage.stage, process.pid), process));
        let processes = record.stages.iter().flat_map(of_stage).collect();
        Ocsf { record, out, told: HashSet::new(), processes, rows: 0 }
    }

    /// Tells of an event of the sample, where OCSF has a class for it.
    pub(super) fn event(&mut self, event: &Event<'_>, facts: &Facts) -> io::Result<()> {
        let Some(activity) = activity(event, facts) else { return Ok(()) };
        if activity.repeats && !self.is_new(event, &activity) {
            return Ok(());
        }
        let stage = self.record.stages.iter().find(|stage| stage.stage == event.stage);
        let mut row = self.row(
            activity.class,
            activity.id,
            self.record.time_ms(event.stage, event.time_ns),
            severity::INFORMATIONAL,
            stage,
            &format!("{}/{}", event.stage, event.seq),
        );
        let process = self.process(stage, event.pid);
        let denied = event.denied == Some(true);
        row.insert("status_id".into(), if facts.failed { 2 } else { 1 }.into());
        if let Some(errno) = event.errno {
            row.insert("status_code".into(), errno.to_string().into());
        }
        row.insert("action_id".into(), if denied { 2 } else { 1 }.into());
        row.insert("disposition_id".into(), if denied { 2 } else { 1 }.into());
        row.insert("actor".into(), json!({ "process": process }));
        match activity.class {
            class::FILE_ACTIVITY => {
                let is_folder = event.flags.unwrap_or(0) & flags::DIRECTORY != 0
                    || matches!(facts.name.operation, Operation::MakeFolder | Operation::List);
                row.insert("file".into(), file(event.path.unwrap_or("unknown"), is_folder));
                if let Some(path) = event.path2 {
                    row.insert("file_result".into(), file(path, is_folder));
                }
            }
            class::PROCESS_ACTIVITY => {
                let is_child = matches!(facts.name.operation, Operation::Fork);
                let child = event.ret.and_then(|pid| u32::try_from(pid).ok()).filter(|_| is_child);
                let mut launched = child.map_or(process, |pid| self.process(stage, Some(pid)));
                if let (Some(path), Some(launched)) = (event.path, launched.as_object_mut()) {
                    launched.insert("file".into(), file(path, false));
                }
                row.insert("process".into(), launched);
            }
            _ => {
                let mut peer = Map::new();
                match event.peer_addr {
                    Some(address) if address.parse::<IpAddr>().is_ok() => peer.insert("ip".into(), address.into()),
                    // Addresses are tokens where they were redacted, and paths of sockets.
                    address => peer.insert("name".into(), address.or(event.path).unwrap_or("unknown").into()),
                };
                if let Some(port) = event.peer_port {
                    peer.insert("port".into(), port.into());
                }
                row.insert("dst_endpoint".into(), peer.into());
                let direction = if activity.id == 7 { 1 } else { 2 };
                row.insert("connection_info".into(), json!({ "direction_id": direction }));
            }
        }
        self.put(row)
    }

    /// Tells of the finding and of what was done; returns how many rows there are.
    pub(super) fn finish(mut self, seen: &[Seen]) -> io::Result<u64> {
        let record = self.record;
        for stage in &record.stages {
            self.requests(stage)?;
        }
        for (stage, window) in record.decisions() {
            self.remediation(stage, window)?;
        }
        self.finding(seen)?;
        self.out.flush()?;
        Ok(self.rows)
    }

    /// Tells of the requests of HTTP that the decoy network answered. Nobody noted when: some time in the stage.
    fn requests(&mut self, stage: &StageRecord) -> io::Result<()> {
        let contacts = stage.traffic.iter().flat_map(|traffic| &traffic.contacts);
        let ended_ms = stage.began_ms.saturating_add(stage.duration_ms);
        for (number, request) in contacts.filter_map(Request::of).enumerate() {
            let activity = match request.method.as_str() {
                "CONNECT" => 1,
                "DELETE" => 2,
                "GET" => 3,
                "HEAD" => 4,
                "OPTIONS" => 5,
                "POST" => 6,
                "PUT" => 7,
                "TRACE" => 8,
                "PATCH" => 9,
                _ => 99,
            };
            let uid = format!("{}/http/{number}", stage.stage);
            let mut row =
                self.row(class::HTTP_ACTIVITY, activity, ended_ms, severity::INFORMATIONAL, Some(stage), &uid);
            row.insert("start_time".into(), stage.began_ms.into());
            row.insert("end_time".into(), ended_ms.into());
            row.insert("action_id".into(), 1.into());
            row.insert("disposition_id".into(), 1.into());
            row.insert("dst_endpoint".into(), json!({ "ip": request.address, "port": request.port }));
            row.insert("connection_info".into(), json!({ "direction_id": 2 }));
            let mut asked = Map::new();
            asked.insert("version".into(), request.version.into());
            asked.insert(
                "url".into(),
                json!({
                    "url_string": request.uri(), "hostname": request.host, "path": request.target, "port": request.port,
                }),
            );
            if !request.user_agent.is_empty() {
                asked.insert("user_agent".into(), request.user_agent.as_str().into());
            }
            // The class knows nine methods.
            match activity {
                99 => row.insert("activity_name".into(), request.method.as_str().into()),
                _ => asked.insert("http_method".into(), request.method.as_str().into()),
            };
            row.insert("http_request".into(), asked.into());
            self.put(row)?;
        }
        Ok(())
    }

    fn remediation(&mut self, stage: &StageRecord, window: &WindowRecord) -> io::Result<()> {
        const ISOLATE: u64 = 1;
        const EVICT: u64 = 2;
        let decision = &window.decision;
        let (activity, disposition, text) = match decision.action {
            Action::Continue | Action::Release => return Ok(()),
            Action::RaiseIsolation => (ISOLATE, 4, "The isolation of the sample was raised by one level"),
            Action::Terminate | Action::Quarantine => (EVICT, 2, "The sample was killed with all its processes"),
        };
        let mut row = self.remedy(stage, window, (class::PROCESS_REMEDIATION, activity), text);
        let status = match &decision.feedback {
            Some(Feedback { applied: true, .. }) => 1,
            Some(_) => 2,
            None => 0,
        };
        row.insert("status_id".into(), status.into());
        if let Some(feedback) = &decision.feedback {
            row.insert("status_detail".into(), feedback.proof.as_str().into());
        }
        row.insert("action_id".into(), 4.into());
        row.insert("disposition_id".into(), disposition.into());
        let first = stage.processes.first().map(|process| process.pid);
        row.insert("process".into(), self.process(Some(stage), first));
        self.put(row)?;
        // Without a vault, or where it could not be sealed, nothing was done to the file.
        let (Action::Quarantine, Some(removal)) = (decision.action, &self.record.outcome.quarantine) else {
            return Ok(());
        };
        let text = "The file was sealed in the vault, and the original removed";
        let mut row = self.remedy(stage, window, (class::FILE_REMEDIATION, ISOLATE), text);
        let (status, detail, (action, disposition)) = match removal {
            Removal::Removed { other_names: 0 } => (1, "the original is removed".to_owned(), (4, 3)),
            Removal::Removed { other_names } => {
                (4, format!("{other_names} hard links to it are left under other names"), (4, 3))
            }
            Removal::Gone => (3, "the original was gone already".to_owned(), (4, 3)),
            Removal::Kept { why } => (2, format!("the original is still there: {why}"), (3, 16)),
        };
        row.insert("status_id".into(), status.into());
        row.insert("status_detail".into(), detail.into());
        row.insert("action_id".into(), action.into());
        row.insert("disposition_id".into(), disposition.into());
        row.insert("file".into(), self.sample());
        self.put(row)
    }

    /// The beginning of a row about what a decision did.
    fn remedy(
        &self,
        stage: &StageRecord,
        window: &WindowRecord,
        (class, activity): (u64, u64),
        text: &str,
    ) -> Map<String, Value> {
        let time_ms = self.record.time_ms(stage.stage, Some(window.closed_ns));
        let uid = format!("{}/{}/{class}", stage.stage, window.index);
        let mut row = self.row(class, activity, time_ms, severity::INFORMATIONAL, Some(stage), &uid);
        row.insert("command_uid".into(), window.decision.decision_id.as_str().into());
        row.insert("remediation".into(), json!({ "desc": text }));
        row
    }

    fn finding(&mut self, seen: &[Seen]) -> io::Result<()> {
        const CREATE: u64 = 1;
        let record = self.record;
        let convicted = record.is_conviction();
        let last = record.stages.last();
        let severity = if convicted { severity::HIGH } else { severity::INFORMATIONAL };
        let mut row = self.row(class::DETECTION_FINDING, CREATE, record.ended_ms(), severity, last, "finding");
        let version = record.decisions().filter_map(|(_, window)| window.decision.model_version.as_deref()).last();
        let mut analytic = json!({ "type_id": 4, "name": "Bellwether policy" });
        if let (Some(version), Some(analytic)) = (version, analytic.as_object_mut()) {
            analytic.insert("version".into(), version.into());
        }
        let attacks: Vec<Value> = seen.iter().map(attack).collect();
        row.insert(
            "finding_info".into(),
            json!({
                "uid": record.episode_id, "title": title(record), "desc": record.outcome.text, "analytic": analytic,
                "attacks": attacks, "first_seen_time": record.began_ms(), "last_seen_time": record.ended_ms(),
                "created_time": record.ended_ms(), "types": ["Behaviour of a sample in a sandbox"],
            }),
        );
        let (action, disposition) = match record.outcome.verdict {
            Some(Action::Quarantine) if is_put_away(record) => (2, 3),
            Some(Action::Terminate | Action::Quarantine) => (2, 2),
            Some(_) => (1, 1),
            None => (3, 16),
        };
        row.insert("status_id".into(), 1.into());
        row.insert("is_alert".into(), convicted.into());
        row.insert("action_id".into(), action.into());
        row.insert("disposition_id".into(), disposition.into());
        row.insert("evidences".into(), json!([{ "file": self.sample() }]));
        let refused = record.stages.iter().filter(|stage| !stage.counts.refused.is_empty());
        let refused: Vec<Value> =
            refused.map(|stage| json!({ "stage": stage.stage, "calls": stage.counts.refused })).collect();
        if !refused.is_empty() {
            row.insert("unmapped".into(), json!({ "refused": refused }));
        }
        if convicted {
            let sample = &record.sample;
            let malware = json!({ "classification_ids": [0], "uid": sample.sha256, "path": sample.path });
            row.insert("malware".into(), json!([malware]));
        }
        self.put(row)
    }

    fn row(
        &self,
        class: u64,
        activity: u64,
        time_ms: u64,
        severity: u64,
        stage: Option<&StageRecord>,
        uid: &str,
    ) -> Map<String, Value> {
        let record = self.record;
        let host = stage.or(record.stages.last()).map_or("unknown", |stage| stage.host_name.as_str());
        let row = json!({
            "class_uid": class, "category_uid": class / 1000, "activity_id": activity,
            "type_uid": class * 100 + activity, "time": time_ms, "severity_id": severity,
            "metadata": {
                "version": VERSION, "profiles": ["host", "security_control"], "log_name": "bellwether",
                "product": { "name": "Bellwether", "vendor_name": "Bellwether", "version": record.version },
                "uid": format!("{}/{uid}", record.episode_id.0), "correlation_uid": record.episode_id,
            },
            "device": { "type_id": 6, "hostname": host, "uid": record.episode_id },
        });
        match row {
            Value::Object(row) => row,
            _ => Map::new(),
        }
    }

    fn process(&self, stage: Option<&StageRecord>, pid: Option<u32>) -> Value {
        let known = pid.and_then(|pid| self.processes.get(&(stage?.stage, pid)));
        match known {
            Some(process) => described_process(process),
            // What has no number has the name of the episode, since one or the other is demanded.
            None => pid.map_or_else(|| json!({ "uid": self.record.episode_id }), |pid| json!({ "pid": pid })),
        }
    }

    fn sample(&self) -> Value {
        let sample = &self.record.sample;
        json!({
            "name": sample.name(), "path": sample.path, "type_id": 1, "size": sample.bytes,
            "hashes": [
                { "algorithm_id": 1, "value": sample.md5 },
                { "algorithm_id": 2, "value": sample.sha1 },
                { "algorithm_id": 3, "value": sample.sha256 },
            ],
        })
    }

    fn is_new(&mut self, event: &Event<'_>, activity: &Activity) -> bool {
        let object = event.path.or(event.peer_addr).map_or(0, name_hash);
        let parts = [activity.class, activity.id, event.stage.into(), event.pid.unwrap_or(0).into(), object];
        let port = u64::from(event.peer_port.unwrap_or(0));
        let denied = u64::from(event.denied == Some(true));
        let key = parts.into_iter().chain([port, denied]).fold(0_u64, |key, part| {
            // A multiplication spreads each part before the next one comes.
            (key ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
        });
        if self.told.len() >= REMEMBERED {
            self.told.clear();
        }
        self.told.insert(key)
    }

    fn put(&mut self, row: Map<String, Value>) -> io::Result<()> {
        json::write(&mut self.out, &row)?;
        self.rows += 1;
        self.out.write_all(b"\n")
    }
}

/// The activity that a call is; `None` where OCSF has none that fits.
fn activity(event: &Event<'_>, facts: &Facts) -> Option<Activity> {
    use Operation as O;
    let file = |id, repeats| event.path.map(|_| Activity { class: class::FILE_ACTIVITY, id, repeats });
    let process = |id| Some(Activity { class: class::PROCESS_ACTIVITY, id, repeats: false });
    let network = |id, repeats| Some(Activity { class: class::NETWORK_ACTIVITY, id, repeats });
    let is_network = facts.name.kind == EventKind::Network || event.peer_addr.is_some();
    match facts.name.operation {
        O::Open if event.created == Some(true) => file(1, false),
        O::Open => file(14, true),
        O::MakeNode | O::MakeFolder | O::Link => file(1, false),
        O::Send | O::Receive => network(6, true),
        O::Read | O::Write if is_network => network(6, true),
        O::Read | O::List => file(2, true),
        O::Write | O::Copy | O::Truncate | O::Allocate => file(3, true),
        O::Delete => file(4, false),
        O::Rename => file(5, false),
        O::SetTimes | O::SetAttribute => file(6, false),
        O::ChangeMode | O::ChangeOwner => file(7, false),
        O::Fork | O::Exec => process(1),
        O::Exit => process(2),
        O::Trace | O::WriteProcess => process(4),
        O::ChangeUser => process(5),
        O::Connect => network(if facts.failed { 4 } else { 1 }, false),
        O::Bind => network(7, false),
        _ => None,
    }
}

fn attack(seen: &Seen) -> Value {
    let (tactic_id, tactic) = seen.technique.tactic.words();
    let (id, name) = seen.technique.parent();
    let mut attack = json!({
        "version": "17", "tactic": { "uid": tactic_id, "name": tactic }, "technique": { "uid": id, "name": name },
    });
    if let (true, Some(attack)) = (seen.technique.is_sub(), attack.as_object_mut()) {
        let name = seen.technique.name.split_once(": ").map_or(seen.technique.name, |(_, name)| name);
        attack.insert("sub_technique".into(), json!({ "uid": seen.technique.id, "name": name }));
    }
    attack
}

fn file(path: &str, is_folder: bool) -> Value {
    let name = path.rsplit('/').find(|name| !name.is_empty()).unwrap_or("/");
    json!({ "name": name, "path": path, "type_id": if is_folder { 2 } else { 1 } })
}

fn described_process(process: &ProcessRecord) -> Value {
    let mut value = json!({ "pid": process.pid, "name": process.program, "cmd_line": process.arguments.join(" ") });
    if let (Some(parent), Some(value)) = (process.ppid, value.as_object_mut()) {
        value.insert("parent_process".into(), json!({ "pid": parent }));
    }
    value
}

fn title(record: &EpisodeRecord) -> &'static str {
    match record.outcome.verdict {
        Some(Action::Quarantine) if is_put_away(record) => "A sample was killed while it ran, and put into quarantine",
        Some(Action::Quarantine) => "A sample was killed while it ran, and its file is not known to be in quarantine",
        Some(Action::Terminate) => "A sample was killed while it ran",
        Some(_) => "A sample was released",
        None => "A sample got no verdict",
    }
}

/// Whether the file is in the vault and nowhere else under its name.
fn is_put_away(record: &EpisodeRecord) -> bool {
    matches!(record.outcome.quarantine, Some(Removal::Removed { .. } | Removal::Gone))
}
