//! Families of samples, and how they become text.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::table::{Kind, Metric};

/// The names and values of a sample's labels.
pub(super) type Labels = Vec<(&'static str, String)>;

/// The samples of one metric.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) metric: Metric,
    pub(super) samples: Vec<(Labels, Sample)>,
}

/// The two ways to write metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::admin) enum Format {
    /// The text format of Prometheus.
    Prometheus,
    /// Its successor.
    OpenMetrics,
}

impl Format {
    /// The format that an `Accept` header asks for: OpenMetrics only if it is
    /// named, and not liked less than plain text.
    pub(in crate::admin) fn accepted(accept: &str) -> Self {
        let quality = |wanted: &str| {
            let ranges = accept.split(',').map(|range| range.split(';').map(str::trim));
            let of_wanted = ranges.filter_map(|mut parts| {
                let is_wanted = parts.next()?.eq_ignore_ascii_case(wanted);
                let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok());
                is_wanted.then(|| quality.unwrap_or(1.0_f32))
            });
            of_wanted.fold(0.0, f32::max)
        };
        let open = quality("application/openmetrics-text");
        if open > 0.0 && open >= quality("text/plain") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// What the text is, for the `Content-Type` header.
    pub(in crate::admin) fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
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
pub(super) fn encode(families: Vec<Family>, format: Format) -> Result<String, fmt::Error> {
    let counters: Vec<_> = families
        .iter()
        .map(|family| family.metric)
        .filter(|metric| metric.kind == Kind::Counter)
        .collect();
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(families)));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(match format {
        Format::OpenMetrics => page,
        Format::Prometheus => without_open_metrics(&page, &counters),
    })
}

/// The older format describes a counter under the name of its samples, and has
/// no end mark.
fn without_open_metrics(page: &str, counters: &[Metric]) -> String {
    let mut text = String::with_capacity(page.len() + counters.len() * 16);
    for line in page.lines().filter(|line| *line != "# EOF") {
        let described = ["# HELP ", "# TYPE "].into_iter().find_map(|mark| {
            let (name, rest) = line.strip_prefix(mark)?.split_once(' ')?;
            let counter = counters.iter().find(|metric| metric.name == name)?;
            Some(format!("{mark}{} {rest}", counter.full_name()))
        });
        text.push_str(described.as_deref().unwrap_or(line));
        text.push('\n');
    }
    text
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        for family in &self.0 {
            let Metric { name, help, kind, .. } = family.metric;
            let metric_type = match kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut family_encoder = encoder.encode_descriptor(name, help, None, metric_type)?;
            for (labels, sample) in &family.samples {
                if labels.is_empty() {
                    encode_sample(&mut family_encoder, kind, sample)?;
                } else {
                    let mut labelled = family_encoder.encode_family(labels)?;
                    encode_sample(&mut labelled, kind, sample)?;
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
        let families = || {
            let metric = |name, help, kind| Metric { name, help, kind, labels: &["cache"] };
            vec![
                Family {
                    metric: metric("larder_loads", "Loads", Kind::Counter),
                    samples: vec![(labels(), Sample::Count(3))],
                },
                Family {
                    metric: metric("larder_load_seconds", "How long loads took", Kind::Histogram),
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
                    metric: metric("larder_up", "Up", Kind::Gauge),
                    samples: vec![(Vec::new(), Sample::Number(1.0))],
                },
            ]
        };
        let text = |format| encode(families(), format).expect("it can be written");
        insta::assert_snapshot!("families_become_text", text(Format::OpenMetrics));
        insta::assert_snapshot!("families_become_older_text", text(Format::Prometheus));
    }

    #[test]
    fn a_client_gets_the_format_that_it_asks_for() {
        for (accept, format) in [
            ("", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("text/html, */*;q=0.8", Format::Prometheus),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;\
                 version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                Format::OpenMetrics,
            ),
            ("text/plain, application/openmetrics-text;q=0.5", Format::Prometheus),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }
}
