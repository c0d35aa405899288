use std::error::Error;
use std::fmt;

/// Formats an error and its causes on one line, outermost first: `a: b: c`.
///
/// A cause that the outer error's text already ends with, as in `#[error("no response: {0}")]`, is written once.
///
/// ```
/// use tower_kernels::error::chain;
///
/// #[derive(Debug, thiserror::Error)]
/// #[error("the configuration cannot be read")]
/// struct Unreadable(#[source] std::num::ParseIntError);
///
/// let error = Unreadable("many".parse::<u32>().unwrap_err());
/// assert_eq!(chain(&error).to_string(), "the configuration cannot be read: invalid digit found in string");
/// ```
///
/// For a `Box<dyn Error>`, pass the inner error: `chain(&*error)`.
pub fn chain<'a>(error: &'a (dyn Error + 'a)) -> Chain<'a> {
    Chain { error }
}

/// Displays an error and its causes; created by [`chain`].
#[derive(Clone, Copy)]
pub struct Chain<'a> {
    error: &'a (dyn Error + 'a),
}

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let causes = std::iter::successors(self.error.source(), |&error| error.source());
        let texts = std::iter::once(self.error.to_string()).chain(causes.map(ToString::to_string));
        let texts: Vec<_> = texts.collect();
        let mut texts = texts.into_iter().rev();
        let mut cause = texts.next().unwrap_or_default();
        let mut causes = cause.clone();
        for text in texts {
            causes = join(&text, &cause, causes);
            cause = text;
        }
        f.write_str(&causes)
    }
}

impl fmt::Debug for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Joins the text of an error and those of its causes. `cause` is the text of the first cause only.
fn join(text: &str, cause: &str, causes: String) -> String {
    if strip_cause(text, &causes).is_some() {
        return text.to_owned();
    }
    match strip_cause(text, cause).unwrap_or(text) {
        "" => causes,
        own => format!("{own}: {causes}"),
    }
}

/// Removes `end` and the separator before it; `None` if the text does not end with it.
fn strip_cause<'a>(text: &'a str, end: &str) -> Option<&'a str> {
    let own = text.strip_suffix(end)?;
    if own.is_empty() { Some(own) } else { own.strip_suffix(": ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Level(&'static str, Option<Box<Level>>);

    impl fmt::Display for Level {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Level {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|cause| cause as _)
        }
    }

    fn of(texts: &[&'static str]) -> String {
        let error = texts.iter().rfold(None, |cause, text| Some(Box::new(Level(text, cause)))).unwrap();
        chain(&*error).to_string()
    }

    #[test]
    fn causes_follow_in_their_order() {
        assert_eq!(of(&["a"]), "a");
        assert_eq!(of(&["a", "b", "c"]), "a: b: c");
        assert_eq!(chain(&Level("a", None)).to_string(), format!("{:?}", chain(&Level("a", None))));
    }

    #[test]
    fn a_cause_in_the_text_of_an_error_is_not_repeated() {
        for texts in [
            &["a: b: c", "b", "c"] as &[_], // all of them
            &["a: b", "b", "c"],            // the next alone
            &["a: b: c", "b: c", "c"],      // at each level
            &["a", "b: c", "b: c", "c"],    // in the middle
            &["a: b: c", "a: b: c"],        // passed on
            &["", "a", "b: c", "c"],        // nothing
        ] {
            assert_eq!(of(texts), "a: b: c", "{texts:?}");
        }
    }

    #[test]
    fn a_text_that_ends_like_its_cause_by_chance_is_kept() {
        assert_eq!(of(&["broken", "n"]), "broken: n");
        assert_eq!(of(&["the timeout", "timeout"]), "the timeout: timeout");
    }
}
