//! A node is away for a while, and the bus remembers what was said, or does not.

use larder_testkit::redis::AfterRestart;

use super::*;

/// What happens to the bus while the node is away.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Bus {
    Remembers,
    IsTrimmed,
    ComesBackEmpty,
}

/// How many of the items are removed while the node is away: shelf 0 by its tag,
/// others one by one.
const BY_KEY: std::ops::Range<u64> = 40..80;

/// Whether an item was removed while the node was away.
fn was_removed(item: u64) -> bool {
    item < PER_SHELF || BY_KEY.contains(&item)
}

async fn read_all(node: &Running, cache: &str, rows: u64) -> Vec<u64> {
    let mut redis = node.redis().await;
    let mut numbers = Vec::new();
    for row in 0..rows {
        numbers.push(number(&mut redis, &format!("{cache}:{row}")).await.expect("it is answered"));
    }
    numbers
}

/// The node reads everything, goes away, and comes back. Returns the ratio of hits
/// from disk in its first 1 000 reads.
#[allow(clippy::print_stdout, reason = "the ratio is what is to be shown")]
async fn come_back(signal: &str, bus: Bus) {
    let mut shop = Shop::open().await;
    read_all(shop.node(AWAY), "item", ITEMS).await;
    read_all(shop.node(AWAY), "page", PAGES).await;
    // Stores are filled behind the answer; and it notes how far it has heard.
    let fills = |cache| format!("larder_store_fills_total{{cache=\"{cache}\",store=\"disk\"}}");
    shop.node(AWAY).wait_for_metric(&fills("item"), ITEMS as f64).await;
    shop.node(AWAY).wait_for_metric(&fills("page"), PAGES as f64).await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    shop.end(AWAY, signal);

    let mut database = shop.database().await;
    let update = "UPDATE item SET number = 1; UPDATE page SET number = 1";
    sqlx::raw_sql(update).execute(&mut database).await.expect("it is written");
    let mut one = shop.node(0).redis().await;
    let mut other = shop.node(1).redis().await;
    tell(&mut one, &["LARDER.REMOVE", "TAG", "shelf:0"]).await.expect("it is announced");
    for item in BY_KEY {
        let node = if item % 2 == 0 { &mut one } else { &mut other };
        let key = format!("item:{item}");
        tell(node, &["LARDER.REMOVE", "KEY", &key]).await.expect("it is announced");
    }
    tell(&mut other, &["LARDER.CLEAR", "page"]).await.expect("it is announced");
    match bus {
        Bus::Remembers => {}
        Bus::IsTrimmed => shop.trim(),
        Bus::ComesBackEmpty => shop.redis.restart(AfterRestart::Empty),
    }

    shop.start(AWAY);
    let numbers = read_all(shop.node(AWAY), "item", ITEMS).await;
    let hits = shop.node(AWAY).store("item", "disk", "hits").await;
    let suspects = shop.node(AWAY).store("item", "disk", "suspects").await;
    let ratio = hits as f64 / ITEMS as f64;
    println!("{signal}, the bus {bus:?}: {ratio:.3} of the first {ITEMS} reads were hits on disk");
    for (item, number) in (0..).zip(&numbers) {
        assert!(*number == 1 || !was_removed(item), "item {item} was removed meanwhile");
    }
    assert_eq!(read_all(shop.node(AWAY), "page", PAGES).await, vec![1; PAGES as usize]);
    let removed = (0..ITEMS).filter(|item| was_removed(*item)).count() as u64;
    if bus == Bus::Remembers {
        assert_eq!(suspects, 0);
        assert!(hits as f64 >= 0.9 * (ITEMS - removed) as f64, "{hits} hits on disk only");
    } else {
        // Nobody knows what was removed: Redis has it or the database. A load looks
        // twice, before it has its lease and then.
        assert!(hits == 0 && suspects >= ITEMS, "{hits} hits, {suspects} suspects");
        let fills = fills("item");
        shop.node(AWAY).wait_for_metric(&fills, ITEMS as f64).await;
        shop.end(AWAY, "TERM");
        shop.start(AWAY);
        assert_eq!(read_all(shop.node(AWAY), "item", ITEMS).await, numbers);
        let hits = shop.node(AWAY).store("item", "disk", "hits").await;
        println!("… and of the next start {:.3}", hits as f64 / ITEMS as f64);
        assert!(hits as f64 >= 0.9 * ITEMS as f64, "{hits} hits on disk only");
    }
}

#[tokio::test]
async fn a_server_that_was_stopped_starts_warm_and_hears_what_it_missed() {
    come_back("TERM", Bus::Remembers).await;
}

#[tokio::test]
async fn a_server_that_was_killed_starts_warm_and_hears_what_it_missed() {
    come_back("KILL", Bus::Remembers).await;
}

#[tokio::test]
async fn what_was_removed_is_not_served_although_the_stream_was_trimmed() {
    come_back("TERM", Bus::IsTrimmed).await;
    come_back("KILL", Bus::IsTrimmed).await;
}

#[tokio::test]
async fn what_was_removed_is_not_served_although_redis_came_back_empty() {
    come_back("TERM", Bus::ComesBackEmpty).await;
    come_back("KILL", Bus::ComesBackEmpty).await;
}
