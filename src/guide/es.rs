#![doc = include_str!("es/guide.md")]
