use bytes::Bytes;
use larder_core::{ErrorKind, Key, PutCondition, PutOutcome, Store};
use larder_memcached::protocol::{Mode, Reply, Request, WireKey};
use larder_memcached::{Memcached, MemcachedOptions, MemcachedStore};
use larder_testkit::conformance::{block_on, store::entry};

use crate::support::{TestServer, connect, options, server_with, servers};

async fn call(client: &Memcached, key: &[u8], request: impl Fn(WireKey) -> Request) -> Reply {
    let key = WireKey::new(key).expect("it is short");
    let mut replies = client.call_many(&[(key.clone(), request(key))]).await;
    replies.remove(0).expect("an answer")
}

/// The reply without the token that was given to it.
fn shown(reply: &Reply) -> String {
    match reply {
        Reply::Value(value, _) => format!("VA {}", value.escape_ascii()),
        Reply::Done(_) => "HD".to_owned(),
        Reply::NotStored(_) => "NS".to_owned(),
        Reply::Exists(_) => "EX".to_owned(),
        Reply::NotFound(_) => "NF".to_owned(),
        Reply::Missing => "EN".to_owned(),
        Reply::Debug(_) => "ME".to_owned(),
        Reply::Noop => "MN".to_owned(),
        reply => format!("{reply:?}"),
    }
}

#[test]
fn every_request_means_to_a_server_what_it_says() {
    block_on(async {
        let servers = servers(1);
        let client = connect(&servers).await;
        let value = |text: &'static str| Bytes::from_static(text.as_bytes());
        type Make = Box<dyn Fn(WireKey) -> Request>;
        let steps: Vec<(&str, Make, &str)> = vec![
            ("mg", Box::new(|key| Request::get(key).with_value()), "EN"),
            ("ms add", Box::new(move |key| Request::set(key, value("1"), Mode::Add)), "HD"),
            ("ms add", Box::new(move |key| Request::set(key, value("2"), Mode::Add)), "NS"),
            ("mg", Box::new(|key| Request::get(key).with_value()), "VA 1"),
            ("ms set", Box::new(move |key| Request::set(key, value("7"), Mode::Set)), "HD"),
            (
                "ms C",
                Box::new(move |key| Request::set(key, value("8"), Mode::Set).compare(1)),
                "EX",
            ),
            ("ma", Box::new(|key| Request::add(key, 5, None)), "VA 12"),
            ("mn", Box::new(|_| Request::noop()), "MN"),
            ("md C", Box::new(|key| Request::delete(key).compare(1)), "EX"),
            ("md", Box::new(Request::delete), "HD"),
            ("md", Box::new(Request::delete), "NF"),
            ("ms R", Box::new(move |key| Request::set(key, value("3"), Mode::Replace)), "NS"),
            (
                "ms C",
                Box::new(move |key| Request::set(key, value("8"), Mode::Set).compare(1)),
                "NF",
            ),
            ("ma", Box::new(|key| Request::add(key, 5, None)), "NF"),
            ("ma N", Box::new(|key| Request::add(key, 5, Some((40, 60)))), "VA 40"),
        ];
        for key in [&b"plain"[..], b"with \r\n\0 anything"] {
            for (name, request, expected) in &steps {
                assert_eq!(shown(&call(&client, key, request).await), *expected, "{name}");
            }
        }
    });
}

#[test]
fn what_a_server_knows_of_an_item_can_be_asked() {
    block_on(async {
        let servers = servers(1);
        let client = connect(&servers).await;
        let debug = |key| Request::debug(key).expect("it is printable");
        assert_eq!(shown(&call(&client, b"key", debug).await), "EN");
        let set = |key| Request::set(key, Bytes::from_static(b"value"), Mode::Set);
        call(&client, b"key", set).await;
        match call(&client, b"key", debug).await {
            Reply::Debug(text) => {
                let text = String::from_utf8_lossy(&text);
                assert!(text.starts_with("key ") && text.contains(" exp=-1 "), "{text}");
            }
            reply => panic!("{reply:?}"),
        }
    });
}

