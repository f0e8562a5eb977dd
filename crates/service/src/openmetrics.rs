//! `/metrics` for whoever asks for OpenMetrics 1.0.0: the same metrics, and beside the buckets of histograms traces of
//! values that fell into them.
//!
//! Source: <https://prometheus.io/docs/specs/om/open_metrics_spec/>.

use std::fmt::Write;

use axum::http::{HeaderMap, header};
use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

use crate::trace::Exemplar;

/// What the answer is.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether a request asks for this format, in a version that is written here.
pub(crate) fn is_asked_for(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|offer| {
        let mut parts = offer.split(';').map(|part| part.trim().to_ascii_lowercase());
        let is_this = parts.next().is_some_and(|media_type| media_type == "application/openmetrics-text");
        let is_refused = |part: &str| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match name {
                "version" => value != "1.0.0",
                "q" => value.parse() == Ok(0.0),
                _ => false,
            }
        };
        is_this && !parts.any(|part| is_refused(&part))
    })
}

/// The text of an answer.
pub(crate) fn render(families: &[MetricFamily], exemplars: &[Exemplar]) -> String {
    let mut text = String::new();
    for family in families {
        write_family(&mut text, family, exemplars);
    }
    text.push_str("# EOF\n");
    text
}

fn write_family(text: &mut String, family: &MetricFamily, exemplars: &[Exemplar]) {
    let kind = family.get_field_type();
    let (name, kind_name) = match kind {
        // The end belongs to the sample and not to the family.
        MetricType::COUNTER => (family.name().strip_suffix("_total").unwrap_or(family.name()), "counter"),
        MetricType::HISTOGRAM => (family.name(), "histogram"),
        // Akis has neither of the last two.
        MetricType::GAUGE | MetricType::SUMMARY | MetricType::UNTYPED => (family.name(), "gauge"),
    };
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# TYPE {name} {kind_name}\n# HELP {name} {}", escape(family.help()));
    for metric in family.get_metric() {
        let labels = labels(metric);
        match kind {
            MetricType::COUNTER => {
                write_sample(text, &format!("{name}_total"), &labels, metric.get_counter().get_value());
            }
            MetricType::HISTOGRAM => write_histogram(text, name, metric, &labels, exemplars),
            MetricType::GAUGE | MetricType::SUMMARY | MetricType::UNTYPED => {
                write_sample(text, name, &labels, metric.get_gauge().get_value());
            }
        }
        text.push('\n');
    }
}

fn write_histogram(text: &mut String, name: &str, metric: &Metric, labels: &[String], exemplars: &[Exemplar]) {
    let histogram = metric.get_histogram();
    let own: Vec<&Exemplar> = exemplars.iter().filter(|exemplar| exemplar.is_of(name, metric.get_label())).collect();
    let finite = histogram.get_bucket().iter().map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()));
    let finite = finite.filter(|(bound, _)| bound.is_finite());
    let mut below = f64::NEG_INFINITY;
    for (bound, count) in finite.chain([(f64::INFINITY, histogram.get_sample_count())]) {
        let mut labels = labels.to_vec();
        labels.push(format!("le=\"{}\"", number(bound)));
        write_sample(text, &format!("{name}_bucket"), &labels, count as f64);
        if let Some(exemplar) = own.iter().find(|exemplar| exemplar.value > below && exemplar.value <= bound) {
            write_exemplar(text, exemplar);
        }
        text.push('\n');
        below = bound;
    }
    write_sample(text, &format!("{name}_count"), labels, histogram.get_sample_count() as f64);
    text.push('\n');
    write_sample(text, &format!("{name}_sum"), labels, histogram.get_sample_sum());
}

/// A sample without the end of its line.
fn write_sample(text: &mut String, name: &str, labels: &[String], value: f64) {
    text.push_str(name);
    if !labels.is_empty() {
        let _ = write!(text, "{{{}}}", labels.join(","));
    }
    let _ = write!(text, " {}", number(value));
}

