//! What depends on what: a change of one cache invalidates what others have
//! computed from it, here and on other nodes.

use std::sync::Arc;
use std::time::Duration;

use larder::{
    Action, Bus, Cache, CacheBuilder, CascadeBounds, Dependencies, DependencyGraph, ErrorKind,
    Fleet, FleetOptions, GraphBuilder, JsonCodec, LoadContext, Loaded, Origin, Result, Stores,
    Tier, Touch, Version, WriteAbilities,
};
use larder_core::{Announcement, Change, Key, Verb};
use larder_testkit::faulty::{FaultyBus, FaultyStore, PublishFault};

use crate::support::*;

/// An order is the number of its customer.
type Orders = Cache<u64, u64>;
type Names = Cache<u64, String>;

/// Order N is one of customer N / 10.
struct OrderTable;

impl Origin<u64, u64> for OrderTable {
    async fn load(&self, id: &u64, _: &LoadContext) -> Result<Loaded<u64>> {
        Ok(Loaded::value(id / 10))
    }
}

struct CustomerTable;

impl Origin<u64, String> for CustomerTable {
    async fn load(&self, id: &u64, _: &LoadContext) -> Result<Loaded<String>> {
        Ok(Loaded::value(format!("customer {id}")))
    }

    fn write_abilities(&self) -> WriteAbilities {
        WriteAbilities::SIMPLE
    }

    async fn store(&self, _: &u64, _: &String) -> Result<Option<Version>> {
        Ok(None)
    }
}

fn shop() -> GraphBuilder {
    DependencyGraph::builder()
        .cache("customer", "{id}")
        .cache("order", "{id}")
        .cache("profile", "{customer_id}")
        .depends("order", "customer:{customer_id}")
        .depends("order", "tag:price-list:{list}")
        .depends("order", "service:billing:invoice:{customer_id}")
        .depends("profile", "customer:{customer_id}")
}

fn group(graph: GraphBuilder) -> Dependencies {
    Dependencies::new(graph.build().expect("a graph"))
}

struct Shop {
    customers: Names,
    orders: Orders,
    profiles: Names,
    dependencies: Dependencies,
}

fn configured<V: Clone + Send + Sync + 'static>(
    name: &str,
    dependencies: &Dependencies,
) -> CacheBuilder<u64, V> {
    Cache::builder(name).policy(plain()).dependencies(dependencies)
}

fn order_field(_: &u64, customer: Option<&u64>, field: &str) -> Option<String> {
    match field {
        "customer_id" => customer.map(u64::to_string),
        "list" => customer.map(|customer| (customer % 2).to_string()),
        _ => None,
    }
}

fn open(dependencies: Dependencies, fleet: Option<&Fleet>, store: Option<&FaultyStore>) -> Shop {
    let mut customers = configured("customer", &dependencies).origin(CustomerTable);
    let mut orders = configured("order", &dependencies).origin(OrderTable).fields(order_field);
    let mut profiles = configured("profile", &dependencies).origin(CustomerTable);
    if let Some(fleet) = fleet {
        customers = customers.fleet(fleet);
        orders = orders.fleet(fleet);
        profiles = profiles.fleet(fleet);
    }
    if let Some(store) = store {
        orders = orders.stores(Stores::new(JsonCodec).store("shared", store.clone()));
    }
    Shop {
        customers: customers.build().expect("a cache"),
        orders: orders.build().expect("a cache"),
        profiles: profiles.build().expect("a cache"),
        dependencies,
    }
}

impl Shop {
    /// Loads orders 170, 171 and 180 and profiles 17 and 18.
    async fn warm(&self) {
        for order in [170, 171, 180] {
            self.orders.get_or_load(&order).await.expect("it loads");
        }
        for customer in [17, 18] {
            self.profiles.get_or_load(&customer).await.expect("it loads");
        }
    }

    /// Which of them memory holds for fresh.
    fn fresh(&self) -> [bool; 5] {
        let order = |id| self.orders.get_memory(&id).is_some();
        let profile = |id| self.profiles.get_memory(&id).is_some();
        [order(170), order(171), order(180), profile(17), profile(18)]
    }
}

const OTHERS_ONLY: [bool; 5] = [false, false, true, false, true];

