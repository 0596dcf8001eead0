//! The sources of the crate as modules, the paths in them, and where the items are defined that they name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path as FilePath, PathBuf};

use syn::visit::{self, Visit};

/// One file of `src/`.
pub struct File {
    /// Its path from the crate's root.
    pub name: String,
    /// The module that it is, from the crate root.
    pub module: Vec<String>,
    /// Its text.
    pub text: String,
}

/// A path in the sources that begins with `crate`, `super` or `self`.
pub struct Path {
    /// The file in which it stands.
    pub file: String,
    /// The module in which it stands.
    pub module: Vec<String>,
    /// Its names from the crate root on.
    pub names: Vec<String>,
}

/// All of a crate's `src/`.
pub struct Crate {
    files: Vec<File>,
    modules: BTreeSet<Vec<String>>,
    paths: Vec<Path>,
    /// What a module makes public under another path: module and name → names from the crate root on.
    exports: BTreeMap<(Vec<String>, String), Vec<String>>,
    public_types: Vec<String>,
}

impl Crate {
    /// Reads the sources of the crate in this folder of the workspace; `""` is the filter.
    pub fn read(folder: &str) -> Self {
        let root = &FilePath::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let mut names = Vec::new();
        collect(&root.join("src"), &mut names);
        names.sort();
        let mut source = Self {
            files: Vec::new(),
            modules: BTreeSet::new(),
            paths: Vec::new(),
            exports: BTreeMap::new(),
            public_types: Vec::new(),
        };
        for path in names {
            let name = path.strip_prefix(root).unwrap().to_string_lossy();
            let text = std::fs::read_to_string(&path).unwrap();
            source.files.push(File {
                module: module_of(&name),
                name: name.into_owned(),
                text,
            });
        }
        source.modules = source
            .files
            .iter()
            .map(|file| file.module.clone())
            .collect();
        for file in std::mem::take(&mut source.files) {
            let syntax = syn::parse_file(&file.text)
                .unwrap_or_else(|error| panic!("{}: {error}", file.name));
            Reader {
                file: &file.name,
                module: file.module.clone(),
                source: &mut source,
            }
            .visit_file(&syntax);
            source.files.push(file);
        }
        source
    }

    /// All files.
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// All modules.
    pub fn modules(&self) -> impl Iterator<Item = &[String]> {
        self.modules.iter().map(Vec::as_slice)
    }

    /// All paths.
    pub fn paths(&self) -> &[Path] {
        &self.paths
    }

    /// Names of public structs, enums, traits, unions and type aliases, one for each definition.
    pub fn public_types(&self) -> impl Iterator<Item = String> {
        self.public_types.iter().cloned()
    }

    /// The module that defines the item of this path, through re-exports.
    pub fn defining_module(&self, names: &[String]) -> Vec<String> {
        let mut names = names.to_vec();
        // No chain of re-exports is as long as that, unless it is a circle.
        for _ in 0..16 {
            let mut module: Vec<String> = Vec::new();
            let mut next = None;
            for (index, name) in names.iter().enumerate() {
                let inner = [module.as_slice(), std::slice::from_ref(name)].concat();
                if self.modules.contains(&inner) {
                    module = inner;
                } else if let Some(target) = self.exports.get(&(module.clone(), name.clone())) {
                    let rest = names.get(index + 1..).unwrap_or_default();
                    next = Some([target.as_slice(), rest].concat());
                    break;
                } else {
                    break;
                }
            }
            match next {
                Some(target) => names = target,
                None => return module,
            }
        }
        panic!("{names:?}: a circle of re-exports");
    }
}

/// `src/a/b.rs` and `src/a/b/mod.rs` are `a::b`.
fn module_of(name: &str) -> Vec<String> {
    let inner = name.trim_start_matches("src/").trim_end_matches(".rs");
    let mut module: Vec<String> = inner.split('/').map(str::to_owned).collect();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
        module.pop();
    }
    module
}

fn collect(directory: &FilePath, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Walks through a file.
struct Reader<'a> {
    file: &'a str,
    module: Vec<String>,
    source: &'a mut Crate,
}

