//! Several runs as one report: of every number its median, of every count of failures the sum.

use serde_json::{Map, Number, Value};

/// Fields that are summed, because a median would hide a failure.
const SUMMED: [&str; 2] = ["errors", "timeouts"];

/// One object from those of several runs. What is no number is as in the first.
pub(crate) fn median(runs: &[Value]) -> Value {
    let Some(first) = runs.first() else { return Value::Null };
    match first {
        Value::Object(fields) => {
            let merged = fields.keys().map(|name| {
                let values: Vec<Value> = runs.iter().filter_map(|run| run.get(name)).cloned().collect();
                let value = if SUMMED.contains(&name.as_str()) { sum(&values) } else { median(&values) };
                (name.clone(), value)
            });
            Value::Object(merged.collect::<Map<_, _>>())
        }
        Value::Array(items) => (0..items.len())
            .map(|at| median(&runs.iter().filter_map(|run| run.get(at)).cloned().collect::<Vec<_>>()))
            .collect(),
        Value::Number(_) => middle(runs),
        other => other.clone(),
    }
}

/// Nearest rank: a value that was measured, never a mean of two.
fn middle(runs: &[Value]) -> Value {
    let mut numbers: Vec<&Number> = runs.iter().filter_map(Value::as_number).collect();
    numbers.sort_by(|a, b| a.as_f64().unwrap_or(0.0).total_cmp(&b.as_f64().unwrap_or(0.0)));
    numbers
        .get(numbers.len().div_ceil(2).saturating_sub(1))
        .map_or(Value::Null, |number| Value::Number((*number).clone()))
}

fn sum(runs: &[Value]) -> Value {
    runs.iter().filter_map(Value::as_u64).sum::<u64>().into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_medians_at_any_depth_and_failures_are_sums() {
        let run = |rate: f64, p99: u64, errors: u64| json!({"rate": rate, "ack_ms": {"p99": p99}, "pairs": [{"from": "a", "n": p99}], "errors": errors});
        let merged = median(&[run(3.5, 1, 0), run(1.5, 30, 2), run(2.5, 2, 1)]);
        assert_eq!(
            merged,
            json!({"rate": 2.5, "ack_ms": {"p99": 2}, "pairs": [{"from": "a", "n": 2}], "errors": 3})
        );
    }

    #[test]
    fn one_run_is_as_it_was() {
        let run = json!({"a": 1, "b": null, "c": "text", "d": [1.5]});
        assert_eq!(median(std::slice::from_ref(&run)), run);
        assert_eq!(median(&[json!(1), json!(2)]), json!(1));
    }
}