#[tokio::test]
async fn every_change_of_a_customer_reaches_her_orders_and_no_others() {
    let shop = open(group(shop()), None, None);
    shop.warm().await;
    assert_eq!(shop.fresh(), [true; 5]);
    shop.customers.remove(&17).await.expect("removed");
    assert_eq!(shop.fresh(), OTHERS_ONLY);
    shop.warm().await;
    shop.customers.put(&17, "Ann".into()).await.expect("put");
    assert_eq!(shop.fresh(), OTHERS_ONLY);
    shop.warm().await;
    shop.customers.write(&17, Action::Put("Ann".into())).await.expect("written");
    assert_eq!(shop.fresh(), OTHERS_ONLY);
    shop.warm().await;
    // Nobody can say whose customers these are.
    shop.customers.remove_tag("gold").await.expect("removed");
    assert_eq!(shop.fresh(), [false; 5]);
    shop.warm().await;
    shop.customers.clear().await.expect("cleared");
    assert_eq!(shop.fresh(), [false; 5]);
    let statistics = shop.dependencies.statistics();
    assert_eq!((statistics.cascades, statistics.caches, statistics.bounds_hit), (5, 4, 0));
    assert_eq!((statistics.keys, statistics.tags), (3, 3));
}

#[tokio::test]
async fn expire_stays_expire_and_remove_stays_remove() {
    let dependencies = group(shop());
    let policy = plain().stale_if_error(MINUTE);
    let customers = configured::<String>("customer", &dependencies).build().expect("a cache");
    let orders = configured("order", &dependencies).policy(policy).fields(order_field);
    let orders = orders.origin(OrderTable).build().expect("a cache");
    orders.get_or_load(&170).await.expect("it loads");
    customers.expire(&17).await.expect("expired");
    let held = orders.inspect(&170).expect("it may still be served stale");
    assert_eq!(held.fresh_for, Some(Duration::ZERO));
    orders.get_or_load(&170).await.expect("it loads");
    customers.remove(&17).await.expect("removed");
    assert!(orders.inspect(&170).is_none());
}

#[tokio::test]
async fn a_tag_of_any_cache_is_followed() {
    let shop = open(group(shop()), None, None);
    shop.warm().await;
    // Orders of odd customers are on list 1; nothing depends on profiles.
    shop.profiles.remove_tag("price-list:1").await.expect("removed");
    assert_eq!(shop.fresh(), [false, false, true, true, true]);
    shop.warm().await;
    shop.profiles.remove_tag("price-list:7").await.expect("removed");
    shop.profiles.remove(&17).await.expect("removed");
    assert_eq!(shop.fresh(), [true, true, true, false, true]);
}

/// Answers with what it was derived from.
struct Report;

impl Origin<u64, u64> for Report {
    async fn load(&self, id: &u64, _: &LoadContext) -> Result<Loaded<u64>> {
        let sources: Vec<String> = match id {
            1 => vec!["customer:17".into(), "customer:18".into()],
            2 => vec!["customer:18".into()],
            3 => (100..200).map(|customer| format!("customer:{customer}")).collect(),
            4 => vec!["nobody:17".into()],
            _ => Vec::new(),
        };
        Ok(Loaded::value(*id).derived_from(sources))
    }
}

#[tokio::test]
async fn what_a_loader_used_invalidates_what_it_made() {
    let graph = DependencyGraph::builder()
        .cache("customer", "{id}")
        .cache("report", "{id}")
        .derives("report", "customer");
    let dependencies = group(graph);
    let customers = configured::<String>("customer", &dependencies).build().expect("a cache");
    let reports = configured("report", &dependencies).origin(Report).build().expect("a cache");
    let warm = async || {
        for id in 1..=5 {
            reports.get_or_load(&id).await.expect("it loads");
        }
    };
    let held = || [1, 2, 3, 4, 5].map(|id| reports.get_memory(&id).is_some());
    warm().await;
    // What names a source that nobody declared is given and not kept.
    assert_eq!(held(), [true, true, true, false, true]);
    customers.remove(&17).await.expect("removed");
    // The third was derived from too many to name them.
    assert_eq!(held(), [false, true, false, false, true]);
    warm().await;
    customers.clear().await.expect("cleared");
    assert_eq!(held(), [false, false, false, false, true]);
    reports.put(&6, 6).derived_from(["customer:5"]).await.expect("put");
    customers.expire(&5).await.expect("expired");
    assert!(reports.get_memory(&6).is_none());
    let refused = reports.put(&6, 6).derived_from(["nobody:5"]).await;
    assert_eq!(refused.expect_err("nothing would invalidate it").kind(), ErrorKind::Config);
}

