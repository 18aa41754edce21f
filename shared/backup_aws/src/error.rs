//! What the SDK's errors mean to us.

use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use backup_core::{Error, ErrorKind};

/// The service's name for its refusal, if it answered.
pub(crate) fn code<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> Option<&str> {
    error.as_service_error().and_then(ProvideErrorMetadata::code)
}

/// The SDK's error as ours; `attempted` says what was tried on which object.
#[expect(clippy::needless_pass_by_value, reason = "shaped for `map_err`")]
pub(crate) fn told<E>(attempted: impl Into<String>, error: SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let status = error.raw_response().map(|reply| reply.status().as_u16());
    let (kind, hint) = match code(&error).map(meaning) {
        // A code nobody has told us of: the status says whether it may pass by itself.
        Some((ErrorKind::Internal, _)) | None if status == Some(429) => (ErrorKind::Throttled, None),
        Some((ErrorKind::Internal, _)) | None if status.is_some_and(|status| status >= 500) => {
            (ErrorKind::Transient, None)
        }
        // The answer to a request for headers has no body that could tell more.
        None if status == Some(403) => meaning("AccessDenied"),
        None if status == Some(301) => meaning("PermanentRedirect"),
        Some(known) => known,
        None if matches!(error, SdkError::ConstructionFailure(_)) => (ErrorKind::Denied, Some(CREDENTIALS)),
        None => (ErrorKind::Transient, None),
    };
    let why = match error.as_service_error() {
        Some(refusal) => {
            let nothing = status.map_or_else(|| "no message".to_owned(), |status| format!("status {status}"));
            format!("{}: {}", refusal.code().unwrap_or("unknown"), refusal.message().unwrap_or(&nothing))
        }
        None => DisplayErrorContext(&error).to_string(),
    };
    shaped(kind, attempted, &why, hint)
}

/// A refusal that came inside an answer, as ours.
pub(crate) fn refused(attempted: impl Into<String>, code: &str, message: &str) -> Error {
    let (kind, hint) = meaning(code);
    shaped(kind, attempted, &format!("{code}: {message}"), hint)
}

fn shaped(kind: ErrorKind, attempted: impl Into<String>, why: &str, hint: Option<&str>) -> Error {
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
        | "ThrottledException"
        | "Throttled"
        | "KMSThrottling"
        | "ProvisionedThroughputExceededException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "ExecutionLimitExceeded"
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
        "NoSuchKey" | "NoSuchVersion" | "NotFound" | "NotFoundException" | "StackNotFound" => {
            (ErrorKind::NotFound, None)
        }
        "InvalidObjectState" | "ObjectNotInActiveTierError" => (
            ErrorKind::Refused,
            Some("it is in cold storage: a restore asks for it, and it comes hours later"),
        ),
        "PermanentRedirect" => (ErrorKind::Invalid, Some("the bucket is in another region than was named")),
        "NoSuchBucket" | "ResourceNotFoundException" | "StateMachineDoesNotExist" => {
            (ErrorKind::Gone, Some("a resource of the stack is gone: deploy the template again"))
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
        | "TransactionCanceledException"
        | "NoSuchUpload" => (ErrorKind::Transient, None),
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
            ("InvalidObjectState", ErrorKind::Refused),
            ("PermanentRedirect", ErrorKind::Invalid),
            ("InvalidCiphertextException", ErrorKind::Corrupt),
            ("InternalError", ErrorKind::Transient),
            ("ValidationException", ErrorKind::Internal),
        ] {
            assert_eq!(meaning(code).0, kind, "{code}");
        }
    }
}
