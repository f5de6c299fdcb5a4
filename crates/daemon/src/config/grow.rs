//! `tombolo region add`: one more region in the files of a cluster that are there.
//!
//! It declares the region at the end of `cluster.toml`, and makes its file and its certificate as `init` does. What is
//! there already is kept, so that a run that was cut short can be repeated. Start at [`add_region`].

use std::fs;
use std::path::{Path, PathBuf};

use tombolo_causality::RegionId;

use super::cluster_file::CLUSTER_FILE;
use super::init::{FileState, InitError, InitOptions, InitReport, Writer, check_names, init, ports};
use super::region_file::{RegionFile, check_address};
use super::templates::RegionText;
use super::{Auth, ClusterConfig, RegionConfig};

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
/// What is refused leaves the directory as it was: a file that clashes with the others would be in the way of every
/// command on it.
///
/// Errors: [`InitError`]; of one that is declared already, what is missing is made and nothing changed.
pub fn add_region(options: AddOptions) -> Result<InitReport, InitError> {
    check_names(std::slice::from_ref(&options.name))?;
    if let Some(text) = &options.advertise {
        let named = |reason| InitError::Address { text: text.clone(), reason };
        check_address(text).map_err(named)?;
    }
    let config = ClusterConfig::load(&options.dir).map_err(InitError::Config)?;
    let dev = config.regions.iter().all(|region| region.listen.auth == Auth::None);
    if let Some(declared) = config.region(&options.name) {
        check_same(declared, &options)?;
        return fill_in(&options, dev);
    }
    if let Some(other) = config.regions.iter().find(|region| region.id == options.id) {
        return Err(InitError::IdTaken { id: options.id, name: other.name.clone() });
    }
    let (path, file) = (options.dir.join(CLUSTER_FILE), options.dir.join(RegionFile::path(&options.name)));
    let (before, was_there) = (read(&path)?, file.exists());
    let made = add_new(&options, dev);
    let checked = made.and_then(|report| match ClusterConfig::load(&options.dir) {
        Ok(_) => Ok(report),
        Err(errors) => {
            remove_created(&options.dir, &report);
            Err(InitError::Config(errors))
        }
    });
    if checked.is_err() {
        replace(&path, &before)?;
        if !was_there {
            // It may not have come to be.
            let _ = fs::remove_file(&file);
        }
    }
    checked
}

/// What stands in the files is not changed by declaring it once more.
fn check_same(declared: &RegionConfig, options: &AddOptions) -> Result<(), InitError> {
    let differs =
        |key, declared: String| Err(InitError::Declared { name: options.name.clone(), key, declared });
    if declared.id != options.id {
        return differs("id", declared.id.to_string());
    }
    match &options.advertise {
        Some(given) if *given != declared.advertise => differs("advertise", declared.advertise.clone()),
        _ => Ok(()),
    }
}

fn add_new(options: &AddOptions, dev: bool) -> Result<InitReport, InitError> {
    let AddOptions { dir, name, id, base_port, advertise } = options;
    let file = RegionFile::path(name);
    if let Some(base_port) = *base_port {
        let too_many = InitError::TooMany { regions: 1, base_port };
        let ports = ports(base_port, 0).ok_or(too_many)?;
        if !dir.join(&file).exists() {
            let text = RegionText { name, id: id.get(), ports, dev }.to_string();
            Writer::at(dir).write(&file, 0o644, &text)?;
        }
    }
    declare(dir, name, *id)?;
    let report = fill_in(options, dev)?;
    if let Some(advertise) = advertise {
        set_advertise(&dir.join(file), advertise)?;
    }
    Ok(report)
}

fn fill_in(options: &AddOptions, dev: bool) -> Result<InitReport, InitError> {
    let (dir, base_port) = (options.dir.clone(), options.base_port.unwrap_or(7_400));
    init(InitOptions { dir, regions: Vec::new(), base_port, shards: None, dev })
}

fn remove_created(dir: &Path, report: &InitReport) {
    for (file, _) in report.files.iter().filter(|(_, state)| *state == FileState::Created) {
        // What stays is not declared, and kept by a later run.
        let _ = fs::remove_file(dir.join(file));
    }
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

    /// The files of regions `a` and `b`, gone with the first.
    fn cluster() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster");
        let regions = vec!["a".to_owned(), "b".to_owned()];
        let options =
            InitOptions { dir: path.clone(), regions, base_port: 7_400, shards: Some(2), dev: true };
        init(options).unwrap();
        (dir, path)
    }

    #[test]
    fn a_region_is_declared_with_its_file_and_certificate_once() {
        let (_dir, path) = cluster();
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

    /// Every file below a directory with its content.
    fn content(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files.extend(content(&path));
            } else {
                files.push((path.clone(), fs::read(&path).unwrap()));
            }
        }
        files.sort();
        files
    }

    #[test]
    fn a_region_that_is_refused_leaves_every_file_as_it_was() {
        let (_dir, path) = cluster();
        let before = content(&path);
        let add = |name: &str, id, base_port, advertise: Option<&str>| {
            let id = RegionId::new(id).unwrap();
            let advertise = advertise.map(str::to_owned);
            add_region(AddOptions { dir: path.clone(), name: name.to_owned(), id, base_port, advertise })
        };
        let id_taken = add("c", 2, None, None);
        assert!(matches!(&id_taken, Err(InitError::IdTaken { name, .. }) if name == "b"), "{id_taken:?}");
        for advertise in ["nonsense", "", "host", "host:0", "ho st:7403", "\"\nid = 9:1"] {
            let refused = add("c", 3, None, Some(advertise));
            assert!(matches!(refused, Err(InitError::Address { .. })), "{advertise}: {refused:?}");
        }
        for (id, advertise, wrong) in [(2, Some("host.example:7413"), "advertise"), (3, None, "id")] {
            let refused = add("b", id, None, advertise);
            assert!(matches!(refused, Err(InitError::Declared { key, .. }) if key == wrong), "{refused:?}");
        }
        // What only shows once all files are read together: ports of another region, its address.
        for (base_port, advertise) in [(Some(7_401), None), (None, Some("127.0.0.1:7403"))] {
            let refused = add("c", 3, base_port, advertise);
            assert!(matches!(refused, Err(InitError::Config(_))), "{refused:?}");
        }
        assert_eq!(content(&path), before);
        ClusterConfig::load(&path).unwrap();
        add("c", 3, None, Some("host.example:7423")).unwrap();
        assert_eq!(ClusterConfig::load(&path).unwrap().region("c").unwrap().advertise, "host.example:7423");
    }
}
