//! A result as one page of HTML that needs nothing else: tables, and plots as inline SVG.

use std::fmt::Write;

use serde_json::Value;

use crate::compare::number;

/// The page for any result of this tool.
pub fn page(result: &Value) -> String {
    let shape = result["shape"].as_str().unwrap_or("load");
    let mut body = String::new();
    let _ = write!(body, "<h1>turnpike loadtest {}</h1>", escape(shape));
    let machine = &result["machine"];
    let _ = write!(
        body,
        "<p><code>{}</code><br>{}, {} cores, kernel {}, {} seconds after 1970</p>",
        escape(text(&machine["command"])),
        escape(text(&machine["processor"])),
        machine["cores"],
        escape(text(&machine["kernel"])),
        machine["unix_s"],
    );
    body.push_str(&plots(result));
    let mut rows = Vec::new();
    leaves("", result, &mut rows);
    body.push_str("<h2>Figures</h2><table>");
    for (name, value) in rows {
        let _ = write!(
            body,
            "<tr><th>{}</th><td>{}</td></tr>",
            escape(&name),
            escape(&value)
        );
    }
    body.push_str("</table>");
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <title>turnpike loadtest {}</title><style>{STYLE}</style></head>\
         <body>{body}</body></html>\n",
        escape(shape)
    )
}

const STYLE: &str = "body{font:14px system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;\
color:#222;background:#fff}table{border-collapse:collapse}th{font-weight:normal;text-align:left;\
padding:1px 2em 1px 0}td{text-align:right}svg{display:block;margin:0 0 1.5em}\
svg text{font:11px system-ui,sans-serif;fill:#555}";

/// Series of a timeline that are drawn: field, title, factor.
const SERIES: &[(&str, &str, f64)] = &[
    ("per_s", "Deliveries or connections per second", 1.0),
    ("p99_us", "Latency p99, µs", 1.0),
    ("broker_cores", "CPU of the broker, cores", 1.0),
    ("own_cores", "CPU of the load generator, cores", 1.0),
    (
        "broker_rss_bytes",
        "Memory of the broker, MiB",
        1.0 / 1_048_576.0,
    ),
];

fn plots(result: &Value) -> String {
    let mut out = String::new();
    let mut distributions = Vec::new();
    find_distributions("", result, &mut distributions);
    for (name, points) in distributions {
        let title = format!("Distribution of {name}: µs by part of all (1 - 10^-x)");
        out.push_str(&plot(&title, &points, "nines"));
    }
    for (field, title, factor) in SERIES {
        let moments = result["timeline"].as_array().into_iter().flatten();
        let points: Vec<(f64, f64)> = moments
            .filter_map(|moment| Some((moment["at_s"].as_f64()?, moment[field].as_f64()? * factor)))
            .collect();
        if points.len() > 1 {
            out.push_str(&plot(title, &points, "s"));
        }
    }
    out
}

/// Every latency distribution in the result; the quantile as a count of nines.
fn find_distributions(name: &str, value: &Value, found: &mut Vec<(String, Vec<(f64, f64)>)>) {
    let Value::Object(fields) = value else { return };
    for (key, value) in fields {
        if key == "distribution" {
            let steps = value.as_array().into_iter().flatten();
            let points = steps.filter_map(|step| {
                let (part, us) = (step[0].as_f64()?, step[1].as_f64()?);
                (part < 1.0).then(|| (-(1.0 - part).log10(), us))
            });
            let points: Vec<_> = points.collect();
            if points.len() > 1 {
                found.push((name.to_owned(), points));
            }
        } else {
            let inner = if name.is_empty() {
                key.clone()
            } else {
                format!("{name}.{key}")
            };
            find_distributions(&inner, value, found);
        }
    }
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 180.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 20.0;

/// One line in a frame, from zero upwards.
fn plot(title: &str, points: &[(f64, f64)], unit: &str) -> String {
    let most = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).fold(0.0, f64::max).max(1e-9);
    let (right, top) = (most(|point| point.0), most(|point| point.1));
    let x = |value: f64| LEFT + value / right * (WIDTH - LEFT - 10.0);
    let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM);
    let mut out = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\">\
         <title>{0}</title><text x=\"{LEFT}\" y=\"14\">{0}</text>",
        escape(title)
    );
    for part in [0.0, 0.5, 1.0] {
        let (at, label) = (y(top * part), number(top * part));
        let _ = write!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            WIDTH - 10.0,
            LEFT - 6.0,
            at + 4.0
        );
        let label = number(right * part);
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label} {unit}</text>",
            x(right * part),
            HEIGHT - 4.0
        );
    }
    out.push_str("<polyline fill=\"none\" stroke=\"#06c\" stroke-width=\"1.5\" points=\"");
    for (at, value) in points {
        let _ = write!(out, "{:.1},{:.1} ", x(*at), y(*value));
    }
    out.push_str("\"/></svg>");
    out
}

fn leaves(name: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                if !matches!(key.as_str(), "machine" | "timeline" | "distribution") {
                    let inner = if name.is_empty() {
                        key.clone()
                    } else {
                        format!("{name}.{key}")
                    };
                    leaves(&inner, value, rows);
                }
            }
        }
        Value::Array(items) => {
            for (at, value) in items.iter().enumerate() {
                leaves(&format!("{name}.{at}"), value, rows);
            }
        }
        Value::Null => {}
        Value::Number(found) => {
            let found = found.as_f64().map_or_else(|| found.to_string(), number);
            rows.push((name.to_owned(), found));
        }
        Value::String(text) => rows.push((name.to_owned(), text.clone())),
        Value::Bool(is) => rows.push((name.to_owned(), is.to_string())),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("unknown")
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_page_stands_alone_with_plots_and_figures() {
        let result = json!({
            "shape": "pairs <b>",
            "machine": { "command": "x & y", "cores": 2, "unix_s": 1 },
            "latency": { "p50_us": 10.5, "distribution": [[0.0, 1.0], [0.5, 10.0], [0.9, 40.0], [1.0, 50.0]] },
            "timeline": [
                { "at_s": 0.5, "per_s": 10.0, "p99_us": null },
                { "at_s": 1.0, "per_s": 20.0, "p99_us": 3.0 },
            ],
        });
        let page = page(&result);
        assert!(page.starts_with("<!DOCTYPE html>"));
        assert!(page.contains("pairs &lt;b&gt;") && page.contains("x &amp; y"));
        assert_eq!(page.matches("<svg").count(), 2, "distribution and rate");
        assert!(page.contains("<th>latency.p50_us</th><td>10.500</td>"));
        assert!(!page.contains("http"), "nothing from elsewhere");
        assert!(!page.contains("NaN") && !page.contains("inf"));
    }
}
