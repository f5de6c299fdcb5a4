//! Durations on the command line: `250ms`, `5s`, `2m`, or plain seconds.

use std::time::Duration;

/// Longer than anybody waits, and far from any overflow.
const SECONDS_MAX: f64 = 86_400.0;

/// Reads a duration.
///
/// Errors: a sentence for clap to print.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits_end);
    let seconds_per_unit = match unit.trim() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return Err("a duration is a number and ms, s, m or h, such as 250ms or 5s".to_owned()),
    };
    let number: f64 =
        number.parse().map_err(|_| "a duration is a number and ms, s, m or h, such as 5s".to_owned())?;
    let seconds = number * seconds_per_unit;
    if seconds > SECONDS_MAX {
        return Err("at most 24h".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them_and_others_are_refused() {
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "s", "5 parsecs", "-1s", "1.2.3s", "25h", "1e9s", "inf", "nan"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
