//! What a name in a crate stands for: follows imports, renames, globs and modules to a path outside the crate.
//!
//! Knows modules, `use` and `extern crate`, not types: an associated item keeps the path of its type. Never judges.
//! Start at `Names::resolve`.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::Span;
use syn::{Item, ItemExternCrate, ItemUse, UseTree};

use crate::sources::{SourceFile, is_test_only};

/// One name that a `use` item brings in.
#[derive(Clone, Debug)]
pub(crate) struct Import {
    /// As written, `self` at the end removed; without the `*` of a glob.
    pub(crate) path: Vec<String>,
    /// Whether the path begins outside the crate for certain (`::std`, `extern crate`).
    pub(crate) is_absolute: bool,
    pub(crate) kind: ImportKind,
    pub(crate) span: Span,
}

/// How an import is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ImportKind {
    /// Under this name.
    Named(String),
    /// For its effect only (`as _`).
    Unnamed,
    /// Everything below the path.
    Glob,
}

/// The names that imports of one block or module bring in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    aliases: BTreeMap<String, Import>,
    globs: Vec<Import>,
}

/// The names of a whole crate.
#[derive(Debug, Default)]
pub(crate) struct Names {
    scopes: BTreeMap<Vec<String>, Scope>,
    modules: BTreeSet<Vec<String>>,
}

impl Scope {
    /// The scope that the imports among `items` make.
    pub(crate) fn of<'a>(items: impl Iterator<Item = &'a Item>) -> Self {
        let mut scope = Self::default();
        for item in items {
            for import in imports(item) {
                match &import.kind {
                    ImportKind::Named(name) => drop(scope.aliases.insert(name.clone(), import)),
                    ImportKind::Glob => scope.globs.push(import),
                    ImportKind::Unnamed => {}
                }
            }
        }
        scope
    }
}

impl Names {
    /// Collects modules and imports of all files of a crate.
    pub(crate) fn of(files: &[SourceFile]) -> Self {
        let mut names = Self::default();
        for file in files {
            names.collect(&file.syntax.items, file.module.clone());
        }
        names
    }

    fn collect(&mut self, items: &[Item], module: Vec<String>) {
        for item in items {
            if let Item::Mod(item) = item
                && !is_test_only(&item.attrs)
                && let Some((_, inner)) = &item.content
            {
                let path = module.iter().cloned().chain([item.ident.to_string()]).collect();
                self.collect(inner, path);
            }
        }
        self.scopes.insert(module.clone(), Scope::of(items.iter()));
        self.modules.insert(module);
    }

    /// The full path outside the crate that `path` means when written in `module`, inside `blocks` (outermost
    /// first); none if it means something of the crate itself.
    pub(crate) fn resolve(
        &self,
        module: &[String],
        blocks: &[Scope],
        path: &[String],
    ) -> Option<Vec<String>> {
        let mut seen = BTreeSet::new();
        for block in blocks.iter().rev() {
            if let Some(import) = path.first().and_then(|name| block.aliases.get(name)) {
                // An import may rename a crate to its own name; then the name means the crate.
                if import.path.first() != path.first() || import.path.len() > 1 {
                    return self.follow(module, import, &path[1..], &mut seen);
                }
            }
        }
        self.resolve_in(module, path, &mut seen)
    }

    /// What an import's own path means.
    pub(crate) fn resolve_import(
        &self,
        module: &[String],
        blocks: &[Scope],
        import: &Import,
    ) -> Option<Vec<String>> {
        if import.is_absolute {
            Some(normal(&import.path))
        } else {
            self.resolve(module, blocks, &import.path)
        }
    }

