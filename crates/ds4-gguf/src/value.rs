//! Metadata values. Arrays stay where they lie in the file and are read element by element.

use std::fmt;

use crate::error::MetadataError;
use crate::shared_bytes::SharedBytes;

/// Type of a metadata value, with GGUF's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ValueType {
    /// 8-bit unsigned.
    U8 = 0,
    /// 8-bit signed.
    I8 = 1,
    /// 16-bit unsigned.
    U16 = 2,
    /// 16-bit signed.
    I16 = 3,
    /// 32-bit unsigned.
    U32 = 4,
    /// 32-bit signed.
    I32 = 5,
    /// Single.
    F32 = 6,
    /// One byte, 0 or 1.
    Bool = 7,
    /// Length and bytes.
    Str = 8,
    /// Element type, count and elements.
    Array = 9,
    /// 64-bit unsigned.
    U64 = 10,
    /// 64-bit signed.
    I64 = 11,
    /// Double.
    F64 = 12,
}

impl ValueType {
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::Str,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    /// The type with that number.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(id).ok()?).copied()
    }

    /// The number that GGUF files use.
    pub const fn id(self) -> u32 {
        self as u32
    }

    /// Bytes of a value of this type; none for strings and arrays, whose sizes differ.
    pub const fn fixed_bytes(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Str | Self::Array => None,
        }
    }

    /// Fewest bytes that a value of this type takes.
    pub(crate) const fn least_bytes(self) -> usize {
        match self.fixed_bytes() {
            Some(bytes) => bytes,
            None if matches!(self, Self::Str) => 8,
            None => 12,
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::Str => "string",
            Self::Array => "array",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        })
    }
}

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// 8-bit unsigned.
    U8(u8),
    /// 8-bit signed.
    I8(i8),
    /// 16-bit unsigned.
    U16(u16),
    /// 16-bit signed.
    I16(i16),
    /// 32-bit unsigned.
    U32(u32),
    /// 32-bit signed.
    I32(i32),
    /// 64-bit unsigned.
    U64(u64),
    /// 64-bit signed.
    I64(i64),
    /// Single.
    F32(f32),
    /// Double.
    F64(f64),
    /// True or false.
    Bool(bool),
    /// Bytes that are nearly always UTF-8.
    Str(SharedBytes),
    /// Values of one type.
    Array(Array),
}

impl Value {
    /// The type.
    pub const fn value_type(&self) -> ValueType {
        match self {
            Self::U8(_) => ValueType::U8,
            Self::I8(_) => ValueType::I8,
            Self::U16(_) => ValueType::U16,
            Self::I16(_) => ValueType::I16,
            Self::U32(_) => ValueType::U32,
            Self::I32(_) => ValueType::I32,
            Self::U64(_) => ValueType::U64,
            Self::I64(_) => ValueType::I64,
            Self::F32(_) => ValueType::F32,
            Self::F64(_) => ValueType::F64,
            Self::Bool(_) => ValueType::Bool,
            Self::Str(_) => ValueType::Str,
            Self::Array(_) => ValueType::Array,
        }
    }

