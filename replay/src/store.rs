//! States, each stored once: in memory up to a budget, beyond it in a file without a name.

use crate::StateRows;
use crate::error::{ReplayError, all_finite};
use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::OnceLock;

/// How a row is laid out in the store. Both give back every bit of what was stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// All values: 4 bytes per element. Right for small or full rows.
    Dense,
    /// The elements that are not +0 with their positions: 2 bytes per row and 6 per such element, and 8 bytes of index.
    /// Right where less than two thirds of the elements are set.
    #[default]
    Sparse,
}

/// What a [`StateStore`] is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// Elements per row, 1 to [`StateStore::MAX_WIDTH`].
    pub width: usize,
    /// Layout of the rows.
    pub encoding: Encoding,
    /// Bytes of rows and index that stay in memory; what comes later goes to the spill file. The two newest blocks of
    /// 1 MiB and the index stay in memory whatever the budget.
    pub memory_bytes: usize,
    /// Folder of the spill file; the system's temporary folder if absent. The file has no name and goes with the process.
    pub spill_folder: Option<PathBuf>,
}

/// Rows of a fixed width that only grow: appended by one owner, read by any number of threads.
///
/// ```
/// use bellwether_replay::{Encoding, StateRows, StateStore, StoreConfig};
/// let config = StoreConfig { width: 3, encoding: Encoding::Sparse, memory_bytes: 1 << 24, spill_folder: None };
/// let mut store = StateStore::new(config)?;
/// let row = store.append(&[0.0, 0.5, 0.0])?;
/// let mut out = [9.0; 3];
/// store.gather(row as usize, &mut out);
/// assert_eq!(out, [0.0, 0.5, 0.0]);
/// # Ok::<(), bellwether_replay::ReplayError>(())
/// ```
#[derive(Debug)]
pub struct StateStore {
    config: StoreConfig,
    rows: u32,
    /// Closed blocks that stayed in memory: blocks 0, 1, ...
    kept: Vec<Vec<u8>>,
    /// The block that is being filled; its number is that of the closed blocks.
    open: Vec<u8>,
    /// Closed blocks beyond the budget: they follow the kept ones.
    spill: Option<Spill>,
    /// For sparse rows, the address of each row's end: `block * BLOCK_BYTES + offset`.
    ends: Vec<u64>,
    /// The first read that failed inside [`StateRows::gather`], which cannot return it.
    failure: OnceLock<ReplayError>,
}

#[derive(Debug)]
struct Spill {
    file: File,
    folder: PathBuf,
    blocks: u64,
}

/// Rows never straddle a block, so a block is read, kept and spilled as one.
const BLOCK_BYTES: usize = 1 << 20;

