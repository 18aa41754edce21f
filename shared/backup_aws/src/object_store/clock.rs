//! The bucket's own clock: the `Date` of an answer that costs next to nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use backup_core::{Error, ErrorKind, Result};

use super::S3ObjectStore;
use crate::error::code;

/// The date of the newest answer, in milliseconds since 1970 UTC; 0 if there is none. The SDK keeps no headers.
#[derive(Clone, Debug, Default)]
struct DateOfAnswer(Arc<AtomicU64>);

impl Intercept for DateOfAnswer {
    fn name(&self) -> &'static str {
        "DateOfAnswer"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date").and_then(millis);
        self.0.store(date.unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }
}

impl S3ObjectStore {
    /// What time it is for the bucket, in milliseconds since 1970 UTC; S3 tells whole seconds.
    pub(super) async fn now_millis(&self) -> Result<u64> {
        let attempted = "ask for the time";
        let date = DateOfAnswer::default();
        let ask = self.client.head_bucket().bucket(&self.bucket).customize().interceptor(date.clone());
        ask.send().await.map_err(|why| match code(&why) {
            Some("NotFound") => Error::new(ErrorKind::Gone, format!("{attempted} in bucket {}", self.bucket))
                .because("there is no such bucket")
                .hint("a resource of the stack is gone: deploy the template again"),
            _ => self.told(attempted, why),
        })?;
        match date.0.load(Ordering::Relaxed) {
            0 => Err(Error::new(
                ErrorKind::Transient,
                format!("{attempted} in bucket {}: no date came", self.bucket),
            )),
            millis => Ok(millis),
        }
    }
}

fn millis(date: &str) -> Option<u64> {
    let date = DateTime::from_str(date, DateTimeFormat::HttpDate).ok()?;
    u64::try_from(date.to_millis().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_read_or_not_at_all() {
        let check = |date: &str, expected: Option<u64>| assert_eq!(millis(date), expected, "{date}");
        check("Sun, 22 Nov 2026 02:00:07 GMT", Some(1_795_312_807_000));
        check("Thu, 01 Jan 1970 00:00:00 GMT", Some(0));
        check("Wed, 31 Dec 1969 23:59:59 GMT", None);
        check("2026-11-22T02:00:07Z", None);
        check("", None);
    }
}
