//! `tombolo init`: makes the files of a cluster, or those that are missing.
//!
//! It never overwrites: a file that is there is kept as it is. Certificates are made in `issue.rs`, texts in
//! `templates.rs`. Start at [`init`].

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use tombolo_causality::{ClusterId, RegionId};
use tombolo_transport::PkiError;

use super::ConfigError;
use super::cluster_file::{CLUSTER_FILE, ClusterFile, REGION_NAME_RULE, name_is_reserved, name_is_valid};
use super::error::{Placed, Problems, quoted};
use super::issue::{cluster_of_authority, issue_missing};
use super::load::{Files, region_file_names};
use super::region_file::RegionFile;
use super::secret::Reference;
use super::templates::{ClusterText, RegionText};

/// The regions of a cluster when none are named.
pub const REGIONS_DEFAULT: [&str; 3] = ["eu-west", "us-east", "ap-south"];

/// The partitions of a new cluster when no other number is given.
pub const SHARDS_DEFAULT: u16 = 16;
/// As the table of keys has it.
const SHARDS_MAX: u16 = 1024;

/// Ports step by this from region to region.
const PORT_STEP: u16 = 10;
/// http, resp, quic, peer.
const PORTS_COUNT: u16 = 4;

/// What to make.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// The cluster directory; made if it does not exist.
    pub dir: PathBuf,
    /// Names of the regions. Empty: those that are declared, else [`REGIONS_DEFAULT`].
    pub regions: Vec<String>,
    /// The first region's HTTP port.
    pub base_port: u16,
    /// Partitions of the keys. `None`: as declared, else [`SHARDS_DEFAULT`].
    pub shards: Option<u16>,
    /// No credentials, for loopback only.
    pub dev: bool,
}

/// What was made.
#[derive(Debug, Clone)]
pub struct InitReport {
    /// The cluster's id.
    pub cluster: ClusterId,
    /// Names of its regions.
    pub regions: Vec<String>,
    /// Every file, relative to the cluster directory, and what became of it.
    pub files: Vec<(PathBuf, FileState)>,
}

impl InitReport {
    /// What to run next, for a cluster directory of this name.
    #[must_use]
    pub fn next_commands(&self, dir: &Path) -> Vec<String> {
        let dir = dir.display();
        let serve = |region: &String| format!("tombolo serve --cluster {dir} --region {region}");
        std::iter::once(format!("tombolo check --cluster {dir}"))
            .chain(self.regions.iter().map(serve))
            .collect()
    }
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileState {
    /// It was missing.
    Created,
    /// It was there and is as it was.
    Kept,
    /// Half of a pair whose other half was lost: it has this name since, and a new pair was made.
    SetAside,
}

impl FileState {
    /// `created`, `kept` or `set aside`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Kept => "kept",
            Self::SetAside => "set aside",
        }
    }
}

