//! Which file needs which, read from the paths that stand in the code.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;
use rstest::rstest;

/// A module, or something in one: the segments behind `crate::`.
type Name = Vec<String>;

/// By module its file, and the modules that it needs.
pub type Needs = BTreeMap<String, BTreeSet<String>>;

/// What each file needs of the others, without its tests. What a module passes on (`pub use`) is needed of the file that
/// has it.
pub fn needs(sources: &[(PathBuf, String)]) -> Needs {
    let modules: BTreeMap<Name, &str> =
        sources.iter().filter(|(path, _)| !is_test(path)).map(|(path, code)| (module(path), ours(code))).collect();
    let passed_on: BTreeMap<Name, Name> = modules
        .iter()
        .flat_map(|(at, code)| uses(code).filter(|(public, _)| *public).map(move |(_, tree)| (at, tree)))
        .flat_map(|(at, tree)| leaves(tree).into_iter().map(move |leaf| (at, leaf)))
        .filter_map(|(at, leaf)| Some(([at.as_slice(), &[leaf.last()?.clone()]].concat(), resolved(at, &leaf))))
        .collect();
    let needed = |at: &Name, code: &str| {
        let named = named(code).into_iter().map(|path| resolved(at, &path));
        let there = named.filter_map(|path| owner(&modules, &passed_on, path)).filter(|found| found != at);
        there.map(|found| found.join("::")).collect()
    };
    modules.iter().map(|(at, code)| (at.join("::"), needed(at, code))).collect()
}

/// Groups of files each of which needs, directly or through others, all others of its group.
pub fn circles(needs: &Needs) -> Vec<Vec<&str>> {
    let reach = |from: &str| {
        let (mut reached, mut todo) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(at) = todo.pop() {
            let next = needs.get(&at).into_iter().flatten();
            todo.extend(next.filter(|next| reached.insert((*next).clone())).cloned());
        }
        reached
    };
    let reached: BTreeMap<&str, BTreeSet<String>> = needs.keys().map(|at| (at.as_str(), reach(at))).collect();
    let circle = |at: &&str| {
        let all = reached.keys().filter(|to| reached[*at].contains(**to) && reached[*to].contains(*at));
        all.copied().collect::<Vec<_>>()
    };
    let found: BTreeSet<Vec<&str>> = reached.keys().map(circle).filter(|circle| !circle.is_empty()).collect();
    found.into_iter().collect()
}

fn is_test(path: &Path) -> bool {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    path == Path::new("main.rs") || name.ends_with("tests") || path.iter().any(|part| part == "tests")
}

fn module(path: &Path) -> Name {
    let mut name: Name = path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    name.pop_if(|last| last == "mod" || last == "lib");
    name
}

/// The code in front of the tests.
fn ours(code: &str) -> &str {
    static TESTS: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"#\[cfg\(test\)\]\s*mod \w+ \{").unwrap());
    TESTS.find(code).map_or(code, |tests| &code[..tests.start()])
}

/// Every `use`, whether it is public, and its tree.
fn uses(code: &str) -> impl Iterator<Item = (bool, &str)> {
    static USE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b(pub(?:\([^)]*\))? )?use ([^;]+);").unwrap());
    USE.captures_iter(code).map(|found| (found.get(1).is_some(), found.get(2).map_or("", |tree| tree.as_str())))
}

/// The paths of this crate that stand in the code, but those that are only passed on.
fn named(code: &str) -> Vec<Name> {
    static PATH: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b(?:crate|super)(?:::\w+)+").unwrap());
    static USE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\buse [^;]+;").unwrap());
    let imported = uses(code).filter(|(public, _)| !public).flat_map(|(_, tree)| leaves(tree));
    let rest = USE.replace_all(code, ";");
    let written = PATH.find_iter(&rest).map(|path| path.as_str().split("::").map(str::to_owned).collect());
    imported.filter(|leaf| ["crate", "super", "self"].contains(&leaf[0].as_str())).chain(written).collect()
}

/// The paths that a tree stands for: `a::{b, c as d}` is `a::b` and `a::c`.
fn leaves(tree: &str) -> Vec<Name> {
    let tree = tree.trim();
    let Some((head, rest)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        return vec![path.split("::").map(|part| part.trim().to_owned()).collect()];
    };
    let head: Name = head.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect();
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let mut depth = 0;
    let split = inner.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    let under = split.filter(|part| !part.trim().is_empty()).flat_map(leaves);
    under.map(|leaf| [head.as_slice(), &leaf].concat()).collect()
}

/// A path as it is from the crate's root.
fn resolved(at: &Name, path: &[String]) -> Name {
    let mut full = at.clone();
    for part in path {
        match part.as_str() {
            "crate" => full.clear(),
            "super" => _ = full.pop(),
            "self" => {}
            _ => full.push(part.clone()),
        }
    }
    full
}

/// The module that has what `path` names.
fn owner(modules: &BTreeMap<Name, &str>, passed_on: &BTreeMap<Name, Name>, mut path: Name) -> Option<Name> {
    for _ in 0..8 {
        let length = (1..=path.len()).rev().find(|length| modules.contains_key(&path[..*length]))?;
        match passed_on.get(&path[..path.len().min(length + 1)]).filter(|_| length < path.len()) {
            Some(origin) => path = [origin.as_slice(), &path[length + 1..]].concat(),
            None => return Some(path[..length].to_vec()),
        }
    }
    None
}

fn of(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let sources: Vec<_> = files.iter().map(|(path, code)| (PathBuf::from(path), (*code).to_owned())).collect();
    circles(&needs(&sources)).iter().map(|circle| circle.iter().map(|at| (*at).to_owned()).collect()).collect()
}

#[rstest]
#[case::none(&[("a.rs", "use crate::b::B;"), ("b.rs", "use std::fs;")], &[])]
#[case::two(&[("r/a.rs", "use super::b::B;"), ("r/b.rs", "use crate::r::a;"), ("r/mod.rs", "mod a;")], &["r::a", "r::b"])]
#[case::three(&[("a.rs", "use crate::b;"), ("b.rs", "use crate::c;"), ("c.rs", "fn f() { crate::a::g() }")], &["a", "b", "c"])]
#[case::tree(&[("a.rs", "use crate::{b::{B, C as D}, c};"), ("b.rs", "use crate::a::A;"), ("c.rs", "")], &["a", "b"])]
#[case::passed_on(&[("r/mod.rs", "pub use self::a::A;"), ("r/a.rs", "use super::b::B;"), ("r/b.rs", "use super::A;")], &["r::a", "r::b"])]
#[case::of_the_room(&[("r/mod.rs", "use self::a::A; pub struct M;"), ("r/a.rs", "use super::M;")], &["r", "r::a"])]
#[case::only_tests(&[("a.rs", "#[cfg(test)]\nmod tests { use crate::b::B; }"), ("b.rs", "use crate::a::A;")], &[])]
fn circles_are_seen(#[case] files: &[(&str, &str)], #[case] circle: &[&str]) {
    let expected: Vec<Vec<String>> = Some(circle.iter().map(|at| (*at).to_owned()).collect())
        .filter(|c: &Vec<_>| !c.is_empty())
        .into_iter()
        .collect();
    assert_eq!(of(files), expected);
}
