//! The SDK's configuration: one place for credentials, region, retries and time limits.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use backup_core::id::RegionName;
use backup_core::ports::Clock;
use backup_core::{Error, ErrorKind, Result};

/// The SDK sets no limit on a whole operation by itself.
const OPERATION_SECONDS_MAX: u64 = 120;
const ATTEMPT_SECONDS_MAX: u64 = 60;
const CONNECT_SECONDS_MAX: u64 = 5;
/// With jittered backoff: rides out a few seconds of throttling.
const ATTEMPTS_MAX: u32 = 6;

/// Credentials, region and limits, as every client takes them.
#[derive(Clone, Debug)]
pub struct Sdk {
    pub(crate) config: SdkConfig,
}

impl Sdk {
    /// From the environment and the profile files, as every AWS tool does; `region` overrides theirs.
    pub async fn load(region: Option<String>) -> Self {
        let limits = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(CONNECT_SECONDS_MAX))
            .operation_attempt_timeout(Duration::from_secs(ATTEMPT_SECONDS_MAX))
            .operation_timeout(Duration::from_secs(OPERATION_SECONDS_MAX))
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS_MAX))
            .timeout_config(limits);
        if let Some(region) = region {
            loader = loader.region(Region::new(region));
        }
        Self { config: loader.load().await }
    }

    /// From a configuration that was made elsewhere.
    #[must_use]
    pub const fn from_config(config: SdkConfig) -> Self {
        Self { config }
    }

    /// The same in another region.
    #[must_use]
    pub fn in_region(&self, region: RegionName) -> Self {
        let region = Region::new(region.as_str().to_owned());
        Self { config: self.config.to_builder().region(region).build() }
    }

    /// The region, which must be known.
    pub fn region(&self) -> Result<&str> {
        self.config.region().map(Region::as_ref).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "find the AWS region").hint("set AWS_REGION or use --region")
        })
    }

    /// Who we are: the ARN of the caller.
    pub async fn caller(&self) -> Result<String> {
        let identity = aws_sdk_sts::Client::new(&self.config).get_caller_identity().send().await;
        let identity = identity.map_err(|why| crate::error::told("ask AWS who we are", why))?;
        Ok(identity.arn().unwrap_or("unknown").to_owned())
    }
}

/// The wall clock, and the deadline of this invocation.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    deadline_millis: u64,
}

impl SystemClock {
    /// A clock for a process without a deadline.
    #[must_use]
    pub const fn without_deadline() -> Self {
        Self { deadline_millis: u64::MAX }
    }

    /// A clock for an invocation that is killed at `deadline_millis` since 1970 UTC.
    #[must_use]
    pub const fn until(deadline_millis: u64) -> Self {
        Self { deadline_millis }
    }
}

impl Clock for SystemClock {
    fn now_millis(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
    }

    fn left_millis(&self) -> u64 {
        self.deadline_millis.saturating_sub(self.now_millis())
    }
}
