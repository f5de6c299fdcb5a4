//! `cluster.toml` as it is written: typed and placed, its secrets not yet fetched.
//!
//! It looks at no other file. Start at [`ClusterFile::read`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tombolo_causality::ClusterId;
use tombolo_codec::{Kind, Schema};

use super::document::{Section, Source};
use super::error::{Place, Placed, Problems};
use super::keys::CLUSTER;
use super::secret::Reference;

/// Its name in the cluster directory.
pub(super) const CLUSTER_FILE: &str = "cluster.toml";
/// What stands for a region's name in a path.
const REGION_MARK: &str = "{region}";
const REGION_NAME_BYTES_MAX: usize = 32;
/// Their files in `pki/` would be the CA's and the seal key's.
const NAMES_RESERVED: [&str; 2] = ["ca", "seal"];

/// What a region may be called, for messages.
pub(super) const REGION_NAME_RULE: &str = "1 to 32 of a-z, 0-9 and -, a letter first, no - at the end";

/// The contents of `cluster.toml`. What is none was missing or wrong, and reported.
#[derive(Debug)]
pub(super) struct ClusterFile {
    pub(super) cluster: Option<ClusterId>,
    pub(super) shards: Option<u16>,
    pub(super) revision: Option<u64>,
    pub(super) regions: Vec<DeclaredRegion>,
    pub(super) schema: Schema,
    pub(super) tenants: Vec<DeclaredTenant>,
    pub(super) pki: PkiPaths,
    pub(super) seal_key: Option<Placed<Reference>>,
    pub(super) admin_token: Option<Placed<Reference>>,
}

/// `[[region]]`.
#[derive(Debug)]
pub(super) struct DeclaredRegion {
    pub(super) name: Placed<String>,
    pub(super) id: Option<Placed<u64>>,
}

/// `[[tenant]]`.
#[derive(Debug)]
pub(super) struct DeclaredTenant {
    pub(super) name: Placed<String>,
    pub(super) id: Option<u32>,
    pub(super) token: Option<Placed<Reference>>,
}

/// `[pki]`, relative to the cluster directory.
#[derive(Debug)]
pub(super) struct PkiPaths {
    pub(super) authority: PathBuf,
    pub(super) authority_key: PathBuf,
    certificate: String,
    key: String,
    /// Where the section stands.
    pub(super) place: Place,
}

impl PkiPaths {
    /// The certificate of a region.
    pub(super) fn certificate(&self, region: &str) -> PathBuf {
        self.certificate.replace(REGION_MARK, region).into()
    }

    /// The key of a region.
    pub(super) fn key(&self, region: &str) -> PathBuf {
        self.key.replace(REGION_MARK, region).into()
    }
}

impl ClusterFile {
    /// Reads the text of `cluster.toml`; none if it is not TOML.
    pub(super) fn read(text: &str, problems: &mut Problems) -> Option<Self> {
        let source = Source { file: Path::new(CLUSTER_FILE), text };
        let table = source.parse(problems)?;
        let top = Section::top(source, &CLUSTER, &table, problems);
        let secrets = top.section("secrets", problems);
        Some(Self {
            cluster: cluster_id(&top, problems),
            shards: top.number("shards", problems).map(|shards| narrow(shards.value)),
            revision: top.number("revision", problems).map(|revision| revision.value),
            regions: regions(&top, problems),
            schema: schema(&top, problems),
            tenants: tenants(&top, problems),
            pki: pki(&top, problems),
            seal_key: reference(&secrets, "seal_key", problems),
            admin_token: reference(&secrets, "admin_token", problems),
        })
    }
}

