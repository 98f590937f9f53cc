//! Texts with `{names}` that stand for values, such as the tag
//! `artist:{artist_id}`.

pub use larder::event_rules::Template;
