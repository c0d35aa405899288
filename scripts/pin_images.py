#!/usr/bin/env python3
"""Asks registries for the digests of the images that deploy/ names, and writes them there.

    python3 scripts/pin_images.py              shows each tag, the digest that is written down, and the registry's
    python3 scripts/pin_images.py --write      writes the registry's

Needs docker with buildx, and a network. To go to another tag, change it in the file, keep the digest of the old one, and
run this with --write. Ends with 1 where a digest is not the one of its tag, and with 2 where a registry cannot be asked.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent
FILES = [ROOT / "deploy/Dockerfile", *sorted((ROOT / "deploy").glob("docker-compose*.yml"))]
IMAGE = re.compile(r"([\w./-]+:[\w.-]+)@(sha256:[0-9a-f]{64})")


def digest(image):
    """That of the index of all platforms, as `docker pull` takes it."""
    command = ["docker", "buildx", "imagetools", "inspect", image, "--format", "{{.Manifest.Digest}}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unasked(f"{image}: {error}") from error
    found = done.stdout.strip()
    if done.returncode != 0 or not re.fullmatch(r"sha256:[0-9a-f]{64}", found):
        raise Unasked(f"{image}: {done.stderr.strip() or found}")
    return found


class Unasked(Exception):
    """A registry that has not said."""


def main(write):
    stale = 0
    for path in FILES:
        text = path.read_text()
        for image, written in dict.fromkeys(IMAGE.findall(text)):
            found = digest(image)
            stale += found != written
            print(f"{path.relative_to(ROOT)}: {image}\n    written   {written}\n    registry  {found}")
            text = text.replace(f"{image}@{written}", f"{image}@{found}")
        if write:
            path.write_text(text)
    return 1 if stale and not write else 0


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["--write"]):
        sys.exit(__doc__)
    try:
        sys.exit(main(sys.argv[1:] == ["--write"]))
    except Unasked as error:
        print(error, file=sys.stderr)
        sys.exit(2)
