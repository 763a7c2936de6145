//! The text formats: Prometheus 0.0.4 and OpenMetrics 1.0.0.
//!
//! Written here and not with `prometheus-client`, which knows OpenMetrics only. The Pushgateway, textfile
//! collectors and `promtool check metrics` refuse OpenMetrics (its exemplars and its type `info`), so the
//! format that matters most would have to be had by editing that crate's output line by line, and its
//! registry wants live counters to increment where we have one record and a list of samples. Two formats
//! that differ in five places are less code as one encoder than as one encoder and a text filter.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::catalogue::{self, BUCKETS_SECONDS, Metric, Type};
use super::samples::{Exemplar, Histogram, Sample, Value};

/// Which text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For textfile collectors, the Pushgateway, and scrapers that ask for nothing better. No exemplars.
    Prometheus,
    /// For scrapers that ask for it. Carries exemplars.
    OpenMetrics,
}

impl Format {
    /// The value of the `Content-Type` header.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The samples as text. Samples of one metric stand together under its help and type.
#[must_use]
pub fn encode(samples: &[Sample], format: Format) -> String {
    let mut text = String::new();
    for metric in catalogue::ALL {
        let mut of_metric = samples
            .iter()
            .filter(|sample| sample.metric.name == metric.name)
            .peekable();
        if of_metric.peek().is_some() {
            head(&mut text, metric, format);
        }
        for sample in of_metric {
            lines(&mut text, sample, format);
        }
    }
    if format == Format::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

/// Goes on from what an earlier run left: counters and histograms add up, and the two gauges that a run
/// may have no news of ([`super::samples::samples`]) keep their value.
///
/// `previous` is the text that [`encode`] wrote in [`Format::Prometheus`]; lines that are none of ours are
/// ignored. Series of another chain or target, and of hops that the chain no longer has, are not carried on.
#[must_use]
pub fn continued(mut samples: Vec<Sample>, previous: &str) -> Vec<Sample> {
    let before: HashMap<&str, f64> = previous
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(series, value)| Some((series, value.parse().ok()?)))
        .filter(|(_, value): &(_, f64)| value.is_finite())
        .collect();
    let number = |series: String| before.get(series.as_str()).copied();
    let whole = |series: String| number(series).map_or(0, |value| value.max(0.0) as u64);
    for sample in &mut samples {
        let (metric, labels) = (sample.metric, &sample.labels);
        match &mut sample.value {
            Value::Gauge(_) => {}
            Value::Counter(now) => {
                *now = now.saturating_add(whole(series(metric, "", labels, None)));
            }
            Value::Histogram(now) => {
                let mut below = 0;
                for (bucket, bound) in bounds().enumerate() {
                    let cumulative = whole(series(metric, "_bucket", labels, Some(&bound)));
                    let own = cumulative.saturating_sub(below);
                    now.buckets[bucket] = now.buckets[bucket].saturating_add(own);
                    below = below.max(cumulative);
                }
                now.sum += number(series(metric, "_sum", labels, None)).unwrap_or(0.0);
            }
        }
    }
    let Some(run) = samples
        .iter()
        .find(|sample| sample.metric == &catalogue::LAST_RUN_TIMESTAMP)
    else {
        return samples;
    };
    let labels = run.labels.clone();
    for metric in [&catalogue::LAST_RUN_SUCCESS, &catalogue::LAST_SUCCESS_TIMESTAMP] {
        let missing = !samples.iter().any(|sample| sample.metric == metric);
        if let Some(kept) = number(series(metric, "", &labels, None)).filter(|_| missing) {
            samples.push(Sample {
                metric,
                labels: labels.clone(),
                value: Value::Gauge(kept),
            });
        }
    }
    samples
}

fn head(text: &mut String, metric: &Metric, format: Format) {
    // OpenMetrics names the family without the suffix that its type implies; 0.0.4 types samples by their
    // exact name and knows no infos.
    let (family, kind) = match (format, metric.kind) {
        (Format::OpenMetrics, Type::Counter) => (metric.name.trim_end_matches("_total"), "counter"),
        (Format::OpenMetrics, Type::Info) => (metric.name.trim_end_matches("_info"), "info"),
        (Format::Prometheus, Type::Counter) => (metric.name, "counter"),
        (Format::Prometheus, Type::Info) | (_, Type::Gauge) => (metric.name, "gauge"),
        (_, Type::Histogram) => (metric.name, "histogram"),
    };
    // Writing to a String cannot fail; the results of `write!` are dropped for that reason.
    let _ = writeln!(text, "# HELP {family} {}", metric.help);
    let _ = writeln!(text, "# TYPE {family} {kind}");
    if let (Format::OpenMetrics, Some(unit)) = (format, metric.unit) {
        let _ = writeln!(text, "# UNIT {family} {unit}");
    }
}

fn lines(text: &mut String, sample: &Sample, format: Format) {
    let (metric, labels) = (sample.metric, &sample.labels);
    match &sample.value {
        Value::Gauge(value) => {
            let _ = writeln!(text, "{} {value}", series(metric, "", labels, None));
        }
        Value::Counter(value) => {
            let _ = writeln!(text, "{} {value}", series(metric, "", labels, None));
        }
        Value::Histogram(histogram) => {
            histogram_lines(text, metric, labels, histogram, format);
        }
    }
}

fn histogram_lines(text: &mut String, metric: &Metric, labels: &[String], now: &Histogram, format: Format) {
    let mut cumulative = 0_u64;
    for (bucket, bound) in bounds().enumerate() {
        cumulative = cumulative.saturating_add(now.buckets[bucket]);
        let exemplar = now.exemplars[bucket]
            .as_ref()
            .filter(|_| format == Format::OpenMetrics)
            .map(exemplar)
            .unwrap_or_default();
        let name = series(metric, "_bucket", labels, Some(&bound));
        let _ = writeln!(text, "{name} {cumulative}{exemplar}");
    }
    let _ = writeln!(text, "{} {}", series(metric, "_sum", labels, None), now.sum);
    let _ = writeln!(text, "{} {cumulative}", series(metric, "_count", labels, None));
}

fn exemplar(exemplar: &Exemplar) -> String {
    format!(
        " # {{trace_id=\"{}\"}} {} {:.3}",
        escape(&exemplar.trace_id),
        exemplar.value,
        exemplar.timestamp
    )
}

/// The values of `le`. Written as OpenMetrics asks (`1.0`) in both formats: a series must not change its
/// name with the scraper's `Accept` header.
fn bounds() -> impl Iterator<Item = String> {
    BUCKETS_SECONDS
        .iter()
        .map(|bound| format!("{bound:?}"))
        .chain(std::iter::once("+Inf".to_owned()))
}

/// Name and labels of one line.
fn series(metric: &Metric, suffix: &str, labels: &[String], le: Option<&str>) -> String {
    let pairs: Vec<String> = metric
        .labels
        .iter()
        .zip(labels)
        .map(|(name, value)| format!("{name}=\"{}\"", escape(value)))
        .chain(le.map(|bound| format!("le=\"{bound}\"")))
        .collect();
    format!("{}{suffix}{{{}}}", metric.name, pairs.join(","))
}

/// A label's value: both formats escape the backslash, the quote and the newline.
fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '\\' => escaped.push_str("\\\\"),
            '"' => escaped.push_str("\\\""),
            '\n' => escaped.push_str("\\n"),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unescape(escaped: &str) -> String {
        let mut value = String::new();
        let mut characters = escaped.chars();
        while let Some(character) = characters.next() {
            match character {
                '\\' => match characters.next() {
                    Some('n') => value.push('\n'),
                    Some(other) => value.push(other),
                    None => panic!("a backslash that escapes nothing: {escaped:?}"),
                },
                '"' | '\n' => panic!("unescaped {character:?} in {escaped:?}"),
                other => value.push(other),
            }
        }
        value
    }

    fn sample(target: &str) -> Sample {
        Sample {
            metric: &catalogue::LAST_RUN_SUCCESS,
            labels: vec!["chain".into(), target.into()],
            value: Value::Gauge(1.0),
        }
    }

    proptest! {
        #[test]
        fn a_label_value_survives_whatever_it_holds(value in any::<String>()) {
            prop_assert_eq!(unescape(&escape(&value)), value);
        }

        #[test]
        fn a_label_value_cannot_forge_a_line(target in any::<String>()) {
            let text = encode(&[sample(&target)], Format::Prometheus);
            prop_assert_eq!(text.matches('\n').count(), 3, "{}", text);
        }
    }
}
