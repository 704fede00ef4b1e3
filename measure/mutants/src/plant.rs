//! Finds the places of a source file that can be changed, and puts the changes there.
//!
//! A change sits behind `crate::mutant::on(N)`, so that one build holds all of them. No operand is
//! written twice, except what is assigned to: nested changes would grow exponentially.

use std::collections::HashMap;

use proc_macro2::Span;
use quote::ToTokens;
use syn::spanned::Spanned;
use syn::visit_mut::{self, VisitMut};
use syn::{Attribute, Block, Expr, ImplItem, Item, Signature, Stmt, parse_quote};

use crate::consts::{Constant, Constants};
use crate::kinds;

/// One change: what the source looks like with it.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// The same for the same change, as long as its function does not change around it.
    pub key: String,
    pub file: String,
    pub line: usize,
    pub function: String,
    pub what: String,
}

/// Says which number a change has, if it is to be planted.
pub type Choose<'a> = &'a mut dyn FnMut(Mutant) -> Option<u32>;

pub struct Planter<'a> {
    file: &'a str,
    scope: Vec<String>,
    keys: HashMap<String, usize>,
    constants: &'a Constants,
    choose: Choose<'a>,
}

/// Plants in `source` what `choose` numbers.
pub fn plant(file: &str, source: &mut syn::File, constants: &Constants, choose: Choose<'_>) {
    let (scope, keys) = (Vec::new(), HashMap::new());
    Planter { file, scope, keys, constants, choose }.visit_file_mut(source);
}

fn text(tokens: &impl ToTokens) -> String {
    let text = tokens.to_token_stream().to_string();
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text,
    }
}

/// Whether an item is compiled for tests alone.
fn only_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).any(|attribute| {
        let condition = attribute.meta.to_token_stream().to_string().replace(' ', "");
        condition == "cfg(test)" || condition.starts_with("cfg(all(test,")
    })
}

fn item_attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        _ => &[],
    }
}

fn on(number: u32) -> Expr {
    parse_quote!(crate::mutant::on(#number))
}

/// `if on(1) { a } else if on(2) { b } else { rest }`
fn choice(changes: Vec<(u32, Expr)>, rest: Expr) -> Expr {
    changes.into_iter().rev().fold(rest, |otherwise, (number, change)| {
        let on = on(number);
        parse_quote!(if #on { #change } else { #otherwise })
    })
}

fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, Expr::Verbatim(Default::default()))
}

fn is_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) => is_let(&binary.left) || is_let(&binary.right),
        _ => false,
    }
}

/// Whether a body does nothing but return this value. `let _ = argument;` does nothing.
fn is_already(block: &Block, value: &Expr) -> bool {
    let nothing = |stmt: &&Stmt| matches!(stmt, Stmt::Local(local) if text(&local.pat) == "_");
    let mut rest = block.stmts.iter().skip_while(nothing);
    match (rest.next(), rest.next()) {
        (None, _) => text(value) == "()",
        (Some(Stmt::Expr(only, None)), None) => text(only) == text(value),
        _ => false,
    }
}

/// A condition that has no operator of its own.
fn plain(expr: &Expr) -> Option<(Span, String)> {
    let plain = matches!(
        expr,
        Expr::MethodCall(_) | Expr::Call(_) | Expr::Path(_) | Expr::Field(_) | Expr::Macro(_)
    );
    plain.then(|| (expr.span(), text(expr)))
}

