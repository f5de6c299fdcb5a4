//! Which region a command talks to, and with which credential: options, environment, cluster directory.
//!
//! Reads the cluster's files, connects to nothing. Start at [`TargetOptions::one`].

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};
use tombolo_daemon::config::{ClusterConfig, ConfigError, RegionConfig};

use crate::client::Client;
use crate::error::{CliError, Exit};

/// How a client command finds its region, flattened into each of them.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Which region")]
pub(crate) struct TargetOptions {
    /// HTTP door of a region [default: that of the cluster's first region]
    #[arg(long, value_name = "http://HOST:PORT", env = "TOMBOLO_ENDPOINT", value_hint = ValueHint::Url)]
    endpoint: Option<String>,
    /// Cluster directory, for endpoints and credentials
    #[arg(long, value_name = "DIR", env = "TOMBOLO_CLUSTER", value_hint = ValueHint::DirPath)]
    cluster: Option<PathBuf>,
    /// Region of the cluster to talk to
    #[arg(long, value_name = "NAME", conflicts_with = "endpoint")]
    region: Option<String>,
    /// Bearer token [default: the tenant's, from the cluster directory]
    #[arg(long, value_name = "TOKEN", env = "TOMBOLO_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Tenant whose token is taken from the cluster directory
    #[arg(long, value_name = "NAME", default_value = "default")]
    tenant: String,
}

impl TargetOptions {
    /// The region to talk to.
    ///
    /// Errors: [`Exit::Usage`] if none is named or it is not declared, [`Exit::ConfigInvalid`].
    pub(crate) fn one(&self, timeout: Duration) -> Result<Client, CliError> {
        let cluster = self.load()?;
        match (&self.endpoint, &cluster) {
            (Some(endpoint), _) => self.client_at(endpoint, cluster.as_ref(), timeout),
            (None, Some(cluster)) => self.client_of(cluster, self.choose(cluster)?, timeout),
            (None, None) => Err(no_target()),
        }
    }

    /// The same, but where no region is named it is the first of the cluster that is wanted, if there is one.
    ///
    /// Errors: [`Exit::ConfigInvalid`].
    pub(crate) fn or_first(&self, is_wanted: impl Fn(&str) -> bool) -> Result<Self, CliError> {
        let mut out = self.clone();
        if self.endpoint.is_none() && self.region.is_none() {
            let cluster = self.load()?;
            let mut names = cluster.iter().flat_map(|cluster| &cluster.regions).map(|region| &region.name);
            out.region = names.find(|name| is_wanted(name)).cloned();
        }
        Ok(out)
    }

    /// All regions of the cluster; of a lone endpoint, just that one.
    ///
    /// Errors: as [`Self::one`].
    pub(crate) fn all(&self, timeout: Duration) -> Result<Vec<Client>, CliError> {
        let cluster = self.load()?;
        match (&self.endpoint, &cluster) {
            (_, Some(cluster)) if self.endpoint.is_none() && self.region.is_none() => {
                cluster.regions.iter().map(|region| self.client_of(cluster, region, timeout)).collect()
            }
            _ => Ok(vec![self.one(timeout)?]),
        }
    }

    /// All regions of the cluster, whatever single one was named.
    ///
    /// Errors: as [`Self::one`]; [`Exit::Usage`] without a cluster directory.
    pub(crate) fn every_region(&self, timeout: Duration) -> Result<Vec<Client>, CliError> {
        match self.load()? {
            Some(cluster) => {
                cluster.regions.iter().map(|region| self.client_of(&cluster, region, timeout)).collect()
            }
            None => Err(CliError::new(Exit::Usage, "this asks every region, and the cluster is not named")
                .next("give --cluster DIR or set TOMBOLO_CLUSTER")),
        }
    }

    /// The region to talk to, with the admin token of the cluster directory unless another one is given.
    ///
    /// Errors: as [`Self::one`].
    pub(crate) fn admin(&self, timeout: Duration) -> Result<Client, CliError> {
        let token = match (&self.token, self.load()?) {
            (None, Some(cluster)) => Some(cluster.admin_token.expose().to_owned()),
            (given, _) => given.clone(),
        };
        Self { token, ..self.clone() }.one(timeout)
    }

    /// All regions of the cluster, with its admin token unless another one is given.
    ///
    /// Errors: as [`Self::every_region`].
    pub(crate) fn every_region_as_admin(&self, timeout: Duration) -> Result<Vec<Client>, CliError> {
        let token = match (&self.token, self.load()?) {
            (None, Some(cluster)) => Some(cluster.admin_token.expose().to_owned()),
            (given, _) => given.clone(),
        };
        Self { token, ..self.clone() }.every_region(timeout)
    }

