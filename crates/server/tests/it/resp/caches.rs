//! Keys of read-through caches: what reads load, what writes are told, and how
//! answers are labelled and invalidated.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder::{Cache, ManualClock, Memory, Policy};
use larder_core::{Key, KeyPattern, Ttl};
use larder_server::resp::{Door, Routes, ServedCache};
use larder_testkit::faulty::{Answer, FaultyOrigin, Gate};
use tokio::runtime::Runtime;

use super::{Client, encode, open_with, options, text};

type Rows = FaultyOrigin<Key, Bytes>;

/// Caches by the pattern of their keys.
struct Patterns(Vec<(KeyPattern, ServedCache)>);

impl Routes for Patterns {
    fn route(&self, key: &[u8]) -> Option<&ServedCache> {
        let key = std::str::from_utf8(key).ok()?;
        self.0.iter().find(|(pattern, _)| pattern.matches(key)).map(|(_, cache)| cache)
    }

    fn caches(&self) -> Vec<&ServedCache> {
        self.0.iter().map(|(_, cache)| cache).collect()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A door with the caches `product:{id}` and `order:{id}`, each over an origin
/// that the test scripts.
struct Shop {
    door: Door,
    products: Rows,
    orders: Rows,
    clock: ManualClock,
    _runtime: Runtime,
}

impl Shop {
    fn open() -> Self {
        Self::with_rows(|id| format!("{{\"id\":{id}}}"))
    }

    fn with_rows(row: impl Fn(u32) -> String) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be built");
        let clock = ManualClock::new();
        let rows = |name: &str| {
            let rows = (0..2000).map(|id| (Key::new(format!("{name}:{id}")), Bytes::from(row(id))));
            Rows::with_batch_limit(1000).with_rows(rows)
        };
        let (products, orders) = (rows("product"), rows("order"));
        let cache = |name: &str, origin: &Rows| {
            Cache::<Key, Bytes>::builder(name)
                .memory(Memory::bytes(16 << 20))
                .origin(origin.clone())
                .policy(
                    Policy::ttl(Ttl::secs(100))
                        .jitter(0.0)
                        .negative_ttl(Duration::from_secs(10))
                        .stale_if_error(Duration::from_secs(1000)),
                )
                .tag_rule(|key: &Key, _: Option<&Bytes>| {
                    [format!("tag-of-{key}")].into_iter().collect()
                })
                .clock(clock.clone())
                .runtime(runtime.handle().clone())
                .build()
                .expect("the options agree")
        };
        let pattern = |text: &str| text.parse().expect("it is a pattern");
        let routes = Patterns(vec![
            (pattern("product:{id}"), cache("product", &products)),
            (pattern("order:{id}"), cache("order", &orders)),
        ]);
        let door = open_with(&options(), Arc::new(routes));
        Self { door, products, orders, clock, _runtime: runtime }
    }

    fn client(&self) -> Client {
        Client::connect(self.door.address())
    }
}

#[test]
fn a_miss_is_loaded_once_and_then_answered_from_memory() {
    let shop = Shop::open();
    let mut client = shop.client();
    for _ in 0..3 {
        assert_eq!(client.ask("GET product:42"), "$9\r\n{\"id\":42}\r\n");
    }
    assert_eq!(shop.products.calls_count(), 1);
    // That there is no such row is an answer, too, and kept.
    for _ in 0..3 {
        assert_eq!(client.ask("GET product:99999"), "$-1\r\n");
    }
    assert_eq!(shop.products.calls_count(), 2);
}

#[test]
fn pipelined_misses_are_one_query_and_answers_keep_their_order() {
    let shop = Shop::open();
    let mut client = shop.client();
    client.ask("SET plain value");
    client.ask("GET product:3");
    let calls = shop.products.calls_count();
    let mut expected = Vec::new();
    let mut request = Vec::new();
    for id in [1, 2, 3, 1, 4] {
        request.extend(super::encode(&["GET", &format!("product:{id}")]));
        expected.push(format!("$8\r\n{{\"id\":{id}}}\r\n"));
    }
    request.extend(b"GET plain\r\nPING\r\nGET order:5\r\nGET order:6\r\nSTRLEN product:7\r\n");
    expected.extend(
        ["$5\r\nvalue\r\n", "+PONG\r\n", "$8\r\n{\"id\":5}\r\n", "$8\r\n{\"id\":6}\r\n", ":8\r\n"]
            .map(str::to_owned),
    );
    client.send(&request);
    for expected in expected {
        assert_eq!(text(&client.reply()), expected);
    }
    assert_eq!(shop.products.calls_count(), calls + 2, "one for the group, one for STRLEN");
    assert_eq!(shop.orders.calls_count(), 1);
}

#[test]
fn long_pipelines_of_misses_lose_no_answer() {
    // Long enough that answers are written while others are still to be loaded.
    let row = |id: u32| format!("{id}:{}", "x".repeat(200));
    let check = |cache_of: &dyn Fn(u32) -> &'static str| {
        let shop = Shop::with_rows(row);
        let mut client = shop.client();
        let pipeline: Vec<u8> =
            (0..2000).flat_map(|id| encode(&["GET", &format!("{}:{id}", cache_of(id))])).collect();
        let mut sender = client.stream.try_clone().expect("a socket can be shared");
        let sending = std::thread::spawn(move || sender.write_all(&pipeline));
        for id in 0..2000 {
            let row = row(id);
            assert_eq!(text(&client.reply()), format!("${}\r\n{row}\r\n", row.len()));
        }
        sending.join().expect("no panic").expect("the server reads");
        assert_eq!(client.ask("PING"), "+PONG\r\n");
    };
    check(&|_| "product");
    check(&|id| if id % 7 == 0 { "order" } else { "product" });
    check(&|id| if id % 900 < 450 { "order" } else { "product" });
}

