//! The stack, found by its name, as ports.

use backup_aws::{
    DynamoCatalog, DynamoTimeline, KmsDataKeys, Machines, S3ObjectStore, Sdk, Stack, SystemClock,
};
use backup_core::id::{OperationId, RegionName, SourceName};
use backup_core::operation::{Detail, Failure, Operation, Pipeline};
use backup_core::ports::{Catalog, Clock};
use backup_core::{Error, ErrorKind, Result};

use crate::arguments::Arguments;

/// What every command works with.
pub(crate) struct Session {
    sdk: Sdk,
    stack: Stack,
    pub(crate) source: SourceName,
    pub(crate) catalog: DynamoCatalog,
    pub(crate) timeline: DynamoTimeline,
    pub(crate) store: S3ObjectStore,
    pub(crate) keys: KmsDataKeys,
    pub(crate) machines: Machines,
    pub(crate) json: bool,
}

impl Session {
    pub(crate) async fn open(arguments: &Arguments) -> Result<Self> {
        let sdk = Sdk::load(arguments.region.clone()).await;
        let stack = Stack::find(&sdk, &arguments.stack).await?;
        let output = |key| stack.output(key).map(str::to_owned);
        let source: SourceName = output("Source")?.parse()?;
        Ok(Self {
            catalog: DynamoCatalog::new(&sdk, output("CatalogTable")?, output("AuditTable")?, source),
            timeline: DynamoTimeline::new(&sdk, output("CatalogTable")?, source),
            store: S3ObjectStore::new(&sdk, output("Bucket")?),
            keys: KmsDataKeys::new(&sdk, output("Key")?),
            machines: Machines::new(&sdk),
            json: arguments.json,
            sdk,
            stack,
            source,
        })
    }

    /// Who we are.
    pub(crate) async fn user(&self) -> Result<String> {
        self.sdk.caller().await
    }

    /// The region of the stack.
    pub(crate) fn region(&self) -> Result<RegionName> {
        self.sdk.region()?.parse()
    }

    /// `Refused`, as what was `attempted`, unless this is the first region's stack: the others only hold copies.
    pub(crate) fn must_be_first(&self, attempted: &str) -> Result<()> {
        if self.stack.output("IsFirst")? == "true" {
            return Ok(());
        }
        let what = format!(
            "{attempted} in {}: this stack is not the first region's, it only holds copies",
            self.region()?
        );
        Err(Error::new(ErrorKind::Refused, what)
            .hint("leave --region (or AWS_REGION) away, or name the first region with it"))
    }

    /// The regions that are to hold copies.
    pub(crate) fn replica_regions(&self) -> Result<Vec<RegionName>> {
        let listed = self.stack.output("ReplicaRegions")?;
        listed.split(',').filter(|name| !name.is_empty()).map(str::parse).collect()
    }

    /// How many bytes all backups may take; none for any number.
    pub(crate) fn quota_bytes(&self) -> Result<Option<u64>> {
        let told = self.stack.output("StorageQuotaBytes")?;
        Ok(told.parse().ok().filter(|bytes| *bytes > 0))
    }

    pub(crate) fn now_millis() -> u64 {
        SystemClock::without_deadline().now_millis()
    }

    /// Notes the request and starts its execution; the event carries the id only. Gives the execution's ARN.
    pub(crate) async fn start(
        &self,
        database: &str,
        collections: &[String],
        detail: Detail,
    ) -> Result<(OperationId, String)> {
        let id = OperationId::generate(Self::now_millis())?;
        let user = self.user().await?;
        let (database, collections) = (database.to_owned(), collections.to_vec());
        let operation = Operation::requested(id, self.source, database, collections, user, detail);
        let kind = operation.kind();
        let machine = self.stack.output(match operation.pipeline() {
            Pipeline::Protect => "ProtectMachine",
            Pipeline::Synthesize => "SynthesizeMachine",
            Pipeline::Replicate => "ReplicateMachine",
            Pipeline::Restore => "RestoreMachine",
            Pipeline::Drill => "DrillMachine",
            Pipeline::Prune => "PruneMachine",
        })?;
        self.catalog.create_operation(&operation).await?;
        let started = self.machines.start(machine, kind, id).await;
        if let Err(why) = &started {
            let failed = Operation { failure: Some(Failure::of("start", why)), ..operation };
            self.catalog.fail_operation(&failed, Self::now_millis()).await?;
        }
        Ok((id, started?))
    }
}