/// Why files cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A text that cannot name a region.
    #[error("`{0}` cannot name a region: a name is {REGION_NAME_RULE}")]
    Name(String),
    /// A name that is taken by files of the cluster.
    #[error("`{0}` cannot name a region: pki/{0}.* belongs to the cluster")]
    NameReserved(String),
    /// A name given twice.
    #[error("region `{0}` is named twice")]
    NamedTwice(String),
    /// A text that is no address.
    #[error("`{text}` is not where other regions reach one: {reason}; it is HOST:PORT")]
    Address {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An id of another region.
    #[error("id {id} is region `{name}`'s; an id belongs to one region for ever")]
    IdTaken {
        /// The id.
        id: RegionId,
        /// Whose it is.
        name: String,
    },
    /// A region that is declared otherwise.
    #[error("region `{name}` is declared already, with {key} {declared}: its file was not changed")]
    Declared {
        /// Its name.
        name: String,
        /// Which key differs.
        key: &'static str,
        /// What the files say.
        declared: String,
    },
    /// More regions than ids or ports.
    #[error(
        "no room for {regions} region(s) from port {base_port} on: ports step by 10 up to 65535, ids end at 1023"
    )]
    TooMany {
        /// How many regions.
        regions: usize,
        /// The first port.
        base_port: u16,
    },
    /// Other regions than the cluster has.
    #[error(
        "{CLUSTER_FILE} declares {declared}, not {given}; leave --regions out to fill in what is missing, and add a \
         region by a [[region]] in {CLUSTER_FILE}"
    )]
    OtherRegions {
        /// What the file declares.
        declared: String,
        /// What was asked for.
        given: String,
    },
    /// Another number of shards than the cluster has.
    #[error(
        "{CLUSTER_FILE} has shards = {declared}, not {given}; the number is fixed for the life of the cluster, because \
         it decides which log each key is in; leave --shards out to keep it"
    )]
    OtherShards {
        /// What the file declares.
        declared: u16,
        /// What was asked for.
        given: u16,
    },
    /// The number of shards is out of bounds.
    #[error("{0} shards are outside 1..=1024")]
    Shards(u16),
    /// The files that are there are wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Config(Vec<ConfigError>),
    /// Half of the CA is lost.
    #[error(
        "{missing} is missing while {present} is there: put it back, or, to begin with a new CA, delete {present} and \
         all certificates of regions"
    )]
    HalfAuthority {
        /// The half that is there, or a certificate the lost CA issued.
        present: String,
        /// The half that is lost.
        missing: String,
    },
    /// A certificate is to be issued where the CA's key is not.
    #[error("{wanted} cannot be issued: the CA's key {missing} is not on this machine")]
    NoAuthorityKey {
        /// The certificate.
        wanted: String,
        /// The CA's key.
        missing: String,
    },
    /// Certificates cannot be read or made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system gives no random bits.
    #[error("the system gives no random bits: {0}")]
    Random(getrandom::Error),
}

/// Makes the files of a cluster, or those that are missing.
///
/// Run on a directory that has files it keeps them, reads them, and adds what they name and is not there.
///
/// Errors: [`InitError`]; what was made until then stays and is kept by the next run.
pub fn init(options: InitOptions) -> Result<InitReport, InitError> {
    check_names(&options.regions)?;
    check_shards(options.shards)?;
    let mut files = Writer::at(&options.dir);
    files.make_dir(Path::new(""), 0o755)?;
    files.make_dir(Path::new("pki"), 0o700)?;
    if !files.keep(Path::new(CLUSTER_FILE)) {
        write_cluster(&options, &mut files)?;
    }
    let mut problems = Problems::default();
    let present = Files::read_present(&options.dir, &mut problems);
    let Some(Files { cluster, regions }) = present.filter(|_| problems.is_empty()) else {
        return Err(InitError::Config(problems.into_errors()));
    };
    check_same_regions(&options.regions, &cluster)?;
    check_same_shards(options.shards, &cluster)?;
    write_regions(&options, &cluster, &regions, &mut files)?;
    let id = cluster.cluster.expect("a file without problems has every required key");
    issue_missing(id, &cluster, &mut files)?;
    write_secrets(&cluster, &mut files)?;
    Ok(InitReport { cluster: id, regions: names(&cluster), files: files.report })
}

pub(super) fn check_names(regions: &[String]) -> Result<(), InitError> {
    let mut seen = BTreeSet::new();
    for name in regions {
        if !name_is_valid(name) {
            return Err(InitError::Name(name.clone()));
        }
        if name_is_reserved(name) {
            return Err(InitError::NameReserved(name.clone()));
        }
        if !seen.insert(name) {
            return Err(InitError::NamedTwice(name.clone()));
        }
    }
    Ok(())
}

fn check_shards(given: Option<u16>) -> Result<(), InitError> {
    match given {
        Some(shards) if !(1..=SHARDS_MAX).contains(&shards) => Err(InitError::Shards(shards)),
        _ => Ok(()),
    }
}

