//! The commands there are, as `COMMAND` reports them, and the ones that are refused, each with its reason.

/// A command, with what cluster-aware clients and `redis-cli` want to know of it.
#[derive(Debug)]
pub(super) struct Spec {
    /// In lower case.
    pub(super) name: &'static str,
    /// Number of arguments, the name included; negative: at least so many.
    pub(super) arity: i64,
    /// What it does to data and connections.
    pub(super) flags: &'static [&'static str],
    /// Where its keys are: first, last (from the end if negative), step.
    pub(super) keys: (i64, i64, i64),
}

const fn spec(name: &'static str, arity: i64, flags: &'static [&'static str], keys: (i64, i64, i64)) -> Spec {
    Spec { name, arity, flags, keys }
}

const WRITES: &[&str] = &["write", "denyoom", "fast"];
const REMOVES: &[&str] = &["write"];
const READS: &[&str] = &["readonly", "fast"];
const TALKS: &[&str] = &["loading", "stale", "fast"];
const ENTERS: &[&str] = &["noscript", "loading", "stale", "fast", "no_auth"];
const WAITS: &[&str] = &["blocking"];
const NO_KEYS: (i64, i64, i64) = (0, 0, 0);
const ONE_KEY: (i64, i64, i64) = (1, 1, 1);
const ALL_KEYS: (i64, i64, i64) = (1, -1, 1);

/// In the order of the alphabet.
pub(super) const COMMANDS: &[Spec] = &[
    spec("auth", -2, ENTERS, NO_KEYS),
    spec("client", -2, TALKS, NO_KEYS),
    spec("command", -1, TALKS, NO_KEYS),
    spec("config", -2, TALKS, NO_KEYS),
    spec("decr", -2, WRITES, ONE_KEY),
    spec("decrby", -3, WRITES, ONE_KEY),
    spec("del", -2, REMOVES, ALL_KEYS),
    spec("discard", 1, TALKS, NO_KEYS),
    spec("echo", 2, TALKS, NO_KEYS),
    spec("exec", 1, TALKS, NO_KEYS),
    spec("exists", -2, READS, ALL_KEYS),
    spec("get", 2, READS, ONE_KEY),
    spec("hello", -1, ENTERS, NO_KEYS),
    spec("incr", -2, WRITES, ONE_KEY),
    spec("incrby", -3, WRITES, ONE_KEY),
    spec("info", -1, TALKS, NO_KEYS),
    spec("mget", -2, READS, ALL_KEYS),
    spec("multi", 1, TALKS, NO_KEYS),
    spec("ping", -1, TALKS, NO_KEYS),
    spec("quit", -1, ENTERS, NO_KEYS),
    spec("reset", 1, ENTERS, NO_KEYS),
    spec("select", 2, TALKS, NO_KEYS),
    spec("session", -2, TALKS, NO_KEYS),
    spec("set", -3, WRITES, ONE_KEY),
    spec("strlen", 2, READS, ONE_KEY),
    spec("time", 1, TALKS, NO_KEYS),
    spec("type", 2, READS, ONE_KEY),
    spec("unlink", -2, REMOVES, ALL_KEYS),
    spec("unwatch", 1, TALKS, NO_KEYS),
    spec("wait", 3, WAITS, NO_KEYS),
    spec("waitaof", 4, WAITS, NO_KEYS),
];

/// The command of this name, in lower case.
pub(super) fn find(name: &str) -> Option<&'static Spec> {
    COMMANDS.iter().find(|spec| spec.name == name)
}

const NOT_YET: &str = "is not there yet";
const CONDITION: &str = "decides by what one region sees, and another may decide otherwise at the same moment: \
                         both would be told they won; a lock or a check-and-set cannot be right here";
const READ_MODIFY_WRITE: &str = "builds a value from what one region sees, and what others write meanwhile would be \
                                 lost; SET the whole value, or count with INCRBY";
const SCRIPTS: &str =
    "runs code over what one region sees, and its outcome would differ from region to region";
const WIPES: &str = "would have to erase what other regions still write; DEL the keys, one by one";
const SWAP: &str =
    "reads and writes in one step, and another region may write in between; send GET and then SET";

/// Commands of Redis that are refused, in groups, and why.
const REFUSED: &[(&[&str], &str)] = &[
    (&["setnx", "msetnx", "watch", "renamenx", "hsetnx", "cas", "cad"], CONDITION),
    (
        &["incrbyfloat", "hincrbyfloat"],
        "adds floating-point numbers, whose sum depends on the order they arrive in, and that differs from region \
         to region; count in the smallest unit with INCRBY",
    ),
    (
        &["append", "setrange", "setbit", "bitop", "bitfield", "rename", "copy", "move", "pfadd"],
        READ_MODIFY_WRITE,
    ),
    (&["getset", "getdel", "getex"], SWAP),
    (&["eval", "evalsha", "eval_ro", "evalsha_ro", "script", "fcall", "fcall_ro", "function"], SCRIPTS),
    (&["flushall", "flushdb", "swapdb"], WIPES),
    (
        &["dbsize", "keys", "randomkey"],
        "walks every key of every shard; GET /v1/status on the HTTP door shows how many keys each shard holds",
    ),
    (
        &["mset"],
        "is not there: its keys lie in several shards and would not be set as one; send SETs in a pipeline",
    ),
    (
        &[
            "setex",
            "psetex",
            "expire",
            "pexpire",
            "expireat",
            "pexpireat",
            "ttl",
            "pttl",
            "expiretime",
            "persist",
        ],
        NOT_YET,
    ),
    (&["hincrby", "hget", "hset", "hmget", "hgetall", "hdel", "hlen", "hmset", "hexists", "hkeys"], NOT_YET),
    (
        &["scan", "subscribe", "psubscribe", "unsubscribe", "punsubscribe", "publish", "getrange", "getbit"],
        NOT_YET,
    ),
    (
        &[
            "lpush", "rpush", "lpop", "rpop", "blpop", "brpop", "lrange", "llen", "sadd", "srem", "smembers",
            "zadd",
        ],
        "is not there: the kinds are counters and registers",
    ),
    (
        &[
            "save",
            "bgsave",
            "bgrewriteaof",
            "shutdown",
            "replicaof",
            "slaveof",
            "failover",
            "debug",
            "monitor",
        ],
        "is not for clients: use the `tombolo` command, or /v1/admin on the HTTP door",
    ),
    (&["cluster", "readonly", "readwrite", "asking"], "is not there: any region serves every key"),
];

/// Why this command of Redis is refused, if it is; the name in lower case.
pub(super) fn refusal(name: &str) -> Option<&'static str> {
    REFUSED.iter().find(|(names, _)| names.contains(&name)).map(|(_, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_command_is_both_served_and_refused_and_names_stand_once() {
        let mut names: Vec<&str> = COMMANDS.iter().map(|spec| spec.name).collect();
        assert!(names.is_sorted());
        names.extend(REFUSED.iter().flat_map(|(names, _)| names.iter()));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
