//! The policy of a cache, option by option, with where each value comes from:
//! the cache over the command line over `[defaults]` over what is built in.

use larder::Policy;
use larder_core::{Class, Error, Ttl};
use serde::Serialize;

use super::{
    CacheOptions, ClassName, Config, DurationText, OptionalDuration, OptionalNumber, OptionalShare,
    PolicyOptions, Share, TtlText,
};

/// Where a value comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// Nobody set it.
    BuiltIn,
    /// `[defaults]` of the file.
    Defaults,
    /// A flag or an environment variable.
    CommandLine,
    /// `[caches.NAME]` of the file.
    Cache,
}

/// One option of an effective policy.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Setting {
    /// The option's name.
    pub option: &'static str,
    /// Its value as the configuration writes it.
    pub value: String,
    /// Where the value comes from.
    pub from: Layer,
    /// The class whose TTL this is, if it was given by class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
}

/// What a cache promises, every option decided.
#[derive(Clone, PartialEq, Debug)]
pub struct EffectivePolicy {
    options: PolicyOptions,
    /// Every option with where it comes from, in the order of the reference.
    pub settings: Vec<Setting>,
}

/// The policy of a cache; of one without an entry in the file if `cache` is
/// `None`.
#[must_use]
pub fn resolve(
    config: &Config,
    cache: Option<&str>,
    command_line: Option<&PolicyOptions>,
) -> EffectivePolicy {
    let own = cache.and_then(|name| config.caches.get(name)).map(CacheOptions::policy);
    let layers = [
        (Layer::Cache, own),
        (Layer::CommandLine, command_line.cloned()),
        (Layer::Defaults, Some(config.defaults.clone())),
        (Layer::BuiltIn, Some(built_in())),
    ];
    let mut options = PolicyOptions::default();
    let mut settings: Vec<Setting> = Vec::new();
    for (layer, given) in layers {
        let Some(given) = given else { continue };
        let class = given.ttl_class;
        let given = by_class(given);
        for (option, value) in given.set() {
            if settings.iter().all(|setting| setting.option != option) {
                let class = class.filter(|_| option == "ttl").map(|class| class.to_string());
                settings.push(Setting { option, value, from: layer, class });
            }
        }
        options = options.over(&given);
    }
    let place =
        |setting: &Setting| PolicyOptions::NAMES.iter().position(|name| *name == setting.option);
    settings.sort_by_key(place);
    EffectivePolicy { options, settings }
}

impl EffectivePolicy {
    /// The policy as the engine takes it.
    pub fn to_policy(&self) -> Policy {
        // Every option is set: the lowest layer sets them all, a test holds it to that.
        let options = &self.options;
        let duration = |option: Option<OptionalDuration>| option.and_then(|text| text.0);
        Policy::ttl(self.ttl())
            .negative_ttl(duration(options.negative_ttl))
            .idle_ttl(duration(options.idle_ttl))
            .sliding(options.sliding.unwrap_or_default())
            .max_age(duration(options.max_age))
            .jitter(options.jitter.map_or(0.0, |share| share.0))
            .refresh_ahead(options.refresh_ahead.and_then(|share| share.0))
            .early_refresh_beta(options.early_refresh_beta.and_then(|beta| beta.0))
            .stale_while_revalidate(duration(options.stale_while_revalidate).unwrap_or_default())
            .stale_if_error(duration(options.stale_if_error).unwrap_or_default())
            .soft_timeout(options.soft_timeout.map_or_else(Default::default, |text| text.0))
            .hard_timeout(options.hard_timeout.map_or_else(Default::default, |text| text.0))
            .class(self.class())
    }

    /// How long answers are fresh.
    #[must_use]
    pub fn ttl(&self) -> Ttl {
        self.options.ttl.map_or(Ttl::Forever, |text| text.0)
    }

    /// How sensitive the data is.
    #[must_use]
    pub fn class(&self) -> Class {
        self.options.class.map_or(Class::Public, |name| name.0)
    }

