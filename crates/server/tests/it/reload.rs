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
