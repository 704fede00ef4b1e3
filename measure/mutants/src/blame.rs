//! Which mutants an error of the compiler speaks of.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use serde_json::Value;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Block, Expr, Stmt};

type Place = (usize, usize);

/// What stands between two places, and the mutants that it belongs to.
struct Range {
    from: Place,
    to: Place,
    numbers: BTreeSet<u32>,
    function: bool,
}

#[derive(Default)]
struct Ranges {
    all: Vec<Range>,
    /// The mutants found so far, for what encloses them.
    found: Vec<u32>,
}

fn number(expr: &Expr) -> Option<u32> {
    let Expr::Call(call) = expr else { return None };
    let Expr::Path(path) = &*call.func else { return None };
    let names: Vec<String> = path.path.segments.iter().map(|s| s.ident.to_string()).collect();
    match (names.as_slice(), call.args.first()) {
        ([first, second, third], Some(Expr::Lit(literal)))
            if first == "crate" && second == "mutant" && third == "on" =>
        {
            match &literal.lit {
                syn::Lit::Int(number) => number.base10_parse().ok(),
                _ => None,
            }
        }
        _ => None,
    }
}

impl Ranges {
    fn add(&mut self, of: &impl Spanned, numbers: impl IntoIterator<Item = u32>, function: bool) {
        let numbers: BTreeSet<u32> = numbers.into_iter().collect();
        if !numbers.is_empty() {
            let (from, to) = (of.span().start(), of.span().end());
            let place = |at: proc_macro2::LineColumn| (at.line, at.column);
            self.all.push(Range { from: place(from), to: place(to), numbers, function });
        }
    }

    fn function(&mut self, block: &Block) {
        let before = self.found.len();
        visit::visit_block(self, block);
        let inside = self.found[before..].to_vec();
        self.add(block, inside, true);
    }
}

/// The mutants that a planted `match` or `if` switches, without those of its operands.
fn switched(expr: &Expr, numbers: &mut Vec<u32>) {
    if let Some(number) = number(expr) {
        return numbers.push(number);
    }
    match expr {
        Expr::Paren(inner) => switched(&inner.expr, numbers),
        Expr::Match(whole) => whole.arms.iter().for_each(|arm| switched(&arm.body, numbers)),
        Expr::Binary(binary) => switched(&binary.right, numbers),
        Expr::Unary(unary) => switched(&unary.expr, numbers),
        Expr::Block(block) => {
            if let Some(Stmt::Expr(last, None)) = block.block.stmts.last() {
                switched(last, numbers);
            }
        }
        Expr::If(whole) => {
            switched(&whole.cond, numbers);
            if let Some((_, otherwise)) = &whole.else_branch {
                switched(otherwise, numbers);
            }
        }
        _ => {}
    }
}

impl<'a> Visit<'a> for Ranges {
    fn visit_expr(&mut self, expr: &'a Expr) {
        self.found.extend(number(expr));
        match expr {
            Expr::If(whole) => {
                let mut numbers = Vec::new();
                match &*whole.cond {
                    Expr::Unary(unary) => {
                        numbers.extend(number(&unary.expr));
                        self.add(whole, numbers, false);
                    }
                    condition => {
                        numbers.extend(number(condition));
                        self.add(&whole.then_branch, numbers, false);
                    }
                }
            }
            Expr::Paren(paren) if matches!(&*paren.expr, Expr::Match(_)) => {
                let mut numbers = Vec::new();
                switched(expr, &mut numbers);
                self.add(paren, numbers, false);
            }
            _ => {}
        }
        visit::visit_expr(self, expr);
    }

    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        self.function(&item.block);
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        self.function(&item.block);
    }

    fn visit_trait_item_fn(&mut self, item: &'a syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(block);
        }
    }
}

impl Ranges {
    /// The mutants of the smallest range around a place.
    fn around(&self, at: Place, functions: bool) -> Option<&BTreeSet<u32>> {
        self.all
            .iter()
            .filter(|range| range.function == functions && range.from <= at && at <= range.to)
            .min_by_key(|range| {
                let ((first, start), (last, end)) = (range.from, range.to);
                (last - first, end as i64 - start as i64)
            })
            .map(|range| &range.numbers)
    }
}

/// Reads the messages of a build in `folder`: the mutants to be dropped, and errors that name none.
pub fn blame(folder: &Path, messages: &str) -> (BTreeSet<u32>, Vec<String>) {
    let (mut files, mut dropped, mut unclear) = (HashMap::new(), BTreeSet::new(), Vec::new());
    for line in messages.lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
        let message = &message["message"];
        let no_place = Vec::new();
        let spans = message["spans"].as_array().unwrap_or(&no_place);
        if message["level"] != "error" || spans.is_empty() {
            continue;
        }
        let mut spans: Vec<&Value> = spans.iter().collect();
        spans.sort_by_key(|span| span["is_primary"] != true);
        let mut of = |span: &Value, functions: bool| -> Option<BTreeSet<u32>> {
            let file = span["file_name"].as_str()?.to_owned();
            let ranges = files.entry(file.clone()).or_insert_with(|| ranges(&folder.join(file)));
            let number = |name: &str| span[name].as_u64().unwrap_or(0) as usize;
            let at = (number("line_start"), number("column_start").saturating_sub(1));
            ranges.around(at, functions).cloned()
        };
        let found = spans
            .iter()
            .find_map(|span| of(span, false))
            .or_else(|| spans.iter().find_map(|span| of(span, true)));
        match found {
            Some(numbers) => dropped.extend(numbers),
            None => unclear.push(message["rendered"].as_str().unwrap_or("?").to_owned()),
        }
    }
    (dropped, unclear)
}

fn ranges(file: &Path) -> Ranges {
    let mut ranges = Ranges::default();
    let source = std::fs::read_to_string(file).unwrap_or_default();
    if let Ok(parsed) = syn::parse_file(&source) {
        ranges.visit_file(&parsed);
    }
    ranges
}
