//! How many queries a database gets when everybody asks at once: clients of
//! `larder serve` in front of a real Postgres that logs each statement.
//!
//! ```text
//! cargo run --release --package larder-bench --bin stampede
//! ```
//!
//! `LARDER_BIN` names a server binary to measure instead of building one.
#![allow(clippy::print_stdout, reason = "a benchmark speaks to the person who runs it")]

use std::io;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_bench::process::{RespServer, free_port, larder_binary};
use larder_bench::report::{self, Table, Target, verdict};
use larder_testkit::pgbench;
use larder_testkit::postgres::Postgres;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

const CLIENTS: u64 = 1000;
const TABLE: &str = "pgbench_accounts";
const ANSWER_MAX: Duration = Duration::from_secs(60);

fn main() {
    let larder = larder_binary();
    let postgres = Postgres::launch();
    pgbench::load(&postgres.url("postgres"), 1);
    let port = free_port();
    let mut command = Command::new(larder);
    command
        .args(["serve", "--log-level", "error", "--port", &port.to_string()])
        .args(["--admin-bind", &format!("127.0.0.1:{}", free_port())])
        .env("LARDER_DATABASE", postgres.url("postgres"));
    let server = RespServer::start("larder", command, port);
    report::machine();
    println!("{CLIENTS} clients of one server, Postgres with the tables of pgbench\n");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(compare(&postgres, &server));
}

/// What each client asks for, all at the same time.
struct Case {
    what: &'static str,
    clients: u64,
    /// The accounts that this client asks for: one by GET, more by MGET.
    accounts: fn(client: u64) -> Vec<u64>,
    /// How many queries there are to be at most, and without a cache.
    queries_max: u64,
    queries_without: u64,
}

const CASES: [Case; 4] = [
    Case {
        what: "GET, all the same cold key",
        clients: CLIENTS,
        accounts: |_| vec![50_000],
        queries_max: 1,
        queries_without: CLIENTS,
    },
    Case {
        what: "GET, the same key again",
        clients: CLIENTS,
        accounts: |_| vec![50_000],
        queries_max: 0,
        queries_without: CLIENTS,
    },
    Case {
        what: "one MGET of 1 000 cold keys",
        clients: 1,
        accounts: |_| (10_001..=11_000).collect(),
        queries_max: 1,
        queries_without: 1000,
    },
    Case {
        what: "GET, 100 cold keys, 10 clients each",
        clients: CLIENTS,
        accounts: |client| vec![20_000 + client % 100],
        queries_max: 100,
        queries_without: CLIENTS,
    },
];

async fn compare(postgres: &Postgres, server: &RespServer) {
    let mut table = Table::new(["", "clients", "queries", "without a cache", "slowest answer, ms"]);
    let mut verdicts = Vec::new();
    for case in &CASES {
        let before = postgres.statements(TABLE);
        let slowest = ask(case, server.port()).await;
        let queries = (postgres.statements(TABLE) - before) as u64;
        table.row([
            case.what.to_owned(),
            case.clients.to_string(),
            queries.to_string(),
            case.queries_without.to_string(),
            format!("{:.1}", slowest.as_secs_f64() * 1e3),
        ]);
        verdicts.push((case.what, queries, case.queries_max));
    }
    println!("{table}");
    for (what, queries, most) in verdicts {
        verdict(&format!("{what}, queries"), queries as f64, Target::AtMost, most as f64);
    }
}

/// Connects every client, lets all of them ask at once, and returns how long the
/// last answer took.
async fn ask(case: &Case, port: u16) -> Duration {
    let ready = Arc::new(Barrier::new(case.clients as usize));
    let mut clients = JoinSet::new();
    for client in 0..case.clients {
        let accounts = (case.accounts)(client);
        let ready = Arc::clone(&ready);
        clients.spawn(async move {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
            ready.wait().await;
            let started = Instant::now();
            let answered = tokio::time::timeout(ANSWER_MAX, get(stream, &accounts)).await;
            answered.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            Ok::<_, io::Error>(started.elapsed())
        });
    }
    let answered = clients.join_all().await.into_iter();
    let slowest = answered.map(|answer| answer.expect("every client gets its rows")).max();
    slowest.expect("there is a client")
}

/// Asks for accounts and checks that each answer is the row asked for.
async fn get(stream: TcpStream, accounts: &[u64]) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let command = if accounts.len() == 1 { "GET" } else { "MGET" };
    let mut request = format!("*{}\r\n${}\r\n{command}\r\n", accounts.len() + 1, command.len());
    for account in accounts {
        let key = format!("{TABLE}:{account}");
        request.push_str(&format!("${}\r\n{key}\r\n", key.len()));
    }
    stream.write_all(request.as_bytes()).await?;
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut line = String::new();
    if command == "MGET" {
        stream.read_line(&mut line).await?;
        if line != format!("*{}\r\n", accounts.len()) {
            return Err(wrong(&line));
        }
    }
    for account in accounts {
        line.clear();
        stream.read_line(&mut line).await?;
        let length = line.strip_prefix('$').and_then(|line| line.trim_end().parse().ok());
        let length: usize = length.ok_or_else(|| wrong(&line))?;
        let mut row = vec![0; length + 2];
        stream.read_exact(&mut row).await?;
        let row = String::from_utf8_lossy(&row);
        if !row.starts_with(&format!("{{\"aid\":{account},")) {
            return Err(wrong(&row));
        }
    }
    Ok(())
}
