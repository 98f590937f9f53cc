//! A cascade over a hundred services of ten caches each, with cycles, and what a
//! change costs that touches nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use larder::{
    Cache, CascadeBound, CascadeBounds, Dependencies, DependencyGraph, Fleet, FleetOptions,
    GraphBuilder, LoadContext, Loaded, Origin, Policy, Result, Touch, Touched,
};
use larder_testkit::faulty::FaultyBus;

use crate::support::*;

const SERVICES: usize = 100;
const CACHES: usize = 10;
/// Entry N belongs to the owner N / 10.
const ENTRIES: [u64; 3] = [70, 71, 80];

struct Owned;

impl Origin<u64, u64> for Owned {
    async fn load(&self, id: &u64, _: &LoadContext) -> Result<Loaded<u64>> {
        Ok(Loaded::value(id / 10))
    }
}

fn name(service: usize, cache: usize) -> String {
    format!("s{service}c{cache}")
}

/// In each service a tree of caches under the first, one of them by tag; the services
/// a tree as well; and every tenth service depends on one that depends on it.
fn services() -> GraphBuilder {
    let mut graph = DependencyGraph::builder();
    for service in 0..SERVICES {
        for cache in 0..CACHES {
            graph = graph.cache(&name(service, cache), "{id}");
        }
    }
    for service in 0..SERVICES {
        for cache in 1..CACHES {
            let field = if cache == CACHES - 2 { "owner" } else { "id" };
            let on = format!("{}:{{{field}}}", name(service, (cache - 1) / 2));
            graph = graph.depends(&name(service, cache), &on);
        }
        if service > 0 {
            let on = format!("{}:{{id}}", name((service - 1) / 2, 7));
            graph = graph.depends(&name(service, 0), &on);
        }
        if service % 10 == 0 && 2 * service + 1 < SERVICES {
            let on = format!("{}:{{id}}", name(2 * service + 1, 9));
            graph = graph.depends(&name(service, 1), &on);
        }
    }
    graph
}

struct Service {
    caches: Vec<Cache<u64, u64>>,
    dependencies: Dependencies,
}

async fn start(bus: &FaultyBus, graph: &DependencyGraph, number: usize) -> Service {
    let options = FleetOptions::default().staleness_bound(Duration::from_secs(120));
    let fleet = Fleet::join(Arc::new(bus.join()), options).await.expect("it joins");
    let dependencies = Dependencies::new(graph.clone());
    let open = |cache| {
        Cache::builder(&name(number, cache))
            .policy(Policy::ttl(Duration::from_secs(3600)).jitter(0.0).early_refresh_beta(None))
            .origin(Owned)
            .fleet(&fleet)
            .dependencies(&dependencies)
            .fields(|_, owner: Option<&u64>, _| owner.map(u64::to_string))
            .build()
            .expect("a cache")
    };
    let caches: Vec<_> = (0..CACHES).map(open).collect();
    for cache in &caches {
        for id in &ENTRIES {
            cache.get_or_load(id).await.expect("it loads");
        }
    }
    Service { caches, dependencies }
}

#[tokio::test]
async fn a_hundred_services_of_ten_caches_follow_one_message() {
    let bus = FaultyBus::new();
    // Each waits for a sign of life of the bus.
    let graph = services().build().expect("a graph");
    let starts = (0..SERVICES).map(|number| start(&bus, &graph, number));
    let services = futures_util::future::join_all(starts).await;
    let began = Instant::now();
    services[0].caches[0].remove(&70).await.expect("it is announced");
    let here = began.elapsed();
    let follow = async {
        while services.iter().any(|service| service.dependencies.statistics().cascades == 0) {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), follow).await.expect("all hear of it");
    let everywhere = began.elapsed();
    for service in &services {
        for (number, cache) in service.caches.iter().enumerate() {
            let held = ENTRIES.map(|id| cache.get_memory(&id).is_some());
            // By tag those of the owner 70 are touched, who has none.
            let expected = [number == CACHES - 2, true, true];
            assert_eq!(held, expected, "{}", cache.name());
        }
        let statistics = service.dependencies.statistics();
        assert_eq!((statistics.cascades, statistics.bounds_hit, statistics.caches), (1, 0, 0));
        let touched = statistics.keys + statistics.tags;
        assert_eq!(touched as usize, SERVICES * CACHES - 1, "each once");
    }
    assert_eq!(bus.announced(), 1);
    println!(
        "{} caches, {} dependencies, {} in circles: {here:?} for whoever removed, {everywhere:?} \
         until all of {SERVICES} services had followed, 1 message",
        graph.nodes().len(),
        graph.edges().len(),
        graph.cycles().iter().map(Vec::len).sum::<usize>(),
    );
}