thread_local! {
    static SPILLED_ROW: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl StateStore {
    /// The widest row: positions are 16 bits.
    pub const MAX_WIDTH: usize = u16::MAX as usize;

    /// An empty store. Nothing is written to disk before the budget is used up.
    ///
    /// # Errors
    /// [`ReplayError::Setting`] on a width out of range.
    pub fn new(config: StoreConfig) -> Result<Self, ReplayError> {
        if config.width == 0 || config.width > Self::MAX_WIDTH {
            return Err(ReplayError::Setting {
                key: "width",
                value: config.width.to_string(),
                reason: "a state has 1 to 65,535 elements",
            });
        }
        Ok(StateStore {
            config,
            rows: 0,
            kept: Vec::new(),
            open: Vec::new(),
            spill: None,
            ends: Vec::new(),
            failure: OnceLock::new(),
        })
    }

    /// Stores a row and gives its number: 0, 1, 2, ...
    ///
    /// # Errors
    /// On a row of another width, on values that are not finite, and where the spill file cannot take a block (a full
    /// disk). The store is then as it was, and the row can be appended again.
    pub fn append(&mut self, row: &[f32]) -> Result<u32, ReplayError> {
        if row.len() != self.config.width {
            return Err(ReplayError::Width { what: "a state", expected: self.config.width, found: row.len() });
        }
        all_finite("a state", row)?;
        if self.rows == u32::MAX {
            return Err(ReplayError::Full);
        }
        let stored = |v: &&f32| v.to_bits() != 0;
        let bytes = match self.config.encoding {
            Encoding::Dense => row.len() * 4,
            Encoding::Sparse => 2 + 6 * row.iter().filter(stored).count(),
        };
        if self.open.len() + bytes > BLOCK_BYTES {
            self.close_block()?;
        }
        let start = self.open.len();
        self.open.resize(start + bytes, 0);
        let encoded = &mut self.open[start..];
        match self.config.encoding {
            Encoding::Dense => {
                for (bytes, value) in encoded.as_chunks_mut::<4>().0.iter_mut().zip(row) {
                    *bytes = value.to_le_bytes();
                }
            }
            Encoding::Sparse => {
                let set = bytes / 6;
                let (count, encoded) = encoded.split_at_mut(2);
                count.copy_from_slice(&(set as u16).to_le_bytes());
                let (positions, values) = encoded.split_at_mut(set * 2);
                let places = positions.as_chunks_mut::<2>().0.iter_mut().zip(values.as_chunks_mut::<4>().0);
                let elements = row.iter().enumerate().filter(|(_, value)| stored(value));
                for ((position_bytes, value_bytes), (position, value)) in places.zip(elements) {
                    *position_bytes = (position as u16).to_le_bytes();
                    *value_bytes = value.to_le_bytes();
                }
                self.ends.push(self.closed_blocks() * BLOCK_BYTES as u64 + self.open.len() as u64);
            }
        }
        self.rows += 1;
        Ok(self.rows - 1)
    }

    /// Writes row `row` into `out`.
    ///
    /// # Errors
    /// [`ReplayError::Spill`] where the spill file cannot be read.
    ///
    /// # Panics
    /// If `row` is out of range or `out` has another length than the width.
    pub fn read(&self, row: u32, out: &mut [f32]) -> Result<(), ReplayError> {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        assert_eq!(out.len(), self.config.width, "a row has the width of the store");
        let (block, start, bytes) = self.place(row);
        let kept = self.kept.len() as u64;
        let block_bytes = if block < kept {
            &self.kept[block as usize]
        } else if let Some(spill) = self.spill.as_ref().filter(|spill| block - kept < spill.blocks) {
            return spill.read((block - kept) * BLOCK_BYTES as u64 + start as u64, bytes, |encoded| {
                decode(self.config.encoding, encoded, out);
            });
        } else {
            &self.open
        };
        decode(self.config.encoding, &block_bytes[start..start + bytes], out);
        Ok(())
    }

    /// The first row that [`StateRows::gather`] could not read, if there was one. It was given as not-a-number
    /// throughout, which a learner refuses; whoever sees that refusal finds the cause here.
    pub fn failure(&self) -> Option<&ReplayError> {
        self.failure.get()
    }

    /// Bytes of memory that rows and index take now.
    pub fn memory_bytes(&self) -> usize {
        self.kept.iter().map(Vec::capacity).sum::<usize>() + self.open.capacity() + self.ends.capacity() * 8
    }

    /// Bytes on disk that the spill file takes now.
    pub fn spilled_bytes(&self) -> u64 {
        self.spill.as_ref().map_or(0, |spill| spill.blocks * BLOCK_BYTES as u64)
    }

    /// What the store is made of.
    pub fn config(&self) -> &StoreConfig {
        &self.config
    }

    fn closed_blocks(&self) -> u64 {
        self.kept.len() as u64 + self.spill.as_ref().map_or(0, |spill| spill.blocks)
    }

    /// Block, offset and length of a row.
    fn place(&self, row: u32) -> (u64, usize, usize) {
        match self.config.encoding {
            Encoding::Dense => {
                let bytes = self.config.width * 4;
                let per_block = (BLOCK_BYTES / bytes) as u32;
                (u64::from(row / per_block), (row % per_block) as usize * bytes, bytes)
            }
            Encoding::Sparse => {
                let end = self.ends[row as usize];
                let block = (end - 1) / BLOCK_BYTES as u64;
                // The first row of a block begins with it; any other where the row before ends.
                let start = row.checked_sub(1).map_or(0, |before| self.ends[before as usize]);
                let start = start.max(block * BLOCK_BYTES as u64);
                (block, (start % BLOCK_BYTES as u64) as usize, (end - start) as usize)
            }
        }
    }

    /// Moves the full block to where it stays. On an error it remains the open one.
    fn close_block(&mut self) -> Result<(), ReplayError> {
        let index = self.ends.capacity() * 8;
        if self.spill.is_none() && (self.kept.len() + 2) * BLOCK_BYTES + index <= self.config.memory_bytes {
            let next = Vec::with_capacity(BLOCK_BYTES);
            self.kept.push(std::mem::replace(&mut self.open, next));
            return Ok(());
        }
        let spill = match &mut self.spill {
            Some(spill) => spill,
            none => none.insert(Spill::new(self.config.spill_folder.clone())?),
        };
        spill.file.write_all_at(&self.open, spill.blocks * BLOCK_BYTES as u64).map_err(|cause| ReplayError::Spill {
            action: "write",
            folder: spill.folder.clone(),
            cause,
        })?;
        spill.blocks += 1;
        self.open.clear();
        Ok(())
    }
}

impl StateRows for StateStore {
    fn len(&self) -> usize {
        self.rows as usize
    }
    fn width(&self) -> usize {
        self.config.width
    }
    /// Reads a row; one that cannot be read is not-a-number throughout and leaves its cause in [`StateStore::failure`].
    fn gather(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows as usize, "row {row} of {}", self.rows);
        if let Err(error) = self.read(row as u32, out) {
            out.fill(f32::NAN);
            let _ = self.failure.set(error);
        }
    }
}