#[test]
fn a_lease_flag_is_won_once() {
    block_on(async {
        let servers = servers(1);
        let client = connect(&servers).await;
        let ask = || call(&client, b"key", |key| Request::get(key).with_cas().vivify(30));
        let flags = |reply: Reply| *reply.flags().expect("a reply with flags");
        let (first, second) = (flags(ask().await), flags(ask().await));
        assert_eq!((first.is_won, first.is_taken), (true, false));
        assert_eq!((second.is_won, second.is_taken), (false, true));
        assert_eq!(first.cas, second.cas);
    });
}

#[test]
fn large_batches_of_large_values_pass_in_one_call() {
    block_on(async {
        let servers: Vec<TestServer> = (0..2).map(|_| server_with(&["-m", "512"])).collect();
        let client = connect(&servers).await;
        let store = MemcachedStore::new(&client, "large");
        for (count, length) in [(5_000_usize, 10_usize), (60, 1_000_000)] {
            let text = "x".repeat(length);
            let entries: Vec<_> =
                (0..count).map(|n| (Key::new(format!("{length}:{n}")), entry(&text, 1))).collect();
            let outcomes = store.put_many(&entries, PutCondition::Vacant).await.expect("a put");
            assert_eq!(outcomes, vec![PutOutcome::Stored; count]);
            let keys: Vec<Key> = entries.iter().map(|(key, _)| key.clone()).collect();
            let read = store.get_many(&keys).await.expect("a read");
            for ((key, put), read) in entries.iter().zip(read) {
                assert!(read.is_some_and(|read| read.value == put.value), "{key}");
            }
        }
    });
}

/// Many callers on one connection get their own answers, also when some leave.
#[test]
fn callers_on_one_connection_do_not_mix() {
    block_on(async {
        let servers = servers(1);
        let before = servers[0].statistic("total_connections");
        let client = connect(&servers).await;
        let tasks: Vec<_> = (0..200_u32)
            .map(|number| {
                let client = client.clone();
                tokio::spawn(async move {
                    let text = number.to_string();
                    for round in 0..20 {
                        let stored = Bytes::from(text.clone());
                        let set = |key| Request::set(key, stored.clone(), Mode::Set);
                        let get = |key| Request::get(key).with_value();
                        let key = text.as_bytes();
                        if number % 5 == 0 && round % 2 == 0 {
                            // Leaves before the answer, as a deadline would.
                            let left = call(&client, key, get);
                            let _ = tokio::time::timeout(std::time::Duration::ZERO, left).await;
                        }
                        assert!(matches!(call(&client, key, set).await, Reply::Done(_)));
                        match call(&client, key, get).await {
                            Reply::Value(value, _) => assert_eq!(value, text.as_bytes()),
                            reply => panic!("{reply:?}"),
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("it gets its own");
        }
        // One connection, and the one that asks.
        assert_eq!(servers[0].statistic("total_connections"), before + 1 + 1);
    });
}

#[test]
fn only_as_many_connections_are_made_as_were_allowed() {
    block_on(async {
        let servers = servers(1);
        let before = servers[0].statistic("total_connections");
        let mut options = options(&servers);
        options.connections_per_server = 4;
        let client = Memcached::connect(options).await.expect("it runs");
        let tasks = (0..100).map(|n| {
            let client = client.clone();
            tokio::spawn(async move {
                call(&client, format!("{n}").as_bytes(), Request::get).await;
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.expect("it is answered");
        }
        assert_eq!(servers[0].statistic("total_connections"), before + 4 + 1);
    });
}

#[test]
fn who_reaches_nobody_is_told_at_the_start() {
    block_on(async {
        let port = larder_testkit::process::free_port();
        let address = format!("127.0.0.1:{port}").parse().expect("an address");
        let error = Memcached::connect(MemcachedOptions::new([address])).await;
        let error = error.expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains(&port.to_string()), "{error}");
        assert!(error.remedy_text().is_some(), "{error}");
    });
}

#[test]
fn without_compare_and_swap_nothing_begins() {
    block_on(async {
        let servers = [server_with(&["-C"])];
        let error = Memcached::connect(options(&servers)).await.expect_err("versions need it");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.remedy_text().is_some_and(|remedy| remedy.contains("-C")), "{error}");
    });
}
