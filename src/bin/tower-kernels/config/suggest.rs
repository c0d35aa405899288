//! What was meant by a name that nothing has.

/// `did you mean X?` with the name that is most like this one, where any is.
pub(crate) fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, known).map(|known| format!("did you mean `{known}`?"))
}

/// The known name that is most like this one, as a whole or in its last part: `prefx` is like `rest.prefix`.
fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Below this, names have little more in common than a few letters.
    const ALIKE: f64 = 0.8;
    let lower = name.to_lowercase();
    let last = |name: &'a str| name.rsplit('.').next().unwrap_or(name);
    let own = lower.rsplit('.').next().unwrap_or(&lower);
    let likeness = |known: &'a str| {
        let whole = strsim::jaro_winkler(&lower, &known.to_lowercase());
        // A little less, so that of two equal last parts the one in the same section is meant.
        whole.max(strsim::jaro_winkler(own, &last(known).to_lowercase()) - 0.01)
    };
    let like = known.into_iter().map(|known| (likeness(known), known)).filter(|(likeness, _)| *likeness > ALIKE);
    like.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, known)| known)
}

/// The same of an error of serde's, which says what it knows: "unknown field `rate`, expected `per_second` or `burst`".
pub(crate) fn of_serde(message: &str) -> Option<String> {
    let unknown = message.strip_prefix("unknown field ").or_else(|| message.strip_prefix("unknown variant "))?;
    // Every other part is between backticks.
    let mut quoted = unknown.split('`').skip(1).step_by(2);
    let name = quoted.next()?;
    did_you_mean(name, quoted)
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
            assert_eq!(nearest(name, known), meant, "{name}");
        }
    }

    #[test]
    fn what_serde_expected_is_suggested() {
        let said = of_serde("unknown field `rate`, expected `per_second` or `burst`");
        assert_eq!(said, None, "nothing is like it");
        let said = of_serde("unknown field `per_secnd`, expected `per_second` or `burst`");
        assert_eq!(said.as_deref(), Some("did you mean `per_second`?"));
        assert_eq!(of_serde("missing field `per_second`"), None);
    }
}