impl Reader<'_> {
    /// From the crate root on; `None` for a path into another crate, or to a name in scope.
    fn absolute(&self, names: &[String]) -> Option<Vec<String>> {
        let mut module = match names.first()?.as_str() {
            "crate" => Vec::new(),
            "self" | "super" => self.module.clone(),
            _ => return None,
        };
        let mut rest = names;
        while let Some((first, after)) = rest.split_first() {
            match first.as_str() {
                "crate" | "self" => {}
                "super" => {
                    module.pop()?;
                }
                _ => break,
            }
            rest = after;
        }
        Some([module.as_slice(), rest].concat())
    }

    fn note(&mut self, names: &[String]) {
        if let Some(names) = self.absolute(names) {
            self.source.paths.push(Path {
                file: self.file.to_owned(),
                module: self.module.clone(),
                names,
            });
        }
    }

    /// Every leaf of a `use`, and the names under which it is public.
    fn tree(&mut self, before: &[String], tree: &syn::UseTree, public: bool) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.tree(&with(&path.ident), &path.tree, public),
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.tree(before, tree, public);
                }
            }
            syn::UseTree::Name(name) if name.ident == "self" => {
                self.leaf(before, before.last().cloned(), public)
            }
            syn::UseTree::Name(name) => {
                self.leaf(&with(&name.ident), Some(name.ident.to_string()), public)
            }
            syn::UseTree::Rename(name) => {
                self.leaf(&with(&name.ident), Some(name.rename.to_string()), public)
            }
            syn::UseTree::Glob(_) => {
                assert!(
                    !public,
                    "{}: a public glob hides where its items are defined",
                    self.file
                );
                self.leaf(before, None, false);
            }
        }
    }

    fn leaf(&mut self, names: &[String], alias: Option<String>, public: bool) {
        self.note(names);
        let Some(alias) = alias.filter(|_| public) else {
            return;
        };
        // A re-export of what a child module defines names it without `self`.
        let child = [self.module.as_slice(), names].concat();
        let target = self.absolute(names).or_else(|| {
            let first = child.get(..=self.module.len())?;
            self.source.modules.contains(first).then(|| child.clone())
        });
        if let Some(target) = target {
            self.source
                .exports
                .insert((self.module.clone(), alias), target);
        }
    }

    fn type_name(&mut self, visibility: &syn::Visibility, name: &syn::Ident) {
        if matches!(visibility, syn::Visibility::Public(_)) {
            self.source.public_types.push(name.to_string());
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.content.is_some() {
            self.module.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.module.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let public = !matches!(item.vis, syn::Visibility::Inherited);
        self.tree(&[], &item.tree, public);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        if names.len() > 1 {
            self.note(&names);
        }
        visit::visit_path(self, path);
    }

    /// A macro's arguments are no syntax yet: every `crate::a::b` among the tokens counts.
    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        let mut names: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in flat(item.tokens.clone()) {
            match token {
                proc_macro2::TokenTree::Ident(ident) if names.is_empty() || colons == 2 => {
                    names.push(ident.to_string());
                    colons = 0;
                }
                proc_macro2::TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                token => {
                    self.note(&std::mem::take(&mut names));
                    colons = 0;
                    if let proc_macro2::TokenTree::Ident(ident) = token {
                        names.push(ident.to_string());
                    }
                }
            }
        }
        self.note(&names);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.type_name(&item.vis, &item.ident);
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.type_name(&item.vis, &item.ident);
        visit::visit_item_enum(self, item);
    }

    fn visit_item_union(&mut self, item: &'ast syn::ItemUnion) {
        self.type_name(&item.vis, &item.ident);
        visit::visit_item_union(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.type_name(&item.vis, &item.ident);
        visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.type_name(&item.vis, &item.ident);
        visit::visit_item_type(self, item);
    }
}

/// The tokens of a stream and of all groups in it; a group's end is a semicolon, so that no path reaches beyond it.
fn flat(tokens: proc_macro2::TokenStream) -> Vec<proc_macro2::TokenTree> {
    let mut all = Vec::new();
    for token in tokens {
        match token {
            proc_macro2::TokenTree::Group(group) => {
                all.extend(flat(group.stream()));
                all.push(proc_macro2::Punct::new(';', proc_macro2::Spacing::Alone).into());
            }
            token => all.push(token),
        }
    }
    all
}
