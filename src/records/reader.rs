//! Bytes of shared data and of Redis, read front to back.

use std::fmt;

/// Bytes that are not a record, bucket or page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorruptRecord;

impl fmt::Display for CorruptRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stored bytes are not a record of this format")
    }
}

impl std::error::Error for CorruptRecord {}

/// Takes bytes from the front, never past the end.
pub(crate) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn take(&mut self, count: usize) -> Result<&'a [u8], CorruptRecord> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(CorruptRecord)?;
        self.0 = tail;
        Ok(head)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], CorruptRecord> {
        self.take(N)?.try_into().map_err(|_| CorruptRecord)
    }

    pub fn byte(&mut self) -> Result<u8, CorruptRecord> {
        self.array().map(|[byte]| byte)
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub fn flag(&mut self) -> Result<bool, CorruptRecord> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CorruptRecord),
        }
    }

    pub fn u16(&mut self) -> Result<u16, CorruptRecord> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, CorruptRecord> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, CorruptRecord> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, CorruptRecord>,
    ) -> Result<Vec<T>, CorruptRecord> {
        (0..self.u16()?).map(|_| item(self)).collect()
    }
}
