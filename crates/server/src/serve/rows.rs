//! What the rows of a cache say about themselves: their tags, and how long they
//! hold.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use larder::TtlByAge;
use larder_core::{Key, KeyPattern, Tags, Ttl};
use serde_json::Value;

use crate::config::template::Template;
use crate::config::{CacheOptions, TtlByAgeOptions};

/// The rules of one cache.
#[derive(Clone, Debug)]
pub(crate) struct RowRules {
    pattern: KeyPattern,
    tags: Vec<Template>,
    /// Whether a tag names a column, so that the row must be read.
    tags_need_row: bool,
    ttl: Option<(String, TtlByAge)>,
}

impl RowRules {
    /// The rules that the configuration states.
    pub(crate) fn new(pattern: KeyPattern, options: &CacheOptions) -> Self {
        let tags: Vec<_> =
            options.tags.iter().filter_map(|text| Template::parse(text).ok()).collect();
        let is_parameter = |name: &str| pattern.parameters().iter().any(|known| known == name);
        let tags_need_row = tags.iter().flat_map(Template::names).any(|name| !is_parameter(name));
        let ttl = options
            .ttl_by_age
            .as_ref()
            .and_then(|options| options.column.clone().map(|column| (column, ttl_by_age(options))));
        Self { pattern, tags, tags_need_row, ttl }
    }

    /// Whether there are tags at all.
    pub(crate) fn has_tags(&self) -> bool {
        !self.tags.is_empty()
    }

    /// Whether there is a rule for the TTL.
    pub(crate) fn has_ttl(&self) -> bool {
        self.ttl.is_some()
    }

    /// The tags of an entry. A tag with a column that is NULL or that the row
    /// lacks is left out; a list has the tags of each of its rows.
    pub(crate) fn tags(&self, key: &Key, value: Option<&Bytes>) -> Tags {
        let Ok(key) = std::str::from_utf8(key.as_bytes()) else { return Tags::NONE };
        let Some(parameters) = self.pattern.match_key(key) else { return Tags::NONE };
        let rows = match value {
            Some(bytes) if self.tags_need_row => rows(bytes),
            _ => Vec::new(),
        };
        let names = self.pattern.parameters();
        let parameter = |name: &str| {
            let index = names.iter().position(|known| known == name)?;
            Some(Cow::Borrowed(parameters[index].as_ref()))
        };
        let mut tags = Vec::new();
        for template in &self.tags {
            if rows.is_empty() {
                tags.extend(template.fill(parameter));
            }
            for row in &rows {
                tags.extend(template.fill(|name| parameter(name).or_else(|| text(row.get(name)?))));
            }
        }
        Tags::new(tags)
    }

    /// How long an entry holds by the age of its row, of a list by that of its
    /// youngest row; `None` where the row does not tell.
    pub(crate) fn ttl(&self, value: &Bytes) -> Option<Ttl> {
        let (column, rule) = self.ttl.as_ref()?;
        let now = Timestamp::now();
        let ages = rows(value).into_iter().filter_map(|row| age(row.get(column)?, now));
        ages.min().map(|age| rule.ttl_at(age))
    }
}

fn ttl_by_age(options: &TtlByAgeOptions) -> TtlByAge {
    let default = TtlByAge::default();
    let beyond = options.beyond.map_or_else(|| default.ttl_at(Duration::MAX), |ttl| ttl.0);
    match &options.rules {
        Some(rules) => TtlByAge::new(rules.iter().map(|rule| (rule.under.0, rule.ttl.0)), beyond),
        None if options.beyond.is_none() => default,
        None => {
            const HOUR: Duration = Duration::from_secs(3600);
            let steps = [HOUR, HOUR * 24, HOUR * 24 * 7];
            let just_under = |step: Duration| step - Duration::from_nanos(1);
            TtlByAge::new(steps.map(|step| (step, default.ttl_at(just_under(step)))), beyond)
        }
    }
}

/// The rows of a value: one object, or a list of them.
fn rows(bytes: &Bytes) -> Vec<Value> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Array(rows)) => rows,
        Ok(row) => vec![row],
        Err(_) => Vec::new(),
    }
}

fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(is) => Some(Cow::Borrowed(if *is { "true" } else { "false" })),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Larger numbers are milliseconds since 1970: as seconds they would lie in
/// the year 5138.
const SECONDS_MAX: f64 = 1e11;

/// How long ago a column's moment was; zero for one that is yet to come. A time
/// without a zone is taken as UTC.
fn age(value: &Value, now: Timestamp) -> Option<Duration> {
    let moment = match value {
        Value::String(text) => moment(text)?,
        Value::Number(number) => {
            let number = number.as_f64()?;
            let seconds = if number.abs() > SECONDS_MAX { number / 1e3 } else { number };
            Timestamp::from_second(seconds as i64).ok()?
        }
        _ => return None,
    };
    Some(Duration::try_from(now.duration_since(moment)).unwrap_or(Duration::ZERO))
}

fn moment(text: &str) -> Option<Timestamp> {
    let utc = |time: DateTime| time.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp());
    text.parse::<Timestamp>()
        .or_else(|_| text.parse::<DateTime>().and_then(utc))
        .or_else(|_| {
            text.parse::<Date>()
                .and_then(|date| utc(date.to_datetime(jiff::civil::Time::midnight())))
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(options: &str) -> RowRules {
        let options: CacheOptions = toml::from_str(options).expect("options");
        RowRules::new("album:{id}".parse().expect("a pattern"), &options)
    }

    fn tags(rules: &RowRules, value: Option<&str>) -> Vec<String> {
        let value = value.map(|text| Bytes::from(text.to_owned()));
        let tags = rules.tags(&Key::new("album:7"), value.as_ref());
        tags.iter().map(|tag| tag.as_str().to_owned()).collect()
    }

    #[test]
    fn tags_come_from_key_and_row() {
        let rules = rules("tags = ['album:{id}', 'artist:{artist_id}', 'all']");
        assert_eq!(
            tags(&rules, Some(r#"{"id": 7, "artist_id": "miles"}"#)),
            ["album:7", "all", "artist:miles"]
        );
        assert_eq!(tags(&rules, Some(r#"{"artist_id": null}"#)), ["album:7", "all"]);
        assert_eq!(tags(&rules, None), ["album:7", "all"], "an absent row has no columns");
        assert_eq!(
            tags(&rules, Some(r#"[{"artist_id": 1}, {"artist_id": 2}, {"artist_id": 1}]"#)),
            ["album:7", "all", "artist:1", "artist:2"]
        );
    }

    #[test]
    fn a_ttl_follows_the_age_of_the_row() {
        let rules = rules("ttl_by_age = { column = 'at' }");
        let ttl = |at: String| rules.ttl(&Bytes::from(format!("{{\"at\": {at}}}")));
        let ago = |seconds: i64| Timestamp::now() - jiff::SignedDuration::from_secs(seconds);
        assert_eq!(ttl(format!("\"{}\"", ago(60))), Some(Ttl::secs(30)));
        assert_eq!(ttl(ago(7200).as_second().to_string()), Some(Ttl::secs(300)));
        assert_eq!(ttl(ago(7200).as_millisecond().to_string()), Some(Ttl::secs(300)));
        assert_eq!(ttl("\"2025-01-01 10:00:00\"".into()), Some(Ttl::secs(86_400)));
        assert_eq!(ttl("\"2025-01-01T10:00:00+02:00\"".into()), Some(Ttl::secs(86_400)));
        assert_eq!(ttl("\"2025-01-01\"".into()), Some(Ttl::secs(86_400)));
        assert_eq!(ttl("\"9999-01-01\"".into()), Some(Ttl::secs(30)));
        assert_eq!(ttl("null".into()), None);
        assert_eq!(ttl("\"soon\"".into()), None);
    }

    #[test]
    fn rules_may_replace_the_default_ones_in_part() {
        let rules = rules("ttl_by_age = { column = 'at', beyond = 'forever' }");
        let ttl = |at: &str| rules.ttl(&Bytes::from(format!("{{\"at\": \"{at}\"}}")));
        assert_eq!(ttl("2020-01-01"), Some(Ttl::Forever));
        let minute_ago = Timestamp::now() - jiff::SignedDuration::from_mins(1);
        assert_eq!(ttl(&minute_ago.to_string()), Some(Ttl::secs(30)));
    }
}
