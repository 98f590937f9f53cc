//! A configuration that changes under a running server.

use std::path::Path;

use crate::running::Running;
use crate::serve::{config, get};

/// Changes the file and waits until the server has read it.
async fn change(server: &Running, path: &str, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).expect("it is there");
    assert!(text.contains(from), "{from:?} is in the file");
    std::fs::write(path, text.replace(from, to)).expect("it is written");
    read_again(server).await;
}

async fn read_again(server: &Running) {
    let before = server.metric("larder_config_reloads_total").await.expect("it is counted");
    server.signal("HUP");
    server.wait_for_metric("larder_config_reloads_total", before + 1.0).await;
}

async fn start(directory: &Path) -> (Running, String) {
    let path = config(directory, |text| text + "[caches.artist]\nttl = \"1h\"\n").await;
    (Running::start(directory, &["--config", &path]), path)
}

#[tokio::test]
async fn a_stricter_policy_empties_the_cache() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (server, path) = start(directory.path()).await;
    let mut redis = server.redis().await;
    let is_cached = async || server.page("/caches/artist/keys/artist:3").await.0 == 200;
    let mut last = "ttl = \"1h\"".to_owned();
    for (policy, is_kept) in [
        ("ttl = \"2h\"", true),
        ("ttl = \"1h\"\nmax_age = \"2h\"", false),
        ("ttl = \"1h\"\nmax_age = \"3h\"", true),
        ("ttl = \"1h\"\nmax_age = \"1h\"", false),
        ("ttl = \"10s\"\nmax_age = \"1h\"\nclass = \"financial\"", true),
        ("ttl = \"10s\"\nmax_age = \"1h\"\nclass = \"personal\"", false),
    ] {
        get(&mut redis, "artist:3").await.expect("it is there");
        assert!(is_cached().await, "before {policy}");
        let header = "[caches.artist]\n";
        change(&server, &path, &format!("{header}{last}"), &format!("{header}{policy}")).await;
        assert_eq!(is_cached().await, is_kept, "{policy}; log:\n{}", server.log());
        last = policy.to_owned();
    }
    get(&mut redis, "artist:3").await.expect("it is there");
    assert!(!is_cached().await, "personal data is not kept");
    let log = server.log();
    for reason in ["max_age is now 7200s", "data of the class personal is not kept"] {
        assert!(log.contains(&format!("the cache `artist` was emptied: {reason}")), "{log}");
    }
}

#[tokio::test]
async fn what_needs_a_restart_is_told_until_it_is_as_at_the_start() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (server, path) = start(directory.path()).await;
    let warnings = || server.log().matches("needs a restart to hold: caches.album.tags").count();
    let tags = async || {
        let explained = server.page("/explain/album:7").await.1;
        let shown = server.page("/caches/album").await.1;
        assert_eq!(explained["cache"]["tags"], shown["tags"]);
        explained["cache"]["tags"][0].as_str().expect("a tag").to_owned()
    };
    let (old, new) = ("{ column = \"updated_at\" }\ntags = [\"artist:", "[\"singer:");
    let new = old.replace("[\"artist:", new);
    change(&server, &path, old, &new).await;
    // The change may be noticed before the signal is, and told twice.
    let told = warnings();
    assert!(told >= 1, "{}", server.log());
    assert_eq!(tags().await, "artist:{artist_id}", "entries still carry the old tags");
    settle().await;
    let told = warnings();
    read_again(&server).await;
    assert!(warnings() > told, "it still needs one: {}", server.log());
    settle().await;
    let told = warnings();
    change(&server, &path, &new, old).await;
    settle().await;
    assert_eq!(warnings(), told, "nothing differs from what runs: {}", server.log());
}

/// Waits until the server has looked at the file often enough to have noticed
/// the last change of it.
async fn settle() {
    tokio::time::sleep(std::time::Duration::from_millis(1_600)).await;
}
