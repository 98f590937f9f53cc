//! From text to options, with every mistake found in one run.
//!
//! The deserialiser stops at the first mistake. So what is wrong is taken out of
//! the tree, noted, and the rest is read again, until nothing is wrong or too
//! much is. The options that remain are checked for sense even then.

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Diagnostics};
use super::options::Config;
use super::source::{Locations, Source};
use super::suggest;

/// What was read, as far as it could be read.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// The options; those with mistakes are left out.
    pub config: Config,
    /// Where each option stands.
    pub locations: Locations,
    /// The mistakes.
    pub diagnostics: Diagnostics,
    /// Whether everything but the mistakes was read.
    pub is_read: bool,
}

/// A larger text is not a configuration.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

/// After so many mistakes the rest says little.
const MISTAKES_MAX: usize = 50;

/// Reads a configuration. Never panics, whatever the text.
#[must_use]
pub fn parse(source: &Source) -> Parsed {
    let mut parsed = Parsed::default();
    if source.text.len() > TEXT_BYTES_MAX {
        let message =
            format!("the file has {} bytes, more than {TEXT_BYTES_MAX}", source.text.len());
        let diagnostic = Diagnostic::error(message).remedy("split the caches over several servers");
        parsed.diagnostics.0.push(diagnostic.at(source, None));
        return parsed;
    }
    let (root, errors) = DeTable::parse_recoverable(&source.text);
    if !errors.is_empty() {
        for error in errors.iter().take(MISTAKES_MAX) {
            let diagnostic = Diagnostic::error(format!("this is not TOML: {}", error.message()))
                .remedy("values are written like name = \"text\", tables like [caches.album]");
            parsed.diagnostics.0.push(diagnostic.at(source, error.span()));
        }
        return parsed;
    }
    parsed.locations = Locations::of(root.get_ref());
    read(source, root, &mut parsed);
    parsed
}

fn read(source: &Source, mut root: Spanned<DeTable<'_>>, parsed: &mut Parsed) {
    for _ in 0..MISTAKES_MAX {
        match Config::deserialize(toml::Deserializer::from(root.clone())) {
            Ok(config) => {
                parsed.config = config;
                parsed.is_read = true;
                return;
            }
            Err(error) => {
                let span = error.span();
                let path = span.as_ref().and_then(|span| take_out(root.get_mut(), span));
                let diagnostic = explain(error.message(), path.as_deref()).at(source, span);
                parsed.diagnostics.0.push(diagnostic);
                if path.is_none() {
                    return;
                }
            }
        }
    }
}

/// Removes the option that a mistake lies in; returns its path.
fn take_out(root: &mut DeTable<'_>, mistake: &Range<usize>) -> Option<Vec<String>> {
    let within = |span: Range<usize>| span.start <= mistake.start && mistake.end <= span.end;
    // An unknown name is reported at the name, anything else at the value.
    remove_where(root, &|key, _| key == *mistake)
        .or_else(|| remove_where(root, &|key, value| within(key) || within(value)))
}

type SpanTest<'a> = &'a dyn Fn(Range<usize>, Range<usize>) -> bool;

/// Removes the innermost option whose spans pass the test. The span of a
/// `[table]` covers its header alone, so what is inside is looked at first.
fn remove_where(table: &mut DeTable<'_>, test: SpanTest<'_>) -> Option<Vec<String>> {
    for (key, value) in table.iter_mut() {
        if let DeValue::Table(inner) = value.get_mut()
            && let Some(mut path) = remove_where(inner, test)
        {
            path.insert(0, key.get_ref().to_string());
            return Some(path);
        }
        if let DeValue::Array(items) = value.get_mut() {
            for (index, item) in items.iter_mut().enumerate() {
                if let DeValue::Table(inner) = item.get_mut()
                    && let Some(path) = remove_where(inner, test)
                {
                    let start = [key.get_ref().to_string(), index.to_string()];
                    return Some(start.into_iter().chain(path).collect());
                }
            }
        }
    }
    let found = table.iter().find(|(key, value)| test(key.span(), value.span()));
    let key = found.map(|(key, _)| key.clone())?;
    table.remove(&key);
    Some(vec![key.get_ref().to_string()])
}

