//! The one place that reads the environment. A function is given the variables its step needs and no others, so each
//! is asked for where it is used, and its absence is a clear error.

use backup_aws::{DynamoCatalog, KmsDataKeys, S3ObjectStore, Sdk, SnsAlerts, connection_string};
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
        let source: SourceName = variable("NIGHTSAFE_SOURCE")?.parse()?;
        let (catalog, audit) = (variable("NIGHTSAFE_CATALOG_TABLE")?, variable("NIGHTSAFE_AUDIT_TABLE")?);
        Ok(DynamoCatalog::new(&self.sdk, catalog, audit, source))
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

    pub(crate) fn settings() -> Result<Settings> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let settings = Settings { compress_workers: cores, ..Settings::default() };
        settings.with_chunk_target(&variable("NIGHTSAFE_CHUNK_TARGET_BYTES")?)
    }
}

fn variable(name: &str) -> Result<String> {
    std::env::var(name).map_err(|_| {
        Error::new(ErrorKind::Internal, format!("read the environment: {name} is not set"))
            .hint("the function was not deployed by this release's template")
    })
}
