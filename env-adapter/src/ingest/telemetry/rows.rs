//! The columns of a batch as rows: typed access with range checks.
//!
//! Events are put together column by column, [`BLOCK`] rows at a time: what a column lacks costs nothing, and a row of
//! two dozen columns is not two dozen decisions.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, StringViewArray};
use arrow_buffer::bit_iterator::BitIndexIterator;
use arrow_buffer::{ArrowNativeType, NullBuffer, ScalarBuffer};
use arrow_schema::{DataType, Schema};

use super::{RowFault, column, kind_from_name};
use crate::ingest::IngestError;
use crate::{EpisodeAttributes, EpisodeId, Event, EventKind, Label};

/// Rows that become events at a time: few enough to stay in the nearest cache.
pub(super) const BLOCK: usize = 32;

/// An event before its columns are read. What every event needs has values here that no event may have, so that a
/// column that were forgotten could not go unnoticed.
pub(super) const BLANK: Event<'static> = Event { stage: 0, ..Event::named(0, EventKind::Syscall, "") };

/// Which columns a file has.
pub(super) struct Wanted(());

/// One batch by column.
pub(super) struct Rows {
    pub(super) episode_id: Text,
    pub(super) complete: Flag,
    /// Rows that are no events, ascending, with what is wrong with them.
    faults: Vec<(usize, RowFault)>,
    stage: Number<u8>,
    seq: Number<u64>,
    kinds: Vec<EventKind>,
    name: Text,
    time_ns: Number<u64>,
    pid: Number<u32>,
    tid: Number<u32>,
    ppid: Number<u32>,
    path: Text,
    path2: Text,
    args: Text,
    peer_addr: Text,
    peer_port: Number<u16>,
    bytes: Number<u64>,
    entropy: Number<f32>,
    ret: Number<i64>,
    errno: Number<i32>,
    flags: Number<u32>,
    created: Flag,
    denied: Flag,
    isolation: Number<u8>,
    raced: Flag,
    label: Text,
    family: Text,
    source: Text,
    sample_sha256: Text,
}

/// A column of numbers; a column that is missing or all null holds nothing.
pub(super) struct Number<T: ArrowNativeType> {
    values: Option<ScalarBuffer<T>>,
    nulls: Option<NullBuffer>,
}

/// A column of yes and no.
pub(super) struct Flag(Option<BooleanArray>);

/// A column of text.
pub(super) struct Text(Option<StringViewArray>);

/// The view of a text: within one batch, equal keys mean equal text.
pub(super) type Key = Option<u128>;

const INTEGER: &str = "an integer type";
const TEXT: &str = "text (UTF-8)";

impl Wanted {
    /// Checks that the columns every row needs are there and that all known columns have types we can read.
    pub(super) fn from_schema(schema: &Schema) -> Result<Self, IngestError> {
        use column::*;
        for required in [EPISODE_ID, STAGE, SEQ, KIND, NAME] {
            if schema.field_with_name(required).is_err() {
                return Err(IngestError::MissingColumn(required));
            }
        }
        for known in super::schema().fields() {
            let Ok(field) = schema.field_with_name(known.name()) else { continue };
            let found = field.data_type();
            let (fits, expected) = match known.data_type() {
                DataType::Utf8 => (*found == DataType::Utf8View, TEXT),
                DataType::Boolean => (*found == DataType::Boolean, "boolean"),
                DataType::Float32 => (matches!(found, DataType::Float32 | DataType::Float64), "a float type"),
                _ => (found.is_integer(), INTEGER),
            };
            // The names of our own columns are constants; find the one that this field borrows.
            if !fits {
                let column = ALL.into_iter().find(|name| name == known.name()).unwrap_or("?");
                let found = match found {
                    DataType::Utf8View => "text".to_owned(),
                    other => other.to_string(),
                };
                return Err(IngestError::ColumnType { column, found, expected });
            }
        }
        Ok(Wanted(()))
    }