impl Planter<'_> {
    fn number(&mut self, span: Span, original: &str, what: String) -> Option<u32> {
        let function = self.scope.join("::");
        let key = format!("{} {function}: {what}: {original}", self.file);
        let count = self.keys.entry(key.clone()).or_default();
        *count += 1;
        let key = if *count == 1 { key } else { format!("{key} #{count}") };
        let what = format!("{what}: {original}");
        let (file, line) = (self.file.to_owned(), span.start().line);
        (self.choose)(Mutant { key, file, line, function, what })
    }

    fn function(&mut self, signature: &Signature, block: &mut Block) {
        if signature.constness.is_some() {
            return;
        }
        self.scope.push(signature.ident.to_string());
        let mut bodies = kinds::bodies(signature);
        bodies.retain(|value| !is_already(block, value));
        visit_mut::visit_block_mut(self, block);
        let replaced: Vec<Stmt> = bodies
            .into_iter()
            .filter_map(|value| {
                let what = format!("body replaced by `{}`", text(&value));
                let on = on(self.number(signature.ident.span(), "", what)?);
                Some(parse_quote!(if #on { return #value; }))
            })
            .collect();
        block.stmts.splice(0..0, replaced);
        self.scope.pop();
    }

    /// Another operator between two operands, each of which is computed once.
    fn binary(&mut self, expr: &mut Expr) {
        let Expr::Binary(binary) = &*expr else { return };
        if is_let(expr) {
            return visit_mut::visit_expr_mut(self, expr);
        }
        let (original, operator) = (text(binary), binary.op);
        let (span, logical) = (operator.span(), kinds::is_logical(&operator));
        let plain = logical.then(|| (plain(&binary.left), plain(&binary.right)));
        visit_mut::visit_expr_mut(self, expr);
        let Expr::Binary(binary) = &mut *expr else { return };
        if let Some((left, right)) = plain {
            self.negated(&mut binary.left, left);
            self.negated(&mut binary.right, right);
        }
        let numbered: Vec<_> = kinds::operators(&operator)
            .into_iter()
            .filter_map(|other| {
                let what = format!("`{}` to `{}`", text(&operator), text(&other));
                Some((self.number(span, &original, what)?, other))
            })
            .collect();
        if numbered.is_empty() {
            return;
        }
        let (left, right) = (take(&mut binary.left), take(&mut binary.right));
        *expr = if logical {
            let on = on(numbered[0].0);
            let goes_on: syn::BinOp = match operator {
                syn::BinOp::And(_) => parse_quote!(!=),
                _ => parse_quote!(==),
            };
            parse_quote!((match (#left) {
                mutant_left => if mutant_left #goes_on #on { #right } else { mutant_left },
            }))
        } else if kinds::is_comparison(&operator) {
            let with = |operator: &syn::BinOp| parse_quote!(*mutant_left #operator *mutant_right);
            let changes = numbered.iter().map(|(number, other)| (*number, with(other))).collect();
            let choice = choice(changes, with(&operator));
            parse_quote!((match (&(#left), &(#right)) { (mutant_left, mutant_right) => #choice }))
        } else if kinds::is_assigning(&operator) {
            let with = |operator: &syn::BinOp| parse_quote!(#left #operator mutant_right);
            let changes = numbered.iter().map(|(number, other)| (*number, with(other))).collect();
            let choice = choice(changes, with(&operator));
            parse_quote!((match (#right) { mutant_right => #choice }))
        } else {
            let with = |operator: &syn::BinOp| parse_quote!(mutant_left #operator mutant_right);
            let changes = numbered.iter().map(|(number, other)| (*number, with(other))).collect();
            let choice = choice(changes, with(&operator));
            parse_quote!((match ((#left), (#right)) { (mutant_left, mutant_right) => #choice }))
        };
    }

    fn unary(&mut self, expr: &mut Expr) {
        let Expr::Unary(unary) = &*expr else { return };
        let (original, operator) = (text(unary), unary.op);
        visit_mut::visit_expr_mut(self, expr);
        if matches!(operator, syn::UnOp::Deref(_)) {
            return;
        }
        let what = format!("`{}` deleted", text(&operator));
        let Some(number) = self.number(operator.span(), &original, what) else { return };
        let Expr::Unary(unary) = &mut *expr else { return };
        let (operand, on) = (take(&mut unary.expr), on(number));
        *expr = parse_quote!((match (#operand) {
            mutant_only => if #on { mutant_only } else { #operator mutant_only },
        }));
    }

    /// A condition that has no operator of its own, the other way round.
    fn negated(&mut self, condition: &mut Expr, plain: Option<(Span, String)>) {
        let Some((span, original)) = plain else { return };
        if let Some(number) = self.number(span, &original, "negated".into()) {
            let (value, on) = (take(condition), on(number));
            *condition = parse_quote!((match (#value) { mutant_only => mutant_only != #on }));
        }
    }

    /// `original` is the guard before anything in it was changed.
    fn guard(&mut self, arm: &mut syn::Arm, (span, original): (Span, String)) {
        let Some((_, guard)) = &mut arm.guard else { return };
        if is_let(guard) {
            return;
        }
        let mut all = |value: &str| self.number(span, &original, format!("guard {value}"));
        let (always, never) = (all("true"), all("false"));
        if always.is_none() && never.is_none() {
            return;
        }
        // Both are asked about before the guard is computed: reached is reached.
        let value = take(guard);
        let off: Expr = parse_quote!(false);
        let (always, never) = (always.map_or(off.clone(), on), never.map_or(off, on));
        **guard = parse_quote!(!#never && (#always || (#value)));
    }

    fn smaller_and_larger(&mut self, expr: &mut Expr) {
        let Expr::MethodCall(call) = &*expr else { return };
        let original = text(call);
        visit_mut::visit_expr_mut(self, expr);
        let Expr::MethodCall(call) = &mut *expr else { return };
        let name = call.method.to_string();
        let Some(other) = kinds::opposite(&name).filter(|_| call.args.len() == 1) else { return };
        let what = format!("`{name}` to `{other}`");
        let Some(number) = self.number(call.method.span(), &original, what) else { return };
        let other = syn::Ident::new(other, call.method.span());
        let (left, on, method) = (take(&mut call.receiver), on(number), &call.method);
        let right = take(&mut call.args[0]);
        *expr = parse_quote!((match ((#left), (#right)) {
            (mutant_left, mutant_right) => if #on {
                mutant_left.#other(mutant_right)
            } else {
                mutant_left.#method(mutant_right)
            },
        }));
    }

    fn constant(&mut self, expr: &mut Expr) {
        let Expr::Path(path) = &*expr else { return };
        let Some(name) = path.path.segments.last().map(|last| last.ident.to_string()) else {
            return;
        };
        // `u64::MAX` is not one of the crate.
        if path.path.segments.first().is_some_and(|first| kinds::is_integer(&first.ident)) {
            return;
        }
        let Some(kind) = self.constants.kind(&name) else { return };
        let changes: Vec<(&str, Expr)> = match kind {
            Constant::Integer => {
                vec![("+ 1", parse_quote!(mutant_only + 1)), ("- 1", parse_quote!(mutant_only - 1))]
            }
            Constant::Duration => {
                vec![("* 2", parse_quote!(mutant_only * 2)), ("/ 2", parse_quote!(mutant_only / 2))]
            }
        };
        let span = path.span();
        let numbered: Vec<(u32, Expr)> = changes
            .into_iter()
            .filter_map(|(what, change)| Some((self.number(span, &name, what.into())?, change)))
            .collect();
        if !numbered.is_empty() {
            let value = take(expr);
            let choice = choice(numbered, parse_quote!(mutant_only));
            *expr = parse_quote!((match (#value) { mutant_only => #choice }));
        }
    }

    /// A statement for its effect alone, left out.
    fn left_out(&mut self, stmt: &mut Stmt) {
        let Stmt::Expr(expr, Some(_)) = &*stmt else { return };
        let what = match kinds::effect(expr) {
            Some(what) => format!("{what} deleted"),
            None => return visit_mut::visit_stmt_mut(self, stmt),
        };
        let (span, original) = (expr.span(), text(expr));
        visit_mut::visit_stmt_mut(self, stmt);
        let Some(number) = self.number(span, &original, what) else { return };
        let Stmt::Expr(expr, _) = &mut *stmt else { return };
        let (effect, on) = (take(expr), on(number));
        *stmt = parse_quote!(if !#on { #effect; });
    }
}

impl VisitMut for Planter<'_> {
    fn visit_item_mut(&mut self, item: &mut Item) {
        if only_for_tests(item_attributes(item)) {
            return;
        }
        match item {
            Item::Fn(item) => self.function(&item.sig, &mut item.block),
            Item::Impl(item) => {
                let of = item.trait_.as_ref().and_then(|(_, path, _)| path.segments.last());
                let name = of.map_or(String::new(), |of| of.ident.to_string());
                let on = text(&item.self_ty);
                let shown = name == "Display" && self.constants.is_public(&item.self_ty);
                if name == "Debug" || name == "Display" && !shown {
                    return;
                }
                self.scope.push(if name.is_empty() { on } else { format!("<{on} as {name}>") });
                visit_mut::visit_item_impl_mut(self, item);
                self.scope.pop();
            }
            Item::Trait(item) => {
                self.scope.push(item.ident.to_string());
                visit_mut::visit_item_trait_mut(self, item);
                self.scope.pop();
            }
            Item::Mod(_) => visit_mut::visit_item_mut(self, item),
            _ => {}
        }
    }

    fn visit_impl_item_mut(&mut self, item: &mut ImplItem) {
        if let ImplItem::Fn(item) = item
            && !only_for_tests(&item.attrs)
        {
            self.function(&item.sig, &mut item.block);
        }
    }

    fn visit_trait_item_mut(&mut self, item: &mut syn::TraitItem) {
        if let syn::TraitItem::Fn(item) = item
            && let Some(block) = &mut item.default
        {
            self.function(&item.sig, block);
        }
    }

    fn visit_type_mut(&mut self, _: &mut syn::Type) {}

    fn visit_pat_mut(&mut self, _: &mut syn::Pat) {}

    fn visit_path_mut(&mut self, _: &mut syn::Path) {}

    fn visit_arm_mut(&mut self, arm: &mut syn::Arm) {
        let original = arm.guard.as_ref().map(|(_, guard)| (guard.span(), text(guard)));
        visit_mut::visit_arm_mut(self, arm);
        if let Some(original) = original {
            self.guard(arm, original);
        }
    }

    fn visit_stmt_mut(&mut self, stmt: &mut Stmt) {
        match stmt {
            Stmt::Expr(_, Some(_)) => self.left_out(stmt),
            _ => visit_mut::visit_stmt_mut(self, stmt),
        }
    }

    fn visit_expr_mut(&mut self, expr: &mut Expr) {
        match expr {
            Expr::Binary(_) => self.binary(expr),
            Expr::Unary(_) => self.unary(expr),
            Expr::MethodCall(_) => self.smaller_and_larger(expr),
            Expr::Path(_) => self.constant(expr),
            Expr::If(whole) => {
                let plain = plain(&whole.cond);
                visit_mut::visit_expr_if_mut(self, whole);
                self.negated(&mut whole.cond, plain);
            }
            Expr::Repeat(repeat) => self.visit_expr_mut(&mut repeat.expr),
            Expr::Const(_) => {}
            _ => visit_mut::visit_expr_mut(self, expr),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_returns_a_value_alone_is_not_replaced_by_it() {
        let body = |code: &str| -> Block { syn::parse_str(code).unwrap() };
        let unit: Expr = parse_quote!(());
        let none: Expr = parse_quote!(None);
        assert!(is_already(&body("{ let _ = wire; }"), &unit));
        assert!(is_already(&body("{}"), &unit));
        assert!(is_already(&body("{ let _ = (a, b); None }"), &none));
        assert!(!is_already(&body("{ let _ = (a, b); Some(1) }"), &none));
        assert!(!is_already(&body("{ let a = 1; None }"), &none));
        assert!(!is_already(&body("{ begin(); None }"), &none));
        assert!(!is_already(&body("{ begin(); }"), &unit));
    }
}
