//! Inline commands: a line of words, as someone types them into a raw connection.

use bytes::Bytes;

use super::request::{ARGS_MAX, ProtocolError};

/// The words of a line.
///
/// Double quotes know `\n`, `\r`, `\t`, `\a`, `\b`, `\xHH` and `\` before anything else; single quotes know `\'`.
///
/// Errors: [`ProtocolError::UnbalancedQuotes`] if a quote is not closed or text follows it without a space,
/// [`ProtocolError::InlineTooLong`] above [`ARGS_MAX`] words.
pub(super) fn split(line: &[u8]) -> Result<Vec<Bytes>, ProtocolError> {
    // All words in one piece of memory: a line of single letters would else cost many times its length.
    let (mut text, mut ends) = (Vec::with_capacity(line.len()), Vec::new());
    let mut rest = line.trim_ascii_start();
    while !rest.is_empty() {
        if ends.len() == ARGS_MAX {
            return Err(ProtocolError::InlineTooLong);
        }
        rest = word(rest, &mut text).ok_or(ProtocolError::UnbalancedQuotes)?.trim_ascii_start();
        ends.push(text.len());
    }
    let (text, mut start) = (Bytes::from(text), 0);
    let slice = |end: usize| text.slice(std::mem::replace(&mut start, end)..end);
    Ok(ends.into_iter().map(slice).collect())
}

/// Appends the first word and gives what follows it.
fn word<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    while let Some((&byte, tail)) = rest.split_first() {
        match byte {
            b'"' | b'\'' => {
                rest = quoted(byte, tail, word)?;
                let is_end = rest.first().is_none_or(u8::is_ascii_whitespace);
                return is_end.then_some(rest);
            }
            _ if byte.is_ascii_whitespace() => break,
            _ => word.push(byte),
        }
        rest = tail;
    }
    Some(rest)
}

/// Appends what stands up to the closing quote and gives what follows it.
fn quoted<'a>(quote: u8, mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let (&byte, tail) = rest.split_first()?;
        rest = tail;
        if byte == quote {
            return Some(rest);
        }
        if byte != b'\\' || (quote == b'\'' && rest.first() != Some(&b'\'')) {
            word.push(byte);
            continue;
        }
        let (&escaped, tail) = rest.split_first()?;
        rest = tail;
        word.push(match escaped {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'b' => 0x08,
            b'a' => 0x07,
            b'x' => match hex_byte(rest) {
                Some(byte) => {
                    rest = &rest[2..];
                    byte
                }
                None => b'x',
            },
            other => other,
        });
    }
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*digits.get(at)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_splits_into_words_and_quotes_hold_them_together() {
        let words = split(br#"  set k "a b\x41\n\"" 'it\'s' x"#).unwrap();
        assert_eq!(words, [&b"set"[..], b"k", b"a bA\n\"", b"it's", b"x"]);
        assert_eq!(split(b"   ").unwrap(), Vec::<Bytes>::new());
        assert_eq!(split(b"a \"\"").unwrap(), [&b"a"[..], b""]);
    }

    #[test]
    fn an_open_quote_is_refused() {
        for line in [&b"get \"a"[..], b"get 'a", b"get \"a\"b", b"get \"a\\"] {
            assert_eq!(split(line), Err(ProtocolError::UnbalancedQuotes), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn an_inline_command_has_no_more_words_than_an_array() {
        assert_eq!(split(&b"a ".repeat(ARGS_MAX)).map(|words| words.len()), Ok(ARGS_MAX));
        assert_eq!(split(&b"a ".repeat(ARGS_MAX + 1)), Err(ProtocolError::InlineTooLong));
    }
}