/// Whether a text may name a region or a tenant.
pub(super) fn name_is_valid(name: &str) -> bool {
    name.len() <= REGION_NAME_BYTES_MAX
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// Whether a valid name is that of a file beside the regions' certificates.
pub(super) fn name_is_reserved(name: &str) -> bool {
    NAMES_RESERVED.contains(&name)
}

fn cluster_id(top: &Section<'_>, problems: &mut Problems) -> Option<ClusterId> {
    let text = top.text("cluster", problems)?;
    match text.value.parse() {
        Ok(id) => Some(id),
        Err(_) => {
            problems.add(&text.place, "`cluster` must be 32 hexadecimal digits");
            None
        }
    }
}

fn regions(top: &Section<'_>, problems: &mut Problems) -> Vec<DeclaredRegion> {
    let mut seen = BTreeMap::new();
    let mut regions = Vec::new();
    for section in top.sections("region", problems) {
        let id = section.number("id", problems);
        let Some(name) = section.text("name", problems) else { continue };
        if !name_is_valid(&name.value) {
            problems.add_with_hint(
                &name.place,
                format!("`{}` cannot name a region", name.value),
                format!("a name is {REGION_NAME_RULE}"),
            );
        } else if name_is_reserved(&name.value) {
            problems.add(
                &name.place,
                format!("`{0}` cannot name a region: pki/{0}.* belongs to the cluster", name.value),
            );
        } else if let Some(first) = seen.insert(name.value.clone(), name.place.line) {
            problems.add(&name.place, format!("region `{}` stands on line {first} already", name.value));
        } else {
            regions.push(DeclaredRegion { name, id });
        }
    }
    regions
}

fn schema(top: &Section<'_>, problems: &mut Problems) -> Schema {
    let mut rules = Vec::new();
    for (section, kind) in [("counter", Kind::Counter), ("register", Kind::Register)] {
        for rule in top.sections(section, problems) {
            if let Some(pattern) = rule.text("match", problems) {
                match Schema::new([(pattern.value.as_str(), kind)]) {
                    Ok(_) => rules.push((pattern, kind)),
                    Err(error) => problems.add(&pattern.place, error.to_string()),
                }
            }
        }
    }
    // The first match wins over both kinds, so their order in the file counts.
    rules.sort_by_key(|(pattern, _)| (pattern.place.line, pattern.place.column));
    let rules = rules.iter().map(|(pattern, kind)| (pattern.value.as_str(), *kind));
    Schema::new(rules).expect("each pattern was taken by itself")
}

fn tenants(top: &Section<'_>, problems: &mut Problems) -> Vec<DeclaredTenant> {
    let mut names = BTreeMap::new();
    let mut ids = BTreeMap::new();
    let mut tenants = Vec::new();
    for section in top.sections("tenant", problems) {
        let id = section.number("id", problems);
        let token = reference(&section, "token", problems);
        let Some(name) = section.text("name", problems) else { continue };
        if !name_is_valid(&name.value) {
            problems.add_with_hint(
                &name.place,
                format!("`{}` cannot name a tenant", name.value),
                format!("a name is {REGION_NAME_RULE}"),
            );
        }
        if let Some(first) = names.insert(name.value.clone(), name.place.line) {
            problems.add(&name.place, format!("tenant `{}` stands on line {first} already", name.value));
        }
        if let Some(id) = &id
            && let Some(first) = ids.insert(id.value, name.value.clone())
        {
            problems.add(&id.place, format!("id {} is tenant `{first}`'s already", id.value));
        }
        tenants.push(DeclaredTenant { name, id: id.map(|id| narrow(id.value)), token });
    }
    tenants
}

fn pki(top: &Section<'_>, problems: &mut Problems) -> PkiPaths {
    let section = top.section("pki", problems);
    let mut path = |name: &str, is_per_region: bool| {
        let Some(path) = section.text(name, problems) else { return String::new() };
        if is_per_region && !path.value.contains(REGION_MARK) {
            problems.add_with_hint(
                &path.place,
                format!("`{name}` must be another file for each region"),
                format!("put {REGION_MARK} where the region's name belongs"),
            );
        }
        path.value
    };
    PkiPaths {
        authority: path("authority", false).into(),
        authority_key: path("authority_key", false).into(),
        certificate: path("certificate", true),
        key: path("key", true),
        place: section.place.clone(),
    }
}

fn reference(section: &Section<'_>, key: &str, problems: &mut Problems) -> Option<Placed<Reference>> {
    let text = section.text(key, problems)?;
    Reference::parse(key, &text, problems)
}

/// For numbers whose bounds in the table of keys fit the type.
pub(super) fn narrow<T: TryFrom<u64>>(number: u64) -> T {
    T::try_from(number).ok().expect("the bounds in the table of keys fit the type")
}