#[test]
fn a_thousand_keys_in_one_mget_are_one_query() {
    let shop = Shop::open();
    let mut client = shop.client();
    client.ask("SET plain value");
    let mut keys = vec!["MGET".to_owned(), "plain".to_owned(), "missing".to_owned()];
    keys.extend((0..1000).map(|id| format!("product:{id}")));
    keys.extend(["order:1".to_owned(), "product:77777".to_owned()]);
    let reply = text(&client.call(&keys));
    let mut lines = reply.lines();
    assert_eq!(lines.next(), Some("*1004"));
    assert!(reply.starts_with("*1004\r\n$5\r\nvalue\r\n$-1\r\n$8\r\n{\"id\":0}\r\n"), "{reply}");
    assert!(reply.ends_with("$10\r\n{\"id\":999}\r\n$8\r\n{\"id\":1}\r\n$-1\r\n"));
    assert_eq!(shop.products.calls_count(), 2, "1001 keys, at most 1000 in a query");
    assert_eq!(shop.orders.calls_count(), 1);
}

#[test]
fn a_thousand_clients_that_want_one_cold_key_are_one_query() {
    let shop = Shop::open();
    let gate = Gate::new();
    shop.products.script([Answer::Truth.held_at(&gate)]);
    let mut clients: Vec<Client> = (0..1000).map(|_| shop.client()).collect();
    for client in &mut clients {
        client.send(b"GET product:7\r\n");
    }
    super::eventually("every request's arrival", || {
        shop.door.monitor().statistics().cache_misses == 1000
    });
    gate.open();
    for client in &mut clients {
        assert_eq!(text(&client.reply()), "$8\r\n{\"id\":7}\r\n");
    }
    assert_eq!(shop.products.calls_count(), 1);
}

#[test]
fn a_slow_load_holds_up_only_who_waits_for_it() {
    let shop = Shop::open();
    let gate = Gate::new();
    shop.products.script([Answer::Truth.held_at(&gate)]);
    let mut waiting: Vec<Client> = (0..4).map(|_| shop.client()).collect();
    for client in &mut waiting {
        client.send(b"GET product:7\r\nPING\r\n");
    }
    for _ in 0..8 {
        let mut other = shop.client();
        assert_eq!(other.ask("GET order:1"), "$8\r\n{\"id\":1}\r\n");
        assert_eq!(other.ask("SET plain 1"), "+OK\r\n");
    }
    gate.open();
    for client in &mut waiting {
        assert_eq!(text(&client.reply()), "$8\r\n{\"id\":7}\r\n");
        assert_eq!(text(&client.reply()), "+PONG\r\n");
    }
}

#[test]
fn closing_waits_for_what_loads() {
    let Shop { door, products, _runtime: runtime, .. } = Shop::open();
    let gate = Gate::new();
    products.script([Answer::Truth.held_at(&gate)]);
    let mut waiting = Client::connect(door.address());
    waiting.send(b"GET product:7\r\nPING\r\n");
    runtime.block_on(gate.wait_for_arrivals(1));
    let idle = Client::connect(door.address());
    let monitor = door.monitor();
    super::eventually("its arrival", || monitor.clients_count() == 2);
    let closing = runtime.spawn(door.close(Duration::from_secs(20)));
    super::eventually("the idle client's departure", || monitor.clients_count() == 1);
    assert!(!closing.is_finished());
    gate.open();
    assert_eq!(text(&waiting.rest()), "$8\r\n{\"id\":7}\r\n+PONG\r\n");
    assert_eq!(runtime.block_on(closing).expect("closing does not panic"), 0);
    drop(idle);
}

