use std::borrow::Cow;
use std::time::Duration;

use larder_core::{Error, ErrorKind, Result, Tag, Verb};
use serde_json::Value;

use super::template::{Template, TemplateError};

/// What an event of a name invalidates.
///
/// A name in braces stands for a member of the event's JSON: `{order.customer.id}` for
/// one inside others. An array stands for each of its elements, also on the way:
/// `{lines.product_id}`.
///
/// ```
/// use larder::event_rules::EventRule;
///
/// let rule = EventRule::on("trade.executed")
///     .key("portfolio:{account_id}")?
///     .tag("risk:{account.desk}")?
///     .cache("leaderboard")
///     .when("side", "buy");
/// # Ok::<_, larder::Error>(())
/// ```
#[derive(Clone, PartialEq, Debug)]
#[must_use = "a rule does nothing by itself"]
pub struct EventRule {
    pub(super) event: String,
    pub(super) keys: Vec<Template>,
    pub(super) tags: Vec<Template>,
    pub(super) caches: Vec<String>,
    pub(super) conditions: Vec<(String, Value)>,
    pub(super) verb: Verb,
    pub(super) window: Duration,
}

/// What is to be invalidated, in all caches together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Touched {
    /// Keys, as the outside writes them.
    pub keys: Vec<String>,
    /// Tags.
    pub tags: Vec<Tag>,
    /// Caches of which everything is touched, by name.
    pub caches: Vec<String>,
    /// Expire or remove.
    pub verb: Verb,
    /// Gradually over this time; zero for at once.
    pub window: Duration,
}

/// So many keys and tags may one rule make of one event: more belong under a tag.
pub const FAN_OUT_MAX: usize = 1000;

impl EventRule {
    /// A rule for events of this name that touches nothing so far.
    pub fn on(event: &str) -> Self {
        Self {
            event: event.to_owned(),
            keys: Vec::new(),
            tags: Vec::new(),
            caches: Vec::new(),
            conditions: Vec::new(),
            verb: Verb::Expire,
            window: Duration::ZERO,
        }
    }

    /// Touches keys.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a text that is no template.
    pub fn key(mut self, template: &str) -> Result<Self> {
        self.keys.push(parse(template)?);
        Ok(self)
    }

    /// Touches every entry with a tag.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a text that is no template.
    pub fn tag(mut self, template: &str) -> Result<Self> {
        self.tags.push(parse(template)?);
        Ok(self)
    }

    /// Touches everything in a cache.
    pub fn cache(mut self, name: &str) -> Self {
        self.caches.push(name.to_owned());
        self
    }

    /// Only where a member of the event is equal to this. Of several all must be.
    pub fn when(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.conditions.push((member.to_owned(), value.into()));
        self
    }

    /// What is touched is gone; else it is no longer fresh.
    pub fn removing(mut self) -> Self {
        self.verb = Verb::Remove;
        self
    }

    /// As [`crate::Invalidation::gradually`].
    pub fn gradually(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// What an event touches by this rule; `None` if its conditions do not hold.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a member that is missing, or has no text, and
    /// for more than [`FAN_OUT_MAX`] keys and tags.
    pub fn touched(&self, data: &Value) -> Result<Option<Touched>> {
        let holds = |(member, expected): &(String, Value)| {
            values(data, member).is_some_and(|found| found.contains(&expected))
        };
        if !self.conditions.iter().all(holds) {
            return Ok(None);
        }
        let (mut keys, mut tags) = (Vec::new(), Vec::new());
        for template in &self.keys {
            expand(template, data, escaped, &mut keys)?;
        }
        for template in &self.tags {
            expand(template, data, |text| text, &mut tags)?;
        }
        if keys.len() + tags.len() > FAN_OUT_MAX {
            return Err(too_many());
        }
        let tags = tags.iter().map(|tag| Tag::new(tag)).collect();
        let (caches, verb, window) = (self.caches.clone(), self.verb, self.window);
        Ok(Some(Touched { keys, tags, caches, verb, window }))
    }
}

fn parse(template: &str) -> Result<Template> {
    Template::parse(template).map_err(|TemplateError { at, why }| {
        Error::new(ErrorKind::Config, why).with("template", template).with("at", at)
    })
}

/// What separates parts of a key is escaped in a value, as key patterns read it.
fn escaped(text: Cow<'_, str>) -> Cow<'_, str> {
    match text.contains(['%', ':']) {
        true => text.replace('%', "%25").replace(':', "%3A").into(),
        false => text,
    }
}

/// Every text that a template stands for.
fn expand(
    template: &Template,
    data: &Value,
    spell: fn(Cow<'_, str>) -> Cow<'_, str>,
    into: &mut Vec<String>,
) -> Result<()> {
    let mut names: Vec<(&str, Vec<Cow<'_, str>>)> = Vec::new();
    for name in template.names() {
        if names.iter().all(|(known, _)| *known != name) {
            let found = texts(data, name)?;
            names.push((name, found.into_iter().map(spell).collect()));
        }
    }
    let count = names.iter().try_fold(1_usize, |count, (_, found)| count.checked_mul(found.len()));
    let count = count.filter(|count| *count <= FAN_OUT_MAX).ok_or_else(too_many)?;
    for number in 0..count {
        let mut left = number;
        let mut choice = Vec::with_capacity(names.len());
        for (name, found) in &names {
            choice.push((*name, &found[left % found.len()]));
            left /= found.len();
        }
        let chosen = |name: &str| {
            let found = choice.iter().find(|(known, _)| *known == name);
            found.map(|(_, text)| Cow::Borrowed(text.as_ref()))
        };
        // Every name has been looked up.
        into.extend(template.fill(chosen));
        if into.len() > FAN_OUT_MAX {
            return Err(too_many());
        }
    }
    Ok(())
}

/// The texts of a member.
fn texts<'d>(data: &'d Value, member: &str) -> Result<Vec<Cow<'d, str>>> {
    let missing = |message| {
        let error = Error::new(ErrorKind::InvalidInput, message).with("member", member);
        error.remedy("send it, or change the rule")
    };
    let found = values(data, member).ok_or_else(|| missing("the event lacks a member"))?;
    let text = |value: &'d Value| match value {
        Value::String(text) if !text.is_empty() => Ok(Cow::Borrowed(text.as_str())),
        Value::Number(number) => Ok(Cow::Owned(number.to_string())),
        Value::Bool(is_so) => Ok(Cow::Borrowed(if *is_so { "true" } else { "false" })),
        _ => Err(missing("a member of the event is no text, number or truth value")),
    };
    found.into_iter().map(text).collect()
}

/// What a member holds: several values where arrays are on the way. `None` if it is
/// missing anywhere.
fn values<'d>(data: &'d Value, member: &str) -> Option<Vec<&'d Value>> {
    let mut found = vec![data];
    // A member may have dots in its name.
    if let Some(value) = data.get(member) {
        return each(vec![value]);
    }
    for part in member.split('.') {
        let inner: Option<Vec<_>> = found.into_iter().map(|value| value.get(part)).collect();
        found = each(inner?)?;
    }
    Some(found)
}

