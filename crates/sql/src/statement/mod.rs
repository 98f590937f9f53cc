//! What is understood of SQL text: tokens, named parameters, simple views.

pub(crate) mod infer;
mod template;
mod tokens;
pub(crate) mod view;

pub(crate) use template::Template;
pub(crate) use tokens::{Kind, Token, tokenize};
