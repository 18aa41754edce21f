//! A hash of a set of documents that does not depend on their order: the sum, modulo 2^256, of each document's
//! BLAKE3 hash. Two collections have equal counts and hashes if and only if they hold the same documents, byte for
//! byte, so a restored collection can be proved equal by reading it in any order.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};

/// The sum of document hashes, as little-endian 64-bit limbs. Written as 64 hexadecimal digits, little-endian bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct DocumentHash([u64; 4]);

impl DocumentHash {
    /// Adds one document: its BSON bytes as they are.
    pub fn add(&mut self, document: &[u8]) {
        let hash = blake3::hash(document);
        let mut limbs = [0; 4];
        for (limb, bytes) in limbs.iter_mut().zip(hash.as_bytes().as_chunks::<8>().0) {
            *limb = u64::from_le_bytes(*bytes);
        }
        *self += Self(limbs);
    }
}

impl std::ops::AddAssign for DocumentHash {
    fn add_assign(&mut self, other: Self) {
        let mut carry = false;
        for (to, from) in self.0.iter_mut().zip(other.0) {
            let (sum, first) = to.overflowing_add(from);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            (*to, carry) = (sum, first || second);
        }
    }
}

impl fmt::Display for DocumentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for limb in self.0 {
            f.write_str(&hex::encode(limb.to_le_bytes()))?;
        }
        Ok(())
    }
}

impl fmt::Debug for DocumentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for DocumentHash {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)
            .ok()
            .filter(|()| !text.bytes().any(|byte| byte.is_ascii_uppercase()))
            .ok_or_else(|| Error::new(ErrorKind::Invalid, "read a document hash"))?;
        let mut limbs = [0; 4];
        for (limb, bytes) in limbs.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *limb = u64::from_le_bytes(*bytes);
        }
        Ok(Self(limbs))
    }
}

impl Serialize for DocumentHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DocumentHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash_of<'a>(documents: impl IntoIterator<Item = &'a Vec<u8>>) -> DocumentHash {
        let mut hash = DocumentHash::default();
        documents.into_iter().for_each(|document| hash.add(document));
        hash
    }

    #[test]
    fn carries_reach_the_last_limb_and_wrap() {
        let mut hash = DocumentHash([u64::MAX; 4]);
        hash += DocumentHash([1, 0, 0, 0]);
        assert_eq!(hash, DocumentHash::default());
    }

    proptest! {
        #[test]
        fn order_does_not_matter_but_every_document_does(
            documents in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..20), split in 0_usize..20,
        ) {
            let whole = hash_of(&documents);
            prop_assert_eq!(hash_of(documents.iter().rev()), whole);
            prop_assert_ne!(hash_of(&documents[1..]), whole);
            prop_assert_eq!(whole.to_string().parse::<DocumentHash>().unwrap(), whole);
            let (left, right) = documents.split_at(split.min(documents.len()));
            let mut sum = hash_of(left);
            sum += hash_of(right);
            prop_assert_eq!(sum, whole);
        }
    }
}
