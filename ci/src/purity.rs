//! Purity: finds code below the line that names the world (clock, chance, files, sockets, threads, environment).
//!
//! Judges names after imports and renames are followed; comments, strings and test code do not count. It does not
//! know types, so a method that reaches the world through a value is left to clippy. Start at `check_crate`.

use std::path::Path;

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Arm, Attribute, Block, Field, ImplItem, Item, Macro, Stmt, TraitItem};

use crate::bans::{self, Ban};
use crate::edges::{Member, Workspace};
use crate::layers::{self, Purity};
use crate::names::{self, Import, ImportKind, Names, Scope};
use crate::sources::{Reader, SourceFile, Sources, is_test_only};
use crate::violation::Violation;

/// Scans every crate that the table of layers puts below the line.
pub(crate) fn check(root: &Path, workspace: &Workspace) -> Vec<Violation> {
    let read: Reader<'_> = &|path| std::fs::read_to_string(root.join(path)).ok();
    workspace.members.iter().flat_map(|member| check_member(member, read)).collect()
}

fn check_member(member: &Member, read: Reader<'_>) -> Vec<Violation> {
    let purity = layers::layer(&member.name).map_or(Purity::Shell, |layer| layer.purity);
    if purity == Purity::Shell {
        return Vec::new();
    }
    let folder = Path::new(&member.folder);
    let mut violations = check_crate(&member.name, purity, &folder.join("src/lib.rs"), read);
    for other in ["build.rs", "src/main.rs"] {
        let path = folder.join(other);
        if read(&path).is_some() {
            let text = format!(
                "{} may not have it: a crate below the line is a library that builds alone",
                member.name
            );
            violations.push(Violation::of_file(path.display().to_string(), text));
        }
    }
    violations
}

/// Scans one crate from its root file; in the files its row excepts, everything is allowed.
pub(crate) fn check_crate(name: &str, purity: Purity, root: &Path, read: Reader<'_>) -> Vec<Violation> {
    let (excepted, in_shell_logic): (&[&str], bool) = match purity {
        Purity::Pure => (&[], false),
        Purity::PureExcept(files) => (files, true),
        Purity::Shell => return Vec::new(),
    };
    let sources = Sources::load(root, read);
    let names = Names::of(&sources.files);
    let mut violations = sources.unreadable;
    for file in &sources.files {
        let is_excepted = file.path.file_name().is_some_and(|own| excepted.iter().any(|other| own == *other));
        if !is_excepted {
            violations.extend(Scan::run(name, file, &names, in_shell_logic));
        }
    }
    violations.sort();
    violations.dedup();
    violations
}

/// The walk through one file.
struct Scan<'a> {
    crate_name: &'a str,
    file: String,
    names: &'a Names,
    in_shell_logic: bool,
    module: Vec<String>,
    blocks: Vec<Scope>,
    violations: Vec<Violation>,
}

impl<'a> Scan<'a> {
    fn run(crate_name: &'a str, file: &SourceFile, names: &'a Names, in_shell_logic: bool) -> Vec<Violation> {
        let mut scan = Self {
            crate_name,
            file: file.path.display().to_string(),
            names,
            in_shell_logic,
            module: file.module.clone(),
            blocks: Vec::new(),
            violations: Vec::new(),
        };
        scan.visit_file(&file.syntax);
        scan.violations
    }

    fn report(&mut self, span: Span, what: &str, ban: &Ban) {
        let at = span.start();
        let text = format!("{} may not use {what} ({}); {} instead", self.crate_name, ban.why, ban.instead);
        let file = self.file.clone();
        self.violations.push(Violation { file, line: at.line, column: at.column + 1, text });
    }

