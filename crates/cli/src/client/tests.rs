//! The client against sockets that answer as told.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::thread::JoinHandle;

use super::*;

/// Answers one request with these bytes, then closes; gives what was asked.
fn answering(answer: &'static str) -> (Client, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = Vec::new();
        let mut piece = [0; 4096];
        loop {
            let count = stream.read(&mut piece).unwrap();
            assert!(count > 0, "the client hung up");
            asked.extend_from_slice(&piece[..count]);
            // A body of ours ends its object; a request without one ends its head.
            let end: &[u8] = if asked.starts_with(b"GET") { b"\r\n\r\n" } else { b"}" };
            if asked.ends_with(end) {
                break;
            }
        }
        stream.write_all(answer.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Both).unwrap();
        String::from_utf8(asked).unwrap()
    });
    let token = Some("secret".to_owned());
    (Client::new(endpoint, Some("eu-west".to_owned()), token, Duration::from_secs(10)), server)
}

fn write(client: &Client) -> CliError {
    client.write::<Value>("/v1/ops", &serde_json::json!({"ops": []})).unwrap_err()
}

#[test]
fn a_refusal_keeps_its_code_what_was_applied_and_its_sentence() {
    let (client, server) = answering(
        "HTTP/1.1 409 Conflict\r\ncontent-type: application/problem+json\r\nconnection: close\r\n\r\n\
         {\"status\":409,\"detail\":\"the key is a register\",\"code\":\"wrong_type\",\"applied\":\"no\"}",
    );
    let expected = CliError::new(Exit::Conflict, "eu-west: the key is a register")
        .code("wrong_type")
        .applied(Applied::No);
    assert_eq!(write(&client), expected);
    let asked = server.join().unwrap().to_lowercase();
    assert!(asked.starts_with("post /v1/ops http/1.1\r\n"), "{asked}");
    assert!(asked.contains("authorization: bearer secret\r\n"), "{asked}");
}

#[test]
fn a_connection_lost_after_sending_leaves_the_outcome_of_a_write_unknown() {
    let (client, server) = answering("");
    let error = write(&client);
    server.join().unwrap();
    assert!(error.is_unreachable());
    assert_eq!(error.applied, Some(Applied::Unknown));
}

#[test]
fn an_answer_cut_short_leaves_the_outcome_of_a_write_unknown() {
    let (client, server) = answering("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"token\":");
    let error = write(&client);
    server.join().unwrap();
    assert_eq!(error.applied, Some(Applied::Unknown));
}

#[test]
fn a_write_that_nobody_took_was_not_applied() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = write(&Client::new(endpoint, None, None, Duration::from_secs(10)));
    assert!(error.is_unreachable());
    assert_eq!(error.applied, Some(Applied::No));
}

#[test]
fn an_answer_that_is_no_regions_is_an_error_and_not_a_panic() {
    let (client, server) = answering("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello");
    let error = client.get::<Value>("/v1/status", &[]).unwrap_err();
    server.join().unwrap();
    assert!(error.text().contains("did not answer as a region does"), "{}", error.text());
}

#[test]
fn keys_are_encoded_so_that_no_byte_of_them_means_anything_in_a_path() {
    assert_eq!(percent_encoded("views:1"), "views%3A1");
    assert_eq!(percent_encoded("../a?b#c%ü"), "%2E%2E%2Fa%3Fb%23c%25%C3%BC");
}
