//! Activations for the kernels: the f32 rows and, for block formats, their 8-bit form.
//!
//! One 8-bit form serves every block format: signed bytes in -127..=127 with one f32 scale per *run* of
//! 32 elements (the largest magnitude of the run maps to 127). ggml rounds the scale to F16 for small
//! blocks and shares one scale among 256 elements for super-blocks; both are coarser.
//!
//! The same bytes are kept in two arrangements:
//! - planes, for one row at a time: elements in order, elements of each 512 split by `index % 8`
//!   (the order in which the 2-bit codebook kernel meets them), sums of 16, scales;
//! - [`Run`]s, for batches: everything about a run side by side, so that one pointer per row is enough.

use std::marker::PhantomData;

/// Elements that share a scale.
pub const RUN: usize = 32;

/// Elements of two super-blocks; rows are padded to them.
pub(crate) const PAIR: usize = 512;

/// One run of a row, for batched kernels.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub(crate) struct Run {
    /// Elements.
    pub(crate) q: [i8; RUN],
    /// Elements by `index % 8`: four with rest 0, then four with rest 1, …, 7.
    pub(crate) split: [i8; RUN],
    /// Value of an element is `scale * q`.
    pub(crate) scale: f32,
    /// Sums of the first and the last 16 elements.
    pub(crate) sums: [i16; 2],
    /// `-128 *` the sum of all and of the first 16: takes back the offset of weights stored plus 128.
    pub(crate) minus_128_sums: [i32; 2],
}

const _: () = assert!(size_of::<Run>() == 80);

impl Run {
    const ZERO: Self = Self {
        q: [0; RUN],
        split: [0; RUN],
        scale: 0.0,
        sums: [0; 2],
        minus_128_sums: [0; 2],
    };
}

/// A cache line of bytes, to align the planes.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([i8; 64]);

/// Room for the 8-bit form of rows. Filling it allocates nothing.
#[derive(Debug)]
pub struct Activations {
    capacity: usize,
    rows: usize,
    columns: usize,
    /// `[rows, columns rounded up to 512]`.
    ordered: Vec<Line>,
    split: Vec<Line>,
    /// `[rows, columns / 16]`.
    sums: Vec<i16>,
    /// `[rows, columns / 32]`.
    scales: Vec<f32>,
    runs: Vec<Run>,
}

/// Some runs of one row in planes; all slices cover the same elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowRuns<'a> {
    /// Elements in order.
    pub(crate) ordered: &'a [i8],
    /// Elements of each 512, those with `index % 8 == 0` first, then 1, …, 7. Behind the last column is
    /// whatever was there before. Empty for a slice that does not start on a multiple of 512.
    pub(crate) split: &'a [i8],
    /// Sums of 16 elements.
    pub(crate) sums: &'a [i16],
    /// Scales of runs.
    pub(crate) scales: &'a [f32],
}

/// One row of [`Activations`] to be filled by a quantiser.
#[derive(Debug)]
pub(crate) struct RowMut<'a> {
    /// Elements in order, room for a multiple of 512.
    pub(crate) ordered: &'a mut [i8],
    /// See [`RowRuns::split`].
    pub(crate) split: &'a mut [i8],
    /// Sums of 16 elements.
    pub(crate) sums: &'a mut [i16],
    /// Scales of runs.
    pub(crate) scales: &'a mut [f32],
    /// The same for batches.
    pub(crate) runs: &'a mut [Run],
}

impl Activations {
    /// Room for `max_rows` rows of at most `max_columns` columns each, or more and shorter rows.
    pub fn new(max_rows: usize, max_columns: usize) -> Self {
        let capacity = max_rows * max_columns.next_multiple_of(PAIR);
        Self {
            capacity,
            rows: 0,
            columns: 0,
            ordered: vec![Line([0; 64]); capacity / 64],
            split: vec![Line([0; 64]); capacity / 64],
            sums: vec![0; capacity / 16],
            scales: vec![0.0; capacity / RUN],
            runs: vec![Run::ZERO; capacity / RUN],
        }
    }

    /// Whether rows of that shape have room.
    pub fn fits(&self, rows: usize, columns: usize) -> bool {
        rows * columns.next_multiple_of(PAIR) <= self.capacity
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.ordered.len() * 128
            + self.sums.len() * 2
            + self.scales.len() * 4
            + self.runs.len() * size_of::<Run>()
    }

    /// Number of rows in use.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns in use.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Sets the shape that the next rows are filled with.
    ///
    /// # Panics
    /// If the shape exceeds the room, or `columns` is no multiple of 32.
    pub fn set_shape(&mut self, rows: usize, columns: usize) {
        assert!(self.fits(rows, columns), "no room for the rows");
        assert!(columns.is_multiple_of(RUN), "rows consist of runs of 32");
        self.rows = rows;
        self.columns = columns;
    }

    fn padded(&self) -> usize {
        self.columns.next_multiple_of(PAIR)
    }

