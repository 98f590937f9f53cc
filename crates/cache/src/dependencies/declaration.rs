//! From texts to nodes and edges.

use std::collections::HashMap;

use larder_core::{Error, ErrorKind, KeyPattern, Result};

use super::graph::{Edge, Node, TagForm, Template, Via};

/// A dependency as it was declared.
#[derive(Clone, Debug)]
pub(super) struct Declared {
    dependent: String,
    on: String,
    /// The loader says what it used.
    by_loader: bool,
}

const SERVICE: &str = "service:";
const TAG: &str = "tag:";

impl Declared {
    pub(super) fn new(dependent: &str, on: &str, by_loader: bool) -> Self {
        Self { dependent: dependent.to_owned(), on: on.to_owned(), by_loader }
    }

    /// The edge. A service that nobody has named before becomes a node.
    pub(super) fn resolve(
        &self,
        nodes: &mut Vec<Node>,
        by_name: &mut HashMap<String, usize>,
    ) -> Result<Edge> {
        let Some(dependent) = by_name.get(&self.dependent).copied() else {
            return Err(self.wrong("what depends on it is no cache").remedy(format!(
                "declare the cache `{}` before what it depends on",
                self.dependent
            )));
        };
        let (source, template) = self.source(nodes, by_name)?;
        let via = match &template {
            _ if self.by_loader => Via::Loader,
            Template::Pattern(pattern) => via(nodes[dependent].pattern.as_ref(), pattern),
            Template::Any | Template::Constant(_) => Via::All,
        };
        let is_same_shape = match (source.and_then(|node| nodes[node].pattern.as_ref()), &template)
        {
            (Some(keys), Template::Pattern(pattern)) => shape(keys) == shape(pattern),
            _ => false,
        };
        Ok(Edge { source, dependent, text: self.on.clone(), template, via, is_same_shape })
    }

    fn source(
        &self,
        nodes: &mut Vec<Node>,
        by_name: &mut HashMap<String, usize>,
    ) -> Result<(Option<usize>, Template)> {
        if let Some(tag) = self.on.strip_prefix(TAG) {
            return Ok((None, self.template(tag)?));
        }
        if let Some(rest) = self.on.strip_prefix(SERVICE) {
            let (name, keys) = rest.split_once(':').map_or((rest, None), |(n, k)| (n, Some(k)));
            let service =
                service(name, nodes, by_name).map_err(|error| error.with("text", rest))?;
            let template = match keys {
                Some(_) if nodes[service].is_bare => self.template(rest)?,
                Some(keys) => self.template(keys)?,
                None => Template::Any,
            };
            return Ok((Some(service), template));
        }
        if let Some(node) = by_name.get(&self.on) {
            return Ok((Some(*node), Template::Any));
        }
        let template = self.template(&self.on)?;
        let sample = match &template {
            Template::Pattern(pattern) => {
                pattern.key(std::iter::repeat_n("0", pattern.parameters().len()))
            }
            _ => self.on.clone(),
        };
        let found = owner(nodes, by_name, &sample);
        let node = found.ok_or_else(|| {
            self.wrong("there is no cache with such keys").remedy(
                "write it like the keys of another cache, as `tag:…`, or as `service:NAME:…` if \
                 somebody else announces it",
            )
        })?;
        Ok((Some(node), template))
    }

    /// Whether it can be read, whatever caches there are.
    pub(super) fn check(&self) -> Result<()> {
        if let Some(tag) = self.on.strip_prefix(TAG) {
            self.template(tag)?;
        } else if let Some(rest) = self.on.strip_prefix(SERVICE) {
            node(rest.split(':').next().unwrap_or_default(), None, None)?;
            self.template(rest)?;
        } else {
            self.template(&self.on)?;
        }
        Ok(())
    }

    fn template(&self, text: &str) -> Result<Template> {
        if !text.contains(['{', '}']) {
            if text.is_empty() {
                return Err(self.wrong("nothing stands behind the colon"));
            }
            return Ok(Template::Constant(text.to_owned()));
        }
        match text.parse() {
            Ok(pattern) => Ok(Template::Pattern(pattern)),
            Err(error) => Err(self.wrong("this is no pattern of keys").caused_by(error)),
        }
    }

    fn wrong(&self, message: &'static str) -> Error {
        Error::new(ErrorKind::Config, message)
            .with("cache", &self.dependent)
            .with("depends on", &self.on)
    }
}

/// The node of a cache.
pub(super) fn node(name: &str, keys: Option<&str>, tags: Option<&[String]>) -> Result<Node> {
    let wrong = |message| Error::new(ErrorKind::Config, message).with("cache", name);
    if name.is_empty() || matches!(name, "tag" | "service") || name.contains([':', '{', '}', '@']) {
        return Err(wrong("dependencies cannot tell this name from other words")
            .remedy("use a name without `:`, `{`, `}` and `@`, other than `tag` and `service`"));
    }
    let is_bare = keys.is_none_or(|keys| keys.starts_with('{'));
    let text = keys.map(|keys| if is_bare { format!("{name}:{keys}") } else { keys.to_owned() });
    let pattern = text
        .map(|text| text.parse::<KeyPattern>())
        .transpose()
        .map_err(|error| wrong("the keys of this cache are no pattern").caused_by(error))?;
    let form = |tag: &String| {
        let prefix = tag.split('{').next().unwrap_or_default().to_owned();
        TagForm { prefix, pattern: tag.parse().ok() }
    };
    let tags = tags.map(|tags| tags.iter().map(form).collect());
    Ok(Node { name: name.to_owned(), pattern, is_bare, is_service: false, tags })
}

fn service(
    name: &str,
    nodes: &mut Vec<Node>,
    by_name: &mut HashMap<String, usize>,
) -> Result<usize> {
    if let Some(known) = by_name.get(name) {
        return Ok(*known);
    }
    nodes.push(Node { is_service: true, ..node(name, None, None)? });
    by_name.insert(name.to_owned(), nodes.len() - 1);
    Ok(nodes.len() - 1)
}

/// The node that a key belongs to: of those whose pattern it matches the one with
/// most parts, then most text; else the one without a pattern that it names.
pub(super) fn owner(nodes: &[Node], by_name: &HashMap<String, usize>, key: &str) -> Option<usize> {
    let rank = |node: &Node| {
        let pattern = node.pattern.as_ref().filter(|pattern| pattern.matches(key))?;
        let names: usize = pattern.parameters().iter().map(String::len).sum();
        let text = pattern.as_str();
        Some((text.matches(':').count(), text.len() - names))
    };
    let ranked = nodes.iter().enumerate().filter_map(|(index, node)| Some((rank(node)?, index)));
    let best = ranked.max_by_key(|(rank, index)| (*rank, std::cmp::Reverse(*index)));
    best.map(|(_, index)| index).or_else(|| {
        let (name, _) = key.split_once(':')?;
        by_name.get(name).copied().filter(|index| nodes[*index].pattern.is_none())
    })
}

fn via(keys: Option<&KeyPattern>, template: &KeyPattern) -> Via {
    let place = |name: &String| template.parameters().iter().position(|known| known == name);
    let places = keys.map(|keys| keys.parameters().iter().map(place).collect::<Option<Vec<_>>>());
    places.flatten().map_or(Via::Tag, Via::Key)
}

/// The text without the names of its parameters.
fn shape(pattern: &KeyPattern) -> String {
    pattern.key(std::iter::repeat_n("{", pattern.parameters().len()))
}
