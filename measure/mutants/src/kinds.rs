//! What takes the place of what: values for a function's body, operators, opposites, effects.

use syn::parse_quote;
use syn::{BinOp, Expr, FnArg, GenericArgument, PathArguments, ReturnType, Signature, Type};

const INTEGERS: &[&str] =
    &["u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize"];

pub fn is_integer(name: &syn::Ident) -> bool {
    INTEGERS.iter().any(|integer| name == integer)
}

/// What a function may return instead of running its body.
pub fn bodies(signature: &Signature) -> Vec<Expr> {
    match &signature.output {
        ReturnType::Default => vec![parse_quote!(())],
        ReturnType::Type(_, returned) => {
            let by_value = signature.inputs.first().is_some_and(|first| match first {
                FnArg::Receiver(receiver) => receiver.reference.is_none(),
                FnArg::Typed(_) => false,
            });
            values(returned, by_value)
        }
    }
}

fn values(returned: &Type, self_by_value: bool) -> Vec<Expr> {
    match returned {
        Type::Tuple(tuple) if tuple.elems.is_empty() => vec![parse_quote!(())],
        Type::Tuple(_) => vec![parse_quote!(Default::default())],
        Type::Reference(reference) => match (&*reference.elem, reference.mutability) {
            (Type::Slice(_), None) => vec![parse_quote!(&[])],
            (Type::Slice(_), Some(_)) => vec![parse_quote!(&mut [])],
            (Type::Path(path), None) if path.path.is_ident("str") => {
                vec![parse_quote!(""), parse_quote!("xyzzy")]
            }
            // A setter that sets nothing.
            (Type::Path(path), Some(_)) if path.path.is_ident("Self") => vec![parse_quote!(self)],
            _ => Vec::new(),
        },
        Type::Path(path) => match path.path.segments.last() {
            Some(last) => of_name(&last.ident.to_string(), &last.arguments, self_by_value),
            None => Vec::new(),
        },
        _ => Vec::new(),
    }
}

fn of_name(name: &str, arguments: &PathArguments, self_by_value: bool) -> Vec<Expr> {
    let inner = || match arguments {
        PathArguments::AngleBracketed(all) => all.args.iter().find_map(|argument| match argument {
            GenericArgument::Type(inner) => Some(values(inner, false)),
            _ => None,
        }),
        _ => None,
    };
    match name {
        "bool" => vec![parse_quote!(true), parse_quote!(false)],
        name if INTEGERS.contains(&name) => vec![parse_quote!(0), parse_quote!(1)],
        "String" => vec![parse_quote!(String::new()), parse_quote!(String::from("xyzzy"))],
        "Vec" => vec![parse_quote!(Vec::new())],
        "Option" => {
            let some = inner().unwrap_or_default().into_iter();
            let some = some.map(|value| -> Expr { parse_quote!(Some(#value)) });
            [parse_quote!(None)].into_iter().chain(some).collect()
        }
        "Result" => {
            let inner = inner().unwrap_or_else(|| vec![parse_quote!(())]);
            inner.into_iter().map(|value| parse_quote!(Ok(#value))).collect()
        }
        // A setter that sets nothing.
        "Self" if self_by_value => vec![parse_quote!(self)],
        _ => vec![parse_quote!(Default::default())],
    }
}

pub fn operators(operator: &BinOp) -> Vec<BinOp> {
    match operator {
        BinOp::Eq(_) => vec![parse_quote!(!=)],
        BinOp::Ne(_) => vec![parse_quote!(==)],
        BinOp::Lt(_) => vec![parse_quote!(==), parse_quote!(>), parse_quote!(<=)],
        BinOp::Gt(_) => vec![parse_quote!(==), parse_quote!(<), parse_quote!(>=)],
        BinOp::Le(_) => vec![parse_quote!(>), parse_quote!(<)],
        BinOp::Ge(_) => vec![parse_quote!(<), parse_quote!(>)],
        BinOp::And(_) => vec![parse_quote!(||)],
        BinOp::Or(_) => vec![parse_quote!(&&)],
        BinOp::Add(_) => vec![parse_quote!(-), parse_quote!(*)],
        BinOp::Sub(_) => vec![parse_quote!(+), parse_quote!(/)],
        BinOp::Mul(_) => vec![parse_quote!(+), parse_quote!(/)],
        BinOp::Div(_) => vec![parse_quote!(%), parse_quote!(*)],
        BinOp::Rem(_) => vec![parse_quote!(/), parse_quote!(+)],
        BinOp::BitAnd(_) => vec![parse_quote!(|), parse_quote!(^)],
        BinOp::BitOr(_) => vec![parse_quote!(&), parse_quote!(^)],
        BinOp::BitXor(_) => vec![parse_quote!(&), parse_quote!(|)],
        BinOp::Shl(_) => vec![parse_quote!(>>)],
        BinOp::Shr(_) => vec![parse_quote!(<<)],
        // Left out altogether, too: see `effect`.
        BinOp::AddAssign(_) => vec![parse_quote!(-=)],
        BinOp::SubAssign(_) => vec![parse_quote!(+=)],
        BinOp::MulAssign(_) => vec![parse_quote!(+=), parse_quote!(/=)],
        BinOp::DivAssign(_) => vec![parse_quote!(%=), parse_quote!(*=)],
        BinOp::RemAssign(_) => vec![parse_quote!(/=), parse_quote!(+=)],
        BinOp::BitAndAssign(_) => vec![parse_quote!(|=), parse_quote!(^=)],
        BinOp::BitOrAssign(_) => vec![parse_quote!(&=), parse_quote!(^=)],
        BinOp::BitXorAssign(_) => vec![parse_quote!(|=), parse_quote!(&=)],
        BinOp::ShlAssign(_) => vec![parse_quote!(>>=)],
        BinOp::ShrAssign(_) => vec![parse_quote!(<<=)],
        _ => Vec::new(),
    }
}

pub fn is_logical(operator: &BinOp) -> bool {
    matches!(operator, BinOp::And(_) | BinOp::Or(_))
}

pub fn is_comparison(operator: &BinOp) -> bool {
    use BinOp::{Eq, Ge, Gt, Le, Lt, Ne};
    matches!(operator, Eq(_) | Ne(_) | Lt(_) | Le(_) | Gt(_) | Ge(_))
}

pub fn is_assigning(operator: &BinOp) -> bool {
    use BinOp::{AddAssign, BitAndAssign, BitOrAssign, BitXorAssign, DivAssign, MulAssign};
    use BinOp::{RemAssign, ShlAssign, ShrAssign, SubAssign};
    matches!(operator, AddAssign(_) | SubAssign(_) | MulAssign(_) | DivAssign(_) | RemAssign(_))
        || matches!(operator, BitAndAssign(_) | BitOrAssign(_) | BitXorAssign(_))
        || matches!(operator, ShlAssign(_) | ShrAssign(_))
}

pub fn opposite(method: &str) -> Option<&'static str> {
    match method {
        "min" => Some("max"),
        "max" => Some("min"),
        _ => None,
    }
}

/// Names a statement that exists for its effect.
pub fn effect(expr: &Expr) -> Option<&'static str> {
    match expr {
        Expr::MethodCall(_) | Expr::Call(_) => Some("call"),
        Expr::Try(tried) => effect(&tried.expr),
        Expr::Assign(_) => Some("assignment"),
        Expr::Binary(binary) if is_assigning(&binary.op) => Some("assignment"),
        _ => None,
    }
}
