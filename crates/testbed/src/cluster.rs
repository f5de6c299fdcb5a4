//! A cluster of real daemons: one process per region on loopback, with or without a relay between them.
//!
//! Speaks only what a stranger could: `init`, `serve`, HTTP, signals. All calls block; async callers use
//! `spawn_blocking`. Every wait has a bound. Kills only what it started. Start with [`TestCluster::start`].

mod binary;
mod daemon;
mod digests;
mod error;
mod options;
mod ports;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use self::binary::{BINARY_VARIABLE, BinaryError, binary};
use self::daemon::{Daemon, log_tail};
pub use self::digests::{Agreement, ShardDigest, agreement};
pub use self::error::ClusterError;
use self::error::io_error;
pub use self::options::ClusterOptions;
pub use self::ports::{Ports, PortsError};
use crate::machine::Usage;
use crate::relay::{Relay, RelayPeer};

/// How often a waiting call asks again.
const POLL: Duration = Duration::from_millis(20);
/// How long one HTTP call may take.
const HTTP_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer read.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// A region and, while it runs, its daemon.
#[derive(Debug)]
struct Region {
    name: String,
    daemon: Option<Daemon>,
    /// Variables of its daemon, beside those of this process.
    environment: Vec<(String, String)>,
}

/// A cluster whose daemons this process started; they are killed when it is dropped, and the directory stays.
#[derive(Debug)]
pub struct TestCluster {
    options: ClusterOptions,
    binary: PathBuf,
    ports: Ports,
    // Before the relay: what is dropped first is killed first.
    regions: Vec<Region>,
    relay: Option<Relay>,
    agent: ureq::Agent,
}

impl TestCluster {
    /// Writes the cluster directory, starts every daemon and waits until all are ready.
    ///
    /// Errors: [`ClusterError`]; whatever was started is killed.
    pub fn start(options: ClusterOptions) -> Result<Self, ClusterError> {
        let mut cluster = Self::init(options)?;
        let names: Vec<String> = cluster.names().map(str::to_owned).collect();
        // All first, then the waiting: a daemon may look for its peers before it calls itself ready.
        names.iter().try_for_each(|name| cluster.spawn(name))?;
        names.iter().try_for_each(|name| cluster.await_ready(name))?;
        Ok(cluster)
    }

