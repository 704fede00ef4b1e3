//! The constants of the crate that are numbers or durations, and its public types.

use std::collections::{HashMap, HashSet};

use quote::ToTokens;
use syn::visit::{self, Visit};
use syn::{Ident, Type, Visibility};

#[derive(Clone, Copy, PartialEq)]
pub enum Constant {
    Integer,
    Duration,
}

#[derive(Default)]
pub struct Constants {
    /// Nothing for a name that two constants of different types have.
    kinds: HashMap<String, Option<Constant>>,
    public: HashSet<String>,
}

impl Constants {
    pub fn look(&mut self, file: &syn::File) {
        self.visit_file(file);
    }

    pub fn kind(&self, name: &str) -> Option<Constant> {
        self.kinds.get(name).copied().flatten()
    }

    pub fn is_public(&self, of: &Type) -> bool {
        match of {
            Type::Path(path) => path
                .path
                .segments
                .last()
                .is_some_and(|last| self.public.contains(&last.ident.to_string())),
            _ => false,
        }
    }

    fn constant(&mut self, name: &Ident, of: &Type) {
        let kind = match of.to_token_stream().to_string().as_str() {
            "u8" | "u16" | "u32" | "u64" | "usize" | "i32" | "i64" => Some(Constant::Integer),
            "Duration" => Some(Constant::Duration),
            _ => None,
        };
        let known = self.kinds.entry(name.to_string()).or_insert(kind);
        if *known != kind {
            *known = None;
        }
    }

    fn named(&mut self, name: &Ident, visibility: &Visibility) {
        if matches!(visibility, Visibility::Public(_)) {
            self.public.insert(name.to_string());
        }
    }
}

impl<'a> Visit<'a> for Constants {
    fn visit_item_const(&mut self, item: &'a syn::ItemConst) {
        self.constant(&item.ident, &item.ty);
    }

    fn visit_impl_item_const(&mut self, item: &'a syn::ImplItemConst) {
        self.constant(&item.ident, &item.ty);
    }

    fn visit_item_struct(&mut self, item: &'a syn::ItemStruct) {
        self.named(&item.ident, &item.vis);
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'a syn::ItemEnum) {
        self.named(&item.ident, &item.vis);
        visit::visit_item_enum(self, item);
    }
}
