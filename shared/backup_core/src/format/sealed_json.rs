//! Manifests and plans: JSON, compressed, sealed, behind the clear header.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{EvidenceKey, Header, ObjectContext};
use crate::compress::{compress_whole, decompress_whole};
use crate::error::{Error, ErrorKind, Result, corrupt};
use crate::ports::DataKeys;
use crate::seal;
use crate::settings::MIB;

/// A plan of 40,000 chunks has about 12 MiB of JSON; more than this is hostile.
const JSON_BYTES_MAX: u64 = 256 * MIB;

/// What was in a sealed object.
pub struct Opened<T> {
    /// The value.
    pub value: T,
    /// The key of the evidence of the operation that goes by this object.
    pub evidence: EvidenceKey,
}

/// The stored form of `value`, under a fresh data key.
pub async fn seal_json<T: Serialize + Sync>(
    keys: &dyn DataKeys,
    context: ObjectContext,
    value: &T,
) -> Result<Vec<u8>> {
    let json = serde_json::to_vec(value)
        .map_err(|why| Error::new(ErrorKind::Internal, "write JSON").because(why))?;
    let key = keys.generate(&context).await?;
    let bound = context.to_bytes();
    let mut out = Header { context, wrapped_key: key.wrapped }.to_bytes()?;
    out.extend(seal::seal(&key.plain, &bound, &compress_whole(&json)?)?);
    Ok(out)
}

/// Reads what [`seal_json`] made, if it belongs at `expected`.
pub async fn open_json<T: DeserializeOwned>(
    keys: &dyn DataKeys,
    expected: &ObjectContext,
    object: &[u8],
) -> Result<Opened<T>> {
    let (header, length) = Header::expect(object, expected)?;
    let key = keys.unwrap(&header.wrapped_key, expected).await?;
    let evidence = EvidenceKey::derive(&key)?;
    let sealed = object.get(length..).unwrap_or_default();
    let json = decompress_whole(&seal::open(key, &expected.to_bytes(), sealed)?, JSON_BYTES_MAX)?;
    // A JSON error tells line and column, and may quote a value: only the place may be told.
    let value = serde_json::from_slice(&json).map_err(|why| {
        corrupt(format!(
            "read a sealed {}: unexpected JSON at line {} column {}",
            expected.kind.purpose(),
            why.line(),
            why.column()
        ))
    })?;
    Ok(Opened { value, evidence })
}
