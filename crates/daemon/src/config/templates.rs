//! The texts that `init` writes: short, with what an operator asks first as comments.
//!
//! Defaults are not repeated here: `config explain` shows them. Start at [`ClusterText`] and [`RegionText`].

use std::fmt;

use tombolo_causality::ClusterId;

/// `cluster.toml`.
pub(super) struct ClusterText<'a> {
    pub(super) cluster: ClusterId,
    pub(super) shards: u16,
    pub(super) regions: &'a [String],
}

impl fmt::Display for ClusterText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, shards, regions } = self;
        write!(
            f,
            r#"# A Tombolo cluster. `tombolo config explain` lists every key, `tombolo check` checks all files.

cluster = "{cluster}"  # random, for ever: in every certificate and log
shards = {shards:<8}# partitions of the keys, fixed for the life of the cluster
revision = 1     # raise it with every change of the regions and signals below

# Each region has its own file, regions/<name>.toml.
"#
        )?;
        for region in *regions {
            write!(f, "[[region]]\nname = \"{region}\"\n\n")?;
        }
        f.write_str(
            r#"# What keys are, by name; the first match wins. Keys that match nothing become what their first write makes them.
# [[counter]]
# match = "views:*"
#
# [[register]]
# match = "profile:*"

[[tenant]]
name = "default"
id = 1
token = "file:default.token"    # file:PATH or env:NAME, never the token itself

[secrets]
seal_key = "file:pki/seal.key"  # the same on all machines
admin_token = "file:admin.token"
"#,
        )
    }
}

/// `regions/<name>.toml`.
pub(super) struct RegionText<'a> {
    pub(super) name: &'a str,
    pub(super) id: u16,
    /// http, resp, quic, peer.
    pub(super) ports: [u16; 4],
    pub(super) dev: bool,
}

impl fmt::Display for RegionText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, id, ports: [http, resp, quic, peer], dev } = self;
        let (advertise, listen, auth) = if *dev {
            (
                "where peers reach it (UDP)",
                "# Loopback only: without credentials nothing else is allowed.",
                "auth = \"none\"                   # \"token\" asks clients for a token",
            )
        } else {
            (
                "where peers reach it (UDP); set it to this machine's name",
                "# 127.0.0.1 serves this machine only; 0.0.0.0 serves all its networks.",
                "auth = \"token\"                  # \"none\" is allowed on loopback only",
            )
        };
        write!(
            f,
            r#"# Region {name}. `tombolo config explain` lists every key with its default.

id = {id:<27}# 1..=1023, for ever; never that of a removed region
advertise = "127.0.0.1:{peer}"    # {advertise}

[listen]
{listen}
http = "127.0.0.1:{http}"
resp = "127.0.0.1:{resp}"
quic = "127.0.0.1:{quic}"         # SDK
peer = "127.0.0.1:{peer}"         # other regions, mTLS
{auth}

[storage]
dir = "data/{name}"
"#
        )
    }
}
