//! Reads Rust source well enough to say which modules of the crate it names.
//!
//! This is a tokenizer and a walk over paths, not a parser: it knows comments, literals,
//! attributes, `use` trees and inline modules, and nothing of types. Macros are read as written.

use std::collections::{BTreeMap, BTreeSet};

/// One identifier, `::`, single punctuation character, or literal (whose text is `""`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    pub(crate) line: usize,
}

impl Token<'_> {
    fn is_name(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

/// A path that starts at the crate root, after `crate`, `self` and `super` are resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CratePath {
    /// Names below the crate root. A glob import ends in `*`.
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
    /// Whether only a test build compiles it.
    pub(crate) in_test: bool,
}

/// The code of one file, without its comments and the inside of its literals.
pub(crate) struct Scan<'a> {
    pub(crate) tokens: Vec<Token<'a>>,
    /// For each token, whether it belongs to an item under `#[cfg(test)]`.
    in_test: Vec<bool>,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(source: &'a str) -> Self {
        let tokens = tokenize(source);
        let in_test = mark_test_items(&tokens);
        Scan { tokens, in_test }
    }

    /// Lines on which these tokens follow one another, such as `["Instant", "::", "now"]`.
    pub(crate) fn lines_with(&self, names: &[&str]) -> Vec<usize> {
        self.places_of(names).map(|at| self.tokens[at].line).collect()
    }

    /// The same, without what only a test build compiles.
    pub(crate) fn lines_with_outside_tests(&self, names: &[&str]) -> Vec<usize> {
        let places = self.places_of(names).filter(|&at| !self.in_test[at]);
        places.map(|at| self.tokens[at].line).collect()
    }

    fn places_of(&self, names: &[&str]) -> impl Iterator<Item = usize> {
        let same = move |at: &usize| {
            self.tokens[*at..].iter().zip(names).all(|(token, name)| token.text == *name)
        };
        (0..(self.tokens.len() + 1).saturating_sub(names.len())).filter(same)
    }

    /// Every path of the file that leads into the crate. `home` is the module the file is.
    pub(crate) fn crate_paths(&self, home: &[String]) -> Vec<CratePath> {
        let mut paths = Vec::new();
        let mut inline = InlineModules::default();
        let mut at = 0;
        while at < self.tokens.len() {
            if let Some(root) = self.path_root(at, home, &inline) {
                at = self.use_tree(root.after, root.base, &mut paths);
            } else {
                inline.step(&self.tokens, at);
                at += 1;
            }
        }
        paths
    }

    /// Modules that the file declares with `#[cfg(test)] mod name;`: files that hold tests only.
    pub(crate) fn test_modules(&self, home: &[String]) -> Vec<Vec<String>> {
        let mut found = Vec::new();
        let mut inline = InlineModules::default();
        for at in 0..self.tokens.len() {
            if let [declared, name, end, ..] = &self.tokens[at..] {
                if declared.text == "mod" && name.is_name() && end.text == ";" && self.in_test[at] {
                    found.push([home, &inline.path(), &[name.text.to_owned()]].concat());
                }
            }
            inline.step(&self.tokens, at);
        }
        found
    }

    /// The names that a crate root re-exports, each with the path it stands for. A glob is left
    /// out: it cannot be followed without resolving names.
    pub(crate) fn re_exports(&self) -> BTreeMap<String, Vec<String>> {
        let mut names = BTreeMap::new();
        for at in 0..self.tokens.len() {
            if self.text(at) != "use" {
                continue;
            }
            let first = match self.text(at + 1) {
                "crate" | "self" if self.text(at + 2) == "::" => at + 3,
                _ => at + 1,
            };
            let mut paths = Vec::new();
            self.use_tree_with(first, Vec::new(), &mut |path, alias| paths.push((path, alias)));
            for (path, alias) in paths {
                let Some(last) = path.segments.last() else { continue };
                if last != "*" {
                    names.insert(alias.unwrap_or_else(|| last.clone()), path.segments);
                }
            }
        }
        names
    }

    fn text(&self, at: usize) -> &'a str {
        self.tokens.get(at).map_or("", |token| token.text)
    }

    /// Whether a path that can be resolved from the crate root starts here.
    fn path_root(&self, at: usize, home: &[String], inline: &InlineModules) -> Option<Root> {
        let starts = self.text(at + 1) == "::" && (at == 0 || self.text(at - 1) != "::");
        if !starts {
            return None;
        }
        match self.text(at) {
            "crate" => Some(Root { base: Vec::new(), after: at + 2 }),
            // `super` itself is a step of the walk, like any later `super` of the same path.
            "super" => Some(Root { base: [home, &inline.path()].concat(), after: at }),
            "self" => Some(Root { base: [home, &inline.path()].concat(), after: at + 2 }),
            _ => None,
        }
    }

    fn use_tree(&self, at: usize, base: Vec<String>, paths: &mut Vec<CratePath>) -> usize {
        self.use_tree_with(at, base, &mut |path, _| paths.push(path))
    }

    /// Walks one path or one tree in braces, and returns the place after it.
    fn use_tree_with(
        &self,
        mut at: usize,
        mut base: Vec<String>,
        found: &mut dyn FnMut(CratePath, Option<String>),
    ) -> usize {
        let Some(start) = self.tokens.get(at) else { return at };
        let in_test = self.in_test[at];
        loop {
            match self.text(at) {
                "{" => {
                    at += 1;
                    while !matches!(self.text(at), "}" | "") {
                        at = self.use_tree_with(at, base.clone(), found);
                        at += usize::from(self.text(at) == ",");
                    }
                    return at + 1;
                }
                "super" => {
                    base.pop();
                }
                "self" => {}
                name => base.push(name.to_owned()),
            }
            at += 1;
            let follows = self.tokens.get(at + 1);
            let more = follows.is_some_and(|t| t.is_name() || matches!(t.text, "{" | "*"));
            if self.text(at) != "::" || !more {
                break;
            }
            at += 1;
        }
        let alias = (self.text(at) == "as").then(|| self.text(at + 1).to_owned());
        let after = if alias.is_some() && self.text(at + 2) != "::" { at + 2 } else { at };
        found(CratePath { segments: base, line: start.line, in_test }, alias);
        after
    }
}

