//! Line charts as SVG, without a library: panels one above the other over a common axis.

use std::fmt::Write;

/// A point, with the range that it was measured in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Place on the horizontal axis.
    pub x: f64,
    /// The value.
    pub y: f64,
    /// Least value measured.
    pub least: f64,
    /// Largest value measured.
    pub largest: f64,
}

/// Points that are joined by a line.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// The points, from left to right.
    pub points: Vec<Point>,
}

/// One vertical axis with its series.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// What the axis shows, with its unit.
    pub label: String,
    /// The series.
    pub series: Vec<Series>,
}

/// A chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// Above everything.
    pub title: String,
    /// Below the title, small.
    pub subtitle: String,
    /// What the horizontal axis shows, with its unit.
    pub x_label: String,
    /// From top to bottom.
    pub panels: Vec<Panel>,
}

const WIDTH: f64 = 760.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 64.0;
const PANEL: f64 = 200.0;
const GAP: f64 = 36.0;
const BOTTOM: f64 = 56.0;
/// Least distance between the numbers of the horizontal axis.
const LABEL_ROOM: f64 = 48.0;
/// Distinguishable for all (Okabe and Ito); the first is the newest.
const COLOURS: [&str; 4] = ["#0072b2", "#999999", "#d55e00", "#009e73"];

/// Maps values of the horizontal axis to places.
struct Axis {
    least: f64,
    largest: f64,
    logarithmic: bool,
}

impl Axis {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let (least, largest) = values.fold((f64::INFINITY, 0.0_f64), |(least, largest), x| {
            (least.min(x), largest.max(x))
        });
        let least = if least.is_finite() { least } else { 0.0 };
        Self {
            least,
            largest,
            logarithmic: least > 0.0 && largest >= 8.0 * least,
        }
    }

    fn place(&self, x: f64) -> f64 {
        let scale = |x: f64| if self.logarithmic { x.log2() } else { x };
        let (start, end) = (scale(self.least), scale(self.largest));
        let share = if end > start {
            (scale(x) - start) / (end - start)
        } else {
            0.5
        };
        let inset = 16.0;
        LEFT + inset + share * (WIDTH - LEFT - RIGHT - 2.0 * inset)
    }
}

/// A step of 1, 2 or 5 times a power of ten that divides `range` into 3 to 7 parts.
fn tick_step(range: f64) -> f64 {
    let rough = range / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|step| step * power >= rough)
        .unwrap_or(10.0);
    step * power
}

/// A text as it stands inside of XML. Characters that XML cannot hold become U+FFFD.
pub fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A number with as many digits as its axis needs.
fn number(value: f64, step: f64) -> String {
    let digits = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{value:.digits$}")
}

impl Chart {
    /// The chart as an SVG document.
    pub fn svg(&self) -> String {
        let height = TOP + self.panels.len() as f64 * (PANEL + GAP) - GAP + BOTTOM;
        let points = || {
            let series = self.panels.iter().flat_map(|panel| &panel.series);
            series.flat_map(|series| &series.points)
        };
        let axis = Axis::of(points().map(|point| point.x));
        let mut svg = String::new();
        let mut put = |text: String| {
            svg.push_str(&text);
            svg.push('\n');
        };
        put(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\" \
             fill=\"#222222\">"
        ));
        put(format!(
            "<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>"
        ));
        put(format!(
            "<text x=\"{LEFT}\" y=\"24\" font-size=\"16\" font-weight=\"bold\">{}</text>",
            escaped(&self.title)
        ));
        put(format!(
            "<text x=\"{LEFT}\" y=\"42\" fill=\"#555555\">{}</text>",
            escaped(&self.subtitle)
        ));
        for (number, panel) in self.panels.iter().enumerate() {
            let top = TOP + number as f64 * (PANEL + GAP);
            put(panel.svg(top, &axis));
        }
        let bottom = height - BOTTOM;
        let mut ticks: Vec<f64> = points().map(|point| point.x).collect();
        ticks.sort_by(f64::total_cmp);
        let mut last = f64::NEG_INFINITY;
        for x in ticks {
            let place = axis.place(x);
            if place - last >= LABEL_ROOM {
                last = place;
                put(format!(
                    "<text x=\"{place:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{x}</text>",
                    bottom + 18.0
                ));
            }
        }
        put(format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}{}</text>",
            (LEFT + WIDTH - RIGHT) / 2.0,
            bottom + 40.0,
            escaped(&self.x_label),
            if axis.logarithmic {
                ", logarithmic"
            } else {
                ""
            }
        ));
        put("</svg>".to_owned());
        svg
    }
}

