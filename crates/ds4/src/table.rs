//! Plain tables and numbers with units.

/// Columns of text; the first is aligned left, the others right.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with a line of titles.
    pub(crate) fn new<S: Into<String>>(titles: impl IntoIterator<Item = S>) -> Self {
        Self {
            rows: vec![titles.into_iter().map(Into::into).collect()],
        }
    }

    /// Adds a line.
    pub(crate) fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// The lines, without line ends.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        self.rows.iter().map(move |row| {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                if column == 0 {
                    line.push_str(&format!("{cell:<width$}"));
                } else {
                    line.push_str(&format!("  {cell:>width$}"));
                }
            }
            line.trim_end().to_owned()
        })
    }

    /// The lines of a table of names and values, both aligned left.
    pub(crate) fn facts(&self) -> impl Iterator<Item = String> + '_ {
        let names = self.rows.iter().filter_map(|row| row.first());
        let width = names.map(|name| name.chars().count()).max().unwrap_or(0);
        self.rows.iter().map(move |row| {
            let (name, values) = row
                .split_first()
                .map_or(("", [].as_slice()), |(name, rest)| (name.as_str(), rest));
            format!("{name:<width$}  {}", values.join("  "))
        })
    }
}

/// A size in binary units, three significant digits or more.
pub(crate) fn bytes(bytes: u64) -> String {
    scaled(
        bytes as f64,
        1024.0,
        &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"],
    )
}

/// A count in thousands, millions, billions.
pub(crate) fn count(count: u64) -> String {
    scaled(count as f64, 1000.0, &["", "K", "M", "B", "T", "P", "E"])
}

fn scaled(value: f64, base: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut unit = 0;
    // 999.5 of one unit would print as 1000 of it.
    while value >= base - 0.5 && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let digits = match value {
        _ if unit == 0 => 0,
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {}", units[unit])
        .trim_end()
        .to_owned()
}

/// A whole number with a comma between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        for (number, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1_048_575, "1.00 MiB"),
            (86_715_000_000, "80.8 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(number), expected);
        }
        assert_eq!(count(284_330_000_000), "284 B");
        assert_eq!(count(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["type", "size"]);
        table.row(["Q8_0", "1"]);
        table.row(["é", "12345"]);
        let lines: Vec<String> = table.lines().collect();
        assert_eq!(lines, ["type   size", "Q8_0      1", "é     12345"]);
    }
}