fn write_exemplar(text: &mut String, exemplar: &Exemplar) {
    let Exemplar { context, value, time_ns, .. } = exemplar;
    let (trace, span, time_ms) = (context.trace_hex(), context.span_hex(), time_ns / 1_000_000);
    let (seconds, ms) = (time_ms / 1000, time_ms % 1000);
    let value = number(*value);
    let _ = write!(text, " # {{trace_id=\"{trace}\",span_id=\"{span}\"}} {value} {seconds}.{ms:03}");
}

fn labels(metric: &Metric) -> Vec<String> {
    let label = |pair: &LabelPair| format!("{}=\"{}\"", pair.name(), escape(pair.value()));
    metric.get_label().iter().map(label).collect()
}

/// A number as bounds of buckets have to be written, always the same way: `1.0`, `0.25`, `+Inf`.
fn number(value: f64) -> String {
    if value == f64::INFINITY {
        "+Inf".to_owned()
    } else if value == f64::NEG_INFINITY {
        "-Inf".to_owned()
    } else {
        format!("{value:?}")
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use prometheus::{Gauge, Histogram, HistogramOpts, IntCounterVec, Opts, Registry};

    use super::*;
    use crate::trace::Tracer;

    #[test]
    fn metrics_are_written_with_traces_beside_their_buckets() {
        let registry = Registry::new();
        let counts = IntCounterVec::new(Opts::new("akis_x_events_total", "Events \"here\"."), &["venue"]).unwrap();
        let ages = Histogram::with_opts(HistogramOpts::new("akis_x_age_seconds", "Ages.").buckets(vec![0.25, 1.0]));
        let (ages, up) = (ages.unwrap(), Gauge::new("akis_x_up", "Up.").unwrap());
        registry.register(Box::new(counts.clone())).unwrap();
        registry.register(Box::new(ages.clone())).unwrap();
        registry.register(Box::new(up.clone())).unwrap();
        counts.with_label_values(&["a\"b\\c\n"]).inc_by(3);
        [0.5, 0.5, 7.0].into_iter().for_each(|age| ages.observe(age));
        let (tracer, _spans) = Tracer::new(1, &Registry::new()).unwrap();
        let context = tracer.sampler().sample().unwrap();
        tracer.exemplar("akis_x_age_seconds", &[], 0.5, context);
        let exemplars = tracer.exemplars();
        let time_ms = exemplars[0].time_ns / 1_000_000;
        let trace = format!("trace_id=\"{}\",span_id=\"{}\"", context.trace_hex(), context.span_hex());
        let time = format!("{}.{:03}", time_ms / 1000, time_ms % 1000);
        let expected = format!(
            r#"# TYPE akis_x_age_seconds histogram
# HELP akis_x_age_seconds Ages.
akis_x_age_seconds_bucket{{le="0.25"}} 0.0
akis_x_age_seconds_bucket{{le="1.0"}} 2.0 # {{{trace}}} 0.5 {time}
akis_x_age_seconds_bucket{{le="+Inf"}} 3.0
akis_x_age_seconds_count 3.0
akis_x_age_seconds_sum 8.0
# TYPE akis_x_events counter
# HELP akis_x_events Events \"here\".
akis_x_events_total{{venue="a\"b\\c\n"}} 3.0
# TYPE akis_x_up gauge
# HELP akis_x_up Up.
akis_x_up 0.0
# EOF
"#
        );
        assert_eq!(render(&registry.gather(), &exemplars), expected);
    }

    #[test]
    fn only_who_asks_for_this_version_gets_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            text/plain;version=0.0.4;q=0.4,*/*;q=0.1";
        for (accept, expected) in [
            (prometheus, true),
            ("application/openmetrics-text", true),
            ("text/plain, Application/OpenMetrics-Text; version=1.0.0", true),
            ("application/openmetrics-text;version=0.0.1", false),
            ("application/openmetrics-text;version=1.0.0;q=0", false),
            ("text/plain", false),
            ("*/*", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(is_asked_for(&headers), expected, "{accept}");
        }
        assert!(!is_asked_for(&HeaderMap::new()));
    }
}
