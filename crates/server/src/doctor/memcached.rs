//! The memcached servers: what the adapter's own probe finds.

use larder_memcached::{Severity, probe};

use super::{Finding, Level};
use crate::config::Settings;
use crate::serve::shared_tiers::memcached_options;

pub(super) async fn look(settings: &Settings) -> Vec<Finding> {
    let options = match memcached_options(settings) {
        Ok(None) => return Vec::new(),
        Ok(Some(options)) => options,
        Err(error) => return vec![Finding::failure("memcached", "?", "configuration", &error)],
    };
    match probe(&options).await {
        Ok(found) => found.into_iter().map(Finding::from).collect(),
        Err(error) => vec![Finding::failure("memcached", "?", "configuration", &error)],
    }
}

impl From<larder_memcached::Finding> for Finding {
    fn from(found: larder_memcached::Finding) -> Self {
        let level = match found.severity {
            Severity::Good => Level::Fine,
            Severity::Warning => Level::Warning,
            _ => Level::Failure,
        };
        let at = found.server.to_string();
        let finding = Self::new("memcached", at, found.subject, level, found.message);
        Self { remedy: found.remedy, ..finding }
    }
}
