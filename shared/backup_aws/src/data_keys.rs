//! Data keys, over KMS: one fresh key for every object, bound to its encryption context.

use async_trait::async_trait;
use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use backup_core::format::ObjectContext;
use backup_core::id::RegionName;
use backup_core::ports::{DataKey, DataKeys};
use backup_core::seal::MessageKey;
use backup_core::{Error, ErrorKind, Result};
use zeroize::Zeroizing;

use crate::error::told;
use crate::sdk::Sdk;

/// A key encryption key of KMS. A multi-Region key opens with its replica in each region: the id names no region.
#[derive(Clone, Debug)]
pub struct KmsDataKeys {
    client: Client,
    key_id: String,
}

impl KmsDataKeys {
    /// The key with this id, in the SDK's region.
    #[must_use]
    pub fn new(sdk: &Sdk, key_id: String) -> Self {
        Self { client: Client::new(&sdk.config), key_id }
    }

    /// The replica, in `region`, of the multi-Region key with this ARN.
    pub fn replica(sdk: &Sdk, home_key_arn: &str, region: RegionName) -> Result<Self> {
        let key_id = arn_in_region(home_key_arn, region).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, format!("find the replica of key {home_key_arn:?}"))
                .hint("the key is named by its ARN: arn:aws:kms:REGION:ACCOUNT:key/ID")
        })?;
        Ok(Self::new(&sdk.in_region(region), key_id))
    }
}

/// Replicas have the ARN of the first key, but for the region in it.
fn arn_in_region(arn: &str, region: RegionName) -> Option<String> {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    match *parts.as_slice() {
        ["arn", partition, "kms", _, account, key] if key.starts_with("key/") => {
            Some(format!("arn:{partition}:kms:{region}:{account}:{key}"))
        }
        _ => None,
    }
}

#[async_trait]
impl DataKeys for KmsDataKeys {
    async fn generate(&self, context: &ObjectContext) -> Result<DataKey> {
        let mut request = self.client.generate_data_key().key_id(&self.key_id).key_spec(DataKeySpec::Aes256);
        for (name, value) in context.encryption_context() {
            request = request.encryption_context(name, value);
        }
        let reply = request.send().await.map_err(|why| told("draw a data key", why))?;
        let (Some(plain), Some(wrapped)) = (reply.plaintext, reply.ciphertext_blob) else {
            return Err(Error::new(ErrorKind::Internal, "draw a data key: the answer has none"));
        };
        Ok(DataKey { plain: message_key(plain)?, wrapped: wrapped.into_inner() })
    }

    async fn unwrap(&self, wrapped: &[u8], context: &ObjectContext) -> Result<MessageKey> {
        let mut request = self.client.decrypt().key_id(&self.key_id).ciphertext_blob(Blob::new(wrapped));
        for (name, value) in context.encryption_context() {
            request = request.encryption_context(name, value);
        }
        let reply = request.send().await.map_err(|why| told("open a data key", why))?;
        message_key(reply.plaintext.unwrap_or_else(|| Blob::new([])))
    }
}

fn message_key(plain: Blob) -> Result<MessageKey> {
    let plain = Zeroizing::new(plain.into_inner());
    let wrong = |_| Error::new(ErrorKind::Corrupt, "open a data key: it has another length than 32 bytes");
    plain.as_slice().try_into().map(Zeroizing::new).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_differs_by_its_region_alone() {
        let check = |arn: &str, expected: Option<&str>| {
            let found = arn_in_region(arn, "eu-west-1".parse().unwrap());
            assert_eq!(found.as_deref(), expected, "{arn}");
        };
        check("arn:aws:kms:us-east-1:1:key/mrk-7", Some("arn:aws:kms:eu-west-1:1:key/mrk-7"));
        check("arn:aws-cn:kms:cn-north-1:1:key/mrk-7", Some("arn:aws-cn:kms:eu-west-1:1:key/mrk-7"));
        check("arn:aws:kms:us-east-1:1:alias/nightsafe", None);
        check("arn:aws:s3:us-east-1:1:key/mrk-7", None);
        check("mrk-7", None);
        check("", None);
    }
}
