//! The picture of the table: goodput over offered load, both over the capacity.

/// Of the plot, and of the space around it.
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 20.0;
const MOST_LOAD: f64 = 2.1;
const MOST_GOODPUT: f64 = 1.2;

const COLOURS: [&str; 4] = ["#999999", "#d99000", "#3572b0", "#2a8a3e"];

/// A line for each of `series`, a name and its points of load and goodput.
pub(crate) fn svg(series: &[(&str, Vec<(f64, f64)>)]) -> String {
    let mut parts = vec![format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{}" height="{}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="white"/>"#,
        LEFT + WIDTH + 170.0,
        TOP + HEIGHT + 50.0
    )];
    for step in 0..=6 {
        let goodput = f64::from(step) * 0.2;
        let (left, right, y) = (LEFT, x(MOST_LOAD), y(goodput));
        parts.push(format!(r##"<line x1="{left}" y1="{y}" x2="{right}" y2="{y}" stroke="#dddddd"/>"##));
        parts.push(format!(r#"<text x="{}" y="{}" text-anchor="end">{goodput:.1}</text>"#, LEFT - 8.0, y + 4.0));
    }
    for (load, _) in series.first().map_or(&[][..], |(_, points)| points) {
        parts.push(text(x(*load), y(0.0) + 18.0, "middle", &format!("{load}")));
    }
    parts.push(text(x(MOST_LOAD / 2.0), y(0.0) + 38.0, "middle", "offered load / capacity"));
    parts.push(format!(
        r#"<text transform="translate(16 {}) rotate(-90)" text-anchor="middle">answers in time / capacity</text>"#,
        y(MOST_GOODPUT / 2.0)
    ));
    for (index, (name, points)) in series.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let line: Vec<String> = points.iter().map(|(load, good)| format!("{:.1},{:.1}", x(*load), y(*good))).collect();
        let line = line.join(" ");
        parts.push(format!(r#"<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>"#));
        for (load, good) in points {
            parts.push(format!(r#"<circle cx="{:.1}" cy="{:.1}" r="3" fill="{colour}"/>"#, x(*load), y(*good)));
        }
        // The names stand apart from the lines' ends, which may lie on each other.
        let legend = TOP + 14.0 + 20.0 * index as f64;
        let left = x(MOST_LOAD) + 12.0;
        let (right, middle) = (left + 18.0, legend - 4.0);
        parts.push(format!(
            r#"<line x1="{left}" y1="{middle}" x2="{right}" y2="{middle}" stroke="{colour}" stroke-width="2"/>"#
        ));
        parts.push(text(right + 6.0, legend, "start", name));
    }
    parts.push("</svg>\n".to_owned());
    parts.join("\n")
}

fn text(x: f64, y: f64, anchor: &str, text: &str) -> String {
    format!(r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#)
}

fn x(load: f64) -> f64 {
    LEFT + load / MOST_LOAD * WIDTH
}

fn y(goodput: f64) -> f64 {
    TOP + (1.0 - goodput / MOST_GOODPUT) * HEIGHT
}
