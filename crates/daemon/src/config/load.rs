//! From a directory to a [`ClusterConfig`], or to all that is wrong with it.
//!
//! Reads files and the environment, changes nothing. Start at [`ClusterConfig::load`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use tombolo_causality::TenantId;

use super::cluster_file::{CLUSTER_FILE, ClusterFile};
use super::cross::check_regions;
use super::error::{Place, Problems, nearest};
use super::region_file::RegionFile;
use super::secret::{Environment, fetch_seal_key, fetch_token, refuse_exposed};
use super::{ClusterConfig, ConfigError, ListenConfig, RegionConfig, Secret, TenantConfig};

/// No file of ours is near this.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

impl ClusterConfig {
    /// Reads and checks all files of the cluster in `dir`, and fetches its secrets.
    ///
    /// Certificates are not opened: a machine may hold those of its own region only. `check` opens them.
    ///
    /// Errors: everything that is wrong, in the order of the files.
    pub fn load(dir: &Path) -> Result<Self, Vec<ConfigError>> {
        Self::load_with(dir, &|name| std::env::var(name).ok())
    }

    pub(super) fn load_with(dir: &Path, environment: Environment<'_>) -> Result<Self, Vec<ConfigError>> {
        let mut problems = Problems::default();
        let config = Files::read(dir, &mut problems)
            .and_then(|files| assemble(dir, &files, environment, &mut problems));
        match config.filter(|_| problems.is_empty()) {
            Some(config) => Ok(config),
            None => {
                let errors = problems.into_errors();
                assert!(!errors.is_empty(), "what is missing was reported");
                Err(errors)
            }
        }
    }
}

/// `cluster.toml` and the files of its regions, checked against each other.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) cluster: ClusterFile,
    /// Those that could be read, in the order of `cluster.toml`.
    pub(super) regions: Vec<RegionFile>,
}

impl Files {
    /// Reads them; none if `cluster.toml` cannot be read at all.
    pub(super) fn read(dir: &Path, problems: &mut Problems) -> Option<Self> {
        let files = Self::read_present(dir, problems)?;
        for declared in &files.cluster.regions {
            let (name, file) = (&declared.name.value, RegionFile::path(&declared.name.value));
            if !dir.join(&file).exists() {
                let near = orphans(dir, &files.cluster);
                let hint = nearest(name, near.iter().map(String::as_str)).map_or_else(
                    || "`tombolo init` makes what is missing".to_owned(),
                    |near| format!("did you mean `{near}`? It has a file and is not declared"),
                );
                let message = format!("region `{name}` has no file, {} does not exist", file.display());
                problems.add_with_hint(&declared.name.place, message, hint);
            }
        }
        check_regions(&files.cluster, &files.regions, problems);
        Some(files)
    }

    /// The same without a word on files of regions that are not there.
    pub(super) fn read_present(dir: &Path, problems: &mut Problems) -> Option<Self> {
        let text = read_text(dir, Path::new(CLUSTER_FILE), problems)?;
        let cluster = ClusterFile::read(&text, problems)?;
        let mut regions = Vec::new();
        for declared in &cluster.regions {
            let name = &declared.name.value;
            let file = RegionFile::path(name);
            if dir.join(&file).exists()
                && let Some(text) = read_text(dir, &file, problems)
                && let Some(region) = RegionFile::read(name, &text, problems)
            {
                regions.push(region);
            }
        }
        Some(Self { cluster, regions })
    }
}

/// Names of files in `regions/` that `cluster.toml` does not declare.
pub(super) fn orphans(dir: &Path, cluster: &ClusterFile) -> Vec<String> {
    let mut names = region_file_names(dir);
    names.retain(|name| cluster.regions.iter().all(|declared| declared.name.value != *name));
    names
}

/// Names of all files in `regions/`, sorted.
pub(super) fn region_file_names(dir: &Path) -> Vec<String> {
    let entries = dir.join("regions").read_dir().into_iter().flatten().flatten();
    let name = |entry: std::fs::DirEntry| {
        entry.file_name().to_str().and_then(|name| name.strip_suffix(".toml")).map(str::to_owned)
    };
    let mut names: Vec<_> = entries.filter_map(name).collect();
    names.sort();
    names
}

