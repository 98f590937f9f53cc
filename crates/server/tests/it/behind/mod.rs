//! Writes behind through the server: acknowledged by the journal, in a real database
//! later.

mod database;
mod door;
mod kills;
mod origins;
mod trouble;

use std::path::Path;

use redis::aio::MultiplexedConnection;

use crate::running::Running;
use database::Database;

/// Nothing is applied unless somebody asks for it.
const SLOW: &str = "batch_records = 100000\nbatch_delay = \"1h\"";
/// Applied all the time.
const FAST: &str = "batch_records = 20\nbatch_delay = \"20ms\"\nretry_pause = \"10ms\"\n\
                    retry_pause_max = \"200ms\"\nretries_per_second = 1000";

/// The configuration over a database, with these options of the journal.
fn configure(directory: &Path, database: &Database, journal: &str) -> String {
    let text = format!(
        "[origins.shop]\nurl = \"{url}\"\nbreaker = {{ open = \"100ms\" }}\n\
         [journal]\ndirectory = \"{journal_directory}\"\n{journal}\n\
         [caches.stock]\ntable = \"stock\"\ntags = [\"name:{{name}}\"]\n\
         write = {{ mode = \"behind\" }}\n\
         [caches.note]\ntable = \"note\"\nwrite = {{ mode = \"behind\" }}\n",
        url = database.url(),
        journal_directory = directory.join("journal").display(),
    );
    let path = directory.join("larder.toml");
    std::fs::write(&path, text).expect("it can be written");
    path.display().to_string()
}

fn start(directory: &Path, config: &str) -> Running {
    Running::start(directory, &["--config", config])
}

/// What a command answers, as text.
async fn ask(redis: &mut MultiplexedConnection, words: &[&str]) -> String {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    match command.query_async::<redis::Value>(redis).await {
        Ok(redis::Value::BulkString(text)) => String::from_utf8_lossy(&text).into_owned(),
        Ok(redis::Value::VerbatimString { text, .. }) => text,
        Ok(value) => format!("{value:?}"),
        Err(error) => error.to_string(),
    }
}

/// A member of a row as JSON.
fn member(row: &str, name: &str) -> String {
    let row: serde_json::Value =
        serde_json::from_str(row).unwrap_or_else(|_| panic!("this is no row: {row}"));
    row[name].as_str().map_or_else(|| row[name].to_string(), str::to_owned)
}