    fn judge_import(&mut self, import: &Import) {
        let Some(path) = self.names.resolve_import(&self.module, &self.blocks, import) else { return };
        let shown = path.join("::");
        if let Some(ban) = bans::ban_of(&path, self.in_shell_logic) {
            self.report(import.span, &shown, ban);
        } else if import.kind == ImportKind::Glob
            && let Some(ban) = bans::ban_below(&path, self.in_shell_logic)
        {
            self.report(import.span, &format!("{shown}::*, which brings in {}", ban.path), ban);
        }
    }

    /// Judges a path in code. One word alone is a local name or an import, and imports are judged where they stand.
    fn judge_path(&mut self, segments: &[String], is_absolute: bool, span: Span) {
        if segments.len() < 2 {
            return;
        }
        let resolved = if is_absolute {
            Some(segments.to_vec())
        } else {
            self.names.resolve(&self.module, &self.blocks, segments)
        };
        let Some(path) = resolved else { return };
        if let Some(ban) = bans::ban_of(&path, self.in_shell_logic) {
            // What an import already stands accused of is not reported again at each use.
            if !self.is_reported_import(&segments[0], is_absolute) {
                self.report(span, &path.join("::"), ban);
            }
        } else if is_default_table_constructor(&path) {
            self.report(span, &path.join("::"), &bans::DEFAULT_HASHER);
        }
    }

    fn is_reported_import(&self, first: &str, is_absolute: bool) -> bool {
        let first = [first.to_owned()];
        !is_absolute
            && self
                .names
                .resolve(&self.module, &self.blocks, &first)
                .is_some_and(|path| path != first && bans::ban_of(&path, self.in_shell_logic).is_some())
    }

    fn judge_macro_name(&mut self, segments: &[String], is_absolute: bool, span: Span) {
        if let [name] = segments {
            let from_std = vec!["std".to_owned(), name.clone()];
            if bans::PRELUDE_MACROS.contains(&name.as_str())
                && let Some(ban) = bans::ban_of(&from_std, self.in_shell_logic)
            {
                self.report(span, &format!("{name}!"), ban);
            }
        } else {
            self.judge_path(segments, is_absolute, span);
        }
    }

    /// Judges the paths among the tokens of a macro, which have no syntax tree. `prefix` is the path before a brace.
    fn judge_tokens(&mut self, tokens: TokenStream, prefix: &[String]) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => {
                    self.judge_tokens(group.stream(), &[]);
                    at += 1;
                }
                TokenTree::Ident(first) => {
                    let after = at.checked_sub(1).map(|before| &tokens[before]);
                    let is_member =
                        is_punct(after, '.') && !is_punct(at.checked_sub(2).map(|i| &tokens[i]), '.');
                    let is_absolute = is_path_separator(&tokens, at.wrapping_sub(2));
                    let mut path = prefix.to_vec();
                    path.push(first.to_string());
                    at += 1;
                    while is_path_separator(&tokens, at)
                        && let Some(TokenTree::Ident(next)) = tokens.get(at + 2)
                    {
                        path.push(next.to_string());
                        at += 3;
                    }
                    if is_member || is_punct(after, '$') {
                        continue;
                    }
                    if is_path_separator(&tokens, at)
                        && let Some(TokenTree::Group(group)) = tokens.get(at + 2)
                        && group.delimiter() == Delimiter::Brace
                    {
                        self.judge_tokens(group.stream(), &path);
                        at += 3;
                    } else if is_punct(tokens.get(at), '!') && !is_punct(tokens.get(at + 1), '=') {
                        self.judge_macro_name(&path, is_absolute, first.span());
                    } else {
                        self.judge_path(&path, is_absolute, first.span());
                    }
                }
                _ => at += 1,
            }
        }
    }

    /// hashbrown's tables take the hasher as their last type argument, and a random one if it is left out.
    fn judge_table_type(&mut self, path: &syn::Path) {
        let Some(last) = path.segments.last() else { return };
        let syn::PathArguments::AngleBracketed(arguments) = &last.arguments else { return };
        let Some(resolved) = self.names.resolve(&self.module, &self.blocks, &words(path)) else { return };
        let without_hasher = match resolved.join("::").as_str() {
            "hashbrown::HashMap" | "hashbrown::hash_map::HashMap" => 2,
            "hashbrown::HashSet" | "hashbrown::hash_set::HashSet" => 1,
            _ => return,
        };
        let types = arguments
            .args
            .iter()
            .filter(|argument| matches!(argument, syn::GenericArgument::Type(_)))
            .count();
        if types == without_hasher {
            self.report(last.ident.span(), bans::DEFAULT_HASHER.path, &bans::DEFAULT_HASHER);
        }
    }
}