fn read_text(dir: &Path, file: &Path, problems: &mut Problems) -> Option<String> {
    let place = Place::start_of(file);
    let mut text = String::new();
    let count = File::open(dir.join(file))
        .and_then(|opened| opened.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    match count {
        Ok(count) if count as u64 <= FILE_BYTES_MAX => Some(text),
        Ok(_) => {
            problems.add(&place, format!("the file has more than {FILE_BYTES_MAX} bytes"));
            None
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let hint = format!("`tombolo init --dir {}` makes a cluster", dir.display());
            problems.add_with_hint(&place, "the file does not exist", hint);
            None
        }
        Err(error) => {
            problems.add(&place, format!("cannot read the file: {error}"));
            None
        }
    }
}

fn assemble(
    dir: &Path,
    files: &Files,
    environment: Environment<'_>,
    problems: &mut Problems,
) -> Option<ClusterConfig> {
    let cluster = &files.cluster;
    check_pki(dir, cluster, problems);
    let seal_key = cluster.seal_key.as_ref();
    let seal_key = seal_key.and_then(|reference| fetch_seal_key(reference, dir, environment, problems));
    let admin_token = cluster.admin_token.as_ref();
    let admin_token = admin_token.and_then(|reference| fetch_token(reference, dir, environment, problems));
    let tenants = tenants(dir, cluster, admin_token.as_ref(), environment, problems);
    let regions: Option<Vec<_>> =
        files.regions.iter().map(|region| region_config(dir, cluster, region)).collect();
    Some(ClusterConfig {
        dir: dir.to_owned(),
        cluster: cluster.cluster?,
        shards: cluster.shards?,
        revision: cluster.revision?,
        regions: regions?,
        schema: cluster.schema.clone(),
        tenants,
        admin_token: admin_token?,
        seal_key: seal_key?,
        authority: dir.join(&cluster.pki.authority),
        authority_key: dir.join(&cluster.pki.authority_key),
    })
}

/// The CA is needed everywhere; keys may be elsewhere, but not in the open.
fn check_pki(dir: &Path, cluster: &ClusterFile, problems: &mut Problems) {
    let place = &cluster.pki.place;
    if !dir.join(&cluster.pki.authority).exists() {
        let message = format!("the CA's certificate `{}` does not exist", cluster.pki.authority.display());
        problems.add_with_hint(place, message, "`tombolo init` makes what is missing");
    }
    refuse_exposed(&dir.join(&cluster.pki.authority_key), place, problems);
    for region in &cluster.regions {
        refuse_exposed(&dir.join(cluster.pki.key(&region.name.value)), &region.name.place, problems);
    }
}

fn tenants(
    dir: &Path,
    cluster: &ClusterFile,
    admin_token: Option<&Secret>,
    environment: Environment<'_>,
    problems: &mut Problems,
) -> Vec<TenantConfig> {
    let mut owners = BTreeMap::new();
    if let Some(token) = admin_token {
        owners.insert(token.expose().to_owned(), "the admin".to_owned());
    }
    let mut tenants = Vec::new();
    for tenant in &cluster.tenants {
        let (Some(id), Some(reference)) = (tenant.id, &tenant.token) else { continue };
        let Some(token) = fetch_token(reference, dir, environment, problems) else { continue };
        let name = &tenant.name.value;
        // The token is all that says who somebody is.
        if let Some(owner) = owners.insert(token.expose().to_owned(), format!("tenant `{name}`")) {
            problems.add(&reference.place, format!("tenant `{name}` has the same token as {owner}"));
        }
        tenants.push(TenantConfig { name: name.clone(), id: TenantId(id), token });
    }
    tenants
}

fn region_config(dir: &Path, cluster: &ClusterFile, region: &RegionFile) -> Option<RegionConfig> {
    let mut storage = region.storage.clone()?;
    storage.dir = dir.join(&storage.dir);
    Some(RegionConfig {
        name: region.name.clone(),
        id: region.id.as_ref()?.value,
        advertise: region.advertise.as_ref()?.value.text.clone(),
        listen: ListenConfig {
            http: region.listener("http")?,
            resp: region.listener("resp")?,
            quic: region.listener("quic")?,
            peer: region.listener("peer")?,
            auth: region.auth.as_ref()?.value,
        },
        storage,
        max_drift_ms: region.max_drift_ms?,
        session_numbers_max: region.session_numbers_max?,
        window_seconds: region.window_seconds.as_ref()?.value,
        limits: region.limits.clone()?,
        certificate: dir.join(cluster.pki.certificate(&region.name)),
        key: dir.join(cluster.pki.key(&region.name)),
    })
}

#[cfg(test)]
mod tests;
