//! The text of a configuration and where in it each value stands.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// A configuration's text under the name it is reported by.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The file's name as the user gave it.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// A place in a text: line and column count from 1, columns in characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Source {
    /// The place of a byte offset. An offset inside a character counts as its
    /// start.
    #[must_use]
    pub fn position(&self, offset: usize) -> Position {
        let offset = floor_char(&self.text, offset);
        let before = &self.text[..offset];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Position {
            line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    /// The line on which an offset stands, without its end.
    #[must_use]
    pub fn line(&self, offset: usize) -> &str {
        let offset = floor_char(&self.text, offset);
        let start = self.text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
        let end = self.text[offset..].find('\n').map_or(self.text.len(), |length| offset + length);
        self.text[start..end].trim_end_matches('\r')
    }
}

fn floor_char(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// Where one option stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spans {
    /// Its name.
    pub key: Range<usize>,
    /// Its value.
    pub value: Range<usize>,
}

/// Where every option of a configuration stands, by its path.
#[derive(Clone, Debug, Default)]
pub struct Locations(BTreeMap<Vec<String>, Spans>);

impl Locations {
    /// The locations of everything in a table.
    #[must_use]
    pub fn of(root: &DeTable<'_>) -> Self {
        let mut locations = Self::default();
        locations.collect(root, &mut Vec::new());
        locations
    }

    /// Where the option with this path stands, if the file has it.
    #[must_use]
    pub fn find(&self, path: &[&str]) -> Option<&Spans> {
        let path: Vec<String> = path.iter().map(|part| (*part).to_owned()).collect();
        self.0.get(&path)
    }

    /// Where the option stands, or else the innermost table around it that the
    /// file has.
    #[must_use]
    pub fn nearest(&self, path: &[&str]) -> Option<&Spans> {
        (1..=path.len()).rev().find_map(|length| self.find(&path[..length]))
    }

    /// The names directly below a path, in the order of the file.
    #[must_use]
    pub fn names_below(&self, path: &[&str]) -> Vec<&str> {
        let mut names: Vec<_> = self
            .0
            .iter()
            .filter(|(known, _)| {
                known.len() == path.len() + 1 && known.iter().zip(path).all(|(a, b)| a == b)
            })
            .map(|(known, spans)| (spans.key.start, known[path.len()].as_str()))
            .collect();
        names.sort_unstable();
        names.into_iter().map(|(_, name)| name).collect()
    }

    fn collect(&mut self, table: &DeTable<'_>, path: &mut Vec<String>) {
        for (key, value) in table {
            path.push(key.get_ref().to_string());
            self.0.insert(path.clone(), Spans { key: key.span(), value: value.span() });
            self.descend(value.get_ref(), path);
            path.pop();
        }
    }

    fn descend(&mut self, value: &DeValue<'_>, path: &mut Vec<String>) {
        match value {
            DeValue::Table(table) => self.collect(table, path),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    path.push(index.to_string());
                    self.0.insert(path.clone(), Spans { key: item.span(), value: item.span() });
                    self.descend(item.get_ref(), path);
                    path.pop();
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters() {
        let source = Source { name: "x".into(), text: "a = 1\nü = \"ß\" # é\r\nz".into() };
        let at = source.text.find('#').expect("the text has it");
        assert_eq!(source.position(at), Position { line: 2, column: 9 });
        assert_eq!(source.line(at), "ü = \"ß\" # é");
        assert_eq!(source.position(10_000), Position { line: 3, column: 2 });
    }

    #[test]
    fn an_option_the_file_lacks_is_reported_at_its_table() {
        let text = "[caches.album]\nttl = '5m'\ntags = ['a', 'b']\n";
        let root = DeTable::parse(text).expect("it is TOML");
        let locations = Locations::of(root.get_ref());
        let ttl = locations.find(&["caches", "album", "ttl"]).expect("the file has it");
        assert_eq!(&text[ttl.value.clone()], "'5m'");
        let second = locations.find(&["caches", "album", "tags", "1"]).expect("the file has it");
        assert_eq!(&text[second.value.clone()], "'b'");
        let near = locations.nearest(&["caches", "album", "key"]).expect("its table");
        assert_eq!(&text[near.key.clone()], "album");
        assert_eq!(locations.names_below(&["caches", "album"]), ["ttl", "tags"]);
    }
}