/// Says it in our words: what, and the remedy.
fn explain(message: &str, path: Option<&[String]>) -> Diagnostic {
    let (table, name) = match path.and_then(<[String]>::split_last) {
        Some((name, [])) => ("the configuration".to_owned(), name.as_str()),
        Some((name, table)) => (format!("[{}]", table.join(".")), name.as_str()),
        None => ("the configuration".to_owned(), ""),
    };
    if message.starts_with("unknown field") {
        let known = listed_names(message);
        let diagnostic = Diagnostic::error(format!("{table} has no option `{name}`"));
        if table == "[redis]" && OF_FRONT.contains(&name) {
            return diagnostic.remedy(
                "the Redis to stand in front of is [front], the one that servers share is [redis]",
            );
        }
        return diagnostic.remedy(suggestion(unknown_name(message), &known, "its options are"));
    }
    if message.starts_with("unknown variant") {
        let known = listed_names(message);
        let given = unknown_name(message);
        let diagnostic = Diagnostic::error(format!("`{name}` cannot be \"{given}\""));
        return diagnostic.remedy(suggestion(given, &known, "it may be"));
    }
    if let Some(rest) = message.strip_prefix("invalid type: ")
        && let Some((found, expected)) = rest.split_once(", expected ")
    {
        let found = found.replace('`', "");
        let diagnostic = Diagnostic::error(format!("`{name}` cannot be {}", article(&found)));
        return diagnostic.remedy(format!("it takes {}", in_words(expected)));
    }
    if message.starts_with("missing field") {
        let missing = unknown_name(message);
        return Diagnostic::error(format!("`{name}` lacks `{missing}`"))
            .remedy(format!("add {missing} = …"));
    }
    match message.split_once("; ") {
        Some((what, remedy)) => Diagnostic::error(format!("`{name}`: {what}")).remedy(remedy),
        None => Diagnostic::error(format!("`{name}`: {message}"))
            .remedy("`larder config example` shows every option with a value"),
    }
}

/// Options of the Redis to stand in front of that the shared one does not have.
const OF_FRONT: [&str; 4] = ["staleness_max", "untracked_ttl", "kept_size_max", "not_kept"];

/// The names in backticks after "expected" in a message of serde's.
fn listed_names(message: &str) -> Vec<&str> {
    let list = message.split_once("expected").map_or("", |(_, list)| list);
    list.split('`').skip(1).step_by(2).collect()
}

fn unknown_name(message: &str) -> &str {
    message.split('`').nth(1).unwrap_or_default()
}

fn suggestion(given: &str, known: &[&str], introduction: &str) -> String {
    match suggest::closest(given, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("{introduction} {}", known.join(", ")),
    }
}

fn article(found: &str) -> String {
    match found.chars().next() {
        Some('a' | 'e' | 'i' | 'o' | 'u') => format!("an {found}"),
        _ => format!("a {found}"),
    }
}

/// Serde's names of types in words that say what to write.
fn in_words(expected: &str) -> &str {
    match expected {
        "a boolean" => "true or false",
        "a string" | "string or table" => "a text in quotes",
        "u32" | "usize" | "u64" => "a whole number",
        "socket address" => "an address and a port, such as \"127.0.0.1:6380\"",
        "a sequence" => "a list such as [\"a\", \"b\"]",
        "a map" => "a table",
        other if other.starts_with("struct ") => "a table",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mistakes(text: &str) -> Vec<String> {
        let source = Source { name: "larder.toml".into(), text: text.into() };
        let mut diagnostics = parse(&source).diagnostics;
        diagnostics.sort();
        diagnostics.0.iter().map(Diagnostic::one_line).collect()
    }

    #[test]
    fn every_mistake_is_found_in_one_run() {
        let text = "\
[server]
bind = 6380
max_clients = \"many\"
log_level = \"inof\"
dangerous_commands = [\"KEYS\", \"SHUTDOWN\"]
[caches.album]
key = \"album:{id}\"
tll = \"5m\"
ttl = 300
jitter = \"150%\"
sliding = \"yes\"
ttl_by_age = { column = \"at\", rules = [{ under = \"1h\" }] }
[cache.artist]
key = \"artist:{id}\"
";
        insta::assert_snapshot!(mistakes(text).join("\n"));
    }

    #[test]
    fn what_is_right_is_read_beside_what_is_wrong() {
        let source = Source {
            name: "x".into(),
            text: "[caches.a]\nttl = 'long'\nkey = 'a:{id}'\n[memory]\nbudget = '64MiB'\n".into(),
        };
        let parsed = parse(&source);
        assert_eq!(parsed.diagnostics.0.len(), 1);
        assert_eq!(parsed.config.caches["a"].key.as_deref(), Some("a:{id}"));
        assert_eq!(parsed.config.memory.budget.to_string(), "64MiB");
    }

    #[test]
    fn text_that_is_not_toml_is_reported_where_it_breaks() {
        let mistakes = mistakes("[server]\nbind = \n[memory\n");
        assert!(mistakes[0].starts_with("larder.toml:2:"), "{mistakes:?}");
        assert!(mistakes.len() >= 2, "{mistakes:?}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = mistakes(&text);
        }

        #[test]
        fn no_table_panics(
            names in proptest::collection::vec("[a-z_]{1,14}", 1..6),
            values in proptest::collection::vec(
                prop_oneof!["\"[a-z0-9%{}:]{0,9}\"", "[0-9]{1,20}", "\\[[0-9, ]{0,5}\\]", Just("{ a = 1 }".to_owned())],
                1..6,
            ),
        ) {
            let mut text = String::from("[caches.x]\n");
            for (name, value) in names.iter().zip(&values) {
                text.push_str(&format!("{name} = {value}\n"));
            }
            let _ = mistakes(&text);
        }
    }
}
