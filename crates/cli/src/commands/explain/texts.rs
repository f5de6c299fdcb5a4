//! What every refusal means, what it leaves applied, and what to do next: for people, in one place.

use tombolo_codec::RejectCode;

/// A code in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Explanation {
    /// One sentence that stands alone in a list.
    pub(super) meaning: &'static str,
    /// What took effect.
    pub(super) applied: &'static str,
    /// What the caller, or the operator, does now.
    pub(super) next: &'static str,
}

/// Nothing of a refused request was logged.
const NOTHING: &str = "Nothing.";
/// The caller cannot know.
const UNKNOWN: &str = "Unknown: all, a part or nothing of it. In a session, send it again under the same number: \
                       it counts once.";

/// The words for a code.
pub(super) const fn explanation(code: RejectCode) -> Explanation {
    let (meaning, applied, next) = match code {
        RejectCode::WrongType => (
            "The key holds, or is declared as, another kind than the op's.",
            NOTHING,
            "See its kind with `tombolo get KEY -o json`, and what is declared in cluster.toml under [[counter]] and \
             [[register]]; use another key, or delete this one first.",
        ),
        RejectCode::Overflow => (
            "The counter would leave the range of a signed 64-bit integer, or has left it by merging.",
            NOTHING,
            "Add the other way, or delete the counter to begin at 0; HTTP reads it also beyond the range.",
        ),
        RejectCode::StampBehind => (
            "A first attempt of a set or delete carried a stamp that is not above the cell's, so it would have been \
             lost.",
            NOTHING,
            "Write again with a stamp above `stamp_needed`, or without one: the region then draws it.",
        ),
        RejectCode::ClockSkew => (
            "A stamp lies too far ahead of this region's clock, or this region's clock is ahead of its peers'.",
            NOTHING,
            "See the clock in `tombolo status`; correct the clock of the machine that is ahead. Counters and reads go \
             on meanwhile.",
        ),
        RejectCode::Stale => (
            "The request's number lies below the session's settled mark: its outcome was answered, or given up, \
             before.",
            "What the earlier answer said; this copy changed nothing.",
            "Do not send it under a new number if the first may have counted; read the key to see.",
        ),
        RejectCode::Conflict => (
            "The same number of the same session came with other ops.",
            "The ops that came first under this number; these changed nothing.",
            "Two writers share a session, or a number was used twice: one session per writer, one number per request.",
        ),
        RejectCode::SessionExpired => (
            "The session, or the fixed stamp, is older than the window in which retries are recognised, or unknown.",
            "Nothing by this copy; what an earlier copy did stays.",
            "Open a new session for new requests; read the key before repeating an old one.",
        ),
        RejectCode::SessionFull => (
            "The session holds too many numbers above its settled mark.",
            NOTHING,
            "Send `settled` with the number below which all is answered, or wait for outstanding answers; after a restart of its \
             region a session takes no more of them, open a new one.",
        ),
        RejectCode::NotWhole => (
            "This region restarted and does not know yet how far this session had come.",
            "Nothing by this attempt; an earlier one may have counted.",
            "Send it again under the same number, here or to another region; `tombolo status` names the regions it waits for.",
        ),
        RejectCode::NotAuthority => (
            "Another region decides about this session, and this op cannot be logged conditionally here.",
            NOTHING,
            "Ask the session's home region, which POST /v1/sessions named.",
        ),
        RejectCode::TooLarge => (
            "A key, value, request or batch is above its limit.",
            NOTHING,
            "Split the request or shorten the value; the limits are under [limits] in `tombolo config explain`.",
        ),
        RejectCode::Malformed => (
            "The request does not parse.",
            NOTHING,
            "The text says which field, line or column; correct it. Sending the same again helps nothing.",
        ),
        RejectCode::NotFound => (
            "What was asked for is not visible in this region.",
            NOTHING,
            "If it was written elsewhere just now, read with its token (`tombolo get KEY --after TOKEN`).",
        ),
        RejectCode::NotSupported => (
            "It cannot be right in a store where every region writes, or this build does not have it.",
            NOTHING,
            "The text says why and names what to use in its place.",
        ),
        RejectCode::Unauthenticated => (
            "The credential is missing or unknown.",
            NOTHING,
            "Send the tenant's token: `--token`, `TOMBOLO_TOKEN` or `--cluster` here, `Authorization: Bearer` in \
             HTTP, `AUTH` in RESP.",
        ),
        RejectCode::Forbidden => (
            "The credential is known and does not allow this.",
            NOTHING,
            "Routes under /v1/admin need the admin token of cluster.toml; keys belong to the token's tenant.",
        ),
        RejectCode::Busy => (
            "A queue of this region is full: it takes less than is offered.",
            NOTHING,
            "Try again after `retry_after_ms`, with fewer requests at a time or more ops in each.",
        ),
        RejectCode::Joining => (
            "This region is new, or its data directory was lost: it takes writes, and refuses reads until it holds what the \
             others held when it came.",
            NOTHING,
            "Try again after `retry_after_ms`, or read in another region; `tombolo status` shows what it waits for.",
        ),
        RejectCode::StorageFull => (
            "The disk is full; reads go on.",
            NOTHING,
            "Make room on the disk of `storage.dir`; writes resume by themselves.",
        ),
        RejectCode::StorageFailed => (
            "A write or sync to disk failed; nothing more is acknowledged on that file.",
            UNKNOWN,
            "See the log for the disk's error, replace the disk if it is the disk, and restart the region: it recovers \
             what was durable and fetches the rest from its peers.",
        ),
        RejectCode::DataLoss => (
            "History of this shard was lost here and no peer has it.",
            NOTHING,
            "See `tombolo status` for the range and `tombolo wal inspect DIR` for the files; bring a peer or a copy \
             back that holds it.",
        ),
        RejectCode::ShuttingDown => (
            "The daemon is starting or stopping.",
            NOTHING,
            "Ask another region, or this one again once GET /readyz says ok.",
        ),
        RejectCode::NotYet => (
            "This region did not reach the token in the time that was given.",
            NOTHING,
            "Wait longer, or read where it was written; `tombolo lag` shows how far this region is behind.",
        ),
        RejectCode::BadToken => (
            "The token, session or stamp was not made by this cluster, or was cut.",
            NOTHING,
            "Pass it whole, as it was answered, to a region of the same cluster.",
        ),
        RejectCode::UnknownRegion => (
            "A region of this name is not declared.",
            NOTHING,
            "`tombolo check` lists the regions; names are those of cluster.toml.",
        ),
        RejectCode::TimedOut => {
            ("The answer did not come in time.", UNKNOWN, "Ask again; see `tombolo status` if it stays so.")
        }
        RejectCode::Draining => (
            "This region is about to be removed: it takes no new writes, and answers reads.",
            NOTHING,
            "Write to another region. `tombolo region drain NAME --undo` has it take writes again.",
        ),
        RejectCode::Removed => (
            "This region was removed from its cluster: it takes no writes, and what it holds grows old.",
            NOTHING,
            "Write to another region. It may return only as a new one: `tombolo region add NAME`.",
        ),
        RejectCode::Precondition => (
            "Something has to hold first, and does not.",
            NOTHING,
            "The text says what; ask again once it holds.",
        ),
    };
    Explanation { meaning, applied, next }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_has_words_of_its_own() {
        let mut meanings = BTreeSet::new();
        for code in RejectCode::ALL {
            let Explanation { meaning, applied, next } = explanation(*code);
            for text in [meaning, applied, next] {
                assert!(text.len() >= "Nothing.".len() && text.ends_with('.'), "{}: {text:?}", code.name());
            }
            assert!(meanings.insert(meaning), "{}: not its own", code.name());
        }
    }
}
