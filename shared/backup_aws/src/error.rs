//! What the SDK's errors mean to us.

use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use backup_core::{Error, ErrorKind};

/// The service's name for its refusal, if it answered.
pub(crate) fn code<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> Option<&str> {
    error.as_service_error().and_then(ProvideErrorMetadata::code)
}

/// The SDK's error as ours; `attempted` says what was tried on which object.
#[expect(clippy::needless_pass_by_value, reason = "shaped for `map_err`")]
pub(crate) fn told<E, R>(attempted: impl Into<String>, error: SdkError<E, R>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let (kind, hint) = match code(&error) {
        Some(code) => meaning(code),
        None if matches!(error, SdkError::ConstructionFailure(_)) => (ErrorKind::Denied, Some(CREDENTIALS)),
        None => (ErrorKind::Transient, None),
    };
    let why = match error.as_service_error() {
        Some(refusal) => {
            format!("{}: {}", refusal.code().unwrap_or("unknown"), refusal.message().unwrap_or("no message"))
        }
        None => DisplayErrorContext(&error).to_string(),
    };
    let why: String = why.chars().take(600).collect();
    let told = Error::new(kind, attempted).because(why);
    match hint {
        Some(hint) => told.hint(hint),
        None => told,
    }
}

const CREDENTIALS: &str = "check the AWS credentials: `aws sts get-caller-identity` must work";

fn meaning(code: &str) -> (ErrorKind, Option<&'static str>) {
    match code {
        "SlowDown"
        | "Throttling"
        | "ThrottlingException"
        | "ProvisionedThroughputExceededException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "LimitExceededException" => (ErrorKind::Throttled, None),
        "AccessDenied" | "AccessDeniedException" | "AuthorizationError" => {
            (ErrorKind::Denied, Some("the role lacks a permission; the message names it"))
        }
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId" => (ErrorKind::Denied, Some(CREDENTIALS)),
        "DisabledException" | "KMSInvalidStateException" => (
            ErrorKind::Denied,
            Some(
                "the KMS key is disabled or pending deletion: enable it, or nothing can be sealed or opened",
            ),
        ),
        "NoSuchKey" | "NotFound" | "NotFoundException" | "StackNotFound" => (ErrorKind::NotFound, None),
        "NoSuchBucket" | "ResourceNotFoundException" => {
            (ErrorKind::NotFound, Some("a resource of the stack is gone: deploy the template again"))
        }
        "InvalidCiphertextException" | "IncorrectKeyException" => (ErrorKind::Corrupt, None),
        "BadDigest"
        | "KeyUnavailableException"
        | "InternalServiceError"
        | "ServiceUnavailableException"
        | "XAmzContentSHA256Mismatch"
        | "InternalError"
        | "InternalServerError"
        | "InternalFailure"
        | "ServiceUnavailable"
        | "KMSInternalException"
        | "DependencyTimeoutException"
        | "RequestTimeout"
        | "OperationAborted"
        | "TransactionConflictException"
        | "TransactionInProgressException"
        | "TransactionCanceledException" => (ErrorKind::Transient, None),
        _ => (ErrorKind::Internal, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_meaning() {
        for (code, kind) in [
            ("SlowDown", ErrorKind::Throttled),
            ("AccessDenied", ErrorKind::Denied),
            ("DisabledException", ErrorKind::Denied),
            ("NoSuchKey", ErrorKind::NotFound),
            ("InvalidCiphertextException", ErrorKind::Corrupt),
            ("InternalError", ErrorKind::Transient),
            ("ValidationException", ErrorKind::Internal),
        ] {
            assert_eq!(meaning(code).0, kind, "{code}");
        }
    }
}