fn check_same_shards(given: Option<u16>, cluster: &ClusterFile) -> Result<(), InitError> {
    match (given, cluster.shards) {
        (Some(given), Some(declared)) if given != declared => Err(InitError::OtherShards { declared, given }),
        _ => Ok(()),
    }
}

fn check_same_regions(given: &[String], cluster: &ClusterFile) -> Result<(), InitError> {
    let declared = names(cluster);
    let as_set = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
    if given.is_empty() || as_set(given) == as_set(&declared) {
        return Ok(());
    }
    let quoted = |names: &[String]| quoted(names.iter().map(String::as_str));
    Err(InitError::OtherRegions { declared: quoted(&declared), given: quoted(given) })
}

fn names(cluster: &ClusterFile) -> Vec<String> {
    cluster.regions.iter().map(|region| region.name.value.clone()).collect()
}

fn write_cluster(options: &InitOptions, files: &mut Writer) -> Result<(), InitError> {
    let mut regions = options.regions.clone();
    if regions.is_empty() {
        regions = region_file_names(&options.dir);
        check_names(&regions)?;
    }
    if regions.is_empty() {
        regions = REGIONS_DEFAULT.map(str::to_owned).to_vec();
    }
    // Refused before the first file: a cluster.toml with regions that have no ports would be in the way afterwards.
    ports(options.base_port, regions.len() - 1)
        .filter(|_| regions.len() <= usize::from(RegionId::MAX))
        .ok_or(InitError::TooMany { regions: regions.len(), base_port: options.base_port })?;
    // Certificates name their cluster: where a CA is left, the cluster is the CA's.
    let cluster = match cluster_of_authority(&options.dir)? {
        Some(cluster) => cluster,
        None => ClusterId(u128::from_be_bytes(random()?)),
    };
    let shards = options.shards.unwrap_or(SHARDS_DEFAULT);
    let text = ClusterText { cluster, shards, regions: &regions }.to_string();
    files.write(Path::new(CLUSTER_FILE), 0o644, &text)
}

fn write_regions(
    options: &InitOptions,
    cluster: &ClusterFile,
    present: &[RegionFile],
    files: &mut Writer,
) -> Result<(), InitError> {
    let mut ids_taken: BTreeSet<u16> =
        present.iter().filter_map(|region| Some(region.id.as_ref()?.value.get())).collect();
    let listeners = present.iter().flat_map(|region| &region.listeners);
    let mut ports_taken: BTreeSet<u16> = listeners.map(|listener| listener.address.value.port()).collect();
    let too_many = || InitError::TooMany { regions: cluster.regions.len(), base_port: options.base_port };
    for (index, declared) in cluster.regions.iter().enumerate() {
        let name = &declared.name.value;
        let file = RegionFile::path(name);
        if files.keep(&file) {
            continue;
        }
        let id = declared.id.as_ref().and_then(|id| u16::try_from(id.value).ok());
        let id = id.or_else(|| free_id(index, &ids_taken)).ok_or_else(too_many)?;
        let ports = (index..)
            .map_while(|step| ports(options.base_port, step))
            .find(|ports| ports.iter().all(|port| !ports_taken.contains(port)))
            .ok_or_else(too_many)?;
        ids_taken.insert(id);
        ports_taken.extend(ports);
        let text = RegionText { name, id, ports, dev: options.dev }.to_string();
        files.write(&file, 0o644, &text)?;
    }
    Ok(())
}

/// The id of the region's place, so that a file that was lost comes back with its id; else one above all.
fn free_id(index: usize, taken: &BTreeSet<u16>) -> Option<u16> {
    let own = u16::try_from(index + 1).ok().filter(|id| !taken.contains(id));
    let above = || taken.last().map_or(Some(1), |last| last.checked_add(1));
    own.or_else(above).filter(|id| *id <= RegionId::MAX)
}

/// The four ports of the region at a place, if there are such.
pub(super) fn ports(base: u16, index: usize) -> Option<[u16; PORTS_COUNT as usize]> {
    let first = u16::try_from(index).ok()?.checked_mul(PORT_STEP)?.checked_add(base)?;
    first.checked_add(PORTS_COUNT - 1).filter(|_| first > 0)?;
    Some(std::array::from_fn(|door| first + u16::try_from(door).expect("there are four doors")))
}

