//! `nightsafe catalog rebuild`.

use backup_aws::SystemClock;
use backup_core::flows::rebuild_catalog::{Ports, run};
use backup_core::{Error, ErrorKind, Result};

use crate::session::Session;

/// From the bucket of this region alone, with the rights of whoever asks.
pub(crate) async fn rebuild(session: &Session) -> Result<()> {
    let clock = SystemClock::without_deadline();
    let ports = Ports {
        store: &session.store,
        listing: &session.store,
        keys: &session.keys,
        catalog: &session.catalog,
        timeline: &session.timeline,
        clock: &clock,
    };
    let rebuilt = run(ports, session.source).await?;
    if session.json {
        println!("{}", serde_json::json!({ "message_type": "rebuilt", "rebuilt": rebuilt }));
    } else {
        print!("{rebuilt}");
    }
    if rebuilt.skipped > 0 || rebuilt.without_manifest > 0 {
        return Err(Error::new(
            ErrorKind::Partial,
            "rebuild the catalog: not everything could be brought back",
        ));
    }
    Ok(())
}
