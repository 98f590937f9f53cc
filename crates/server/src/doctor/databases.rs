//! The databases: reachable, version, what they allow.

use std::time::Instant;

use futures_util::future::join_all;

use super::{Finding, Level, shown};
use crate::config::{OriginOptions, Settings};
use crate::serve::connect::open;
use crate::serve::{OpenOrigin, PlannedSource, plan};

pub(super) async fn look(settings: &Settings) -> Vec<Finding> {
    let origins = settings.config.origins.iter();
    let looks = origins.map(|(name, options)| look_at(settings, name, options));
    join_all(looks).await.into_iter().flatten().collect()
}

async fn look_at(settings: &Settings, name: &str, options: &OriginOptions) -> Vec<Finding> {
    let began = Instant::now();
    let opened = open(name, options, settings.config.server.value_size_max.0).await;
    let (origin, found) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let mut finding = Finding::failure("database", name, "reachable", &error);
            finding.remedy.get_or_insert_with(|| crate::serve::connect::REMEDY.to_owned());
            return vec![finding];
        }
    };
    let at = format!("{name} ({})", origin.database.label());
    let message = format!("connected and read its catalogue in {}", shown(began.elapsed()));
    let mut findings = vec![Finding::fine("database", &at, "reachable", message)];
    findings.push(match origin.database.server_version().await {
        Ok(version) => Finding::fine("database", &at, "version", version),
        Err(error) => Finding::failure("database", &at, "version", &error),
    });
    let tables = found.introspection.tables.len();
    let plan = plan(settings, std::slice::from_ref(&found));
    let caches = plan.caches.iter().filter(|cache| cache.origin == name);
    let (mut queries, mut wrong) = (0, Vec::new());
    for cache in caches {
        let PlannedSource::Query(query) = &cache.source else { continue };
        queries += 1;
        if let Err(error) = origin.database.query_origin((**query).clone()).await {
            wrong.push(Finding {
                message: format!("the query of `{}`: {error}", cache.name),
                ..Finding::failure("database", &at, "queries", &error)
            });
        }
    }
    findings.push(tables_found(&at, tables));
    if queries > 0 && wrong.is_empty() {
        let message = format!("{queries} prepared, none is refused");
        findings.push(Finding::fine("database", &at, "queries", message));
    }
    findings.extend(wrong);
    findings.push(round_trip(&at, &origin).await);
    origin.database.close().await;
    findings
}

fn tables_found(at: &str, tables: usize) -> Finding {
    let message = format!("{tables} that can be served by their key");
    match tables {
        0 => Finding::new("database", at, "tables", Level::Warning, message)
            .remedy("see that the user may read tables, and that they have primary keys"),
        _ => Finding::fine("database", at, "tables", message),
    }
}

async fn round_trip(at: &str, origin: &OpenOrigin) -> Finding {
    let began = Instant::now();
    match origin.database.ping().await {
        Ok(()) => Finding::fine("database", at, "round trip", shown(began.elapsed())),
        Err(error) => Finding::failure("database", at, "round trip", &error),
    }
}
