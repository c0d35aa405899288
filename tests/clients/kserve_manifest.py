#!/usr/bin/env python3
"""Checks manifests of KServe against the types of KServe's own package and of Kubernetes' client, which it brings.

    tests/clients/kserve_manifest.py deploy/kserve/serving-runtime.yml
"""

import re
import sys

import kserve
import kubernetes.client
import yaml

PRIMITIVES = {"str": str, "int": int, "float": (int, float), "bool": bool}


def check(holds, *what):
    if not holds:
        raise SystemExit(" ".join(map(str, what)))


def validate(value, kind, path):
    """Every field of the value is one of the type, has its type, and none that is required is missing."""
    if found := re.fullmatch(r"[Ll]ist\[(.+)\]", kind):
        check(isinstance(value, list), path, "is not a list")
        for index, item in enumerate(value):
            validate(item, found[1], f"{path}[{index}]")
        return
    if found := re.fullmatch(r"[Dd]ict[(\[]str, (.+)[)\]]", kind):
        check(isinstance(value, dict), path, "is not an object")
        for key, item in value.items():
            validate(item, found[1], f"{path}.{key}")
        return
    if kind in PRIMITIVES:
        check(isinstance(value, PRIMITIVES[kind]), path, "is not of type", kind)
        return
    known = getattr(kserve, kind, None) or getattr(kubernetes.client, kind, None)
    if known is None:
        # What may be of several types, such as a port or a quantity.
        check(kind in ("object", "IntOrString", "ResourceQuantity"), path, "is of an unknown type", kind)
        return
    check(isinstance(value, dict), path, "is not an object")
    names = {name: field for field, name in known.attribute_map.items()}
    for key, item in value.items():
        check(key in names, f"{path}.{key}", "is not a field of", kind)
        validate(item, known.openapi_types[names[key]], f"{path}.{key}")
    try:
        known(**{names[key]: item for key, item in value.items()})
    except ValueError as error:
        check(False, path, "is no", kind, error)


for document in yaml.safe_load_all(open(sys.argv[1])):
    version = document["apiVersion"].removeprefix("serving.kserve.io/")
    kind = f"{version[0].upper()}{version[1:]}{document['kind']}"
    validate(document, kind, document["kind"])
    print(f"ok  {document['kind']} {document['metadata']['name']} is a {kind}")
