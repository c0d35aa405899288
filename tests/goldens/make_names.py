"""Writes the goldens of the kernels of `compliance`: tests/goldens/names.json.

    pip install -r tests/goldens/requirements.txt && python tests/goldens/make_names.py

Scores are those of rapidfuzz, of all pairs of two lists of names, once normalized and once as they are. Names are normalized
here as src/kernels/compliance/names/normalize.rs says, with the tables of Python.
"""

import json
import pathlib
import random
import unicodedata

from rapidfuzz import fuzz
from rapidfuzz.distance import JaroWinkler, Levenshtein

HERE = pathlib.Path(__file__).parent
random.seed(17)

NAMES = """
John Smith
SMITH, John
Smith John
Jon Smyth
Johnathan Smithson
John  Jacob Smith-Jones
Dwayne Johnson
Dixon
Dicksonx
MARTHA
MARHTA
José Ñandú García
Jose Nandu Garcia
García, José
Müller GmbH & Co. KG
Mueller GmbH
Ελένη Παπαδοπούλου
ΕΛΕΝΗ ΠΑΠΑΔΟΠΟΎΛΟΥ
Владимир Владимирович Путин
Путин Владимир
株式会社 日立製作所
日立製作所
محمد بن سلمان
مُحَمَّد سلمان
al-Qaida
Al Qa'ida in the Islamic Maghreb
The Organization of al-Qaida in the Land of the Islamic Maghreb, also known as the Salafist Group for Call and Combat
the the the group group call
a
b
ab
ﬁnance Straße
FINANCE STRASSE
O'Brien
obrien
Trading Company Trading House Limited Liability Partnership of the Eastern Mediterranean Shipping Lines and Agencies
Eastern Mediterranean Shipping Lines and Agencies, Limited Liability Partnership, Trading House of the Trading Company
""".strip().splitlines()


def normalize(name):
    letters = (c for c in unicodedata.normalize("NFKD", name) if unicodedata.combining(c) == 0)
    folded = "".join("".join(lower.lower() for lower in c.upper()) for c in letters)
    return " ".join("".join(c if c.isalnum() else " " for c in folded).split())


def misspelled(name):
    letters = list(name)
    for _ in range(random.randrange(1, 4)):
        at = random.randrange(len(letters))
        action = random.randrange(3)
        if action == 0 and len(letters) > 2:
            del letters[at]
        elif action == 1:
            letters.insert(at, random.choice(letters))
        else:
            letters[at] = random.choice("aeiou")
    words = "".join(letters).split(" ")
    random.shuffle(words)
    return " ".join(words)


def long_name(characters):
    """Words of few letters, so that they have many in common."""
    letters = [random.choice("aabcd") for _ in range(characters)]
    for at in range(5, characters - 2, 7):
        letters[at] = " "
    return "".join(letters)


SCORERS = {
    "jaro_winkler": JaroWinkler.similarity,
    "edit": Levenshtein.normalized_similarity,
    "ratio": lambda a, b: fuzz.ratio(a, b) / 100,
    "token_sort": lambda a, b: fuzz.token_sort_ratio(a, b) / 100,
    "token_set": lambda a, b: fuzz.token_set_ratio(a, b) / 100,
}


def scores(queries, names, prepare):
    queries, names = [prepare(name) for name in queries], [prepare(name) for name in names]
    return {
        scorer: [[round(score(query, name), 9) for name in names] for query in queries]
        for scorer, score in SCORERS.items()
    }


# Around the 64 characters of a word of bits, and several words.
LONG = [long_name(characters) for characters in (63, 64, 65, 66, 127, 128, 129, 300)]
QUERIES = [misspelled(name) for name in NAMES[::2]] + [name for name in LONG[::2]] + ["Smith", "xyz", "the"]
LIST = NAMES + LONG

goldens = {
    "queries": QUERIES,
    "names": LIST,
    "normalized": [normalize(name) for name in LIST],
    "scores": scores(QUERIES, LIST, normalize),
    "raw_scores": scores(QUERIES, LIST, str),
}
lines = ",\n".join(f'"{name}":{json.dumps(value, ensure_ascii=False, separators=(",", ":"))}' for name, value in goldens.items())
(HERE / "names.json").write_text("{\n" + lines + "\n}\n")
