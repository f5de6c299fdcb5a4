//! The layers: who may import whom. This table is the architecture; `edges` and `purity` make it true.
//!
//! Holds data only. A new crate gets a row here before it builds in CI; a row that has lost its crate must go.
//! Start at `LAYERS`, from the bottom up.

/// What a crate may depend on inside the workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Imports {
    /// These members only.
    Only(&'static [&'static str]),
    /// Every other member.
    Any,
}

/// How far the world may reach into a crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purity {
    /// No clock, chance, file, socket, thread or environment anywhere.
    Pure,
    /// The same, but for the named source files, which are the crate's one device, and for naming paths.
    PureExcept(&'static [&'static str]),
    /// A shell, the roof, or a tool: it may touch the world.
    Shell,
}

/// One row: a workspace member and what it may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layer {
    /// The package name.
    pub(crate) name: &'static str,
    /// Members it may depend on, as a normal or build dependency.
    pub(crate) imports: Imports,
    /// Whether its code stays below the line.
    pub(crate) purity: Purity,
    /// Crates from the registry it may depend on; `None` leaves them free.
    pub(crate) registry: Option<&'static [&'static str]>,
}

const MUTANTS: &str = "tombolo-mutants";
const CAUSALITY: &str = "tombolo-causality";
const CRDT: &str = "tombolo-crdt";
const CODEC: &str = "tombolo-codec";
const REPLICA: &str = "tombolo-replica";
const MODEL: &str = "tombolo-model";
const WAL: &str = "tombolo-wal";
const TRANSPORT: &str = "tombolo-transport";
const GATEWAY: &str = "tombolo-gateway";
const SDK: &str = "tombolo-sdk";
const DAEMON: &str = "tombolo-daemon";
const TESTBED: &str = "tombolo-testbed";
const SIM: &str = "tombolo-sim";
const CLI: &str = "tombolo";

/// Every member of the workspace, from the ground up: a crate may import only what stands in its row.
#[rustfmt::skip]
pub(crate) const LAYERS: &[Layer] = &[
    // Which rule a test build breaks. Constantly none in every other build: any layer may ask.
    Layer {
        name: MUTANTS,
        imports: Imports::Only(&[]),
        purity: Purity::PureExcept(&["planted.rs"]),
        registry: Some(&[]),
    },

    // Below the line: names, values, bytes, rules.
    pure(CAUSALITY, &[]),
    pure(CRDT,      &[MUTANTS, CAUSALITY]),
    pure(CODEC,     &[CAUSALITY, CRDT]),
    pure(REPLICA,   &[MUTANTS, CAUSALITY, CRDT, CODEC]),

    // The rules once more, small enough to be searched: nothing builds on it.
    pure(MODEL,     &[]),

    // Shells: each touches one device.
    Layer {
        name: WAL,
        imports: Imports::Only(&[MUTANTS, CAUSALITY, CODEC, REPLICA]),
        purity: Purity::PureExcept(&["file_disk.rs", "committer.rs", "inbox.rs"]),
        registry: Some(WAL_REGISTRY),
    },
    shell(TRANSPORT, &[CAUSALITY]),
    shell(GATEWAY,   &[CAUSALITY, CODEC, TRANSPORT]),
    shell(SDK,       &[CAUSALITY, CODEC, TRANSPORT]),

    // The daemon wires; the testbed drives daemons from outside, as an application would.
    shell(DAEMON,    &[CAUSALITY, CRDT, CODEC, REPLICA, WAL, TRANSPORT, GATEWAY]),
    shell(TESTBED,   &[CAUSALITY, CODEC, SDK, TRANSPORT]),

    // The same rules and recovery code in a seeded world instead of on a machine.
    shell(SIM,       &[MUTANTS, CAUSALITY, CRDT, CODEC, REPLICA, WAL]),

    // The roof.
    shell(CLI, &[CAUSALITY, CRDT, CODEC, REPLICA, WAL, TRANSPORT, GATEWAY, SDK, DAEMON, TESTBED]),

    // Beside the house: they may look into every room, and nobody may import them.
    outside("tombolo-benches"),
    outside("tombolo-fuzz"),
    outside("tombolo-tests"),
    shell("ci", &[]),
];

/// What the pure crates may take from the registry: arithmetic on bytes and values, nothing that touches the world.
pub(crate) const PURE_REGISTRY: &[&str] = &[
    "blake3",
    "bytes",
    "data-encoding",
    "foldhash",
    "hashbrown",
    "memchr",
    "rkyv",
    "smallvec",
    "thiserror",
    "uhlc",
    "xxhash-rust",
    "yoke",
];

/// As `PURE_REGISTRY`, plus the system calls of the one file that is the disk.
const WAL_REGISTRY: &[&str] = &[
    "blake3",
    "bytes",
    "data-encoding",
    "foldhash",
    "hashbrown",
    "memchr",
    "rkyv",
    "rustix",
    "smallvec",
    "thiserror",
    "uhlc",
    "xxhash-rust",
];

/// What the tests of a pure crate may use besides what its code may.
pub(crate) const TEST_LIBRARIES: &[&str] = &["insta", "proptest"];

/// The row of a package, if it has one.
pub(crate) fn layer(name: &str) -> Option<&'static Layer> {
    LAYERS.iter().find(|layer| layer.name == name)
}

const fn pure(name: &'static str, imports: &'static [&'static str]) -> Layer {
    Layer { name, imports: Imports::Only(imports), purity: Purity::Pure, registry: Some(PURE_REGISTRY) }
}

const fn shell(name: &'static str, imports: &'static [&'static str]) -> Layer {
    Layer { name, imports: Imports::Only(imports), purity: Purity::Shell, registry: None }
}

const fn outside(name: &'static str) -> Layer {
    Layer { name, imports: Imports::Any, purity: Purity::Shell, registry: None }
}
