//! Converts OpenMetrics text into either format.

use super::{Format, split_unquoted};

/// Converts pages. Families without samples are omitted.
pub(super) fn convert(page: &str, format: Format) -> String {
    let mut out = String::with_capacity(page.len() + "# EOF\n".len());
    let mut family = Family::default();
    for line in page.lines().filter(|line| !line.is_empty()) {
        match line.strip_prefix("# ") {
            Some(description) => family.describe(description),
            None => {
                family.write_description(&mut out, format);
                out.push_str(if format == Format::Text { without_exemplar(line) } else { line });
                out.push('\n');
            }
        }
    }
    if format == Format::OpenMetrics {
        out.push_str("# EOF\n");
    }
    out
}

/// The description of a metric family, which is written before its first sample.
#[derive(Debug, Default)]
struct Family<'a> {
    name: &'a str,
    help: Option<&'a str>,
    kind: Option<&'a str>,
    unit: Option<&'a str>,
    is_written: bool,
}

impl<'a> Family<'a> {
    fn describe(&mut self, description: &'a str) {
        let mut words = description.splitn(3, ' ');
        let [keyword, name, rest] = [(); 3].map(|()| words.next().unwrap_or_default());
        if name != self.name {
            *self = Self { name, ..Self::default() };
        }
        match keyword {
            "HELP" => self.help = Some(rest),
            "TYPE" => self.kind = Some(rest),
            "UNIT" => self.unit = Some(rest),
            // The end of a page.
            _ => {}
        }
    }

    fn write_description(&mut self, out: &mut String, format: Format) {
        if self.name.is_empty() || std::mem::replace(&mut self.is_written, true) {
            return;
        }
        let Self { name, help, kind, unit, .. } = *self;
        // In the text format a family is named like its samples, and there are fewer types.
        let (suffix, kind) = match (format, kind.unwrap_or("unknown")) {
            (Format::Text, "counter") => ("_total", "counter"),
            (Format::Text, "info") => ("_info", "gauge"),
            (Format::Text, "unknown") => ("", "untyped"),
            (_, kind) => ("", kind),
        };
        if let Some(help) = help {
            out.extend(["# HELP ", name, suffix, " ", help, "\n"]);
        }
        out.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        if let (Format::OpenMetrics, Some(unit)) = (format, unit) {
            out.extend(["# UNIT ", name, " ", unit, "\n"]);
        }
    }
}

/// Removes the exemplar of a sample, which the text format does not support.
fn without_exemplar(sample: &str) -> &str {
    split_unquoted(sample, '#').next().unwrap_or(sample).trim_end()
}

#[cfg(test)]
mod tests {
    use super::Format;
    use crate::middleware::metrics::page;
    use prometheus_client::metrics::counter::{ConstCounter, Counter};
    use prometheus_client::metrics::exemplar::CounterWithExemplar;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::gauge::ConstGauge;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::metrics::info::Info;
    use prometheus_client::registry::{Registry, Unit};

    /// One metric of each kind.
    fn register(registry: &mut Registry) {
        registry.register("calls", "Calls", ConstCounter::new(3u64));
        registry.register_with_unit("spent", "Time", Unit::Seconds, ConstCounter::new(0.5f64));
        registry.register_with_unit("memory", "Memory", Unit::Bytes, ConstGauge::new(7i64));
        registry.register("build", "Build", Info::new([("version", "1.0")]));
        registry.register("empty", "Nothing yet", Family::<[(&str, &str); 1], Counter>::default());
        let sizes = Histogram::new([1.0]);
        sizes.observe(0.5);
        registry.register("sizes", "Sizes", sizes);
        let traced = Family::<[(&str, &str); 1], CounterWithExemplar<[(&str, &str); 1]>>::default();
        let odd = [("path", "a} # {b\"c\\")];
        traced.get_or_create(&odd).inc_by(2, Some([("trace_id", "f00")]), None);
        registry.register("traced", "Traced", traced);
    }

    #[test]
    fn open_metrics_has_units_and_an_end_and_no_empty_families() {
        let expected = "\
# HELP calls Calls.
# TYPE calls counter
calls_total 3
# HELP spent_seconds Time.
# TYPE spent_seconds counter
# UNIT spent_seconds seconds
spent_seconds_total 0.5
# HELP memory_bytes Memory.
# TYPE memory_bytes gauge
# UNIT memory_bytes bytes
memory_bytes 7
# HELP build Build.
# TYPE build info
build_info{version=\"1.0\"} 1
# HELP sizes Sizes.
# TYPE sizes histogram
sizes_sum 0.5
sizes_count 1
sizes_bucket{le=\"1.0\"} 1
sizes_bucket{le=\"+Inf\"} 1
# HELP traced Traced.
# TYPE traced counter
traced_total{path=\"a} # {b\\\"c\\\\\"} 2 # {trace_id=\"f00\"} 2.0
# EOF
";
        assert_eq!(page::render(register), expected);
        assert_eq!(page::render(|_| ()), "# EOF\n");
    }

    #[test]
    fn text_names_families_as_their_samples_and_has_no_exemplars() {
        let expected = "\
# HELP calls_total Calls.
# TYPE calls_total counter
calls_total 3
# HELP spent_seconds_total Time.
# TYPE spent_seconds_total counter
spent_seconds_total 0.5
# HELP memory_bytes Memory.
# TYPE memory_bytes gauge
memory_bytes 7
# HELP build_info Build.
# TYPE build_info gauge
build_info{version=\"1.0\"} 1
# HELP sizes Sizes.
# TYPE sizes histogram
sizes_sum 0.5
sizes_count 1
sizes_bucket{le=\"1.0\"} 1
sizes_bucket{le=\"+Inf\"} 1
# HELP traced_total Traced.
# TYPE traced_total counter
traced_total{path=\"a} # {b\\\"c\\\\\"} 2
";
        assert_eq!(Format::Text.convert(&page::render(register)), expected);
        assert_eq!(Format::Text.convert(&page::render(|_| ())), "");
    }

    #[test]
    fn descriptions_may_be_in_any_order_and_incomplete() {
        let page = "\
undescribed 1
# TYPE first counter
# HELP first The first.
first_total 2

# TYPE second gauge
second 3
# HELP third The third.
third 4
# EOF
after_the_end 5
";
        let expected = "\
undescribed 1
# HELP first_total The first.
# TYPE first_total counter
first_total 2
# TYPE second gauge
second 3
# HELP third The third.
# TYPE third untyped
third 4
after_the_end 5
";
        assert_eq!(Format::Text.convert(page), expected);
    }
}
