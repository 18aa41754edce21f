//! Writes the backup of the fixture's database in the format of today: `write_golden FOLDER`, once for every released
//! format. It is a folded one, with chunks that were folded and chunks that were copied. A folder that exists is left alone, because golden files are never edited.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use backup_core::operation::OperationKind;
use backup_testkit::fixture::{World, lead};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(folder) = std::env::args().nth(1).filter(|folder| !Path::new(folder).exists()) else {
        return ExitCode::from(2);
    };
    let world = World::with_data();
    world.back_up().await;
    world.cluster.write("leads", &lead(7)); // a change that changes nothing
    let (Ok(()), Ok(id)) = (world.capture().await, world.synthesize().await) else {
        return ExitCode::FAILURE;
    };
    let row = serde_json::to_vec_pretty(&world.operation(OperationKind::Backup, id).await);
    let mut files = vec![(format!("{folder}/operation.json"), row.unwrap_or_default())];
    let objects = world.store.objects();
    let kept = objects
        .iter()
        .filter(|(path, _)| path.contains(&id.to_string()))
        .filter(|(path, _)| path.contains("/chunks/") || path.ends_with("manifest.json.sealed"));
    files.extend(kept.map(|(path, body)| (format!("{folder}/bucket/{path}"), body.to_vec())));
    for (path, body) in files {
        let parent = Path::new(&path).parent().map(fs::create_dir_all);
        if !matches!(parent, Some(Ok(()))) || fs::write(&path, body).is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
