//! Sizes in bytes on the command line: `10GiB`, `500MB`, `0`.

use std::str::FromStr;

/// A number of bytes with a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteSize(pub(crate) u64);

/// Text that is no size.
#[derive(Debug, thiserror::Error)]
#[error("expected a number with B, KB, MB, GB, TB, KiB, MiB, GiB or TiB, such as 10GiB")]
pub(crate) struct InvalidSize;

impl FromStr for ByteSize {
    type Err = InvalidSize;

    /// `K`, `M`, `G` and `T` alone are the binary units; upper and lower case are the same.
    fn from_str(text: &str) -> Result<Self, InvalidSize> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
        let unit: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(InvalidSize),
        };
        // Whole numbers exactly; a fraction such as 1.5 as near as an F64 comes.
        if let Ok(number) = number.parse::<u64>() {
            return number.checked_mul(unit).map(Self).ok_or(InvalidSize);
        }
        let bytes = number.parse::<f64>().map_err(|_| InvalidSize)? * unit as f64;
        if bytes < 2f64.powi(63) {
            Ok(Self(bytes as u64))
        } else {
            Err(InvalidSize)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("10GiB", 10 << 30),
            ("10 gb", 10_000_000_000),
            ("1.5K", 1536),
            ("2T", 2 << 40),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(text.parse::<ByteSize>().unwrap(), ByteSize(bytes), "{text}");
        }
        for text in [
            "",
            "GiB",
            "-1",
            "1e3",
            "1 2",
            "1..2",
            "10XB",
            "99999999999T",
            "inf",
            "nan",
        ] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }
}