#[tokio::test]
async fn what_lies_beyond_a_bound_is_touched_as_a_whole() {
    let bounds = CascadeBounds::default().depth(1);
    let graph = DependencyGraph::builder()
        .cache("a", "{id}")
        .cache("b", "{id}")
        .cache("c", "{id}")
        .depends("b", "a:{id}")
        .depends("c", "b:{id}");
    let dependencies = group(graph.bounds(bounds));
    let open = |name| configured::<u64>(name, &dependencies).origin(OrderTable).build();
    let [a, b, c] = ["a", "b", "c"].map(|name| open(name).expect("a cache"));
    for id in [1, 2] {
        b.get_or_load(&id).await.expect("it loads");
        c.get_or_load(&id).await.expect("it loads");
    }
    a.remove(&1).await.expect("removed");
    let held = |cache: &Orders| [1, 2].map(|id| cache.get_memory(&id).is_some());
    assert_eq!((held(&b), held(&c)), ([false, true], [false, false]));
    assert_eq!(dependencies.statistics().bounds_hit, 1);
}

#[tokio::test]
async fn whoever_leaves_a_call_leaves_nothing_stale_behind() {
    let store = FaultyStore::new(larder::Clock::monotonic()).local();
    let dependencies = group(shop());
    let customers = configured::<String>("customer", &dependencies)
        .stores(Stores::new(JsonCodec).store("slow", store.clone()))
        .build()
        .expect("a cache");
    let orders = configured("order", &dependencies).origin(OrderTable).fields(order_field);
    let orders = orders.build().expect("a cache");
    orders.get_or_load(&170).await.expect("it loads");
    let gate = larder_testkit::faulty::Gate::new();
    store.script([larder_testkit::faulty::StoreFault::Held(gate.clone())]);
    {
        let removal = std::pin::pin!(customers.remove(&17));
        let arrival = std::pin::pin!(gate.wait_for_arrivals(1));
        let first = futures_util::future::select(removal, arrival).await;
        assert!(matches!(first, futures_util::future::Either::Right(_)), "the store holds it");
    }
    assert!(orders.inspect(&170).is_none());
    gate.open();
}

async fn join(bus: &FaultyBus) -> Fleet {
    let options = FleetOptions::default().staleness_bound(Duration::from_secs(5));
    Fleet::join(Arc::new(bus.join()), options).await.expect("it joins")
}

