//! A server that is killed again and again while clients write behind: what was
//! acknowledged is in the database afterwards, once and in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tempfile::tempdir;

use super::*;

const CLIENTS: usize = 8;

/// What one client asked for and was told. It writes a counter and a note of its own,
/// one after the other.
#[derive(Default)]
struct Account {
    /// What was added and acknowledged.
    added: AtomicI64,
    /// What may have been added besides: its answer never came.
    perhaps: AtomicI64,
    /// The last number that was acknowledged, and the last that was sent.
    noted: AtomicI64,
    sent: AtomicI64,
    acknowledged: AtomicI64,
}

impl Account {
    /// Writes and reads until the server is gone.
    async fn work(&self, mut redis: MultiplexedConnection, id: usize) {
        let (counter, note) = (format!("stock:{id}"), format!("note:{id}"));
        // What was acknowledged before the kill is read first.
        if self.check(&mut redis, id).await.is_err() {
            return;
        }
        loop {
            let mut add = redis::cmd("LARDER.INCR");
            add.arg(&counter).arg("pieces").arg(1);
            match add.query_async::<redis::Value>(&mut redis).await {
                Ok(_) => self.added.fetch_add(1, Ordering::SeqCst),
                Err(error) if is_gone(&error) => {
                    self.perhaps.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                Err(error) => panic!("it was not acknowledged: {error}"),
            };
            let number = self.sent.fetch_add(1, Ordering::SeqCst) + 1;
            let row = format!("{{\"id\":{id},\"n\":{number}}}");
            match redis::cmd("SET").arg(&note).arg(row).query_async::<()>(&mut redis).await {
                Ok(()) => self.noted.store(number, Ordering::SeqCst),
                Err(error) if is_gone(&error) => return,
                Err(error) => panic!("it was not acknowledged: {error}"),
            }
            self.acknowledged.fetch_add(2, Ordering::SeqCst);
            if number % 7 == 0 && self.check(&mut redis, id).await.is_err() {
                return;
            }
        }
    }

    /// What is read is what was acknowledged.
    async fn check(&self, redis: &mut MultiplexedConnection, id: usize) -> Result<(), ()> {
        let mut get = redis::cmd("MGET");
        get.arg(format!("stock:{id}")).arg(format!("note:{id}"));
        let rows: Vec<String> = match get.query_async(redis).await {
            Ok(rows) => rows,
            Err(error) if is_gone(&error) => return Err(()),
            Err(error) => panic!("it is not read: {error}"),
        };
        self.judge(&member(&rows[0], "pieces"), &member(&rows[1], "n"));
        Ok(())
    }

    fn judge(&self, pieces: &str, n: &str) {
        let (added, perhaps) =
            (self.added.load(Ordering::SeqCst), self.perhaps.load(Ordering::SeqCst));
        let pieces: i64 = pieces.parse().expect("a number");
        assert!((added..=added + perhaps).contains(&pieces), "{added} +{perhaps}: {pieces}");
        let n: i64 = n.parse().expect("a number");
        let (noted, sent) = (self.noted.load(Ordering::SeqCst), self.sent.load(Ordering::SeqCst));
        assert!((noted..=sent).contains(&n), "{noted} to {sent}: {n}");
    }
}

#[allow(clippy::print_stdout, reason = "a proof tells what it has judged")]
async fn killed_again_and_again(database: Database, directory: &Path, rounds: usize) {
    for id in 0..CLIENTS {
        database.execute(&format!("INSERT INTO stock VALUES ({id}, 'n', 0)")).await;
        database.execute(&format!("INSERT INTO note VALUES ({id}, 0)")).await;
    }
    let config = configure(directory, &database, FAST);
    let accounts: Vec<_> = (0..CLIENTS).map(|_| Arc::new(Account::default())).collect();
    for round in 0..rounds {
        let mut server = start(directory, &config);
        let mut clients = Vec::new();
        for (id, account) in accounts.iter().enumerate() {
            let (account, redis) = (Arc::clone(account), server.redis().await);
            clients.push(tokio::spawn(async move { account.work(redis, id).await }));
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(20..400))).await;
        server.signal("KILL");
        server.wait();
        for client in clients {
            client.await.unwrap_or_else(|error| panic!("round {round}: {error}\n{}", server.log()));
        }
    }
    let server = start(directory, &config);
    let mut redis = server.redis().await;
    for (id, account) in accounts.iter().enumerate() {
        account.check(&mut redis, id).await.expect("the server runs");
    }
    assert_eq!(ask(&mut redis, &["LARDER.APPLY", "60000"]).await, "ok");
    assert_eq!(server.metric("larder_journal_dead_letters").await, Some(0.0));
    let mut acknowledged = 0;
    for (id, account) in accounts.iter().enumerate() {
        let pieces = database.member("stock", "pieces", id).await.expect("it is there");
        let n = database.member("note", "n", id).await.expect("it is there");
        account.judge(&pieces, &n);
        account.check(&mut redis, id).await.expect("the server runs");
        acknowledged += account.acknowledged.load(Ordering::SeqCst);
    }
    let disorder = database.ask("SELECT CAST(COUNT(*) AS TEXT) FROM disorder").await;
    assert_eq!(disorder, ["0"]);
    assert!(acknowledged > i64::try_from(rounds).expect("few") * 10, "{acknowledged}");
    println!(
        "{rounds} kills: acknowledged {acknowledged}, lost 0, applied twice 0, out of order 0"
    );
}

fn is_gone(error: &redis::RedisError) -> bool {
    error.is_io_error() || error.is_connection_dropped()
}

fn rounds(short: usize) -> usize {
    if std::env::var_os("LARDER_FULL").is_some() { 200 } else { short }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_or_applied_twice_over_sqlite() {
    let directory = tempdir().expect("a temporary directory");
    let database = Database::sqlite(directory.path()).await;
    killed_again_and_again(database, directory.path(), rounds(8)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_or_applied_twice_over_postgres() {
    let directory = tempdir().expect("a temporary directory");
    killed_again_and_again(Database::postgres(), directory.path(), rounds(6)).await;
}