fn write_secrets(cluster: &ClusterFile, files: &mut Writer) -> Result<(), InitError> {
    if let Some(file) = file_of(cluster.seal_key.as_ref()) {
        files.write_missing(file, 0o600, || Ok(format!("{}\n", HEXLOWER.encode(&random::<32>()?))))?;
    }
    let tenants = cluster.tenants.iter().map(|tenant| tenant.token.as_ref());
    for file in std::iter::once(cluster.admin_token.as_ref()).chain(tenants).filter_map(file_of) {
        files.write_missing(file, 0o600, || Ok(format!("{}\n", BASE64URL_NOPAD.encode(&random::<32>()?))))?;
    }
    Ok(())
}

fn file_of(reference: Option<&Placed<Reference>>) -> Option<&Path> {
    match &reference?.value {
        Reference::File(file) => Some(file),
        Reference::Environment(_) => None,
    }
}

fn random<const N: usize>() -> Result<[u8; N], InitError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(InitError::Random)?;
    Ok(bytes)
}

/// Writes files that are not there, and notes what became of each.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) dir: PathBuf,
    report: Vec<(PathBuf, FileState)>,
}

impl Writer {
    /// Of a cluster directory.
    pub(super) fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), report: Vec::new() }
    }

    /// Whether a file is there; if so it is noted as kept.
    pub(super) fn keep(&mut self, file: &Path) -> bool {
        let exists = self.exists(file);
        if exists {
            self.report.push((file.to_owned(), FileState::Kept));
        }
        exists
    }

    /// Whether a file is there.
    pub(super) fn exists(&self, file: &Path) -> bool {
        self.dir.join(file).exists()
    }

    fn write_missing(
        &mut self,
        file: &Path,
        mode: u32,
        text: impl FnOnce() -> Result<String, InitError>,
    ) -> Result<(), InitError> {
        if self.keep(file) { Ok(()) } else { self.write(file, mode, &text()?) }
    }

    /// Writes a file that is not there, whole or not at all.
    pub(super) fn write(&mut self, file: &Path, mode: u32, text: &str) -> Result<(), InitError> {
        if let Some(parent) = file.parent() {
            self.make_dir(parent, if mode & 0o077 == 0 { 0o700 } else { 0o755 })?;
        }
        let path = self.dir.join(file);
        let mut draft = path.clone().into_os_string();
        draft.push(".tmp");
        let written =
            OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&draft).and_then(
                |mut draft_file| {
                    draft_file.write_all(text.as_bytes())?;
                    draft_file.sync_all()?;
                    fs::rename(&draft, &path)
                },
            );
        written.map_err(|source| InitError::File { path, source })?;
        self.report.push((file.to_owned(), FileState::Created));
        Ok(())
    }

    /// Renames a file to `<file>.old`, or `.old2`, … : nothing that was there is lost.
    pub(super) fn set_aside(&mut self, file: &Path) -> Result<(), InitError> {
        let aside = |count: usize| {
            let mut name = file.as_os_str().to_owned();
            name.push(if count == 1 { ".old".to_owned() } else { format!(".old{count}") });
            PathBuf::from(name)
        };
        let aside = (1..).map(aside).find(|name| !self.exists(name)).expect("some number is free");
        let path = self.dir.join(file);
        fs::rename(&path, self.dir.join(&aside)).map_err(|source| InitError::File { path, source })?;
        self.report.push((aside, FileState::SetAside));
        Ok(())
    }

    fn make_dir(&self, dir: &Path, mode: u32) -> Result<(), InitError> {
        let path = self.dir.join(dir);
        let made = DirBuilder::new().recursive(true).mode(mode).create(&path);
        made.map_err(|source| InitError::File { path, source })
    }
}

#[cfg(test)]
mod tests;