    /// The columns of a batch.
    pub(super) fn rows(&self, batch: &RecordBatch) -> Result<Rows, IngestError> {
        use column::*;
        let get = |name| batch.column_by_name(name);
        let mut faults = Vec::new();
        let kinds = kinds(&Text::new(get(KIND), KIND)?, batch.num_rows(), &mut faults);
        for column in [STAGE, SEQ, NAME] {
            let nulls = get(column).and_then(|array| array.logical_nulls());
            let missing = (0..batch.num_rows()).filter(|row| nulls.as_ref().is_some_and(|nulls| nulls.is_null(*row)));
            faults.extend(missing.map(|row| (row, RowFault::Missing(column))));
        }
        let mut rows = Rows {
            episode_id: Text::new(get(EPISODE_ID), EPISODE_ID)?,
            complete: Flag::new(get(COMPLETE)),
            stage: Number::integers::<UInt8Type>(get(STAGE), STAGE, &mut faults),
            seq: Number::integers::<UInt64Type>(get(SEQ), SEQ, &mut faults),
            kinds,
            name: Text::new(get(NAME), NAME)?,
            time_ns: Number::integers::<UInt64Type>(get(TIME_NS), TIME_NS, &mut faults),
            pid: Number::integers::<UInt32Type>(get(PID), PID, &mut faults),
            tid: Number::integers::<UInt32Type>(get(TID), TID, &mut faults),
            ppid: Number::integers::<UInt32Type>(get(PPID), PPID, &mut faults),
            path: Text::new(get(PATH), PATH)?,
            path2: Text::new(get(PATH2), PATH2)?,
            args: Text::new(get(ARGS), ARGS)?,
            peer_addr: Text::new(get(PEER_ADDR), PEER_ADDR)?,
            peer_port: Number::integers::<UInt16Type>(get(PEER_PORT), PEER_PORT, &mut faults),
            bytes: Number::integers::<UInt64Type>(get(BYTES), BYTES, &mut faults),
            entropy: Number::floats(get(ENTROPY)),
            ret: Number::integers::<Int64Type>(get(RET), RET, &mut faults),
            errno: Number::integers::<Int32Type>(get(ERRNO), ERRNO, &mut faults),
            flags: Number::integers::<UInt32Type>(get(FLAGS), FLAGS, &mut faults),
            created: Flag::new(get(CREATED)),
            denied: Flag::new(get(DENIED)),
            isolation: Number::integers::<UInt8Type>(get(ISOLATION), ISOLATION, &mut faults),
            raced: Flag::new(get(RACED)),
            label: Text::new(get(LABEL), LABEL)?,
            family: Text::new(get(FAMILY), FAMILY)?,
            source: Text::new(get(SOURCE), SOURCE)?,
            sample_sha256: Text::new(get(SAMPLE_SHA256), SAMPLE_SHA256)?,
            faults: Vec::new(),
        };
        // The first fault of a row is the one that counts.
        faults.sort_by_key(|(row, _)| *row);
        faults.dedup_by_key(|(row, _)| *row);
        rows.faults = faults;
        Ok(rows)
    }
}

/// The kind of each row; a row of none, or of one that does not exist, is a fault.
fn kinds(names: &Text, rows: usize, faults: &mut Vec<(usize, RowFault)>) -> Vec<EventKind> {
    // Equal keys are equal names: the few kinds are looked at once each.
    let mut known: Vec<(Key, EventKind)> = Vec::new();
    let kind_of = |row| {
        let key = names.key(row);
        if let Some((_, kind)) = known.iter().find(|(known, _)| *known == key) {
            return *kind;
        }
        let fault = match names.get(row).map(|name| (name, kind_from_name(name))) {
            Some((_, Some(kind))) => {
                known.push((key, kind));
                return kind;
            }
            Some((name, None)) => RowFault::UnknownKind(name.to_owned()),
            None => RowFault::Missing(column::KIND),
        };
        faults.push((row, fault));
        EventKind::Syscall
    };
    (0..rows).map(kind_of).collect()
}

impl Rows {
    /// What is wrong with a row, other than values out of range.
    pub(super) fn fault(&self, row: usize) -> Option<&RowFault> {
        if self.faults.is_empty() {
            return None;
        }
        let at = self.faults.binary_search_by_key(&row, |(row, _)| *row).ok()?;
        Some(&self.faults[at].1)
    }

    /// Fills `events`, all [`BLANK`], from the rows at `first` and after it.
    pub(super) fn fill<'a>(&'a self, first: usize, events: &mut [Event<'a>]) {
        for (event, kind) in events.iter_mut().zip(&self.kinds[first..]) {
            event.kind = *kind;
        }
        self.stage.each(first, events, |event, stage| event.stage = stage);
        self.seq.each(first, events, |event, seq| event.seq = seq);
        self.name.each(first, events, |event, name| event.name = name);
        self.time_ns.each(first, events, |event, time_ns| event.time_ns = Some(time_ns));
        self.pid.each(first, events, |event, pid| event.pid = Some(pid));
        self.tid.each(first, events, |event, tid| event.tid = Some(tid));
        self.ppid.each(first, events, |event, ppid| event.ppid = Some(ppid));
        self.path.each(first, events, |event, path| event.path = Some(path));
        self.path2.each(first, events, |event, path2| event.path2 = Some(path2));
        self.args.each(first, events, |event, args| event.args = Some(args));
        self.peer_addr.each(first, events, |event, peer_addr| event.peer_addr = Some(peer_addr));
        self.peer_port.each(first, events, |event, peer_port| event.peer_port = Some(peer_port));
        self.bytes.each(first, events, |event, bytes| event.bytes = Some(bytes));
        self.entropy.each(first, events, |event, entropy| event.entropy = Some(entropy));
        self.ret.each(first, events, |event, ret| event.ret = Some(ret));
        self.errno.each(first, events, |event, errno| event.errno = Some(errno));
        self.flags.each(first, events, |event, flags| event.flags = Some(flags));
        self.created.each(first, events, |event, created| event.created = Some(created));
        self.denied.each(first, events, |event, denied| event.denied = Some(denied));
        self.isolation.each(first, events, |event, isolation| event.isolation = Some(isolation));
        self.raced.each(first, events, |event, raced| event.raced = Some(raced));
    }

