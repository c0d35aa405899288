use jsonwebtoken::{Algorithm, DecodingKey, crypto};

use super::provider;

/// What the signature of a token is checked with: a key, and the one algorithm that it is for.
///
/// A token that names another algorithm is refused, so that nobody has a token checked as HMAC with a public key for its
/// secret.
#[derive(Clone, Debug)]
pub struct JwtKey {
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

impl JwtKey {
    /// As [RFC 7518](https://www.rfc-editor.org/rfc/rfc7518#section-3.2) asks of HS256.
    const SHORTEST_SECRET: usize = 32;

    /// HS256: HMAC with SHA-256, under a secret that the issuer holds as well.
    ///
    /// # Errors
    /// Where it has fewer than 32 bytes: whoever has seen one token can search for it. Where it is a key or a certificate in
    /// PEM, DER, JWK or OpenSSH's form: those are public in most cases, and whoever has a public key could sign tokens with
    /// it.
    pub fn hs256(secret: &[u8]) -> Result<Self, InvalidJwtKey> {
        if is_key_of_another_algorithm(secret) {
            return Err(InvalidJwtKey::NotSecret);
        }
        if secret.len() < Self::SHORTEST_SECRET {
            return Err(InvalidJwtKey::ShortSecret);
        }
        let key = DecodingKey::from_secret(secret).map_err(|_| InvalidJwtKey::ShortSecret)?;
        Self::checked(Algorithm::HS256, key)
    }

    /// RS256: RSA (PKCS #1 v1.5) with SHA-256, by a public key in PEM.
    ///
    /// # Errors
    /// Where it is not the public key of RSA with 2048 to 4096 bits.
    pub fn rs256_pem(pem: &[u8]) -> Result<Self, InvalidJwtKey> {
        let key = DecodingKey::from_rsa_pem(pem).map_err(|_| InvalidJwtKey::NotRsa)?;
        match key.try_get_as_bytes().ok().and_then(modulus_bits) {
            Some(2048..=4096) => Self::checked(Algorithm::RS256, key),
            _ => Err(InvalidJwtKey::NotRsa),
        }
    }

    /// ES256: ECDSA on P-256 with SHA-256, by a public key in PEM.
    ///
    /// # Errors
    /// Where it is not the public key of a point on P-256.
    pub fn es256_pem(pem: &[u8]) -> Result<Self, InvalidJwtKey> {
        let key = DecodingKey::from_ec_pem(pem).map_err(|_| InvalidJwtKey::NotP256)?;
        if !key.try_get_as_bytes().is_ok_and(provider::is_on_p256) {
            return Err(InvalidJwtKey::NotP256);
        }
        Self::checked(Algorithm::ES256, key)
    }

    /// EdDSA: Ed25519, by a public key in PEM.
    ///
    /// # Errors
    /// Where it is not a public key of 32 bytes. One that is no point on edwards25519 is noticed only by its denying
    /// every token.
    pub fn eddsa_pem(pem: &[u8]) -> Result<Self, InvalidJwtKey> {
        let key = DecodingKey::from_ed_pem(pem).map_err(|_| InvalidJwtKey::NotEd25519)?;
        Self::checked(Algorithm::EdDSA, key)
    }

    /// Has the library take it up once, so that a key that it cannot use is an error now and not at each token.
    fn checked(algorithm: Algorithm, key: DecodingKey) -> Result<Self, InvalidJwtKey> {
        provider::install();
        match crypto::verify("", b"", &key, algorithm) {
            Ok(_) => Ok(Self { algorithm, key }),
            Err(_) if algorithm == Algorithm::ES256 => Err(InvalidJwtKey::NotP256),
            Err(_) if algorithm == Algorithm::EdDSA => Err(InvalidJwtKey::NotEd25519),
            Err(_) if algorithm == Algorithm::RS256 => Err(InvalidJwtKey::NotRsa),
            Err(_) => Err(InvalidJwtKey::ShortSecret),
        }
    }
}

/// Whether a secret is a key of another algorithm, most likely a public one, in one of the forms in which those are handed
/// out. Not the other way round: a secret may be any bytes, so only what cannot be one by chance counts.
fn is_key_of_another_algorithm(secret: &[u8]) -> bool {
    let secret = secret.strip_prefix(b"\xef\xbb\xbf").unwrap_or(secret).trim_ascii();
    // PEM, in lines or in one line with `\n` in it.
    let is_pem = secret.windows(10).any(|part| part == b"-----BEGIN");
    let is_openssh = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"].iter().any(|name| {
        let after = secret.strip_prefix(name.as_bytes());
        after.is_some_and(|rest| rest.contains(&b' '))
    });
    let is_jwk = || {
        let parsed: Result<serde_json::Value, _> = serde_json::from_slice(secret);
        parsed.is_ok_and(|jwk| jwk.get("kty").or(jwk.get("keys")).is_some())
    };
    // DER as it is, or what lies between the lines of PEM.
    let is_der_in_base64 = || {
        let text: Vec<u8> = secret.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let decoded = std::str::from_utf8(&text).ok().and_then(|text| DecodingKey::from_base64_secret(text).ok());
        decoded.is_some_and(|key| key.try_get_as_bytes().is_ok_and(is_der))
    };
    is_pem || is_openssh || is_jwk() || is_der(secret) || is_der_in_base64()
}

