//! The columns of a batch as rows: typed access with range checks.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, StringViewArray};
use arrow_buffer::{ArrowNativeType, NullBuffer, ScalarBuffer};
use arrow_schema::{DataType, Schema};

use super::{RowFault, check_event, column, kind_from_name, label_name};
use crate::ingest::IngestError;
use crate::{EpisodeAttributes, EpisodeId, Event, Label};

/// Which columns a file has.
pub(super) struct Wanted(());

/// One batch by column.
pub(super) struct Rows {
    pub(super) episode_id: Text,
    pub(super) complete: Flag,
    stage: Number<u8>,
    seq: Number<u64>,
    kind: Text,
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
    /// Rows whose value does not fit the type, with the value.
    misfits: Vec<(usize, String)>,
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
        Ok(Rows {
            episode_id: Text::new(get(EPISODE_ID), EPISODE_ID)?,
            complete: Flag::new(get(COMPLETE)),
            stage: Number::integers::<UInt8Type>(get(STAGE)),
            seq: Number::integers::<UInt64Type>(get(SEQ)),
            kind: Text::new(get(KIND), KIND)?,
            name: Text::new(get(NAME), NAME)?,
            time_ns: Number::integers::<UInt64Type>(get(TIME_NS)),
            pid: Number::integers::<UInt32Type>(get(PID)),
            tid: Number::integers::<UInt32Type>(get(TID)),
            ppid: Number::integers::<UInt32Type>(get(PPID)),
            path: Text::new(get(PATH), PATH)?,
            path2: Text::new(get(PATH2), PATH2)?,
            args: Text::new(get(ARGS), ARGS)?,
            peer_addr: Text::new(get(PEER_ADDR), PEER_ADDR)?,
            peer_port: Number::integers::<UInt16Type>(get(PEER_PORT)),
            bytes: Number::integers::<UInt64Type>(get(BYTES)),
            entropy: Number::floats(get(ENTROPY)),
            ret: Number::integers::<Int64Type>(get(RET)),
            errno: Number::integers::<Int32Type>(get(ERRNO)),
            flags: Number::integers::<UInt32Type>(get(FLAGS)),
            created: Flag::new(get(CREATED)),
            denied: Flag::new(get(DENIED)),
            isolation: Number::integers::<UInt8Type>(get(ISOLATION)),
            raced: Flag::new(get(RACED)),
            label: Text::new(get(LABEL), LABEL)?,
            family: Text::new(get(FAMILY), FAMILY)?,
            source: Text::new(get(SOURCE), SOURCE)?,
            sample_sha256: Text::new(get(SAMPLE_SHA256), SAMPLE_SHA256)?,
        })
    }
}

impl Rows {
    /// The event of a row.
    pub(super) fn event(&self, row: usize) -> Result<Event<'_>, RowFault> {
        let kind = self.kind.get(row).ok_or(RowFault::Missing(column::KIND))?;
        let kind = kind_from_name(kind).ok_or_else(|| RowFault::UnknownKind(kind.to_owned()))?;
        let event = Event {
            stage: self.stage.get(row, column::STAGE)?.ok_or(RowFault::Missing(column::STAGE))?,
            seq: self.seq.get(row, column::SEQ)?.ok_or(RowFault::Missing(column::SEQ))?,
            time_ns: self.time_ns.get(row, column::TIME_NS)?,
            pid: self.pid.get(row, column::PID)?,
            tid: self.tid.get(row, column::TID)?,
            ppid: self.ppid.get(row, column::PPID)?,
            kind,
            name: self.name.get(row).ok_or(RowFault::Missing(column::NAME))?,
            path: self.path.get(row),
            path2: self.path2.get(row),
            args: self.args.get(row),
            peer_addr: self.peer_addr.get(row),
            peer_port: self.peer_port.get(row, column::PEER_PORT)?,
            bytes: self.bytes.get(row, column::BYTES)?,
            entropy: self.entropy.get(row, column::ENTROPY)?,
            ret: self.ret.get(row, column::RET)?,
            errno: self.errno.get(row, column::ERRNO)?,
            flags: self.flags.get(row, column::FLAGS)?,
            created: self.created.get(row),
            denied: self.denied.get(row),
            isolation: self.isolation.get(row, column::ISOLATION)?,
            raced: self.raced.get(row),
        };
        check_event(&event)?;
        Ok(event)
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

