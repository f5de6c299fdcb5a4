//! What regions hold, read through the SDK, and how that differs from what they must hold.
//!
//! Decides nothing: the [`Oracle`] says what is right.

use std::collections::BTreeMap;
use std::convert::Infallible;

use tombolo_sdk::{Client, Value};
use tombolo_testbed::oracle::Oracle;

use crate::bed::REGIONS;
use crate::within;

/// Keys of one read.
const READ_KEYS: usize = 4_096;

/// The values of keys in one region, as text; none for what is absent.
///
/// Panics: if the region does not answer.
pub async fn read(client: &Client, keys: &[String]) -> BTreeMap<String, Option<String>> {
    let mut values = BTreeMap::new();
    for keys in keys.chunks(READ_KEYS) {
        let found = within("a read", 20, client.read(keys, None)).await;
        let found = found.unwrap_or_else(|error| panic!("a read: {error}"));
        values.extend(keys.iter().cloned().zip(found.into_iter().map(text)));
    }
    values
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::Absent => None,
        Value::Counter(value) => Some(value.to_string()),
        Value::Register { value, .. } => Some(String::from_utf8_lossy(&value).into_owned()),
    }
}

/// Where the regions differ from the oracle; `clients` in the order of [`REGIONS`].
///
/// Panics: if a region does not answer.
pub async fn differences(clients: &[Client], oracle: &Oracle) -> Vec<String> {
    let keys: Vec<String> = oracle.expectations().map(|(key, _)| key.to_owned()).collect();
    let mut all = Vec::new();
    for (region, client) in REGIONS.iter().zip(clients) {
        let values = read(client, &keys).await;
        let found = oracle.compare(|key| Ok::<_, Infallible>(values[key].clone()));
        let found = match found {
            Ok(found) => found,
            Err(never) => match never {},
        };
        all.extend(found.into_iter().map(|difference| format!("{region}: {difference}")));
    }
    all
}

/// The sum of counters in one region, which is 0 where there is none.
///
/// Panics: if the region does not answer, or a key holds no number.
pub async fn sum(client: &Client, keys: &[String]) -> i128 {
    let values = read(client, keys).await;
    values.into_values().flatten().map(|value| value.parse::<i128>().expect("a counter")).sum()
}