struct Root {
    base: Vec<String>,
    after: usize,
}

/// The inline modules (`mod name { .. }`) around a place in the file.
#[derive(Default)]
struct InlineModules {
    depth: usize,
    open: Vec<(String, usize)>,
}

impl InlineModules {
    fn step(&mut self, tokens: &[Token<'_>], at: usize) {
        match tokens[at].text {
            "{" => self.depth += 1,
            "}" => {
                self.open.retain(|(_, depth)| *depth < self.depth);
                self.depth = self.depth.saturating_sub(1);
            }
            "mod" => {
                if let [_, name, brace, ..] = &tokens[at..] {
                    if name.is_name() && brace.text == "{" {
                        self.open.push((name.text.to_owned(), self.depth + 1));
                    }
                }
            }
            _ => {}
        }
    }

    fn path(&self) -> Vec<String> {
        self.open.iter().map(|(name, _)| name.clone()).collect()
    }
}

/// Marks everything from `#[cfg(test)]` to the end of the item it stands before.
fn mark_test_items(tokens: &[Token<'_>]) -> Vec<bool> {
    let mut marks = vec![false; tokens.len()];
    let mut at = 0;
    while at < tokens.len() {
        let inner = tokens.get(at + 1).is_some_and(|token| token.text == "!");
        let bracket = at + 1 + usize::from(inner);
        let opens = tokens.get(bracket).is_some_and(|token| token.text == "[");
        if tokens[at].text != "#" || !opens {
            at += 1;
            continue;
        }
        let attribute_end = end_of_group(tokens, bracket);
        if !is_cfg_test(&tokens[bracket + 1..attribute_end]) {
            at = attribute_end;
        } else if inner {
            marks.fill(true);
            return marks;
        } else {
            let end = end_of_item(tokens, attribute_end);
            marks[at..end].fill(true);
            at = end;
        }
    }
    marks
}

/// `cfg(test)` and `cfg(all(test, ..))`. With `any` or `not` other builds have the item too.
fn is_cfg_test(attribute: &[Token<'_>]) -> bool {
    let names: BTreeSet<_> = attribute.iter().map(|token| token.text).collect();
    attribute.first().is_some_and(|token| token.text == "cfg")
        && names.contains("test")
        && !names.contains("any")
        && !names.contains("not")
}

/// The place after the bracket that closes the one at `open`.
fn end_of_group(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}

/// The place after an item: behind its `;`, or behind its body in braces.
fn end_of_item(tokens: &[Token<'_>], start: usize) -> usize {
    let mut at = start;
    while at < tokens.len() {
        match tokens[at].text {
            ";" => return at + 1,
            "{" => return end_of_group(tokens, at),
            "(" | "[" => at = end_of_group(tokens, at),
            _ => at += 1,
        }
    }
    tokens.len()
}

fn tokenize(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while let Some(first) = source[at..].chars().next() {
        let rest = &source[at..];
        let (length, text) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), None)
        } else if rest.starts_with("/*") {
            (block_comment(rest), None)
        } else if let Some(length) = literal(rest) {
            (length, Some("\"\""))
        } else if first.is_alphanumeric() || first == '_' {
            let length = word(rest);
            (length, Some(&rest[..length]))
        } else if rest.starts_with("::") {
            (2, Some("::"))
        } else if first.is_whitespace() {
            (first.len_utf8(), None)
        } else {
            (first.len_utf8(), Some(&rest[..first.len_utf8()]))
        };
        tokens.extend(text.map(|text| Token { text, line }));
        line += rest[..length].matches('\n').count();
        at += length;
    }
    tokens
}

fn word(rest: &str) -> usize {
    rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// The length of the string, character or lifetime that starts here, if one does.
fn literal(rest: &str) -> Option<usize> {
    if let Some(after) = rest.strip_prefix('\'') {
        let mut letters = after.chars();
        let first = letters.next()?;
        if first != '\\' && letters.next() != Some('\'') {
            return Some(1 + word(after));
        }
        return Some(1 + closing(after, '\''));
    }
    let unprefixed = rest.trim_start_matches(['b', 'c']);
    let prefix = rest.len() - unprefixed.len();
    if prefix <= 1 {
        if let Some(after) = unprefixed.strip_prefix('"') {
            return Some(prefix + 1 + closing(after, '"'));
        }
        if prefix == 1 && unprefixed.starts_with('\'') {
            return Some(2 + closing(&unprefixed[1..], '\''));
        }
        if let Some(after) = unprefixed.strip_prefix('r') {
            let hashes = after.len() - after.trim_start_matches('#').len();
            let body = after[hashes..].strip_prefix('"')?;
            let end = format!("\"{}", "#".repeat(hashes));
            let length = body.find(&end).map_or(body.len(), |found| found + end.len());
            return Some(prefix + 1 + hashes + 1 + length);
        }
    }
    None
}

/// The length up to and with the closing quote, escapes skipped.
fn closing(body: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, letter) in body.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if letter == quote => return at + 1,
            _ => {}
        }
    }
    body.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths_in(home: &[&str], source: &str) -> Vec<String> {
        let home: Vec<_> = home.iter().map(|&name| name.to_owned()).collect();
        let scan = Scan::new(source);
        scan.crate_paths(&home).iter().map(|path| path.segments.join("::")).collect()
    }

    #[test]
    fn a_plain_use_is_one_path() {
        assert_eq!(paths_in(&["dispatch"], "use crate::id::ConnId;"), ["id::ConnId"]);
    }

    #[test]
    fn a_use_tree_is_one_path_for_each_leaf() {
        let source = "pub(crate) use crate::{id, error::{self, Error as E, kind::*}, limits};";
        assert_eq!(
            paths_in(&["dispatch"], source),
            ["id", "error", "error::Error", "error::kind::*", "limits"]
        );
    }

    #[test]
    fn a_path_inside_an_expression_or_a_type_is_found() {
        let source =
            "fn f(x: &crate::id::ConnId) -> u8 { <crate::a::B>::new::<crate::c::D>(x) * 2 }";
        assert_eq!(paths_in(&["x"], source), ["id::ConnId", "a::B", "c::D"]);
        let cast = "let x = crate::a::B as crate::c::D; let y = crate::e::f::<u8>();";
        assert_eq!(paths_in(&["x"], cast), ["a::B", "c::D", "e::f"]);
        assert_eq!(paths_in(&["x"], "use $crate::a; m!($crate::b::c)"), ["a", "b::c"]);
    }

    #[test]
    fn super_is_resolved_from_the_module_of_the_file() {
        assert_eq!(paths_in(&["reactor"], "use super::id::ConnId;"), ["id::ConnId"]);
        assert_eq!(paths_in(&["reactor", "turn"], "use super::table;"), ["reactor::table"]);
        assert_eq!(paths_in(&["reactor", "turn"], "use super::super::sim::Sim;"), ["sim::Sim"]);
        assert_eq!(paths_in(&["reactor", "turn"], "use self::super::{a, b::c};").len(), 2);
        assert_eq!(paths_in(&["buffer"], "use super::*;"), ["*"]);
    }

    #[test]
    fn super_inside_an_inline_module_climbs_to_the_file_first() {
        let source = "mod inner { use super::a; mod deep { use super::super::super::id; } }
            use super::limits;";
        assert_eq!(paths_in(&["buffer"], source), ["buffer::a", "id", "limits"]);
        assert_eq!(paths_in(&["buffer"], "mod t { use super::*; } fn f() {}"), ["buffer::*"]);
    }

    #[test]
    fn comments_strings_and_characters_name_nothing() {
        let source = r##"
            // use crate::a;
            /// use crate::b;
            //! use crate::c;
            /* use crate::d; /* use crate::e; */ use crate::f; */
            const A: &str = "use crate::g; \" use crate::h;";
            const B: &str = r#"use crate::i; " use crate::j;"#;
            const C: &[u8] = b"crate::k"; const D: char = '"'; const E: u8 = b'\'';
            fn f<'a>(x: &'a str) -> char { '\u{7d}' }
            use crate::last;
        "##;
        assert_eq!(paths_in(&["x"], source), ["last"]);
    }

    #[test]
    fn a_raw_identifier_is_not_a_raw_string() {
        assert_eq!(paths_in(&["x"], "let r#type = b; let r = crate::a::b;"), ["a::b"]);
    }

    #[test]
    fn lines_are_those_of_the_leaf() {
        let scan = Scan::new("// one\n\"two\n\";\nuse crate::{\n    a,\n    b,\n};\n");
        let lines: Vec<_> = scan.crate_paths(&[]).iter().map(|path| path.line).collect();
        assert_eq!(lines, [5, 6]);
    }

    #[test]
    fn an_item_under_cfg_test_is_marked_and_what_follows_is_not() {
        let source =
            "use crate::a; #[cfg(test)] #[allow(dead_code)] mod tests { use crate::b; fn f() {} }
            #[cfg(test)] use crate::c; #[cfg(all(test, unix))] fn f(x: [u8; 2]) { crate::d::e() }
            #[cfg(not(test))] use crate::g; #[cfg(any(test, unix))] use crate::h; use crate::i;";
        let scan = Scan::new(source);
        let paths = scan.crate_paths(&["x".to_owned()]);
        let only = |in_test| {
            let chosen = paths.iter().filter(|path| path.in_test == in_test);
            chosen.map(|path| path.segments.join("::")).collect::<Vec<_>>()
        };
        assert_eq!(only(true), ["b", "c", "d::e"]);
        assert_eq!(only(false), ["a", "g", "h", "i"]);
    }

    #[test]
    fn an_inner_cfg_test_makes_the_whole_file_a_test() {
        assert!(Scan::new("#![cfg(test)] use crate::a;").crate_paths(&[])[0].in_test);
    }

    #[test]
    fn a_test_module_in_a_file_of_its_own_is_found() {
        let scan = Scan::new("#[cfg(test)]\nmod tests;\nmod table;\n");
        assert_eq!(scan.test_modules(&["reactor".to_owned()]), [["reactor", "tests"]]);
    }

    #[test]
    fn re_exports_lead_back_to_their_module() {
        let scan = Scan::new(
            "pub use error::{Error, Result as Answer}; pub use crate::id::ConnId;
             #[cfg(unix)] pub use self::reactor::Reactor; pub use limits::*; use std::fmt;",
        );
        let names = scan.re_exports();
        let of = |name: &str| names.get(name).map(|path| path.join("::"));
        assert_eq!(of("Error").as_deref(), Some("error::Error"));
        assert_eq!(of("Answer").as_deref(), Some("error::Result"));
        assert_eq!(of("ConnId").as_deref(), Some("id::ConnId"));
        assert_eq!(of("Reactor").as_deref(), Some("reactor::Reactor"));
        assert_eq!(of("*"), None);
    }

    #[test]
    fn names_are_found_as_whole_words_of_code() {
        let scan = Scan::new("let a = Instant::now();\n// Instant::now\nlet mio_like = \"mio\";");
        assert_eq!(scan.lines_with(&["Instant", "::", "now"]), [1]);
        assert_eq!(scan.lines_with(&["mio"]), []);
        assert_eq!(Scan::new("").lines_with(&["mio"]), []);
    }

    #[test]
    fn names_in_tests_can_be_left_out() {
        let scan = Scan::new("fn a() { now }\n#[cfg(test)]\nmod tests { fn b() { now } }\nnow");
        assert_eq!(scan.lines_with(&["now"]), [1, 3, 4]);
        assert_eq!(scan.lines_with_outside_tests(&["now"]), [1, 4]);
    }
}