    /// The keys of the attributes of a row.
    #[inline]
    pub(super) fn attribute_keys(&self, row: usize) -> [Key; 4] {
        [self.label.key(row), self.family.key(row), self.source.key(row), self.sample_sha256.key(row)]
    }

    /// The attribute of a row that differs from those of its episode, if one does.
    pub(super) fn changed_attribute(&self, row: usize, first: &EpisodeAttributes) -> Option<&'static str> {
        let label = self.label.get(row);
        if label != first.label.map(label_name) && !(first.label.is_none() && label.is_some_and(unknown_label)) {
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

impl<T: ArrowNativeType> Number<T> {
    const NOTHING: Number<T> = Number { values: None, nulls: None, misfits: Vec::new() };

    #[inline]
    pub(super) fn get(&self, row: usize, column: &'static str) -> Result<Option<T>, RowFault> {
        let Some(values) = &self.values else { return Ok(None) };
        if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            return Ok(None);
        }
        if !self.misfits.is_empty()
            && let Some((_, value)) = self.misfits.iter().find(|(misfit, _)| *misfit == row)
        {
            return Err(RowFault::OutOfRange { column, value: value.clone(), allowed: "the range of its type" });
        }
        Ok(values.get(row).copied())
    }

    fn integers<A>(array: Option<&ArrayRef>) -> Self
    where
        A: ArrowPrimitiveType<Native = T>,
        T: TryFrom<i128> + Default,
    {
        let Some(array) = array.filter(|array| array.null_count() < array.len()) else { return Self::NOTHING };
        if let Some(own) = array.as_primitive_opt::<A>() {
            return Number { values: Some(own.values().clone()), nulls: own.nulls().cloned(), misfits: Vec::new() };
        }
        match array.data_type() {
            DataType::Int8 => Self::widened::<Int8Type>(array),
            DataType::Int16 => Self::widened::<Int16Type>(array),
            DataType::Int32 => Self::widened::<Int32Type>(array),
            DataType::Int64 => Self::widened::<Int64Type>(array),
            DataType::UInt8 => Self::widened::<UInt8Type>(array),
            DataType::UInt16 => Self::widened::<UInt16Type>(array),
            DataType::UInt32 => Self::widened::<UInt32Type>(array),
            DataType::UInt64 => Self::widened::<UInt64Type>(array),
            _ => Self::NOTHING,
        }
    }

    fn widened<B>(array: &ArrayRef) -> Self
    where
        B: ArrowPrimitiveType,
        B::Native: Into<i128>,
        T: TryFrom<i128> + Default,
    {
        let array = array.as_primitive::<B>();
        let mut misfits = Vec::new();
        let values = array.values().iter().enumerate().map(|(row, &value)| {
            let value: i128 = value.into();
            T::try_from(value).unwrap_or_else(|_| {
                if array.is_valid(row) {
                    misfits.push((row, value.to_string()));
                }
                T::default()
            })
        });
        let values: Vec<T> = values.collect();
        Number { values: Some(values.into()), nulls: array.nulls().cloned(), misfits }
    }
}

impl Number<f32> {
    fn floats(array: Option<&ArrayRef>) -> Self {
        let Some(array) = array.filter(|array| array.null_count() < array.len()) else { return Self::NOTHING };
        if let Some(own) = array.as_primitive_opt::<Float32Type>() {
            return Number { values: Some(own.values().clone()), nulls: own.nulls().cloned(), misfits: Vec::new() };
        }
        let Some(wide) = array.as_primitive_opt::<Float64Type>() else { return Self::NOTHING };
        let values: Vec<f32> = wide.values().iter().map(|&value| value as f32).collect();
        Number { values: Some(values.into()), nulls: wide.nulls().cloned(), misfits: Vec::new() }
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
    pub(super) fn key(&self, row: usize) -> Key {
        let views = self.0.as_ref()?;
        views.is_valid(row).then(|| views.views()[row])
    }

    #[inline]
    pub(super) fn get(&self, row: usize) -> Option<&str> {
        let views = self.0.as_ref()?;
        views.is_valid(row).then(|| views.value(row))
    }
}
