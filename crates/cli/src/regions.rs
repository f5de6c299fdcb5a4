//! The regions that `demo` and `bench` work on: daemons started for it, or those of a running cluster.
//!
//! Asks what any client could ask, and of processes it started also what they use. Never decides what is right. Start
//! with [`Regions::start`] or [`Regions::running`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tombolo_daemon::config::{Auth, ClusterConfig, RegionConfig};
use tombolo_sdk::{Client, Options};
use tombolo_testbed::cluster::{ClusterError, ClusterOptions, ShardDigest, TestCluster};
use tombolo_testbed::machine::Usage;
use tombolo_testbed::relay::Relay;

use crate::client;
use crate::error::{CliError, Exit};

/// How long one HTTP call may take.
const HTTP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long writing a checkpoint of every shard may take.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a daemon may take to end after `SIGTERM`.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Regions with all that is needed to reach them.
pub(crate) struct Regions {
    config: ClusterConfig,
    authority_pem: String,
    doors: Doors,
    /// Those this process started; none for a running cluster.
    started: Option<TestCluster>,
}

impl Regions {
    /// Makes a cluster and starts its daemons. Blocks until all are ready.
    pub(crate) fn start(options: ClusterOptions) -> Result<Self, CliError> {
        let started = TestCluster::start(options).map_err(cluster_error)?;
        let dir = started.dir().to_owned();
        Self::with_files(&dir, Some(started))
    }

    /// The regions of a cluster that others run.
    pub(crate) fn running(dir: &Path) -> Result<Self, CliError> {
        Self::with_files(dir, None)
    }

    fn with_files(dir: &Path, started: Option<TestCluster>) -> Result<Self, CliError> {
        let config = ClusterConfig::load(dir).map_err(|errors| {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            CliError::new(Exit::ConfigInvalid, lines.join("\n"))
        })?;
        let authority_pem = std::fs::read_to_string(&config.authority).map_err(|error| {
            CliError::new(Exit::ConfigInvalid, format!("{}: {error}", config.authority.display()))
        })?;
        let http = config.regions.iter().map(|region| {
            let (endpoint, name) = (format!("http://{}", region.listen.http), Some(region.name.clone()));
            let token = token(&config, region).map(str::to_owned);
            Arc::new(client::Client::new(endpoint, name, token, HTTP_TIMEOUT))
        });
        Ok(Self { doors: Doors { http: http.collect() }, config, authority_pem, started })
    }

    /// Their names, in the order of `cluster.toml`.
    pub(crate) fn names(&self) -> Vec<String> {
        self.config.regions.iter().map(|region| region.name.clone()).collect()
    }

    /// What the files say of each, in the same order.
    pub(crate) fn configs(&self) -> &[RegionConfig] {
        &self.config.regions
    }

    /// Whether this process started them, so that nothing was written before.
    pub(crate) const fn are_started_here(&self) -> bool {
        self.started.is_some()
    }

    /// The relay between them, if there is one.
    pub(crate) fn relay(&self) -> Option<&Relay> {
        self.started.as_ref().and_then(TestCluster::relay)
    }

    /// Connects to every region.
    pub(crate) async fn connect(&self) -> Result<Vec<Client>, CliError> {
        let mut clients = Vec::new();
        for at in 0..self.config.regions.len() {
            clients.push(self.connect_to(at).await?);
        }
        Ok(clients)
    }

    /// Connects to one region, by its place.
    pub(crate) async fn connect_to(&self, at: usize) -> Result<Client, CliError> {
        let region = &self.config.regions[at];
        let mut options = Options::new(self.authority_pem.clone(), region.listen.quic.to_string());
        if let Some(token) = token(&self.config, region) {
            options = options.token(token);
        }
        let client = Client::connect(options).await;
        client.map_err(|error| sdk_error(&region.name, &error))
    }

    /// Has a region stop, or go on, applying what another one writes.
    pub(crate) async fn pause_apply(
        &self,
        region: &str,
        peer: &str,
        is_paused: bool,
    ) -> Result<(), CliError> {
        let config = self.config.regions.iter().find(|config| config.name == region);
        let config = config.expect("the caller names a region of this cluster");
        let endpoint = format!("http://{}", config.listen.http);
        let token = Some(self.config.admin_token.expose().to_owned());
        let client = client::Client::new(endpoint, Some(config.name.clone()), token, HTTP_TIMEOUT);
        let path = if is_paused { "/v1/admin/pause-apply" } else { "/v1/admin/resume-apply" };
        let body = serde_json::json!({ "peer": peer });
        let asked = tokio::task::spawn_blocking(move || client.write::<serde_json::Value>(path, &body)).await;
        asked.map_err(|error| CliError::new(Exit::Other, error.to_string()))?.map(drop)
    }

