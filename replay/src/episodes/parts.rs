//! A sequence of episode files, so that a killed process loses little.

use super::{EpisodeFileHeader, EpisodeWriter, Step, Written};
use crate::ReplayError;
use std::io::{self, Write};

/// Where the parts of a recording go. The caller names them and makes them durable; this crate opens no file.
pub trait Parts {
    /// What a part is written to.
    type Writer: Write + Send;
    /// Opens part `part`, numbered from 0.
    ///
    /// # Errors
    /// Whatever the caller's storage says.
    fn open(&mut self, part: u32) -> io::Result<Self::Writer>;
    /// Puts a part that is complete where readers find it: this is the place to sync and to rename.
    ///
    /// # Errors
    /// Whatever the caller's storage says.
    fn close(&mut self, part: u32, writer: Self::Writer, written: Written) -> io::Result<()>;
}

/// Writes episodes into a sequence of files, each of a given number of episodes.
///
/// A Parquet file has its footer at the end, so a file that a killed process was writing cannot be read. With parts, all
/// that was closed before remains readable: with 1 episode per part nothing but the episode under way is at stake; the
/// larger the parts, the fewer the files.
pub struct EpisodeParts<P: Parts> {
    parts: P,
    header: EpisodeFileHeader,
    episodes_per_part: u64,
    part: u32,
    writer: Option<EpisodeWriter<P::Writer>>,
    closed: Written,
}

impl<P: Parts> EpisodeParts<P> {
    /// Starts a recording; the first part is opened with the first step.
    ///
    /// # Errors
    /// [`ReplayError::Setting`] if a part is to have no episode, or on a header out of range.
    pub fn new(parts: P, header: EpisodeFileHeader, episodes_per_part: u64) -> Result<Self, ReplayError> {
        header.check()?;
        if episodes_per_part == 0 {
            let reason = "a part holds at least one episode";
            return Err(ReplayError::Setting { key: "episodes_per_part", value: "0".into(), reason });
        }
        Ok(EpisodeParts { parts, header, episodes_per_part, part: 0, writer: None, closed: Written::default() })
    }

    /// Writes the next step; with the end of an episode that fills its part, the part is closed at once.
    ///
    /// # Errors
    /// As [`EpisodeWriter::write`], and what [`Parts`] says.
    pub fn write(&mut self, step: &Step<'_>) -> Result<(), ReplayError> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => {
                let opened =
                    self.parts.open(self.part).map_err(|cause| ReplayError::Io { action: "open a part", cause })?;
                none.insert(EpisodeWriter::new(opened, self.header.clone())?)
            }
        };
        writer.write(step)?;
        self.close_full()
    }

    /// Breaks off the episode that is under way, as [`EpisodeWriter::break_off`] does.
    ///
    /// # Errors
    /// What [`Parts`] says when the part is closed.
    pub fn break_off(&mut self) -> Result<bool, ReplayError> {
        let broken = self.writer.as_mut().is_some_and(EpisodeWriter::break_off);
        self.close_full()?;
        Ok(broken)
    }

    /// Number of parts that are closed, and so readable whatever happens next.
    pub fn closed_parts(&self) -> usize {
        self.part as usize
    }

    /// Closes the last part, and gives back the parts and what all of them hold. An episode under way is broken off.
    ///
    /// # Errors
    /// What [`Parts`] says.
    pub fn finish(mut self) -> Result<(P, Written), ReplayError> {
        self.close()?;
        Ok((self.parts, self.closed))
    }

    fn close_full(&mut self) -> Result<(), ReplayError> {
        let full = |writer: &EpisodeWriter<_>| !writer.is_open() && writer.written().episodes >= self.episodes_per_part;
        if self.writer.as_ref().is_some_and(full) { self.close() } else { Ok(()) }
    }

    fn close(&mut self) -> Result<(), ReplayError> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let (writer, written) = writer.finish()?;
        let closed = self.parts.close(self.part, writer, written);
        closed.map_err(|cause| ReplayError::Io { action: "close a part", cause })?;
        self.part += 1;
        self.closed.episodes += written.episodes;
        self.closed.steps += written.steps;
        self.closed.partial += written.partial;
        Ok(())
    }
}

impl<P: Parts> std::fmt::Debug for EpisodeParts<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EpisodeParts").field("part", &self.part).field("closed", &self.closed).finish_non_exhaustive()
    }
}