impl Panel {
    fn svg(&self, top: f64, axis: &Axis) -> String {
        let points = self.series.iter().flat_map(|series| &series.points);
        let largest = points
            .map(|point| point.largest.max(point.y))
            .filter(|y| y.is_finite())
            .fold(0.0, f64::max);
        let largest = if largest > 0.0 { largest } else { 1.0 };
        let step = tick_step(largest);
        let end = (largest / step).ceil() * step;
        // From zero: a chart of speeds that starts elsewhere exaggerates.
        let place = |y: f64| top + PANEL * (1.0 - (y / end).clamp(0.0, 1.0));
        let mut svg = String::new();
        let mut tick = 0.0;
        while tick <= end + step / 2.0 {
            let y = place(tick);
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" stroke=\"#dddddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0,
                number(tick, step)
            );
            tick += step;
        }
        let middle = top + PANEL / 2.0;
        let _ = writeln!(
            svg,
            "<text transform=\"translate(20 {middle:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            escaped(&self.label)
        );
        for (number, series) in self.series.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            let places: Vec<String> = series
                .points
                .iter()
                .map(|point| format!("{:.1},{:.1}", axis.place(point.x), place(point.y)))
                .collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                places.join(" ")
            );
            for point in &series.points {
                let (x, y) = (axis.place(point.x), place(point.y));
                let _ = writeln!(
                    svg,
                    "<line x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\" \
                     stroke=\"{colour}\"/><circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" \
                     fill=\"{colour}\"><title>{}: {:.3}, {:.3} to {:.3}</title></circle>",
                    place(point.least),
                    place(point.largest),
                    point.x,
                    point.y,
                    point.least,
                    point.largest
                );
            }
            // The legend stands inside, where lines of falling speed leave room.
            if self.series.len() > 1 {
                let (x, y) = (WIDTH - RIGHT - 8.0, top + 16.0 + 16.0 * number as f64);
                let _ = writeln!(
                    svg,
                    "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"end\" fill=\"{colour}\">{}</text>",
                    escaped(&series.name)
                );
            }
        }
        svg
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(x: f64, y: f64) -> Point {
        Point {
            x,
            y,
            least: 0.9 * y,
            largest: 1.1 * y,
        }
    }

    #[test]
    fn ticks_are_round_and_few() {
        for (range, step) in [
            (1.0, 0.2),
            (7.3, 2.0),
            (99.0, 20.0),
            (0.04, 0.01),
            (260.0, 100.0),
        ] {
            assert!((tick_step(range) - step).abs() < 1e-12, "{range}");
        }
        assert_eq!(
            (number(0.6, 0.2).as_str(), number(20.0, 20.0).as_str()),
            ("0.6", "20")
        );
    }

    #[test]
    fn points_lie_where_their_values_are() {
        let chart = Chart {
            title: "a <b> & \"c\"\u{1b}".to_owned(),
            subtitle: String::new(),
            x_label: "context, tokens".to_owned(),
            panels: vec![Panel {
                label: "decode, t/s".to_owned(),
                series: vec![Series {
                    name: "new".to_owned(),
                    points: vec![point(512.0, 10.0), point(2048.0, 8.0), point(8192.0, 4.0)],
                }],
            }],
        };
        let svg = chart.svg();
        assert!(
            svg.contains("a &lt;b&gt; &amp; &quot;c&quot;\u{fffd}"),
            "{svg}"
        );
        assert!(svg.contains(">context, tokens, logarithmic<"), "{svg}");
        let line = svg.split("<polyline points=\"").nth(1).unwrap();
        let points: Vec<Vec<f64>> = line
            .split('"')
            .next()
            .unwrap()
            .split(' ')
            .map(|point| point.split(',').map(|x| x.parse().unwrap()).collect())
            .collect();
        // 2048 is halfway between 512 and 8192, for logarithms.
        assert!((points[1][0] - (points[0][0] + points[2][0]) / 2.0).abs() < 0.11);
        // The axis goes from 0 to 15: the largest measured is 11, a step is 5.
        for (point, y) in points.iter().zip([10.0, 8.0, 4.0]) {
            assert!(
                (point[1] - (TOP + PANEL * (1.0 - y / 15.0))).abs() < 0.06,
                "{points:?}"
            );
        }
    }

    #[test]
    fn nothing_and_one_point_are_charts_too() {
        for points in [vec![], vec![point(8.0, 0.0)]] {
            let series = vec![Series {
                name: String::new(),
                points,
            }];
            let panel = Panel {
                label: String::new(),
                series,
            };
            let chart = Chart {
                title: String::new(),
                subtitle: String::new(),
                x_label: String::new(),
                panels: vec![panel],
            };
            let svg = chart.svg();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
