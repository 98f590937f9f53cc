//! What the rows of a cache say about themselves: their tags, and how long they
//! hold.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use larder::{Edge, TtlByAge};
use larder_core::{Key, KeyPattern, Tags, Ttl};

use super::members::{Row, Scalar, rows};
use crate::config::template::Template;
use crate::config::{CacheOptions, TtlByAgeOptions};

/// The rules of one cache.
#[derive(Clone, Debug)]
pub(super) struct RowRules {
    pattern: KeyPattern,
    tags: Vec<Template>,
    /// What the entries are computed from.
    edges: Vec<Edge>,
    ttl: Option<(String, TtlByAge)>,
    /// The columns that tags and the TTL name: nothing else of a row is read.
    columns: Vec<String>,
}

/// What an answer says about itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Said {
    /// Its tags.
    pub(super) tags: Tags,
    /// How long it holds, if its row tells.
    pub(super) ttl: Option<Ttl>,
}

impl RowRules {
    /// The rules that the configuration states; `None` if it states none.
    pub(super) fn new(
        pattern: KeyPattern,
        options: &CacheOptions,
        edges: Vec<Edge>,
    ) -> Option<Self> {
        let tags: Vec<_> =
            options.tags.iter().filter_map(|text| Template::parse(text).ok()).collect();
        let ttl = options
            .ttl_by_age
            .as_ref()
            .and_then(|options| options.column.clone().map(|column| (column, ttl_by_age(options))));
        if tags.is_empty() && edges.is_empty() && ttl.is_none() {
            return None;
        }
        let is_parameter = |name: &&str| pattern.parameters().iter().any(|known| known == name);
        let of_edges = edges.iter().flat_map(Edge::fields).map(String::as_str);
        let of_tags = tags.iter().flat_map(Template::names).chain(of_edges);
        let of_tags = of_tags.filter(|name| !is_parameter(name));
        let of_ttl = ttl.iter().map(|(column, _)| column.as_str());
        let mut columns: Vec<_> = of_tags.chain(of_ttl).map(str::to_owned).collect();
        columns.sort_unstable();
        columns.dedup();
        Some(Self { pattern, tags, edges, ttl, columns })
    }

    /// The tags and the TTL of an answer; the value is `None` where the database
    /// has no such key. A tag with a column that is NULL or that the row lacks is
    /// left out; a list has the tags of each of its rows, and holds as long as
    /// its youngest row.
    ///
    /// # Errors
    /// Why it cannot be told. Such an answer is not to be kept: nothing would
    /// invalidate it.
    pub(super) fn read(&self, key: &Key, value: Option<&[u8]>) -> Result<Said, String> {
        let rows = match value {
            Some(text) if !self.columns.is_empty() => {
                rows(text, &self.columns).map_err(|error| error.to_string())?
            }
            _ => Vec::new(),
        };
        Ok(Said { tags: self.tags(key, &rows)?, ttl: self.ttl(&rows) })
    }

    fn tags(&self, key: &Key, rows: &[Row<'_>]) -> Result<Tags, String> {
        let parameters = std::str::from_utf8(key.as_bytes())
            .ok()
            .and_then(|key| self.pattern.match_key(key))
            .ok_or("the key does not match the pattern")?;
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
            for row in rows {
                let column = |name: &str| Some(Cow::Borrowed(self.member(row, name)?.as_str()));
                tags.extend(template.fill(|name| parameter(name).or_else(|| column(name))));
            }
        }
        for edge in &self.edges {
            let text = |value: Cow<'_, str>| value.into_owned();
            if rows.is_empty() {
                tags.extend(edge.tag_of(|name| parameter(name).map(text)));
            }
            for row in rows {
                let column = |name: &str| Some(self.member(row, name)?.as_str().to_owned());
                tags.extend(edge.tag_of(|name| parameter(name).map(text).or_else(|| column(name))));
            }
        }
        Ok(Tags::new(tags))
    }

