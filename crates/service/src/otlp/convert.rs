//! From what the registry gathers and the tracer records to OTLP's own shapes.
//!
//! Sources: OTLP 1.x <https://opentelemetry.io/docs/specs/otlp/>, and for names and units the mapping to Prometheus, the
//! other way round: <https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/>.

use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar as OtlpExemplar, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    Sum, exemplar, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{Span as OtlpSpan, Status, span as otlp_span, status};
use prometheus::proto::{Metric as Sample, MetricFamily, MetricType};

use super::Identity;
use crate::trace::{Exemplar, Span, SpanKind};

/// OTLP's name and unit of a Prometheus metric: `akis_gateway_written_bytes_total` is `akis.gateway.written` in `By`.
/// Whoever turns it back by the mapping gets the same name as on `/metrics`.
pub fn otlp_name(name: &str) -> (String, &'static str) {
    let name = name.strip_suffix("_total").unwrap_or(name);
    let units = [("_seconds", "s"), ("_milliseconds", "ms"), ("_bytes", "By")];
    let (name, unit) =
        units.into_iter().find_map(|(suffix, unit)| Some((name.strip_suffix(suffix)?, unit))).unwrap_or((name, "1"));
    // What belongs to whom is a namespace: akis.gateway.…, process.….
    let namespaces = if name.starts_with("akis_") { 2 } else { 1 };
    (name.replacen('_', ".", namespaces), unit)
}

pub(super) fn resource(identity: &Identity) -> Resource {
    let attributes = [
        ("service.name", identity.service.as_str()),
        ("service.namespace", "akis"),
        ("service.instance.id", identity.instance.as_str()),
        ("service.version", env!("CARGO_PKG_VERSION")),
    ];
    Resource { attributes: attributes.map(|(key, value)| attribute(key, value)).into(), ..Resource::default() }
}

pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "akis".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

pub(super) fn span(span: Span) -> OtlpSpan {
    let kind = match span.kind {
        SpanKind::Internal => otlp_span::SpanKind::Internal,
        SpanKind::Producer => otlp_span::SpanKind::Producer,
        SpanKind::Consumer => otlp_span::SpanKind::Consumer,
        SpanKind::Server => otlp_span::SpanKind::Server,
    };
    let code = if span.is_failed { status::StatusCode::Error } else { status::StatusCode::Unset };
    OtlpSpan {
        trace_id: span.context.trace_id.into(),
        span_id: span.context.span_id.into(),
        parent_span_id: span.parent.map(Vec::from).unwrap_or_default(),
        name: span.name.to_owned(),
        kind: kind.into(),
        start_time_unix_nano: span.start_ns,
        end_time_unix_nano: span.end_ns.max(span.start_ns),
        attributes: span.attributes.iter().map(|(key, value)| attribute(key, value)).collect(),
        status: Some(Status { code: code.into(), ..Status::default() }),
        ..OtlpSpan::default()
    }
}

pub(super) fn metric(family: &MetricFamily, start_ns: u64, now_ns: u64, exemplars: &[Exemplar]) -> Metric {
    let (name, unit) = otlp_name(family.name());
    let number = |sample: &Sample, value: f64| NumberDataPoint {
        attributes: attributes(sample),
        start_time_unix_nano: start_ns,
        time_unix_nano: now_ns,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..NumberDataPoint::default()
    };
    let cumulative = AggregationTemporality::Cumulative.into();
    let samples = family.get_metric().iter();
    let data = match family.get_field_type() {
        MetricType::COUNTER => metric::Data::Sum(Sum {
            data_points: samples.map(|sample| number(sample, sample.get_counter().get_value())).collect(),
            aggregation_temporality: cumulative,
            is_monotonic: true,
        }),
        MetricType::HISTOGRAM => metric::Data::Histogram(Histogram {
            data_points: samples
                .map(|sample| HistogramDataPoint {
                    exemplars: exemplars_of(family.name(), sample, exemplars),
                    ..histogram(sample, start_ns, now_ns)
                })
                .collect(),
            aggregation_temporality: cumulative,
        }),
        // Akis has neither of the last two.
        MetricType::GAUGE | MetricType::SUMMARY | MetricType::UNTYPED => metric::Data::Gauge(Gauge {
            data_points: samples.map(|sample| number(sample, sample.get_gauge().get_value())).collect(),
        }),
    };
    Metric { name, unit: unit.to_owned(), description: family.help().to_owned(), data: Some(data), ..Metric::default() }
}

fn histogram(sample: &Sample, start_ns: u64, now_ns: u64) -> HistogramDataPoint {
    let histogram = sample.get_histogram();
    let (mut bounds, mut counts, mut below) = (Vec::new(), Vec::new(), 0);
    for bucket in histogram.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite()) {
        bounds.push(bucket.upper_bound());
        counts.push(bucket.cumulative_count().saturating_sub(below));
        below = bucket.cumulative_count();
    }
    counts.push(histogram.get_sample_count().saturating_sub(below));
    HistogramDataPoint {
        attributes: attributes(sample),
        start_time_unix_nano: start_ns,
        time_unix_nano: now_ns,
        count: histogram.get_sample_count(),
        sum: Some(histogram.get_sample_sum()),
        bucket_counts: counts,
        explicit_bounds: bounds,
        ..HistogramDataPoint::default()
    }
}

fn exemplars_of(metric: &str, sample: &Sample, exemplars: &[Exemplar]) -> Vec<OtlpExemplar> {
    let shown = |kept: &Exemplar| OtlpExemplar {
        time_unix_nano: kept.time_ns,
        trace_id: kept.context.trace_id.into(),
        span_id: kept.context.span_id.into(),
        value: Some(exemplar::Value::AsDouble(kept.value)),
        ..OtlpExemplar::default()
    };
    exemplars.iter().filter(|kept| kept.is_of(metric, sample.get_label())).map(shown).collect()
}

fn attributes(sample: &Sample) -> Vec<KeyValue> {
    sample.get_label().iter().map(|label| attribute(label.name(), label.value())).collect()
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        for (name, expected) in [
            ("akis_gateway_written_bytes_total", ("akis.gateway.written", "By")),
            ("akis_gateway_delivery_age_seconds", ("akis.gateway.delivery_age", "s")),
            ("akis_venue_clock_offset_milliseconds", ("akis.venue.clock_offset", "ms")),
            ("akis_gateway_connections", ("akis.gateway.connections", "1")),
            ("process_cpu_seconds_total", ("process.cpu", "s")),
        ] {
            let (name, unit) = otlp_name(name);
            assert_eq!((name.as_str(), unit), expected);
        }
    }
}