    fn resolve_in(
        &self,
        module: &[String],
        path: &[String],
        seen: &mut BTreeSet<(Vec<String>, String)>,
    ) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "std" | "core" | "alloc" => Some(normal(path)),
            "crate" => self.walk(&[], rest, seen),
            "self" => self.walk(module, rest, seen),
            "super" => self.walk(module.split_last()?.1, rest, seen),
            "Self" => None,
            _ => match self.lookup(module, first, rest, seen) {
                Lookup::Outside(path) => Some(path),
                Lookup::Inside => None,
                // In a path that nothing in the crate explains, the first name is that of another crate.
                Lookup::Unknown => Some(path.to_vec()),
            },
        }
    }

    /// Goes on from a module of the crate.
    fn walk(
        &self,
        module: &[String],
        path: &[String],
        seen: &mut BTreeSet<(Vec<String>, String)>,
    ) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        if first == "super" {
            return self.walk(module.split_last()?.1, rest, seen);
        }
        match self.lookup(module, first, rest, seen) {
            Lookup::Outside(path) => Some(path),
            Lookup::Inside | Lookup::Unknown => None,
        }
    }

    fn lookup(
        &self,
        module: &[String],
        name: &str,
        rest: &[String],
        seen: &mut BTreeSet<(Vec<String>, String)>,
    ) -> Lookup {
        // A name met again on its own trail, as in `use uhlc::uhlc` or globs in a ring, ends the trail.
        if !seen.insert((module.to_vec(), name.to_owned())) {
            return Lookup::Unknown;
        }
        let Some(scope) = self.scopes.get(module) else { return Lookup::Inside };
        if let Some(import) = scope.aliases.get(name) {
            return self.follow(module, import, rest, seen).map_or(Lookup::Inside, Lookup::Outside);
        }
        let child: Vec<String> = module.iter().cloned().chain([name.to_owned()]).collect();
        if self.modules.contains(&child) {
            return self.walk(&child, rest, seen).map_or(Lookup::Inside, Lookup::Outside);
        }
        for glob in &scope.globs {
            if let Some(target) = self.inner_module(module, &glob.path) {
                match self.lookup(&target, name, rest, seen) {
                    Lookup::Unknown => {}
                    found => return found,
                }
            }
        }
        Lookup::Unknown
    }

    fn follow(
        &self,
        module: &[String],
        import: &Import,
        rest: &[String],
        seen: &mut BTreeSet<(Vec<String>, String)>,
    ) -> Option<Vec<String>> {
        let path: Vec<String> = import.path.iter().chain(rest).cloned().collect();
        if import.is_absolute { Some(normal(&path)) } else { self.resolve_in(module, &path, seen) }
    }

    /// The module of this crate that a glob's path names directly.
    fn inner_module(&self, module: &[String], path: &[String]) -> Option<Vec<String>> {
        let mut target = match path.first()?.as_str() {
            "crate" => Vec::new(),
            "super" => module.split_last()?.1.to_vec(),
            "self" => module.to_vec(),
            child => module.iter().cloned().chain([child.to_owned()]).collect(),
        };
        for segment in &path[1..] {
            match segment.as_str() {
                "super" => drop(target.pop()?),
                name => target.push(name.to_owned()),
            }
        }
        self.modules.contains(&target).then_some(target)
    }
}

enum Lookup {
    Outside(Vec<String>),
    Inside,
    Unknown,
}

/// The imports an item makes, if it is one that imports.
pub(crate) fn imports(item: &Item) -> Vec<Import> {
    match item {
        Item::Use(item) => imports_of_use(item),
        Item::ExternCrate(item) => vec![import_of_extern_crate(item)],
        _ => Vec::new(),
    }
}

/// The imports of a `use` item, one for each leaf of its tree.
pub(crate) fn imports_of_use(item: &ItemUse) -> Vec<Import> {
    let mut found = Vec::new();
    if !is_test_only(&item.attrs) {
        collect_tree(&item.tree, &mut Vec::new(), item.leading_colon.is_some(), &mut found);
    }
    found
}

/// The import that an `extern crate` item is.
pub(crate) fn import_of_extern_crate(item: &ItemExternCrate) -> Import {
    let name = item.rename.as_ref().map_or(&item.ident, |(_, rename)| rename);
    Import {
        path: vec![item.ident.to_string()],
        is_absolute: true,
        kind: ImportKind::Named(name.to_string()),
        span: item.ident.span(),
    }
}

fn collect_tree(tree: &UseTree, prefix: &mut Vec<String>, is_absolute: bool, found: &mut Vec<Import>) {
    let mut leaf = |mut path: Vec<String>, kind: Option<ImportKind>, span: Span| {
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let own_name = path.last().cloned().unwrap_or_default();
        let kind = kind.unwrap_or(ImportKind::Named(own_name));
        found.push(Import { path, is_absolute, kind, span });
    };
    let joined = |prefix: &[String], name: &syn::Ident| -> Vec<String> {
        prefix.iter().cloned().chain([name.to_string()]).collect()
    };
    match tree {
        UseTree::Name(name) => leaf(joined(prefix, &name.ident), None, name.ident.span()),
        UseTree::Rename(rename) => {
            let name = rename.rename.to_string();
            let kind = if name == "_" { ImportKind::Unnamed } else { ImportKind::Named(name) };
            leaf(joined(prefix, &rename.ident), Some(kind), rename.ident.span());
        }
        UseTree::Glob(glob) => leaf(prefix.clone(), Some(ImportKind::Glob), glob.star_token.spans[0]),
        UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            collect_tree(&path.tree, prefix, is_absolute, found);
            prefix.pop();
        }
        UseTree::Group(group) => {
            for tree in &group.items {
                collect_tree(tree, prefix, is_absolute, found);
            }
        }
    }
}

/// `core` and `alloc` hold parts of `std` under the same names.
fn normal(path: &[String]) -> Vec<String> {
    let mut path = path.to_vec();
    if let Some(first) = path.first_mut()
        && (first == "core" || first == "alloc")
    {
        "std".clone_into(first);
    }
    path
}
