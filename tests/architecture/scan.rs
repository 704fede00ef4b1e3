//! Reads Rust as rustfmt leaves it, well enough to say which modules of the crate it names.
//!
//! This is a tokenizer and a walk over paths, not a parser. It relies on rustfmt: an item ends at
//! the indentation at which it begins. Macros are read as written.

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
    tokens: Vec<Token<'a>>,
}

/// A word, `::`, a single punctuation character, or a literal (whose text is `""`).
struct Token<'a> {
    text: &'a str,
    line: usize,
    column: usize,
    in_test: bool,
    /// The inline modules (`mod name { .. }`) around it.
    inline: usize,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(source: &'a str) -> Self {
        let mut tokens = tokenize(source);
        mark_items(&mut tokens);
        Scan { tokens }
    }

    /// Lines on which these tokens follow one another, such as `["Instant", "::", "now"]`.
    pub(crate) fn lines_with(&self, names: &[&str]) -> Vec<usize> {
        self.places_of(names).map(|at| self.tokens[at].line).collect()
    }

    /// The same, without what only a test build compiles.
    pub(crate) fn lines_with_outside_tests(&self, names: &[&str]) -> Vec<usize> {
        let places = self.places_of(names).filter(|&at| !self.tokens[at].in_test);
        places.map(|at| self.tokens[at].line).collect()
    }

    fn places_of(&self, names: &[&str]) -> impl Iterator<Item = usize> {
        let same = move |at: &usize| (0..names.len()).all(|n| self.text(at + n) == names[n]);
        (0..self.tokens.len()).filter(same)
    }

    /// Modules that the file declares with `#[cfg(test)] mod name;`: files that hold tests only.
    pub(crate) fn test_modules(&self, home: &[String]) -> Vec<Vec<String>> {
        let declared = self.places_of(&["mod"]).filter(|&at| {
            self.tokens[at].in_test && self.tokens[at].inline == 0 && self.text(at + 2) == ";"
        });
        declared.map(|at| [home, &[self.text(at + 1).to_owned()]].concat()).collect()
    }

    /// Every path of the file that leads into the crate. `home` is the module the file is.
    pub(crate) fn crate_paths(&self, home: &[String]) -> Vec<CratePath> {
        let mut paths = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            let before = if at == 0 { "" } else { self.text(at - 1) };
            let starts = self.text(at + 1) == "::" && !["::", "$"].contains(&before);
            let inline = vec![String::from("an inline module"); self.tokens[at].inline];
            at = match self.text(at) {
                "crate" if starts => self.walk(at + 2, Vec::new(), &mut paths),
                // `super` is a step of the walk, like any later `super` of the same path.
                "super" if starts => self.walk(at, [home, &inline].concat(), &mut paths),
                "self" if starts => self.walk(at + 2, [home, &inline].concat(), &mut paths),
                _ => at + 1,
            };
        }
        paths
    }

    /// Walks one path, or one tree in braces, and returns the place after it.
    fn walk(&self, mut at: usize, mut base: Vec<String>, paths: &mut Vec<CratePath>) -> usize {
        let Some(&Token { line, in_test, .. }) = self.tokens.get(at) else { return at };
        loop {
            match self.text(at) {
                "{" => {
                    at += 1;
                    while !matches!(self.text(at), "}" | "") {
                        at = self.walk(at, base.clone(), paths);
                        at += usize::from(self.text(at) == ",");
                    }
                    return at + 1;
                }
                "super" => drop(base.pop()),
                "self" => {}
                name => base.push(name.to_owned()),
            }
            at += 1;
            let next = self.text(at + 1);
            if self.text(at) != "::" || !(is_word(next) || matches!(next, "{" | "*")) {
                break;
            }
            at += 1;
        }
        paths.push(CratePath { segments: base, line, in_test });
        at + 2 * usize::from(self.text(at) == "as" && self.text(at + 2) != "::")
    }

    fn text(&self, at: usize) -> &'a str {
        self.tokens.get(at).map_or("", |token| token.text)
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Marks the items behind `#[cfg(test)]` and inside of inline modules. With `any` or `not` other
/// builds have the item too.
fn mark_items(tokens: &mut [Token<'_>]) {
    for at in 0..tokens.len() {
        let begins = |names: &[&str]| {
            let texts = tokens[at..].iter().map(|token| token.text);
            texts.take(names.len()).eq(names.iter().copied())
        };
        let test = begins(&["#", "[", "cfg", "(", "test", ")"])
            || begins(&["#", "[", "cfg", "(", "all", "(", "test", ","]);
        let inline = begins(&["mod"]) && tokens.get(at + 2).is_some_and(|brace| brace.text == "{");
        if !test && !inline {
            continue;
        }
        let first = tokens[..=at].iter().rposition(|token| token.line < tokens[at].line);
        let indent = tokens[first.map_or(0, |before| before + 1)].column;
        let end = end_of_item(tokens, at, indent);
        for token in &mut tokens[at..end] {
            token.in_test |= test;
        }
        if inline {
            tokens[at + 3..end].iter_mut().for_each(|token| token.inline += 1);
        }
    }
}

/// The place after an item: after the first line of its indentation that ends in `;`, `}` or `,`.
fn end_of_item(tokens: &[Token<'_>], start: usize, indent: usize) -> usize {
    let mut column = indent;
    for at in start..tokens.len() {
        if at > start && tokens[at].line > tokens[at - 1].line {
            column = tokens[at].column;
        }
        let last = tokens.get(at + 1).is_none_or(|next| next.line > tokens[at].line);
        if last && column == indent && matches!(tokens[at].text, ";" | "}" | ",") {
            return at + 1;
        }
    }
    tokens.len()
}

fn tokenize(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let (mut at, mut line, mut begin) = (0, 1, 0);
    while let Some(first) = source[at..].chars().next() {
        let rest = &source[at..];
        let (length, text) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), None)
        } else if let Some(length) = literal(rest) {
            (length, Some("\"\""))
        } else if first.is_alphanumeric() || first == '_' {
            (word(rest), Some(&rest[..word(rest)]))
        } else if rest.starts_with("::") {
            (2, Some("::"))
        } else {
            (first.len_utf8(), (!first.is_whitespace()).then(|| &rest[..first.len_utf8()]))
        };
        let token = |text| Token { text, line, column: at - begin, in_test: false, inline: 0 };
        tokens.extend(text.map(token));
        line += rest[..length].matches('\n').count();
        begin = rest[..length].rfind('\n').map_or(begin, |newline| at + newline + 1);
        at += length;
    }
    tokens
}

