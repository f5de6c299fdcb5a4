//! Tokens and session ids as clients hand them back.

use data_encoding::BASE64URL_NOPAD;
use tombolo_causality::Time;
use tombolo_codec::{SealKey, SessionToken, Token};
use tombolo_fuzz::{drive, seeds, within_allowance};

fn tokens() -> Vec<Token> {
    let positions = |shards: std::ops::Range<u16>| shards.map(|n| seeds::position(n, n.into())).collect();
    let mut two = Token { positions: positions(0..3), time: Time(77) };
    two.positions[2].log.epoch.0 += 1;
    vec![
        Token::default(),
        Token { positions: positions(0..1), time: Time(1) },
        two,
        Token { positions: positions(0..16), time: Time(u64::MAX) },
    ]
}

fn seeds() -> Vec<Vec<u8>> {
    let tokens = tokens().into_iter().map(|token| token.encode(&seeds::KEY));
    let sessions = (0..2).map(|n| SessionToken(seeds::session(n)).encode(&seeds::KEY));
    tokens.chain(sessions).map(String::into_bytes).collect()
}

#[test]
fn no_text_but_one_that_was_sealed_here_is_a_token_or_a_session() {
    let seeds = seeds();
    drive(&seeds, |bytes, _| {
        let Ok(text) = String::from_utf8(bytes.to_vec()) else { return false };
        if let Ok(token) = within_allowance(text.len(), || Token::decode(&text, &seeds::KEY)) {
            assert_eq!(token.encode(&seeds::KEY), text);
            assert!(seeds.contains(&text.into_bytes()));
            true
        } else if let Ok(session) = within_allowance(text.len(), || SessionToken::decode(&text, &seeds::KEY))
        {
            assert_eq!(session.encode(&seeds::KEY), text);
            assert!(seeds.contains(&text.into_bytes()));
            true
        } else {
            false
        }
    });
}

#[test]
fn what_a_client_peeks_at_is_read_or_refused() {
    // The seal does not stand in the way here, so edits reach what it covers.
    let decoded = |text: &Vec<u8>| BASE64URL_NOPAD.decode(text).expect("a seed is base64");
    let bare: Vec<Vec<u8>> = seeds().iter().map(decoded).collect();
    drive(&bare, |bytes, _| {
        let text = BASE64URL_NOPAD.encode(bytes);
        let Ok(mut token) = within_allowance(text.len(), || Token::peek(&text)) else { return false };
        let mut again = Token::peek(&token.encode(&seeds::KEY)).expect("what was read can be written");
        // Written in order of logs, whatever order was read.
        token.positions.sort_unstable();
        again.positions.sort_unstable();
        assert_eq!(again, token);
        true
    })
    .got_inside();
}

#[test]
fn seeds_are_read_and_another_cluster_refuses_them() {
    for token in tokens() {
        let text = token.encode(&seeds::KEY);
        assert_eq!(Token::decode(&text, &seeds::KEY), Ok(token));
        assert!(Token::decode(&text, &SealKey::new([4; 32])).is_err());
    }
}