    /// Has every region write a checkpoint of each shard, and prune behind the one before.
    pub(crate) async fn checkpoint(&self) -> Result<(), CliError> {
        for config in &self.config.regions {
            let endpoint = format!("http://{}", config.listen.http);
            let token = Some(self.config.admin_token.expose().to_owned());
            let client = client::Client::new(endpoint, Some(config.name.clone()), token, CHECKPOINT_TIMEOUT);
            let asked = tokio::task::spawn_blocking(move || {
                client.write::<serde_json::Value>("/v1/admin/checkpoint", &serde_json::json!({}))
            });
            asked.await.map_err(|error| CliError::new(Exit::Other, error.to_string()))??;
        }
        Ok(())
    }

    /// How often daemons started here have logged a line with this text.
    pub(crate) fn logged_count(&self, text: &str) -> usize {
        let logs = self.started.iter().flat_map(|started| started.names().map(|name| started.log(name)));
        // A log that cannot be read has not logged it.
        logs.filter_map(|log| std::fs::read_to_string(log).ok()).map(|log| log.matches(text).count()).sum()
    }

    /// How many callers wait at a region, by its place.
    pub(crate) async fn waiters(&self, at: usize) -> Result<u64, CliError> {
        Ok(self.doors.status(at).await?.waiters)
    }

    /// Their HTTP doors, for tasks that ask on their own.
    pub(crate) const fn doors(&self) -> &Doors {
        &self.doors
    }

    /// `GET /v1/status` of each, in order.
    pub(crate) async fn statuses(&self) -> Result<Vec<client::Status>, CliError> {
        self.doors.statuses().await
    }

    /// `GET /v1/digest` of each, with its name.
    pub(crate) async fn digests(&self) -> Result<Vec<(String, Vec<ShardDigest>)>, CliError> {
        Ok(self.names().into_iter().zip(self.doors.get_all("/v1/digest").await?).collect())
    }

    /// The sum over all regions of a metric that each counts; none if one of them does not tell.
    pub(crate) async fn metric_total(&self, name: &str) -> Option<f64> {
        let mut total = 0.0;
        for region in &self.config.regions {
            let url = format!("http://{}/metrics", region.listen.http);
            let text = tokio::task::spawn_blocking(move || {
                let config =
                    ureq::Agent::config_builder().timeout_global(Some(HTTP_TIMEOUT)).proxy(None).build();
                ureq::Agent::from(config).get(&url).call()?.body_mut().read_to_string()
            });
            total += metric_sum(&text.await.ok()?.ok()?, name)?;
        }
        Some(total)
    }

    /// What each daemon started here has used.
    pub(crate) fn usages(&self) -> Option<Vec<Usage>> {
        let started = self.started.as_ref()?;
        started.names().map(|name| started.usage(name).ok()).collect()
    }

    /// Bytes their data directories take on disk, if they stand on this machine for this command alone.
    pub(crate) fn data_bytes(&self) -> Option<u64> {
        self.started.as_ref()?;
        self.config.regions.iter().map(|region| allocated_bytes(&region.storage.dir).ok()).sum()
    }

    /// Ends what was started here, and says if one did not end well. Blocks.
    pub(crate) fn stop(self) -> Result<(), CliError> {
        let Some(mut started) = self.started else { return Ok(()) };
        let names: Vec<String> = started.names().map(str::to_owned).collect();
        for name in names {
            let status = started.terminate(&name, STOP_TIMEOUT).map_err(cluster_error)?;
            if !status.success() {
                let text = format!("the daemon of `{name}` did not end well ({status})");
                return Err(CliError::new(Exit::Other, text));
            }
        }
        Ok(())
    }
}

/// The HTTP doors of all regions. Cheap to clone; a clone keeps no daemon alive.
#[derive(Clone)]
pub(crate) struct Doors {
    http: Vec<Arc<client::Client>>,
}

impl Doors {
    /// `GET /v1/status` of each, in order.
    pub(crate) async fn statuses(&self) -> Result<Vec<client::Status>, CliError> {
        self.get_all("/v1/status").await
    }

    async fn status(&self, at: usize) -> Result<client::Status, CliError> {
        let http = self.http[at].clone();
        let call = tokio::task::spawn_blocking(move || http.get("/v1/status", &[]));
        call.await.map_err(|error| CliError::new(Exit::Other, error.to_string()))?
    }

