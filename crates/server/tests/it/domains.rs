//! The example domains, as they stand in `examples`, with many clients at once: what
//! depends on a write is never read old afterwards, and changes in order.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tokio::task::JoinSet;

use crate::running::{PATIENCE, Running};

/// A configuration over a SQLite database, and what is in that.
pub(crate) struct Domain {
    pub(crate) config: &'static str,
    schema: &'static str,
    /// The variable of the environment that has the URL of the database.
    variable: &'static str,
}

macro_rules! domain {
    ($folder:literal, $variable:literal) => {
        Domain {
            config: include_str!(concat!("../../../../examples/", $folder, "/larder.toml")),
            schema: include_str!(concat!("../../../../examples/", $folder, "/schema.sql")),
            variable: $variable,
        }
    };
}

pub(crate) const INVESTMENT: Domain = domain!("investment", "BANK_DATABASE_URL");
const FAMILY: Domain = domain!("family-budget", "FAMILY_DATABASE_URL");
const DEVICES: Domain = domain!("device-monitoring", "PLANT_DATABASE_URL");

impl Domain {
    /// A server of it, with more in its configuration. The database is made in the
    /// directory, unless it is there.
    pub(crate) async fn serve(&self, directory: &Path, more: &str) -> Running {
        let database = directory.join("example.db");
        if !database.exists() {
            let options = SqliteConnectOptions::new().filename(&database).create_if_missing(true);
            let mut connection = options.connect().await.expect("it can be made");
            sqlx::raw_sql(self.schema).execute(&mut connection).await.expect("it is SQL");
            connection.close().await.expect("it can be closed");
        }
        let path = directory.join("larder.toml");
        std::fs::write(&path, format!("{}\n{more}", self.config)).expect("it can be written");
        let path = path.to_str().expect("the path is text").to_owned();
        Running::start_with(directory, &["--config", &path], |command| {
            command.env(self.variable, format!("sqlite:{}", database.display()));
        })
    }
}

async fn get(redis: &mut MultiplexedConnection, key: &str) -> Value {
    let row: String = redis::cmd("GET").arg(key).query_async(redis).await.expect("it is answered");
    serde_json::from_str(&row).expect("it is JSON")
}

/// Of how many expenses each of these knows, last first: the overview, the three
/// budgets, and the sum.
async fn known(redis: &mut MultiplexedConnection) -> [u64; 5] {
    let mut known = [0; 5];
    let overview = get(redis, "overview:1").await;
    let members = overview.as_array().expect("a list").iter();
    known[0] = members.map(|member| member["expenses"].as_u64().expect("a number")).sum();
    for (member, known) in (1..=3).zip(&mut known[1..]) {
        let budget = get(redis, &format!("budget:1:{member}")).await;
        *known = budget["after_expenses"].as_u64().expect("a number");
    }
    known[4] = get(redis, "spending:1").await["expenses"].as_u64().expect("a number");
    known
}

/// Expenses that are recorded while everybody reads.
struct Family {
    /// Of how many expenses everybody must know.
    acknowledged: AtomicU64,
    is_over: AtomicBool,
}

