use jsonwebtoken::{Algorithm, DecodingKey, Validation, errors};
use serde_json::Value;

use super::provider;

/// A key that verifies the signatures of tokens, with its algorithm.
///
/// Tokens that name another algorithm are rejected. Otherwise an attacker could sign a token as HMAC with the public
/// key as its secret.
#[derive(Clone, Debug)]
pub struct JwtKey {
    pub(super) key: DecodingKey,
    /// What tokens must have, in the first place the algorithm.
    pub(super) validation: Validation,
}

impl JwtKey {
    /// The minimum for HS256 in [RFC 7518](https://www.rfc-editor.org/rfc/rfc7518#section-3.2).
    const MIN_SECRET_BYTES: usize = 32;

    /// Creates a key for HS256: HMAC with SHA-256, with a secret that the issuer shares.
    ///
    /// # Errors
    /// [`InvalidJwtKey::ShortSecret`] if the secret has fewer than 32 bytes, as it could be found from one token by
    /// trying all. [`InvalidJwtKey::NotSecret`] if it is a key or certificate in PEM, DER, JWK or OpenSSH format: most
    /// of these are public, and anyone who has it could sign tokens.
    pub fn hs256(secret: &[u8]) -> Result<Self, InvalidJwtKey> {
        if is_key_of_another_algorithm(secret) {
            return Err(InvalidJwtKey::NotSecret);
        }
        if secret.len() < Self::MIN_SECRET_BYTES {
            return Err(InvalidJwtKey::ShortSecret);
        }
        let key = DecodingKey::from_secret(secret).map_err(|_| InvalidJwtKey::ShortSecret)?;
        Ok(Self::new(Algorithm::HS256, key))
    }

    /// Creates a key for RS256, RSA (PKCS #1 v1.5) with SHA-256, from a public key in PEM.
    ///
    /// # Errors
    /// [`InvalidJwtKey::NotRsa`] if it is not an RSA public key with 2048 to 4096 bits.
    pub fn rs256_pem(pem: &[u8]) -> Result<Self, InvalidJwtKey> {
        let is_valid = |der: &[u8]| matches!(modulus_bits(der), Some(2048..=4096));
        Self::public(Algorithm::RS256, DecodingKey::from_rsa_pem(pem), is_valid).ok_or(InvalidJwtKey::NotRsa)
    }

    /// Creates a key for ES256, ECDSA on P-256 with SHA-256, from a public key in PEM.
    ///
    /// # Errors
    /// [`InvalidJwtKey::NotP256`] if it is not a public key on P-256.
    pub fn es256_pem(pem: &[u8]) -> Result<Self, InvalidJwtKey> {
        let key = DecodingKey::from_ec_pem(pem);
        Self::public(Algorithm::ES256, key, provider::is_on_p256).ok_or(InvalidJwtKey::NotP256)
    }

    /// Creates a key for EdDSA with Ed25519, from a public key in PEM.
    ///
    /// # Errors
    /// [`InvalidJwtKey::NotEd25519`] if it is not a public key of 32 bytes. That it is a point on edwards25519 is not
    /// checked: a key that is not denies every token.
    pub fn eddsa_pem(pem: &[u8]) -> Result<Self, InvalidJwtKey> {
        let key = DecodingKey::from_ed_pem(pem);
        Self::public(Algorithm::EdDSA, key, |bytes| bytes.len() == 32).ok_or(InvalidJwtKey::NotEd25519)
    }

    /// Creates a public key, unless it cannot be decoded or its bytes are not valid.
    fn public(
        algorithm: Algorithm,
        key: errors::Result<DecodingKey>,
        is_valid: impl Fn(&[u8]) -> bool,
    ) -> Option<Self> {
        let key = key.ok()?;
        key.try_get_as_bytes().is_ok_and(is_valid).then(|| Self::new(algorithm, key))
    }

    fn new(algorithm: Algorithm, key: DecodingKey) -> Self {
        provider::install();
        let mut validation = Validation::new(algorithm);
        validation.validate_nbf = true;
        Self { key, validation }
    }
}

/// Returns whether a secret is a key or certificate of another algorithm, in a common format. A secret may be any
/// bytes, so the formats are matched strictly enough that a random secret does not match.
fn is_key_of_another_algorithm(secret: &[u8]) -> bool {
    let secret = secret.strip_prefix(b"\xef\xbb\xbf").unwrap_or(secret).trim_ascii();
    // PEM, also with its line breaks escaped.
    let is_pem = secret.windows(10).any(|part| part == b"-----BEGIN");
    let is_openssh = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"]
        .iter()
        .any(|name| secret.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.contains(&b' ')));
    let is_jwk =
        || serde_json::from_slice::<Value>(secret).is_ok_and(|jwk| jwk.get("kty").or(jwk.get("keys")).is_some());
    // The body of PEM without its BEGIN and END lines.
    let is_der_in_base64 = || {
        let text: Vec<u8> = secret.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let decoded = std::str::from_utf8(&text).ok().and_then(|text| DecodingKey::from_base64_secret(text).ok());
        decoded.is_some_and(|key| key.try_get_as_bytes().is_ok_and(is_der))
    };
    is_pem || is_openssh || is_jwk() || is_der(secret) || is_der_in_base64()
}

