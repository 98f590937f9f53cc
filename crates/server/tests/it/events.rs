//! Events and schedules over the example of an investment platform, by every way in
//! which they arrive.

use std::path::Path;
use std::time::{Duration, Instant};

use larder_testkit::redis::RedisServer;
use redis::aio::MultiplexedConnection;
use serde_json::Value;

use crate::domains::INVESTMENT;
use crate::running::{PATIENCE, Running};

const TRADE: &str = r#"{"account_id": 7, "trade": {"symbols": ["S7"]}}"#;
const TOUCHED: [&str; 4] = ["portfolio:7", "position:7:S7", "risk:7", "leaderboard:S7"];

async fn bank(directory: &Path, more: &str) -> Running {
    INVESTMENT.serve(directory, more).await
}

async fn read(redis: &mut MultiplexedConnection, keys: &[&str]) {
    for key in keys {
        let value: Option<String> =
            redis::cmd("GET").arg(key).query_async(redis).await.expect("it is answered");
        assert!(value.is_some(), "{key}");
    }
}

/// Which of these the server still has.
async fn cached(server: &Running, keys: &[&str]) -> Vec<bool> {
    let mut cached = Vec::new();
    for key in keys {
        let (_, explained) = server.page(&format!("/explain/{}", key.replace(':', "%3A"))).await;
        cached.push(!explained["entry"].is_null());
    }
    cached
}