/// Arrays taken apart; `None` where there are too many.
fn each(values: Vec<&Value>) -> Option<Vec<&Value>> {
    let mut flat = Vec::new();
    for value in values {
        match value {
            Value::Array(elements) => flat.extend(elements),
            value => flat.push(value),
        }
        if flat.len() > FAN_OUT_MAX {
            flat.truncate(FAN_OUT_MAX + 1);
            break;
        }
    }
    Some(flat)
}

fn too_many() -> Error {
    Error::new(ErrorKind::InvalidInput, "an event touches too many keys and tags")
        .with("most", FAN_OUT_MAX)
        .remedy("send it in parts, or invalidate a tag that they have in common")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn rule() -> EventRule {
        EventRule::on("e")
    }

    fn keys(template: &str, data: &Value) -> Result<Vec<String>> {
        let touched = rule().key(template)?.touched(data)?;
        Ok(touched.expect("it has no conditions").keys)
    }

    #[test]
    fn members_are_filled_in_wherever_they_are() {
        let data = json!({ "account": 7, "order": { "customer": { "id": "a:b%" } }, "big": true });
        assert_eq!(keys("p:{account}:{big}", &data).expect("keys"), ["p:7:true"]);
        assert_eq!(keys("c:{order.customer.id}", &data).expect("keys"), ["c:a%3Ab%25"]);
        assert_eq!(keys("all", &data).expect("keys"), ["all"]);
    }

    #[test]
    fn arrays_fan_out() {
        let data = json!({
            "members": ["ann", "bob"], "months": [1, 2],
            "lines": [{ "product": { "ids": [1, 2] } }, { "product": { "ids": [3] } }],
        });
        let made = keys("budget:{members}:{months}:{members}", &data).expect("keys");
        assert_eq!(
            made,
            ["budget:ann:1:ann", "budget:bob:1:bob", "budget:ann:2:ann", "budget:bob:2:bob"]
        );
        assert_eq!(keys("p:{lines.product.ids}", &data).expect("keys"), ["p:1", "p:2", "p:3"]);
        assert_eq!(keys("p:{none}", &json!({ "none": [] })).expect("keys"), [""; 0]);
    }

    #[test]
    fn what_is_missing_is_an_error_and_nothing_else() {
        let data = json!({ "a": null, "b": {}, "c": "", "d": [{ "e": 1 }, {}] });
        for member in ["x", "a", "b", "c", "d.e", "a.x", "d"] {
            let error = keys(&format!("k:{{{member}}}"), &data).expect_err(member);
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(member), "{error}");
        }
    }

    #[test]
    fn fanning_out_is_bounded() {
        let many: Vec<u32> = (0..FAN_OUT_MAX as u32).collect();
        let data = json!({ "many": many, "two": [1, 2] });
        assert_eq!(keys("k:{many}", &data).expect("just as many").len(), FAN_OUT_MAX);
        assert!(keys("k:{many}:{two}", &data).is_err());
        let more: Vec<u32> = (0..=FAN_OUT_MAX as u32).collect();
        assert!(keys("k:{more}", &json!({ "more": more })).is_err());
        let both = rule().key("k:{many}").and_then(|rule| rule.tag("t:{two}")).expect("a rule");
        assert!(both.touched(&data).is_err());
    }

    #[test]
    fn conditions_all_have_to_hold() {
        let rule = rule().cache("a").when("side", "buy").when("order.lots", 3);
        let holds = |data: Value| rule.touched(&data).expect("no members").is_some();
        assert!(holds(json!({ "side": "buy", "order": { "lots": 3 } })));
        assert!(!holds(json!({ "side": "sell", "order": { "lots": 3 } })));
        assert!(!holds(json!({ "side": "buy" })));
        assert!(!holds(json!(null)));
    }

    proptest! {
        #[test]
        fn no_event_panics(text in ".{0,60}", member in "[a-c.]{0,5}", key in "[a{}b.]{0,9}") {
            let data: Value = serde_json::from_str(&text).unwrap_or(json!([{ "a": text }]));
            if let Ok(rule) = rule().when(&member, 1).key(&key) {
                let _ = rule.touched(&data);
            }
            if let Ok(rule) = rule().key(&format!("{{{member}}}")) {
                let _ = rule.touched(&data);
            }
        }
    }
}
