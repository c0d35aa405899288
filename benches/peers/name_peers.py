"""Screening of names beside rapidfuzz: the same names, the same number of threads, one run.

    pip install rapidfuzz numpy && python benches/peers/name_peers.py [threads] [queries] [names]

rapidfuzz computes the matrix of all scores (`process.cdist`), those below the least score as 0; ours returns the best ten
of each name. With a GPU, compare with the rows of `screening` of `cargo bench --bench cuda -- catalogue`, whose names have
the same form.
"""

import os
import random
import subprocess
import sys
import tempfile
import time

import numpy
from rapidfuzz import fuzz, process
from rapidfuzz.distance import JaroWinkler, Levenshtein

THREADS = int(sys.argv[1]) if len(sys.argv) > 1 else 2
QUERIES = int(sys.argv[2]) if len(sys.argv) > 2 else 100
NAMES = int(sys.argv[3]) if len(sys.argv) > 3 else 200_000
SCORERS = {
    "JaroWinkler": (JaroWinkler.similarity, 1),
    "Edit": (Levenshtein.normalized_similarity, 1),
    "Ratio": (fuzz.ratio, 100),
    "TokenSort": (fuzz.token_sort_ratio, 100),
    "TokenSet": (fuzz.token_set_ratio, 100),
}
CONSONANTS = ["b", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "sh", "ch", "kh", "st", "tr"]
VOWELS = ["a", "e", "i", "o", "u", "ia", "ei", "ou"]
ENDINGS = ["", "n", "r", "s", "l", "m", "d", "v", "ev", "ov", "in", "man", "son"]


def word(syllables):
    letters = (random.choice(CONSONANTS) + random.choice(VOWELS) for _ in range(syllables))
    return "".join(letters) + random.choice(ENDINGS)


def simulate():
    """Names of two or three words, and some of them misspelled."""
    random.seed(11)
    first = [word(random.choice((1, 2, 2, 3))) for _ in range(2_500)]
    last = [word(random.choice((2, 2, 3, 3))) for _ in range(30_000)]
    names = []
    for _ in range(NAMES):
        words = [random.choice(first), random.choice(last)]
        if random.random() < 0.3:
            words.insert(1, random.choice(first))
        names.append(" ".join(words))
    queries = []
    for _ in range(QUERIES):
        letters = list(random.choice(names))
        for _ in range(random.choice((0, 1, 1, 2, 3))):
            letters[random.randrange(len(letters))] = random.choice("abcdefghijklmnopqrstuvwxyz")
        queries.append("".join(letters))
    return names, queries


def main():
    names, queries = simulate()
    with tempfile.NamedTemporaryFile("w") as file:
        file.write("\n".join(names) + "\n\n" + "\n".join(queries))
        file.flush()
        environment = os.environ | {"RAYON_NUM_THREADS": str(THREADS), "NAMES": file.name}
        command = ["cargo", "bench", "--quiet", "--bench", "cpu_kernels", "--", "names"]
        output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    print(f"{QUERIES} names against {NAMES}, {THREADS} threads; ms")
    for line in (line for line in output.splitlines() if line.startswith("names")):
        ours = dict(field.split("=") for field in line.split()[1:])
        scorer, scale = SCORERS[ours["scorer"]]
        cutoff = float(ours["min_score"]) * scale or None
        start = time.perf_counter()
        process.cdist(queries, names, scorer=scorer, score_cutoff=cutoff, workers=THREADS, dtype=numpy.float32)
        theirs = (time.perf_counter() - start) * 1e3
        print(
            f"{ours['scorer']:12} min_score {ours['min_score']:4}  rapidfuzz {theirs:9.1f}  ours {float(ours['ms']):9.1f}"
            f"  rapidfuzz / ours {theirs / float(ours['ms']):6.1f}"
        )


main()
