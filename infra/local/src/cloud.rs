//! The local cloud as a whole: started, found again, described, stopped.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use aws_config::SdkConfig;
use serde::{Deserialize, Serialize};

use crate::deploy::Deployment;
use crate::mongod::{MongodOptions, Users, users};
use crate::process::{Server, free_port};
use crate::{aws, build, mongod, python};

/// The stack's name in the local AWS.
const STACK: &str = "nightsafe";

/// How to start a local cloud.
#[derive(Clone, Debug)]
pub struct CloudOptions {
    /// The snapshot history the server keeps, in seconds.
    pub history_seconds: u32,
    /// The template's `ChunkTargetBytes`: small, so that small databases have many chunks.
    pub chunk_target_bytes: u64,
    /// The template's `Schedules`: whether steps are called by the clock, or only by hand.
    pub schedules: bool,
    /// Whether the template is deployed in the other two regions as well.
    pub regions: bool,
    /// Whether there is a layer with `mongod`, on which samples are restored.
    pub layer: bool,
    /// Other parameters of the template.
    pub parameters: Vec<(&'static str, &'static str)>,
}

impl Default for CloudOptions {
    fn default() -> Self {
        Self {
            history_seconds: 300,
            chunk_target_bytes: 4 * 1024 * 1024,
            schedules: false,
            regions: false,
            layer: false,
            parameters: Vec::new(),
        }
    }
}

/// A running local cloud.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cloud {
    directory: PathBuf,
    binaries: PathBuf,
    password: String,
    mongod_port: u16,
    mongod: Server,
    aws_port: u16,
    aws: Server,
}

impl Cloud {
    /// The default place, which `cargo local` uses: shared downloads are there too.
    #[must_use]
    pub fn default_directory() -> PathBuf {
        build::workspace().join("target/local")
    }

    /// Starts a cloud with its files in `directory`, which should be empty. `say` is told of each phase.
    pub async fn start(directory: &Path, options: &CloudOptions, say: impl Fn(&str)) -> Result<Self> {
        let shared = Self::default_directory();
        fs::create_dir_all(&shared)?;
        fs::create_dir_all(directory)?;
        let directory = &directory.canonicalize()?;
        say("building the binaries");
        let binaries = build::binaries()?;
        say("preparing Python and the local AWS");
        let python = python::environment(&shared)?;
        say("preparing mongod");
        let binary = mongod::binary(&shared, &python)?;
        remove_files(directory)?; // of a cloud that was cut off
        say("starting a replica set");
        let (mongod_port, password) = (free_port()?, random_password()?);
        let history = MongodOptions { history_seconds: options.history_seconds };
        let mongod = mongod::start(&binary, directory, mongod_port, &password, &history).await?;
        say("starting the local AWS");
        let aws_port = free_port()?;
        let aws = aws::start(&python, directory, aws_port).await?;
        say("deploying the template");
        let deployment = Deployment {
            port: aws_port,
            stack: STACK,
            bootstrap: &binaries.join("bootstrap"),
            mongod: &binary,
            users: &users(mongod_port, &password),
            options,
        };
        deployment.run().await?;
        let (Some(mongod), Some(aws)) = (mongod.keep(), aws.keep()) else { bail!("a server vanished") };
        let cloud =
            Self { directory: directory.clone(), binaries, password, mongod_port, mongod, aws_port, aws };
        if let Err(why) = cloud.write_files() {
            let _ = cloud.stop(); // the first error is the better one
            return Err(why);
        }
        Ok(cloud)
    }

    fn write_files(&self) -> Result<()> {
        fs::write(self.directory.join("cloud.json"), serde_json::to_vec_pretty(self)?)?;
        fs::write(self.directory.join("env"), self.exports())?;
        Ok(())
    }

    /// The cloud that was started in `directory`, if all of it still runs.
    #[must_use]
    pub fn find(directory: &Path) -> Option<Self> {
        let described = fs::read(directory.join("cloud.json")).ok()?;
        let cloud: Self = serde_json::from_slice(&described).ok()?;
        (cloud.mongod.is_alive() && cloud.aws.is_alive()).then_some(cloud)
    }

    /// Stops the servers that were started in `directory`, also if only some of them still run, and removes what
    /// they kept; whether there were any.
    pub fn stop_in(directory: &Path) -> Result<bool> {
        let Ok(described) = fs::read(directory.join("cloud.json")) else { return Ok(false) };
        serde_json::from_slice::<Self>(&described).context("read cloud.json")?.stop()?;
        Ok(true)
    }

    /// Stops the servers and removes what they kept.
    pub fn stop(&self) -> Result<()> {
        let stopped = [self.aws.stop(), self.mongod.stop()];
        stopped.into_iter().collect::<Result<()>>()?; // one that does not end must be found again
        remove_files(&self.directory)
    }

    /// What a shell needs to use this cloud.
    #[must_use]
    pub fn exports(&self) -> String {
        let lines = self.environment().map(|(name, value)| format!("export {name}='{value}'\n"));
        lines.concat()
    }

    /// The same as names and values, for starting a command.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, String); 6] {
        [
            ("MONGODB_URI", self.users().administrator),
            ("AWS_ENDPOINT_URL", aws::endpoint(self.aws_port)),
            ("AWS_REGION", aws::REGION.to_owned()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
            ("NIGHTSAFE_STACK", STACK.to_owned()),
        ]
    }

    /// The users of the server.
    #[must_use]
    pub fn users(&self) -> Users {
        users(self.mongod_port, &self.password)
    }

    /// The SDK's configuration for the local AWS.
    pub async fn sdk_config(&self) -> SdkConfig {
        aws::configuration(self.aws_port, aws::REGION).await
    }

    /// The same for another region, the first or the second of them.
    pub async fn sdk_config_elsewhere(&self, second: bool) -> SdkConfig {
        let [first, other] = aws::OTHER_REGIONS;
        aws::configuration(self.aws_port, if second { other } else { first }).await
    }

    /// The stack's name.
    #[must_use]
    pub fn stack(&self) -> &'static str {
        STACK
    }

    /// The command line, built.
    #[must_use]
    pub fn nightsafe(&self) -> PathBuf {
        self.binaries.join("nightsafe")
    }

    /// The root of the workspace, where `backup.sh` and `restore.sh` are.
    #[must_use]
    pub fn workspace(&self) -> PathBuf {
        build::workspace()
    }

    /// A line for each server.
    #[must_use]
    pub fn description(&self) -> String {
        format!(
            "mongod      127.0.0.1:{} (replica set rs0, authentication on)\nlocal AWS   {} (stack {STACK}, region {})\nfiles       {}\n",
            self.mongod_port,
            aws::endpoint(self.aws_port),
            aws::REGION,
            self.directory.display(),
        )
    }
}

/// Removes what servers kept, and the description of the cloud.
fn remove_files(directory: &Path) -> Result<()> {
    for folder in ["mongod", "aws"] {
        let folder = directory.join(folder);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
        }
    }
    for file in ["cloud.json", "env"] {
        let _ = fs::remove_file(directory.join(file)); // it may never have been written
    }
    Ok(())
}

fn random_password() -> Result<String> {
    let mut bytes = [0_u8; 16];
    if getrandom::fill(&mut bytes).is_err() {
        bail!("no random bytes on this machine");
    }
    Ok(hex::encode(bytes))
}
