#!/usr/bin/env python3
"""Check the shape of the source tree: import direction, banned words, sizes, and the files that documents name.

    scripts/check_tree.py              # check everything
    scripts/check_tree.py --self-test  # show that each check fails on a planted violation

Nothing is compiled; comments, doc comments and strings are left out where code is meant.
"""

import argparse
import pathlib
import re
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Each module may import those in the rows below its own, and those of its own row.
LAYERS = [
    ["bin"],
    ["servers"],
    ["pipeline"],
    ["kernels"],
    ["backends"],
    ["service"],
    ["cuda", "process"],
    ["buffer", "fair_queue"],
    ["layers"],
    ["middleware"],
    ["error", "request"],
    ["copy", "panics", "random", "sync", "text"],
]
RANK = {module: rank for rank, row in enumerate(LAYERS) for module in row}
# Public paths of the crate that are another module's items.
ALIASES = {name: "servers" for name in ("actix", "axum", "grpc", "hyper", "inference", "requests")}

# Identifiers and words that stand for a term of the field: see the word that replaces each.
BANNED = {
    r"[Ll]edgers?": "budget",
    r"[Bb]erths?": "permit",
    r"[Rr]efus(e|es|ed|al|als|ing)": "reject, rejection",
    r"[Ff]leets?": "device set",
    r"[Ff]arewell": "shutdown grace",
    r"[Ll]inger(s|ed)?": "busy poll",
    r"[Cc]rews?": "batch group",
    r"[Ee]mbarks?": "collect",
    r"[Aa]board": "live callers",
    r"[Nn]ewcomers?": "arrival",
    r"call_beside": "call",
    r"Apart": "(remove)",
    r"AsItIs": "optional layer",
    r"[Tt]roubles?": "problems",
    r"Outbox": "append buffer",
    r"[Hh]andover": "zero copy",
    r"NoCode": "UnsupportedBackend",
    r"AnswerLayer": "ErrorResponseLayer",
    r"[Ee]ntrance": "sender",
    r"Patience": "timeouts",
    r"caller (has |had )?left": "request cancelled",
    r"the time was up": "deadline exceeded",
}
BANNED_IN = ["src", "examples", "proto", "deploy", "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"]
BANNED_SUFFIXES = {".rs", ".md", ".toml", ".yml", ".json", ".proto", ".cu", ".cuh"}

# Lines of code, without blank lines, comments and tests. They only go down: the aim is 9 000.
MAX_MIDDLEWARE_LINES = 10_050
MAX_LAYER_LINES = 900
NOT_A_LAYER = {"mod.rs"}

DOCUMENTS = ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "README.md"]
# What a repository path in a document begins with.
PATHS = re.compile(r"`((?:src|tests|benches|examples|scripts|deploy|proto|\.ci|\.github)/[\w./-]*|\.ci/run)`")


def without_tests(text):
    """Rust source without its `#[cfg(test)]` modules."""
    return re.sub(r"(?ms)^#\[cfg\((?:test|all\(test[^\n]*)\)\]\n(?:#\[[^\n]*\]\n)*(?:pub(?:\(\w+\))? )?mod \w+ \{.*?^\}\n", "", text)


def code(text):
    """Rust source without comments and without the contents of strings."""
    text = re.sub(r"(?m)^\s*//.*$", "", text)
    text = text.replace("'\"'", "").replace("b'\"'", "")
    text = re.sub(r'r#+".*?"#+', '""', text, flags=re.DOTALL)
    text = re.sub(r'"(?:\\.|[^"\\])*"', '""', text, flags=re.DOTALL)
    text = re.sub(r"//.*", "", text)
    # What only documentation or tests name.
    return re.sub(r"#\[cfg\((?:doc|test)\)\]\s*(?:pub(?:\(\w+\))? )?use [^;]*;", "", text)


def rust_files(folder):
    return sorted(folder.rglob("*.rs"))


def module_of(path, source):
    """The top module that a file belongs to, or None for the crate's root."""
    first = path.relative_to(source).parts[0].removesuffix(".rs")
    return None if first in ("lib", "main") else first


def is_test(path, source):
    return "tests" in path.relative_to(source).parts or path.name in ("tests.rs", "loom.rs")


def imported(text):
    """The top modules that `crate::` paths of this code name, with the path as it is written."""
    text = re.sub(r"\s+", " ", text)
    for found in re.finditer(r"\b(?:crate|tower_kernels)::(\{|[a-z_]\w*)", text):
        if found.group(1) != "{":
            yield found.group(1), text[found.start():found.start() + 60]
            continue
        # The names at the first level of a group.
        depth, name = 1, ""
        for character in text[found.end():]:
            depth += {"{": 1, "}": -1}.get(character, 0)
            if depth == 0 or (depth == 1 and character == ","):
                yield re.split(r"::| |\{", name.strip())[0], text[found.start():found.start() + 60]
                name = ""
                if depth == 0:
                    break
            else:
                name += character