#[test]
fn reads_work_and_look_like_those_of_strings() {
    let shop = Shop::open();
    let mut client = shop.client();
    for (line, reply) in [
        ("TTL product:10", ":-2\r\n"),
        ("TYPE product:10", "+none\r\n"),
        ("TOUCH product:10", ":0\r\n"),
        ("OBJECT ENCODING product:10", "$-1\r\n"),
        ("MEMORY USAGE product:10", "$-1\r\n"),
        ("STRLEN product:10", ":9\r\n"),
        ("GETRANGE product:10 0 4", "$5\r\n{\"id\"\r\n"),
        ("GETRANGE product:10 -3 -1", "$3\r\n10}\r\n"),
        ("GETRANGE product:10 x 1", "-ERR value is not an integer or out of range\r\n"),
        ("SUBSTR product:10 0 0", "$1\r\n{\r\n"),
        ("TYPE product:10", "+string\r\n"),
        ("TTL product:10", ":100\r\n"),
        ("PTTL product:10", ":100000\r\n"),
        ("TOUCH product:10 product:11 nothing", ":1\r\n"),
        ("EXISTS product:10 product:11 product:99999 nothing", ":2\r\n"),
        ("OBJECT ENCODING product:10", "$6\r\nembstr\r\n"),
        ("OBJECT REFCOUNT product:10", ":1\r\n"),
        ("TTL product:99999", ":-2\r\n"),
        ("TYPE product:99999", "+none\r\n"),
        ("EXISTS product:", ":0\r\n"),
        ("SET product: plain", "+OK\r\n"),
    ] {
        assert_eq!(client.ask(line), reply, "{line}");
    }
    assert!(client.ask("MEMORY USAGE product:10").starts_with(':'));
    assert!(client.ask("OBJECT FREQ product:10").starts_with("-ERR"));
    let end = client.ask("PEXPIRETIME product:10");
    let end: u128 = end.trim_start_matches(':').trim().parse().expect("it is a number");
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).expect("it is past 1970").as_millis();
    assert!((now + 90_000..=now + 101_000).contains(&end), "{end}");
    shop.clock.advance(Duration::from_secs(40));
    assert_eq!(client.ask("TTL product:10"), ":60\r\n");
}

#[test]
fn writes_are_refused_and_say_what_to_do() {
    let shop = Shop::open();
    let mut client = shop.client();
    let refusal = "-ERR 'product:1' belongs to the read-through cache 'product', which takes no \
                   writes; write to the database, then LARDER.REMOVE KEY product:1\r\n";
    for line in [
        "SET product:1 x",
        "DEL product:1",
        "DEL plain product:1",
        "EXPIRE product:1 5",
        "INCR product:1",
        "MSET plain x product:1 y",
        "RENAME plain product:1",
        "COPY product:1 plain",
        "GETDEL product:1",
        "APPEND product:1 x",
        "PERSIST product:1",
    ] {
        assert_eq!(client.ask(line), refusal, "{line}");
    }
    assert_eq!(client.ask("EXISTS plain"), ":0\r\n");
    assert!(client.ask("WATCH product:1").contains("cannot be watched"));
    assert_eq!(shop.products.calls_count(), 0);
}

#[test]
fn transactions_read_through_caches() {
    let shop = Shop::open();
    let mut client = shop.client();
    client.send(
        b"MULTI\r\nSET plain 1\r\nMGET plain product:1 order:2\r\nGET product:3\r\n\
          SET product:1 x\r\nTTL product:1\r\nTTL product:9\r\nEXEC\r\n",
    );
    for _ in 0..7 {
        client.reply();
    }
    let reply = text(&client.reply());
    assert_eq!(
        reply,
        "*6\r\n+OK\r\n*3\r\n$1\r\n1\r\n$8\r\n{\"id\":1}\r\n$8\r\n{\"id\":2}\r\n$8\r\n{\"id\":3}\r\n\
         -ERR 'product:1' belongs to the read-through cache 'product', which takes no writes; \
         write to the database, then LARDER.REMOVE KEY product:1\r\n:100\r\n:-2\r\n"
    );
    assert_eq!(shop.products.calls_count(), 1, "both products with one query");
    client.ask("MULTI");
    assert_eq!(
        client.ask("LARDER.REMOVE KEY product:1"),
        "-ERR Command not allowed inside a transaction\r\n"
    );
}

