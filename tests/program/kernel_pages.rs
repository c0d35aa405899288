//! The examples on the pages of the kernels' domains: the commands, run by a shell, print what the page says.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::process::Server;

/// Commands of an example, and the output that its comment shows; `...` stands for any text.
#[derive(Debug, PartialEq)]
struct Step {
    commands: String,
    output: String,
}

/// Returns the steps of the shell blocks in a module's documentation.
fn steps(source: &str) -> Vec<Step> {
    let (mut commands, mut output, mut steps) = (String::new(), String::new(), Vec::new());
    let mut in_block = false;
    for line in source.lines().filter_map(|line| line.strip_prefix("//!")) {
        let line = line.strip_prefix(' ').unwrap_or(line);
        if line.starts_with("```") {
            in_block = line == "```sh";
            continue;
        }
        let comment = line.strip_prefix("# ");
        if in_block && comment.is_none() && !output.is_empty() {
            steps.push(Step { commands: std::mem::take(&mut commands), output: std::mem::take(&mut output) });
        }
        match comment {
            _ if !in_block => {}
            Some(shown) => output.push_str(shown),
            None => commands.extend([line, "\n"]),
        }
    }
    steps.push(Step { commands, output });
    steps
}

fn without_spaces(text: &str) -> String {
    text.split_whitespace().collect()
}

/// Returns whether the text has the pieces between the `...` of `shown` in this order.
fn shows(text: &str, shown: &str) -> bool {
    let (text, shown) = (without_spaces(text), without_spaces(shown));
    let mut rest = text.as_str();
    shown.split("...").all(|piece| match rest.find(piece) {
        Some(at) => {
            rest = &rest[at + piece.len()..];
            true
        }
        None => false,
    })
}

/// Returns the pages of the domains: each folder of kernels that has examples.
fn pages() -> Vec<PathBuf> {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kernels");
    let mut pages: Vec<_> = std::fs::read_dir(kernels)
        .unwrap()
        .map(|entry| entry.unwrap().path().join("mod.rs"))
        .filter(|page| std::fs::read_to_string(page).is_ok_and(|source| source.contains("//! ```sh")))
        .collect();
    pages.sort();
    pages
}

#[test]
fn the_examples_of_every_domain_print_what_they_show() {
    let pages = pages();
    assert!(pages.len() >= 8, "{pages:?}");
    for page in pages {
        let server = Server::start(&["--cuda-mode=off"]);
        let steps = steps(&std::fs::read_to_string(&page).unwrap());
        for Step { commands, output } in steps {
            let commands = commands.replace("127.0.0.1:8080", &server.rest.to_string());
            let run = Command::new("sh").args(["-ec", &commands]).output().unwrap();
            let printed = String::from_utf8(run.stdout).unwrap();
            assert!(run.status.success(), "{}: {commands}", page.display());
            assert!(!output.is_empty(), "{}: no output is shown of {commands}", page.display());
            assert!(shows(&printed, &output), "{}: {commands}prints\n{printed}", page.display());
        }
    }
}

#[test]
fn steps_are_read_and_compared() {
    let read = steps("//! Text.\n//! ```sh\n//! a\n//!     b\n//! # {\"x\":\n//! #     1}\n//! c\n//! # 2\n//! ```\n");
    let step = |commands: &str, output: &str| Step { commands: commands.into(), output: output.into() };
    assert_eq!(read, [step("a\n    b\n", "{\"x\":    1}"), step("c\n", "2")]);
    assert!(shows("{\"a\": 1, \"b\": [2, 3]}", "{\"a\":1,...3]...}"));
    assert!(!shows("{\"a\": 1, \"b\": [2, 3]}", "3...2"));
}
