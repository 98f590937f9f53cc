//! `depends_on`: checked, shown, and followed by real servers.

use std::path::Path;
use std::time::{Duration, Instant};

use larder_testkit::redis::RedisServer;
use redis::aio::MultiplexedConnection;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::fleet::redis_section;
use crate::running::{PATIENCE, Running, larder};

const DEPENDENCIES: &str = r#"
[defaults]
ttl = "1h"
jitter = 0

[caches.purchase]
depends_on = ["customer:{customer_id}", "tag:price-list:{list}"]

[caches.basket]
key = "basket:{customer}"
query = "SELECT COUNT(*) AS n, MAX(id) AS last FROM purchase WHERE customer_id = :customer"
depends_on = ["customer:{customer}"]
"#;

async fn execute(directory: &Path, statements: &[&'static str]) {
    let path = directory.join("shop.db");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut connection = options.connect().await.expect("it can be made");
    for statement in statements {
        sqlx::query(*statement).execute(&mut connection).await.expect("it is SQL");
    }
    connection.close().await.expect("it can be closed");
}

/// A shop, and a file that serves it.
async fn shop(directory: &Path, sections: &str) -> String {
    execute(
        directory,
        &[
            "CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT)",
            "CREATE TABLE purchase (id INTEGER PRIMARY KEY, customer_id INTEGER, list INTEGER, v TEXT)",
            "INSERT INTO customer VALUES (17, 'Ann'), (18, 'Bob')",
            "INSERT INTO purchase VALUES (7, 17, 1, 'old'), (8, 18, 2, 'old'), (9, NULL, NULL, 'old')",
        ],
    )
    .await;
    let url = format!("sqlite:{}", directory.join("shop.db").display());
    let text = format!("{sections}\n[origins.shop]\nurl = \"{url}\"\n{DEPENDENCIES}");
    let path = directory.join("larder.toml");
    std::fs::write(&path, text).expect("it can be written");
    path.to_str().expect("the path is text").to_owned()
}

async fn tell(redis: &mut MultiplexedConnection, words: &[&str]) {
    let told: redis::RedisResult<i64> =
        redis::cmd(words[0]).arg(&words[1..]).query_async(redis).await;
    told.expect("it is done");
}

/// What is served of each purchase: `old` or `new`.
async fn served(redis: &mut MultiplexedConnection) -> Vec<String> {
    let mut served = Vec::new();
    for key in ["purchase:7", "purchase:8", "purchase:9"] {
        let row: String =
            redis::cmd("GET").arg(key).query_async(redis).await.expect("it is answered");
        let row: serde_json::Value = serde_json::from_str(&row).expect("it is JSON");
        served.push(row["v"].as_str().expect("it is text").to_owned());
    }
    served
}

/// Removes something on one server, and waits until the other serves this.
async fn follow(servers: &mut [MultiplexedConnection; 2], words: &[&str], expected: [&str; 3]) {
    let [one, two] = servers;
    tell(one, words).await;
    assert_eq!(served(one).await, expected, "{words:?}");
    let deadline = Instant::now() + PATIENCE;
    while served(two).await != expected {
        assert!(Instant::now() < deadline, "{words:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn servers_that_share_a_redis_follow_what_depends_on_a_change() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let redis = RedisServer::start();
    let path = shop(directory.path(), &redis_section(&redis)).await;
    let at = ["one", "two"].map(|name| {
        let own = directory.path().join(name);
        std::fs::create_dir(&own).expect("it can be made");
        Running::start(&own, &["--config", &path])
    });
    let mut servers = [at[0].redis().await, at[1].redis().await];
    for server in &mut servers {
        assert_eq!(served(server).await, ["old"; 3]);
    }
    execute(directory.path(), &["UPDATE purchase SET v = 'new'"]).await;
    let ann = &["LARDER.REMOVE", "KEY", "customer:17"];
    follow(&mut servers, ann, ["new", "old", "old"]).await;
    let list = &["LARDER.REMOVE", "TAG", "price-list:2"];
    follow(&mut servers, list, ["new", "new", "old"]).await;
    // The third depends on nobody.
    let bob = &["LARDER.REMOVE", "KEY", "customer:18"];
    follow(&mut servers, bob, ["new", "new", "old"]).await;

    let (status, explained) = at[0].page("/explain/customer:17").await;
    assert_eq!(status, 200);
    let touches = &explained["cache"]["touches"];
    assert_eq!(
        *touches,
        serde_json::json!(["purchase: tag @customer:17", "basket: key basket:17"])
    );
    let (_, explained) = at[0].page("/explain/purchase:7").await;
    assert_eq!(explained["cache"]["depends_on"][1]["on"], "tag:price-list:{list}");
}

fn run(arguments: &[&str]) -> (String, String, bool) {
    let output = larder().args(arguments).output().expect("the program runs");
    let text = |bytes| String::from_utf8(bytes).expect("it speaks UTF-8");
    (text(output.stdout), text(output.stderr), output.status.success())
}

#[tokio::test]
async fn the_graph_is_printed_in_three_ways() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = shop(directory.path(), "").await;
    let graph = |format: &str, touched: &str| {
        let (output, errors, is_fine) =
            run(&["graph", "--config", &path, "--format", format, "--touched", touched]);
        assert!(is_fine, "{errors}");
        output
    };
    insta::assert_snapshot!("graph_text", graph("text", "customer:17"));
    insta::assert_snapshot!("graph_dot", graph("dot", "tag:price-list:<2>"));
    let svg = graph("svg", "tag:price-list:<2>&\"");
    assert!(svg.contains("price-list:&lt;2&gt;&amp;&quot;"), "{svg}");
    check_nesting(&svg);
    assert_eq!(svg.matches("class=\"box").count(), 4, "the shop's caches and a tag");
    let (_, errors, is_fine) = run(&["graph", "--config", &path, "--touched", "nobody:7"]);
    assert!(!is_fine && errors.contains("no key of a cache"), "{errors}");
}

/// Every element that begins ends, in the right order.
fn check_nesting(svg: &str) {
    let mut open = Vec::new();
    for part in svg.split('<').skip(1) {
        let (tag, text) = part.split_once('>').expect("a tag ends");
        assert!(!text.contains('>'), "{text}");
        if tag.starts_with('?') || tag.ends_with('/') {
            continue;
        }
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "{tag}"),
            None => open.push(tag.split(' ').next().expect("a name")),
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[tokio::test]
async fn mistakes_in_dependencies_are_named_with_place_and_remedy() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = shop(directory.path(), "").await;
    let text = std::fs::read_to_string(&path).expect("it is there");
    let name = |text: String| text.replace(directory.path().to_str().expect("text"), "");
    let check = |dependencies: &str, flags: &[&str]| {
        let old = r#"["customer:{customer_id}", "tag:price-list:{list}"]"#;
        std::fs::write(&path, text.replace(old, dependencies)).expect("it can be written");
        let (_, errors, is_fine) = run(&[&["check"], flags, &[path.as_str()]].concat());
        (name(errors), is_fine)
    };
    let (errors, is_fine) = check(r#"["customer:{customer_id", "tag:{list}"]"#, &[]);
    assert!(!is_fine);
    insta::assert_snapshot!("mistakes_of_form", errors);
    let wrong = r#"["custmer:{customer_id}", "customer:{custmer_id}", "tag:price-list:{lst}"]"#;
    let (errors, is_fine) = check(wrong, &["--connect"]);
    assert!(!is_fine);
    insta::assert_snapshot!("mistakes_of_names", errors);
    // Circles are worth knowing and no mistake.
    let (errors, is_fine) = check(r#"["basket:{customer_id}", "purchase:{list}"]"#, &["--connect"]);
    assert!(is_fine && errors.contains("information: `purchase` depends on itself"), "{errors}");
}
