//! The demonstration: a SQLite database of a shop that does not exist, the same
//! on every machine.

mod random;
mod tables;
mod words;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use larder_core::{Error, ErrorKind, Result};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, QueryBuilder, Sqlite};

use random::Random;
use tables::{AFTERWARDS, Cell, SCHEMA, TABLES, Table};

/// The layout of the data. A database of another layout is made anew.
const LAYOUT: i64 = 1;

const SEED: u64 = 0x001A_2DE2;

/// The demonstration database.
#[derive(Clone, Debug)]
pub struct Demo {
    /// The file.
    pub path: PathBuf,
    /// Whether it was made just now, not found from an earlier run.
    pub is_new: bool,
}

impl Demo {
    /// The URL to serve it by.
    #[must_use]
    pub fn url(&self) -> String {
        format!("sqlite:{}", escape(&self.path.to_string_lossy()))
    }

    /// How many rows it has.
    #[must_use]
    pub fn rows() -> u64 {
        TABLES.iter().map(|table| table.rows).sum()
    }
}

/// Where the demonstration is kept if nobody says otherwise: the user's cache
/// directory, or else the one for temporary files.
#[must_use]
pub fn default_directory() -> PathBuf {
    let from =
        |name: &str| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    from("XDG_CACHE_HOME")
        .or_else(|| from("HOME").map(|home| home.join(".cache")))
        .map_or_else(|| std::env::temp_dir().join("larder-demo"), |cache| cache.join("larder"))
}

/// Makes the demonstration database in a directory, unless a complete one is
/// there. Takes a second or two; shows a progress bar on a terminal.
///
/// # Errors
/// [`ErrorKind::Config`] if the directory cannot be written.
///
/// # Cancel safety
/// A dropped call leaves no incomplete database under the final name.
pub async fn prepare(directory: &Path) -> Result<Demo> {
    let path = directory.join("demo-shop.db");
    if layout_of(&path).await == Some(LAYOUT) {
        return Ok(Demo { path, is_new: false });
    }
    let refuse = |error: &dyn std::fmt::Display| {
        Error::new(ErrorKind::Config, "the demonstration database cannot be made")
            .with("directory", directory.display())
            .with("reason", error)
            .remedy("name a directory that can be written with --demo-dir")
    };
    std::fs::create_dir_all(directory).map_err(|error| refuse(&error))?;
    // Another process may be making it too: each makes its own and renames it.
    let unfinished = directory.join(format!("demo-shop.{}.unfinished", std::process::id()));
    let _ = std::fs::remove_file(&unfinished);
    let made = make(&unfinished).await.map_err(|error| refuse(&error));
    let finished =
        made.and_then(|()| std::fs::rename(&unfinished, &path).map_err(|error| refuse(&error)));
    if finished.is_err() {
        let _ = std::fs::remove_file(&unfinished);
    }
    finished.map(|()| Demo { path, is_new: true })
}

async fn layout_of(path: &Path) -> Option<i64> {
    if !path.is_file() {
        return None;
    }
    let options = SqliteConnectOptions::new().filename(path).read_only(true);
    let mut connection = options.connect().await.ok()?;
    let layout = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut connection).await.ok();
    let _ = connection.close().await;
    layout
}

async fn make(path: &Path) -> sqlx::Result<()> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        // Until it is renamed nobody would miss it: there is nothing to recover.
        .journal_mode(SqliteJournalMode::Off)
        .synchronous(SqliteSynchronous::Off);
    let mut connection = options.connect().await?;
    let progress = progress_bar();
    let mut random = Random::new(SEED);
    let mut transaction = connection.begin().await?;
    for statement in SCHEMA {
        sqlx::query(statement).execute(&mut *transaction).await?;
    }
    for table in &TABLES {
        fill(&mut transaction, table, &mut random, &progress).await?;
    }
    for statement in AFTERWARDS {
        sqlx::query(statement).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    sqlx::query("PRAGMA user_version = 1").execute(&mut connection).await?;
    progress.finish_and_clear();
    connection.close().await
}

/// Rows in one statement: the most that keeps the widest table under SQLite's
/// limit of 32 766 values.
const ROWS_PER_STATEMENT: u64 = 1_000;

async fn fill(
    connection: &mut SqliteConnection,
    table: &Table,
    random: &mut Random,
    progress: &ProgressBar,
) -> sqlx::Result<()> {
    progress.set_message(table.name);
    let mut next = 1;
    while next <= table.rows {
        let end = (next + ROWS_PER_STATEMENT).min(table.rows + 1);
        let mut insert = QueryBuilder::<Sqlite>::new(format!("INSERT INTO {} ", table.name));
        insert.push_values(
            (next..end).map(|number| (table.row)(number, random)),
            |mut row, cells| {
                for cell in cells {
                    match cell {
                        Cell::Integer(number) => row.push_bind(number),
                        Cell::Text(text) => row.push_bind(text),
                        Cell::Null => row.push("NULL"),
                    };
                }
            },
        );
        insert.build().persistent(false).execute(&mut *connection).await?;
        progress.inc(end - next);
        next = end;
    }
    Ok(())
}

fn progress_bar() -> ProgressBar {
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let style = ProgressStyle::with_template("making the demo shop {bar:30} {pos}/{len} {msg}")
        .expect("the template is well formed");
    ProgressBar::with_draw_target(Some(Demo::rows()), target).with_style(style)
}

/// A path as part of a URL.
fn escape(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for c in path.chars() {
        match c {
            '%' | '?' | '#' | ' ' => text.push_str(&format!("%{:02X}", c as u32)),
            _ => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_made_once_and_is_the_same_everywhere() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let demo = prepare(directory.path()).await.expect("the demo is made");
        assert!(demo.is_new);
        assert!(!prepare(directory.path()).await.expect("the demo is found").is_new);
        let options = SqliteConnectOptions::new().filename(&demo.path).read_only(true);
        let mut connection = options.connect().await.expect("it is a database");
        let (name, cents): (String, i64) =
            sqlx::query_as("SELECT name, price_cents FROM product WHERE id = 42")
                .fetch_one(&mut connection)
                .await
                .expect("product 42 is there");
        insta::assert_snapshot!(format!("{name}: {cents}"));
        let mut rows = 0;
        for table in &TABLES {
            let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
                "SELECT count(*) FROM {}",
                table.name
            )))
            .fetch_one(&mut connection)
            .await
            .expect("it can be counted");
            rows += count as u64;
        }
        assert_eq!(rows, Demo::rows());
        let broken: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM purchase_line l LEFT JOIN purchase p ON p.id = l.purchase_id WHERE p.id IS NULL",
        )
        .fetch_one(&mut connection)
        .await
        .expect("it can be joined");
        assert_eq!(broken, 0);
        let files = std::fs::read_dir(directory.path()).expect("it can be listed").count();
        assert_eq!(files, 1, "nothing unfinished is left");
    }

    #[test]
    fn an_odd_path_survives_the_url() {
        let demo = Demo { path: PathBuf::from("/tmp/a b?c%/d.db"), is_new: false };
        assert_eq!(demo.url(), "sqlite:/tmp/a%20b%3Fc%25/d.db");
    }
}
