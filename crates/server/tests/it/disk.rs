//! The disk tier: what a server had loaded is there when it starts again.

use crate::running::{Running, larder};
use crate::serve::{config, get};

/// The configuration of a server with a directory, changed as asked.
async fn disk_config(directory: &std::path::Path, change: impl FnOnce(String) -> String) -> String {
    let disk = directory.join("disk");
    let section = format!("[disk]\ndirectory = \"{}\"\nbudget = \"512MiB\"\n", disk.display());
    config(directory, |text| change(text + &section)).await
}

async fn loads(server: &Running, cache: &str) -> f64 {
    let loads = server.metric(&format!("larder_cache_loads_total{{cache=\"{cache}\"}}")).await;
    loads.expect("it is counted")
}

#[tokio::test]
async fn a_server_that_starts_again_is_warm_and_serves_nothing_that_was_removed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = disk_config(directory.path(), |text| text).await;
    let mut server = Running::start(directory.path(), &["--config", &path]);
    assert!(server.banner.contains("at most 512MiB"), "{}", server.banner);
    let mut redis = server.redis().await;
    let artist = get(&mut redis, "artist:3").await;
    for key in ["album:7", "album:8"] {
        get(&mut redis, key).await.expect("it is there");
    }
    let removed: i64 = redis::cmd("LARDER.REMOVE")
        .arg("KEY")
        .arg("album:7")
        .query_async(&mut redis)
        .await
        .expect("it is answered");
    assert_eq!(removed, 1);
    server.signal("TERM");
    assert!(server.wait().success(), "{}", server.log());

    let server = Running::start(directory.path(), &["--config", &path]);
    let mut redis = server.redis().await;
    assert_eq!(get(&mut redis, "artist:3").await, artist);
    assert_eq!(loads(&server, "artist").await, 0.0, "it came from the disk");
    get(&mut redis, "album:8").await.expect("it is there");
    assert_eq!(loads(&server, "album").await, 0.0, "it came from the disk");
    let sample = "larder_store_hits_total{cache=\"album\",store=\"disk\"}";
    assert_eq!(server.metric(sample).await, Some(1.0));
    let closed = "larder_store_breaker_state{cache=\"album\",store=\"disk\",state=\"closed\"}";
    assert_eq!(server.metric(closed).await, Some(1.0));
    for name in store_metrics() {
        let labels = "{cache=\"album\",store=\"disk\"";
        let page = server.request(reqwest::Method::GET, "/metrics").await;
        let page = page.text().await.expect("metrics are text");
        assert!(page.contains(&format!("\n{name}{labels}")), "{name}: {page}");
    }
    let info: String =
        redis::cmd("INFO").arg("larder").query_async(&mut redis).await.expect("it is answered");
    assert!(info.contains("store_album_disk:hits=1,misses=0,fills=0,failures=0"), "{info}");
    let (_, page) = server.page("/caches/album").await;
    assert_eq!(
        (&page["stores"][0]["name"], &page["stores"][0]["hits"]),
        (&"disk".into(), &1.into())
    );
    get(&mut redis, "album:7").await.expect("it is there");
    assert_eq!(loads(&server, "album").await, 1.0, "what was removed is loaded anew");
}

#[tokio::test]
async fn what_another_query_made_is_not_served() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = disk_config(directory.path(), |text| text).await;
    let mut server = Running::start(directory.path(), &["--config", &path]);
    let mut redis = server.redis().await;
    let before = get(&mut redis, "artist:3:albums").await.expect("it is there");
    assert!(before.contains("Milestones"), "{before}");
    server.signal("TERM");
    assert!(server.wait().success(), "{}", server.log());

    let text = std::fs::read_to_string(&path).expect("it is there");
    std::fs::write(&path, text.replace("SELECT id, title", "SELECT id")).expect("it is written");
    let server = Running::start(directory.path(), &["--config", &path]);
    let mut redis = server.redis().await;
    let after = get(&mut redis, "artist:3:albums").await;
    assert_eq!(after.as_deref(), Some(r#"[{"id":7},{"id":8}]"#));
}

#[tokio::test]
async fn a_directory_that_another_server_has_is_refused_at_its_line() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = disk_config(directory.path(), |text| text).await;
    let _first = Running::start(directory.path(), &["--config", &path]);
    let second = larder()
        .args(["serve", "--port", "0", "--admin-bind", "127.0.0.1:0", "--config", &path])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success());
    assert!(said.contains("larder.toml:20:1") && said.contains("disk tier"), "{said}");
}

#[test]
fn a_budget_too_small_is_refused_with_the_least() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("larder.toml");
    std::fs::write(&path, "[disk]\ndirectory = \"/x\"\nbudget = \"1MiB\"\n").expect("written");
    let output = larder().arg("check").arg(&path).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success());
    assert!(said.contains("larder.toml:3:1") && said.contains("at least 512MiB"), "{said}");
}

/// What the reference says of stores.
fn store_metrics() -> Vec<String> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let reference = std::fs::read_to_string(root.join("docs/reference/metrics.md"));
    let reference = reference.expect("it is there");
    let rows = reference.lines().filter(|line| line.starts_with("| `larder_store_"));
    let names: Vec<_> = rows.filter_map(|row| Some(row.split('`').nth(1)?.to_owned())).collect();
    assert_eq!(names.len(), 8, "{names:?}");
    names
}
