#!/usr/bin/env python3
"""Fails unless `rust-version` is exactly the highest that any dependency in Cargo.lock asks for.

Only what users of the crate build counts: normal and build dependencies with all features, on Linux.
"""

import json
import subprocess
import sys


def cargo(*arguments: str) -> str:
    return subprocess.run(["cargo", *arguments], check=True, capture_output=True, text=True).stdout


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in (text + ".0").split(".")[:2])


metadata = json.loads(cargo("metadata", "--locked", "--all-features", "--format-version", "1"))
packages = {(p["name"], p["version"]): p for p in metadata["packages"]}
lines = cargo("tree", "--locked", "--all-features", "--edges", "normal,build", "--prefix", "none", "--format", "{p}")
used = {(name, v.lstrip("v")) for name, v in (line.split()[:2] for line in lines.splitlines() if line)}

own = next(p for p in metadata["packages"] if p["name"] == "tower-kernels")
# What no dependency says of itself.
asked = {"edition 2024": "1.85", "pulp's feature x86-v4 (AVX-512 intrinsics)": "1.89"}
asked |= {f"{n} {v}": packages[n, v]["rust_version"] for n, v in used if n != own["name"] and packages[n, v]["rust_version"]}
highest = max(asked, key=lambda name: version(asked[name]))
print(f"rust-version = {own['rust_version']}; {highest} asks for {asked[highest]}")
sys.exit(version(own["rust_version"]) != version(asked[highest]))
