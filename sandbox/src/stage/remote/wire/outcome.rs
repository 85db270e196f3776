//! Outcomes.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::{WireError, action, hash, known, level, number, present, stage};
use crate::cage::{Changes, Found, Kind, LeftOut, Pressure};
use crate::network::{Contact, Lookup, Protocol, Traffic};
use crate::stage::remote::proto;
use crate::stage::{Ended, Fault, Outcome};
use crate::tracer;

/// How a run ended.
pub(in super::super) fn outcome_message(outcome: &Outcome) -> proto::Outcome {
    let close = outcome.verdict_at.map_or(proto::Close::Unspecified, proto::Close::from);
    let dead = outcome.dead.map_or(proto::Proof::Unspecified, proto::Proof::from);
    let (code, signal) = match outcome.ended {
        Ended::Exited { code } => (Some(code), None),
        Ended::Killed { signal } => (None, Some(signal)),
        Ended::Unknown => (None, None),
    };
    proto::Outcome {
        stage: u32::from(outcome.stage),
        verdict: outcome.verdict.map(number),
        verdict_at: close.into(),
        ended: Some(proto::Ended { code, signal }),
        ends: outcome.ends.clone(),
        level: u32::from(outcome.level),
        events: outcome.events,
        denied: outcome.denied,
        undecided: outcome.undecided,
        refused: outcome.refused.clone(),
        windows: outcome.windows,
        most_tasks: outcome.most_tasks,
        run_ms: outcome.run_ms,
        dead: dead.into(),
        changes: outcome.changes.as_ref().map(changes_message),
        faults: outcome.faults.iter().map(fault_message).collect(),
        host_name: outcome.host_name.clone(),
        skipped_ms: outcome.skipped_ms,
        traffic: outcome.traffic.as_ref().map(traffic_message),
        lacking: outcome.lacking.clone(),
        io: Some(io_message(&outcome.io)),
        pressure: outcome.pressure.as_ref().map(pressure_message),
    }
}

fn io_message(io: &tracer::Traffic) -> proto::Io {
    let tracer::Traffic { read_bytes, written_bytes, reads, writes } = *io;
    proto::Io { read_bytes, written_bytes, reads, writes }
}

fn io(message: proto::Io) -> tracer::Traffic {
    let proto::Io { read_bytes, written_bytes, reads, writes } = message;
    tracer::Traffic { read_bytes, written_bytes, reads, writes }
}

fn pressure_message(pressure: &Pressure) -> proto::Pressure {
    let Pressure { refused_forks, out_of_memory_kills, peak_memory_bytes } = *pressure;
    proto::Pressure { refused_forks, out_of_memory_kills, peak_memory_bytes }
}

fn pressure(message: proto::Pressure) -> Pressure {
    let proto::Pressure { refused_forks, out_of_memory_kills, peak_memory_bytes } = message;
    Pressure { refused_forks, out_of_memory_kills, peak_memory_bytes }
}

/// How a stage says that a run ended.
pub(in super::super) fn outcome(message: proto::Outcome) -> Result<Outcome, WireError> {
    let ended = present("ended", message.ended)?;
    let ended = match (ended.code, ended.signal) {
        (Some(code), None) => Ended::Exited { code },
        (None, Some(signal)) => Ended::Killed { signal },
        (None, None) => Ended::Unknown,
        (Some(_), Some(_)) => return Err(WireError::new("ended", "give one of code and signal")),
    };
    let told = |number: i32| (number != 0).then_some(number);
    Ok(Outcome {
        stage: stage("stage", message.stage)?,
        verdict: message.verdict.map(|verdict| action("verdict", verdict)).transpose()?,
        verdict_at: told(message.verdict_at).map(|close| known::<proto::Close, _>("verdict_at", close)).transpose()?,
        ended,
        ends: message.ends,
        level: level("level", message.level)?,
        events: message.events,
        denied: message.denied,
        undecided: message.undecided,
        refused: message.refused,
        windows: message.windows,
        most_tasks: message.most_tasks,
        run_ms: message.run_ms,
        dead: told(message.dead).map(|proof| known::<proto::Proof, _>("dead", proof)).transpose()?,
        changes: message.changes.map(changes).transpose()?,
        host_name: message.host_name,
        skipped_ms: message.skipped_ms,
        traffic: message.traffic.map(traffic).transpose()?,
        lacking: message.lacking,
        io: io(message.io.unwrap_or_default()),
        pressure: message.pressure.map(pressure),
        faults: message.faults.into_iter().map(fault).collect::<Result<_, _>>()?,
    })
}

