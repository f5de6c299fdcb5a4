//! The source files of a crate as the compiler reaches them: from the root along `mod` items, without test code.
//!
//! A file that only tests reach is not product code and is not here. Never judges. Start at `Sources::load`.

use std::path::{Path, PathBuf};

use syn::{Attribute, Expr, Item, ItemMod, Lit, Meta};

use crate::violation::Violation;

/// Gives the text of a file, if it exists.
pub(crate) type Reader<'a> = &'a dyn Fn(&Path) -> Option<String>;

/// One parsed file of product code.
pub(crate) struct SourceFile {
    /// Relative to the root of the repository.
    pub(crate) path: PathBuf,
    /// Where it stands in the crate: empty for the root.
    pub(crate) module: Vec<String>,
    pub(crate) syntax: syn::File,
}

/// All files of product code of one crate, and those that could not be read.
#[derive(Default)]
pub(crate) struct Sources {
    pub(crate) files: Vec<SourceFile>,
    pub(crate) unreadable: Vec<Violation>,
}

impl Sources {
    /// Reads the file at `path`, the root of a crate, and every file its modules reach.
    pub(crate) fn load(path: &Path, read: Reader<'_>) -> Self {
        let mut sources = Self::default();
        let children = path.parent().unwrap_or(Path::new("")).to_owned();
        sources.load_file(path, children, Vec::new(), read);
        sources
    }

    /// `children` is the folder in which the file's modules have their files.
    fn load_file(&mut self, path: &Path, children: PathBuf, module: Vec<String>, read: Reader<'_>) {
        let shown = path.display().to_string();
        let Some(text) = read(path) else {
            self.unreadable.push(Violation::of_file(shown, "cannot be read"));
            return;
        };
        let syntax = match syn::parse_file(&text) {
            Ok(syntax) => syntax,
            Err(error) => {
                let at = error.span().start();
                let text = format!("is not Rust: {error}");
                self.unreadable.push(Violation { file: shown, line: at.line, column: at.column + 1, text });
                return;
            }
        };
        if is_test_only(&syntax.attrs) {
            return;
        }
        self.load_modules(&syntax.items, path, &children, &module, read);
        self.files.push(SourceFile { path: path.to_owned(), module, syntax });
    }

    fn load_modules(
        &mut self,
        items: &[Item],
        file: &Path,
        children: &Path,
        module: &[String],
        read: Reader<'_>,
    ) {
        for item in items {
            let Item::Mod(item) = item else { continue };
            if is_test_only(&item.attrs) {
                continue;
            }
            let name = item.ident.to_string();
            let inner: Vec<String> = module.iter().cloned().chain([name.clone()]).collect();
            match &item.content {
                Some((_, items)) => self.load_modules(items, file, &children.join(&name), &inner, read),
                None => self.load_module(item, &name, file, children, inner, read),
            }
        }
    }

    fn load_module(
        &mut self,
        item: &ItemMod,
        name: &str,
        file: &Path,
        children: &Path,
        module: Vec<String>,
        read: Reader<'_>,
    ) {
        if let Some(named) = path_attribute(&item.attrs) {
            let path = file.parent().unwrap_or(Path::new("")).join(named);
            let children = path.parent().unwrap_or(Path::new("")).to_owned();
            return self.load_file(&path, children, module, read);
        }
        let beside = children.join(format!("{name}.rs"));
        let inside = children.join(name).join("mod.rs");
        let path = if read(&beside).is_some() || read(&inside).is_none() { beside } else { inside };
        self.load_file(&path, children.join(name), module, read);
    }
}

/// Whether an item with these attributes exists in tests alone.
pub(crate) fn is_test_only(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::Path(path) => path.is_ident("test") || path.is_ident("bench"),
        Meta::List(list) if list.path.is_ident("cfg") => {
            list.parse_args::<Meta>().is_ok_and(|condition| requires_test(&condition))
        }
        _ => false,
    })
}

/// Whether a `cfg` condition can hold only in tests.
fn requires_test(condition: &Meta) -> bool {
    let parts = |list: &syn::MetaList| -> Vec<Meta> {
        list.parse_args_with(syn::punctuated::Punctuated::<Meta, syn::Token![,]>::parse_terminated)
            .map(|parts| parts.into_iter().collect())
            .unwrap_or_default()
    };
    match condition {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("all") => parts(list).iter().any(requires_test),
        Meta::List(list) if list.path.is_ident("any") => {
            let parts = parts(list);
            !parts.is_empty() && parts.iter().all(requires_test)
        }
        _ => false,
    }
}

fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(text.value()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    })
}
