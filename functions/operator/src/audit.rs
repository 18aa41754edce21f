//! `nightsafe audit`: who did what, newest first.

use backup_core::Result;
use backup_core::ports::Catalog;

use crate::arguments::LimitArguments;
use crate::session::Session;

/// One record a line, in the procedures' shape; with `--json` all of them in one object.
pub(crate) async fn run(session: &Session, wanted: &LimitArguments) -> Result<()> {
    let records = session.catalog.audit(wanted.limit).await?;
    if session.json {
        println!("{}", serde_json::json!({ "message_type": "audit", "records": records }));
        return Ok(());
    }
    for record in &records {
        println!("{}", serde_json::to_string(record).unwrap_or_default()); // strings and numbers always serialise
    }
    Ok(())
}
