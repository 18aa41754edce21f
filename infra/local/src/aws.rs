//! The local AWS: started, and how it is reached.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use aws_config::{BehaviorVersion, Region, SdkConfig};

use crate::process::{Server, Starting, log_tail};

/// The first region of the local cloud.
pub(crate) const REGION: &str = "us-east-1";
/// The other regions, as the template has them by default.
pub(crate) const OTHER_REGIONS: [&str; 2] = ["eu-west-1", "ap-southeast-1"];
const READY_SECONDS: u64 = 60;
/// Waits between retries are this much shorter than in the state machines.
const WAIT_SCALE: &str = "0.05";
const LAUNCHER: &str = include_str!("../launch_ministack.py");

/// Starts the local AWS at `port`, with everything it keeps in `directory`.
pub(crate) async fn start(python: &Path, directory: &Path, port: u16) -> Result<Starting> {
    let files = directory.join("aws");
    for folder in ["home", "state", "objects", "temporary"] {
        fs::create_dir_all(files.join(folder))?;
    }
    let launcher = files.join("launch_ministack.py");
    fs::write(&launcher, LAUNCHER)?;
    let log = files.join("log");
    // A bare environment: functions inherit it, and nothing of this machine may leak into them.
    let server = Starting::new(Server::start(
        Command::new(python)
            .arg(&launcher)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", files.join("home"))
            .env("TMPDIR", files.join("temporary"))
            .env("STATE_DIR", files.join("state"))
            .env("S3_DATA_DIR", files.join("objects"))
            .env("BIND_HOST", "127.0.0.1")
            .env("GATEWAY_PORT", port.to_string())
            .env("LAMBDA_EXECUTOR", "local")
            .env("MINISTACK_REGION", REGION)
            .env("AWS_ENDPOINT_URL", endpoint(port))
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("SFN_WAIT_SCALE", WAIT_SCALE)
            .env("IOT_MTLS_ENABLED", "0")
            .env("SFTP_ENABLED", "0")
            .current_dir(&files),
        &log,
    )?);
    let began = Instant::now();
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        if !server.is_alive() || began.elapsed() > Duration::from_secs(READY_SECONDS) {
            bail!("the local AWS did not start; it said:\n{}", log_tail(&log));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(server)
}

/// Where the local AWS at `port` listens.
pub(crate) fn endpoint(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// The SDK's configuration for a region of the local AWS at `port`.
pub(crate) async fn configuration(port: u16, region: &'static str) -> SdkConfig {
    let credentials = aws_sdk_s3::config::Credentials::new("test", "test", None, None, "local");
    aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(region))
        .endpoint_url(endpoint(port))
        .credentials_provider(credentials)
        .load()
        .await
}
