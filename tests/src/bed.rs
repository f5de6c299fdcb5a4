//! [`Bed`]: one cluster of real daemons in a directory of its own, with clients for it.
//!
//! One at a time in a process. When its test fails it prints the end of every daemon's log. Start with [`Bed::start`].

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tombolo_sdk::{Client, Options};
use tombolo_testbed::cluster::{ClusterOptions, TestCluster};

use crate::{tell, within};

/// The regions of a [`Bed`].
pub const REGIONS: [&str; 3] = ["eu", "us", "ap"];

/// How much of each log a failed test shows.
const LOG_TAIL_BYTES: u64 = 3_000;
/// How long one HTTP call may take.
const HTTP_TIMEOUT: Duration = Duration::from_secs(10);

static TURN: Mutex<()> = Mutex::new(());

/// A cluster under test.
pub struct Bed {
    /// The daemons.
    pub cluster: TestCluster,
    agent: ureq::Agent,
    // Below the cluster: the directory goes when the daemons are gone.
    dir: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Bed {
    /// Starts three regions that reach each other directly.
    ///
    /// Panics: if they do not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(|options| options)
    }

    /// Starts three regions, with what `change` makes of the options.
    ///
    /// Panics: if they do not start.
    #[must_use]
    pub fn start_with(change: impl FnOnce(ClusterOptions) -> ClusterOptions) -> Self {
        Self::make(change, TestCluster::start)
    }

    /// Starts three regions after `change` has had their files, as an operator may edit them.
    ///
    /// Panics: if they do not start.
    #[must_use]
    pub fn start_edited(change: impl Fn(&str) -> String) -> Self {
        Self::start_edited_with(|options| options, change)
    }

    /// The same, with what `options` makes of the options.
    ///
    /// Panics: if they do not start.
    #[must_use]
    pub fn start_edited_with(
        options: impl FnOnce(ClusterOptions) -> ClusterOptions,
        change: impl Fn(&str) -> String,
    ) -> Self {
        let mut bed = Self::make(options, TestCluster::init);
        for region in REGIONS {
            let file = bed.dir().join(format!("regions/{region}.toml"));
            let text = std::fs::read_to_string(&file).expect("init wrote the file");
            std::fs::write(&file, change(&text)).expect("the file can be edited");
        }
        bed.spawn_all();
        bed
    }

    /// Starts the daemons that do not run and waits until all are ready.
    ///
    /// Panics: if one does not start.
    pub fn spawn_all(&mut self) {
        for region in REGIONS {
            if self.cluster.pid(region).is_err() {
                self.cluster.spawn(region).unwrap_or_else(|error| panic!("{error}"));
            }
        }
        for region in REGIONS {
            self.cluster.await_ready(region).unwrap_or_else(|error| panic!("{error}"));
        }
    }

    /// Writes the files of a cluster and starts nothing.
    ///
    /// Panics: if `init` refuses.
    #[must_use]
    pub fn init() -> Self {
        Self::make(|options| options, TestCluster::init)
    }