/// Whether this is one `SEQUENCE` from end to end, that begins with another or with a number: a public key, a private one
/// or a certificate.
fn is_der(bytes: &[u8]) -> bool {
    element(bytes, 0x30)
        .filter(|(_, rest)| rest.is_empty())
        .is_some_and(|(contents, _)| element(contents, 0x30).or(element(contents, 0x02)).is_some())
}

/// How long the modulus is in `RSAPublicKey ::= SEQUENCE { modulus INTEGER, publicExponent INTEGER }`. A private key,
/// which begins with the number of its version, has one of no length.
fn modulus_bits(der: &[u8]) -> Option<usize> {
    let (sequence, _) = element(der, 0x30)?;
    let (modulus, _) = element(sequence, 0x02)?;
    let leading = modulus.iter().position(|&byte| byte != 0)?;
    let modulus = &modulus[leading..];
    Some(modulus.len() * 8 - modulus[0].leading_zeros() as usize)
}

/// The contents of the first element, which must be of this type, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[first, length], rest) = der.split_first_chunk()?;
    let (length, rest) = match length {
        ..=0x7f => (usize::from(length), rest),
        0x81 => rest.split_first().map(|(&byte, rest)| (usize::from(byte), rest))?,
        0x82 => rest.split_first_chunk().map(|(&bytes, rest)| (usize::from(u16::from_be_bytes(bytes)), rest))?,
        // No key that is taken is longer than 64 KiB.
        _ => return None,
    };
    if first == tag { rest.split_at_checked(length) } else { None }
}

/// Not a key to check tokens with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidJwtKey {
    /// It could be searched for.
    #[error("the secret of HS256 has fewer than 32 bytes")]
    ShortSecret,
    /// It may be public, and whoever has it could sign tokens.
    #[error(
        "the secret of HS256 is a key or a certificate (PEM, DER, JWK or OpenSSH), which is not secret as a rule: use the \
         algorithm that the key is for"
    )]
    NotSecret,
    /// Not for RS256.
    #[error("not the public key of RSA with 2048 to 4096 bits, in PEM")]
    NotRsa,
    /// Not for ES256.
    #[error("not the public key of a point on P-256, in PEM")]
    NotP256,
    /// Not for EdDSA.
    #[error("not the public key of Ed25519, in PEM")]
    NotEd25519,
    /// Which one of the two would count?
    #[error("two keys have the id {kid:?}")]
    Twice {
        /// The id.
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
    fn a_modulus_is_as_long_as_its_first_bit_says() {
        let key = |modulus: &[u8]| der(0x30, &[der(0x02, modulus), vec![0x02, 3, 1, 0, 1]].concat());
        assert_eq!(modulus_bits(&key(&[&[0, 0x80][..], &[0; 255]].concat())), Some(2048));
        assert_eq!(modulus_bits(&key(&[&[1][..], &[0xff; 255]].concat())), Some(2041));
        assert_eq!(modulus_bits(&key(&[0, 0])), None);
        for end in 0..8 {
            assert_eq!(modulus_bits(&key(&[7; 16])[..end]), None, "cut after {end} bytes");
        }
    }

    #[test]
    fn a_private_key_is_no_key_to_check_tokens_with() {
        // RSAPrivateKey ::= SEQUENCE { version INTEGER (0), modulus INTEGER, .. }
        let private = der(0x30, &[vec![0x02, 1, 0], der(0x02, &[0x55; 256])].concat());
        assert_eq!(modulus_bits(&private), None);
    }

    #[test]
    fn a_secret_that_can_be_searched_for_is_none() {
        assert_eq!(JwtKey::hs256(&[b'x'; 31]).unwrap_err(), InvalidJwtKey::ShortSecret);
        assert!(!format!("{:?}", JwtKey::hs256(&[b'x'; 32]).unwrap()).contains("120"));
    }
}