def check_imports(root):
    """Each module imports only what stands below it."""
    source = root / "src"
    problems = []
    for path in rust_files(source):
        module = module_of(path, source)
        if module not in RANK or is_test(path, source):
            continue
        for name, where in imported(code(without_tests(path.read_text()))):
            target = ALIASES.get(name, name)
            if target in RANK and RANK[target] < RANK[module]:
                problems.append(f"{path.relative_to(root)}: `{module}` imports `{name}`, which stands above it: {where}")
    return problems


def check_modules(root):
    """Each module of the crate has a place in the direction of imports."""
    known = RANK.keys() | {"lib", "main", "guide", "compile_errors"}
    found = {path.name.removesuffix(".rs") for path in (root / "src").iterdir() if path.suffix in ("", ".rs")}
    return [f"src/{name}: has no place in LAYERS of scripts/check_tree.py" for name in sorted(found - known)]


def check_words(root):
    """No banned word in what people read."""
    word = re.compile("|".join(rf"(?P<w{index}>\b(?:{pattern})\b)" for index, pattern in enumerate(BANNED)))
    meanings = list(BANNED.values())
    problems = []
    for place in BANNED_IN:
        start = root / place
        paths = sorted(start.rglob("*")) if start.is_dir() else [start]
        for path in paths:
            if path.suffix not in BANNED_SUFFIXES or not path.is_file():
                continue
            for number, line in enumerate(path.read_text().splitlines(), 1):
                for found in word.finditer(line):
                    index = int(found.lastgroup[1:])
                    problems.append(f"{path.relative_to(root)}:{number}: `{found.group()}`: say {meanings[index]}")
    return problems


def lines(path):
    text = without_tests(path.read_text())
    return sum(1 for line in text.splitlines() if line.strip() and not line.strip().startswith("//"))


def layer_lines(root):
    """Lines of code of each layer."""
    counts = {}
    middleware = root / "src" / "middleware"
    for path in rust_files(middleware):
        if not is_test(path, middleware):
            layer = path.relative_to(middleware).parts[0]
            counts[layer] = counts.get(layer, 0) + lines(path)
    return counts


def check_sizes(root):
    """The layers stay as small as they are meant to be."""
    counts = layer_lines(root)
    problems = [
        f"src/middleware/{layer}: {count} lines of code, and {MAX_LAYER_LINES} is the most"
        for layer, count in sorted(counts.items())
        if count > MAX_LAYER_LINES and layer not in NOT_A_LAYER
    ]
    if sum(counts.values()) > MAX_MIDDLEWARE_LINES:
        problems.append(f"src/middleware: {sum(counts.values())} lines of code, and {MAX_MIDDLEWARE_LINES} is the most")
    return problems


def check_documents(root):
    """Files that documents name exist."""
    problems = []
    for document in DOCUMENTS:
        path = root / document
        if not path.exists():
            problems.append(f"{document}: missing")
            continue
        for name in PATHS.findall(path.read_text()):
            if not (root / name).exists():
                problems.append(f"{document}: names `{name}`, which does not exist")
    return problems


CHECKS = [check_modules, check_imports, check_words, check_sizes, check_documents]


def self_test():
    """Each check finds what is planted for it, and nothing in a tree that is clean."""

    def tree(folder, files):
        for name, text in files.items():
            path = pathlib.Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return pathlib.Path(folder)

    clean = {
        "src/lib.rs": "pub mod service;\n",
        "src/service/mod.rs": "//! See [`Local`](crate::backends::Local).\nuse crate::{error::Classify, middleware};\n",
        "src/middleware/timeout/mod.rs": "fn a() {}\n",
        **{document: "See `src/lib.rs`.\n" for document in DOCUMENTS},
    }
    planted = [
        (check_imports, "src/service/a.rs", "use crate::backends::Local;\n"),
        (check_imports, "src/service/a.rs", "use crate::{\n    error::{A, B},\n    servers::http,\n};\n"),
        (check_imports, "src/error/a.rs", "fn a() { crate::service::check() }\n"),
        (check_imports, "src/middleware/a.rs", "use crate::axum::KernelRouter;\n"),
        (check_modules, "src/other/mod.rs", "\n"),
        (check_words, "src/service/a.rs", "/// Refuses requests.\n// It is refused.\n"),
        (check_words, "README.md", "A ledger, `src/lib.rs`.\n"),
        (check_sizes, "src/middleware/timeout/a.rs", "fn a() {}\n" * (MAX_LAYER_LINES + 1)),
        (check_documents, "ARCHITECTURE.md", "See `src/nowhere.rs`.\n"),
    ]
    for check, name, text in planted:
        with tempfile.TemporaryDirectory() as folder:
            root = tree(folder, clean)
            for other in CHECKS:
                assert other(root) == [], (other.__name__, other(root))
            tree(folder, {name: text})
            assert check(root), f"{check.__name__} does not find what is planted in {name}"
    print(f"all {len(planted)} planted violations are found")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--self-test", action="store_true", help="show that each check fails on a planted violation")
    if arguments.parse_args().self_test:
        self_test()
        return
    problems = [problem for check in CHECKS for problem in check(ROOT)]
    print(*problems, sep="\n")
    counts = layer_lines(ROOT)
    print(f"layers: {sum(counts.values())} lines of code; the largest: {max(counts, key=counts.get)}, {max(counts.values())}")
    if problems:
        sys.exit(f"{len(problems)} problems")


main()