    /// For each row, whether an attribute may differ from the row before; `true` for the first one.
    pub(super) fn attribute_changes(&self) -> Vec<bool> {
        let mut changes = vec![false; self.kinds.len()];
        for text in [&self.label, &self.family, &self.source, &self.sample_sha256] {
            text.mark_changes(&mut changes);
        }
        changes
    }

    /// The attributes in a row, and what is wrong with them. A label that does not exist reads as none.
    pub(super) fn attributes(&self, row: usize, episode_id: EpisodeId) -> (EpisodeAttributes, Option<RowFault>) {
        let (label, fault) = match self.label.get(row) {
            None => (None, None),
            Some("benign") => (Some(Label::Benign), None),
            Some("malicious") => (Some(Label::Malicious), None),
            Some(other) => (None, Some(RowFault::UnknownLabel(other.to_owned()))),
        };
        let attributes = EpisodeAttributes {
            episode_id,
            label,
            family: self.family.get(row).map(str::to_owned),
            source: self.source.get(row).map(str::to_owned),
            sample_sha256: self.sample_sha256.get(row).map(str::to_owned),
            complete: self.complete.get(row).unwrap_or(true),
        };
        (attributes, fault)
    }

    /// The attribute of a row that differs from those of its episode, if one does.
    pub(super) fn changed_attribute(&self, row: usize, first: &EpisodeAttributes) -> Option<&'static str> {
        let label = self.label.get(row);
        if label != first.label.map(Label::name) && !(first.label.is_none() && label.is_some_and(unknown_label)) {
            return Some(column::LABEL);
        }
        let pairs = [
            (&self.family, &first.family, column::FAMILY),
            (&self.source, &first.source, column::SOURCE),
            (&self.sample_sha256, &first.sample_sha256, column::SAMPLE_SHA256),
        ];
        pairs.into_iter().find(|(text, first, _)| text.get(row) != first.as_deref()).map(|(_, _, column)| column)
    }
}

fn unknown_label(name: &str) -> bool {
    name != "benign" && name != "malicious"
}

/// The rows that `nulls` leaves of the `count` rows from `first`, counted from `first`.
fn present(nulls: &NullBuffer, first: usize, count: usize) -> BitIndexIterator<'_> {
    BitIndexIterator::new(nulls.validity(), nulls.offset() + first, count)
}

impl<T: ArrowNativeType> Number<T> {
    const NOTHING: Number<T> = Number { values: None, nulls: None };

    /// Sets the numbers of the rows at `first` and after it that have one.
    #[inline]
    fn each<'a>(&self, first: usize, events: &mut [Event<'a>], set: impl Fn(&mut Event<'a>, T)) {
        let Some(values) = &self.values else { return };
        let values = &values[first..first + events.len()];
        match &self.nulls {
            None => events.iter_mut().zip(values).for_each(|(event, value)| set(event, *value)),
            Some(nulls) => present(nulls, first, values.len()).for_each(|at| set(&mut events[at], values[at])),
        }
    }

    /// A column of integers of any width. What does not fit `T` is a fault.
    fn integers<A>(array: Option<&ArrayRef>, column: &'static str, faults: &mut Vec<(usize, RowFault)>) -> Self
    where
        A: ArrowPrimitiveType<Native = T>,
        T: TryFrom<i128> + Default,
    {
        let Some(array) = array.filter(|array| array.null_count() < array.len()) else { return Self::NOTHING };
        if let Some(own) = array.as_primitive_opt::<A>() {
            return Number { values: Some(own.values().clone()), nulls: own.nulls().cloned() };
        }
        let misfit = |row: usize, value: i128| {
            let fault = RowFault::OutOfRange { column, value: value.to_string(), allowed: "the range of its type" };
            faults.push((row, fault));
        };
        match array.data_type() {
            DataType::Int8 => Self::widened::<Int8Type>(array, misfit),
            DataType::Int16 => Self::widened::<Int16Type>(array, misfit),
            DataType::Int32 => Self::widened::<Int32Type>(array, misfit),
            DataType::Int64 => Self::widened::<Int64Type>(array, misfit),
            DataType::UInt8 => Self::widened::<UInt8Type>(array, misfit),
            DataType::UInt16 => Self::widened::<UInt16Type>(array, misfit),
            DataType::UInt32 => Self::widened::<UInt32Type>(array, misfit),
            DataType::UInt64 => Self::widened::<UInt64Type>(array, misfit),
            _ => Self::NOTHING,
        }
    }

    fn widened<B>(array: &ArrayRef, mut misfit: impl FnMut(usize, i128)) -> Self
    where
        B: ArrowPrimitiveType,
        B::Native: Into<i128>,
        T: TryFrom<i128> + Default,
    {
        let array = array.as_primitive::<B>();
        let values = array.values().iter().enumerate().map(|(row, &value)| {
            let value: i128 = value.into();
            T::try_from(value).unwrap_or_else(|_| {
                if array.is_valid(row) {
                    misfit(row, value);
                }
                T::default()
            })
        });
        let values: Vec<T> = values.collect();
        Number { values: Some(values.into()), nulls: array.nulls().cloned() }
    }
}

