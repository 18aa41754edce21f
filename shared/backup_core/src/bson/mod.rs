//! Raw BSON: cutting documents out of a stream of bytes and looking at their top level, without decoding them.
//!
//! Documents are kept as the server sent them: duplicate keys, empty names, invalid UTF-8 and deprecated types all
//! survive, because nothing here ever builds a value out of them.

mod id_value;
mod number_order;
mod order;
mod patch;
mod value_order;
mod walk;

pub use id_value::{IdRange, IdValue, check_coverage};
pub use order::{IdKey, KeyRange, needs_collation};
pub use patch::apply_update;
pub(crate) use patch::{apply_update_tolerantly, is_known_update};
pub(crate) use walk::document_length;
pub use walk::{DOCUMENT_BYTES_MAX, Element, elements, has_top_level_zero_timestamp, split_documents};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bson::RawDocumentBuf;

/// A BSON document inside JSON: base64 of its bytes. For use with `#[serde(with = "...")]`.
pub mod base64_document {
    use super::{Engine, RawDocumentBuf, STANDARD};
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the document as base64.
    pub fn serialize<S: Serializer>(document: &RawDocumentBuf, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(document.as_bytes()))
    }

    /// Reads the document back.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RawDocumentBuf, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(serde::de::Error::custom)?;
        RawDocumentBuf::from_bytes(bytes).map_err(serde::de::Error::custom)
    }
}

/// Bytes inside JSON, as base64.
pub mod base64_bytes {
    use super::{Engine, STANDARD};
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the bytes as base64.
    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    /// Reads the bytes back.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// A list of BSON documents inside JSON, each as base64.
pub mod base64_documents {
    use super::RawDocumentBuf;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct Item(#[serde(with = "super::base64_document")] RawDocumentBuf);

    /// Writes each document as base64.
    pub fn serialize<S: Serializer>(documents: &[RawDocumentBuf], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(documents.iter().map(|document| Item(document.clone())))
    }

    /// Reads the documents back.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<RawDocumentBuf>, D::Error> {
        Ok(Vec::<Item>::deserialize(deserializer)?.into_iter().map(|item| item.0).collect())
    }
}
