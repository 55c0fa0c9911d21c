//! Horizontal bars with intervals, as SVG.

use std::fmt::Write;

use ds4_workshop::plot::escaped;

/// One value with the range that it lies in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) value: f64,
    /// `None` where the value is exact.
    pub(crate) range: Option<(f64, f64)>,
    /// The value, written out.
    pub(crate) text: String,
}

/// Bars on a common scale.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BarPanel {
    /// What the bars show, with its unit.
    pub(crate) title: String,
    pub(crate) bars: Vec<Bar>,
}

/// Panels one above the other.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BarChart {
    pub(crate) title: String,
    pub(crate) panels: Vec<BarPanel>,
}

const WIDTH: f64 = 760.0;
/// Where bars begin, behind their labels.
const LEFT: f64 = 240.0;
/// Where the longest end, before their values.
const RIGHT: f64 = 640.0;
const ROW: f64 = 24.0;
const TITLE: f64 = 44.0;

impl BarChart {
    /// The chart as an SVG document. Scales begin at 0.
    pub(crate) fn svg(&self) -> String {
        let rows = |panel: &BarPanel| TITLE + ROW * panel.bars.len() as f64;
        let height = TITLE + self.panels.iter().map(rows).sum::<f64>();
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\" \
             fill=\"#222222\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
             <text x=\"16\" y=\"26\" font-size=\"16\" font-weight=\"bold\">{}</text>\n",
            escaped(&self.title)
        );
        let mut top = TITLE;
        for panel in &self.panels {
            panel.write(top, &mut svg);
            top += rows(panel);
        }
        svg.push_str("</svg>\n");
        svg
    }
}

impl BarPanel {
    fn write(&self, top: f64, svg: &mut String) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            svg,
            "<text x=\"16\" y=\"{:.1}\" font-weight=\"bold\">{}</text>",
            top + 24.0,
            escaped(&self.title)
        );
        let largest = self
            .bars
            .iter()
            .map(|bar| bar.range.map_or(bar.value, |(_, high)| high.max(bar.value)))
            .filter(|value| value.is_finite())
            .fold(0.0, f64::max);
        let scale = if largest > 0.0 { largest } else { 1.0 };
        let place = |value: f64| LEFT + (RIGHT - LEFT) * (value / scale).clamp(0.0, 1.0);
        for (row, bar) in self.bars.iter().enumerate() {
            let middle = top + TITLE - 4.0 + ROW * row as f64;
            let end = place(bar.value);
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
                 <rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{:.1}\" height=\"14\" fill=\"#0072b2\"/>",
                LEFT - 8.0,
                middle + 4.0,
                escaped(&bar.label),
                middle - 7.0,
                end - LEFT
            );
            let mut after = end;
            if let Some((low, high)) = bar.range {
                after = place(high).max(end);
                let _ = writeln!(
                    svg,
                    "<line x1=\"{:.1}\" y1=\"{middle:.1}\" x2=\"{:.1}\" y2=\"{middle:.1}\" \
                     stroke=\"#d55e00\" stroke-width=\"2\"/>",
                    place(low),
                    place(high)
                );
            }
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                after + 6.0,
                middle + 4.0,
                escaped(&bar.text)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(value: f64, range: Option<(f64, f64)>) -> Bar {
        Bar {
            label: "a<b".to_owned(),
            value,
            range,
            text: format!("{value}"),
        }
    }

    #[test]
    fn bars_are_as_long_as_their_values() {
        let panel = BarPanel {
            title: "share, %".to_owned(),
            bars: vec![
                bar(50.0, Some((40.0, 80.0))),
                bar(20.0, None),
                bar(0.0, None),
            ],
        };
        let svg = BarChart {
            title: "t".to_owned(),
            panels: vec![panel],
        }
        .svg();
        let widths: Vec<&str> = svg
            .split("height=\"14\"")
            .filter_map(|part| part.rsplit("width=\"").next()?.split('"').next())
            .take(3)
            .collect();
        // 80 is the longest, 400 wide.
        assert_eq!(widths, ["250.0", "100.0", "0.0"]);
        assert!(svg.contains("a&lt;b") && svg.ends_with("</svg>\n"), "{svg}");
        assert!(
            svg.contains("x1=\"440.0\"") && svg.contains("x2=\"640.0\""),
            "{svg}"
        );
    }

    #[test]
    fn nothing_is_a_chart_too() {
        for bars in [vec![], vec![bar(0.0, None)], vec![bar(f64::NAN, None)]] {
            let title = String::new();
            let panels = vec![BarPanel {
                title: String::new(),
                bars,
            }];
            let svg = BarChart { title, panels }.svg();
            assert!(svg.starts_with("<svg") && !svg.contains("inf"), "{svg}");
        }
    }
}
