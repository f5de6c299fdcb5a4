//! `tombolo check`: the files as `load` sees them, and the certificates besides.
//!
//! What stops a region is an error, what will stop one is a warning. Start at [`check`].

use std::path::Path;
use std::time::{Duration, SystemTime};

use tombolo_transport::Identity;

use super::error::{Place, Problems};
use super::load::{Files, orphans};
use super::region_file::RegionFile;
use super::{ClusterConfig, ConfigError, RegionConfig};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Time enough to issue and carry a certificate by hand.
const EXPIRY_NOTICE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A cluster whose files are right.
#[derive(Debug, Clone)]
pub struct CheckReport {
    /// What they say.
    pub config: ClusterConfig,
    /// What will be wrong, or is unusual.
    pub warnings: Vec<ConfigError>,
}

/// Checks all files of the cluster in `dir`, certificates included.
///
/// Errors: everything that is wrong, in the order of the files.
pub fn check(dir: &Path) -> Result<CheckReport, Vec<ConfigError>> {
    check_at(dir, SystemTime::now())
}

/// As [`check`], with warnings as of another time.
pub(super) fn check_at(dir: &Path, now: SystemTime) -> Result<CheckReport, Vec<ConfigError>> {
    let config = ClusterConfig::load(dir)?;
    let (mut problems, mut warnings) = (Problems::default(), Problems::default());
    let is_any_key_here = config.regions.iter().any(|region| region.key.exists());
    for region in &config.regions {
        check_certificate(&config, region, is_any_key_here, now, &mut problems, &mut warnings);
    }
    warn_of_orphans(dir, &mut warnings);
    if problems.is_empty() {
        Ok(CheckReport { config, warnings: warnings.into_errors() })
    } else {
        Err(problems.into_errors())
    }
}

fn check_certificate(
    config: &ClusterConfig,
    region: &RegionConfig,
    is_any_key_here: bool,
    now: SystemTime,
    problems: &mut Problems,
    warnings: &mut Problems,
) {
    let file = |path: &Path| path.strip_prefix(&config.dir).unwrap_or(path).to_owned();
    let place = Place::start_of(&file(&region.certificate));
    let remedy = "`tombolo init` makes what is missing";
    if !region.certificate.exists() {
        let message = format!("the certificate of region `{}` does not exist", region.name);
        return problems.add_with_hint(&place, message, remedy);
    }
    if !region.key.exists() {
        let place = Place::start_of(&file(&region.key));
        let message = format!("the key of region `{}` does not exist", region.name);
        return if is_any_key_here {
            warnings.add_with_hint(&place, message, "that is right unless this machine serves it");
        } else {
            problems.add_with_hint(&place, message, remedy);
        };
    }
    let identity = match Identity::load(&config.authority, &region.certificate, &region.key) {
        Ok(identity) => identity,
        Err(error) => return problems.add(&place, error.to_string()),
    };
    let name = identity.name();
    if name.cluster != config.cluster {
        let message = format!("the certificate is of cluster {}, this is {}", name.cluster, config.cluster);
        problems.add(&place, message);
    }
    if name.region != region.name {
        let message =
            format!("the certificate is that of region `{}`, not of `{}`", name.region, region.name);
        problems.add(&place, message);
    }
    warn_of_expiry(identity.not_after_unix_s(), &region.name, now, &place, warnings);
}

fn warn_of_expiry(
    not_after_unix_s: i64,
    region: &str,
    now: SystemTime,
    place: &Place,
    warnings: &mut Problems,
) {
    let not_after =
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(not_after_unix_s).unwrap_or(0));
    let left = not_after.duration_since(now).unwrap_or(Duration::ZERO);
    if left < EXPIRY_NOTICE {
        let days = left.as_secs() / DAY.as_secs();
        warnings.add_with_hint(
            place,
            format!("the certificate of region `{region}` expires in {days} days"),
            "remove it and its key and run `tombolo init`, then send SIGHUP to the region",
        );
    }
}

fn warn_of_orphans(dir: &Path, warnings: &mut Problems) {
    // Whatever is wrong in the files was reported by loading them.
    if let Some(files) = Files::read_present(dir, &mut Problems::default()) {
        for name in orphans(dir, &files.cluster) {
            let place = Place::start_of(&RegionFile::path(&name));
            warnings.add_with_hint(
                &place,
                format!("region `{name}` is not declared"),
                "add a `[[region]]` to cluster.toml or remove the file",
            );
        }
    }
}

#[cfg(test)]
mod tests;
