//! `larder serve --demo`: a shop to look around in.

use crate::running::Running;

#[tokio::test]
async fn the_second_read_comes_from_memory() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().to_str().expect("the path is text");
    let server = Running::start(directory.path(), &["--demo", "--demo-dir", path]);
    for line in ["product:{id}", "purchase_line:{purchase_id}:{line}", "search_log"] {
        assert!(server.banner.contains(line), "{}", server.banner);
    }
    let mut redis = server.redis().await;
    let mut rows = Vec::new();
    for _ in 0..2 {
        let row: String = redis::cmd("GET")
            .arg("product:42")
            .query_async(&mut redis)
            .await
            .expect("product 42 is there");
        rows.push(row);
    }
    let row: serde_json::Value = serde_json::from_str(&rows[0]).expect("a row is JSON");
    assert_eq!((&row["id"], &row["price_cents"]), (&42.into(), &6395.into()));
    assert_eq!(rows[0], rows[1]);
    assert_eq!(server.metric("larder_cache_loads_total{cache=\"product\"}").await, Some(1.0));
    let hits = "larder_cache_hits_total{cache=\"product\",freshness=\"fresh\"}";
    assert_eq!(server.metric(hits).await, Some(1.0));
}

#[tokio::test]
async fn one_mget_loads_each_of_its_keys_once() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().to_str().expect("the path is text");
    let server = Running::start(directory.path(), &["--demo", "--demo-dir", path]);
    let mut redis = server.redis().await;
    let keys: Vec<_> = (1..=1000).map(|id| format!("customer:{id}")).collect();
    for _ in 0..2 {
        let rows: Vec<Option<String>> =
            redis::cmd("MGET").arg(&keys).query_async(&mut redis).await.expect("rows");
        assert_eq!(rows.iter().flatten().count(), 1000);
        let loads = server.metric("larder_cache_loads_total{cache=\"customer\"}").await;
        assert_eq!(loads, Some(1000.0));
    }
}
