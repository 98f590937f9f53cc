//! `larder serve --redis`: the whole program in front of an existing Redis.

use larder_testkit::redis::{RedisOptions, RedisServer};

use crate::running::{Running, larder};
use crate::serve::config;

fn redis_with_user() -> RedisServer {
    RedisServer::launch(&RedisOptions {
        users: vec!["ann on >hunter2 ~* &* +@all".to_owned()],
        ..RedisOptions::default()
    })
}

#[tokio::test]
async fn caches_of_a_database_and_an_existing_redis_beside_each_other() {
    let redis = redis_with_user();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let url = format!("redis://ann@{}", redis.address());
    let path = config(directory.path(), |text| {
        format!("{text}\n[front]\nurl = \"{url}\"\npassword_env = \"CACHE_PASSWORD\"\n")
    })
    .await;
    let server = Running::start_with(directory.path(), &["--config", &path], |command| {
        command.env("CACHE_PASSWORD", "hunter2");
    });
    assert!(server.banner.contains(&format!("redis://{}", redis.address())), "{}", server.banner);
    let mut connection = server.redis().await;
    let mut ask = async |words: &[&str]| -> redis::RedisResult<redis::Value> {
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await
    };
    let text = |text: &str| Ok(redis::Value::BulkString(text.as_bytes().to_vec()));
    // Of the database, though Redis has such a key, too.
    redis.command(&["SET", "album:7", "from Redis"]);
    let row = ask(&["GET", "album:7"]).await.expect("it is loaded");
    assert!(format!("{row:?}").contains("Kind of Blue"), "{row:?}");
    ask(&["SET", "other", "1"]).await.expect("Redis takes it");
    assert_eq!(redis.command(&["GET", "other"]).text(), "1");
    ask(&["HSET", "h", "f", "v"]).await.expect("Redis takes it");
    assert_eq!(ask(&["HGET", "h", "f"]).await, text("v"));
    for (command, complaint) in [
        (&["SET", "album:7", "x"][..], "takes no writes"),
        (&["HSET", "album:7", "f", "v"], "takes no writes"),
        (&["DEL", "album:7", "other"], "ask for them separately"),
        (&["WATCH", "album:7"], "cannot be watched"),
    ] {
        let error = ask(command).await.expect_err("it is refused").to_string();
        assert!(error.contains(complaint), "{command:?}: {error}");
    }
    assert_eq!(ask(&["GET", "other"]).await, text("1"));
    server.wait_for_metric("larder_front_tracking{state=\"tracking\"}", 1.0).await;
    for _ in 0..20 {
        assert_eq!(ask(&["GET", "other"]).await, text("1"));
    }
    server.wait_for_metric("larder_front_reads_total{outcome=\"memory\"}", 5.0).await;
    server.wait_for_metric("larder_front_latency_seconds_count", 1.0).await;
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let reference = std::fs::read_to_string(root.join("docs/reference/metrics.md"));
    let page = server.request(reqwest::Method::GET, "/metrics").await.text().await.expect("text");
    let reference = reference.expect("it is there");
    let named = reference.lines().filter_map(|line| line.strip_prefix("| `larder_front_"));
    let mut count = 0;
    for name in named.filter_map(|rest| rest.split('`').next()) {
        assert!(page.contains(&format!("# TYPE larder_front_{name} ")), "{name} is not there");
        count += 1;
    }
    assert_eq!(count, 17, "{reference}");
    let (_, explained) = server.page("/explain/other").await;
    assert!(explained.to_string().contains("Redis behind this server"), "{explained}");
    assert!(!server.log().contains("hunter2") && !server.banner.contains("hunter2"));
}

#[test]
fn a_redis_that_cannot_be_used_is_told_at_the_start() {
    let redis = redis_with_user();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let address = redis.address();
    let refuse = |url: &str| {
        let output = larder()
            .args(["serve", "--port", "0", "--admin-bind", "127.0.0.1:0", "--redis", url])
            .current_dir(directory.path())
            .output()
            .expect("the program runs");
        assert!(!output.status.success(), "{url} is refused");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let wrong = refuse(&format!("redis://ann:hunter3@{address}"));
    assert!(wrong.contains("WRONGPASS") && wrong.contains("check the user"), "{wrong}");
    assert!(!wrong.contains("hunter3"), "{wrong}");
    let other = refuse("http://ann:hunter3@h");
    assert!(
        other.contains("not given the URL of a Redis") && !other.contains("hunter3"),
        "{other}"
    );
    redis.kill();
    let gone = refuse(&format!("redis://{address}"));
    assert!(
        gone.contains("Redis cannot be reached") && gone.contains("check that it runs"),
        "{gone}"
    );
}
