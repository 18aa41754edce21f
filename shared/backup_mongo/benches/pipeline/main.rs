//! How fast a dump and a restore are, and each of their stages alone, side by side in one run; and how much memory
//! they take. Needs a server it may write to:
//!
//! ```text
//! cargo local up && source target/local/env
//! cargo bench -p backup_mongo                                    # speed, 1 GiB, two compressors
//! cargo bench -p backup_mongo -- --mib 256 --workers 1 --level 1 --rounds 1
//! cargo bench -p backup_mongo -- --memory --mib 2048             # peak resident size of a dump and a restore
//! ```
//!
//! Objects go to a directory, not to S3. Figures of one run are to be compared with each other, not with those of
//! another machine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a bench")]
#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "a bench's output")]

mod documents;
mod memory;
mod stages;
mod whole;

use backup_core::settings::MIB;
use backup_mongo::Cluster;

/// What is measured.
#[derive(Clone, Debug)]
struct Options {
    memory: bool,
    child: Option<String>,
    mib: u64,
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
            child: None,
            mib: 1024,
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
                "--child" => options.child = Some(value()),
                "--mib" => options.mib = value().parse().unwrap(),
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

    const fn bytes(&self) -> u64 {
        self.mib * MIB
    }
}

#[tokio::main]
async fn main() {
    let options = Options::from_arguments();
    let uri = std::env::var("MONGODB_URI").expect("MONGODB_URI: `source target/local/env` sets it");
    let cluster = Cluster::connect(&uri).await.unwrap();
    if let Some(step) = &options.child {
        return memory::child(&cluster, &options, step).await;
    }
    documents::seed(&uri, &options).await;
    if options.memory {
        memory::measure(&options);
    } else {
        whole::speed(&cluster, &options).await;
    }
    documents::drop(&uri).await;
}