    /// The number when it is an integer of any width.
    pub fn as_integer(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(x) => x.into(),
            Self::I8(x) => x.into(),
            Self::U16(x) => x.into(),
            Self::I16(x) => x.into(),
            Self::U32(x) => x.into(),
            Self::I32(x) => x.into(),
            Self::U64(x) => x.into(),
            Self::I64(x) => x.into(),
            Self::F32(_) | Self::F64(_) | Self::Bool(_) | Self::Str(_) | Self::Array(_) => {
                return None;
            }
        })
    }

    /// The number when it is a float or an integer of any width.
    pub fn as_float(&self) -> Option<f64> {
        match *self {
            Self::F32(x) => Some(x.into()),
            Self::F64(x) => Some(x),
            _ => self.as_integer().map(|x| x as f64),
        }
    }

    /// Appends the value as it lies in a file, without its type.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::U8(x) => out.push(*x),
            Self::I8(x) => out.extend(x.to_le_bytes()),
            Self::U16(x) => out.extend(x.to_le_bytes()),
            Self::I16(x) => out.extend(x.to_le_bytes()),
            Self::U32(x) => out.extend(x.to_le_bytes()),
            Self::I32(x) => out.extend(x.to_le_bytes()),
            Self::U64(x) => out.extend(x.to_le_bytes()),
            Self::I64(x) => out.extend(x.to_le_bytes()),
            Self::F32(x) => out.extend(x.to_le_bytes()),
            Self::F64(x) => out.extend(x.to_le_bytes()),
            Self::Bool(x) => out.push(u8::from(*x)),
            Self::Str(bytes) => {
                out.extend((bytes.len() as u64).to_le_bytes());
                out.extend_from_slice(bytes);
            }
            Self::Array(array) => {
                out.extend(array.element.id().to_le_bytes());
                out.extend((array.len as u64).to_le_bytes());
                out.extend_from_slice(&array.bytes);
            }
        }
    }

    /// Reads a value from bytes that the header's check has passed, and gives its length; none when
    /// the bytes do not hold it.
    fn read(ty: ValueType, bytes: &SharedBytes, at: usize) -> Option<(Self, usize)> {
        fn number<const N: usize>(bytes: &SharedBytes, at: usize) -> Option<[u8; N]> {
            bytes.get(at..)?.first_chunk().copied()
        }
        let value = match ty {
            ValueType::U8 => Self::U8(u8::from_le_bytes(number(bytes, at)?)),
            ValueType::I8 => Self::I8(i8::from_le_bytes(number(bytes, at)?)),
            ValueType::U16 => Self::U16(u16::from_le_bytes(number(bytes, at)?)),
            ValueType::I16 => Self::I16(i16::from_le_bytes(number(bytes, at)?)),
            ValueType::U32 => Self::U32(u32::from_le_bytes(number(bytes, at)?)),
            ValueType::I32 => Self::I32(i32::from_le_bytes(number(bytes, at)?)),
            ValueType::U64 => Self::U64(u64::from_le_bytes(number(bytes, at)?)),
            ValueType::I64 => Self::I64(i64::from_le_bytes(number(bytes, at)?)),
            ValueType::F32 => Self::F32(f32::from_le_bytes(number(bytes, at)?)),
            ValueType::F64 => Self::F64(f64::from_le_bytes(number(bytes, at)?)),
            ValueType::Bool => Self::Bool(*bytes.get(at)? != 0),
            ValueType::Str => {
                let len = usize::try_from(u64::from_le_bytes(number(bytes, at)?)).ok()?;
                let start = at.checked_add(8)?;
                let text = bytes.slice(start..start.checked_add(len)?)?;
                return Some((Self::Str(text), len.checked_add(8)?));
            }
            ValueType::Array => {
                let element = ValueType::from_id(u32::from_le_bytes(number(bytes, at)?))?;
                let len = usize::try_from(u64::from_le_bytes(number(bytes, at.checked_add(4)?)?));
                let len = len.ok()?;
                let start = at.checked_add(12)?;
                let mut end = start;
                match element.fixed_bytes() {
                    Some(size) => end = end.checked_add(len.checked_mul(size)?)?,
                    None => {
                        for _ in 0..len {
                            end = end.checked_add(Self::read(element, bytes, end)?.1)?;
                        }
                    }
                }
                let bytes = bytes.slice(start..end)?;
                return Some((
                    Self::Array(Array {
                        element,
                        len,
                        bytes,
                    }),
                    end - at,
                ));
            }
        };
        Some((value, ty.fixed_bytes()?))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Str(text.as_bytes().to_vec().into())
    }
}

