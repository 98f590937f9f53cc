//! One node: a process' worth of a cache, which ends and starts again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder::{
    Cache, Fleet, FleetOptions, JsonCodec, LoadContext, Loaded, Memory, Origin, Policy, Result,
    Stores,
};
use larder_disk::{DiskOptions, DiskTier};
use larder_redis::{RedisOptions, RedisTier};
use larder_testkit::proxy::FaultProxy;
use tempfile::TempDir;

/// With a disk below, memory asks again soon: the disk is what is to be judged.
const MEMORY_TTL_ABOVE_DISK: Duration = Duration::from_millis(100);

/// The database.
#[derive(Clone, Default)]
pub(super) struct Truth(Arc<Mutex<HashMap<u64, u64>>>);

impl Truth {
    pub(super) fn get(&self, key: u64) -> u64 {
        self.0.lock().expect("nobody panicked").get(&key).copied().unwrap_or_default()
    }

    pub(super) fn set(&self, key: u64, value: u64) {
        self.0.lock().expect("nobody panicked").insert(key, value);
    }
}

impl Origin<u64, u64> for Truth {
    async fn load(&self, key: &u64, _: &LoadContext) -> Result<Loaded<u64>> {
        // A read sees what was committed when it arrives.
        let value = self.get(*key);
        tokio::time::sleep(Duration::from_millis(2)).await;
        Ok(Loaded::value(value))
    }
}

/// A place in the fleet, and who lives there at present.
pub(super) struct Node {
    /// What is between it and a Redis that stands alone.
    pub(super) proxy: Option<FaultProxy>,
    options: RedisOptions,
    truth: Truth,
    bound: Duration,
    directory: Option<TempDir>,
    live: Mutex<Arc<Live>>,
    /// What was to be announced by who lives there, perhaps in vain.
    unsure: Mutex<Vec<(Arc<Live>, u64)>>,
}

/// A process' worth of a cache.
pub(super) struct Live {
    pub(super) fleet: Fleet,
    pub(super) cache: Cache<u64, u64>,
    disk: Option<DiskTier>,
    has_ended: AtomicBool,
}

impl Live {
    /// Whether it is as good as killed: what it answers reaches nobody.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::SeqCst)
    }
}

impl Node {
    pub(super) async fn start(
        proxy: Option<FaultProxy>,
        mut options: RedisOptions,
        truth: &Truth,
        bound: Duration,
        has_disk: bool,
    ) -> Self {
        options.response_timeout = Duration::from_millis(500);
        options.heartbeat = Duration::from_millis(250);
        let directory = has_disk.then(|| TempDir::new().expect("a temporary directory"));
        // What a user may not do shows here.
        RedisTier::connect(options.clone()).await.expect("Redis is there");
        let live = live(&options, truth, bound, directory.as_ref()).await;
        let (truth, live) = (truth.clone(), Mutex::new(Arc::new(live)));
        let unsure = Mutex::default();
        Self { proxy, options, truth, bound, directory, live, unsure }
    }

    pub(super) fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.lock().expect("nobody panicked"))
    }

    /// Ends who lives there without a word, and starts another on the same disk.
    pub(super) async fn restart(&self) {
        let old = self.live();
        old.has_ended.store(true, Ordering::SeqCst);
        if let Some(disk) = &old.disk {
            // Nothing is noted any more: the rest of the old one cannot write.
            disk.close().await;
        }
        drop(old);
        let new = live(&self.options, &self.truth, self.bound, self.directory.as_ref()).await;
        *self.live.lock().expect("nobody panicked") = Arc::new(new);
    }

    /// What could not be announced will be by who lives there, or is to be said again.
    pub(super) fn say_again(&self, live: &Arc<Live>, key: u64, unsaid: &mut Vec<u64>) {
        if live.has_ended() {
            unsaid.push(key);
        } else {
            self.unsure.lock().expect("nobody panicked").push((Arc::clone(live), key));
        }
    }

    /// What is to be said again because who was to announce it has ended.
    pub(super) fn take_unsaid(&self) -> Vec<u64> {
        let mut unsure = self.unsure.lock().expect("nobody panicked");
        unsure.extract_if(.., |(live, _)| live.has_ended()).map(|(_, key)| key).collect()
    }
}

async fn live(
    options: &RedisOptions,
    truth: &Truth,
    bound: Duration,
    directory: Option<&TempDir>,
) -> Live {
    let tier = RedisTier::connect_lazily(options.clone()).expect("the options are right");
    let fleet = FleetOptions::default().staleness_bound(bound);
    let fleet = Fleet::join(Arc::new(tier.bus()), fleet).await.expect("it joins");
    let mut stores = Stores::new(JsonCodec);
    let disk = match directory {
        Some(directory) => {
            let disk = DiskTier::open(DiskOptions::new(directory.path())).await;
            let disk = disk.expect("the directory is its own");
            let store = disk.store("row").expect("a name");
            stores = stores.store("disk", store).memory_ttl(MEMORY_TTL_ABOVE_DISK);
            Some(disk)
        }
        None => None,
    };
    let stores = stores.store("redis", tier.store("row")).lease(tier.lease("row"));
    let cache = Cache::builder("row")
        .memory(Memory::entries(1000))
        .origin(truth.clone())
        .policy(Policy::ttl(Duration::from_secs(600)).early_refresh_beta(None))
        .fleet(&fleet)
        .stores(stores)
        .build()
        .expect("a coherent cache");
    Live { fleet, cache, disk, has_ended: AtomicBool::new(false) }
}
