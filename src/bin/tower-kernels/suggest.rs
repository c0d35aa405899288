//! Suggests the known name that a misspelt one was probably meant to be.

/// Names that are less alike share little more than a few letters.
const MIN_SIMILARITY: f64 = 0.8;

/// Names that are less like the misspelt one than the most similar by more than this are not meant: names of one domain are
/// similar to each other anyway.
const MAX_DIFFERENCE: f64 = 0.05;

/// `did you mean X?` with the known name that is most similar, if any is similar enough.
pub(crate) fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, known).first().map(|known| format!("did you mean `{known}`?"))
}

/// `did you mean X or Y?` with up to `max` known names, the most similar first.
pub(crate) fn did_you_mean_any<'a>(name: &str, known: impl IntoIterator<Item = &'a str>, max: usize) -> Option<String> {
    let names: Vec<_> = nearest(name, known).into_iter().take(max).map(|known| format!("`{known}`")).collect();
    (!names.is_empty()).then(|| format!("did you mean {}?", names.join(" or ")))
}

/// The same for an error of serde, which lists the known names: "unknown field `rate`, expected `per_second` or `burst`".
pub(crate) fn for_serde_error(message: &str) -> Option<String> {
    let unknown = message.strip_prefix("unknown field ").or_else(|| message.strip_prefix("unknown variant "))?;
    // Every other part is between backticks.
    let mut quoted = unknown.split('`').skip(1).step_by(2);
    let name = quoted.next()?;
    did_you_mean(name, quoted)
}

/// The similar names, the most similar first. Names are compared as a whole and by their last part, so that `prefx` is
/// similar to `rest.prefix` and `saxpi` to `linalg/saxpy`.
fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    fn last_part(name: &str) -> &str {
        name.rsplit(['.', '/']).next().unwrap_or(name)
    }
    let name = name.to_lowercase();
    let similarity = |known: &str| {
        let known = known.to_lowercase();
        let whole = strsim::jaro_winkler(&name, &known);
        // A little less, so that of two equal last parts the one in the same section wins.
        whole.max(strsim::jaro_winkler(last_part(&name), last_part(&known)) - 0.01)
    };
    let mut similar: Vec<_> = known
        .into_iter()
        .map(|known| (similarity(known), known))
        .filter(|(value, _)| *value > MIN_SIMILARITY)
        .collect();
    similar.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    let most_similar = similar.first().map_or(0.0, |(value, _)| *value);
    similar.retain(|(value, _)| most_similar - value <= MAX_DIFFERENCE);
    similar.into_iter().map(|(_, known)| known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_and_a_strange_one_is_not_guessed_at() {
        let known = ["rest.prefix", "rest.listen", "grpc.listen", "drain.limit", "concurrency.limit"];
        for (name, meant) in [
            ("rest.prefx", Some("rest.prefix")),
            ("prefix", Some("rest.prefix")),
            ("grpc.lisen", Some("grpc.listen")),
            ("drain.limt", Some("drain.limit")),
            ("DRAIN.LIMIT", Some("drain.limit")),
            ("zebra", None),
        ] {
            assert_eq!(nearest(name, known).first().copied(), meant, "{name}");
        }
    }

    #[test]
    fn several_names_are_suggested_up_to_a_maximum() {
        let known = ["linalg/saxpy", "linalg/saxpby", "linalg/dot", "graph/paths"];
        let only = did_you_mean_any("linalg/saxpi", ["linalg/saxpy", "linalg/dot"], 3);
        assert_eq!(only.as_deref(), Some("did you mean `linalg/saxpy`?"));
        let one = did_you_mean_any("saxpi", known, 1);
        assert_eq!(one.as_deref(), Some("did you mean `linalg/saxpy`?"));
        let two = did_you_mean_any("saxpi", known, 3);
        assert_eq!(two.as_deref(), Some("did you mean `linalg/saxpy` or `linalg/saxpby`?"));
        assert_eq!(did_you_mean_any("zzz", known, 3), None);
    }

    #[test]
    fn the_names_that_serde_expected_are_suggested() {
        let hint = for_serde_error("unknown field `rate`, expected `per_second` or `burst`");
        assert_eq!(hint, None, "none is similar");
        let hint = for_serde_error("unknown field `per_secnd`, expected `per_second` or `burst`");
        assert_eq!(hint.as_deref(), Some("did you mean `per_second`?"));
        assert_eq!(for_serde_error("missing field `per_second`"), None);
    }
}
