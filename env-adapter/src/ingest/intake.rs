//! The way of every event from a reader to its sink: ranges checked, text redacted, everything counted.

use super::digest::{ContentHasher, EpisodeDigest};
use super::telemetry::{RowFault, check_event, is_valid};
use super::{IngestError, QualityReport};
use crate::redact::Redactor;
use crate::sensor::clipped;
use crate::{EpisodeAttributes, Event, EventSink};

/// Stands between a reader and a sink.
pub(crate) struct Intake<'a, S: ?Sized> {
    sink: &'a mut S,
    pub(crate) report: &'a mut QualityReport,
    redactor: Option<&'a Redactor>,
    args_bytes: usize,
    hasher: ContentHasher,
    episode: Option<EpisodeAttributes>,
    last: Option<(u8, u64)>,
    texts: [String; 4],
}

impl<'a, S: EventSink + ?Sized> Intake<'a, S> {
    pub(crate) fn new(sink: &'a mut S, report: &'a mut QualityReport, redactor: Option<&'a Redactor>) -> Self {
        Intake {
            sink,
            report,
            redactor,
            args_bytes: usize::MAX,
            hasher: ContentHasher::new(),
            episode: None,
            last: None,
            texts: std::array::from_fn(|_| String::new()),
        }
    }

    /// Keeps at most so many bytes of `args`. They are cut after redaction: half an address is no address to it.
    pub(crate) fn clipping_args(self, bytes: usize) -> Self {
        Intake { args_bytes: bytes, ..self }
    }

    /// Begins an episode; false if its id was met before, and its events are to be left out.
    pub(crate) fn begin(&mut self, attributes: &EpisodeAttributes) -> Result<bool, IngestError> {
        if !self.report.admit(&attributes.episode_id.0) {
            return Ok(false);
        }
        self.sink.begin(attributes).map_err(IngestError::from_sink)?;
        self.episode = Some(attributes.clone());
        self.last = None;
        Ok(true)
    }

    /// Hands on the next event of the episode. What breaks a rule of the format comes back as a fault, uncounted, and
    /// has not been handed on.
    #[inline]
    pub(crate) fn event(&mut self, event: &Event<'_>) -> Result<Option<RowFault>, IngestError> {
        if !is_valid(event) {
            return Ok(check_event(event).err());
        }
        let here = (event.stage, event.seq);
        if self.last.is_some_and(|last| here <= last) {
            return Ok(Some(RowFault::OutOfOrder));
        }
        self.last = Some(here);
        self.hasher.event(event);
        let texts = [event.path, event.path2, event.args, event.peer_addr];
        match self.redactor {
            Some(redactor) if texts.iter().any(Option::is_some) => {
                let tally = &mut self.report.redacted;
                let mut buffers = self.texts.iter_mut();
                let [path, path2, args, peer_addr] = texts.map(|text| {
                    let (text, into) = (text?, buffers.next()?);
                    Some(redactor.redact_with(text, into, |kind| tally.add(kind.name(), 1)))
                });
                let args = args.map(|args| clipped(args, self.args_bytes));
                let redacted = Event { path, path2, args, peer_addr, ..*event };
                self.sink.event(&redacted).map_err(IngestError::from_sink)?;
            }
            _ => {
                let args = event.args.map(|args| clipped(args, self.args_bytes));
                self.sink.event(&Event { args, ..*event }).map_err(IngestError::from_sink)?;
            }
        }
        Ok(None)
    }

    /// Ends the episode.
    pub(crate) fn end(&mut self, complete: bool) -> Result<(), IngestError> {
        let Some(attributes) = self.episode.take() else { return Ok(()) };
        self.sink.end(complete).map_err(IngestError::from_sink)?;
        let events = self.hasher.events();
        let content = self.hasher.finish();
        let EpisodeAttributes { episode_id, label, family, .. } = attributes;
        self.report.observe(&EpisodeDigest { episode_id, label, family, events, complete, content });
        Ok(())
    }
}