    fn ttl(&self, rows: &[Row<'_>]) -> Option<Ttl> {
        let (column, rule) = self.ttl.as_ref()?;
        let now = Timestamp::now();
        let ages = rows.iter().filter_map(|row| age(self.member(row, column)?, now));
        ages.min().map(|age| rule.ttl_at(age))
    }

    fn member<'r, 'v>(&self, row: &'r Row<'v>, column: &str) -> Option<&'r Scalar<'v>> {
        let index = self.columns.iter().position(|known| known == column)?;
        row[index].as_ref()
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

/// Larger numbers are milliseconds since 1970: as seconds they would lie in
/// the year 5138.
const SECONDS_MAX: f64 = 1e11;

/// How long ago a column's moment was; zero for one that is yet to come. A time
/// without a zone is taken as UTC.
fn age(value: &Scalar<'_>, now: Timestamp) -> Option<Duration> {
    let moment = match value {
        Scalar::Text(text) => moment(text)?,
        Scalar::Bare(number) => {
            let number: f64 = number.parse().ok()?;
            let seconds = if number.abs() > SECONDS_MAX { number / 1e3 } else { number };
            Timestamp::from_second(seconds as i64).ok()?
        }
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
        RowRules::new("album:{id}".parse().expect("a pattern"), &options, Vec::new())
            .expect("there are some")
    }

    fn tags(rules: &RowRules, value: Option<&str>) -> Vec<String> {
        let said = rules.read(&Key::new("album:7"), value.map(str::as_bytes)).expect("it tells");
        said.tags.iter().map(|tag| tag.as_str().to_owned()).collect()
    }

    fn ttl(rules: &RowRules, value: &str) -> Option<Ttl> {
        rules.read(&Key::new("album:7"), Some(value.as_bytes())).expect("it tells").ttl
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
    fn what_else_a_row_holds_loses_no_tag() {
        let rules = rules("tags = ['artist:{artist_id}']\nttl_by_age = { column = 'at' }");
        let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
        for odd in ["1e400", "-1E+99999", "123456789012345678901234567890", &deep] {
            for row in [
                format!(r#"{{"doc": {odd}, "artist_id": 3, "at": "2020-01-01"}}"#),
                format!(r#"{{"at": "2020-01-01", "artist_id": "3", "doc": {{"x": {odd}}}}}"#),
            ] {
                for text in [row.clone(), format!(r#"[{{"artist_id": null}}, {row}]"#)] {
                    let shown = &text[..text.len().min(80)];
                    assert_eq!(tags(&rules, Some(&text)), ["artist:3"], "{shown}");
                    assert_eq!(ttl(&rules, &text), Some(Ttl::secs(86_400)), "{shown}");
                }
            }
        }
    }

    #[test]
    fn names_may_be_escaped_and_the_last_of_a_name_counts() {
        let rules = rules("tags = ['is:{ü\"b}']");
        assert_eq!(tags(&rules, Some(r#"{"\u00fc\"b": "a\nb"}"#)), ["is:a\nb"]);
        assert_eq!(tags(&rules, Some(r#"{"ü\"b": 1, "x": 5, "ü\"b": 2.50}"#)), ["is:2.50"]);
        assert_eq!(tags(&rules, Some(r#"{"ü\"b": 1, "ü\"b": null}"#)), [] as [&str; 0]);
        assert_eq!(tags(&rules, Some(r#"{"ü\"b": [1]}"#)), [] as [&str; 0]);
        assert_eq!(tags(&rules, Some(r#"{"ü\"b": true}"#)), ["is:true"]);
        assert_eq!(tags(&rules, Some("[]")), [] as [&str; 0]);
    }

    #[test]
    fn what_does_not_tell_is_an_error() {
        let rules = rules("tags = ['all', 'artist:{artist_id}']");
        for text in [
            r#"{"artist_id": "\ud800"}"#,
            r#"{"artist_id": 1"#,
            r#"{"artist_id": 1} x"#,
            "5",
            "[[]]",
            "",
        ] {
            let said = rules.read(&Key::new("album:7"), Some(text.as_bytes()));
            assert!(said.is_err(), "{text}: {said:?}");
        }
        assert!(rules.read(&Key::new("song:7"), None).is_err(), "it is not of this cache");
    }

    #[test]
    fn a_ttl_follows_the_age_of_the_row() {
        let rules = rules("ttl_by_age = { column = 'at' }");
        let ttl = |at: String| ttl(&rules, &format!("{{\"at\": {at}}}"));
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
        let ttl = |at: &str| ttl(&rules, &format!("{{\"at\": \"{at}\"}}"));
        assert_eq!(ttl("2020-01-01"), Some(Ttl::Forever));
        let minute_ago = Timestamp::now() - jiff::SignedDuration::from_mins(1);
        assert_eq!(ttl(&minute_ago.to_string()), Some(Ttl::secs(30)));
    }
}
