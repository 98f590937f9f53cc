//! The administration: its pages, its limits, its errors.

use std::io::{Read, Write};

use reqwest::Method;

use crate::running::Running;

fn demo(directory: &std::path::Path) -> Running {
    let path = directory.to_str().expect("the path is text");
    Running::start(directory, &["--demo", "--demo-dir", path])
}

#[tokio::test]
async fn a_key_can_be_looked_at_expired_and_removed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = demo(directory.path());
    let page = "/caches/product/keys/product:42";
    let (status, answer) = server.page(page).await;
    assert_eq!(status, 404);
    assert!(answer["error"].as_str().expect("it says why").contains("the next read loads it"));

    let mut redis = server.redis().await;
    let row: String =
        redis::cmd("GET").arg("product:42").query_async(&mut redis).await.expect("a row");
    let (status, entry) = server.page(page).await;
    assert_eq!(status, 200);
    assert_eq!(entry["state"], "fresh");
    assert_eq!(entry["value_bytes"], row.len());
    assert!(entry.get("value").is_none(), "a value is shown only when asked for");
    let (_, entry) = server.page(&format!("{page}?value=true")).await;
    assert_eq!(entry["value"]["id"], 42);
    let hits = "larder_cache_hits_total{cache=\"product\",freshness=\"fresh\"}";
    assert_eq!(server.metric(hits).await, Some(0.0), "a look is no read");

    let removed = server.request(Method::DELETE, page).await;
    assert_eq!(removed.json::<serde_json::Value>().await.expect("JSON")["removed"], true);
    assert_eq!(server.page(page).await.0, 404);
    let _: String =
        redis::cmd("GET").arg("product:42").query_async(&mut redis).await.expect("a row");
    let expired = server.request(Method::POST, &format!("{page}/expire")).await;
    assert_eq!(expired.json::<serde_json::Value>().await.expect("JSON")["expired"], true);
    assert_eq!(server.request(Method::DELETE, "/caches/product").await.status(), 200);
    assert_eq!(server.page(page).await.0, 404);
}

#[tokio::test]
async fn a_miss_is_a_miss_wherever_it_is_told() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = demo(directory.path());
    let mut redis = server.redis().await;
    for id in [1, 2, 3, 3] {
        let key = format!("product:{id}");
        let _: String = redis::cmd("GET").arg(key).query_async(&mut redis).await.expect("a row");
    }
    let (_, page) = server.page("/caches/product").await;
    let numbers = &page["statistics"];
    assert_eq!((&numbers["misses"], &numbers["hits"]), (&3.into(), &1.into()), "{numbers}");
    let told: std::collections::HashMap<String, redis::Value> = redis::cmd("LARDER.STATS")
        .arg("product")
        .query_async(&mut redis)
        .await
        .expect("it is answered");
    assert_eq!(told["misses"], redis::Value::Int(3));
    let mut counted = 0.0;
    for by in ["store", "load", "joined_load", "fallback", "error", "nothing"] {
        let sample = format!("larder_cache_misses_total{{cache=\"product\",answered_by=\"{by}\"}}");
        counted += server.metric(&sample).await.expect("it is counted");
    }
    assert_eq!(counted, 3.0);
}

#[tokio::test]
async fn a_key_that_is_absent_is_cached_as_such() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = demo(directory.path());
    let mut redis = server.redis().await;
    let row: Option<String> =
        redis::cmd("GET").arg("product:999999").query_async(&mut redis).await.expect("an answer");
    assert_eq!(row, None);
    let (_, entry) = server.page("/caches/product/keys/product:999999?value=true").await;
    assert_eq!((&entry["present"], &entry["value"]), (&false.into(), &serde_json::Value::Null));
}

#[tokio::test]
async fn what_is_not_there_is_an_error_as_json() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = demo(directory.path());
    for (method, path, status, part) in [
        (Method::GET, "/nothing", 404, "no such page"),
        (Method::GET, "/caches/nothing", 404, "no cache `nothing`"),
        (Method::GET, "/caches/product/keys/customer:1", 404, "is no key of the cache `product`"),
        (Method::POST, "/caches", 405, "does not take that method"),
        (Method::GET, "/caches/%ff", 400, "Invalid UTF-8"),
        (Method::GET, "/explain/%ff", 400, "Invalid UTF-8"),
        (Method::GET, "/caches/product/keys/product:1?value=foo", 400, "value"),
    ] {
        let response = server.request(method, path).await;
        assert_eq!(response.status(), status, "{path}");
        let answer: serde_json::Value = response.json().await.expect("errors are JSON");
        assert!(answer["error"].as_str().expect("it says why").contains(part), "{answer}");
    }
}

#[tokio::test]
async fn the_pages_name_caches_tables_and_keys() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = demo(directory.path());
    let (_, index) = server.page("/").await;
    assert_eq!(index["name"], "larder");
    let (_, page) = server.page("/caches").await;
    let names: Vec<_> =
        page["caches"].as_array().expect("a list").iter().map(|it| &it["name"]).collect();
    assert_eq!(names.len(), 7, "{names:?}");
    let skipped: Vec<_> =
        page["skipped_tables"].as_array().expect("a list").iter().map(|it| &it["table"]).collect();
    assert_eq!(skipped, ["bestseller", "search_log"]);
    let (_, page) = server.page("/explain/purchase_line:7:1").await;
    assert_eq!(page["cache"]["parameters"][1][1], "1");
    assert_eq!(page["cache"]["policy"][0]["because"], "default");
    assert_eq!(page["entry"], serde_json::Value::Null);
}