impl<'ast> Visit<'ast> for Scan<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if is_test_only(attributes_of(item)) {
            return;
        }
        for import in names::imports(item) {
            self.judge_import(&import);
        }
        match item {
            Item::Use(_) | Item::ExternCrate(_) => {}
            Item::Mod(module) => {
                // A module does not see the imports of the block around it.
                let blocks = std::mem::take(&mut self.blocks);
                self.module.push(module.ident.to_string());
                visit::visit_item(self, item);
                self.module.pop();
                self.blocks = blocks;
            }
            _ => visit::visit_item(self, item),
        }
    }

    fn visit_block(&mut self, block: &'ast Block) {
        let items = block.stmts.iter().filter_map(|statement| match statement {
            Stmt::Item(item) => Some(item),
            _ => None,
        });
        self.blocks.push(Scope::of(items));
        visit::visit_block(self, block);
        self.blocks.pop();
    }

    fn visit_stmt(&mut self, statement: &'ast Stmt) {
        let is_test = match statement {
            Stmt::Local(local) => is_test_only(&local.attrs),
            Stmt::Macro(statement) => is_test_only(&statement.attrs),
            _ => false,
        };
        if !is_test {
            visit::visit_stmt(self, statement);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes: &[Attribute] = match item {
            ImplItem::Const(item) => &item.attrs,
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Type(item) => &item.attrs,
            ImplItem::Macro(item) => &item.attrs,
            _ => &[],
        };
        if !is_test_only(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_trait_item(&mut self, item: &'ast TraitItem) {
        let attributes: &[Attribute] = match item {
            TraitItem::Const(item) => &item.attrs,
            TraitItem::Fn(item) => &item.attrs,
            TraitItem::Type(item) => &item.attrs,
            TraitItem::Macro(item) => &item.attrs,
            _ => &[],
        };
        if !is_test_only(attributes) {
            visit::visit_trait_item(self, item);
        }
    }

    fn visit_field(&mut self, field: &'ast Field) {
        if !is_test_only(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    fn visit_arm(&mut self, arm: &'ast Arm) {
        if !is_test_only(&arm.attrs) {
            visit::visit_arm(self, arm);
        }
    }

    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if let Some(first) = path.segments.first() {
            self.judge_path(&words(path), path.leading_colon.is_some(), first.ident.span());
        }
        self.judge_table_type(path);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        if let Some(first) = call.path.segments.first() {
            self.judge_macro_name(&words(&call.path), call.path.leading_colon.is_some(), first.ident.span());
        }
        self.judge_tokens(call.tokens.clone(), &[]);
    }
}

fn words(path: &syn::Path) -> Vec<String> {
    path.segments.iter().map(|segment| segment.ident.to_string()).collect()
}

fn is_default_table_constructor(path: &[String]) -> bool {
    let words: Vec<&str> = path.iter().map(String::as_str).collect();
    matches!(words[..], ["hashbrown", .., "HashMap" | "HashSet", "new" | "with_capacity"])
}

fn is_punct(token: Option<&TokenTree>, character: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == character)
}

fn is_path_separator(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens.get(at), ':') && is_punct(tokens.get(at.wrapping_add(1)), ':')
}

fn attributes_of(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

#[cfg(test)]
mod tests;
