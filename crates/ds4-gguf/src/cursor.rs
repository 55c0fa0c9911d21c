//! A reading position in the header that checks every length before it uses it.

use crate::error::HeaderProblem;
use crate::shared_bytes::SharedBytes;
use crate::value::{Array, Value, ValueType};

/// Deepest nesting of arrays that is read. Files of this architecture nest none.
pub(crate) const NESTING_LIMIT: usize = 4;

/// A problem and where it is.
pub(crate) type Located = (u64, HeaderProblem);

pub(crate) struct Cursor<'a> {
    bytes: &'a SharedBytes,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a SharedBytes) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// A problem with the item that starts at `at`.
    pub(crate) fn problem<T>(at: usize, problem: HeaderProblem) -> Result<T, Located> {
        Err((at as u64, problem))
    }

    fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    /// The next `len` bytes, as a range.
    fn take(&mut self, what: &'static str, len: u64) -> Result<std::ops::Range<usize>, Located> {
        let left = self.left();
        match usize::try_from(len) {
            Ok(bytes) if len <= left => {
                let start = self.at;
                self.at += bytes;
                Ok(start..self.at)
            }
            _ => Self::problem(
                self.at,
                HeaderProblem::Truncated {
                    what,
                    needed: len,
                    left,
                },
            ),
        }
    }

    fn number<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Located> {
        let range = self.take(what, N as u64)?;
        let mut number = [0; N];
        number.copy_from_slice(&self.bytes[range]);
        Ok(number)
    }

    pub(crate) fn magic(&mut self) -> Result<[u8; 4], Located> {
        self.number("the magic")
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, Located> {
        self.number(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, Located> {
        self.number(what).map(u64::from_le_bytes)
    }

    /// A count of items of at least `least` bytes each, all of which must still fit.
    pub(crate) fn count(&mut self, what: &'static str, least: usize) -> Result<u64, Located> {
        let at = self.at;
        let count = self.u64(what)?;
        let left = self.left();
        let most = left / least as u64;
        if count > most {
            return Self::problem(
                at,
                HeaderProblem::Count {
                    what,
                    count,
                    left,
                    most,
                },
            );
        }
        Ok(count)
    }

    /// A key or a tensor name.
    pub(crate) fn name(&mut self, what: &'static str, most: u64) -> Result<String, Located> {
        let at = self.at;
        let length = self.u64(what)?;
        if length == 0 || length > most {
            return Self::problem(at, HeaderProblem::NameLength { what, length, most });
        }
        let range = self.take(what, length)?;
        match std::str::from_utf8(&self.bytes[range.clone()]) {
            Ok(name) => Ok(name.to_owned()),
            Err(_) => {
                let lossy = String::from_utf8_lossy(&self.bytes[range]).into_owned();
                Self::problem(at, HeaderProblem::NotText { what, lossy })
            }
        }
    }

    pub(crate) fn value_type(&mut self) -> Result<ValueType, Located> {
        let at = self.at;
        let found = self.u32("a value type")?;
        match ValueType::from_id(found) {
            Some(ty) => Ok(ty),
            None => Self::problem(at, HeaderProblem::ValueType { found }),
        }
    }

    pub(crate) fn value(&mut self, ty: ValueType) -> Result<Value, Located> {
        const WHAT: &str = "a value";
        Ok(match ty {
            ValueType::U8 => Value::U8(u8::from_le_bytes(self.number(WHAT)?)),
            ValueType::I8 => Value::I8(i8::from_le_bytes(self.number(WHAT)?)),
            ValueType::U16 => Value::U16(u16::from_le_bytes(self.number(WHAT)?)),
            ValueType::I16 => Value::I16(i16::from_le_bytes(self.number(WHAT)?)),
            ValueType::U32 => Value::U32(u32::from_le_bytes(self.number(WHAT)?)),
            ValueType::I32 => Value::I32(i32::from_le_bytes(self.number(WHAT)?)),
            ValueType::U64 => Value::U64(u64::from_le_bytes(self.number(WHAT)?)),
            ValueType::I64 => Value::I64(i64::from_le_bytes(self.number(WHAT)?)),
            ValueType::F32 => Value::F32(f32::from_le_bytes(self.number(WHAT)?)),
            ValueType::F64 => Value::F64(f64::from_le_bytes(self.number(WHAT)?)),
            ValueType::Bool => {
                let at = self.at;
                let [byte] = self.number(WHAT)?;
                Self::check_bool(at, byte)?;
                Value::Bool(byte == 1)
            }
            ValueType::Str => {
                let len = self.u64("a string length")?;
                let range = self.take("a string", len)?;
                Value::Str(self.slice(range)?)
            }
            ValueType::Array => Value::Array(self.array()?),
        })
    }

    /// Reads an array by checking its elements and keeping the range.
    fn array(&mut self) -> Result<Array, Located> {
        let element = self.value_type()?;
        let len = self.count("an array length", element.least_bytes())?;
        let start = self.at;
        self.skip_elements(element, len, 1)?;
        let bytes = self.slice(start..self.at)?;
        let Ok(len) = usize::try_from(len) else {
            // `count` has compared it with what is left in memory, so this is a 32-bit system.
            let problem = HeaderProblem::Count {
                what: "an array length",
                count: len,
                left: bytes.len() as u64,
                most: usize::MAX as u64,
            };
            return Self::problem(start, problem);
        };
        Ok(Array {
            element,
            len,
            bytes,
        })
    }

    fn skip_elements(&mut self, element: ValueType, len: u64, depth: usize) -> Result<(), Located> {
        if let Some(size) = element.fixed_bytes() {
            // Cannot overflow: `count` has compared the product with what is left.
            let range = self.take("array elements", len * size as u64)?;
            if element == ValueType::Bool {
                for at in range {
                    Self::check_bool(at, self.bytes[at])?;
                }
            }
            return Ok(());
        }
        for _ in 0..len {
            if element == ValueType::Str {
                let len = self.u64("a string length")?;
                self.take("a string", len)?;
                continue;
            }
            if depth == NESTING_LIMIT {
                return Self::problem(
                    self.at,
                    HeaderProblem::Nesting {
                        limit: NESTING_LIMIT,
                    },
                );
            }
            let element = self.value_type()?;
            let len = self.count("an array length", element.least_bytes())?;
            self.skip_elements(element, len, depth + 1)?;
        }
        Ok(())
    }

    fn check_bool(at: usize, found: u8) -> Result<(), Located> {
        if found > 1 {
            return Self::problem(at, HeaderProblem::Bool { found });
        }
        Ok(())
    }

    /// A range that `take` has given.
    fn slice(&self, range: std::ops::Range<usize>) -> Result<SharedBytes, Located> {
        let needed = range.len() as u64;
        self.bytes.slice(range).ok_or((
            self.at as u64,
            HeaderProblem::Truncated {
                what: "a value",
                needed,
                left: 0,
            },
        ))
    }
}