/// Metrics that this server does not have.
const ELSEWHERE: [&str; 6] = [
    "| `larder_front_",
    "| `larder_store_",
    "| `larder_lease_",
    "| `larder_fleet_",
    "| `larder_schedule_",
    "| `larder_journal_",
];

#[tokio::test]
async fn metrics_are_what_prometheus_reads() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = demo(directory.path());
    let mut redis = server.redis().await;
    // So that every metric has a sample: the time of hits is measured of one in 1024.
    for _ in 0..1100 {
        let _: String =
            redis::cmd("GET").arg("product:42").query_async(&mut redis).await.expect("a row");
    }
    let page = async |accept: &str| {
        let request = reqwest::Client::new().get(format!("http://{}/metrics", server.admin));
        let response = request.header("accept", accept).send().await.expect("it answers");
        let kind = response.headers()["content-type"].to_str().expect("it is text").to_owned();
        (kind, response.text().await.expect("it is text"))
    };
    let (kind, text) = page("application/openmetrics-text;q=0.5,text/plain;q=0.3").await;
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    assert!(text.ends_with("# EOF\n"));
    check_families(&text, |family, sample| sample.starts_with(family));

    let (kind, text) = page("*/*").await;
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    assert!(!text.contains("# EOF") && text.contains("# TYPE larder_commands_total counter\n"));
    let families = check_families(&text, |family, sample| {
        let rest = sample.strip_prefix(family);
        matches!(rest, Some("" | "_bucket" | "_sum" | "_count"))
    });

    // The reference names all of them, with their labels, and no others.
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let reference = std::fs::read_to_string(root.join("docs/reference/metrics.md"));
    let reference = reference.expect("it is there");
    let rows: Vec<Vec<_>> = reference
        .lines()
        // Those of a Redis are there only in front of one, those of stores, leases,
        // the bus, schedules and journals only where there are some; other tests hold them to it.
        .filter(|line| !ELSEWHERE.iter().any(|start| line.starts_with(start)))
        .filter_map(|line| Some(line.strip_prefix("| `")?.split(" | ").collect()))
        .collect();
    let named: Vec<_> = rows.iter().map(|row| row[0].trim_end_matches('`')).collect();
    assert_eq!(named.len(), families.len(), "{families:?}");
    for (row, name) in rows.iter().zip(named) {
        assert!(text.contains(&format!("# TYPE {name} {}\n", row[1])), "{row:?}");
        let line = text.lines().find(|line| {
            let bucket = format!("{name}_bucket{{");
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                || line.starts_with(&bucket)
        });
        let labels = line.and_then(|line| line.split(['{', '}']).nth(1)).unwrap_or_default();
        let labels: Vec<_> = labels
            .split(',')
            .filter_map(|label| Some(format!("`{}`", label.split_once('=')?.0)))
            .filter(|label| label != "`le`")
            .collect();
        assert_eq!(labels.join(", "), row[2], "{line:?}");
    }
}

/// Every sample belongs to a family with a type and a help text. Returns the
/// families.
fn check_families(text: &str, belongs: impl Fn(&str, &str) -> bool) -> Vec<&str> {
    let mut families = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split(' ').next()) {
            assert!(text.contains(&format!("# HELP {name} ")), "{name}");
            families.push(name);
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().expect("a name");
            assert!(name.starts_with("larder_"), "{line}");
            assert!(families.iter().any(|family| belongs(family, name)), "{line}");
            let number = line.rsplit(' ').next().expect("a number");
            assert!(number.parse::<f64>().is_ok(), "{line}");
        }
    }
    let unique: std::collections::BTreeSet<_> = families.iter().collect();
    assert_eq!(unique.len(), families.len(), "a family stands twice");
    families
}

#[tokio::test]
async fn a_head_without_end_is_cut_off() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = Running::start(directory.path(), &[]);
    let admin = server.admin;
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(admin).expect("it listens");
        let head = format!("GET / HTTP/1.1\r\nX: {}\r\n", "x".repeat(64 * 1024));
        // It may hang up before all is sent.
        let _ = stream.write_all(head.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    })
    .await
    .expect("it does not panic");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(server.page("/healthz").await.0, 200, "others are served");
}

#[tokio::test]
async fn idle_connections_make_room() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = Running::start(directory.path(), &[]);
    let connect = || std::net::TcpStream::connect(server.admin).expect("it listens");
    // They begin a request that they do not finish.
    let idle: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = connect();
            stream.write_all(b"GET / HTTP/1.1\r\n").expect("it reads");
            stream
        })
        .collect();
    let asked = std::time::Instant::now();
    assert_eq!(server.page("/healthz").await.0, 200);
    assert!(asked.elapsed() < std::time::Duration::from_secs(5), "nobody waits for the idle");
    drop(idle);
}

#[tokio::test]
async fn pages_of_other_sites_are_kept_out() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = Running::start(directory.path(), &[]);
    let ask = |header: &'static str, value: &'static str| {
        let request = reqwest::Client::new().get(format!("http://{}/caches", server.admin));
        request.header(header, value).send()
    };
    let answer = ask("Origin", "http://evil.example").await.expect("it answers");
    assert_eq!(answer.status(), 403);
    let answer = ask("Host", "evil.example").await.expect("it answers");
    assert_eq!(answer.status(), 403);
    let error: serde_json::Value = answer.json().await.expect("errors are JSON");
    let error = error["error"].as_str().expect("it says why");
    assert!(error.contains("set a password"), "{error}");
}