async fn wait_until_gone(server: &Running, keys: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    while cached(server, keys).await.contains(&true) {
        assert!(Instant::now() < deadline, "it is not acted upon; log:\n{}", server.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn event(redis: &mut MultiplexedConnection, arguments: &[&str]) -> redis::RedisResult<i64> {
    redis::cmd("LARDER.EVENT").arg(arguments).query_async(redis).await
}

async fn post(server: &Running, path: &str, body: &'static str) -> (u16, Value) {
    let url = format!("http://{}{path}", server.admin);
    let sent = reqwest::Client::new().post(url).body(body).timeout(PATIENCE).send().await;
    let response = sent.expect("the administration answers");
    let status = response.status().as_u16();
    (status, response.json().await.expect("the answer is JSON"))
}

#[tokio::test]
async fn a_trade_empties_four_caches_at_once_and_once() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = bank(directory.path(), "").await;
    let mut redis = server.redis().await;
    read(&mut redis, &TOUCHED).await;
    read(&mut redis, &["portfolio:8", "risk:8"]).await;
    let (status, preview) = post(&server, "/events/trade.executed?preview=true", TRADE).await;
    assert_eq!(status, 200, "{preview}");
    assert_eq!(preview["would_touch"][0]["keys"][1], "position:7:S7", "{preview}");
    assert_eq!(cached(&server, &TOUCHED).await, [true; 4], "nothing is done yet");
    assert_eq!(event(&mut redis, &["trade.executed", TRADE, "ID", "t-1"]).await, Ok(4));
    assert_eq!(cached(&server, &TOUCHED).await, [false; 4]);
    assert_eq!(cached(&server, &["portfolio:8", "risk:8"]).await, [true; 2]);
    read(&mut redis, &TOUCHED).await;
    assert_eq!(event(&mut redis, &["trade.executed", TRADE, "ID", "t-1"]).await, Ok(0));
    let (status, answer) = post(&server, "/events/trade.executed?id=t-1", TRADE).await;
    assert_eq!((status, &answer["outcome"]), (200, &"repeated".into()), "the same at every door");
    assert_eq!(cached(&server, &TOUCHED).await, [true; 4]);
    let (status, answer) = post(&server, "/events/trade.executed?id=t-2", TRADE).await;
    assert_eq!((status, &answer["outcome"]), (200, &"applied".into()), "{answer}");
    assert_eq!(cached(&server, &TOUCHED).await, [false; 4]);
}

#[tokio::test]
async fn what_is_no_event_is_told_counted_and_not_half_done() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = bank(directory.path(), "").await;
    let mut redis = server.redis().await;
    read(&mut redis, &TOUCHED).await;
    for (arguments, expected) in [
        (&["trade.executed", "{"][..], "no JSON"),
        (&["trade.executed", r#"{"account_id": 7}"#], "trade.symbols"),
        (&["trade.executed", r#"{"account_id": {}, "trade": {"symbols": []}}"#], "account_id"),
        (&["trade.executed", TRADE, "IDS", "1"], "syntax error"),
        (&["", TRADE], "empty or too long"),
    ] {
        let error = event(&mut redis, arguments).await.expect_err(expected);
        assert!(error.to_string().contains(expected), "{error}");
    }
    let (status, answer) = post(&server, "/events/trade.executed", "{").await;
    assert_eq!(status, 400, "{answer}");
    let (status, answer) = post(&server, "/events/unheard.of", "{}").await;
    assert_eq!((status, &answer["outcome"]), (200, &"ignored".into()));
    assert_eq!(cached(&server, &TOUCHED).await, [true; 4]);
    let refused = server.metric("larder_events_total{outcome=\"refused\"}").await;
    assert_eq!(refused, Some(6.0));
}

#[tokio::test]
async fn rules_hold_from_the_moment_the_file_changes() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = bank(directory.path(), "").await;
    let mut redis = server.redis().await;
    read(&mut redis, &TOUCHED).await;
    assert_eq!(event(&mut redis, &["audit", "{}"]).await, Ok(0));
    let more = "\n[[on]]\nevent = \"audit\"\ncaches = [\"risk\"]\nverb = \"remove\"\n";
    let path = directory.path().join("larder.toml");
    std::fs::write(path, format!("{}{more}", INVESTMENT.config)).expect("it can be written");
    server.signal("HUP");
    server.wait_for_metric("larder_config_reloads_total", 1.0).await;
    assert_eq!(event(&mut redis, &["audit", "{}"]).await, Ok(1));
    assert_eq!(cached(&server, &TOUCHED).await, [true, true, false, true]);
    assert!(!server.log().contains("needs a restart"), "{}", server.log());
}

#[tokio::test]
async fn events_on_a_channel_and_in_a_stream_reach_two_servers_and_take_effect_once() {
    let shared = RedisServer::start();
    let (one_home, other_home) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let more = format!(
        "[redis]\nurl = \"redis://{}\"\n[events]\nchannel = \"trades\"\nstream = \"trade-log\"\n",
        shared.address()
    );
    // Sent before anybody was there to hear: a stream keeps it.
    let client = redis::Client::open(format!("redis://{}", shared.address())).expect("a URL");
    let mut sender = client.get_multiplexed_async_connection().await.expect("it is there");
    let mut add = async |id: &str, data: &str| -> String {
        let mut command = redis::cmd("XADD");
        command.arg("trade-log").arg("*").arg("type").arg("trade.executed");
        command.arg("id").arg(id).arg("data").arg(data);
        command.query_async(&mut sender).await.expect("it is added")
    };
    add("t-0", TRADE).await;
    let one = bank(one_home.path(), &more).await;
    let other = bank(other_home.path(), &more).await;
    let total = async |outcome: &str| {
        let sample = format!("larder_events_total{{outcome=\"{outcome}\"}}");
        one.metric(&sample).await.unwrap_or(0.0) + other.metric(&sample).await.unwrap_or(0.0)
    };
    let wait_for = async |outcome: &str, count: f64| {
        let deadline = Instant::now() + PATIENCE;
        while total(outcome).await < count {
            assert!(Instant::now() < deadline, "{outcome}: log:\n{}\n{}", one.log(), other.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(total(outcome).await, count, "{outcome}");
    };
    wait_for("applied", 1.0).await;
    let (mut first, mut second) = (one.redis().await, other.redis().await);
    read(&mut first, &TOUCHED).await;
    read(&mut second, &TOUCHED).await;
    add("t-1", TRADE).await;
    wait_until_gone(&one, &TOUCHED).await;
    wait_until_gone(&other, &TOUCHED).await;
    wait_for("applied", 2.0).await;
    // What is no event is passed over, and what comes after it is not.
    add("t-2", "{").await;
    wait_for("refused", 1.0).await;
    read(&mut first, &TOUCHED).await;
    let message = format!(r#"{{"type": "trade.executed", "id": "t-3", "data": {TRADE}}}"#);
    let heard: i64 = redis::cmd("PUBLISH")
        .arg("trades")
        .arg(message)
        .query_async(&mut client.get_multiplexed_async_connection().await.expect("it is there"))
        .await
        .expect("it is published");
    assert_eq!(heard, 2);
    wait_until_gone(&one, &TOUCHED).await;
    wait_for("applied", 3.0).await;
    wait_for("repeated", 1.0).await;
    let pending: Vec<redis::Value> = redis::cmd("XPENDING")
        .arg("trade-log")
        .arg("larder")
        .query_async(&mut client.get_multiplexed_async_connection().await.expect("it is there"))
        .await
        .expect("it is told");
    assert_eq!(pending.first(), Some(&redis::Value::Int(0)), "each was acknowledged");
}

#[tokio::test]
async fn two_servers_run_each_time_once() {
    let shared = RedisServer::start();
    let (one_home, other_home) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let more = format!(
        "[redis]\nurl = \"redis://{}\"\n[[schedule]]\nname = \"each-second\"\n\
         cron = \"* * * * * *\"\nzone = \"Europe/Berlin\"\ncaches = [\"risk\"]\nverb = \"remove\"\n",
        shared.address()
    );
    let one = bank(one_home.path(), &more).await;
    let began = Instant::now();
    let other = bank(other_home.path(), &more).await;
    read(&mut one.redis().await, &["risk:7"]).await;
    wait_until_gone(&one, &["risk:7"]).await;
    let runs = async |server: &Running| {
        let on_time = server.metric("larder_schedule_runs_total{outcome=\"on_time\"}").await;
        on_time.expect("it is counted")
    };
    one.wait_for_metric("larder_schedule_runs_total{outcome=\"elsewhere\"}", 1.0).await;
    other.wait_for_metric("larder_schedule_runs_total{outcome=\"elsewhere\"}", 1.0).await;
    let deadline = Instant::now() + PATIENCE;
    while runs(&one).await + runs(&other).await < 6.0 {
        assert!(Instant::now() < deadline, "it does not run");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let total = runs(&one).await + runs(&other).await;
    // One of each second, and the one in which it began.
    let most = began.elapsed().as_secs_f64().ceil() + 2.0;
    assert!(total <= most, "{total} runs in {most} seconds");
}
