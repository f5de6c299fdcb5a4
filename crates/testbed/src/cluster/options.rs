//! What a cluster is made of, and the command lines that make it.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::relay::LinkConditions;

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// The cluster directory; made if it is not there. The caller keeps or removes it.
    pub dir: PathBuf,
    /// Names of the regions.
    pub regions: Vec<String>,
    /// The binary; [`super::binary()`] if none is named.
    pub binary: Option<PathBuf>,
    /// The first port; a free range if none is named.
    pub base_port: Option<u16>,
    /// Partitions of the keys; as many as `init` chooses if no number is named.
    pub shards: Option<u16>,
    /// With conditions, a relay stands between all regions; without, they reach each other directly.
    pub links: Option<LinkConditions>,
    /// Links between two regions, both ways, that are otherwise than [`Self::links`], from before any daemon starts.
    pub paths: Vec<(String, String, LinkConditions)>,
    /// More arguments of every `serve`, such as `--durability interval`.
    pub serve_arguments: Vec<OsString>,
    /// Lines for the section `[storage]` of every region's file.
    pub storage: Vec<String>,
    /// How long a daemon may take until it is ready.
    pub ready_timeout: Duration,
}

impl ClusterOptions {
    /// Regions in a directory, directly connected, all else as usual.
    pub fn new<N: Into<String>>(dir: impl Into<PathBuf>, regions: impl IntoIterator<Item = N>) -> Self {
        Self {
            dir: dir.into(),
            regions: regions.into_iter().map(Into::into).collect(),
            binary: None,
            base_port: None,
            shards: None,
            links: None,
            paths: Vec::new(),
            serve_arguments: Vec::new(),
            storage: Vec::new(),
            ready_timeout: Duration::from_secs(30),
        }
    }

    /// The same with a relay between all regions.
    #[must_use]
    pub fn with_links(mut self, conditions: LinkConditions) -> Self {
        self.links = Some(conditions);
        self
    }

    /// The same with other conditions between two of the regions, both ways; a relay stands between all.
    #[must_use]
    pub fn with_path(mut self, a: &str, b: &str, conditions: LinkConditions) -> Self {
        self.links.get_or_insert_default();
        self.paths.push((a.to_owned(), b.to_owned(), conditions));
        self
    }

    /// A region's file with the lines for its storage.
    pub(super) fn with_storage(&self, file: &str) -> String {
        file.replacen("[storage]\n", &format!("[storage]\n{}\n", self.storage.join("\n")), 1)
    }

    pub(super) fn init_arguments(&self, base_port: u16) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["init".into(), "--dir".into(), self.dir.clone().into()];
        arguments.extend(["--regions".into(), self.regions.join(",").into()]);
        arguments.extend(["--base-port".into(), base_port.to_string().into(), "--dev".into()]);
        if let Some(shards) = self.shards {
            arguments.extend(["--shards".into(), shards.to_string().into()]);
        }
        arguments
    }

    pub(super) fn serve_arguments(&self, name: &str, overrides: &[(String, SocketAddr)]) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["serve".into(), "--cluster".into(), self.dir.clone().into()];
        arguments.extend(["--region", name, "--log", "json"].map(OsString::from));
        for (peer, address) in overrides {
            arguments.extend(["--peer-override".into(), format!("{peer}={address}").into()]);
        }
        arguments.extend(self.serve_arguments.iter().cloned());
        arguments
    }
}