impl Spill {
    fn new(folder: Option<PathBuf>) -> Result<Self, ReplayError> {
        let folder = folder.unwrap_or_else(std::env::temp_dir);
        match tempfile::tempfile_in(&folder) {
            Ok(file) => Ok(Spill { file, folder, blocks: 0 }),
            Err(cause) => Err(ReplayError::Spill { action: "create", folder, cause }),
        }
    }

    fn read(&self, at: u64, bytes: usize, then: impl FnOnce(&[u8])) -> Result<(), ReplayError> {
        SPILLED_ROW.with_borrow_mut(|scratch| {
            scratch.resize(bytes, 0);
            match self.file.read_exact_at(scratch, at) {
                Ok(()) => {
                    then(scratch);
                    Ok(())
                }
                Err(cause) => Err(ReplayError::Spill { action: "read", folder: self.folder.clone(), cause }),
            }
        })
    }
}

fn decode(encoding: Encoding, encoded: &[u8], out: &mut [f32]) {
    match encoding {
        Encoding::Dense => {
            for (out, bytes) in out.iter_mut().zip(encoded.as_chunks::<4>().0) {
                *out = f32::from_le_bytes(*bytes);
            }
        }
        Encoding::Sparse => {
            out.fill(0.0);
            let set = encoded.len() / 6;
            let (positions, values) = encoded[2..].split_at(set * 2);
            for (position, value) in positions.as_chunks::<2>().0.iter().zip(values.as_chunks::<4>().0) {
                out[usize::from(u16::from_le_bytes(*position))] = f32::from_le_bytes(*value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn store(width: usize, encoding: Encoding, memory_bytes: usize) -> StateStore {
        StateStore::new(StoreConfig { width, encoding, memory_bytes, spill_folder: None }).unwrap()
    }

    fn value() -> impl Strategy<Value = f32> {
        prop_oneof![
            3 => Just(0.0_f32),
            1 => Just(-0.0_f32),
            2 => any::<f32>().prop_filter("finite", |v| v.is_finite()),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn every_bit_comes_back(
            (width, rows) in (1_usize..40).prop_flat_map(|w| (Just(w), proptest::collection::vec(proptest::collection::vec(value(), w), 0..60))),
            sparse in any::<bool>(),
        ) {
            let mut store = store(width, if sparse { Encoding::Sparse } else { Encoding::Dense }, 0);
            for (i, row) in rows.iter().enumerate() {
                prop_assert_eq!(store.append(row).unwrap() as usize, i);
            }
            prop_assert_eq!(store.len(), rows.len());
            let mut out = vec![0.0; width];
            for (i, row) in rows.iter().enumerate().rev() {
                store.gather(i, &mut out);
                prop_assert_eq!(out.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), row.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
            }
        }
    }

    /// Wide rows fill blocks quickly, so that both the kept and the spilled ones are read back.
    #[test]
    fn rows_beyond_the_budget_come_back_from_the_spill_file_on_every_thread() {
        for encoding in [Encoding::Dense, Encoding::Sparse] {
            let (width, rows) = (30_011, 120_u32);
            let value = |row: u32, i: usize| {
                if (i + row as usize).is_multiple_of(3) { 0.0 } else { (i as f32) + row as f32 * 0.5 }
            };
            let mut store = store(width, encoding, 5 * BLOCK_BYTES);
            for row in 0..rows {
                let row: Vec<f32> = (0..width).map(|i| value(row, i)).collect();
                store.append(&row).unwrap();
            }
            assert!(store.spilled_bytes() > 0 && store.kept.len() > 1, "{} kept", store.kept.len());
            assert!(store.memory_bytes() <= 5 * BLOCK_BYTES + 2048, "{}", store.memory_bytes());
            std::thread::scope(|scope| {
                for thread in 0..3 {
                    let store = &store;
                    scope.spawn(move || {
                        let mut out = vec![0.0; width];
                        for row in (0..rows).filter(|row| row % 3 == thread) {
                            store.gather(row as usize, &mut out);
                            assert!(out.iter().enumerate().all(|(i, v)| *v == value(row, i)), "row {row}");
                        }
                    });
                }
            });
            assert!(store.failure().is_none());
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_leaves_the_store_as_it_was() {
        let mut store = store(2, Encoding::Sparse, 0);
        assert!(matches!(store.append(&[1.0]), Err(ReplayError::Width { expected: 2, found: 1, .. })));
        assert!(matches!(store.append(&[1.0, f32::NAN]), Err(ReplayError::NotFinite { index: 1, .. })));
        assert!(matches!(store.append(&[f32::INFINITY, 0.0]), Err(ReplayError::NotFinite { index: 0, .. })));
        assert!(store.is_empty());
        assert_eq!(store.append(&[f32::MAX, f32::MIN]).unwrap(), 0);
        for width in [0, StateStore::MAX_WIDTH + 1] {
            let config = StoreConfig { width, encoding: Encoding::Dense, memory_bytes: 0, spill_folder: None };
            assert!(matches!(StateStore::new(config), Err(ReplayError::Setting { key: "width", .. })));
        }
    }

    #[test]
    fn a_spill_folder_that_does_not_exist_is_named_and_the_row_can_come_again() {
        let folder = PathBuf::from("/no/such/folder");
        let config = StoreConfig {
            width: 60_000,
            encoding: Encoding::Dense,
            memory_bytes: 0,
            spill_folder: Some(folder.clone()),
        };
        let mut store = StateStore::new(config).unwrap();
        let row = vec![1.0; 60_000];
        while let Ok(row_number) = store.append(&row) {
            assert!(row_number < 10, "a block takes 4 rows, and the second block needs the spill file");
        }
        let (rows, error) = (store.len(), store.append(&row).unwrap_err());
        assert!(error.to_string().contains("/no/such/folder"), "{error}");
        assert_eq!(store.len(), rows);
        store.config.spill_folder = None;
        assert_eq!(store.append(&row).unwrap() as usize, rows);
        let mut out = vec![0.0; 60_000];
        (0..=rows).for_each(|row_number| {
            store.gather(row_number, &mut out);
            assert_eq!(out, row);
        });
    }

    #[test]
    fn a_row_that_cannot_be_read_is_not_a_number_and_leaves_its_cause() {
        let mut store = store(60_000, Encoding::Dense, 0);
        (0..6).for_each(|_| {
            store.append(&vec![1.0; 60_000]).unwrap();
        });
        store.spill.as_ref().unwrap().file.set_len(100).unwrap();
        let mut out = vec![0.0; 60_000];
        store.gather(0, &mut out);
        assert!(out.iter().all(|v| v.is_nan()));
        assert!(matches!(store.failure(), Some(ReplayError::Spill { action: "read", .. })));
    }
}