    /// The cluster directory.
    ///
    /// Errors: [`Exit::Usage`] if none is named.
    pub(crate) fn cluster_dir(&self) -> Result<PathBuf, CliError> {
        self.cluster.clone().ok_or_else(|| {
            CliError::new(Exit::Usage, "this writes into the cluster directory, and none is named")
                .next("give --cluster DIR or set TOMBOLO_CLUSTER")
        })
    }

    fn load(&self) -> Result<Option<ClusterConfig>, CliError> {
        let Some(dir) = &self.cluster else { return Ok(None) };
        ClusterConfig::load(dir).map(Some).map_err(|errors| config_invalid(&errors, dir))
    }

    fn choose<'a>(&self, cluster: &'a ClusterConfig) -> Result<&'a RegionConfig, CliError> {
        let Some(name) = &self.region else {
            return Ok(cluster.regions.first().expect("a cluster that loads has a region"));
        };
        cluster.region(name).ok_or_else(|| unknown_region(name, cluster))
    }

    fn client_of(
        &self,
        cluster: &ClusterConfig,
        region: &RegionConfig,
        timeout: Duration,
    ) -> Result<Client, CliError> {
        self.client_at(&endpoint_of(region), Some(cluster), timeout)
    }

    fn client_at(
        &self,
        endpoint: &str,
        cluster: Option<&ClusterConfig>,
        timeout: Duration,
    ) -> Result<Client, CliError> {
        let endpoint = endpoint.trim_end_matches('/');
        if !endpoint.starts_with("http://") {
            return Err(CliError::new(
                Exit::Usage,
                format!("`{endpoint}` is not of the form http://HOST:PORT"),
            )
            .next("regions speak plain HTTP; put TLS in front and a tunnel to this machine"));
        }
        // A credential of the cluster is for its own regions only, whatever an environment variable points at.
        let region = cluster.and_then(|cluster| cluster.regions.iter().find(|r| endpoint_of(r) == endpoint));
        let token = match (&self.token, cluster, region) {
            (Some(token), _, _) => Some(token.clone()),
            (None, Some(cluster), Some(_)) => Some(self.tenant_token(cluster)?),
            _ => None,
        };
        let name = region.map(|region| region.name.clone());
        Ok(Client::new(endpoint.to_owned(), name, token, timeout))
    }

    fn tenant_token(&self, cluster: &ClusterConfig) -> Result<String, CliError> {
        let tenant = cluster.tenants.iter().find(|tenant| tenant.name == self.tenant);
        tenant.map(|tenant| tenant.token.expose().to_owned()).ok_or_else(|| {
            let names: Vec<&str> = cluster.tenants.iter().map(|tenant| tenant.name.as_str()).collect();
            CliError::new(Exit::Usage, format!("the cluster has no tenant `{}`", self.tenant))
                .next(format!("one of: {}", names.join(", ")))
        })
    }
}

/// Where a region's HTTP door is reached from elsewhere.
fn endpoint_of(region: &RegionConfig) -> String {
    let http = region.listen.http;
    let host = region.advertise.rsplit_once(':').map(|(host, _)| host);
    match host {
        // It listens on all addresses of its machine; the host that peers use is one of them.
        Some(host) if http.ip().is_unspecified() => format!("http://{host}:{}", http.port()),
        _ => format!("http://{http}"),
    }
}

fn no_target() -> CliError {
    CliError::new(Exit::Usage, "no region is named")
        .next("give --endpoint http://HOST:PORT, or --cluster DIR, or set TOMBOLO_CLUSTER")
}

/// A name that is not among the cluster's regions.
pub(crate) fn unknown_region(name: &str, cluster: &ClusterConfig) -> CliError {
    let names: Vec<&str> = cluster.regions.iter().map(|region| region.name.as_str()).collect();
    CliError::new(Exit::Usage, format!("the cluster has no region `{name}`"))
        .next(format!("one of: {}", names.join(", ")))
}

/// Everything that is wrong in the files, as one failure.
pub(crate) fn config_invalid(errors: &[ConfigError], dir: &std::path::Path) -> CliError {
    let count = errors.len();
    let lines: Vec<String> = errors.iter().map(|error| format!("  {error}")).collect();
    let noun = if count == 1 { "problem" } else { "problems" };
    let text = format!("{count} {noun} in the files of {}:\n{}", dir.display(), lines.join("\n"));
    CliError::new(Exit::ConfigInvalid, text)
        .next(format!("correct the files, then run: tombolo check --cluster {}", dir.display()))
}
