//! `report.json`: the shape of CAPE's reports, which connectors and rule engines read.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use bellwether_env_adapter::behaviour::{Facts, Sign};
use bellwether_env_adapter::calls::Operation;
use bellwether_env_adapter::{Event, EventKind};
use serde_json::{Value, json};

use super::attack::Seen;
use super::http::Request;
use super::record::{Change, EpisodeRecord, ProcessRecord};
use super::spool::Spool;
use super::{clock, json};
use crate::network::Protocol;

/// Distinct names that a list of the summary holds; what is beyond is counted.
const LISTED: usize = 10_000;

/// Requests of HTTP that are listed, each with up to a kibibyte of what was sent, more than once and spelled out.
const REQUESTS: usize = 1_000;

/// Collects what CAPE's report tells by process.
#[derive(Default)]
pub(super) struct Cape {
    calls: Spool<(u8, u32)>,
    files: Names,
    read: Names,
    written: Names,
    deleted: Names,
    commands: Names,
    peers: BTreeMap<String, BTreeSet<u16>>,
    further_peers: u64,
}

/// A list of distinct names, bounded.
#[derive(Default)]
struct Names {
    names: BTreeSet<String>,
    further: u64,
}

impl Names {
    fn add(&mut self, name: &str) {
        if self.names.contains(name) {
            return;
        }
        if self.names.len() < LISTED {
            self.names.insert(name.to_owned());
        } else {
            self.further += 1;
        }
    }
}

impl Cape {
    pub(super) fn event(&mut self, record: &EpisodeRecord, event: &Event<'_>, facts: &Facts) -> io::Result<()> {
        let key = (event.stage, event.pid.unwrap_or(0));
        self.calls.add(key, |out, id| json::write(out, &call(record, event, facts, id)))?;
        if let Some(path) = event.path.filter(|_| event.kind == EventKind::File) {
            self.files.add(path);
            let operation = facts.name.operation;
            if facts.signs.has(Sign::Read) {
                self.read.add(path);
            }
            if matches!(operation, Operation::Write | Operation::Rename | Operation::Truncate | Operation::Copy) {
                self.written.add(path);
            }
            if operation == Operation::Delete {
                self.deleted.add(path);
            }
        }
        if facts.name.operation == Operation::Exec {
            self.commands.add(event.args.or(event.path).unwrap_or(event.name));
        }
        if let Some(peer) = event.peer_addr {
            if self.peers.len() < LISTED || self.peers.contains_key(peer) {
                self.peers.entry(peer.to_owned()).or_default().extend(event.peer_port);
            } else {
                self.further_peers += 1;
            }
        }
        Ok(())
    }

    /// Writes the whole report.
    pub(super) fn write(mut self, record: &EpisodeRecord, seen: &[Seen], out: &mut impl Write) -> io::Result<()> {
        out.write_all(b"{")?;
        json::field(out, "info", &info(record), true)?;
        json::field(out, "target", &json!({ "category": "file", "file": target(record) }), false)?;
        json::field(out, "statistics", &json!({ "processing": [], "signatures": [], "reporting": [] }), false)?;
        json::key(out, "behavior", false)?;
        self.behaviour(record, out)?;
        let hosts: Vec<Value> = self.peers.iter().map(|(peer, ports)| json!({ "ip": peer, "ports": ports })).collect();
        let (requests, further_requests) = requests(record);
        json::field(out, "network", &network(record, &hosts, &requests), false)?;
        json::field(out, "dropped", &dropped(record), false)?;
        json::field(out, "signatures", &seen.iter().map(signature).collect::<Vec<_>>(), false)?;
        let ttps =
            seen.iter().map(|seen| json!({ "signature": seen.behaviour, "ttps": [seen.technique.id], "mbcs": [] }));
        json::field(out, "ttps", &ttps.collect::<Vec<_>>(), false)?;
        if record.outcome.verdict.is_some() {
            let (score, status) = if record.is_conviction() { (10.0, "Malicious") } else { (0.0, "Clean") };
            json::field(out, "malscore", &score, false)?;
            json::field(out, "malstatus", status, false)?;
        }
        let ours = json!({
            "episode_id": record.episode_id,
            "outcome": record.outcome,
            "partial": record.partial,
            "counts": record.stages.iter().map(|stage| json!({ "stage": stage.stage, "counts": stage.counts })).collect::<Vec<_>>(),
            "faults": record.stages.iter().flat_map(|stage| &stage.faults).collect::<Vec<_>>(),
            "lacking": record.stages.iter().flat_map(|stage| &stage.lacking).collect::<Vec<_>>(),
            "left_out": {
                "files": self.files.further, "read_files": self.read.further, "write_files": self.written.further,
                "delete_files": self.deleted.further, "executed_commands": self.commands.further,
                "hosts": self.further_peers, "http": further_requests,
                "dropped": record.stages.iter().map(|stage| stage.further_changes).sum::<u64>(),
                "contacts": record.stages.iter().filter_map(|stage| Some(stage.traffic.as_ref()?.left_out)).sum::<u64>(),
                "processes": record.stages.iter().map(|stage| stage.further_processes).sum::<u64>(),
            },
        });
        json::field(out, "bellwether", &ours, false)?;
        json::key(out, "bellwether_windows", false)?;
        out.write_all(b"[")?;
        for (index, (stage, window)) in record.decisions().enumerate() {
            if index > 0 {
                out.write_all(b",")?;
            }
            json::write(out, &json!({ "stage": stage.stage, "window": window }))?;
        }
        out.write_all(b"]}\n")
    }

