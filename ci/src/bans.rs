//! What code below the line may not name, why, and what to do instead.
//!
//! Holds data only; `purity` finds the names. `core` and `alloc` count as `std`. Start at `BANS`.

/// A path that stands for the world outside; everything below it is meant too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ban {
    /// `std::fs` means `std::fs` and all it holds.
    pub(crate) path: &'static str,
    pub(crate) why: &'static str,
    pub(crate) instead: &'static str,
    /// Also banned in the part of `wal` that is not its device; it has to name paths there.
    pub(crate) in_shell_logic: bool,
}

const CLOCK: (&str, &str) = ("it reads the machine's clock", "take the time as an argument");
const CHANCE: (&str, &str) = ("it draws chance", "take random bits, or a seed, as an argument");
const ORDER: (&str, &str) = (
    "its iteration order differs from run to run",
    "use a BTreeMap or BTreeSet, or hashbrown with foldhash::fast::FixedState",
);
const ALGORITHM: (&str, &str) = ("its hash may change with the compiler", "use xxhash-rust or blake3");
const FILE: (&str, &str) = ("it touches files", "give an effect to the shell, or go through the Disk trait");
const SOCKET: (&str, &str) = ("it touches the network", "name regions, and give an effect to the shell");
const THREAD: (&str, &str) = ("it belongs to a thread", "keep the state in the value that `handle` changes");
const LOCK: (&str, &str) = ("it shares state behind the owner's back", "own the state and take `&mut self`");
const ENVIRONMENT: (&str, &str) = ("it reads the environment", "take the setting as an argument");
const PROCESS: (&str, &str) = ("it touches processes", "give an effect to the shell");
const CONSOLE: (&str, &str) = ("it talks to the console", "return a value and let the shell print or log it");
const RUNTIME: (&str, &str) = ("it needs a runtime", "be a state machine: inputs in, effects out");

/// Paths, as they are spelled in full.
#[rustfmt::skip]
pub(crate) const BANS: &[Ban] = &[
    ban("std::time::Instant", CLOCK),
    ban("std::time::SystemTime", CLOCK),
    ban("std::time::UNIX_EPOCH", CLOCK),
    ban("uhlc::HLC", CLOCK),
    ban("uhlc::HLCBuilder", CLOCK),
    ban("uhlc::system_time_clock", CLOCK),
    ban("uhlc::monotonic_time_clock", CLOCK),

    ban("uhlc::ID::rand", CHANCE),
    ban("rand", CHANCE),
    ban("rand_core", CHANCE),
    ban("fastrand", CHANCE),
    ban("getrandom", CHANCE),
    ban("std::random", CHANCE),
    ban("std::hash::RandomState", CHANCE),
    ban("foldhash::SharedSeed::global_random", CHANCE),
    ban("foldhash::fast::RandomState", CHANCE),
    ban("foldhash::fast::SeedableRandomState::random", CHANCE),
    ban("foldhash::quality::RandomState", CHANCE),
    ban("foldhash::quality::SeedableRandomState::random", CHANCE),
    ban("std::collections::HashMap", ORDER),
    ban("std::collections::HashSet", ORDER),
    ban("std::collections::hash_map", ORDER),
    ban("std::collections::hash_set", ORDER),
    ban("foldhash::HashMap", ORDER),
    ban("foldhash::HashSet", ORDER),
    ban("hashbrown::DefaultHashBuilder", ORDER),
    ban("std::hash::DefaultHasher", ALGORITHM),

    ban("std::fs", FILE),
    ban("std::os", FILE),
    ban("rustix", FILE),
    ban("libc", FILE),
    ban("nix", FILE),
    Ban { in_shell_logic: false, ..ban("std::path", FILE) },

    ban("std::net", SOCKET),
    ban("quinn", SOCKET),
    ban("socket2", SOCKET),
    ban("mio", SOCKET),

    ban("std::thread", THREAD),
    ban("std::sync::mpsc", THREAD),
    ban("std::sync::mpmc", THREAD),
    ban("std::sync::Mutex", LOCK),
    ban("std::sync::RwLock", LOCK),
    ban("std::sync::ReentrantLock", LOCK),
    ban("std::sync::Condvar", LOCK),
    ban("std::sync::Barrier", LOCK),
    ban("std::sync::Once", LOCK),
    ban("std::sync::OnceLock", LOCK),
    ban("std::sync::LazyLock", LOCK),
    ban("std::sync::nonpoison", LOCK),
    ban("std::sync::poison", LOCK),
    ban("dashmap", LOCK),
    ban("parking_lot", LOCK),

    ban("std::env", ENVIRONMENT),
    ban("std::process", PROCESS),
    ban("std::io::stdin", CONSOLE),
    ban("std::io::stdout", CONSOLE),
    ban("std::io::stderr", CONSOLE),
    ban("std::io::Stdin", CONSOLE),
    ban("std::io::Stdout", CONSOLE),
    ban("std::io::Stderr", CONSOLE),
    ban("tracing", CONSOLE),
    ban("log", CONSOLE),
    ban("tokio", RUNTIME),
    ban("async_std", RUNTIME),
    ban("smol", RUNTIME),

    // Macros, by their full names; the prelude brings them in without an import.
    ban("std::print", CONSOLE),
    ban("std::println", CONSOLE),
    ban("std::eprint", CONSOLE),
    ban("std::eprintln", CONSOLE),
    ban("std::dbg", CONSOLE),
    ban("std::thread_local", THREAD),
];

/// Macros that are in scope everywhere, and so are named by one word.
pub(crate) const PRELUDE_MACROS: &[&str] = &["print", "println", "eprint", "eprintln", "dbg", "thread_local"];

/// The ban a full path falls under, if any.
pub(crate) fn ban_of(path: &[String], in_shell_logic: bool) -> Option<&'static Ban> {
    BANS.iter()
        .find(|ban| (ban.in_shell_logic || !in_shell_logic) && ban.segments().eq(path.iter().take(ban.len())))
}

/// The first ban that a glob import of `path` would bring into scope.
pub(crate) fn ban_below(path: &[String], in_shell_logic: bool) -> Option<&'static Ban> {
    BANS.iter().find(|ban| {
        (ban.in_shell_logic || !in_shell_logic)
            && ban.len() > path.len()
            && ban.segments().take(path.len()).eq(path.iter())
    })
}

/// For hash tables of hashbrown that fall back to the default hasher, which is seeded by chance.
pub(crate) const DEFAULT_HASHER: Ban = ban("hashbrown's default hasher", ORDER);

impl Ban {
    fn segments(&self) -> impl Iterator<Item = &'static str> {
        self.path.split("::")
    }

    fn len(&self) -> usize {
        self.segments().count()
    }
}

const fn ban(path: &'static str, (why, instead): (&'static str, &'static str)) -> Ban {
    Ban { path, why, instead, in_shell_logic: true }
}