impl Family {
    /// Reads until it is over. Returns how often.
    async fn read(&self, mut redis: MultiplexedConnection, seen: &AtomicU64) -> u64 {
        let mut passes = 0;
        while !self.is_over.load(Ordering::Acquire) {
            let least = self.acknowledged.load(Ordering::Acquire);
            let known = known(&mut redis).await;
            assert!(known.iter().all(|of| *of >= least), "old after {least}: {known:?}");
            // Each comes after what it is computed from, so who has seen it new sees
            // that new, too, when it reads on.
            let [overview, budgets @ .., sum] = known;
            assert!(budgets.iter().all(|budget| overview <= *budget), "{known:?}");
            assert!(budgets.iter().all(|budget| *budget <= sum), "{known:?}");
            seen.store(least, Ordering::Release);
            passes += 1;
        }
        passes
    }
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stdout, reason = "a proof tells what it has judged")]
async fn nobody_reads_an_old_budget_after_an_expense_and_the_order_is_kept() {
    const READERS: usize = 8;
    let rounds = if std::env::var_os("LARDER_FULL").is_some() { 2000 } else { 150 };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = FAMILY.serve(directory.path(), "").await;
    let mut writer = server.redis().await;
    let others = get(&mut writer, "budget:2:1").await;
    let (_, explained) = server.page("/explain/expense%3A1%3A7").await;
    let order = ["spending: key spending:1", "budget: tag @spending:1", "overview: key overview:1"];
    assert_eq!(explained["cache"]["touches"], serde_json::json!(order));

    let family =
        Arc::new(Family { acknowledged: AtomicU64::new(1), is_over: AtomicBool::new(false) });
    let seen: Arc<Vec<AtomicU64>> = Arc::new((0..READERS).map(|_| AtomicU64::new(0)).collect());
    let mut readers = JoinSet::new();
    for reader in 0..READERS {
        let (family, seen, redis) = (Arc::clone(&family), Arc::clone(&seen), server.redis().await);
        readers.spawn(async move { family.read(redis, &seen[reader]).await });
    }
    for round in 1..=rounds {
        // What changes is cached, and by nobody loaded any more.
        let deadline = Instant::now() + PATIENCE;
        while seen.iter().any(|seen| seen.load(Ordering::Acquire) < round) {
            assert!(
                Instant::now() < deadline && readers.try_join_next().is_none(),
                "round {round}"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let row = format!(r#"{{"member_id":{},"what":"bread","cents":100}}"#, round % 3 + 1);
        let mut set = redis::cmd("SET");
        set.arg(format!("expense:1:{}", 1000 + round)).arg(row);
        let () = set.query_async(&mut writer).await.expect("it is recorded");
        family.acknowledged.store(round + 1, Ordering::Release);
    }
    assert_eq!(known(&mut writer).await, [rounds + 1; 5]);
    family.is_over.store(true, Ordering::Release);
    let passes: u64 = readers.join_all().await.into_iter().sum();
    println!("{rounds} expenses, {passes} times all was read by {READERS} clients, old: 0");

    assert_eq!(get(&mut writer, "budget:2:1").await, others);
    let loads = server.metric("larder_cache_loads_total{cache=\"budget\"}").await;
    let most = (1 + 3 * (rounds + 1)) as f64;
    assert!(loads.is_some_and(|loads| loads <= most), "{loads:?} loads, {most} at most");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_is_in_memory_and_in_the_summaries_when_it_is_answered() {
    const ROUNDS: u64 = 50;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = DEVICES.serve(directory.path(), "").await;
    let mut redis = server.redis().await;
    for key in ["current:5", "current:6", "current:7", "current:8", "site:1"] {
        get(&mut redis, key).await;
    }
    let mut devices = JoinSet::new();
    for device in 5..=8_u64 {
        let mut redis = server.redis().await;
        devices.spawn(async move {
            for round in 1..=ROUNDS {
                let celsius = (1000 * device + round) as f64 + 0.5;
                let mut patch = redis::cmd("LARDER.PATCH");
                patch.arg(format!("current:{device}")).arg(format!(r#"{{"celsius":{celsius}}}"#));
                let () = patch.query_async(&mut redis).await.expect("it is written");
                let now = get(&mut redis, &format!("current:{device}")).await;
                assert_eq!(now["celsius"], celsius);
                let site = get(&mut redis, "site:2").await;
                let rows = site.as_array().expect("a list");
                let row = rows.iter().find(|row| row["device_id"] == device);
                assert_eq!(row.expect("it stands there")["celsius"], celsius, "{site}");
                let history = get(&mut redis, &format!("history:{device}")).await;
                assert_eq!(history["readings"], 1 + round);
            }
        });
    }
    devices.join_all().await;
    let loads = async |cache: &str| {
        server.metric(&format!("larder_cache_loads_total{{cache=\"{cache}\"}}")).await
    };
    assert_eq!(loads("current").await, Some(4.0), "a write needs no load");
    let sites = loads("site").await;
    get(&mut redis, "site:1").await;
    assert_eq!(loads("site").await, sites, "the other site was not touched");
    let plant = get(&mut redis, "plant:oven").await;
    assert_eq!(plant["highest"], (7000 + ROUNDS) as f64 + 0.5);
}
