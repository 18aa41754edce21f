//! How fast a dump and a restore are, and each of their stages alone, side by side in one run; and how much memory
//! they take. Needs a server it may write to:
//!
//! ```text
//! cargo local up && source target/local/env
//! cargo bench -p backup_mongo                                    # speed, 1 GiB, two compressors
//! cargo bench -p backup_mongo -- --mib 256 --workers 1 --level 1 --rounds 1
//! cargo bench -p backup_mongo -- --memory --mib 2048             # peak resident size of a dump and a restore
//! cargo bench -p backup_mongo -- --timeline --documents 200000   # capture, fold, and a restore with and without it
//! cargo bench -p backup_mongo -- --timeline --memory --documents 1000000 --document-bytes 400
//! ```
//!
//! Objects go to a directory, not to S3. Figures of one run are to be compared with each other, not with those of
//! another machine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a bench")]
#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "a bench's output")]

mod changes;
mod documents;
mod memory;
mod stages;
mod timeline;
mod whole;

use backup_core::settings::MIB;
use backup_mongo::Cluster;

/// What is measured.
#[derive(Clone, Debug)]
struct Options {
    memory: bool,
    timeline: bool,
    child: Option<String>,
    mib: u64,
    /// Instead of `mib`.
    documents: Option<i64>,
    document_bytes: usize,
    workers: usize,
    writers: usize,
    level: i32,
    rounds: usize,
}

impl Options {
    fn from_arguments() -> Self {
        let mut options = Self {
            memory: false,
            timeline: false,
            child: None,
            mib: 1024,
            documents: None,
            document_bytes: 1400,
            workers: 2,
            writers: 4,
            level: 3,
            rounds: 3,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} wants a value"));
            match argument.as_str() {
                "--bench" => {} // cargo's own
                "--memory" => options.memory = true,
                "--timeline" => options.timeline = true,
                "--child" => options.child = Some(value()),
                "--mib" => options.mib = value().parse().unwrap(),
                "--documents" => options.documents = Some(value().parse().unwrap()),
                "--document-bytes" => options.document_bytes = value().parse().unwrap(),
                "--workers" => options.workers = value().parse().unwrap(),
                "--writers" => options.writers = value().parse().unwrap(),
                "--level" => options.level = value().parse().unwrap(),
                "--rounds" => options.rounds = value().parse().unwrap(),
                other => panic!("{other}: not an option of this bench; see the top of its source"),
            }
        }
        options
    }

    /// How many documents the collection has.
    fn documents(&self) -> i64 {
        let of_mib = || self.mib * MIB / u64::try_from(self.document_bytes).unwrap();
        self.documents.unwrap_or_else(|| i64::try_from(of_mib()).unwrap())
    }
}

#[tokio::main]
async fn main() {
    let options = Options::from_arguments();
    let uri = std::env::var("MONGODB_URI").expect("MONGODB_URI: `source target/local/env` sets it");
    let cluster = Cluster::connect(&uri).await.unwrap();
    match &options.child {
        Some(step) if options.timeline => return Box::pin(timeline::child(&cluster, &options, step)).await,
        Some(step) => return memory::child(&cluster, &options, step).await,
        None => documents::seed(&uri, &options).await,
    }
    match (options.timeline, options.memory) {
        (true, true) => Box::pin(timeline::memory(&cluster, &uri, &options)).await,
        (true, false) => Box::pin(timeline::speed(&cluster, &uri, &options)).await,
        (false, true) => memory::measure(&options),
        (false, false) => whole::speed(&cluster, &options).await,
    }
    documents::drop(&uri).await;
}