    fn make<E: std::fmt::Display>(
        change: impl FnOnce(ClusterOptions) -> ClusterOptions,
        make: impl FnOnce(ClusterOptions) -> Result<TestCluster, E>,
    ) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().expect("a directory for the cluster");
        let cluster = match make(change(ClusterOptions::new(dir.path(), REGIONS))) {
            Ok(cluster) => cluster,
            Err(error) => panic!("the cluster does not start: {error}"),
        };
        let config = ureq::Agent::config_builder();
        let config = config.timeout_global(Some(HTTP_TIMEOUT)).http_status_as_error(false).proxy(None);
        Self { cluster, agent: config.build().into(), dir, _turn: turn }
    }

    /// The cluster's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// How an SDK client reaches a region.
    ///
    /// Panics: if the cluster has no such region.
    #[must_use]
    pub fn options(&self, region: &str) -> Options {
        let authority = std::fs::read_to_string(self.dir().join("pki/ca.pem")).expect("init wrote the CA");
        Options::new(authority, self.cluster.quic(region).expect("a region of the bed").to_string())
    }

    /// Connects to a region.
    ///
    /// Panics: if it cannot be reached.
    pub async fn client(&self, region: &str) -> Client {
        let client = within("a client connects", 15, Client::connect(self.options(region))).await;
        client.unwrap_or_else(|error| panic!("{region}: {error}"))
    }

    /// Connects to every region, in the order of [`REGIONS`].
    ///
    /// Panics: if one cannot be reached.
    pub async fn clients(&self) -> Vec<Client> {
        let mut clients = Vec::new();
        for region in REGIONS {
            clients.push(self.client(region).await);
        }
        clients
    }

    /// `POST` with a JSON body, and the admin token if `path` needs it; the status and the JSON answer.
    ///
    /// Panics: if no answer comes.
    #[must_use]
    pub fn post(&self, region: &str, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}{path}", self.cluster.http(region).expect("a region of the bed"));
        let mut request = self.agent.post(&url).header("content-type", "application/json");
        if path.starts_with("/v1/admin/") {
            let token =
                std::fs::read_to_string(self.dir().join("admin.token")).expect("init wrote the token");
            request = request.header("authorization", format!("Bearer {}", token.trim()));
        }
        let mut answer = request.send(body.to_string()).unwrap_or_else(|error| panic!("{url}: {error}"));
        let text = answer.body_mut().read_to_string().unwrap_or_else(|error| panic!("{url}: {error}"));
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        (answer.status().as_u16(), value)
    }

    /// The status code of a `GET`; none if there is no answer.
    #[must_use]
    pub fn get_status(&self, region: &str, path: &str) -> Option<u16> {
        let url = format!("{}{path}", self.cluster.http(region).expect("a region of the bed"));
        self.agent.get(&url).call().ok().map(|answer| answer.status().as_u16())
    }

    /// What a `GET` answers.
    ///
    /// Panics: if no answer comes.
    #[must_use]
    pub fn get_text(&self, region: &str, path: &str) -> String {
        let url = format!("{}{path}", self.cluster.http(region).expect("a region of the bed"));
        let mut answer = self.agent.get(&url).call().unwrap_or_else(|error| panic!("{url}: {error}"));
        answer.body_mut().read_to_string().unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    /// What a region says of a peer in `/v1/status`.
    ///
    /// Panics: if it does not answer, or knows no such peer.
    #[must_use]
    pub fn peer(&self, region: &str, peer: &str) -> Value {
        let status = self.cluster.status(region).unwrap_or_else(|error| panic!("{error}"));
        let peers = status["peers"].as_array().expect("a status lists peers");
        let found = peers.iter().find(|entry| entry["region"] == peer);
        found.unwrap_or_else(|| panic!("{region} does not list {peer}")).clone()
    }

    /// Asks `holds` again and again until it says none, at most `seconds`; gives how long it took.
    ///
    /// Panics: at the deadline, with what `holds` says is missing.
    pub fn until(
        &self,
        what: &str,
        seconds: u64,
        mut missing: impl FnMut(&Self) -> Option<String>,
    ) -> Duration {
        let start = Instant::now();
        while let Some(text) = missing(self) {
            assert!(start.elapsed() < Duration::from_secs(seconds), "{what}: not within {seconds} s: {text}");
            std::thread::sleep(Duration::from_millis(20));
        }
        start.elapsed()
    }

    /// Waits until all regions hold the same.
    ///
    /// Panics: if they do not within 20 s, or equal vectors show unequal digests.
    pub fn await_equal_digests(&self) -> Duration {
        let waited = self.cluster.await_equal_digests(Duration::from_secs(20));
        waited.unwrap_or_else(|error| panic!("{error}"))
    }

    /// A region that is not whole, and whom it waits for.
    #[must_use]
    pub fn not_whole(&self) -> Option<String> {
        REGIONS.iter().find_map(|region| match self.cluster.status(region) {
            Ok(status) if status["whole"] == true => None,
            Ok(status) => Some(format!("{region} waits for {}", status["waiting_for"])),
            Err(error) => Some(format!("{region}: {error}")),
        })
    }

    /// A shard of a region, by its status, whose vector holds two logs of one region: those of earlier lives are sealed
    /// once the region is whole, and leave it.
    #[must_use]
    pub fn unsealed(&self, region: &str) -> Option<String> {
        let status = self.cluster.status(region).unwrap_or_else(|error| panic!("{error}"));
        let shards = status["shards"].as_array().expect("a status lists shards");
        shards.iter().find_map(|shard| {
            let vector = shard["version_vector"].as_object().expect("a shard has a vector");
            let mut writers: Vec<&str> = vector.keys().filter_map(|log| log.split('/').next()).collect();
            writers.sort_unstable();
            let is_twice = writers.windows(2).any(|pair| pair[0] == pair[1]);
            is_twice.then(|| format!("shard {} of {region} has {vector:?}", shard["shard"]))
        })
    }

    /// The finding of this code that a region lists, of any place.
    ///
    /// Panics: if it does not answer.
    #[must_use]
    pub fn finding(&self, region: &str, code: &str) -> Option<String> {
        let status = self.cluster.status(region).unwrap_or_else(|error| panic!("{error}"));
        let findings = status["findings"].as_array().expect("a status lists findings");
        let found = findings.iter().find(|finding| finding["code"] == code)?;
        Some(found["text"].as_str().expect("a finding has a text").to_owned())
    }

    /// Has a region write a checkpoint of every shard, and prune behind the one before.
    ///
    /// Panics: if it does not.
    pub fn checkpoint(&self, region: &str) {
        let (status, answer) = self.post(region, "/v1/admin/checkpoint", &serde_json::json!({}));
        assert_eq!(status, 200, "{region}: {answer}");
    }

    /// Whether a region's daemon has logged a line with this text.
    ///
    /// Panics: if its log does not read.
    #[must_use]
    pub fn has_logged(&self, region: &str, text: &str) -> bool {
        std::fs::read_to_string(self.cluster.log(region)).expect("a daemon has a log").contains(text)
    }

    /// The end of a region's log.
    #[must_use]
    pub fn log_tail(&self, region: &str) -> String {
        tail(&self.cluster.log(region)).unwrap_or_else(|error| format!("(no log: {error})"))
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for region in REGIONS {
                tell(&format!("--- the log of {region} ends:\n{}", self.log_tail(region)));
            }
        }
    }
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let from = file.metadata()?.len().saturating_sub(LOG_TAIL_BYTES);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
