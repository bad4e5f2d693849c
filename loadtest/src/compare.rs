//! Two results beside each other.

use serde_json::Value;

/// A number that two results have.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// Its place: names with dots between them.
    pub name: String,
    /// In the first result.
    pub before: f64,
    /// In the second.
    pub after: f64,
}

/// Parts of a result that are no figures: what was asked for, and series.
const LEFT_OUT: &[&str] = &["machine", "timeline", "distribution", "missing"];

/// What both results measured, in the order of the first.
///
/// # Errors
/// They are results of different loads.
pub fn compare(before: &Value, after: &Value) -> Result<Vec<Compared>, String> {
    let (one, other) = (&before["shape"], &after["shape"]);
    if !one.is_string() || one != other {
        return Err(format!(
            "the results are of different loads ({one} and {other}); expected two of the same"
        ));
    }
    let mut found = Vec::new();
    walk("", before, after, &mut found);
    Ok(found)
}

fn walk(name: &str, before: &Value, after: &Value, found: &mut Vec<Compared>) {
    let inner = |key: &str| {
        if name.is_empty() {
            key.to_owned()
        } else {
            format!("{name}.{key}")
        }
    };
    match (before, after) {
        (Value::Object(one), Value::Object(other)) => {
            for (key, value) in one {
                if let Some(after) = other.get(key).filter(|_| !LEFT_OUT.contains(&key.as_str())) {
                    walk(&inner(key), value, after, found);
                }
            }
        }
        (Value::Array(one), Value::Array(other)) => {
            for (at, (value, after)) in one.iter().zip(other).enumerate() {
                walk(&inner(&at.to_string()), value, after, found);
            }
        }
        (Value::Number(one), Value::Number(other)) => {
            if let (Some(before), Some(after)) = (one.as_f64(), other.as_f64()) {
                let name = name.to_owned();
                found.push(Compared {
                    name,
                    before,
                    after,
                });
            }
        }
        _ => {}
    }
}

/// A table for people.
pub fn table(compared: &[Compared]) -> String {
    let mut lines = vec![format!("{:<44} {:>16} {:>16} {:>9}", "", "A", "B", "B / A")];
    for one in compared {
        let ratio = if one.before == 0.0 {
            if one.after == 0.0 {
                "=".to_owned()
            } else {
                "-".to_owned()
            }
        } else {
            format!("{:.3}x", one.after / one.before)
        };
        let (before, after) = (number(one.before), number(one.after));
        lines.push(format!(
            "{:<44} {before:>16} {after:>16} {ratio:>9}",
            one.name
        ));
    }
    lines.join("\n")
}

/// Three digits behind the point where they say something.
pub(crate) fn number(value: f64) -> String {
    if value.fract() == 0.0 || value.abs() >= 1000.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.3}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_that_both_have_are_compared_and_series_are_left_out() {
        let before = json!({
            "shape": "pairs", "deliveries_per_s": 100.0, "broker": { "cores": 0.5 },
            "timeline": [{ "per_s": 1 }], "only": 1, "flows": [{ "qos": 1 }],
        });
        let mut after = before.clone();
        after["deliveries_per_s"] = json!(150.0);
        after["only"] = Value::Null;
        let found = compare(&before, &after).unwrap();
        let names: Vec<&str> = found.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["broker.cores", "deliveries_per_s", "flows.0.qos"]);
        assert!(table(&found).contains("1.500x"));
        after["shape"] = json!("churn");
        assert!(compare(&before, &after).unwrap_err().contains("different"));
    }
}