async fn until(what: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !what() {
        assert!(tokio::time::Instant::now() < deadline, "it does not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn each_node_follows_what_it_hears_by_its_own_graph() {
    let bus = FaultyBus::new();
    let (one, two) = (join(&bus).await, join(&bus).await);
    let here = open(group(shop()), Some(&one), None);
    // There only orders are kept, and nobody has customers.
    let there = group(shop());
    let orders = configured("order", &there).origin(OrderTable).fields(order_field);
    let orders = orders.fleet(&two).build().expect("a cache");
    for order in [170, 180] {
        orders.get_or_load(&order).await.expect("it loads");
    }
    here.warm().await;
    here.customers.expire(&17).await.expect("expired");
    assert_eq!(here.fresh(), OTHERS_ONLY);
    until(|| orders.get_memory(&170).is_none()).await;
    assert!(orders.get_memory(&180).is_some());
    assert_eq!(bus.announced(), 1, "one message, whatever depends on it");
    until(|| one.statistics().heard == 1).await;
    assert_eq!(here.dependencies.statistics().cascades, 1, "not once more when it is heard");
    assert_eq!(there.statistics().tags, 1);
}

#[tokio::test]
async fn what_a_service_announces_is_followed_by_its_name() {
    let bus = FaultyBus::new();
    let fleet = join(&bus).await;
    let shop = open(group(shop()), Some(&fleet), None);
    shop.warm().await;
    let announce = async |change| {
        let announcement = Announcement { cache: "billing".into(), change, verb: Verb::Remove };
        Bus::publish(&bus, &announcement, Version::ZERO).await.expect("announced");
    };
    announce(Change::Keys(vec![Key::new("receipt:17")])).await;
    announce(Change::Keys(vec![Key::new("invoice:17")])).await;
    until(|| shop.fresh() == [false, false, true, true, true]).await;
    shop.warm().await;
    announce(Change::All).await;
    until(|| shop.fresh() == [false, false, false, true, true]).await;
    assert_eq!(shop.dependencies.statistics().cascades, 2);
}

#[tokio::test]
async fn a_store_that_nodes_share_gives_up_what_depends_on_a_change() {
    let bus = FaultyBus::new();
    let store = FaultyStore::new(larder::Clock::monotonic());
    let (one, two) = (join(&bus).await, join(&bus).await);
    let here = open(group(shop()), Some(&one), Some(&store));
    here.warm().await;
    here.customers.remove(&17).await.expect("removed");
    // Another process, which began after that and heard nothing.
    let there = open(group(shop()), Some(&two), Some(&store));
    let gone = there.orders.get(&170).await.expect("it is asked");
    assert!(gone.is_none(), "the store has given it up");
    assert!(there.orders.get(&180).await.expect("it is asked").is_some());
}

#[tokio::test]
async fn after_a_gap_a_store_is_not_trusted_to_know_what_its_sources_did() {
    let bus = FaultyBus::new();
    let store = FaultyStore::new(larder::Clock::monotonic()).following();
    bus.attach("order", &store);
    let mine = bus.join();
    let options = FleetOptions::default().staleness_bound(Duration::from_secs(5));
    let fleet = Fleet::join(Arc::new(mine.clone()), options).await.expect("it joins");
    let shop = open(group(shop()), Some(&fleet), Some(&store));
    shop.orders.get_or_load(&170).await.expect("it loads");
    assert_eq!(store.entries_count(), 1);
    // Nobody else follows what somebody announces there.
    mine.lose(1);
    let change = Change::Keys(vec![Key::new("17")]);
    let announcement = Announcement { cache: "customer".into(), change, verb: Verb::Remove };
    Bus::publish(&bus, &announcement, Version::ZERO).await.expect("announced");
    until(|| fleet.statistics().gaps == 1).await;
    let hit = shop.orders.get_or_load(&170).await.expect("it loads");
    assert_eq!(hit.tier(), Tier::Origin, "the store may have what was computed before");
}

/// Says what its customer is, as another cache has it.
struct Derived(Cache<u64, i64>);

impl Origin<u64, i64> for Derived {
    async fn load(&self, id: &u64, _: &LoadContext) -> Result<Loaded<i64>> {
        let customer = self.0.get_or_load(id).await?;
        let value = customer.value().copied().unwrap_or_default();
        Ok(Loaded::value(value).derived_from([format!("customer:{id}")]))
    }
}

/// Says what it was told.
#[derive(Clone)]
struct Told(Arc<std::sync::atomic::AtomicI64>);

impl Origin<u64, i64> for Told {
    async fn load(&self, _: &u64, _: &LoadContext) -> Result<Loaded<i64>> {
        Ok(Loaded::value(self.0.load(std::sync::atomic::Ordering::SeqCst)))
    }
}

#[tokio::test]
async fn what_a_node_announces_itself_does_not_hide_what_it_has_not_heard() {
    let bus = FaultyBus::new();
    let mine = bus.join();
    let options = FleetOptions::default().staleness_bound(Duration::from_secs(60));
    let fleet = Fleet::join(Arc::new(mine.clone()), options).await.expect("it joins");
    let graph = DependencyGraph::builder()
        .cache("customer", "{id}")
        .cache("report", "{id}")
        .derives("report", "customer");
    let dependencies = group(graph);
    let truth = Told(Arc::new(1.into()));
    let customers = configured::<i64>("customer", &dependencies).origin(truth.clone());
    let customers = customers.fleet(&fleet).build().expect("a cache");
    let reports = configured("report", &dependencies).origin(Derived(customers.clone()));
    let reports = reports.fleet(&fleet).build().expect("a cache");
    until(|| fleet.statistics().lag.is_some()).await;
    customers.get_or_load(&17).await.expect("it loads");
    // What is said reaches this node late, and it says something itself meanwhile.
    mine.stall();
    truth.0.store(2, std::sync::atomic::Ordering::SeqCst);
    let change = Change::Keys(vec![Key::new("17")]);
    let announcement = Announcement { cache: "customer".into(), change, verb: Verb::Remove };
    Bus::publish(&bus, &announcement, Version::ZERO).await.expect("announced");
    customers.remove(&99).await.expect("announced");
    let hit = reports.get_or_load(&17).await.expect("it loads");
    assert_eq!(hit.value(), Some(&1), "nobody here has heard");
    mine.resume();
    until(|| customers.get_memory(&17).is_none()).await;
    until(|| fleet.statistics().heard == 2).await;
    let hit = reports.get_or_load(&17).await.expect("it loads");
    assert_eq!(hit.value(), Some(&2));
}

#[tokio::test]
async fn a_prefix_of_a_cache_whose_tags_are_known_is_followed() {
    let graph = DependencyGraph::builder()
        .cache("line", "line:{order}:{number}")
        .cache("total", "total:{order}")
        .tags("line", ["product:{product}"])
        .depends("total", "line:{order}:{number}");
    let dependencies = group(graph);
    let open = |name| {
        let builder = Cache::<String, i64>::builder(name).policy(plain());
        builder.dependencies(&dependencies)
    };
    let pattern = "line:{order}:{number}".parse().expect("a pattern");
    let lines = open("line").prefixes(pattern).build().expect("a cache");
    let totals = open("total").build().expect("a cache");
    totals.put(&"total:7".to_owned(), 100).await.expect("put");
    lines.remove_prefix("line:7:").await.expect("removed");
    assert!(totals.get_memory("total:7").is_none());
}

#[tokio::test]
async fn a_key_that_is_spelled_otherwise_is_touched_as_well() {
    let graph = DependencyGraph::builder()
        .cache("discount", "{name}")
        .cache("poster", "{name}")
        .cache("wall", "{name}")
        .depends("poster", "discount:{name}")
        .depends("wall", "poster:{name}");
    let dependencies = group(graph);
    let open = |name| {
        let builder = Cache::<String, i64>::builder(name).policy(plain());
        builder.dependencies(&dependencies).build().expect("a cache")
    };
    let [discounts, posters, walls] = ["discount", "poster", "wall"].map(open);
    for name in ["50%", "v2", "a:b", "50%25", "%762", "a%3Ab"] {
        let name = name.to_owned();
        posters.put(&name, 1).await.expect("put");
        walls.put(&name, 1).await.expect("put");
        discounts.remove(&name).await.expect("removed");
        assert!(posters.get_memory(&name).is_none(), "{name}");
        assert!(walls.get_memory(&name).is_none(), "{name}");
    }
}

#[tokio::test]
async fn a_write_whose_end_nobody_tells_is_followed_when_its_time_is_up() {
    let bus = FaultyBus::new();
    let fleet = join(&bus).await;
    let shop = open(group(shop()), Some(&fleet), None);
    shop.warm().await;
    let within = Duration::from_millis(200);
    let announce = async |change| {
        let announcement = Announcement { cache: "customer".into(), change, verb: Verb::Remove };
        Bus::publish(&bus, &announcement, Version::ZERO).await.expect("announced");
    };
    let keys = || vec![Key::new("17")];
    announce(Change::Writing { keys: keys(), write: 1, within }).await;
    until(|| shop.fresh() == OTHERS_ONLY).await;
    shop.warm().await;
    // One whose end is told is followed once.
    let before = shop.dependencies.statistics().cascades;
    announce(Change::Writing { keys: keys(), write: 2, within }).await;
    announce(Change::Written { keys: keys(), write: 2 }).await;
    until(|| shop.fresh() == OTHERS_ONLY).await;
    tokio::time::sleep(within * 2).await;
    assert_eq!(shop.dependencies.statistics().cascades, before + 1);
}

#[tokio::test]
async fn caches_of_one_group_are_in_one_fleet() {
    let fleet = join(&FaultyBus::new()).await;
    let dependencies = group(shop());
    configured::<String>("customer", &dependencies).fleet(&fleet).build().expect("a cache");
    let alone = configured::<String>("profile", &dependencies).build();
    assert_eq!(alone.expect_err("it is in no fleet").kind(), ErrorKind::Config);
    let unknown = configured::<String>("nobody", &dependencies).fleet(&fleet).build();
    assert_eq!(unknown.expect_err("no node").kind(), ErrorKind::Config);
    let untold = configured::<u64>("order", &dependencies).fleet(&fleet).build();
    let untold = untold.expect_err("nobody tells customer_id");
    assert!(untold.remedy_text().is_some_and(|remedy| remedy.contains("fields")));
}

#[test]
fn mistakes_of_a_graph_are_named() {
    for (dependent, on, part) in [
        ("order", "customr:{customer_id}", "no cache with such keys"),
        ("order", "customer:{customer_id", "no pattern"),
        ("order", "tag:{list}", "no pattern"),
        ("order", "tag:", "nothing stands behind"),
        ("orders", "customer:{id}", "is no cache"),
        ("order", "service:tag:{id}", "cannot tell this name"),
    ] {
        let error = shop().depends(dependent, on).build().expect_err(on);
        assert!(error.to_string().contains(part), "{on}: {error}");
        assert_eq!(error.kind(), ErrorKind::Config);
    }
    assert!(shop().cache("order", "{id}").build().is_err(), "twice");
    assert!(shop().bounds(CascadeBounds::default().keys(0)).build().is_err());
}

#[test]
fn a_tag_whose_values_cannot_be_told_apart_touches_more() {
    let graph = DependencyGraph::builder()
        .cache("order", "{id}")
        .cache("basket", "{customer}")
        .depends("order", "tag:of:{city}:{street}")
        .depends("basket", "order:{id}")
        .depends("basket", "tag:for:{customer}")
        .tags("order", ["of:{city}:{street}", "all"])
        .build()
        .expect("a graph");
    let touched = |tag: &str| -> Vec<String> {
        let cascade = graph.cascade_of_tag(tag);
        cascade.steps().iter().map(|step| graph.describe(step)).collect()
    };
    let basket = "basket: the whole cache";
    assert_eq!(touched("of:Ulm:Weg"), ["order: tag @tag:of:Ulm:Weg", basket]);
    assert_eq!(touched("of:Ulm:Weg:7"), ["order: the whole cache", basket]);
    assert_eq!(touched("all"), [basket]);
    // Nothing is escaped in a tag; in the tag of a dependency it is.
    assert_eq!(touched("for:50%3A"), ["basket: key 50%253A, key 50%3A"]);
    assert!(touched("offer").is_empty());
}

#[test]
fn fewer_entries_are_touched_where_a_tag_tells_of_the_key() {
    let graph = DependencyGraph::builder()
        .cache("album", "album:{artist}:{title}")
        .cache("artist", "artist:{name}")
        .depends("artist", "album:{name}:{title}")
        .tags("album", ["of:{artist}"])
        .build()
        .expect("a graph");
    let cascade = graph.cascade("album", &[Touch::Tag("of:miles")]);
    assert_eq!(graph.describe(&cascade.steps()[0]), "artist: key artist:miles");
    let cascade = graph.cascade("album", &[Touch::Key("album:miles:So What")]);
    assert_eq!(graph.describe(&cascade.steps()[0]), "artist: key artist:miles");
}

#[tokio::test]
async fn a_change_that_could_not_be_announced_hides_no_other() {
    let bus = FaultyBus::new();
    let mine = bus.join();
    let options = FleetOptions::default().staleness_bound(Duration::from_secs(5));
    let fleet = Fleet::join(Arc::new(mine.clone()), options).await.expect("it joins");
    let shop = open(group(shop()), Some(&fleet), None);
    mine.script([PublishFault::Refused; 200]);
    let refused = shop.customers.remove(&18).await;
    assert!(refused.is_err(), "the bus refuses it");
    assert_eq!(shop.dependencies.statistics().cascades, 1, "it is followed here");
    shop.orders.get_or_load(&170).await.expect("it loads");
    // The next number on the bus is that of another change.
    let change = Change::Keys(vec![Key::new("17")]);
    let announcement = Announcement { cache: "customer".into(), change, verb: Verb::Remove };
    Bus::publish(&bus, &announcement, Version::ZERO).await.expect("announced");
    until(|| shop.orders.get_memory(&170).is_none()).await;
    until(|| shop.dependencies.statistics().cascades == 2).await;
}
