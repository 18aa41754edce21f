//! The one place that reads the environment. A function is given the variables its step needs and no others, so each
//! is asked for where it is used, and its absence is a clear error.

use std::path::PathBuf;

use backup_aws::{
    DynamoCatalog, DynamoTimeline, Home, KmsDataKeys, LockMode, OtherRegion, Pipelines, S3Locks,
    S3ObjectStore, Sdk, SnsAlerts, connection_string,
};
use backup_core::id::{RegionName, SourceName};
use backup_core::operation::Pipeline;
use backup_core::ports::Region;
use backup_core::ports::Scratch;
use backup_core::retention::{Period, Policy};
use backup_core::settings::Settings;
use backup_core::watch::WatchSettings;
use backup_core::{Error, ErrorKind, Result};
use backup_mongo::{Cluster, NoScratch, OwnServer, VerificationCluster};

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

    /// The state machines this function may start.
    pub(crate) fn machines(&self) -> Pipelines {
        let named = [
            (Pipeline::Protect, "NIGHTSAFE_PROTECT_MACHINE"),
            (Pipeline::Synthesize, "NIGHTSAFE_SYNTHESIZE_MACHINE"),
            (Pipeline::Replicate, "NIGHTSAFE_REPLICATE_MACHINE"),
            (Pipeline::Drill, "NIGHTSAFE_DRILL_MACHINE"),
            (Pipeline::Prune, "NIGHTSAFE_PRUNE_MACHINE"),
        ];
        let known =
            named.into_iter().filter_map(|(pipeline, name)| Some((pipeline, std::env::var(name).ok()?)));
        Pipelines::new(&self.sdk, known)
    }

    /// How the home region's objects are locked.
    pub(crate) fn locks(&self) -> Result<S3Locks> {
        Ok(S3Locks::new(self.store()?, Self::lock_mode()?))
    }

    fn lock_mode() -> Result<LockMode> {
        variable("NIGHTSAFE_LOCK_MODE")?.parse()
    }

    /// The other regions.
    pub(crate) fn regions(&self) -> Result<Regions> {
        let (bucket, key, buckets) =
            (variable("NIGHTSAFE_BUCKET")?, variable("NIGHTSAFE_KEY")?, variable("NIGHTSAFE_BUCKETS")?);
        // Who locks nothing is not told how.
        let lock = if std::env::var("NIGHTSAFE_LOCK_MODE").is_ok() {
            Self::lock_mode()?
        } else {
            LockMode::Compliance
        };
        let home = Home { sdk: &self.sdk, bucket: &bucket, key: &key, lock };
        let others = Self::replica_regions()?
            .into_iter()
            .map(|name| OtherRegion::new(&home, name, format!("{buckets}-{name}")));
        Ok(Regions(others.collect::<Result<_>>()?))
    }

    /// The names of the other regions.
    pub(crate) fn replica_regions() -> Result<Vec<RegionName>> {
        let listed = variable("NIGHTSAFE_REPLICA_REGIONS")?;
        listed.split(',').filter(|name| !name.is_empty()).map(str::parse).collect()
    }

    /// The databases that schedules protect; empty for all there are.
    pub(crate) fn databases() -> Result<Vec<String>> {
        let listed = variable("NIGHTSAFE_DATABASES")?;
        Ok(listed.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect())
    }

    /// What is kept, and how long.
    pub(crate) fn policy() -> Result<Policy> {
        Policy::read(|parameter| std::env::var(format!("NIGHTSAFE_{}", in_capitals(parameter))).ok())
    }

    /// When something is wrong.
    pub(crate) fn watch_settings() -> Result<WatchSettings> {
        let home = variable("AWS_REGION")?.parse()?;
        Ok(WatchSettings { window: variable("NIGHTSAFE_BACKUP_WINDOW")?.parse()?, ..WatchSettings::of(home) })
    }

    /// Where samples are restored to: a server of our own, if there is a binary for it; else the verification cluster.
    pub(crate) async fn scratch(&self) -> Result<Box<dyn Scratch>> {
        if let Some(mongod) = mongod() {
            return Ok(Box::new(OwnServer::new(mongod, std::env::temp_dir())));
        }
        let secret = variable("NIGHTSAFE_VERIFICATION_SECRET")?;
        if secret.is_empty() {
            return Ok(Box::new(NoScratch));
        }
        let uri = connection_string(&self.sdk, &secret).await?;
        let cluster = VerificationCluster::connect(&uri).await;
        Ok(Box::new(cluster.map_err(|why| why.while_doing(format!("use secret {secret}")))?))
    }

    /// How long a scheduled backup is kept at least, and locked from the beginning.
    pub(crate) fn recent() -> Result<Period> {
        variable("NIGHTSAFE_RECENT_RETENTION")?.parse()
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

    /// Of the steps that make no chunks.
    pub(crate) fn settings_without_chunks() -> Settings {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Settings { compress_workers: cores, ..Settings::default() }
    }
}

/// The `mongod` that `NIGHTSAFE_MONGOD` names, or the first on the path, where a layer's is.
fn mongod() -> Option<PathBuf> {
    let named = std::env::var_os("NIGHTSAFE_MONGOD").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    named.or_else(|| std::env::split_paths(&path).map(|folder| folder.join("mongod")).find(|it| it.is_file()))
}

/// The other regions.
pub(crate) struct Regions(Vec<OtherRegion>);

impl Regions {
    /// As the flows take them.
    pub(crate) fn each(&self) -> Vec<Region<'_>> {
        self.0.iter().map(OtherRegion::ports).collect()
    }
}

/// `DailyRetention` as `DAILY_RETENTION`.
fn in_capitals(parameter: &str) -> String {
    let mut out = String::new();
    for letter in parameter.chars() {
        if letter.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(letter.to_ascii_uppercase());
    }
    out
}

fn variable(name: &str) -> Result<String> {
    std::env::var(name).map_err(|_| {
        Error::new(ErrorKind::Internal, format!("read the environment: {name} is not set"))
            .hint("the function was not deployed by this release's template")
    })
}
