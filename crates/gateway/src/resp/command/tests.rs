//! Requests and what they are taken for.

use super::*;

fn parsed(line: &str) -> Result<Command, Refusal> {
    parse(line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect())
}

fn refused(line: &str) -> String {
    let refusal = parsed(line).unwrap_err();
    format!("{} {}", refusal.word, refusal.text)
}

#[test]
fn numbers_are_taken_as_redis_takes_them() {
    for (text, number) in [("0", 0), ("-1", -1), ("9223372036854775807", i64::MAX)] {
        assert_eq!(integer(text.as_bytes()), Ok(number));
    }
    for text in ["", "-", "+1", "01", "-0", "1 ", "1.0", "9223372036854775808", "1e3", "٣"] {
        assert!(integer(text.as_bytes()).is_err(), "{text}");
    }
    assert_eq!(refused("INCRBY k 1.5"), "ERR value is not an integer or out of range");
    assert_eq!(refused("DECRBY k -9223372036854775808"), "ERR decrement would overflow");
}

#[test]
fn names_are_taken_in_any_case_and_a_wrong_number_of_arguments_is_said() {
    let key = Bytes::from_static(b"k");
    assert_eq!(parsed("InCr k"), Ok(Command::Write(Write::Add { key, delta: 1 })));
    assert_eq!(refused("incr"), "ERR wrong number of arguments for 'incr' command");
    assert_eq!(refused("GET a b"), "ERR wrong number of arguments for 'get' command");
    assert_eq!(refused("MGET"), "ERR wrong number of arguments for 'mget' command");
}

#[test]
fn every_command_of_the_table_is_parsed() {
    for spec in table::COMMANDS {
        let args_count = usize::try_from(spec.arity.unsigned_abs()).unwrap();
        let mut args = vec![Bytes::from(spec.name)];
        args.resize(args_count, Bytes::from_static(b"0"));
        if let Err(refusal) = parse(args) {
            // The arguments are nonsense for these; their number is right.
            assert!(matches!(spec.name, "client" | "config" | "session"), "{}: {}", spec.name, refusal.text);
        }
    }
}

#[test]
fn an_unknown_command_is_quoted_but_not_at_length() {
    let text = refused("FOO a b");
    assert_eq!(text, "ERR unknown command 'FOO', with args beginning with: 'a' 'b' ");
    let long = refused(&format!("{} {}", "x".repeat(1_000), "y".repeat(1_000)));
    assert!(long.len() < 400, "{long}");
}

#[test]
fn what_cannot_be_right_is_refused_with_a_reason() {
    for line in [
        "SET k v NX",
        "SET k v EX 5",
        "SET k v GET",
        "SETNX k v",
        "INCRBYFLOAT k 1.0",
        "EVAL x 0",
        "FLUSHALL",
        "WATCH k",
        "DBSIZE",
    ] {
        let text = refused(line);
        assert!(text.starts_with("NOTSUPPORTED ") && text.len() > 30, "{line}: {text}");
    }
    assert_eq!(refused("SET k v BOO"), "ERR syntax error");
}

#[test]
fn a_key_or_value_above_its_limit_is_refused_on_its_own() {
    let long = "k".repeat(limits::KEY_BYTES_MAX + 1);
    assert!(refused(&format!("GET {long}")).contains("the limit is"));
    assert!(refused(&format!("DEL a {long}")).contains("the limit is"));
    let value = "v".repeat(limits::VALUE_BYTES_MAX + 1);
    assert!(refused(&format!("SET k {value}")).contains("the limit is"));
}
