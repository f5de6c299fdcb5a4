//! Secrets: where they stand, who may read them, and how they are kept out of logs.
//!
//! The files of a cluster hold references (`file:PATH`, `env:NAME`), never secrets. Start at [`Reference::parse`].

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER_PERMISSIVE;
use tombolo_codec::SealKey;

use super::error::{Place, Placed, Problems};

/// No secret of ours is near this.
const SECRET_BYTES_MAX: u64 = 4 * 1024;

/// A token. It prints as `Secret(…)`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `given` is it, in a time that does not tell how much of it is right.
    #[must_use]
    pub fn matches(&self, given: &str) -> bool {
        blake3::hash(self.0.as_bytes()) == blake3::hash(given.as_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where a secret is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reference {
    /// In a file, relative to the cluster directory.
    File(PathBuf),
    /// In a variable of the environment.
    Environment(String),
}

/// Gives a variable of the environment.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Reference {
    /// Reads `file:PATH` or `env:NAME`. Anything else is taken for a secret, and is never repeated in a message.
    pub(super) fn parse(key: &str, text: &Placed<String>, problems: &mut Problems) -> Option<Placed<Self>> {
        let reference = match text.value.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Self::File(PathBuf::from(path)),
            Some(("env", name)) if !name.is_empty() && !name.contains('=') => {
                Self::Environment(name.to_owned())
            }
            _ => {
                problems.add_with_hint(
                    &text.place,
                    format!("`{key}` must be a reference, a secret never stands in this file"),
                    format!(
                        "put the secret into a file and write `{key} = \"file:PATH\"`, or `\"env:NAME\"`"
                    ),
                );
                return None;
            }
        };
        Some(text.with(reference))
    }

    /// Fetches the secret and cuts white space off its ends.
    fn fetch(
        &self,
        place: &Place,
        dir: &Path,
        environment: Environment<'_>,
        problems: &mut Problems,
    ) -> Option<String> {
        let (text, origin) = match self {
            Self::File(file) => {
                (read_secret(&dir.join(file), file, place, problems)?, file.display().to_string())
            }
            Self::Environment(name) => match environment(name) {
                Some(text) => (text, format!("${name}")),
                None => {
                    problems.add(place, format!("the environment variable `{name}` is not set"));
                    return None;
                }
            },
        };
        let text = text.trim();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            problems.add(place, format!("`{origin}` must hold one word of printable ASCII characters"));
            return None;
        }
        Some(text.to_owned())
    }
}

/// A bearer token.
pub(super) fn fetch_token(
    reference: &Placed<Reference>,
    dir: &Path,
    environment: Environment<'_>,
    problems: &mut Problems,
) -> Option<Secret> {
    reference.value.fetch(&reference.place, dir, environment, problems).map(Secret)
}

/// The cluster's seal key: 32 bytes as 64 hex digits.
pub(super) fn fetch_seal_key(
    reference: &Placed<Reference>,
    dir: &Path,
    environment: Environment<'_>,
    problems: &mut Problems,
) -> Option<SealKey> {
    let text = reference.value.fetch(&reference.place, dir, environment, problems)?;
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    if bytes.is_none() {
        problems.add(&reference.place, "the seal key must be 64 hexadecimal digits");
    }
    bytes.map(SealKey::new)
}

fn read_secret(path: &Path, shown: &Path, place: &Place, problems: &mut Problems) -> Option<String> {
    let shown = shown.display();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            problems.add_with_hint(
                place,
                format!("`{shown}` does not exist"),
                "`tombolo init` makes what is missing",
            );
            return None;
        }
        Err(error) => {
            problems.add(place, format!("cannot read `{shown}`: {error}"));
            return None;
        }
    };
    refuse_exposed(path, place, problems)?;
    let mut text = String::new();
    match file.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text) {
        Ok(count) if count as u64 <= SECRET_BYTES_MAX => Some(text),
        Ok(_) => {
            problems.add(place, format!("`{shown}` has more than {SECRET_BYTES_MAX} bytes, it is no secret"));
            None
        }
        Err(error) => {
            problems.add(place, format!("cannot read `{shown}`: {error}"));
            None
        }
    }
}

/// Refuses a file that is open to everybody on the machine.
pub(super) fn refuse_exposed(path: &Path, place: &Place, problems: &mut Problems) -> Option<()> {
    // A directory is no secret; what does not exist is reported by whoever needs it.
    let Ok(metadata) = path.metadata() else { return Some(()) };
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o007 == 0 || !metadata.is_file() {
        return Some(());
    }
    problems.add_with_hint(
        place,
        format!("`{}` is open to everybody on this machine (mode {mode:04o})", path.display()),
        format!("run: chmod 600 {}", path.display()),
    );
    None
}