fn changes_message(changes: &Changes) -> proto::Changes {
    let found = |found: &Found| proto::Found {
        path: found.path.clone(),
        kind: match found.kind {
            Kind::File => proto::FileKind::File,
            Kind::Link => proto::FileKind::Link,
            Kind::Special => proto::FileKind::Special,
        }
        .into(),
        bytes: found.bytes,
        mode: found.mode,
        sha256: found.sha256.map(|hash| hash.as_bytes().to_vec()).unwrap_or_default(),
    };
    proto::Changes {
        created: changes.created.iter().map(found).collect(),
        changed: changes.changed.iter().map(found).collect(),
        deleted: changes.deleted.clone(),
        too_deep: changes.left_out.too_deep,
        unreadable: changes.left_out.unreadable,
        beyond: changes.left_out.beyond,
    }
}

fn changes(message: proto::Changes) -> Result<Changes, WireError> {
    let found = |found: proto::Found| {
        Ok(Found {
            kind: match found.kind() {
                proto::FileKind::File => Kind::File,
                proto::FileKind::Link => Kind::Link,
                proto::FileKind::Special => Kind::Special,
                proto::FileKind::Unspecified => return Err(WireError::new("kind", "it is missing, or not known")),
            },
            path: found.path,
            bytes: found.bytes,
            mode: found.mode,
            sha256: (!found.sha256.is_empty()).then(|| hash("sha256", &found.sha256)).transpose()?,
            content: None,
        })
    };
    Ok(Changes {
        created: message.created.into_iter().map(found).collect::<Result<_, _>>()?,
        changed: message.changed.into_iter().map(found).collect::<Result<_, _>>()?,
        deleted: message.deleted,
        left_out: LeftOut { too_deep: message.too_deep, unreadable: message.unreadable, beyond: message.beyond },
    })
}

fn traffic_message(traffic: &Traffic) -> proto::Traffic {
    let contact = |contact: &Contact| proto::Contact {
        udp: contact.protocol == Protocol::Udp,
        address: contact.to.ip().to_bits(),
        port: u32::from(contact.to.port()),
        sent_bytes: contact.sent_bytes,
        received_bytes: contact.received_bytes,
        first: contact.first.clone(),
    };
    let lookup = |lookup: &Lookup| proto::Lookup { name: lookup.name.clone(), address: lookup.address.to_bits() };
    proto::Traffic {
        contacts: traffic.contacts.iter().map(contact).collect(),
        names: traffic.names.iter().map(lookup).collect(),
        left_out: traffic.left_out,
    }
}

fn traffic(message: proto::Traffic) -> Result<Traffic, WireError> {
    let contact = |contact: proto::Contact| {
        let port = u16::try_from(contact.port).map_err(|error| WireError::new("port", error))?;
        Ok(Contact {
            protocol: if contact.udp { Protocol::Udp } else { Protocol::Tcp },
            to: SocketAddrV4::new(Ipv4Addr::from_bits(contact.address), port),
            sent_bytes: contact.sent_bytes,
            received_bytes: contact.received_bytes,
            first: contact.first,
        })
    };
    let lookup = |lookup: proto::Lookup| Lookup { name: lookup.name, address: Ipv4Addr::from_bits(lookup.address) };
    Ok(Traffic {
        contacts: message.contacts.into_iter().map(contact).collect::<Result<_, _>>()?,
        names: message.names.into_iter().map(lookup).collect(),
        left_out: message.left_out,
    })
}

fn fault_message(fault: &Fault) -> proto::Fault {
    use proto::fault::Fault as Theirs;
    let fault = match fault {
        Fault::NotStarted { why } => Theirs::NotStarted(why.clone()),
        Fault::Tracer { why } => Theirs::Tracer(why.clone()),
        Fault::Recorder => Theirs::Recorder(proto::Recorder {}),
        Fault::Action { action, why } => {
            Theirs::Action(proto::FailedAction { action: number(*action), why: why.clone() })
        }
        Fault::Answer { why } => Theirs::Answer(proto::Refusal::from(*why).into()),
        Fault::Alive { why } => Theirs::Alive(why.clone()),
        Fault::Abandoned { why } => Theirs::Abandoned(why.clone()),
        Fault::Lost { why } => Theirs::Lost(why.clone()),
    };
    proto::Fault { fault: Some(fault) }
}

fn fault(message: proto::Fault) -> Result<Fault, WireError> {
    use proto::fault::Fault as Theirs;
    Ok(match present("fault", message.fault)? {
        Theirs::NotStarted(why) => Fault::NotStarted { why },
        Theirs::Tracer(why) => Fault::Tracer { why },
        Theirs::Recorder(proto::Recorder {}) => Fault::Recorder,
        Theirs::Action(proto::FailedAction { action: number, why }) => {
            Fault::Action { action: action("action", number)?, why }
        }
        Theirs::Answer(why) => Fault::Answer { why: known::<proto::Refusal, _>("answer", why)? },
        Theirs::Alive(why) => Fault::Alive { why },
        Theirs::Abandoned(why) => Fault::Abandoned { why },
        Theirs::Lost(why) => Fault::Lost { why },
    })
}
