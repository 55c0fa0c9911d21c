//! Buffers of the backend, and views of them that threads share.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;

use ds4_model::BackendError;

/// Zeroed memory on cache-line boundaries. The operating system hands out pages when they are first
/// written, so room for a long context costs nothing before it is used.
#[derive(Debug)]
pub struct CpuBuffer {
    start: NonNull<u8>,
    bytes: usize,
    layout: Layout,
}

// SAFETY: the buffer owns its memory; shared access only reads.
unsafe impl Send for CpuBuffer {}
// SAFETY: as above.
unsafe impl Sync for CpuBuffer {}

impl CpuBuffer {
    pub(super) fn new(bytes: usize) -> Result<Self, BackendError> {
        let refused = || BackendError::OutOfMemory {
            backend: super::NAME,
            bytes,
        };
        // Whole cache lines, and never zero bytes, which the allocator does not take.
        let size = bytes
            .checked_next_multiple_of(64)
            .ok_or_else(refused)?
            .max(64);
        let layout = Layout::from_size_align(size, 64).map_err(|_| refused())?;
        // SAFETY: the size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(refused)?;
        Ok(Self {
            start,
            bytes,
            layout,
        })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: the memory is ours, initialised, and at least that long.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }

    pub(super) fn floats(&self) -> &[f32] {
        bytemuck::cast_slice(&self.bytes()[..self.bytes / 4 * 4])
    }

    pub(super) fn floats_mut(&mut self) -> &mut [f32] {
        let whole = self.bytes / 4 * 4;
        bytemuck::cast_slice_mut(&mut self.bytes_mut()[..whole])
    }

    pub(super) fn words(&self) -> &[u32] {
        bytemuck::cast_slice(&self.bytes()[..self.bytes / 4 * 4])
    }

    pub(super) fn words_mut(&mut self) -> &mut [u32] {
        bytemuck::cast_slice_mut(self.floats_mut())
    }

    /// Row `index` of rows of `width` floats.
    pub(super) fn row(&self, index: usize, width: usize) -> &[f32] {
        &self.floats()[index * width..(index + 1) * width]
    }

    /// The range `offset..offset + length`, if it lies inside.
    pub(super) fn range(&self, offset: usize, length: usize) -> Result<Range<usize>, BackendError> {
        match offset.checked_add(length) {
            Some(end) if end <= self.bytes => Ok(offset..end),
            _ => Err(BackendError::Range {
                offset,
                length,
                size: self.bytes,
            }),
        }
    }

    /// For threads that write different floats at the same time.
    pub(super) fn share(&mut self) -> Shared<'_, f32> {
        Shared::new(self.floats_mut())
    }

    /// For threads that write different bytes at the same time.
    pub(super) fn share_bytes(&mut self) -> Shared<'_, u8> {
        Shared::new(self.bytes_mut())
    }
}

impl Drop for CpuBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// An exclusively borrowed slice that threads divide among themselves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shared<'a, T> {
    start: *mut T,
    length: usize,
    _borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: the pointer stands for an exclusive borrow; the methods demand that threads do not overlap.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(super) fn new(slice: &'a mut [T]) -> Self {
        Self {
            start: slice.as_mut_ptr(),
            length: slice.len(),
            _borrow: PhantomData,
        }
    }

    /// A part to write.
    ///
    /// # Panics
    /// If the range is outside the slice.
    ///
    /// # Safety
    /// Until the next barrier, no other thread touches any of it.
    #[expect(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    pub(super) unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(
            range.start <= range.end && range.end <= self.length,
            "a part of the slice"
        );
        // SAFETY: inside the slice, checked; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }

    /// A part to read.
    ///
    /// # Panics
    /// If the range is outside the slice.
    ///
    /// # Safety
    /// Until the next barrier, no thread writes any of it.
    pub(super) unsafe fn read(&self, range: Range<usize>) -> &[T] {
        assert!(
            range.start <= range.end && range.end <= self.length,
            "a part of the slice"
        );
        // SAFETY: inside the slice, checked; not written by the caller's promise.
        unsafe { std::slice::from_raw_parts(self.start.add(range.start), range.len()) }
    }

    /// The whole slice, to read.
    ///
    /// # Safety
    /// As [`read`](Self::read).
    pub(super) unsafe fn all(&self) -> &[T] {
        // SAFETY: promised by the caller.
        unsafe { self.read(0..self.length) }
    }
}
