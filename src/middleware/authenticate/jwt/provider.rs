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

/// The parameters of an algorithm.
enum Parameters {
    Hmac(hmac::Algorithm),
    PublicKey(&'static dyn VerificationAlgorithm),
}

fn parameters(algorithm: Algorithm) -> Result<Parameters> {
    use Parameters::{Hmac, PublicKey};
    Ok(match algorithm {
        Algorithm::HS256 => Hmac(hmac::HMAC_SHA256),
        Algorithm::HS384 => Hmac(hmac::HMAC_SHA384),
        Algorithm::HS512 => Hmac(hmac::HMAC_SHA512),
        Algorithm::ES256 => PublicKey(&algorithms::ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => PublicKey(&algorithms::ECDSA_P384_SHA384_FIXED),
        Algorithm::RS256 => PublicKey(&algorithms::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => PublicKey(&algorithms::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => PublicKey(&algorithms::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => PublicKey(&algorithms::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => PublicKey(&algorithms::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => PublicKey(&algorithms::RSA_PSS_2048_8192_SHA512),
        Algorithm::EdDSA => PublicKey(&algorithms::ED25519),
        _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
    })
}

fn verifier(&algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidKeyFormat.into());
    }
    let bytes = key.try_get_as_bytes()?;
    Ok(match parameters(algorithm)? {
        Parameters::Hmac(parameters) => Box::new(RingKey { algorithm, key: hmac::Key::new(parameters, bytes) }),
        Parameters::PublicKey(parameters) => {
            check_public_key(algorithm, bytes)?;
            Box::new(RingKey { algorithm, key: UnparsedPublicKey::new(parameters, bytes.to_vec()) })
        }
    })
}

/// Checks what ring checks only when it verifies a signature, and then reports as a wrong signature.
fn check_public_key(algorithm: Algorithm, bytes: &[u8]) -> Result<()> {
    match (algorithm, bytes.len()) {
        // The length and the tag. `is_on_p256` checks once that the point is on the curve.
        (Algorithm::ES256, 65) | (Algorithm::ES384, 97) if bytes[0] == 4 => Ok(()),
        (Algorithm::ES256 | Algorithm::ES384, _) => Err(ErrorKind::InvalidEcdsaKey.into()),
        (Algorithm::EdDSA, 32) => Ok(()),
        (Algorithm::EdDSA, _) => Err(ErrorKind::InvalidEddsaKey.into()),
        _ => Ok(()),
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

fn signer(&algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    match parameters(algorithm)? {
        Parameters::Hmac(parameters) if key.family() == AlgorithmFamily::Hmac => {
            Ok(Box::new(RingKey { algorithm, key: hmac::Key::new(parameters, key.as_bytes()) }))
        }
        Parameters::Hmac(_) => Err(ErrorKind::InvalidKeyFormat.into()),
        Parameters::PublicKey(_) => Err(ErrorKind::UnsupportedAlgorithm.into()),
    }
}

struct RingKey<K> {
    algorithm: Algorithm,
    key: K,
}

impl Verifier<Vec<u8>> for RingKey<hmac::Key> {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        // In constant time.
        hmac::verify(&self.key, message, signature).map_err(|Unspecified| Error::new())
    }
}

impl Verifier<Vec<u8>> for RingKey<UnparsedPublicKey<Vec<u8>>> {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        self.key.verify(message, signature).map_err(|Unspecified| Error::new())
    }
}

impl<K> JwtVerifier for RingKey<K>
where
    Self: Verifier<Vec<u8>>,
{
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Signer<Vec<u8>> for RingKey<hmac::Key> {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, Error> {
        Ok(hmac::sign(&self.key, message).as_ref().to_vec())
    }
}

impl JwtSigner for RingKey<hmac::Key> {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