#[test]
fn a_cascade_over_a_thousand_caches_is_in_order_and_bounded() {
    let graph = services().build().expect("a graph");
    let began = Instant::now();
    let cascade = graph.cascade("s0c0", &[Touch::Key("70")]);
    let took = began.elapsed();
    assert_eq!(cascade.steps().len(), SERVICES * CACHES - 1);
    assert!(graph.cycles().len() >= 4, "{:?}", graph.cycles());
    let mut place = vec![usize::MAX; graph.nodes().len()];
    cascade.steps().iter().enumerate().for_each(|(at, step)| place[step.node()] = at);
    let circle = |node: usize| graph.cycles().iter().position(|group| group.contains(&node));
    for edge in graph.edges() {
        let (from, to) = (edge.source().expect("no tags"), edge.dependent());
        let is_one = circle(from).is_some() && circle(from) == circle(to);
        let is_first = graph.nodes()[from].name() == "s0c0";
        assert!(is_one || is_first || place[from] < place[to], "{}", edge.text());
    }
    let bounded = services().bounds(CascadeBounds::default().depth(8)).build().expect("a graph");
    let began = Instant::now();
    let cascade = bounded.cascade("s0c0", &[Touch::Key("70")]);
    let took_bounded = began.elapsed();
    let is_whole = |step: &&larder::Step| *step.touched() == Touched::All;
    let whole = cascade.steps().iter().filter(is_whole).count();
    assert!(cascade.bounds_hit().iter().all(|(_, bound)| *bound == CascadeBound::Depth));
    assert!(whole > SERVICES && whole < SERVICES * CACHES);
    println!(
        "followed in {took:?}; with a depth of 8 in {took_bounded:?}, {whole} caches as a whole"
    );
}

/// Bytes that this thread has ever allocated.
fn allocated() -> u64 {
    tikv_jemalloc_ctl::thread::allocatedp::read().expect("jemalloc counts").get()
}

#[tokio::test]
async fn a_change_that_touches_nothing_costs_nothing() {
    let graph = services()
        .cache("alone", "{id}")
        .cache("item", "item:{id}")
        .cache("order", "order:{id}")
        .depends("order", "item:of:{id}")
        .depends("order", "tag:price-list:{list}")
        .build()
        .expect("a graph");
    let item = graph.find("item").expect("it is there");
    let alone = graph.find("alone").expect("it is there");
    let before = allocated();
    let began = Instant::now();
    const TIMES: u32 = 10_000;
    for _ in 0..TIMES {
        assert!(graph.cascade("item", &[Touch::Key("item:7")]).is_empty());
        assert!(graph.cascade("alone", &[Touch::Key("7")]).is_empty());
        assert!(graph.cascade("alone", &[Touch::Tag("artist:7")]).is_empty());
        assert!(!graph.touches(item, Touch::Key("item:7")));
        assert!(!graph.touches(alone, Touch::All));
    }
    let took = began.elapsed() / (5 * TIMES);
    assert_eq!(allocated() - before, 0);
    println!("a change that touches nothing is recognised in {took:?}, 0 bytes allocated");

    // The same through a cache: what depends on nothing and has nothing that depends
    // on it costs what it costs without dependencies.
    let dependencies = Dependencies::new(graph);
    let open = |name: &str| Cache::<u64, u64>::builder(name).policy(plain());
    let without = open("alone").build().expect("a cache");
    let with = open("alone").dependencies(&dependencies).build().expect("a cache");
    let mut bytes = [0; 2];
    for (cache, bytes) in [&without, &with].into_iter().zip(&mut bytes) {
        cache.remove(&7).await.expect("removed");
        let before = allocated();
        for _ in 0..100 {
            cache.remove(&7).await.expect("removed");
        }
        *bytes = allocated() - before;
    }
    assert_eq!(bytes[0], bytes[1]);
}
