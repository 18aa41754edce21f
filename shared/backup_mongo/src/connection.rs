//! Connecting, with every secret kept out of errors.

use std::path::Path;
use std::time::Duration;

use backup_core::{Error, ErrorKind, Result};
use bson::{RawDocument, cstr, rawdoc};
use futures_util::StreamExt;
use mongodb::options::{ClientOptions, ServerAddress, Tls};
use mongodb::raw_batch_cursor::RawBatchCursor;
use mongodb::{Client, Database};

use crate::error::told;

/// How long a server may take to be found: elections last up to twelve seconds.
const SELECTION_SECONDS: u64 = 20;
const CONNECT_SECONDS: u64 = 10;
/// A call that takes longer than this is not coming back.
const CALL_SECONDS_MAX: u64 = 120;
/// Connections at most: a step has a handful of cursors and writers, and small clusters allow few hundred in all.
const CONNECTIONS_MAX: u32 = 16;

/// A MongoDB cluster: the source of backups, or the target of restores.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub(crate) client: Client,
}

impl Cluster {
    /// Prepares to connect to `uri`; the first call connects.
    pub async fn connect(uri: &str) -> Result<Self> {
        let invalid = || {
            Error::new(ErrorKind::Invalid, "read the connection string")
                .hint("the secret must hold one line: mongodb://… or mongodb+srv://…, with special characters of user and password percent-encoded")
        };
        let uri = uri.trim();
        if uri.contains(|it: char| it.is_whitespace() || it.is_control()) {
            return Err(invalid()); // the driver would take a second line for a part of the first
        }
        let options = ClientOptions::parse(uri).await.map_err(|_| invalid())?;
        if let Some(Tls::Enabled(tls)) = &options.tls
            && tls.allow_invalid_certificates == Some(true)
        {
            return Err(Error::new(ErrorKind::Refused, "connect without checking certificates")
                .hint("remove tlsInsecure and tlsAllowInvalidCertificates from the connection string"));
        }
        if !matches!(options.tls, Some(Tls::Enabled(_))) && !options.hosts.iter().all(is_this_machine) {
            return Err(Error::new(ErrorKind::Refused, "connect without TLS")
                .hint("add tls=true to the connection string (mongodb+srv:// has it by itself)"));
        }
        Self::with(options).map_err(|_| invalid())
    }

    /// Prepares to connect to the server behind a socket of this machine; the first call connects.
    pub(crate) fn at_socket(path: &Path) -> Result<Self> {
        let address = ServerAddress::Unix { path: path.to_owned() };
        let options = ClientOptions::builder().hosts(vec![address]).direct_connection(true).build();
        Self::with(options).map_err(|why| told("prepare to connect to a socket", &why))
    }

    fn with(mut options: ClientOptions) -> mongodb::error::Result<Self> {
        options.app_name = Some("nightsafe".to_owned());
        options.server_selection_timeout = Some(Duration::from_secs(SELECTION_SECONDS));
        options.connect_timeout = Some(Duration::from_secs(CONNECT_SECONDS));
        options.max_pool_size = Some(CONNECTIONS_MAX);
        Client::with_options(options).map(|client| Self { client })
    }

    pub(crate) fn database(&self, name: &str) -> Result<Database> {
        let bad = name.is_empty() || name.len() > 63 || name.contains(['/', '\\', '.', '"', '$', '\0', ' ']);
        if bad {
            return Err(Error::new(ErrorKind::Invalid, format!("use database {name:?}"))
                .hint("MongoDB's database names have 1 to 63 bytes and none of / \\ . \" $ or space"));
        }
        Ok(self.client.database(name))
    }

    pub(crate) async fn command(
        &self,
        database: &str,
        command: bson::RawDocumentBuf,
        attempted: &str,
    ) -> Result<bson::Document> {
        self.try_command(database, command).await?.map_err(|why| told(attempted, &why))
    }

    /// The outer error is ours, the inner the driver's, for callers that look at the code.
    pub(crate) async fn try_command(
        &self,
        database: &str,
        command: bson::RawDocumentBuf,
    ) -> Result<mongodb::error::Result<bson::Document>> {
        let database = self.database(database)?;
        within("run a command", async { Ok(database.run_raw_command(command).await) }).await
    }

    /// Changes collections, and is done once a majority of the members has the change.
    pub(crate) async fn try_change(
        &self,
        database: &str,
        mut command: bson::RawDocumentBuf,
        attempted: &str,
    ) -> Result<mongodb::error::Result<bson::Document>> {
        command.append(cstr!("writeConcern"), rawdoc! { "w": "majority" });
        match self.try_command(database, command).await? {
            Ok(reply) => confirmed(reply, attempted).map(Ok),
            refused => Ok(refused),
        }
    }

    /// As [`Cluster::try_change`], where every refusal is a failure.
    pub(crate) async fn change(
        &self,
        database: &str,
        command: bson::RawDocumentBuf,
        attempted: &str,
    ) -> Result<bson::Document> {
        self.try_change(database, command, attempted).await?.map_err(|why| told(attempted, &why))
    }

    /// Opens a cursor over what a command gives. The outer error is ours, the inner the driver's.
    pub(crate) async fn open_rows(
        &self,
        database: &str,
        command: bson::RawDocumentBuf,
        attempted: &str,
    ) -> Result<mongodb::error::Result<RawBatchCursor>> {
        let database = self.database(database)?;
        within(attempted, async { Ok(database.run_raw_cursor_command(command).batch().await) }).await
    }

    /// Without a time limit of its own: builds of indexes last as long as they last.
    pub(crate) async fn long_command(
        &self,
        database: &str,
        command: bson::RawDocumentBuf,
        attempted: &str,
    ) -> Result<bson::Document> {
        let done = self.database(database)?.run_raw_command(command).await;
        confirmed(done.map_err(|why| told(attempted, &why))?, attempted)
    }
}

/// A reply, unless a majority did not confirm what it says.
fn confirmed(reply: bson::Document, attempted: &str) -> Result<bson::Document> {
    if reply.contains_key("writeConcernError") {
        let what = format!("{attempted}: a majority did not confirm in time");
        return Err(Error::new(ErrorKind::Transient, what));
    }
    Ok(reply)
}

/// Hands out every document of a cursor.
pub(crate) async fn each_row(
    mut rows: RawBatchCursor,
    attempted: &str,
    mut give: impl FnMut(&RawDocument) -> Result<()> + Send,
) -> Result<()> {
    let strange = || Error::new(ErrorKind::Unsupported, attempted).because("an entry is not understood");
    loop {
        let next = async { rows.next().await.transpose().map_err(|why| told(attempted, &why)) };
        let Some(batch) = within(attempted, next).await? else { return Ok(()) };
        for row in batch.doc_slices().map_err(|why| told(attempted, &why))? {
            give(row.ok().and_then(bson::RawBsonRef::as_document).ok_or_else(strange)?)?;
        }
    }
}

/// `work` within [`CALL_SECONDS_MAX`]: the driver has no socket timeout of its own.
pub(crate) async fn within<T>(attempted: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(Duration::from_secs(CALL_SECONDS_MAX), work).await.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Transient, attempted)
            .because(format!("the server did not answer within {CALL_SECONDS_MAX} s")))
    })
}

fn is_this_machine(host: &ServerAddress) -> bool {
    match host {
        ServerAddress::Tcp { host, .. } => {
            matches!(host.as_str(), "127.0.0.1" | "localhost" | "::1" | "[::1]")
        }
        ServerAddress::Unix { .. } => true,
        _ => false,
    }
}
