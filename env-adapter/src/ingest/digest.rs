//! What an episode amounts to: its attributes and a hash of its content, for counting duplicates and for splitting.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{EpisodeAttributes, EpisodeId, Event, EventSink, Label};

/// The first 16 bytes of the SHA-256 of an episode's call names, one a line, stages apart. Two episodes with the same
/// hash made the same calls in the same order, whatever their arguments, times and labels.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash(pub [u8; 16]);

/// What an episode amounts to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpisodeDigest {
    /// Its identity.
    pub episode_id: EpisodeId,
    /// Its label.
    pub label: Option<Label>,
    /// Its family.
    pub family: Option<String>,
    /// Number of its events.
    pub events: u64,
    /// Whether its recording holds the whole run.
    pub complete: bool,
    /// Hash of its content.
    pub content: ContentHash,
}

/// Collects the digest of every episode that passes. Memory grows with episodes, not with events.
#[derive(Default)]
pub struct DigestSink {
    /// The episodes that are over, in order.
    pub episodes: Vec<EpisodeDigest>,
    open: Option<(EpisodeAttributes, ContentHasher)>,
}

/// Hashes the content of one episode.
pub(crate) struct ContentHasher {
    state: Sha256,
    /// Names that are not hashed yet: hashing a few bytes at a time costs several times as much.
    pending: Vec<u8>,
    stage: u8,
    events: u64,
}

impl ContentHasher {
    pub(crate) fn new() -> Self {
        ContentHasher { state: Sha256::new(), pending: Vec::with_capacity(PENDING_BYTES), stage: 1, events: 0 }
    }

    #[inline]
    pub(crate) fn event(&mut self, event: &Event<'_>) {
        if event.stage != self.stage {
            self.stage = event.stage;
            self.pending.extend_from_slice(&[b'#', event.stage, b'\n']);
        }
        self.pending.extend_from_slice(event.name.as_bytes());
        self.pending.push(b'\n');
        self.events += 1;
        if self.pending.len() >= PENDING_BYTES {
            self.state.update(&self.pending);
            self.pending.clear();
        }
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// The hash of the episode; the hasher is then ready for the next.
    pub(crate) fn finish(&mut self) -> ContentHash {
        self.state.update(&self.pending);
        self.pending.clear();
        self.stage = 1;
        self.events = 0;
        ContentHash(first_half(&self.state.finalize_reset()))
    }
}

const PENDING_BYTES: usize = 4096;

/// The first 16 bytes of the SHA-256 of some bytes.
pub(crate) fn short_hash(bytes: &[u8]) -> [u8; 16] {
    first_half(&Sha256::digest(bytes))
}

fn first_half(digest: &[u8]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&digest[..16]);
    half
}

impl EventSink for DigestSink {
    type Error = std::convert::Infallible;

    fn begin(&mut self, attributes: &EpisodeAttributes) -> Result<(), Self::Error> {
        self.open = Some((attributes.clone(), ContentHasher::new()));
        Ok(())
    }

    fn event(&mut self, event: &Event<'_>) -> Result<(), Self::Error> {
        if let Some((_, hasher)) = &mut self.open {
            hasher.event(event);
        }
        Ok(())
    }

    fn end(&mut self, complete: bool) -> Result<(), Self::Error> {
        if let Some((attributes, mut hasher)) = self.open.take() {
            let events = hasher.events();
            self.episodes.push(EpisodeDigest {
                episode_id: attributes.episode_id,
                label: attributes.label,
                family: attributes.family,
                events,
                complete,
                content: hasher.finish(),
            });
        }
        Ok(())
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ContentHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContentHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut hash = [0; 16];
        if text.len() != 32 || !text.is_ascii() {
            return Err(serde::de::Error::custom("a content hash has 32 hexadecimal digits"));
        }
        for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(serde::de::Error::custom)?;
            *byte = u8::from_str_radix(pair, 16).map_err(serde::de::Error::custom)?;
        }
        Ok(ContentHash(hash))
    }
}
