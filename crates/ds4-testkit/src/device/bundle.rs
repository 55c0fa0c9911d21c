//! The buffers of one stage call, in the shape in which the stage takes them.

use ds4_cpu::reference::ReferenceBuffer;
use ds4_model::BackendError;
use ds4_model::backend::{AttentionInputs, CompressedKv, LayerKv, PageTables};

use super::memory::{Address, DeviceBuffer, Memory, SharedMemory};

/// Something made of handles, as addresses that a command can keep.
pub(super) trait Handles {
    type Kept: Bundle;
    fn keep(&self, memory: &SharedMemory) -> Result<Self::Kept, BackendError>;
}

/// Addresses that can be turned into the buffers themselves while a stage runs.
pub(super) trait Bundle: Send + 'static {
    type Lent;
    fn addresses(&self, into: &mut Vec<Address>);
    fn lend(&self, memory: &mut Memory) -> Result<Self::Lent, BackendError>;
    fn give_back(&self, lent: Self::Lent, memory: &mut Memory);
}

impl Handles for DeviceBuffer {
    type Kept = Address;
    fn keep(&self, memory: &SharedMemory) -> Result<Address, BackendError> {
        self.address(memory)
    }
}

impl Bundle for Address {
    type Lent = ReferenceBuffer;

    fn addresses(&self, into: &mut Vec<Address>) {
        into.push(*self);
    }

    fn lend(&self, memory: &mut Memory) -> Result<ReferenceBuffer, BackendError> {
        memory.lend(*self)
    }

    fn give_back(&self, lent: ReferenceBuffer, memory: &mut Memory) {
        memory.give_back(*self, lent);
    }
}

impl<T: Handles> Handles for Option<T> {
    type Kept = Option<T::Kept>;
    fn keep(&self, memory: &SharedMemory) -> Result<Self::Kept, BackendError> {
        self.as_ref().map(|part| part.keep(memory)).transpose()
    }
}

impl<T: Bundle> Bundle for Option<T> {
    type Lent = Option<T::Lent>;

    fn addresses(&self, into: &mut Vec<Address>) {
        self.iter().for_each(|part| part.addresses(into));
    }

    fn lend(&self, memory: &mut Memory) -> Result<Self::Lent, BackendError> {
        self.as_ref().map(|part| part.lend(memory)).transpose()
    }

    fn give_back(&self, lent: Self::Lent, memory: &mut Memory) {
        if let (Some(part), Some(lent)) = (self, lent) {
            part.give_back(lent, memory);
        }
    }
}

/// For structures of buffers and plain values.
macro_rules! bundle {
    ($type:ident { $($buffer:ident),* } { $($plain:ident),* }) => {
        impl Handles for $type<DeviceBuffer> {
            type Kept = $type<Address>;
            fn keep(&self, memory: &SharedMemory) -> Result<Self::Kept, BackendError> {
                Ok($type { $($buffer: self.$buffer.keep(memory)?,)* $($plain: self.$plain,)* })
            }
        }

        impl Bundle for $type<Address> {
            type Lent = $type<ReferenceBuffer>;

            fn addresses(&self, into: &mut Vec<Address>) {
                $(self.$buffer.addresses(into);)*
            }

            fn lend(&self, memory: &mut Memory) -> Result<Self::Lent, BackendError> {
                Ok($type { $($buffer: self.$buffer.lend(memory)?,)* $($plain: self.$plain,)* })
            }

            fn give_back(&self, lent: Self::Lent, memory: &mut Memory) {
                $(self.$buffer.give_back(lent.$buffer, memory);)*
            }
        }
    };
}

bundle!(AttentionInputs {
    query_latent, key_value, content, gate, index_content, index_gate, index_weights
} {});
bundle!(CompressedKv { rows, frontier } {});
bundle!(LayerKv { window, compressed, index } { layout });
bundle!(PageTables { words } { pages });

/// For the arguments of a stage.
macro_rules! arguments {
    ($($part:ident $index:tt),*) => {
        impl<$($part: Handles),*> Handles for ($(&$part,)*) {
            type Kept = ($($part::Kept,)*);
            fn keep(&self, memory: &SharedMemory) -> Result<Self::Kept, BackendError> {
                Ok(($(self.$index.keep(memory)?,)*))
            }
        }

        impl<$($part: Bundle),*> Bundle for ($($part,)*) {
            type Lent = ($($part::Lent,)*);

            fn addresses(&self, into: &mut Vec<Address>) {
                $(self.$index.addresses(into);)*
            }

            fn lend(&self, memory: &mut Memory) -> Result<Self::Lent, BackendError> {
                Ok(($(self.$index.lend(memory)?,)*))
            }

            fn give_back(&self, lent: Self::Lent, memory: &mut Memory) {
                $(self.$index.give_back(lent.$index, memory);)*
            }
        }
    };
}

arguments!(A 0);
arguments!(A 0, B 1);
arguments!(A 0, B 1, C 2);
arguments!(A 0, B 1, C 2, D 3);
arguments!(A 0, B 1, C 2, D 3, E 4);
