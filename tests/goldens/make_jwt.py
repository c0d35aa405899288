"""Writes jwt.json: keys, and tokens made by PyJWT, of which a verifier must take some and refuse the others.

    pip install -r tests/goldens/requirements.txt && python tests/goldens/make_jwt.py

The keys are made anew at each run and only their public halves are written down, so no private key is in the repository;
the secret of HS256 is for these tokens alone. What is valid stays so until the year 2100. PyJWT itself is asked for its
opinion of each token that it can judge, and must agree.
"""

import base64
import hashlib
import hmac
import json
import pathlib

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

HERE = pathlib.Path(__file__).parent
SECRET = "the secret of the golden tokens, and of nothing else"
PAST, FUTURE = 1_600_000_000, 4_102_444_800
GOOD = {"sub": "acme", "iss": "https://login.example", "aud": "kernels", "exp": FUTURE}

HEADER = {"alg": "HS256", "typ": "JWT"}

PRIVATE = {
    "hs256": SECRET,
    "rs256": rsa.generate_private_key(65537, 2048),
    "es256": ec.generate_private_key(ec.SECP256R1()),
    "eddsa": ed25519.Ed25519PrivateKey.generate(),
}
ALGORITHM = {"hs256": "HS256", "rs256": "RS256", "es256": "ES256", "eddsa": "EdDSA"}


def pem(private):
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return private.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def raw(header, payload, algorithm, key):
    """A token that `jwt.encode` would not write."""
    text = payload if isinstance(payload, str) else json.dumps(payload)
    head = header if isinstance(header, str) else json.dumps(header)
    message = f"{b64(head.encode())}.{b64(text.encode())}"
    worker = jwt.get_algorithm_by_name(algorithm)
    return f"{message}.{b64(worker.sign(message.encode(), worker.prepare_key(key)))}"


def hs256_by_hand(payload, secret):
    """PyJWT refuses to take a public key for a secret, which is what the attack is about."""
    message = f"{b64(json.dumps({'alg': 'HS256', 'typ': 'JWT'}).encode())}.{b64(json.dumps(payload).encode())}"
    return f"{message}.{b64(hmac.new(secret, message.encode(), hashlib.sha256).digest())}"


def without(*claims):
    return {claim: value for claim, value in GOOD.items() if claim not in claims}


cases = []


def case(verifier, name, token, tenant=None, reason=None, priority=None):
    assert (tenant is None) != (reason is None)
    fields = {"verifier": verifier, "name": name, "token": token, "tenant": tenant, "reason": reason, "priority": priority}
    cases.append({field: value for field, value in fields.items() if value is not None})
    if verifier in ALGORITHM:
        key = SECRET if verifier == "hs256" else pem(PRIVATE[verifier])
        options = {"require": ["exp", "iss", "aud", "sub"], "strict_aud": False}
        try:
            jwt.decode(token, key, [ALGORITHM[verifier]], options, audience="kernels", issuer=GOOD["iss"])
            taken = True
        except jwt.InvalidTokenError:
            taken = False
        # PyJWT lets a subject be empty, and claims and headers be there twice, of which the last one counts.
        if name not in ("an empty subject", "a claim that is there twice", "an algorithm that is there twice"):
            assert taken == (tenant is not None), (verifier, name, taken)


