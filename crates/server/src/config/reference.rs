//! The reference of the configuration, generated from its schema.

use std::fmt::Write;
use std::sync::LazyLock;

use larder_core::TtlClass;
use serde_json::Value;

use super::schema::schema;
use super::show_duration;

/// The reference as Markdown.
#[must_use]
pub fn reference_text() -> String {
    let schema = schema();
    let mut text = String::from(INTRODUCTION);
    for (heading, name, introduction) in SECTIONS {
        let _ = write!(text, "\n## `{heading}`\n\n");
        let definition = &schema["$defs"][name];
        let description = definition["description"].as_str().unwrap_or_default();
        let _ = write!(text, "{description}\n\n");
        if !introduction.is_empty() {
            let _ = write!(text, "{introduction}\n\n");
        }
        table(&mut text, &schema, definition);
    }
    ttl_classes(&mut text);
    text
}

const INTRODUCTION: &str = "\
# Configuration reference

This page is generated from the program: `larder config schema` prints the same as a JSON Schema.
`larder check larder.toml` finds every mistake in a file, `larder config print` shows what holds in
the end, and `larder config example` prints a file with every option.

What a flag says goes before its environment variable, that before the file, and that before the
default. An option that nobody knows is an error, never ignored.

| kind | written like |
|---|---|
| duration | `\"250ms\"`, `\"30s\"`, `\"5m\"`, `\"1h30m\"`, `\"7d\"`; a bare number is refused |
| size | `\"512KiB\"`, `\"64MiB\"`, `\"1GB\"` |
| share | `\"80%\"` or `0.8` |
| off | `\"off\"` turns an option off, also one that `[defaults]` turned on |

The file is read again on `SIGHUP` and when it changes. Policies (`[defaults]` and the same options
of `[caches.NAME]`) apply at once to what is loaded from then on, and a cache is emptied when its
`class` becomes one that is not kept or its `max_age` is lowered; what else changed is named in the
log and needs a restart. A file with a mistake is refused as a whole, and what held before still
holds.
";

/// Heading, definition, and what stands between heading and table.
const SECTIONS: &[(&str, &str, &str)] = &[
    ("[server]", "ServerOptions", ""),
    ("[server.users.NAME]", "UserOptions", ""),
    ("[memory]", "MemoryOptions", MEMORY),
    ("[disk]", "DiskTierOptions", ""),
    ("[journal]", "JournalSection", ""),
    ("[redis]", "RedisTierOptions", ""),
    ("[memcached]", "MemcachedTierOptions", ""),
    ("[front]", "ExistingRedisOptions", ""),
    ("[origins.NAME]", "OriginOptions", ""),
    ("[origins.NAME.breaker]", "BreakerOptions", ""),
    ("[defaults]", "PolicyOptions", ""),
    ("[caches.NAME]", "CacheOptions", CACHES),
    ("[caches.NAME.write]", "CacheWriteOptions", ""),
    ("[caches.NAME.ttl_by_age]", "TtlByAgeOptions", ""),
    ("rules of ttl_by_age", "AgeRule", ""),
    ("[events]", "EventSourceOptions", ""),
    ("[[on]]", "EventRuleOptions", ""),
    ("[[schedule]]", "ScheduleOptions", ""),
];

const MEMORY: &str = "\
The budget is divided once, at start: plain keys get `plain_keys`, each cache with `memory` gets
that, and the other caches get equal parts of what is left, each at least 1 MiB.";

const CACHES: &str = "\
A cache is filled by a `query` for its `key`, or from a `table`. Where two patterns match a key, the
one with more parts wins, then the one with more literal text.";

fn table(text: &mut String, schema: &Value, definition: &Value) {
    text.push_str("| option | takes | default | meaning |\n|---|---|---|---|\n");
    let properties = definition["properties"].as_object();
    for (name, property) in properties.into_iter().flatten() {
        let (description, default) = split_default(property);
        let kind = kind(schema, property);
        let _ = writeln!(text, "| `{name}` | {kind} | {default} | {description} |");
    }
}

/// The description without the sentence that names the default, and the default.
fn split_default(property: &Value) -> (String, String) {
    let description = property["description"].as_str().unwrap_or_default().replace('|', "\\|");
    if let Some((before, default)) = description.rsplit_once(" Default: ") {
        let default = default.trim_end_matches('.');
        // What the sentence says is a value where it is one word, else a remark.
        let default =
            if default.contains(' ') { default.to_owned() } else { format!("`{default}`") };
        return (before.to_owned(), default);
    }
    if let Some((before, default)) = description.rsplit_once(" Default with ") {
        return (before.to_owned(), format!("with {}", default.trim_end_matches('.')));
    }
    if let Some((before, default)) = description.rsplit_once(" Default without ") {
        return (before.to_owned(), format!("without {}", default.trim_end_matches('.')));
    }
    let default = match &property["default"] {
        Value::Null => String::new(),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Object(_) => String::new(),
        Value::String(text) => format!("`\"{text}\"`"),
        other => format!("`{other}`"),
    };
    (description, default)
}

fn kind(schema: &Value, property: &Value) -> String {
    if let Some(kind) = property["x-kind"].as_str() {
        return kind.to_owned();
    }
    let named = property["$ref"].as_str().and_then(|path| path.rsplit('/').next());
    if let Some(name) = named {
        return kind(schema, &schema["$defs"][name]);
    }
    let variants = property["oneOf"].as_array().or(property["anyOf"].as_array());
    if let Some(variants) = variants {
        let constants: Vec<_> = variants
            .iter()
            .filter_map(|variant| variant["const"].as_str())
            .map(|name| format!("`{name}`"))
            .collect();
        if !constants.is_empty() {
            return constants.join(", ");
        }
        // An option that may be left out is its kind or null.
        let present = variants.iter().find(|variant| variant["type"] != "null");
        return present.map(|variant| kind(schema, variant)).unwrap_or_default();
    }
    let type_name = match &property["type"] {
        Value::Array(names) => names.first().and_then(Value::as_str),
        other => other.as_str(),
    };
    match type_name {
        Some("boolean") => "`true` or `false`".to_owned(),
        Some("integer") => "whole number".to_owned(),
        Some("number") => "number".to_owned(),
        Some("string") => "text".to_owned(),
        Some("array") => format!("list of {}", kind(schema, &property["items"])),
        Some("object") => "table".to_owned(),
        _ => "any value".to_owned(),
    }
}

fn ttl_classes(text: &mut String) {
    text.push_str("\n## TTL classes\n\nWhat `ttl_class` may name.\n\n| class | TTL |\n|---|---|\n");
    for (class, name, _) in TtlClass::TABLE {
        let _ = writeln!(text, "| `{name}` | {} |", show_duration(class.ttl()));
    }
}

/// What a policy option means, in the words of the reference, without its
/// default.
#[must_use]
pub fn meaning_of(option: &str) -> String {
    static SCHEMA: LazyLock<Value> = LazyLock::new(schema);
    let property = &SCHEMA["$defs"]["PolicyOptions"]["properties"][option];
    split_default(property).0
}