/// Returns whether the bytes are exactly one `SEQUENCE` that begins with another or with an `INTEGER`, as a public key,
/// a private key and a certificate do.
fn is_der(bytes: &[u8]) -> bool {
    element(bytes, 0x30)
        .filter(|(_, rest)| rest.is_empty())
        .is_some_and(|(contents, _)| element(contents, 0x30).or(element(contents, 0x02)).is_some())
}

/// Returns the bits of the modulus in `RSAPublicKey ::= SEQUENCE { modulus INTEGER, publicExponent INTEGER }`, and
/// `None` for a private key, which begins with its version, 0.
fn modulus_bits(der: &[u8]) -> Option<usize> {
    let (sequence, _) = element(der, 0x30)?;
    let (modulus, _) = element(sequence, 0x02)?;
    let leading = modulus.iter().position(|&byte| byte != 0)?;
    let modulus = &modulus[leading..];
    Some(modulus.len() * 8 - modulus[0].leading_zeros() as usize)
}

/// Splits the bytes into the contents of the first element, which must have this tag, and the rest.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[first, length], rest) = der.split_first_chunk()?;
    let (length, rest) = match length {
        ..=0x7f => (usize::from(length), rest),
        0x81 => rest.split_first().map(|(&byte, rest)| (usize::from(byte), rest))?,
        0x82 => rest.split_first_chunk().map(|(&bytes, rest)| (usize::from(u16::from_be_bytes(bytes)), rest))?,
        // No accepted key is longer than 64 KiB.
        _ => return None,
    };
    if first == tag { rest.split_at_checked(length) } else { None }
}

/// The error for a key that cannot verify tokens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidJwtKey {
    /// The secret is short enough to be found by trying all.
    #[error("the secret of HS256 has fewer than 32 bytes")]
    ShortSecret,
    /// The secret is a key or certificate, which may be public.
    #[error(
        "the secret of HS256 is a key or certificate (PEM, DER, JWK or OpenSSH), which may be public: use the algorithm of \
         the key"
    )]
    NotSecret,
    /// The key is not for RS256.
    #[error("not an RSA public key with 2048 to 4096 bits in PEM")]
    NotRsa,
    /// The key is not for ES256.
    #[error("not a public key on P-256 in PEM")]
    NotP256,
    /// The key is not for EdDSA.
    #[error("not an Ed25519 public key in PEM")]
    NotEd25519,
    /// Two keys have the same id.
    #[error("two keys have the id {kid:?}")]
    Twice {
        /// The id, `kid`.
        kid: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, contents: &[u8]) -> Vec<u8> {
        let length = u16::try_from(contents.len()).unwrap().to_be_bytes();
        [&[tag, 0x82], &length[..], contents].concat()
    }

    #[test]
    fn a_modulus_is_measured_from_its_highest_bit() {
        let key = |modulus: &[u8]| der(0x30, &[der(0x02, modulus), vec![0x02, 3, 1, 0, 1]].concat());
        assert_eq!(modulus_bits(&key(&[&[0, 0x80][..], &[0; 255]].concat())), Some(2048));
        assert_eq!(modulus_bits(&key(&[&[1][..], &[0xff; 255]].concat())), Some(2041));
        assert_eq!(modulus_bits(&key(&[0, 0])), None);
        for end in 0..8 {
            assert_eq!(modulus_bits(&key(&[7; 16])[..end]), None, "cut after {end} bytes");
        }
    }

    #[test]
    fn a_private_key_has_no_modulus_bits() {
        // RSAPrivateKey ::= SEQUENCE { version INTEGER (0), modulus INTEGER, .. }
        let private = der(0x30, &[vec![0x02, 1, 0], der(0x02, &[0x55; 256])].concat());
        assert_eq!(modulus_bits(&private), None);
    }

    #[test]
    fn a_short_secret_is_rejected_and_debug_output_has_no_secret() {
        assert_eq!(JwtKey::hs256(&[b'x'; 31]).unwrap_err(), InvalidJwtKey::ShortSecret);
        assert!(!format!("{:?}", JwtKey::hs256(&[b'x'; 32]).unwrap()).contains("120"));
    }
}
