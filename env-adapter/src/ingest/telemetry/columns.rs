//! Columns in the making: one `Vec` per column, where a null costs a branch and an all-null column nothing.

use std::sync::Arc;

use arrow_array::types::ArrowPrimitiveType;
use arrow_array::{Array, ArrayRef, BooleanArray, PrimitiveArray, StringArray, new_null_array};
use arrow_buffer::{BooleanBufferBuilder, Buffer, NullBufferBuilder, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType};

/// The array of a batch without a single value, kept from batch to batch.
struct Nothing(Option<ArrayRef>);

impl Nothing {
    fn array(&mut self, kind: &DataType, rows: usize) -> ArrayRef {
        match &self.0 {
            Some(array) if array.len() == rows => Arc::clone(array),
            _ => Arc::clone(self.0.insert(new_null_array(kind, rows))),
        }
    }
}

/// A column of numbers. Nulls are filled in when the next value comes or the batch ends.
pub(super) struct Numbers<T: ArrowPrimitiveType> {
    values: Vec<T::Native>,
    valid: NullBufferBuilder,
    nothing: Nothing,
}

impl<T: ArrowPrimitiveType> Numbers<T> {
    pub(super) fn new() -> Self {
        Numbers { values: Vec::new(), valid: NullBufferBuilder::new(0), nothing: Nothing(None) }
    }

    #[inline]
    pub(super) fn push(&mut self, row: usize, value: Option<T::Native>) {
        if let Some(value) = value {
            self.pad(row);
            self.values.push(value);
            self.valid.append_non_null();
        }
    }

    #[inline]
    fn pad(&mut self, rows: usize) {
        let missing = rows - self.values.len();
        if missing > 0 {
            self.values.resize(rows, T::Native::default());
            self.valid.append_n_nulls(missing);
        }
    }

    pub(super) fn finish(&mut self, rows: usize) -> ArrayRef {
        if self.values.is_empty() {
            return self.nothing.array(&T::DATA_TYPE, rows);
        }
        self.pad(rows);
        let values = std::mem::replace(&mut self.values, Vec::with_capacity(rows));
        Arc::new(PrimitiveArray::<T>::new(values.into(), self.valid.finish()))
    }
}

/// A column of yes and no.
pub(super) struct Bools {
    values: BooleanBufferBuilder,
    valid: NullBufferBuilder,
    nothing: Nothing,
}

impl Bools {
    pub(super) fn new() -> Self {
        Bools { values: BooleanBufferBuilder::new(0), valid: NullBufferBuilder::new(0), nothing: Nothing(None) }
    }

    #[inline]
    pub(super) fn push(&mut self, row: usize, value: Option<bool>) {
        if let Some(value) = value {
            self.pad(row);
            self.values.append(value);
            self.valid.append_non_null();
        }
    }

    fn pad(&mut self, rows: usize) {
        let missing = rows - self.values.len();
        self.values.append_n(missing, false);
        self.valid.append_n_nulls(missing);
    }

    pub(super) fn finish(&mut self, rows: usize) -> ArrayRef {
        if self.values.is_empty() {
            return self.nothing.array(&DataType::Boolean, rows);
        }
        self.pad(rows);
        Arc::new(BooleanArray::new(self.values.finish(), self.valid.finish()))
    }
}

/// A column of text.
pub(super) struct Texts {
    ends: Vec<i32>,
    bytes: Vec<u8>,
    valid: NullBufferBuilder,
    nothing: Nothing,
}

impl Texts {
    pub(super) fn new() -> Self {
        Texts { ends: Vec::new(), bytes: Vec::new(), valid: NullBufferBuilder::new(0), nothing: Nothing(None) }
    }

    /// Bytes of text held. The writer ends a batch long before an offset could overflow.
    pub(super) fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    #[inline]
    pub(super) fn push(&mut self, row: usize, value: Option<&str>) {
        if let Some(value) = value {
            self.pad(row);
            self.bytes.extend_from_slice(value.as_bytes());
            self.ends.push(self.bytes.len() as i32);
            self.valid.append_non_null();
        }
    }

    #[inline]
    fn pad(&mut self, rows: usize) {
        let missing = rows - self.ends.len();
        if missing > 0 {
            self.ends.resize(rows, self.bytes.len() as i32);
            self.valid.append_n_nulls(missing);
        }
    }

    pub(super) fn finish(&mut self, rows: usize) -> Result<ArrayRef, ArrowError> {
        if self.ends.is_empty() {
            return Ok(self.nothing.array(&DataType::Utf8, rows));
        }
        self.pad(rows);
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        offsets.append(&mut self.ends);
        let capacity = self.bytes.len();
        let bytes = std::mem::replace(&mut self.bytes, Vec::with_capacity(capacity));
        let array = StringArray::try_new(
            OffsetBuffer::new(ScalarBuffer::from(offsets)),
            Buffer::from_vec(bytes),
            self.valid.finish(),
        )?;
        Ok(Arc::new(array))
    }
}
