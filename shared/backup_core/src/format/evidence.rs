//! What steps tell each other in clear: results of chunks, and evidence that chunks were read back. One line of JSON
//! and one with its HMAC-SHA-256, so that whoever may write to the bucket, but may not decrypt, cannot forge it.
//!
//! The key follows from the data key of the sealed object that the operation goes by (plan or manifest): a step that
//! opens it can write evidence and check that of others, without another call of the key service.

use bytes::Bytes;
use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::ObjectKey;
use crate::error::{Error, ErrorKind, Result, corrupt};
use crate::seal::MessageKey;

/// Separates this use of a data key from sealing.
const LABEL: &[u8] = b"nightsafe evidence 1";

/// Signs and checks the evidence of one operation.
#[derive(Clone)]
pub struct EvidenceKey(Zeroizing<[u8; 32]>);

impl EvidenceKey {
    /// The key that follows from the data key of a sealed object.
    pub(super) fn derive(data_key: &MessageKey) -> Result<Self> {
        let mac = hmac(data_key.as_slice())?.chain_update(LABEL);
        Ok(Self(Zeroizing::new(mac.finalize().into_bytes().into())))
    }

    /// `value` as it is stored at `key`, and only there.
    pub fn sign<T: Serialize>(&self, key: ObjectKey, value: &T) -> Result<Bytes> {
        let mut out = serde_json::to_vec(value)
            .map_err(|why| Error::new(ErrorKind::Internal, "write JSON").because(why))?;
        let mac = self.mac(key, &out)?.finalize().into_bytes();
        out.push(b'\n');
        out.extend_from_slice(hex::encode(mac).as_bytes());
        out.push(b'\n');
        Ok(out.into())
    }

    /// What [`EvidenceKey::sign`] wrote for `key`; `Corrupt` if anybody else did, or for another object.
    pub fn check<T: DeserializeOwned>(&self, key: ObjectKey, stored: &[u8]) -> Result<T> {
        let path = key.to_path()?;
        let bad = |what: &str| corrupt(format!("read {path}: {what}"));
        let mut lines = stored.split(|byte| *byte == b'\n');
        let (Some(json), Some(mac), Some(&[]), None) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(bad("it is not two lines"));
        };
        let mac = hex::decode(mac).map_err(|_| bad("its signature is not hexadecimal"))?;
        self.mac(key, json)?.verify_slice(&mac).map_err(|_| bad("no step of this operation wrote that"))?;
        serde_json::from_slice(json)
            .map_err(|why| bad(&format!("unexpected JSON at line {} column {}", why.line(), why.column())))
    }

    fn mac(&self, key: ObjectKey, json: &[u8]) -> Result<Hmac<Sha256>> {
        Ok(hmac(self.0.as_slice())?.chain_update(key.to_path()?).chain_update([0]).chain_update(json))
    }
}

fn hmac(key: &[u8]) -> Result<Hmac<Sha256>> {
    Hmac::new_from_slice(key).map_err(|_| Error::new(ErrorKind::Internal, "set up HMAC-SHA-256"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{BackupPlace, RestorePlace, VerifiedChunks};
    use crate::id::OperationId;
    use crate::operation::Trigger;

    #[test]
    fn evidence_holds_for_its_own_place_and_key_only() {
        let id = OperationId::from_bytes([1; 16]);
        let place = BackupPlace { trigger: Trigger::Manual, backup: id };
        let key = EvidenceKey::derive(&MessageKey::new([7; 32])).unwrap();
        let value = VerifiedChunks { ordinals: vec![3], documents: 9 };
        let at = ObjectKey::Verified(place, 3);
        let stored = key.sign(at, &value).unwrap();
        assert_eq!(key.check::<VerifiedChunks>(at, &stored).unwrap(), value);
        let refused = |key: &EvidenceKey, at, stored: &[u8]| {
            assert_eq!(key.check::<VerifiedChunks>(at, stored).unwrap_err().kind(), ErrorKind::Corrupt);
        };
        refused(&key, ObjectKey::Verified(place, 4), &stored);
        refused(&key, ObjectKey::Validated(RestorePlace(id), 3), &stored);
        refused(&EvidenceKey::derive(&MessageKey::new([8; 32])).unwrap(), at, &stored);
        for bit in 0..stored.len() * 8 {
            let mut flipped = stored.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // The case of a digit of the signature says nothing.
            if !(bit / 8 > stored.len() - 66 && flipped.eq_ignore_ascii_case(&stored)) {
                refused(&key, at, &flipped);
            }
        }
        for end in 0..stored.len() {
            refused(&key, at, &stored[..end]);
        }
        refused(&key, at, &[&stored[..], b"x"].concat());
    }
}