    /// Writes the cluster directory and starts no daemon yet: see [`Self::spawn`].
    ///
    /// Errors: [`ClusterError`].
    pub fn init(options: ClusterOptions) -> Result<Self, ClusterError> {
        let binary = options.binary.clone().map_or_else(binary, Ok)?;
        let count = options.regions.len();
        let ports = options.base_port.map_or_else(|| Ports::claim(count), |p| Ports::claim_at(p, count))?;
        std::fs::create_dir_all(&options.dir).map_err(io_error(options.dir.display().to_string()))?;
        let output = Command::new(&binary).args(options.init_arguments(ports.base())).output();
        let output = output.map_err(io_error(binary.display().to_string()))?;
        if !output.status.success() {
            let text = [output.stdout, output.stderr].concat();
            let output_text = String::from_utf8_lossy(&text).trim().to_owned();
            return Err(ClusterError::Init { status: output.status, output: output_text });
        }
        for name in options.regions.iter().filter(|_| !options.storage.is_empty()) {
            let file = options.dir.join(format!("regions/{name}.toml"));
            let edit = || std::fs::write(&file, options.with_storage(&std::fs::read_to_string(&file)?));
            edit().map_err(io_error(file.display().to_string()))?;
        }
        let peer = |(at, name): (usize, &String)| RelayPeer { name: name.clone(), address: ports.peer(at) };
        let peers: Vec<RelayPeer> = options.regions.iter().enumerate().map(peer).collect();
        let relay = options.links.clone().map(|links| Relay::start(peers, links)).transpose()?;
        for (relay, (a, b, conditions)) in
            relay.iter().flat_map(|relay| options.paths.iter().map(move |path| (relay, path)))
        {
            relay.set(a, b, conditions.clone())?;
            relay.set(b, a, conditions.clone())?;
        }
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(HTTP_TIMEOUT))
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .into();
        let regions = options
            .regions
            .iter()
            .map(|name| Region { name: name.clone(), daemon: None, environment: Vec::new() })
            .collect();
        Ok(Self { options, binary, ports, regions, relay, agent })
    }

    /// The regions' names, in the order of their ports.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.regions.iter().map(|region| region.name.as_str())
    }

    /// The cluster directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    /// The relay, if one stands between the regions.
    #[must_use]
    pub const fn relay(&self) -> Option<&Relay> {
        self.relay.as_ref()
    }

    /// The ports of all regions.
    #[must_use]
    pub const fn ports(&self) -> &Ports {
        &self.ports
    }

    /// Base URL of a region's HTTP door.
    ///
    /// Errors: [`ClusterError::UnknownRegion`].
    pub fn http(&self, name: &str) -> Result<String, ClusterError> {
        Ok(format!("http://{}", self.ports.http(self.index(name)?)))
    }

    /// Address of a region's RESP door.
    ///
    /// Errors: [`ClusterError::UnknownRegion`].
    pub fn resp(&self, name: &str) -> Result<SocketAddr, ClusterError> {
        Ok(self.ports.resp(self.index(name)?))
    }

    /// Address of a region's QUIC door for applications.
    ///
    /// Errors: [`ClusterError::UnknownRegion`].
    pub fn quic(&self, name: &str) -> Result<SocketAddr, ClusterError> {
        Ok(self.ports.quic(self.index(name)?))
    }

    /// Process id of a region's daemon.
    ///
    /// Errors: [`ClusterError::UnknownRegion`], [`ClusterError::NotRunning`].
    pub fn pid(&self, name: &str) -> Result<u32, ClusterError> {
        let daemon = self.regions[self.index(name)?].daemon.as_ref();
        daemon.map(Daemon::pid).ok_or_else(|| ClusterError::NotRunning(name.to_owned()))
    }

    /// What a region's daemon has used so far.
    ///
    /// Errors: as [`Self::pid`]; what reading `/proc` gives.
    pub fn usage(&self, name: &str) -> Result<Usage, ClusterError> {
        Usage::of(self.pid(name)?).map_err(io_error(format!("usage of `{name}`")))
    }

    /// Where a region's daemon writes its log.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.options.dir.join(format!("{name}.log"))
    }

    /// Gives a region's daemon these variables from its next start on, in the place of those given before.
    ///
    /// Errors: [`ClusterError::UnknownRegion`].
    pub fn set_environment(
        &mut self,
        name: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), ClusterError> {
        let at = self.index(name)?;
        self.regions[at].environment = environment.into_iter().collect();
        Ok(())
    }

    /// Starts a region's daemon without waiting for it.
    ///
    /// Errors: [`ClusterError`].
    pub fn spawn(&mut self, name: &str) -> Result<(), ClusterError> {
        let at = self.index(name)?;
        if self.regions[at].daemon.is_some() {
            return Err(ClusterError::Running(name.to_owned()));
        }
        let mut command = Command::new(&self.binary);
        command.args(self.options.serve_arguments(name, &self.overrides(name)?));
        command.envs(self.regions[at].environment.iter().cloned());
        let daemon = Daemon::start(command, &self.log(name)).map_err(io_error(format!("start `{name}`")))?;
        self.regions[at].daemon = Some(daemon);
        Ok(())
    }

    /// Waits until a region's daemon answers `GET /readyz` with 200.
    ///
    /// Errors: [`ClusterError::Ended`] or [`ClusterError::Late`], with the end of its log.
    pub fn await_ready(&mut self, name: &str) -> Result<(), ClusterError> {
        let (at, start) = (self.index(name)?, Instant::now());
        let url = format!("{}/readyz", self.http(name)?);
        let log = self.log(name);
        loop {
            let daemon = self.regions[at].daemon.as_mut();
            let daemon = daemon.ok_or_else(|| ClusterError::NotRunning(name.to_owned()))?;
            if let Some(status) = daemon.exit().map_err(io_error(format!("wait for `{name}`")))? {
                self.regions[at].daemon = None;
                return Err(ClusterError::Ended { name: name.to_owned(), status, log: log_tail(&log) });
            }
            let last = match self.agent.get(&url).call() {
                Ok(answer) if answer.status() == 200 => return Ok(()),
                Ok(answer) => format!("/readyz answers {}", answer.status()),
                Err(error) => error.to_string(),
            };
            let waited = start.elapsed();
            if waited >= self.options.ready_timeout {
                let (name, log) = (name.to_owned(), log_tail(&log));
                return Err(ClusterError::Late { name, what: "ready", waited, last, log });
            }
            std::thread::sleep(POLL);
        }
    }

    /// How a region's daemon ended that nobody killed; none while it runs.
    ///
    /// Errors: [`ClusterError::UnknownRegion`], [`ClusterError::NotRunning`].
    pub fn ended(&mut self, name: &str) -> Result<Option<ExitStatus>, ClusterError> {
        let at = self.index(name)?;
        let daemon = self.regions[at].daemon.as_mut();
        let daemon = daemon.ok_or_else(|| ClusterError::NotRunning(name.to_owned()))?;
        daemon.exit().map_err(io_error(format!("wait for `{name}`")))
    }

    /// Kills a region's daemon with signal 9 and waits for its end.
    ///
    /// Errors: [`ClusterError::UnknownRegion`], [`ClusterError::NotRunning`].
    pub fn kill9(&mut self, name: &str) -> Result<(), ClusterError> {
        self.take(name)?.kill().map(drop).map_err(io_error(format!("kill `{name}`")))
    }

    /// Asks a region's daemon to end (`SIGTERM`) and waits for it.
    ///
    /// Errors: [`ClusterError::Late`] if it still runs after `timeout`; it is killed then.
    pub fn terminate(&mut self, name: &str, timeout: Duration) -> Result<ExitStatus, ClusterError> {
        let mut daemon = self.take(name)?;
        let wait = daemon.signal(Signal::TERM).and_then(|()| daemon.wait(timeout));
        wait.map_err(io_error(format!("terminate `{name}`")))?.ok_or_else(|| ClusterError::Late {
            name: name.to_owned(),
            what: "ended",
            waited: timeout,
            last: "SIGTERM was sent".into(),
            log: log_tail(&self.log(name)),
        })
    }

    /// Stops a region's daemon in its tracks (`SIGSTOP`), as a long pause of its machine would.
    ///
    /// Errors: [`ClusterError::UnknownRegion`], [`ClusterError::NotRunning`].
    pub fn pause(&mut self, name: &str) -> Result<(), ClusterError> {
        self.signal(name, Signal::STOP)
    }

    /// Lets a paused daemon go on (`SIGCONT`).
    ///
    /// Errors: [`ClusterError::UnknownRegion`], [`ClusterError::NotRunning`].
    pub fn resume(&mut self, name: &str) -> Result<(), ClusterError> {
        self.signal(name, Signal::CONT)
    }

    /// Starts a region's daemon again, killing it first if it runs, and waits until it is ready.
    ///
    /// Errors: [`ClusterError`].
    pub fn restart(&mut self, name: &str) -> Result<(), ClusterError> {
        match self.kill9(name) {
            Ok(()) | Err(ClusterError::NotRunning(_)) => {}
            Err(error) => return Err(error),
        }
        self.spawn(name)?;
        self.await_ready(name)
    }

    /// `GET /v1/status` of a region.
    ///
    /// Errors: [`ClusterError::UnknownRegion`], [`ClusterError::Http`].
    pub fn status(&self, name: &str) -> Result<Value, ClusterError> {
        self.get(name, "/v1/status")
    }

    /// `GET /v1/digest` of a region.
    ///
    /// Errors: [`ClusterError::UnknownRegion`], [`ClusterError::Http`].
    pub fn digests(&self, name: &str) -> Result<Vec<ShardDigest>, ClusterError> {
        self.get(name, "/v1/digest")
    }

    /// `GET` of any path of a region, with its JSON answer.
    ///
    /// Errors: [`ClusterError::UnknownRegion`]; [`ClusterError::Http`] also for a status other than 200.
    pub fn get<T: DeserializeOwned>(&self, name: &str, path: &str) -> Result<T, ClusterError> {
        let url = format!("{}{path}", self.http(name)?);
        let http = |reason: String| ClusterError::Http { url: url.clone(), reason };
        let mut answer = self.agent.get(&url).call().map_err(|error| http(error.to_string()))?;
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let body = body.map_err(|error| http(error.to_string()))?;
        if answer.status() != 200 {
            let text: String = String::from_utf8_lossy(&body).chars().take(500).collect();
            return Err(http(format!("{}: {text}", answer.status())));
        }
        serde_json::from_slice(&body).map_err(|error| http(error.to_string()))
    }

    /// Waits until all regions hold the same shards with equal version vectors and digests; gives how long it took.
    ///
    /// Errors: [`ClusterError::Apart`] at the deadline; [`ClusterError::Diverged`] as soon as C2 is seen broken.
    pub fn await_equal_digests(&self, timeout: Duration) -> Result<Duration, ClusterError> {
        let names: Vec<&str> = self.names().collect();
        self.await_equal_digests_among(&names, timeout)
    }

    /// [`Self::await_equal_digests`] among some of the regions.
    ///
    /// Errors: as there.
    pub fn await_equal_digests_among(
        &self,
        names: &[&str],
        timeout: Duration,
    ) -> Result<Duration, ClusterError> {
        names.iter().try_for_each(|name| self.index(name).map(drop))?;
        let start = Instant::now();
        loop {
            let looked: Result<Vec<_>, ClusterError> =
                names.iter().map(|name| Ok((String::from(*name), self.digests(name)?))).collect();
            let last = match looked.map(|regions| agreement(&regions)) {
                Ok(Agreement::Equal) => return Ok(start.elapsed()),
                Ok(Agreement::Broken(text)) => return Err(ClusterError::Diverged(text)),
                Ok(Agreement::Behind(text)) => text,
                // A region that is starting or was killed may yet answer.
                Err(error) => error.to_string(),
            };
            let waited = start.elapsed();
            if waited >= timeout {
                return Err(ClusterError::Apart { waited, last });
            }
            std::thread::sleep(POLL.min(timeout - waited));
        }
    }

    /// Where `name` must dial each other region, if a relay stands between.
    fn overrides(&self, name: &str) -> Result<Vec<(String, SocketAddr)>, ClusterError> {
        let Some(relay) = &self.relay else { return Ok(Vec::new()) };
        let others = self.names().filter(|other| *other != name);
        others.map(|other| Ok((other.to_owned(), relay.address(name, other)?))).collect()
    }

    fn signal(&mut self, name: &str, signal: Signal) -> Result<(), ClusterError> {
        let at = self.index(name)?;
        let daemon = self.regions[at].daemon.as_mut();
        let daemon = daemon.ok_or_else(|| ClusterError::NotRunning(name.to_owned()))?;
        daemon.signal(signal).map_err(io_error(format!("signal `{name}`")))
    }

    fn take(&mut self, name: &str) -> Result<Daemon, ClusterError> {
        let at = self.index(name)?;
        self.regions[at].daemon.take().ok_or_else(|| ClusterError::NotRunning(name.to_owned()))
    }

    fn index(&self, name: &str) -> Result<usize, ClusterError> {
        let found = self.regions.iter().position(|region| region.name == name);
        found.ok_or_else(|| ClusterError::UnknownRegion(name.to_owned()))
    }
}

#[cfg(test)]
mod tests;
