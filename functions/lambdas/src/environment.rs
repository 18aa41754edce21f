//! The one place that reads the environment. A function is given the variables its step needs and no others, so each
//! is asked for where it is used, and its absence is a clear error.

use backup_aws::{
    BackupMachines, DynamoCatalog, DynamoTimeline, KmsDataKeys, S3ObjectStore, Sdk, SnsAlerts,
    connection_string,
};
use backup_core::id::SourceName;
use backup_core::settings::Settings;
use backup_core::{Error, ErrorKind, Result};
use backup_mongo::Cluster;

/// What a function runs in.
pub(crate) struct Environment {
    sdk: Sdk,
}

impl Environment {
    pub(crate) async fn load() -> Self {
        Self { sdk: Sdk::load(None).await }
    }

    pub(crate) fn store(&self) -> Result<S3ObjectStore> {
        Ok(S3ObjectStore::new(&self.sdk, variable("NIGHTSAFE_BUCKET")?))
    }

    pub(crate) fn keys(&self) -> Result<KmsDataKeys> {
        Ok(KmsDataKeys::new(&self.sdk, variable("NIGHTSAFE_KEY")?))
    }

    pub(crate) fn catalog(&self) -> Result<DynamoCatalog> {
        let (catalog, audit) = (variable("NIGHTSAFE_CATALOG_TABLE")?, variable("NIGHTSAFE_AUDIT_TABLE")?);
        Ok(DynamoCatalog::new(&self.sdk, catalog, audit, Self::source_name()?))
    }

    pub(crate) fn timeline(&self) -> Result<DynamoTimeline> {
        Ok(DynamoTimeline::new(&self.sdk, variable("NIGHTSAFE_CATALOG_TABLE")?, Self::source_name()?))
    }

    pub(crate) fn machines(&self) -> Result<BackupMachines> {
        let (protect, synthesize) =
            (variable("NIGHTSAFE_PROTECT_MACHINE")?, variable("NIGHTSAFE_SYNTHESIZE_MACHINE")?);
        Ok(BackupMachines::new(&self.sdk, protect, synthesize))
    }

    pub(crate) fn alerts(&self) -> Result<SnsAlerts> {
        Ok(SnsAlerts::new(&self.sdk, variable("NIGHTSAFE_PAGE_TOPIC")?, variable("NIGHTSAFE_MAIL_TOPIC")?))
    }

    pub(crate) async fn source(&self) -> Result<Cluster> {
        self.cluster("NIGHTSAFE_SOURCE_SECRET").await
    }

    pub(crate) async fn target(&self) -> Result<Cluster> {
        self.cluster("NIGHTSAFE_TARGET_SECRET").await
    }

    async fn cluster(&self, secret: &str) -> Result<Cluster> {
        let secret = variable(secret)?;
        let connected = Cluster::connect(&connection_string(&self.sdk, &secret).await?).await;
        connected.map_err(|why| why.while_doing(format!("use secret {secret}")))
    }

    pub(crate) fn source_name() -> Result<SourceName> {
        variable("NIGHTSAFE_SOURCE")?.parse()
    }

    pub(crate) fn settings() -> Result<Settings> {
        Self::settings_without_chunks().with_chunk_target(&variable("NIGHTSAFE_CHUNK_TARGET_BYTES")?)
    }

    /// Of the step that makes no chunks, and starts folded backups.
    pub(crate) fn settings_of_capture() -> Result<Settings> {
        let hours: u32 = variable("NIGHTSAFE_FOLDING_HOURS")?
            .parse()
            .map_err(|why| Error::new(ErrorKind::Invalid, "read the parameter FoldingHours").because(why))?;
        let folding_seconds = hours.saturating_mul(3600);
        Ok(Settings { folding_seconds, ..Self::settings_without_chunks() })
    }

    fn settings_without_chunks() -> Settings {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Settings { compress_workers: cores, ..Settings::default() }
    }
}

fn variable(name: &str) -> Result<String> {
    std::env::var(name).map_err(|_| {
        Error::new(ErrorKind::Internal, format!("read the environment: {name} is not set"))
            .hint("the function was not deployed by this release's template")
    })
}
