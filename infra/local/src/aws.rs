//! The local AWS, and deploying the real template to it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_cloudformation::types::{Capability, Parameter, StackStatus};

use crate::CloudOptions;
use crate::mongod::Users;
use crate::process::{Server, Starting, log_tail};

/// The home region of the local cloud.
pub(crate) const REGION: &str = "us-east-1";
const ARTIFACTS: &str = "nightsafe-local-artifacts";
const READY_SECONDS: u64 = 60;
const DEPLOY_SECONDS: u64 = 120;
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

/// The SDK's configuration for the local AWS at `port`.
pub(crate) async fn configuration(port: u16) -> SdkConfig {
    let credentials = aws_sdk_s3::config::Credentials::new("test", "test", None, None, "local");
    aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .endpoint_url(endpoint(port))
        .credentials_provider(credentials)
        .load()
        .await
}

/// What to deploy.
pub(crate) struct Deployment<'a> {
    pub(crate) workspace: &'a Path,
    pub(crate) package: Vec<u8>,
    pub(crate) stack: &'a str,
    pub(crate) users: &'a Users,
    pub(crate) options: &'a CloudOptions,
}

/// Deploys the real template, with only the places of its artifacts swapped.
pub(crate) async fn deploy(config: &SdkConfig, deployment: Deployment<'_>) -> Result<()> {
    let s3 = aws_sdk_s3::Client::new(config);
    s3.create_bucket().bucket(ARTIFACTS).send().await.context("make a bucket for artifacts")?;
    let put = async |key: &str, body: Vec<u8>| {
        let sent = s3.put_object().bucket(ARTIFACTS).key(key).body(body.into()).send().await;
        sent.map(|_| ()).with_context(|| format!("upload {key}"))
    };
    put("bootstrap.zip", deployment.package).await?;
    let infra = deployment.workspace.join("infra");
    let mut template = fs::read_to_string(infra.join("template.yaml"))?;
    swap(&mut template, "../target/lambda/bootstrap/bootstrap.zip", "bootstrap.zip")?;
    for machine in ["protect", "synthesize", "restore"] {
        let file = format!("statemachines/{machine}.asl.json");
        put(&file, fs::read(infra.join(&file))?).await?;
        swap(&mut template, &file, &file)?;
    }
    put("template.yaml", template.into_bytes()).await?;
    let secrets = Secrets::store(config, deployment.users).await?;
    let parameter =
        |key: &str, value: String| Parameter::builder().parameter_key(key).parameter_value(value).build();
    let CloudOptions { chunk_target_bytes, schedules, .. } = deployment.options;
    let schedules = if *schedules { "ENABLED" } else { "DISABLED" };
    let cloudformation = aws_sdk_cloudformation::Client::new(config);
    cloudformation
        .create_stack()
        .stack_name(deployment.stack)
        .template_url(format!("{}/{ARTIFACTS}/template.yaml", config.endpoint_url().unwrap_or_default()))
        .parameters(parameter("SourceSecretArn", secrets.source))
        .parameters(parameter("TargetSecretArn", secrets.target))
        .parameters(parameter("ChunkTargetBytes", chunk_target_bytes.to_string()))
        .parameters(parameter("Schedules", schedules.to_owned()))
        .parameters(parameter("AlertEmail", "operator@example.com".to_owned()))
        .capabilities(Capability::CapabilityIam)
        .capabilities(Capability::CapabilityNamedIam)
        .capabilities(Capability::CapabilityAutoExpand)
        .send()
        .await
        .context("deploy the template")?;
    wait_for_stack(&cloudformation, deployment.stack).await
}

fn swap(template: &mut String, local: &str, key: &str) -> Result<()> {
    if !template.contains(local) {
        bail!("the template does not refer to {local}");
    }
    *template = template.replace(local, &format!("s3://{ARTIFACTS}/{key}"));
    Ok(())
}

struct Secrets {
    source: String,
    target: String,
}

impl Secrets {
    async fn store(config: &SdkConfig, users: &Users) -> Result<Self> {
        let client = aws_sdk_secretsmanager::Client::new(config);
        let store = async |name: &str, value: &str| {
            let created = client.create_secret().name(name).secret_string(value).send().await;
            let arn = created.with_context(|| format!("store secret {name}"))?.arn;
            arn.with_context(|| format!("secret {name} has no ARN"))
        };
        Ok(Self {
            source: store("nightsafe/source", &users.backup).await?,
            target: store("nightsafe/target", &users.restore).await?,
        })
    }
}

async fn wait_for_stack(client: &aws_sdk_cloudformation::Client, name: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        let found = client.describe_stacks().stack_name(name).send().await.context("look at the stack")?;
        let stack = found.stacks().first().context("the stack vanished")?;
        match stack.stack_status() {
            Some(StackStatus::CreateComplete) => return Ok(()),
            Some(StackStatus::CreateInProgress) if began.elapsed() < Duration::from_secs(DEPLOY_SECONDS) => {}
            other => {
                bail!("the stack is {other:?}: {}", stack.stack_status_reason().unwrap_or("no reason given"))
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