    /// For threads that fill different rows at the same time.
    pub(crate) fn writer(&mut self) -> ActivationsWriter<'_> {
        ActivationsWriter {
            ordered: self.ordered.as_mut_ptr().cast(),
            split: self.split.as_mut_ptr().cast(),
            sums: self.sums.as_mut_ptr(),
            scales: self.scales.as_mut_ptr(),
            runs: self.runs.as_mut_ptr(),
            rows: self.rows,
            columns: self.columns,
            activations: self,
            _borrow: PhantomData,
        }
    }

    /// One row to be filled.
    pub(crate) fn row_mut(&mut self, row: usize) -> RowMut<'_> {
        assert!(row < self.rows, "row outside the activations");
        let (padded, runs) = (self.padded(), self.columns / RUN);
        let bytes = row * padded..(row + 1) * padded;
        RowMut {
            ordered: &mut bytemuck::cast_slice_mut(&mut self.ordered)[bytes.clone()],
            split: &mut bytemuck::cast_slice_mut(&mut self.split)[bytes],
            sums: &mut self.sums[2 * row * runs..2 * (row + 1) * runs],
            scales: &mut self.scales[row * runs..(row + 1) * runs],
            runs: &mut self.runs[row * runs..(row + 1) * runs],
        }
    }

    /// Planes of one row, all its runs.
    pub(crate) fn row(&self, row: usize) -> RowRuns<'_> {
        assert!(row < self.rows, "row outside the activations");
        let (padded, runs) = (self.padded(), self.columns / RUN);
        let bytes = row * padded..(row + 1) * padded;
        RowRuns {
            ordered: &bytemuck::cast_slice(&self.ordered)[bytes.clone()],
            split: &bytemuck::cast_slice(&self.split)[bytes],
            sums: &self.sums[2 * row * runs..2 * (row + 1) * runs],
            scales: &self.scales[row * runs..(row + 1) * runs],
        }
    }

    /// One row for batches.
    pub(crate) fn runs(&self, row: usize) -> &[Run] {
        assert!(row < self.rows, "row outside the activations");
        let runs = self.columns / RUN;
        &self.runs[row * runs..(row + 1) * runs]
    }

    /// The f32 values of a row: what the kernels compute with.
    pub fn dequantized_row(&self, row: usize) -> Vec<f32> {
        let row = self.row(row);
        (0..self.columns)
            .map(|i| row.scales[i / RUN] * f32::from(row.ordered[i]))
            .collect()
    }
}

/// Exclusive access to [`Activations`], to be split by rows among threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ActivationsWriter<'a> {
    ordered: *mut i8,
    split: *mut i8,
    sums: *mut i16,
    scales: *mut f32,
    runs: *mut Run,
    rows: usize,
    columns: usize,
    activations: *const Activations,
    _borrow: PhantomData<&'a mut Activations>,
}

// SAFETY: the pointer stands for an exclusive borrow; `row` demands that threads take different rows.
unsafe impl Sync for ActivationsWriter<'_> {}
// SAFETY: as above.
unsafe impl Send for ActivationsWriter<'_> {}

impl ActivationsWriter<'_> {
    /// One row to be filled.
    ///
    /// # Safety
    /// Until all threads have passed a barrier, no other thread takes the same row, and none reads it.
    pub(crate) unsafe fn row(&self, row: usize) -> RowMut<'_> {
        assert!(row < self.rows, "row outside the activations");
        let (padded, runs) = (self.columns.next_multiple_of(PAIR), self.columns / RUN);
        // SAFETY: `row` is one of the rows that `set_shape` checked to have room, every field of the
        // activations is borrowed exclusively for the writer's lifetime, rows are disjoint in every field,
        // and the caller promises that no two threads use the same row.
        unsafe {
            use std::slice::from_raw_parts_mut as slice;
            RowMut {
                ordered: slice(self.ordered.add(row * padded), padded),
                split: slice(self.split.add(row * padded), padded),
                sums: slice(self.sums.add(2 * row * runs), 2 * runs),
                scales: slice(self.scales.add(row * runs), runs),
                runs: slice(self.runs.add(row * runs), runs),
            }
        }
    }

    /// Elements of a row.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// What has been filled.
    ///
    /// # Safety
    /// All threads have passed a barrier after filling, and none fills before the next barrier.
    pub(crate) unsafe fn filled(&self) -> &Activations {
        // SAFETY: promised by the caller.
        unsafe { &*self.activations }
    }
}

impl<'a> RowRuns<'a> {
    /// The runs from `start`, `count` of them.
    pub(crate) fn slice(self, start: usize, count: usize) -> Self {
        let first = start * RUN;
        let last = ((start + count) * RUN)
            .next_multiple_of(PAIR)
            .min(self.split.len());
        Self {
            ordered: &self.ordered[first..(start + count) * RUN],
            split: if first.is_multiple_of(PAIR) {
                &self.split[first..last]
            } else {
                &[]
            },
            sums: &self.sums[2 * start..2 * (start + count)],
            scales: &self.scales[start..start + count],
        }
    }
}
