//! The device's memory, and the handles that the host holds.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ds4_cpu::reference::ReferenceBuffer;
use ds4_model::BackendError;

/// Name of the backend in errors.
pub(super) const NAME: &str = "device";

pub(super) fn misuse(message: String) -> BackendError {
    BackendError::Device {
        backend: NAME,
        message,
    }
}

/// Address of a buffer. Addresses are never used twice, so that a stale one is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Address(u64);

/// All buffers by address; a buffer that is lent to a running stage is absent.
#[derive(Debug, Default)]
pub(super) struct Memory {
    buffers: HashMap<Address, Option<ReferenceBuffer>>,
    next: u64,
}

impl Memory {
    pub(super) fn insert(&mut self, buffer: ReferenceBuffer) -> Address {
        let address = Address(self.next);
        self.next += 1;
        self.buffers.insert(address, Some(buffer));
        address
    }

    pub(super) fn buffers(&self) -> usize {
        self.buffers.len()
    }

    /// Takes a buffer out for the time of one stage.
    pub(super) fn lend(&mut self, address: Address) -> Result<ReferenceBuffer, BackendError> {
        match self.buffers.get_mut(&address) {
            None => Err(misuse(format!("{address:?} was freed"))),
            Some(buffer) => buffer
                .take()
                .ok_or_else(|| misuse(format!("{address:?} appears twice in one stage"))),
        }
    }

    pub(super) fn give_back(&mut self, address: Address, buffer: ReferenceBuffer) {
        if let Some(place) = self.buffers.get_mut(&address) {
            *place = Some(buffer);
        }
    }
}

/// The memory, shared by the backend and all handles.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedMemory(Arc<Mutex<Memory>>);

impl SharedMemory {
    pub(super) fn lock(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Handle of a buffer; dropping it frees the memory.
pub struct DeviceBuffer {
    address: Address,
    memory: SharedMemory,
}

impl DeviceBuffer {
    pub(super) fn new(memory: &SharedMemory, buffer: ReferenceBuffer) -> Self {
        Self {
            address: memory.lock().insert(buffer),
            memory: memory.clone(),
        }
    }

    /// The address, if the buffer lies in `memory`.
    pub(super) fn address(&self, memory: &SharedMemory) -> Result<Address, BackendError> {
        if self.memory.is(memory) {
            return Ok(self.address);
        }
        Err(misuse("the buffer belongs to another device".to_owned()))
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        self.memory.lock().buffers.remove(&self.address);
    }
}

impl fmt::Debug for DeviceBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceBuffer({:?})", self.address)
    }
}
