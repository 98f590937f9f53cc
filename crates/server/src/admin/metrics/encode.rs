//! Families of samples, and how they become text.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

/// The names and values of a sample's labels.
pub(super) type Labels = Vec<(&'static str, String)>;

/// The samples of one name.
#[derive(Debug)]
pub(super) struct Family {
    /// With its unit, without `_total`.
    pub(super) name: &'static str,
    /// One sentence, without its full stop.
    pub(super) help: &'static str,
    pub(super) kind: Kind,
    pub(super) samples: Vec<(Labels, Sample)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper bounds.
    Histogram,
}

#[derive(Debug)]
pub(super) enum Sample {
    Count(u64),
    Number(f64),
    Distribution {
        sum: f64,
        count: u64,
        /// How many lie in each bucket, by its upper bound; the last has none.
        buckets: Vec<(f64, u64)>,
    },
}

/// The families as text.
pub(super) fn encode(families: Vec<Family>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(families)));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(page)
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        for family in &self.0 {
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut family_encoder =
                encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for (labels, sample) in &family.samples {
                if labels.is_empty() {
                    encode_sample(&mut family_encoder, family.kind, sample)?;
                } else {
                    let mut labelled = family_encoder.encode_family(labels)?;
                    encode_sample(&mut labelled, family.kind, sample)?;
                }
            }
        }
        Ok(())
    }
}

fn encode_sample(
    encoder: &mut MetricEncoder<'_>,
    kind: Kind,
    sample: &Sample,
) -> Result<(), fmt::Error> {
    match (kind, sample) {
        (Kind::Counter, Sample::Count(count)) => {
            encoder.encode_counter::<NoLabelSet, _, u64>(count, None)
        }
        (Kind::Counter, Sample::Number(number)) => {
            encoder.encode_counter::<NoLabelSet, _, u64>(number, None)
        }
        (_, Sample::Count(count)) => encoder.encode_gauge(&(*count as f64)),
        (_, Sample::Number(number)) => encoder.encode_gauge(number),
        (_, Sample::Distribution { sum, count, buckets }) => {
            encoder.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_become_text() {
        let labels = || vec![("cache", "a\"b".to_owned())];
        let text = encode(vec![
            Family {
                name: "larder_loads",
                help: "Loads",
                kind: Kind::Counter,
                samples: vec![(labels(), Sample::Count(3))],
            },
            Family {
                name: "larder_load_seconds",
                help: "How long loads took",
                kind: Kind::Histogram,
                samples: vec![(
                    labels(),
                    Sample::Distribution {
                        sum: 1.5,
                        count: 3,
                        buckets: vec![(0.5, 2), (f64::INFINITY, 1)],
                    },
                )],
            },
            Family {
                name: "larder_up",
                help: "Up",
                kind: Kind::Gauge,
                samples: vec![(Vec::new(), Sample::Number(1.0))],
            },
        ]);
        insta::assert_snapshot!(text.expect("it can be written"));
    }
}
