use larder_core::{Key, Mark, PutCondition, PutOutcome, Store, Tag, Verb, Version};
use larder_memcached::{Memcached, MemcachedStore, StoreOptions};
use larder_testkit::conformance::{block_on, store::entry};

use crate::support::{TestServer, options, put, servers, version};

fn mark(tag: Option<&str>, verb: Verb, version: u64) -> Mark {
    Mark { tag: tag.map(Tag::new), verb, version: Version::new(version) }
}

async fn client(servers: &[TestServer]) -> Memcached {
    Memcached::connect(options(servers)).await.expect("they run")
}

/// As if memcached had evicted it.
fn evict_control_item(server: &TestServer) {
    assert_eq!(server.ask(b"md larder:c:album:\r\n"), b"HD\r\n");
}

#[test]
fn a_node_that_starts_later_sees_the_watermarks_and_the_entries() {
    block_on(async {
        let servers = servers(1);
        let first = MemcachedStore::new(&client(&servers).await, "album");
        put(&first, "k", "value", 5).await;
        first.mark(&[mark(Some("miles"), Verb::Remove, 7)]).await.expect("it is marked");
        let second = MemcachedStore::new(&client(&servers).await, "album");
        let marks = second.marks().await.expect("the watermarks");
        assert_eq!(marks, [mark(Some("miles"), Verb::Remove, 7)]);
        assert_eq!(version(&second, "k").await, Some(5));
    });
}

/// Nobody can know what the lost watermarks were: whoever starts then gets no
/// entry from before. Whoever was there goes on.
#[test]
fn when_the_watermarks_are_lost_nobody_new_gets_what_may_fall_under_them() {
    block_on(async {
        let servers = servers(1);
        let old_node = MemcachedStore::new(&client(&servers).await, "album");
        put(&old_node, "before", "value", 5).await;
        old_node.mark(&[mark(None, Verb::Remove, 7)]).await.expect("it is marked");
        evict_control_item(&servers[0]);

        let new_node = MemcachedStore::new(&client(&servers).await, "album");
        assert_eq!(new_node.marks().await.expect("the watermarks"), []);
        assert_eq!(version(&new_node, "before").await, None);
        assert_eq!(version(&old_node, "before").await, Some(5));

        // What the new node puts, both read: the old one learns of it.
        put(&new_node, "before", "value", 8).await;
        assert_eq!(version(&new_node, "before").await, Some(8));
        crate::support::wait_until_async("the old node learns", async || {
            version(&old_node, "before").await == Some(8)
        })
        .await;
        put(&old_node, "after", "value", 9).await;
        assert_eq!(version(&new_node, "after").await, Some(9));
    });
}

/// A put that was loaded under watermarks that are lost meanwhile is not given
/// to those who do not know them.
#[test]
fn what_was_put_before_the_loss_became_known_is_not_read_after_it() {
    block_on(async {
        let servers = servers(1);
        let old_node = MemcachedStore::new(&client(&servers).await, "album");
        put(&old_node, "other", "value", 1).await;
        evict_control_item(&servers[0]);
        let new_node = MemcachedStore::new(&client(&servers).await, "album");
        new_node.marks().await.expect("the watermarks");
        put(&old_node, "k", "value", 5).await;
        assert_eq!(version(&new_node, "k").await, None);
        // The new node writes over it, and is not refused for what is dead.
        put(&new_node, "k", "value", 3).await;
        assert_eq!(version(&new_node, "k").await, Some(3));
    });
}

#[test]
fn an_invalidation_holds_for_every_generation() {
    block_on(async {
        let servers = servers(1);
        let old_node = MemcachedStore::new(&client(&servers).await, "album");
        let keys = [Key::new("k")];
        old_node.invalidate_many(&keys, Version::new(9), Verb::Remove).await.expect("a removal");
        put(&old_node, "other", "value", 1).await;
        evict_control_item(&servers[0]);
        let new_node = MemcachedStore::new(&client(&servers).await, "album");
        new_node.marks().await.expect("the watermarks");
        let late = [(keys[0].clone(), entry("late", 8))];
        let outcome = new_node.put_many(&late, PutCondition::NewerThanHeld).await.expect("a put");
        assert_eq!(outcome, [PutOutcome::Refused(Version::new(9))]);
    });
}

#[test]
fn watermarks_are_bounded_and_none_is_lost() {
    block_on(async {
        let servers = servers(1);
        let mut store_options = StoreOptions::default();
        store_options.marks_max = 10;
        let store = MemcachedStore::with_options(&client(&servers).await, "album", store_options);
        for version in 1..=25_u64 {
            let tag = format!("tag:{version}");
            store.mark(&[mark(Some(&tag), Verb::Remove, version)]).await.expect("it is marked");
        }
        let marks = store.marks().await.expect("the watermarks");
        assert_eq!(marks.len(), 10);
        // Nine tags are left; the oldest sixteen became one for all.
        assert!(marks.contains(&mark(None, Verb::Remove, 16)), "{marks:?}");
        for version in 17..=25 {
            let tag = format!("tag:{version}");
            assert!(marks.contains(&mark(Some(&tag), Verb::Remove, version)), "{marks:?}");
        }
    });
}

#[test]
fn many_nodes_mark_at_once_and_every_mark_stays() {
    block_on(async {
        let servers = servers(1);
        let client = client(&servers).await;
        let tasks: Vec<_> = (0..20_u64)
            .map(|number| {
                let store = MemcachedStore::new(&client, "album");
                tokio::spawn(async move {
                    let tag = format!("tag:{number}");
                    store.mark(&[mark(Some(&tag), Verb::Expire, number + 1)]).await
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("it ends").expect("it is marked");
        }
        let marks = MemcachedStore::new(&client, "album").marks().await.expect("the watermarks");
        assert_eq!(marks.len(), 20);
    });
}

#[test]
fn a_control_item_that_cannot_be_read_is_replaced() {
    block_on(async {
        let servers = servers(1);
        let first = MemcachedStore::new(&client(&servers).await, "album");
        put(&first, "k", "value", 5).await;
        assert_eq!(servers[0].ask(b"ms larder:c:album: 7\r\ngarbage\r\n"), b"HD\r\n");
        let second = MemcachedStore::new(&client(&servers).await, "album");
        assert_eq!(second.marks().await.expect("the watermarks"), []);
        assert_eq!(version(&second, "k").await, None);
    });
}