    /// The options as a file would state them.
    #[must_use]
    pub fn options(&self) -> &PolicyOptions {
        &self.options
    }
}

/// What holds where nobody says otherwise: the engine's own defaults.
fn built_in() -> PolicyOptions {
    use std::time::Duration;
    PolicyOptions {
        ttl: Some(TtlText(Ttl::secs(300))),
        ttl_class: None,
        negative_ttl: Some(OptionalDuration(Some(Duration::from_secs(10)))),
        idle_ttl: Some(OptionalDuration(None)),
        sliding: Some(false),
        max_age: Some(OptionalDuration(None)),
        jitter: Some(Share(0.1)),
        refresh_ahead: Some(OptionalShare(None)),
        early_refresh_beta: Some(OptionalNumber(Some(1.0))),
        stale_while_revalidate: Some(OptionalDuration(None)),
        stale_if_error: Some(OptionalDuration(None)),
        soft_timeout: Some(DurationText(Duration::from_millis(200))),
        hard_timeout: Some(DurationText(Duration::from_secs(5))),
        class: Some(ClassName(Class::Public)),
    }
}

/// The TTL of the class, where a layer names a class: in higher layers either
/// one replaces what lower layers say of the other.
fn by_class(mut options: PolicyOptions) -> PolicyOptions {
    if let Some(class) = options.ttl_class.take() {
        options.ttl.get_or_insert(TtlText(Ttl::from(class.0)));
    }
    options
}

/// Which option an error of the engine's is about.
#[must_use]
pub fn option_of(error: &Error) -> Option<&'static str> {
    let named = |text: &str| {
        PolicyOptions::NAMES.iter().copied().find(|name| {
            text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == *name)
        })
    };
    error
        .context()
        .find_map(|(name, value)| if name == "option" { named(value) } else { named(name) })
        .or_else(|| named(error.message()))
        .or_else(|| named(error.remedy_text().unwrap_or_default()))
}

/// The error's text up to its remedy, without the cache's name.
#[must_use]
pub fn without_remedy(error: &Error) -> String {
    let values: Vec<_> = error
        .context()
        .filter(|(name, _)| !matches!(*name, "cache" | "option"))
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    if values.is_empty() {
        return error.message().to_owned();
    }
    format!("{} ({})", error.message(), values.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Source, parse};

    #[test]
    fn without_a_word_in_the_file_the_engines_defaults_hold() {
        let effective = resolve(&Config::default(), None, None);
        assert_eq!(effective.to_policy(), Policy::default());
        // Every option but the class of the TTL, which the TTL stands for.
        assert_eq!(effective.settings.len(), PolicyOptions::NAMES.len() - 1);
        assert!(effective.settings.iter().all(|setting| setting.from == Layer::BuiltIn));
    }

    #[test]
    fn the_nearer_layer_wins() {
        let text = "[defaults]\nttl = '1m'\nstale_if_error = '2h'\njitter = 0.2\n\
                    [caches.a]\nttl_class = 'static'\nstale_if_error = 'off'\n";
        let source = Source { name: "x".into(), text: text.into() };
        let config = parse(&source).config;
        let flags = PolicyOptions { jitter: Some(Share(0.3)), ..PolicyOptions::default() };
        let effective = resolve(&config, Some("a"), Some(&flags));
        let setting = |option: &str| {
            let setting = effective.settings.iter().find(|setting| setting.option == option);
            setting.expect("every option is set").clone()
        };
        assert_eq!((setting("ttl").value.as_str(), setting("ttl").from), ("1h", Layer::Cache));
        assert_eq!(setting("ttl").class.as_deref(), Some("static"));
        assert_eq!(setting("stale_if_error").value, "off");
        assert_eq!(
            (setting("jitter").value.as_str(), setting("jitter").from),
            ("30%", Layer::CommandLine)
        );
        assert_eq!(resolve(&config, None, None).ttl(), Ttl::secs(60));
    }
}
