//! The text formats: Prometheus 0.0.4 and OpenMetrics 1.0.0.
//!
//! Written here and not with `prometheus-client`, which knows OpenMetrics only. The Pushgateway, textfile
//! collectors and `promtool check metrics` refuse OpenMetrics (its exemplars and its type `info`), so the
//! format that matters most would have to be had by editing that crate's output line by line, and its
//! registry wants live counters to increment where we have one record and a list of samples. Two formats
//! that differ in five places are less code as one encoder than as one encoder and a text filter.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::accumulate::{self, Before};
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

/// Goes on from what an earlier run left, in a file of ours or in a Pushgateway: [`accumulate::continued`].
///
/// `previous` is the text that [`encode`] wrote in [`Format::Prometheus`], or the same series as another program
/// writes them (labels in another order and more of them, `le="1"` for `le="1.0"`); lines that are none of ours
/// are ignored.
#[must_use]
pub fn continued(samples: Vec<Sample>, previous: &str) -> Vec<Sample> {
    accumulate::continued(samples, &Parsed::read(previous))
}

/// Series of an earlier text, by name, labels and bound.
struct Parsed(HashMap<(String, Vec<String>, Option<u64>), f64>);

impl Parsed {
    fn read(text: &str) -> Self {
        let lines = text.lines().filter_map(parse_line);
        Self(lines.filter(|(_, value)| value.is_finite()).collect())
    }

    fn get(&self, metric: &Metric, suffix: &str, labels: &[String], le: Option<f64>) -> Option<f64> {
        let key = (
            format!("{}{suffix}", metric.name),
            labels.to_vec(),
            le.map(f64::to_bits),
        );
        self.0.get(&key).copied()
    }
}

impl Before for Parsed {
    fn number(&self, metric: &'static Metric, labels: &[String]) -> Option<f64> {
        self.get(metric, "", labels, None)
    }

    fn histogram(&self, metric: &'static Metric, labels: &[String]) -> Option<Histogram> {
        let mut found = Histogram::default();
        let mut below = 0;
        let limits = BUCKETS_SECONDS.iter().copied().chain([f64::INFINITY]);
        for (bucket, bound) in found.buckets.iter_mut().zip(limits) {
            let cumulative = self
                .get(metric, "_bucket", labels, Some(bound))
                .map_or(0, |value| value.max(0.0) as u64);
            *bucket = cumulative.saturating_sub(below);
            below = below.max(cumulative);
        }
        found.sum = self.get(metric, "_sum", labels, None).unwrap_or(0.0);
        Some(found)
    }
}

type Line = ((String, Vec<String>, Option<u64>), f64);

/// One line of one of our metrics. Labels that the catalogue does not know (`job`, `instance`) are left out.
fn parse_line(line: &str) -> Option<Line> {
    if line.starts_with('#') {
        return None;
    }
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let (name, pairs) = match series.split_once('{') {
        Some((name, rest)) => (name, pairs(rest.strip_suffix('}')?)?),
        None => (series, HashMap::new()),
    };
    let of_name = |metric: &&&Metric| {
        let rest = name.strip_prefix(metric.name);
        rest.is_some_and(|suffix| match metric.kind {
            Type::Histogram => ["_bucket", "_sum", "_count"].contains(&suffix),
            _ => suffix.is_empty(),
        })
    };
    let metric = catalogue::ALL.iter().find(of_name)?;
    let labels = metric
        .labels
        .iter()
        .map(|label| pairs.get(*label).cloned())
        .collect::<Option<Vec<_>>>()?;
    let le = match pairs.get("le") {
        Some(bound) => Some(bound.parse::<f64>().ok()?.to_bits()),
        None => None,
    };
    Some(((name.to_owned(), labels, le), value))
}

/// `a="b",c="d"`.
fn pairs(text: &str) -> Option<HashMap<&str, String>> {
    let mut found = HashMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, quoted) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => match characters.next()? {
                    (_, 'n') => value.push('\n'),
                    (_, other) => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        found.insert(name, value);
        rest = quoted.get(end + 1..)?.trim_start_matches(',');
    }
    Some(found)
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
    if pairs.is_empty() {
        return format!("{}{suffix}", metric.name);
    }
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

    #[test]
    fn a_pushgateway_s_own_way_of_writing_is_understood() {
        let text = "# TYPE throughline_runs_total counter\n\
            throughline_runs_total{chain=\"c\",instance=\"\",job=\"throughline\",outcome=\"pass\",target=\"t\"} 3\n\
            throughline_hop_duration_seconds_bucket{chain=\"c\",hop=\"h\",instance=\"\",job=\"throughline\",target=\"t\",le=\"1\"} 2\n\
            throughline_hop_duration_seconds_bucket{chain=\"c\",hop=\"h\",instance=\"\",job=\"throughline\",target=\"t\",le=\"+Inf\"} 5\n\
            throughline_last_run_timestamp_seconds{chain=\"c\",instance=\"\",job=\"throughline\",target=\"t\"} 1.795217461e+09\n";
        let read = Parsed::read(text);
        let labels = |last: &str| ["c".to_owned(), "t".to_owned(), last.to_owned()];
        assert_eq!(read.number(&catalogue::RUNS, &labels("pass")), Some(3.0));
        assert_eq!(
            read.number(&catalogue::LAST_RUN_TIMESTAMP, &labels("")[..2]),
            Some(1_795_217_461.0)
        );
        let buckets = read
            .histogram(&catalogue::HOP_DURATION, &labels("h"))
            .unwrap()
            .buckets;
        assert_eq!((buckets[9], buckets[14]), (2, 3));
    }

    proptest! {
        #[test]
        fn a_label_value_survives_whatever_it_holds(value in any::<String>()) {
            prop_assert_eq!(unescape(&escape(&value)), value);
        }

        #[test]
        fn what_was_written_is_read_again(value in any::<String>()) {
            let text = encode(&[sample(&value)], Format::Prometheus);
            let read = Parsed::read(&text);
            let labels = ["chain".to_owned(), value];
            prop_assert_eq!(read.number(&catalogue::LAST_RUN_SUCCESS, &labels), Some(1.0), "{}", text);
        }

        #[test]
        fn a_label_value_cannot_forge_a_line(target in any::<String>()) {
            let text = encode(&[sample(&target)], Format::Prometheus);
            prop_assert_eq!(text.matches('\n').count(), 3, "{}", text);
        }
    }
}