def make():
    for verifier, key in PRIVATE.items():
        algorithm = ALGORITHM[verifier]
        good = jwt.encode(GOOD, key, algorithm)
        case(verifier, "good", good, "acme")
        case(verifier, "expired", jwt.encode({**GOOD, "exp": PAST}, key, algorithm), reason="expired")
        head, body, signature = good.split(".")
        forged = b64(json.dumps({**GOOD, "sub": "other"}).encode())
        case(verifier, "other claims under the signature", f"{head}.{forged}.{signature}", reason="signature")
        case(verifier, "no signature", f"{head}.{body}.", reason="signature")
        case(verifier, "half a signature", f"{head}.{body}.{signature[: len(signature) // 8 * 4]}", reason="signature")
        none = b64(json.dumps({"alg": "none", "typ": "JWT"}).encode())
        case(verifier, "alg none", f"{none}.{body}.", reason="cannot be read")
        case(verifier, "alg none with a signature", f"{none}.{body}.{signature}", reason="cannot be read")

    hs = PRIVATE["hs256"]

    def hs256(payload):
        return jwt.encode(payload, hs, "HS256")

    case("hs256", "one audience of several", hs256({**GOOD, "aud": ["other", "kernels"]}), "acme")
    case("hs256", "nbf in the past", hs256({**GOOD, "nbf": PAST}), "acme")
    case("hs256", "a kid that nobody asked for", jwt.encode(GOOD, hs, "HS256", {"kid": "x"}), "acme")
    case("hs256", "nbf in the future", hs256({**GOOD, "nbf": FUTURE}), reason="not valid yet")
    case("hs256", "no exp", hs256(without("exp")), reason="no exp")
    case("hs256", "exp as a text", hs256({**GOOD, "exp": "never"}), reason="no exp")
    case("hs256", "exp before 1970", hs256({**GOOD, "exp": -1}), reason="no exp")
    case("hs256", "another audience", hs256({**GOOD, "aud": "other"}), reason="audience")
    case("hs256", "no audience", hs256(without("aud")), reason="no aud")
    case("hs256", "another issuer", hs256({**GOOD, "iss": "https://evil.example"}), reason="issuer")
    case("hs256", "no issuer", hs256(without("iss")), reason="no iss")
    case("hs256", "no subject", hs256(without("sub")), reason='no tenant in its claim "sub"')
    case("hs256", "an empty subject", hs256({**GOOD, "sub": ""}), reason="no tenant")
    case("hs256", "a subject that is no text", hs256({**GOOD, "sub": 7}), reason="no tenant")
    case("hs256", "another secret", jwt.encode(GOOD, SECRET.upper(), "HS256"), reason="signature")
    case("hs256", "another HMAC", jwt.encode(GOOD, hs + "0" * 32, "HS512"), reason="algorithm")
    case("hs256", "an issuer with a slash more", hs256({**GOOD, "iss": GOOD["iss"] + "/"}), reason="issuer")
    case("hs256", "a list of issuers", raw(HEADER, {**GOOD, "iss": [GOOD["iss"]]}, "HS256", hs), reason="iss cannot be read")
    case("hs256", "an audience in capitals", hs256({**GOOD, "aud": "KERNELS"}), reason="audience")
    case("hs256", "an empty list of audiences", hs256({**GOOD, "aud": []}), reason="audience")
    case("hs256", "an audience among what is none", hs256({**GOOD, "aud": ["kernels", 7]}), reason="no aud")
    case("hs256", "nobody for an audience", hs256({**GOOD, "aud": None}), reason="no aud")
    case("hs256", "exp with a fraction", hs256({**GOOD, "exp": FUTURE + 0.5}), "acme")
    case("hs256", "nbf as a text", raw(HEADER, {**GOOD, "nbf": "now"}, "HS256", hs), reason="nbf cannot be read")
    case("hs256", "iat in the past", hs256({**GOOD, "iat": PAST}), "acme")
    case("hs256", "iat as a text", raw(HEADER, {**GOOD, "iat": "now"}, "HS256", hs), reason="iat cannot be read")
    header = HEADER
    crit = raw({**header, "crit": ["b64"]}, GOOD, "HS256", hs)
    case("hs256", "a critical extension", crit, reason="crit")
    twice = json.dumps(GOOD)[:-1] + f', "exp": {FUTURE}}}'
    case("hs256", "a claim that is there twice", raw(header, twice, "HS256", hs), reason="cannot be read")
    algorithms = '{"alg": "none", "alg": "HS256", "typ": "JWT"}'
    case("hs256", "an algorithm that is there twice", raw(algorithms, GOOD, "HS256", hs), reason="cannot be read")
    case("hs256", "claims that are a list", raw(header, "[]", "HS256", hs), reason="cannot be read")
    good = hs256(GOOD)
    for name, token in {
        "two parts": good.rsplit(".", 1)[0],
        "four parts": good + ".e30",
        "five parts, as if it were encrypted": good + ".e30.e30",
        "not base64": "a.b.c",
        "nothing but dots": "..",
        "an API key": "not-a-token-at-all",
    }.items():
        case("hs256", name, token, reason="cannot be read")

    public = pem(PRIVATE["rs256"]).encode()
    der = base64.b64decode("".join(public.decode().split("\n")[1:-2]))
    for name, secret in {"PEM": public, "PEM without its last line end": public.rstrip(), "DER": der}.items():
        token = hs256_by_hand(GOOD, secret)
        case("rs256", f"HMAC under the public key in {name}", token, reason="algorithm")
    case("rs256", "another of RSA's algorithms", jwt.encode(GOOD, PRIVATE["rs256"], "RS384"), reason="algorithm")
    case("rs256", "PSS", jwt.encode(GOOD, PRIVATE["rs256"], "PS256"), reason="algorithm")
    thief = rsa.generate_private_key(65537, 2048)
    case("rs256", "another key", jwt.encode(GOOD, thief, "RS256"), reason="signature")
    own = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(thief.public_key()))
    header = {"jwk": {**own, "alg": "RS256", "use": "sig"}, "jku": "https://evil.example/keys"}
    case("rs256", "a key that it brings along", jwt.encode(GOOD, thief, "RS256", header), reason="signature")
    case("es256", "another curve", jwt.encode(GOOD, ec.generate_private_key(ec.SECP384R1()), "ES384"), reason="algorithm")
    unsigned = jwt.encode(GOOD, PRIVATE["es256"], "ES256").rsplit(".", 1)[0]
    case("es256", "a signature of noughts", f"{unsigned}.{b64(bytes(64))}", reason="signature")

    # By id: "old" is the HMAC key, "new" the RSA key.
    case("by_id", "the old key", jwt.encode(GOOD, hs, "HS256", {"kid": "old"}), "acme")
    case("by_id", "the new key", jwt.encode(GOOD, PRIVATE["rs256"], "RS256", {"kid": "new"}), "acme")
    case("by_id", "an unknown key", jwt.encode(GOOD, hs, "HS256", {"kid": "older"}), reason="no key of its kid")
    case("by_id", "no kid", good, reason="names no kid")
    case("by_id", "the other's algorithm", jwt.encode(GOOD, hs, "HS256", {"kid": "new"}), reason="algorithm")
    case("by_id", "the other's key", jwt.encode(GOOD, PRIVATE["rs256"], "RS256", {"kid": "old"}), reason="algorithm")

    # Without an issuer and an audience to ask for.
    case("any", "an issuer", hs256(without("aud")), "acme")
    case("any", "no issuer", hs256(without("aud", "iss")), "acme")
    case("any", "an audience, which may be another", good, reason="audience")

    for name, aud in {"a number": 7, "nobody": None, "a list with a number": ["kernels", 7]}.items():
        case("any", f"{name} for an audience", hs256({**GOOD, "aud": aud}), reason="aud cannot be read")
    case("any", "an empty list of audiences", hs256({**GOOD, "aud": []}), reason="audience")
    case("any", "a number for an issuer", raw(HEADER, {**without("aud"), "iss": 7}, "HS256", hs), reason="iss cannot be read")
    case("any", "the longest tenant", hs256({**without("aud"), "sub": "x" * 128}), "x" * 128)
    for name, sub in {"one that is too long": "x" * 129, "two lines": "a\nb", "a space": "a b", "an accent": "é"}.items():
        case("any", f"{name} for a tenant", hs256({**without("aud"), "sub": sub}), reason="no tenant")
    twice = json.dumps(without("aud"))[:-1] + ', "sub": "root"}'
    case("any", "a tenant that is there twice", raw(HEADER, twice, "HS256", hs), reason="cannot be read")

    # The tenant in `org`, the priority in `class`.
    case("claims", "no priority", hs256({**GOOD, "org": "umbrella"}), "umbrella")
    case("claims", "a priority", hs256({**GOOD, "org": "umbrella", "class": "low"}), "umbrella", priority="low")
    case("claims", "an unknown priority", hs256({**GOOD, "org": "umbrella", "class": "root"}), reason="priority")
    case("claims", "no tenant", good, reason='no tenant in its claim "org"')

    keys = {"hs256": SECRET} | {name: pem(key) for name, key in PRIVATE.items() if name != "hs256"}
    refused = {
        "RSA of 1024 bits": pem(rsa.generate_private_key(65537, 1024)),
        "a point on P-384": pem(ec.generate_private_key(ec.SECP384R1())),
        "nothing": "",
        "no PEM": SECRET,
    }
    # What is no secret of HS256.
    ssh = PRIVATE["rs256"].public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    private = PRIVATE["es256"].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"unknown")
    )
    secrets = {name: pem(key) for name, key in PRIVATE.items() if name != "hs256"} | {
        "PEM after an empty line": "\n" + public.decode(),
        "PEM in one line": public.decode().replace("\n", "\\n"),
        "PEM without its first line and its last": "".join(public.decode().split("\n")[1:-2]),
        "PKCS #1": PRIVATE["rs256"].public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.PKCS1
        ).decode(),
        "a private key under a password": private.decode(),
        "JWK": jwt.algorithms.RSAAlgorithm.to_jwk(PRIVATE["rs256"].public_key()),
        "JWK set": json.dumps({"keys": [json.loads(jwt.algorithms.ECAlgorithm.to_jwk(PRIVATE["es256"].public_key()))]}),
        "OpenSSH": ssh.decode(),
    }
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    parts = {"keys": keys, "refused_keys": refused, "refused_secrets": secrets}
    parts = ",\n".join(f'"{name}":{json.dumps(part)}' for name, part in parts.items())
    document = f'{{{parts},\n"tokens":[\n{lines}\n]}}\n'
    (HERE / "jwt.json").write_text(document)


if __name__ == "__main__":
    make()