macro_rules! from_number {
    ($($number:ty => $variant:ident),*) => {$(
        impl From<$number> for Value {
            fn from(x: $number) -> Self {
                Self::$variant(x)
            }
        }

        impl From<&[$number]> for Array {
            fn from(numbers: &[$number]) -> Self {
                let mut bytes = Vec::with_capacity(size_of_val(numbers));
                for &x in numbers {
                    Value::$variant(x).write(&mut bytes);
                }
                Self { element: ValueType::$variant, len: numbers.len(), bytes: bytes.into() }
            }
        }
    )*};
}

from_number!(
    u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, u64 => U64, i64 => I64,
    f32 => F32, f64 => F64, bool => Bool
);

impl fmt::Display for Value {
    /// One line; long strings and arrays are cut.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 80;
        match self {
            Self::Str(bytes) => {
                let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * LONGEST)]);
                let cut: String = text.chars().take(LONGEST).collect();
                let more = if cut.len() < bytes.len() { "…" } else { "" };
                write!(f, "{cut:?}{more}")
            }
            Self::Array(array) => {
                const SHOWN: usize = 8;
                write!(f, "[{}; {}]", array.element, array.len)?;
                for (i, value) in array.iter().take(SHOWN).enumerate() {
                    write!(f, "{}{value}", if i == 0 { " " } else { ", " })?;
                }
                if array.len > SHOWN {
                    f.write_str(", …")
                } else {
                    Ok(())
                }
            }
            Self::Bool(x) => x.fmt(f),
            Self::F32(x) => x.fmt(f),
            Self::F64(x) => x.fmt(f),
            Self::U64(x) => x.fmt(f),
            _ => match self.as_integer() {
                Some(x) => x.fmt(f),
                None => Ok(()),
            },
        }
    }
}

/// Values of one type, kept as bytes of the file. Reading them walks the bytes; a caller that needs
/// random access collects once.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    pub(crate) element: ValueType,
    pub(crate) len: usize,
    /// The elements as they lie in the file, checked when the header was read.
    pub(crate) bytes: SharedBytes,
}

impl Array {
    /// An array of values that all have the type `element`.
    ///
    /// # Errors
    /// [`MetadataError::Element`].
    pub fn new(
        element: ValueType,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Self, MetadataError> {
        let mut bytes = Vec::new();
        let mut len = 0;
        for value in values {
            let found = value.value_type();
            if found != element {
                return Err(MetadataError::Element {
                    expected: element,
                    found,
                });
            }
            value.write(&mut bytes);
            len += 1;
        }
        Ok(Self {
            element,
            len,
            bytes: bytes.into(),
        })
    }

    /// An array of strings, which need not be UTF-8.
    pub fn of_strings<S: AsRef<[u8]>>(strings: impl IntoIterator<Item = S>) -> Self {
        let mut bytes = Vec::new();
        let mut len = 0;
        for string in strings {
            let string = string.as_ref();
            bytes.extend((string.len() as u64).to_le_bytes());
            bytes.extend_from_slice(string);
            len += 1;
        }
        Self {
            element: ValueType::Str,
            len,
            bytes: bytes.into(),
        }
    }

    /// Type of the elements.
    pub fn element_type(&self) -> ValueType {
        self.element
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = Value> + '_ {
        let mut at = 0;
        (0..self.len).map_while(move |_| {
            let (value, bytes) = Value::read(self.element, &self.bytes, at)?;
            at += bytes;
            Some(value)
        })
    }

    /// The elements of an array of strings as bytes, without copying; nothing for other arrays.
    pub fn byte_strings(&self) -> impl Iterator<Item = &[u8]> + '_ {
        let mut rest = match self.element {
            ValueType::Str => &self.bytes[..],
            _ => &[],
        };
        std::iter::from_fn(move || {
            let (len, after) = rest.split_first_chunk()?;
            let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
            let (string, after) = after.split_at_checked(len)?;
            rest = after;
            Some(string)
        })
    }
}
