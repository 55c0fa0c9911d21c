//! Numbers of a header, one after the other.

/// Takes fields off the front of a header. Fields past its end read as zero; headers
/// have a fixed size, and it is checked before.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn of(header: &'a [u8]) -> Self {
        Self { rest: header }
    }

    pub(super) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut field = [0; N];
        let taken = N.min(self.rest.len());
        let (front, rest) = self.rest.split_at(taken);
        field[..taken].copy_from_slice(front);
        self.rest = rest;
        field
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    pub(super) fn f64(&mut self) -> f64 {
        f64::from_le_bytes(self.array())
    }
}