    async fn get_all<T: DeserializeOwned + Send + 'static>(
        &self,
        path: &'static str,
    ) -> Result<Vec<T>, CliError> {
        let ask = |http: &Arc<client::Client>| {
            let http = http.clone();
            tokio::task::spawn_blocking(move || http.get::<T>(path, &[]))
        };
        let calls: Vec<_> = self.http.iter().map(ask).collect();
        let mut answers = Vec::new();
        for call in calls {
            answers.push(call.await.map_err(|error| CliError::new(Exit::Other, error.to_string()))??);
        }
        Ok(answers)
    }
}

/// The bearer token a region wants, if it wants one.
fn token<'a>(config: &'a ClusterConfig, region: &RegionConfig) -> Option<&'a str> {
    let tenant = config.tenants.first().filter(|_| region.listen.auth == Auth::Token)?;
    Some(tenant.token.expose())
}

/// The sum over all labels of a counter in the OpenMetrics text format.
fn metric_sum(text: &str, name: &str) -> Option<f64> {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        if !rest.starts_with(['{', ' ']) {
            return None;
        }
        rest.rsplit_once(' ')?.1.parse::<f64>().ok()
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

/// Blocks on disk of all files below a directory: a file that was made long ahead counts whole, a hole does not.
fn allocated_bytes(dir: &Path) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    /// Unit of `st_blocks`, whatever the file system's own block size.
    const BLOCK_BYTES: u64 = 512;
    let mut bytes = 0;
    let mut dirs: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in dir.read_dir()? {
            let entry = entry?;
            // A file may be pruned between its listing and this look.
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => dirs.push(entry.path()),
                Ok(metadata) => bytes += metadata.blocks() * BLOCK_BYTES,
                Err(_) => {}
            }
        }
    }
    Ok(bytes)
}

/// Starts regions, works on them, and ends them whatever came of it, also after `SIGINT` or `SIGTERM`.
pub(crate) async fn started<T>(
    options: ClusterOptions,
    work: impl AsyncFnOnce(&Regions) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let interruption = || CliError::new(Exit::Other, "interrupted");
    let mut starting = tokio::task::spawn_blocking(move || Regions::start(options));
    let (regions, is_interrupted) = tokio::select! {
        regions = &mut starting => (regions, false),
        // What has begun to start must be there before it can be ended.
        () = interrupted() => ((&mut starting).await, true),
    };
    let regions = regions.map_err(|error| CliError::new(Exit::Other, error.to_string()))??;
    let result = if is_interrupted {
        Err(interruption())
    } else {
        tokio::select! {
            result = Box::pin(work(&regions)) => result,
            () = interrupted() => Err(interruption()),
        }
    };
    let stopped = tokio::task::spawn_blocking(|| regions.stop()).await;
    let stopped = stopped.map_err(|error| CliError::new(Exit::Other, error.to_string()))?;
    // Why the work failed says more than how its daemons ended.
    let result = result?;
    stopped.map(|()| result)
}

/// Waits for `SIGINT` or `SIGTERM`.
pub(crate) async fn interrupted() {
    let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    let terminate = async {
        match terminate {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        // An error means that no handler could be set: then the signal ends this process by itself.
        result = tokio::signal::ctrl_c() => if result.is_err() { std::future::pending::<()>().await },
        () = terminate => {}
    }
}

/// What a cluster did not do, as a failure of the command.
pub(crate) fn cluster_error(error: ClusterError) -> CliError {
    CliError::new(Exit::Other, error.to_string())
}

/// What a client was not given, as a failure of the command.
pub(crate) fn sdk_error(region: &str, error: &tombolo_sdk::SdkError) -> CliError {
    let exit = match error {
        tombolo_sdk::SdkError::Unreachable { .. } => Exit::Unreachable,
        tombolo_sdk::SdkError::Rejected(reject) => Exit::of_refusal(reject.code.http(), Some(reject.code)),
        _ => Exit::Other,
    };
    CliError::new(exit, format!("{region}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels_and_not_over_longer_names() {
        let text = "# TYPE sent counter\nsent_total{peer=\"a\"} 5\nsent_total{peer=\"b c\"} 7\nsent_total_bytes 100\n# EOF\n";
        assert_eq!(metric_sum(text, "sent_total"), Some(12.0));
        assert_eq!(metric_sum(text, "sent"), None);
    }

    #[test]
    fn holes_of_files_do_not_count_as_disk() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("inner")).unwrap();
        std::fs::write(dir.path().join("inner/full"), vec![1; 8_192]).unwrap();
        std::fs::File::create(dir.path().join("hole")).unwrap().set_len(1 << 30).unwrap();
        let bytes = allocated_bytes(dir.path()).unwrap();
        assert!((8_192..1 << 20).contains(&bytes), "{bytes}");
    }
}