#[test]
fn failures_have_a_code_and_stale_answers_are_labelled() {
    let shop = Shop::open();
    let mut client = shop.client();
    client.ask("HELLO 3");
    shop.products.script([Answer::unavailable(), Answer::Panic]);
    let error = client.ask("GET product:1");
    assert!(error.starts_with("-UNAVAILABLE ") && error.contains("unreachable"), "{error}");
    assert!(client.ask("MGET plain product:1").starts_with("-LOADFAILED "));
    assert_eq!(client.ask("GET product:1"), "$8\r\n{\"id\":1}\r\n");

    assert_eq!(client.ask("LARDER.LABELS ON"), "+OK\r\n");
    let label = |freshness: &str, tier: &str, age_ms: u64| {
        format!(
            "|3\r\n$9\r\nfreshness\r\n${}\r\n{freshness}\r\n$4\r\ntier\r\n${}\r\n{tier}\r\n\
             $6\r\nage-ms\r\n:{age_ms}\r\n$8\r\n{{\"id\":1}}\r\n",
            freshness.len(),
            tier.len()
        )
    };
    shop.clock.advance(Duration::from_secs(50));
    assert_eq!(client.ask("GET product:1"), label("fresh", "memory", 50_000));
    shop.clock.advance(Duration::from_secs(60));
    shop.products.script(vec![Answer::unavailable(); 8]);
    assert_eq!(client.ask("GET product:1"), label("stale", "memory", 110_000));
    assert!(client.ask("LARDER.EXPLAIN product:1").contains("$9\r\nfreshness\r\n$5\r\nstale"));
    assert_eq!(client.ask("LARDER.LABELS OFF"), "+OK\r\n");
    assert_eq!(client.ask("GET product:1"), "$8\r\n{\"id\":1}\r\n");
    assert!(shop.client().ask("LARDER.LABELS ON").starts_with("-ERR labels need RESP3"));
}

#[test]
fn invalidation_by_key_and_by_tag() {
    let shop = Shop::open();
    let mut client = shop.client();
    client.ask("MGET product:1 product:2 order:1");
    shop.products.set(Key::new("product:1"), Bytes::from_static(b"new"));
    shop.products.set(Key::new("product:2"), Bytes::from_static(b"new"));
    assert_eq!(client.ask("GET product:1"), "$8\r\n{\"id\":1}\r\n");
    assert_eq!(client.ask("LARDER.REMOVE KEY product:1 product:9 order:9"), ":1\r\n");
    assert_eq!(client.ask("GET product:1"), "$3\r\nnew\r\n");
    assert_eq!(client.ask("LARDER.REMOVE TAG tag-of-product:2 tag-of-nothing"), ":2\r\n");
    assert_eq!(client.ask("GET product:2"), "$3\r\nnew\r\n");
    assert_eq!(client.ask("LARDER.EXPIRE KEY order:1"), ":1\r\n");
    assert_eq!(client.ask("TTL order:1"), ":0\r\n");
    assert!(client.ask("LARDER.EXPLAIN order:1").contains("$5\r\nstale\r\n"));
    assert_eq!(client.ask("LARDER.CLEAR product"), "+OK\r\n");
    assert_eq!(client.ask("TTL product:1"), ":-2\r\n");
    for (line, error) in [
        ("LARDER.REMOVE KEY plain", "-ERR 'plain' belongs to no cache; use DEL for plain keys\r\n"),
        ("LARDER.REMOVE ROW 5", "-ERR syntax error, expected TAG, KEY, PREFIX or PATTERN\r\n"),
        ("LARDER.CLEAR none", "-ERR there is no cache 'none'; caches: product, order\r\n"),
        ("LARDER.STATS none", "-ERR there is no cache 'none'; caches: product, order\r\n"),
        ("LARDER.REMOVE KEY", "-ERR wrong number of arguments for 'larder.remove' command\r\n"),
    ] {
        assert_eq!(client.ask(line), error, "{line}");
    }
}

#[test]
fn caches_explain_themselves() {
    let shop = Shop::open();
    let mut client = shop.client();
    client.ask("SET plain value EX 100");
    let plain = client.ask("LARDER.EXPLAIN plain");
    assert!(plain.contains("plain key") && plain.contains("expires-in-ms"), "{plain}");
    let cold = client.ask("LARDER.EXPLAIN product:1");
    assert!(cold.contains("$6\r\ncached\r\n$2\r\nno"), "{cold}");
    client.ask("GET product:1");
    let warm = client.ask("LARDER.EXPLAIN product:1");
    for part in ["product", "read-through cache", "closed", "$5\r\nfresh", "tag-of-product:1"] {
        assert!(warm.contains(part), "{part} in {warm}");
    }
    assert_eq!(shop.products.calls_count(), 1, "explaining loads nothing");
    let statistics = client.ask("LARDER.STATS product");
    assert!(statistics.contains("$5\r\nloads\r\n:1\r\n"), "{statistics}");
    assert!(client.ask("LARDER.STATS").contains("$5\r\norder\r\n"));
    assert!(client.ask("INFO larder").contains("cache_product:entries=1,"));
    assert!(client.ask("DBSIZE").contains(":1"), "rows are not plain keys");
}
