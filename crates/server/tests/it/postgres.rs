//! A server over a Postgres that comes and goes.

use std::time::{Duration, Instant};

use larder_testkit::postgres::Postgres;

use crate::running::{PATIENCE, Running};

const CONFIG: &str = r#"
[origins.shop]
url_env = "SHOP_URL"
acquire_timeout = "1s"
connect_timeout = "1s"
breaker = { failures = 2, open = "1s" }

[defaults]
ttl = "300ms"
jitter = 0
early_refresh_beta = "off"
stale_if_error = "1h"
"#;

fn launch() -> Postgres {
    let postgres = Postgres::launch();
    postgres.execute("CREATE TABLE product (id bigint PRIMARY KEY, price numeric(9,2) NOT NULL)");
    postgres.execute("INSERT INTO product SELECT id, id / 4.0 FROM generate_series(1, 2000) id");
    postgres
}

fn serve(directory: &std::path::Path, postgres: &Postgres) -> Running {
    let path = directory.join("larder.toml");
    std::fs::write(&path, CONFIG).expect("it can be written");
    let path = path.to_str().expect("the path is text");
    Running::start_with(directory, &["--config", path], |command| {
        command.env("SHOP_URL", postgres.url("postgres"));
    })
}

async fn get(
    redis: &mut redis::aio::MultiplexedConnection,
    key: &str,
) -> redis::RedisResult<Option<String>> {
    redis::cmd("GET").arg(key).query_async(redis).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_cold_keys_are_one_statement() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let postgres = launch();
    let server = serve(directory.path(), &postgres);
    let before = postgres.statements("product");
    let mut redis = server.redis().await;
    let keys: Vec<_> = (1..=1000).map(|id| format!("product:{id}")).collect();
    let rows: Vec<Option<String>> =
        redis::cmd("MGET").arg(&keys).query_async(&mut redis).await.expect("rows");
    assert_eq!(rows[41].as_deref(), Some(r#"{"id":42,"price":"10.50"}"#));
    assert_eq!(rows.iter().flatten().count(), 1000);
    assert_eq!(postgres.statements("product") - before, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_survive_the_database_and_it_is_spared_until_it_is_back() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut postgres = launch();
    let server = serve(directory.path(), &postgres);
    let mut redis = server.redis().await;
    let row = get(&mut redis, "product:42").await.expect("it is answered");
    assert_eq!(server.page("/readyz").await.0, 200);

    postgres.stop();
    let entry = "/caches/product/keys/product:42";
    while server.page(entry).await.1["state"] != "stale" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let stale = get(&mut redis, "product:42").await.expect("it is answered, stale");
    assert_eq!(stale, row);
    let served = "larder_cache_stale_served_total{cache=\"product\",reason=\"origin_failed\"}";
    server.wait_for_metric(served, 1.0).await;
    for key in ["product:1", "product:2", "product:3"] {
        let error = get(&mut redis, key).await.expect_err("nothing stale is at hand").to_string();
        assert!(!error.contains(larder_testkit::postgres::PASSWORD), "{error}");
    }
    let open = "larder_origin_breaker_state{origin=\"shop\",state=\"open\"}";
    let refused = "larder_cache_load_errors_total{cache=\"product\",cause=\"breaker_open\"}";
    if server.metric(open).await == Some(1.0) {
        let error = get(&mut redis, "product:4").await.expect_err("it is not asked").to_string();
        assert!(error.contains("breaker"), "{error}");
    }
    server.wait_for_metric(refused, 1.0).await;
    let page = until_status(&server, 503).await;
    let reason = page["reasons"][0].as_str().expect("it says why");
    assert!(reason.contains("the database `shop` does not answer"), "{reason}");
    assert_eq!(server.page("/healthz").await.0, 200, "the process itself is well");

    let log = log_with(&server, "the breaker of the origin `shop` opened").await;
    assert!(log.contains("WARN") && !log.contains(larder_testkit::postgres::PASSWORD), "{log}");
    assert!(!log.contains("breaker of the origin `shop` closed"), "{log}");

    postgres.start();
    let closed = "larder_origin_breaker_state{origin=\"shop\",state=\"closed\"}";
    while server.metric(closed).await != Some(1.0) {
        // Each read is a chance for the probe that closes the breaker.
        let _ = get(&mut redis, "product:5").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(get(&mut redis, "product:6").await.expect("it is answered").is_some());
    until_status(&server, 200).await;
    log_with(&server, "the breaker of the origin `shop` closed").await;
}

/// The log once it has this text.
async fn log_with(server: &Running, text: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let log = server.log();
        if log.contains(text) {
            return log;
        }
        assert!(Instant::now() < deadline, "{text:?} is not in the log:\n{log}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Asks whether the server is ready until it answers with this status: what was
/// found holds for a second.
async fn until_status(server: &Running, wanted: u16) -> serde_json::Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, page) = server.page("/readyz").await;
        if status == wanted {
            return page;
        }
        assert!(Instant::now() < deadline, "{status}, not {wanted}: {page}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_its_database_does_not_start_and_tells_no_secret() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut postgres = launch();
    let server = serve(directory.path(), &postgres);
    assert!(server.banner.contains("product:{id}"), "{}", server.banner);
    assert!(!server.banner.contains("s3cret"), "{}", server.banner);
    postgres.stop();
    let output = crate::running::larder()
        .args(["serve", "--port", "0", "--admin-bind", "127.0.0.1:0"])
        .env("LARDER_DATABASE", postgres.url("postgres"))
        .output()
        .expect("it ends by itself");
    let said = String::from_utf8(output.stderr).expect("it is text");
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("127.0.0.1") && !said.contains("s3cret"), "{said}");
}

const DOCUMENTS: &str = r#"
[origins.shop]
url_env = "SHOP_URL"

[caches.doc]
table = "doc"
tags = ["owner:{owner}"]

[caches.docs]
key = "owner:{owner}:docs"
query = "SELECT id, owner AS by, body FROM doc WHERE owner = :owner ORDER BY id"
list = true
tags = ["by:{by}"]
"#;

/// JSON holds numbers beyond every float and nests deeper than readers like.
#[tokio::test(flavor = "multi_thread")]
async fn an_odd_document_beside_a_column_loses_no_tag() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let postgres = Postgres::launch();
    postgres.execute("CREATE TABLE doc (id bigint PRIMARY KEY, body jsonb, owner bigint)");
    postgres.execute(
        "INSERT INTO doc VALUES (1, '{\"x\": 1e400}', 7), (2, '{}', 7), \
         (3, (repeat('[', 300) || repeat(']', 300))::jsonb, 8)",
    );
    let path = directory.path().join("larder.toml");
    std::fs::write(&path, DOCUMENTS).expect("it can be written");
    let path = path.to_str().expect("the path is text");
    let server = Running::start_with(directory.path(), &["--config", path], |command| {
        command.env("SHOP_URL", postgres.url("postgres"));
    });
    let mut redis = server.redis().await;
    let keys = ["doc:1", "doc:3", "owner:7:docs", "owner:8:docs"];
    for key in keys {
        get(&mut redis, key).await.expect("it is answered").expect("it is there");
    }
    postgres.execute("UPDATE doc SET body = '\"new\"'");
    for tag in ["owner:7", "owner:8", "by:7", "by:8"] {
        let removed = redis::cmd("LARDER.REMOVE").arg("TAG").arg(tag).query_async(&mut redis).await;
        let _: i64 = removed.expect("it is answered");
    }
    for key in keys {
        let row = get(&mut redis, key).await.expect("it is answered").expect("it is there");
        assert!(row.contains("new"), "{key} is not removed by its tag: {row}");
    }
}
