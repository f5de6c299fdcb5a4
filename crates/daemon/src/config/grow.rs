//! `tombolo region add`: one more region in the files of a cluster that are there.
//!
//! It declares the region at the end of `cluster.toml`, and makes its file and its certificate as `init` does. What is
//! there already is kept, so that a run that was cut short can be repeated. Start at [`add_region`].

use std::fs;
use std::path::{Path, PathBuf};

use tombolo_causality::RegionId;

use super::cluster_file::CLUSTER_FILE;
use super::init::{InitError, InitOptions, InitReport, Writer, check_names, init, ports};
use super::region_file::RegionFile;
use super::templates::RegionText;
use super::{Auth, ClusterConfig};

/// The region to declare.
#[derive(Debug, Clone)]
pub struct AddOptions {
    /// The cluster directory.
    pub dir: PathBuf,
    /// Its name.
    pub name: String,
    /// Its id: none that any region ever had.
    pub id: RegionId,
    /// Its HTTP port, with three more after it. `None`: the next ones that are free.
    pub base_port: Option<u16>,
    /// Where the other regions reach it. `None`: this machine.
    pub advertise: Option<String>,
}

/// Declares a region and makes its file and certificate.
///
/// Errors: [`InitError`]; what was made until then stays and is kept by the next run.
pub fn add_region(options: AddOptions) -> Result<InitReport, InitError> {
    let AddOptions { dir, name, id, base_port, advertise } = options;
    check_names(std::slice::from_ref(&name))?;
    let config = ClusterConfig::load(&dir).map_err(InitError::Config)?;
    let dev = config.regions.iter().all(|region| region.listen.auth == Auth::None);
    if config.region(&name).is_none() {
        let too_many = InitError::TooMany { regions: 1, base_port: base_port.unwrap_or_default() };
        let ports = match base_port {
            Some(base) => Some(ports(base, 0).ok_or(too_many)?),
            None => None,
        };
        let file = RegionFile::path(&name);
        if let Some(ports) = ports.filter(|_| !dir.join(&file).exists()) {
            let text = RegionText { name: &name, id: id.get(), ports, dev }.to_string();
            Writer::at(&dir).write(&file, 0o644, &text)?;
        }
        declare(&dir, &name, id)?;
    }
    let base_port = base_port.unwrap_or(7_400);
    let report = init(InitOptions { dir: dir.clone(), regions: Vec::new(), base_port, shards: None, dev })?;
    if let Some(advertise) = advertise {
        set_advertise(&dir.join(RegionFile::path(&name)), &advertise)?;
    }
    Ok(report)
}

/// Adds a `[[region]]` at the end of `cluster.toml`, whole or not at all.
fn declare(dir: &Path, name: &str, id: RegionId) -> Result<(), InitError> {
    let path = dir.join(CLUSTER_FILE);
    let mut text = read(&path)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text += &format!("\n[[region]]\nname = \"{name}\"\nid = {id}\n");
    replace(&path, &text)
}

fn set_advertise(path: &Path, advertise: &str) -> Result<(), InitError> {
    let text = read(path)?;
    let is_it = |line: &str| line.trim_start().starts_with("advertise");
    let line = |line: &str| {
        if is_it(line) { format!("advertise = \"{advertise}\"\n") } else { format!("{line}\n") }
    };
    replace(path, &text.lines().map(line).collect::<String>())
}

fn read(path: &Path) -> Result<String, InitError> {
    fs::read_to_string(path).map_err(|source| InitError::File { path: path.to_owned(), source })
}

fn replace(path: &Path, text: &str) -> Result<(), InitError> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".tmp");
    let written = fs::File::create(&draft).and_then(|mut file| {
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)
    });
    written.map_err(|source| InitError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_declared_with_its_file_and_certificate_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster");
        let regions = vec!["a".to_owned(), "b".to_owned()];
        let options =
            InitOptions { dir: path.clone(), regions, base_port: 7_400, shards: Some(2), dev: true };
        init(options).unwrap();
        let add = |name: &str, id| AddOptions {
            dir: path.clone(),
            name: name.to_owned(),
            id: RegionId::new(id).unwrap(),
            base_port: Some(9_000),
            advertise: Some("host.example:9003".to_owned()),
        };
        for _ in 0..2 {
            add_region(add("c", 7)).unwrap();
        }
        let config = ClusterConfig::load(&path).unwrap();
        let names: Vec<&str> = config.regions.iter().map(|region| region.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        let added = config.region("c").unwrap();
        assert_eq!((added.id.get(), added.listen.http.port()), (7, 9_000));
        assert_eq!(added.advertise, "host.example:9003");
        assert!(added.certificate.exists() && added.listen.auth == Auth::None);
        assert!(matches!(add_region(add("ca", 8)), Err(InitError::NameReserved(_))));
        assert!(matches!(add_region(add("No", 8)), Err(InitError::Name(_))));
    }
}