fn word(rest: &str) -> usize {
    rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
}

/// The length of the string, character or lifetime that starts here, if one does.
fn literal(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix(['b', 'c']).unwrap_or(rest);
    let prefix = rest.len() - body.len();
    if let Some(raw) = body.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let inside = raw[hashes..].strip_prefix('"')?;
        let end = inside.find(&format!("\"{}", &raw[..hashes]))?;
        return Some(prefix + 1 + hashes + 1 + end + 1 + hashes);
    }
    let quote = body.chars().next().filter(|first| matches!(first, '"' | '\''))?;
    let inside = &body[1..];
    let mut letters = inside.chars();
    if quote == '\'' && letters.next() != Some('\\') && letters.next() != Some('\'') {
        return Some(prefix + 1 + word(inside));
    }
    let mut escaped = false;
    let end = inside.find(|letter| {
        let ends = letter == quote && !escaped;
        escaped = letter == '\\' && !escaped;
        ends
    })?;
    Some(prefix + 1 + end + 1)
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
    }

    #[test]
    fn super_is_resolved_from_the_module_of_the_file_and_from_inline_ones() {
        assert_eq!(paths_in(&["reactor"], "use super::id::ConnId;"), ["id::ConnId"]);
        assert_eq!(paths_in(&["reactor", "turn"], "use super::super::sim::Sim;"), ["sim::Sim"]);
        assert_eq!(paths_in(&["reactor", "turn"], "use self::super::{a, b::c};").len(), 2);
        let inline =
            "mod inner {\n    use super::a;\n    use super::super::id;\n}\nuse super::b;\n";
        assert_eq!(paths_in(&["buffer"], inline), ["buffer::a", "id", "b"]);
    }

    #[test]
    fn comments_strings_and_characters_name_nothing() {
        let source = r##"
            // use crate::a;
            //! use crate::c;
            const A: &str = "use crate::g; \" use crate::h;";
            const B: &str = r#"use crate::i; " use crate::j;"#;
            const C: &[u8] = b"crate::k"; const D: char = '"'; const E: u8 = b'\'';
            fn f<'a>(x: &'a str) -> char { let r#type = r; '\u{7d}' }
            use crate::last;
        "##;
        assert_eq!(paths_in(&["x"], source), ["last"]);
    }

    #[test]
    fn an_item_under_cfg_test_is_a_test_and_what_follows_is_not() {
        let source = "#[cfg(test)]\nmod tests {\n    use crate::b;\n    fn f() {\n    }\n}\n\
            use crate::a;\n#[cfg(all(test, unix))]\n#[path = \"x\"]\nmod late;\n\
            #[cfg(not(test))]\nuse crate::g;\n";
        let scan = Scan::new(source);
        let paths = scan.crate_paths(&[]);
        let found: Vec<_> = paths.iter().map(|path| (path.line, path.in_test)).collect();
        assert_eq!(found, [(3, true), (7, false), (12, false)]);
        assert_eq!(scan.test_modules(&["reactor".to_owned()]), [["reactor", "late"]]);
        assert_eq!(scan.lines_with(&["use", "crate"]), [3, 7, 12]);
        assert_eq!(scan.lines_with_outside_tests(&["use", "crate"]), [7, 12]);
    }
}