    fn behaviour(&mut self, record: &EpisodeRecord, out: &mut impl Write) -> io::Result<()> {
        out.write_all(b"{")?;
        json::key(out, "processes", true)?;
        out.write_all(b"[")?;
        // Processes of the record first, then those of which only events tell.
        let mut left: BTreeSet<(u8, u32)> = self.calls.keys().into_iter().collect();
        let mut first = true;
        for stage in &record.stages {
            for process in &stage.processes {
                let key = (stage.stage, process.pid);
                // A number that came around again has its calls with the first process of the name.
                let calls = left.remove(&key).then_some(key);
                self.process(&described(record, stage.stage, process), calls, &mut first, out)?;
            }
        }
        for key in left {
            self.process(&undescribed(record, key), Some(key), &mut first, out)?;
        }
        out.write_all(b"]")?;
        json::field(out, "processtree", &trees(record), false)?;
        let summary = json!({
            "files": self.files.names, "read_files": self.read.names, "write_files": self.written.names,
            "delete_files": self.deleted.names, "keys": [], "read_keys": [], "write_keys": [], "delete_keys": [],
            "executed_commands": self.commands.names, "resolved_apis": [], "mutexes": [], "created_services": [],
            "started_services": [],
        });
        json::field(out, "summary", &summary, false)?;
        json::field(out, "anomaly", &json!([]), false)?;
        json::field(out, "encryptedbuffers", &json!([]), false)?;
        json::field(out, "enhanced", &json!([]), false)?;
        out.write_all(b"}")
    }

    fn process(
        &mut self,
        fields: &[(&str, Value)],
        calls: Option<(u8, u32)>,
        first: &mut bool,
        out: &mut impl Write,
    ) -> io::Result<()> {
        if !std::mem::replace(first, false) {
            out.write_all(b",")?;
        }
        out.write_all(b"{")?;
        for (index, (name, value)) in fields.iter().enumerate() {
            json::field(out, name, value, index == 0)?;
        }
        json::key(out, "calls", false)?;
        out.write_all(b"[")?;
        if let Some(key) = calls {
            self.calls.write(key, out)?;
        }
        out.write_all(b"]}")
    }
}

/// What was seen by calls, and what the decoy network was asked and told.
fn network(record: &EpisodeRecord, hosts: &[Value], requests: &[Value]) -> Value {
    let traffic = || record.stages.iter().filter_map(|stage| stage.traffic.as_ref());
    let talks = |wanted: Protocol| -> Vec<Value> {
        let contacts = traffic().flat_map(|traffic| &traffic.contacts).filter(|contact| contact.protocol == wanted);
        contacts.map(|contact| json!({ "dst": contact.to.ip(), "dport": contact.to.port() })).collect()
    };
    let names = || traffic().flat_map(|traffic| &traffic.names);
    let domains: Vec<Value> = names().map(|name| json!({ "domain": name.name, "ip": name.address })).collect();
    let questions: Vec<Value> = names()
        .map(|name| json!({ "request": name.name, "type": "A", "answers": [{ "type": "A", "data": name.address }] }))
        .collect();
    json!({
        "hosts": hosts, "domains": domains, "dns": questions, "tcp": talks(Protocol::Tcp), "udp": talks(Protocol::Udp),
        "http": requests, "icmp": [],
    })
}

/// The requests of HTTP that differ, each with how often it was made, and how many do not fit into the list.
fn requests(record: &EpisodeRecord) -> (Vec<Value>, u64) {
    let contacts =
        record.stages.iter().filter_map(|stage| stage.traffic.as_ref()).flat_map(|traffic| &traffic.contacts);
    let (mut counts, mut further) = (BTreeMap::<Request, u64>::new(), 0);
    for request in contacts.filter_map(Request::of) {
        if counts.len() < REQUESTS || counts.contains_key(&request) {
            *counts.entry(request).or_default() += 1;
        } else {
            further += 1;
        }
    }
    let told = counts.iter().map(|(request, count)| {
        json!({
            "count": count, "dst": request.address, "port": request.port, "host": request.host, "uri": request.uri(),
            "path": request.target, "method": request.method, "version": request.version,
            "user-agent": request.user_agent, "body": request.body, "data": request.data,
        })
    });
    (told.collect(), further)
}

