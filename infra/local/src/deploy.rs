//! Deploying the real template to the local AWS, in one region or in three.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use aws_config::SdkConfig;
use aws_sdk_cloudformation::types::{Capability, Parameter, StackStatus};

use crate::mongod::Users;
use crate::{CloudOptions, aws, build};

const DEPLOY_SECONDS: u64 = 120;
const MACHINES: [&str; 6] = ["protect", "synthesize", "replicate", "restore", "drill", "prune"];
/// A stack of its own, as an operator would make one: a layer is published once and used by every release.
const LAYER_STACK: &str = "nightsafe-mongod";

/// What to deploy.
pub(crate) struct Deployment<'a> {
    pub(crate) port: u16,
    pub(crate) stack: &'a str,
    /// The binary that runs in Lambda.
    pub(crate) bootstrap: &'a Path,
    /// The server that samples are restored to.
    pub(crate) mongod: &'a Path,
    pub(crate) users: &'a Users,
    pub(crate) options: &'a CloudOptions,
}

impl Deployment<'_> {
    /// Deploys the real template, with only the places of its artifacts swapped: in the first region, then, if the
    /// options say so, in the others with a replica of the first one's key.
    pub(crate) async fn run(&self) -> Result<()> {
        let package = build::package(self.bootstrap, "bootstrap")?;
        let layer = if self.options.layer { Some(build::package(self.mongod, "bin/mongod")?) } else { None };
        let others: &[&str] = if self.options.regions { &aws::OTHER_REGIONS } else { &[] };
        let first = self.in_region(aws::REGION, &package, layer.as_deref(), "", &others.join(",")).await?;
        let key = output(&first, self.stack, "Key").await?;
        for region in others {
            self.in_region(region, &package, layer.as_deref(), &key, "").await?;
        }
        Ok(())
    }

    async fn in_region(
        &self,
        region: &'static str,
        package: &[u8],
        layer: Option<&[u8]>,
        primary_key: &str,
        replicas: &str,
    ) -> Result<SdkConfig> {
        let config = aws::configuration(self.port, region).await;
        let artifacts = Artifacts::make(&config, region).await?;
        artifacts.put("bootstrap.zip", package.to_vec()).await?;
        let layer = match layer {
            Some(layer) => artifacts.publish_layer(&config, layer).await?,
            None => String::new(),
        };
        let template = artifacts.put_template().await?;
        let secrets = Secrets::store(&config, self.users).await?;
        let schedules = if self.options.schedules { "ENABLED" } else { "DISABLED" };
        let mut parameters = vec![
            ("SourceSecretArn", secrets.source),
            ("TargetSecretArn", secrets.target),
            ("ChunkTargetBytes", self.options.chunk_target_bytes.to_string()),
            ("Schedules", schedules.to_owned()),
            ("AlertEmail", "operator@example.com".to_owned()),
            ("PrimaryKeyArn", primary_key.to_owned()),
            ("ReplicaRegions", replicas.to_owned()),
            ("MongodLayerArn", layer),
        ];
        for (name, value) in &self.options.parameters {
            parameters.retain(|(other, _)| other != name);
            parameters.push((name, (*value).to_owned()));
        }
        create_stack(&config, self.stack, template, &parameters).await?;
        Ok(config)
    }
}

/// The bucket that stacks of a region are made from.
struct Artifacts {
    s3: aws_sdk_s3::Client,
    bucket: String,
    endpoint: String,
}

impl Artifacts {
    async fn make(config: &SdkConfig, region: &str) -> Result<Self> {
        use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};
        let s3 = aws_sdk_s3::Client::new(config);
        let bucket = format!("nightsafe-local-artifacts-{region}");
        let place = (region != aws::REGION).then(|| {
            CreateBucketConfiguration::builder()
                .location_constraint(BucketLocationConstraint::from(region))
                .build()
        });
        let create = s3.create_bucket().bucket(&bucket).set_create_bucket_configuration(place);
        create.send().await.context("make a bucket for artifacts")?;
        Ok(Self { s3, bucket, endpoint: config.endpoint_url().unwrap_or_default().to_owned() })
    }

    async fn put(&self, key: &str, body: Vec<u8>) -> Result<()> {
        let sent = self.s3.put_object().bucket(&self.bucket).key(key).body(body.into()).send().await;
        sent.map(|_| ()).with_context(|| format!("upload {key}"))
    }

    /// Stores the template and its state machines; gives its address.
    async fn put_template(&self) -> Result<String> {
        let infra = build::workspace().join("infra");
        let mut template = fs::read_to_string(infra.join("template.yaml"))?;
        self.swap(&mut template, "../target/lambda/bootstrap/bootstrap.zip", "bootstrap.zip")?;
        for machine in MACHINES {
            let file = format!("statemachines/{machine}.asl.json");
            self.put(&file, fs::read(infra.join(&file))?).await?;
            self.swap(&mut template, &file, &file)?;
        }
        self.put("template.yaml", template.into_bytes()).await?;
        Ok(format!("{}/{}/template.yaml", self.endpoint, self.bucket))
    }

    fn swap(&self, template: &mut String, local: &str, key: &str) -> Result<()> {
        if !template.contains(local) {
            bail!("the template does not refer to {local}");
        }
        *template = template.replace(local, &format!("s3://{}/{key}", self.bucket));
        Ok(())
    }

    /// Publishes the layer, as `docs/RUNBOOK.md` says; gives its ARN.
    async fn publish_layer(&self, config: &SdkConfig, layer: &[u8]) -> Result<String> {
        self.put("mongod.zip", layer.to_vec()).await?;
        let bucket = &self.bucket;
        let template = format!(
            r#"{{"Resources":{{"Layer":{{"Type":"AWS::Lambda::LayerVersion","Properties":{{"LayerName":"nightsafe-mongod","CompatibleRuntimes":["provided.al2023"],"Content":{{"S3Bucket":"{bucket}","S3Key":"mongod.zip"}}}}}}}},"Outputs":{{"Layer":{{"Value":{{"Ref":"Layer"}}}}}}}}"#
        );
        self.put("layer.json", template.into_bytes()).await?;
        let address = format!("{}/{bucket}/layer.json", self.endpoint);
        create_stack(config, LAYER_STACK, address, &[]).await?;
        output(config, LAYER_STACK, "Layer").await
    }
}

async fn create_stack(
    config: &SdkConfig,
    name: &str,
    template: String,
    parameters: &[(&str, String)],
) -> Result<()> {
    let cloudformation = aws_sdk_cloudformation::Client::new(config);
    let parameters = parameters
        .iter()
        .map(|(key, value)| Parameter::builder().parameter_key(*key).parameter_value(value).build());
    let create = cloudformation
        .create_stack()
        .stack_name(name)
        .template_url(template)
        .set_parameters(Some(parameters.collect()))
        .capabilities(Capability::CapabilityIam)
        .capabilities(Capability::CapabilityNamedIam)
        .capabilities(Capability::CapabilityAutoExpand);
    create.send().await.with_context(|| format!("deploy stack {name}"))?;
    wait_for_stack(&cloudformation, name).await
}

async fn output(config: &SdkConfig, stack: &str, key: &str) -> Result<String> {
    let client = aws_sdk_cloudformation::Client::new(config);
    let found = client.describe_stacks().stack_name(stack).send().await.context("look at a stack")?;
    let outputs = found.stacks().first().map(|stack| stack.outputs().to_vec()).unwrap_or_default();
    let value = outputs.iter().find(|it| it.output_key() == Some(key)).and_then(|it| it.output_value());
    value.map(str::to_owned).with_context(|| format!("stack {stack} has no output {key}"))
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
