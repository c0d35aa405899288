//! A provider of cryptography for `jsonwebtoken` that uses `ring`.
//!
//! `jsonwebtoken` itself offers two providers: aws-lc, a large C library, and RustCrypto, which includes `rsa` with its
//! timing side channel (RUSTSEC-2023-0071).

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey};
use ring::agreement::{self, EphemeralPrivateKey};
use ring::rand::SystemRandom;
use ring::signature::{self as algorithms, UnparsedPublicKey, VerificationAlgorithm};
use ring::{error::Unspecified, hmac};
use signature::{Error, Signer, Verifier};

/// Installs ring as the provider of the process, unless there is one already: from a feature of `jsonwebtoken`, or
/// installed by the program.
pub(super) fn install() {
    if CryptoProvider::try_get_default().is_none() {
        // Fails only if another thread has installed one in the meantime, which serves as well.
        let _ = RING.install_default();
    }
}

static RING: CryptoProvider =
    CryptoProvider { signer_factory: signer, verifier_factory: verifier, key_utils: KeyUtils::new_unimplemented() };

fn verifier(&algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    Ok(Box::new(RingKey::new(algorithm, key.family(), key.try_get_as_bytes()?)?))
}

fn signer(&algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    match algorithm.family() {
        AlgorithmFamily::Hmac => Ok(Box::new(RingKey::new(algorithm, key.family(), key.as_bytes())?)),
        _ => Err(ErrorKind::UnsupportedAlgorithm.into()),
    }
}

/// Returns whether this is an uncompressed point on P-256. ring checks that only in a key agreement.
pub(super) fn is_on_p256(point: &[u8]) -> bool {
    let agree = || -> std::result::Result<(), Unspecified> {
        let own = EphemeralPrivateKey::generate(&agreement::ECDH_P256, &SystemRandom::new())?;
        agreement::agree_ephemeral(own, &agreement::UnparsedPublicKey::new(&agreement::ECDH_P256, point), |_| ())
    };
    agree().is_ok()
}

struct RingKey {
    algorithm: Algorithm,
    key: Key,
}

enum Key {
    Hmac(hmac::Key),
    Public(UnparsedPublicKey<Vec<u8>>),
}

impl RingKey {
    /// Creates a key from its bytes. Those of a public key are checked when it verifies a signature.
    fn new(algorithm: Algorithm, family: AlgorithmFamily, bytes: &[u8]) -> Result<Self> {
        if family != algorithm.family() {
            return Err(ErrorKind::InvalidKeyFormat.into());
        }
        let hmac = |of| Key::Hmac(hmac::Key::new(of, bytes));
        let public = |of: &'static dyn VerificationAlgorithm| Key::Public(UnparsedPublicKey::new(of, bytes.to_vec()));
        let key = match algorithm {
            Algorithm::HS256 => hmac(hmac::HMAC_SHA256),
            Algorithm::HS384 => hmac(hmac::HMAC_SHA384),
            Algorithm::HS512 => hmac(hmac::HMAC_SHA512),
            Algorithm::ES256 => public(&algorithms::ECDSA_P256_SHA256_FIXED),
            Algorithm::ES384 => public(&algorithms::ECDSA_P384_SHA384_FIXED),
            Algorithm::RS256 => public(&algorithms::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::RS384 => public(&algorithms::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::RS512 => public(&algorithms::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::PS256 => public(&algorithms::RSA_PSS_2048_8192_SHA256),
            Algorithm::PS384 => public(&algorithms::RSA_PSS_2048_8192_SHA384),
            Algorithm::PS512 => public(&algorithms::RSA_PSS_2048_8192_SHA512),
            Algorithm::EdDSA => public(&algorithms::ED25519),
            _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
        };
        Ok(Self { algorithm, key })
    }
}

impl Verifier<Vec<u8>> for RingKey {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        let verified = match &self.key {
            // In constant time.
            Key::Hmac(key) => hmac::verify(key, message, signature),
            Key::Public(key) => key.verify(message, signature),
        };
        verified.map_err(|Unspecified| Error::new())
    }
}

impl Signer<Vec<u8>> for RingKey {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, Error> {
        match &self.key {
            Key::Hmac(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            Key::Public(_) => Err(Error::new()),
        }
    }
}

impl JwtVerifier for RingKey {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl JwtSigner for RingKey {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