fn call(record: &EpisodeRecord, event: &Event<'_>, facts: &Facts, id: u64) -> Value {
    let mut arguments = Vec::new();
    let mut add = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            arguments.push(json!({ "name": name, "value": value }));
        }
    };
    add("path", event.path.map(Value::from));
    add("path2", event.path2.map(Value::from));
    add("args", event.args.map(Value::from));
    add("peer", event.peer_addr.map(Value::from));
    add("port", event.peer_port.map(|port| Value::from(port.to_string())));
    add("bytes", event.bytes.map(|bytes| Value::from(bytes.to_string())));
    add("flags", event.flags.map(|flags| Value::from(format!("{flags:#x}"))));
    let result = event.ret.or(event.errno.map(|errno| -i64::from(errno)));
    let mut call = json!({
        "id": id,
        "timestamp": clock::cape(record.time_ms(event.stage, event.time_ns)),
        "thread_id": event.tid.or(event.pid).unwrap_or(0),
        "category": category(event.kind),
        "api": event.name,
        "status": !facts.failed,
        // Readers want a number; what is not known is 0 and said to be unknown.
        "return": result.unwrap_or(0).to_string(),
        "arguments": arguments,
        "repeated": 0,
    });
    let pretty = match (event.denied, event.errno, result) {
        (Some(true), ..) => Some("denied by the sandbox".to_owned()),
        (_, Some(errno), _) => Some(format!("error {errno}")),
        (.., None) => Some("unknown".to_owned()),
        _ => None,
    };
    if let (Some(pretty), Some(call)) = (pretty, call.as_object_mut()) {
        call.insert("pretty_return".to_owned(), pretty.into());
    }
    call
}

/// The names of CAPE for what calls are about.
const fn category(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Syscall => "system",
        EventKind::File => "filesystem",
        EventKind::Network => "network",
        EventKind::Process => "process",
        EventKind::Memory => "memory",
        EventKind::Behaviour => "misc",
    }
}

fn info(record: &EpisodeRecord) -> Value {
    let duration = record.ended_ms().saturating_sub(record.began_ms()) / 1000;
    json!({
        "version": record.version,
        "id": 0,
        "category": "file",
        "package": "bellwether",
        "started": clock::seconds(record.began_ms()),
        "ended": clock::seconds(record.ended_ms()),
        "duration": duration,
        "timeout": false,
        "machine": {
            "name": record.stages.last().map_or("", |stage| stage.host_name.as_str()),
            "label": "bellwether", "platform": "linux", "manager": "bellwether", "status": "stopped",
        },
    })
}

fn target(record: &EpisodeRecord) -> Value {
    let sample = &record.sample;
    json!({
        "name": sample.name(), "path": sample.path, "guest_paths": [], "size": sample.bytes, "type": sample.kind,
        "md5": sample.md5, "sha1": sample.sha1, "sha256": sample.sha256,
    })
}

fn described(record: &EpisodeRecord, stage: u8, process: &ProcessRecord) -> Vec<(&'static str, Value)> {
    vec![
        ("process_id", process.pid.into()),
        ("process_name", base_name(&process.program).into()),
        ("parent_id", process.ppid.unwrap_or(0).into()),
        ("module_path", process.program.as_str().into()),
        ("first_seen", clock::cape(record.time_ms(stage, Some(process.began_ns))).into()),
        ("threads", if process.threads.is_empty() { json!([process.pid]) } else { json!(process.threads) }),
        ("environ", json!({ "CommandLine": process.arguments.join(" "), "BellwetherStage": stage.to_string() })),
        ("exit_code", json!(process.exit_code)),
    ]
}

fn undescribed(record: &EpisodeRecord, (stage, pid): (u8, u32)) -> Vec<(&'static str, Value)> {
    vec![
        ("process_id", pid.into()),
        ("process_name", "unknown".into()),
        ("parent_id", 0.into()),
        ("module_path", "".into()),
        ("first_seen", clock::cape(record.time_ms(stage, None)).into()),
        ("threads", json!([pid])),
        ("environ", json!({ "BellwetherStage": stage.to_string() })),
    ]
}

/// The trees of processes, cut so that no depth of a chain meets a reader's limit: below 40 levels the rest is flat.
fn trees(record: &EpisodeRecord) -> Vec<Value> {
    record
        .stages
        .iter()
        .flat_map(|stage| {
            super::tree::Tree::of(&stage.processes).folded(40, |process, children: Vec<Value>| {
                json!({
                    "name": base_name(&process.program), "pid": process.pid, "parent_id": process.ppid.unwrap_or(0),
                    "module_path": process.program, "threads": process.threads, "environ": {}, "children": children,
                })
            })
        })
        .collect()
}

fn dropped(record: &EpisodeRecord) -> Vec<Value> {
    let files = record.stages.iter().flat_map(|stage| &stage.changes).filter(|change| change.change == Change::Created);
    files
        .map(|change| {
            json!({
                "name": [base_name(&change.path)], "path": "", "guest_paths": [change.path], "size": change.bytes,
                "sha256": change.sha256,
            })
        })
        .collect()
}

fn signature(seen: &Seen) -> Value {
    let data: Vec<Value> = seen.path.iter().map(|path| json!({ "path": path })).collect();
    json!({
        "name": seen.behaviour, "description": seen.why, "categories": [seen.technique.tactic], "severity": 2,
        "weight": 1, "confidence": 100, "references": [], "families": [], "alert": false, "ttp": [seen.technique.id],
        "data": data, "new_data": [], "count": seen.count,
    })
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("unknown")
}