impl Number<f32> {
    fn floats(array: Option<&ArrayRef>) -> Self {
        let Some(array) = array.filter(|array| array.null_count() < array.len()) else { return Self::NOTHING };
        if let Some(own) = array.as_primitive_opt::<Float32Type>() {
            return Number { values: Some(own.values().clone()), nulls: own.nulls().cloned() };
        }
        let Some(wide) = array.as_primitive_opt::<Float64Type>() else { return Self::NOTHING };
        let values: Vec<f32> = wide.values().iter().map(|&value| value as f32).collect();
        Number { values: Some(values.into()), nulls: wide.nulls().cloned() }
    }
}

impl Flag {
    fn new(array: Option<&ArrayRef>) -> Self {
        let array = array.filter(|array| array.null_count() < array.len());
        Flag(array.and_then(|array| array.as_boolean_opt()).cloned())
    }

    #[inline]
    pub(super) fn get(&self, row: usize) -> Option<bool> {
        let array = self.0.as_ref()?;
        array.is_valid(row).then(|| array.value(row))
    }

    /// Sets the answers of the rows at `first` and after it that have one.
    #[inline]
    fn each<'a>(&self, first: usize, events: &mut [Event<'a>], set: impl Fn(&mut Event<'a>, bool)) {
        let Some(array) = &self.0 else { return };
        for (at, event) in events.iter_mut().enumerate() {
            if array.is_valid(first + at) {
                set(event, array.value(first + at));
            }
        }
    }
}

impl Text {
    fn new(array: Option<&ArrayRef>, column: &'static str) -> Result<Self, IngestError> {
        let Some(array) = array.filter(|array| array.null_count() < array.len()) else { return Ok(Text(None)) };
        let Some(views) = array.as_string_view_opt() else {
            return Err(IngestError::ColumnType { column, found: array.data_type().to_string(), expected: TEXT });
        };
        Ok(Text(Some(views.clone())))
    }

    /// The key of the text in a row, none for null.
    #[inline]
    fn key(&self, row: usize) -> Key {
        let views = self.0.as_ref()?;
        views.is_valid(row).then(|| views.views()[row])
    }

    #[inline]
    pub(super) fn get(&self, row: usize) -> Option<&str> {
        let views = self.0.as_ref()?;
        views.is_valid(row).then(|| views.value(row))
    }

    /// Sets the texts of the rows at `first` and after it that have one.
    #[inline]
    fn each<'a>(&'a self, first: usize, events: &mut [Event<'a>], set: impl Fn(&mut Event<'a>, &'a str)) {
        let Some(views) = &self.0 else { return };
        match views.nulls() {
            None => events.iter_mut().enumerate().for_each(|(at, event)| set(event, views.value(first + at))),
            Some(nulls) => {
                present(nulls, first, events.len()).for_each(|at| set(&mut events[at], views.value(first + at)))
            }
        }
    }

    /// Marks the rows whose text may differ from that of the row before, and the first one.
    pub(super) fn mark_changes(&self, changes: &mut [bool]) {
        if let Some(first) = changes.first_mut() {
            *first = true;
        }
        let Some(views) = &self.0 else { return };
        for (change, keys) in changes.iter_mut().skip(1).zip(views.views().windows(2)) {
            *change |= keys[0] != keys[1];
        }
        if views.nulls().is_some() {
            for (row, change) in changes.iter_mut().enumerate().skip(1) {
                *change |= views.is_null(row) != views.is_null(row - 1);
            }
        }
    }
}
