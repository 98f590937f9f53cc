//! A database for writes that wait, of one kind or the other.

use std::path::{Path, PathBuf};

use larder_testkit::postgres::Postgres;
use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

/// `stock` refuses fewer than no pieces; of `note`, what comes out of order is noted.
const TABLES: &str = "CREATE TABLE stock (id INTEGER PRIMARY KEY, name TEXT NOT NULL,
        pieces BIGINT NOT NULL CHECK (pieces >= 0));
    CREATE TABLE note (id INTEGER PRIMARY KEY, n BIGINT NOT NULL);
    CREATE TABLE disorder (id INTEGER NOT NULL);";

const SQLITE_TRIGGER: &str = "CREATE TRIGGER in_order AFTER UPDATE ON note
    WHEN NEW.n < OLD.n BEGIN INSERT INTO disorder VALUES (NEW.id); END;";

const POSTGRES_TRIGGER: &str = "CREATE FUNCTION note_disorder() RETURNS trigger AS $$
    BEGIN INSERT INTO disorder VALUES (NEW.id); RETURN NEW; END $$ LANGUAGE plpgsql;
    CREATE TRIGGER in_order AFTER UPDATE ON note FOR EACH ROW WHEN (NEW.n < OLD.n)
    EXECUTE FUNCTION note_disorder();";

pub(super) enum Database {
    Postgres(Postgres),
    Sqlite(PathBuf),
}

impl Database {
    pub(super) fn postgres() -> Self {
        let postgres = Postgres::launch();
        postgres.execute(TABLES);
        postgres.execute(POSTGRES_TRIGGER);
        Self::Postgres(postgres)
    }

    pub(super) async fn sqlite(directory: &Path) -> Self {
        let path = directory.join("shop.db");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        drop(options.connect().await.expect("it can be made"));
        let database = Self::Sqlite(path);
        database.execute(TABLES).await;
        database.execute(SQLITE_TRIGGER).await;
        database
    }

    pub(super) fn url(&self) -> String {
        match self {
            Self::Postgres(postgres) => postgres.url("postgres"),
            Self::Sqlite(path) => format!("sqlite:{}", path.display()),
        }
    }

    pub(super) fn postgres_mut(&mut self) -> &mut Postgres {
        match self {
            Self::Postgres(postgres) => postgres,
            Self::Sqlite(_) => panic!("it is a file, which cannot be stopped"),
        }
    }

    async fn connect(path: &Path) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(path);
        let patience = std::time::Duration::from_secs(60);
        options.busy_timeout(patience).connect().await.expect("it is there")
    }

    pub(super) async fn execute(&self, sql: &str) {
        match self {
            Self::Postgres(postgres) => drop(postgres.execute(sql)),
            Self::Sqlite(path) => {
                let mut connection = Self::connect(path).await;
                let script = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()));
                script.execute(&mut connection).await.expect("it is SQL");
            }
        }
    }

    /// The first column of every row, as text.
    pub(super) async fn ask(&self, sql: &str) -> Vec<String> {
        match self {
            Self::Postgres(postgres) => postgres.execute(sql).lines().map(str::to_owned).collect(),
            Self::Sqlite(path) => {
                let mut connection = Self::connect(path).await;
                let rows = sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(sql.to_owned()));
                rows.fetch_all(&mut connection).await.expect("it answers")
            }
        }
    }

    /// A member of one row, if it is there.
    pub(super) async fn member(&self, table: &str, column: &str, id: usize) -> Option<String> {
        let sql = format!("SELECT CAST({column} AS TEXT) FROM {table} WHERE id = {id}");
        self.ask(&sql).await.into_iter().next()
    }
}
