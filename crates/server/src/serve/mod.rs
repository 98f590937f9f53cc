//! The server as a whole: put together, running, reloaded, drained.

mod banner;
mod breakers;
mod build;
pub mod connect;
mod dependencies;
mod disk;
mod front;
pub mod journal;
mod made_by;
mod members;
mod memory;
mod plan;
mod reload;
mod rows;
mod ruled;
mod secrets;
pub(crate) mod shared_tiers;
mod signals;
mod surroundings;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use larder::Dependencies;
use larder::event_rules::EventRules;
use larder::schedule::CalendarStatistics;
use larder_disk::DiskTier;

pub use connect::{Connected, OpenOrigin};
pub use dependencies::{PlannedDependencies, cycles};
pub(crate) use front::options as front_options;
pub use memory::Division;
pub use plan::{Found, Plan, PlannedCache, PlannedSource, SkippedTable, plan};
pub use reload::{Reloads, entry_of};
pub use shared_tiers::SharedTiers;
pub use surroundings::check_surroundings;

use crate::admin;
use crate::config::{Config, Diagnostic, Diagnostics, Settings};
use crate::events;
use crate::keyspace::{Keyspace, KeyspaceOptions};
use crate::registry::Registry;
use crate::resp::{Door, DoorOptions, Monitor};
use signals::{Signal, Signals};

/// A running server, as its parts and the administration see it.
pub struct Server {
    /// What the file says at present; of it, the policies hold.
    pub settings: ArcSwap<Settings>,
    /// What held at the start, and holds still of all that is no policy.
    pub started_with: Config,
    /// The caches.
    pub registry: Arc<Registry>,
    /// What the caches depend on, if any do.
    pub dependencies: Option<Dependencies>,
    /// What events invalidate.
    pub events: EventRules,
    /// What the schedules have done, if there are any.
    pub schedules: Option<Box<dyn Fn() -> CalendarStatistics + Send + Sync>>,
    /// The keys of no cache.
    pub keyspace: Arc<Keyspace>,
    /// The databases.
    pub connected: Connected,
    /// The tables that are not served, and why.
    pub skipped: Vec<SkippedTable>,
    /// How the memory is divided.
    pub division: Division,
    /// The tier on this machine's disk, if there is one.
    pub disk: Option<DiskTier>,
    /// Where writes wait for their database, if they do.
    pub journal: Option<journal::Journal>,
    /// The tiers that it shares with other servers, if there are any.
    pub shared_tiers: Option<SharedTiers>,
    /// The Redis that it stands in front of, if there is one; without secrets.
    pub upstream: Option<String>,
    /// The Redis door.
    pub door: Monitor,
    /// Where the Redis door listens.
    pub redis_address: SocketAddr,
    /// Where the administration listens.
    pub admin_address: SocketAddr,
    /// What came of reading the configuration again.
    pub reloads: Reloads,
    /// Whether the databases are there, as last found.
    pub checks: admin::Checks,
    /// When it started.
    pub started_at: Instant,
    draining: AtomicBool,
}

impl Server {
    /// Whether it has been told to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Reads the configuration again and applies its policies.
    pub async fn reload(&self) {
        let old = self.settings.load_full();
        match old.reload() {
            Ok(new) => {
                for warning in &new.warnings {
                    tracing::warn!("{}", warning.one_line());
                }
                reload::apply(&self.started_with, &old, &new, &self.registry).await;
                match events::rules_of(&new) {
                    Ok(rules) => self.events.set_rules(rules),
                    Err(error) => tracing::error!("the rules of [[on]] stay as they were: {error}"),
                }
                self.settings.store(Arc::new(new));
                self.reloads.note_success();
            }
            Err(diagnostics) => self.reloads.note_failure(&diagnostics),
        }
    }
}

/// Serves until a signal says to stop, then drains. Says that it is ready with
/// `announce`.
///
/// # Errors
/// Everything that keeps it from starting.
pub async fn serve(
    settings: Settings,
    is_demo: bool,
    announce: impl FnOnce(String),
) -> Result<(), Diagnostics> {
    let mut signals = Signals::listen().map_err(|error| one(error.to_string(), ""))?;
    let (door, server, admin) = tokio::select! {
        started = start(settings) => started?,
        // Told to stop before it began: there is nothing to drain.
        () = signals.stop() => return Ok(()),
    };
    tracing::info!(
        redis = %server.redis_address,
        admin = %server.admin_address,
        caches = server.registry.served().len(),
        skipped_tables = server.skipped.len(),
        "ready"
    );
    announce(banner::banner(&server, is_demo));
    run(&server, &mut signals).await;
    drain(door, &server, admin, &mut signals).await;
    Ok(())
}

async fn start(settings: Settings) -> Result<(Door, Arc<Server>, admin::Listener), Diagnostics> {
    let missing = check_surroundings(&settings);
    if !missing.is_empty() {
        return Err(Diagnostics(missing));
    }
    let mut door_options = door_options(&settings).map_err(|error| from_error(&error))?;
    let access = admin::Access::new(door_options.password.as_deref(), &door_options.users);
    if let Some(front) = &mut door_options.front {
        *front = front::check(front).await.map_err(|error| front::mistake(&settings, &error))?;
    }
    let connected = connect::connect(&settings).await.map_err(Diagnostics)?;
    let plan = plan(&settings, &connected.found);
    if !plan.mistakes.is_empty() {
        connected.close().await;
        return Err(Diagnostics(plan.mistakes));
    }
    let division = divide(&settings, &plan);
    let disk = disk::open(&settings).await.map_err(|mistake| Diagnostics(vec![*mistake]))?;
    let shared_tiers =
        shared_tiers::open(&settings).await.map_err(|mistake| Diagnostics(vec![*mistake]))?;
    let tiers = build::Tiers { disk: disk.as_ref(), shared: shared_tiers.as_ref() };
    let dependencies = plan.dependencies.graph.clone().map(Dependencies::new);
    let targets = build::targets(&settings, &connected, &plan, dependencies.as_ref());
    let targets = targets.await.map_err(Diagnostics)?;
    let journal = journal::open(&settings, targets).await;
    let journal = journal.map_err(|mistake| Diagnostics(vec![*mistake]))?;
    let surroundings = build::Surroundings {
        tiers,
        dependencies: dependencies.as_ref(),
        journal: journal.as_ref(),
    };
    let registry = build::build(&settings, &connected, &plan, &division, surroundings)
        .await
        .map_err(Diagnostics)?;
    let targets = || events::ServedCaches::new(registry.served());
    let event_rules = events::rules(&settings, targets(), shared_tiers.as_ref())
        .map_err(|error| from_error(&error))?;
    let calendar = events::calendar(&settings, targets(), disk.as_ref(), shared_tiers.as_ref())
        .map_err(|error| from_error(&error))?;
    let registry = Arc::new(registry.with_events(event_rules.clone()));
    // Before clients are answered: until then it would be as if the disk were empty.
    let caught_up = registry.served().iter().map(|cache| cache.cache.until_caught_up(CATCH_UP));
    if !join_all(caught_up).await.iter().all(|caught_up| *caught_up) {
        tracing::warn!(
            "what other servers removed meanwhile is not known yet: the disk is read once it is"
        );
    }
    let keyspace = Arc::new(Keyspace::new(KeyspaceOptions {
        memory_limit: usize::try_from(division.plain_keys).ok(),
        ..KeyspaceOptions::default()
    }));
    let routes = Arc::clone(&registry) as Arc<dyn crate::resp::Routes>;
    // The administration first: once Redis clients are answered, it is ready.
    let admin = admin::Listener::bind(settings.config.server.admin_bind, access)
        .await
        .map_err(|error| from_error(&error))?;
    let door = Door::open(&door_options, Arc::clone(&keyspace), routes)
        .map_err(|error| from_error(&error))?;
    let server = Arc::new(Server {
        started_with: settings.config.clone(),
        settings: ArcSwap::from_pointee(settings),
        registry,
        dependencies,
        schedules: calendar.as_ref().map(|calendar| Box::new(calendar.watch()) as _),
        events: event_rules,
        keyspace,
        connected,
        skipped: plan.skipped,
        division,
        disk,
        journal,
        shared_tiers,
        upstream: door_options.front.as_ref().map(|front| front.label()),
        redis_address: door.address(),
        door: door.monitor(),
        admin_address: admin.address(),
        reloads: Reloads::default(),
        checks: admin::Checks::default(),
        started_at: Instant::now(),
        draining: AtomicBool::new(false),
    });
    admin.serve(Arc::clone(&server));
    if let Some(calendar) = calendar {
        tokio::spawn(calendar.run());
    }
    events::listen(&server);
    Ok((door, server, admin))
}

/// Waits for the signal to stop; reads the configuration again when told to and
/// when the file changes; keeps the plain keys tidy.
async fn run(server: &Arc<Server>, signals: &mut Signals) {
    let settings = server.settings.load_full();
    let mut watch = reload::Watch::new(settings.path.clone(), settings.mark);
    let mut look = tokio::time::interval(reload::LOOK_EVERY);
    let keyspace = Arc::clone(&server.keyspace);
    let upkeep = tokio::spawn(async move { keyspace.maintain_forever().await });
    let breakers = tokio::spawn(breakers::watch(server.connected.origins.clone()));
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Stop => break,
                Signal::Reload => {
                    watch.forget_change().await;
                    server.reload().await;
                }
            },
            _ = look.tick() => {
                if watch.is_changed().await {
                    server.reload().await;
                }
            }
        }
    }
    upkeep.abort();
    breakers.abort();
}

/// Answers what has arrived, lets loads end, applies what waits, closes the databases.
async fn drain(door: Door, server: &Arc<Server>, admin: admin::Listener, signals: &mut Signals) {
    server.draining.store(true, Ordering::Release);
    let patience = server.settings.load().config.server.drain_timeout.0;
    tracing::info!("stopping: what has arrived is answered; a second signal stops at once");
    let began = Instant::now();
    let draining = async {
        let cut_off = door.close(patience).await;
        if cut_off > 0 {
            tracing::warn!("{cut_off} clients were cut off after {patience:?}");
        }
        let left = patience.saturating_sub(began.elapsed());
        join_all(server.registry.served().iter().map(|served| served.cache.shutdown(left))).await;
        // Nobody writes any more; what waits needs the databases.
        if let Some(journal) = &server.journal {
            journal.shut_down(patience.saturating_sub(began.elapsed()).max(CLOSE_LEAST)).await;
        }
        let left = patience.saturating_sub(began.elapsed()).max(CLOSE_LEAST);
        if tokio::time::timeout(left, server.connected.close()).await.is_err() {
            tracing::warn!("a database did not let its connections be closed in time");
        }
        if let Some(shared) = &server.shared_tiers
            && !shared.fleet.flush(left).await
        {
            tracing::warn!("other servers were not told of everything that was removed here");
        }
        if let Some(disk) = &server.disk {
            disk.close().await;
        }
        admin.close().await;
    };
    tokio::select! {
        () = draining => tracing::info!("stopped after {:?}", began.elapsed()),
        () = signals.stop() => {
            tracing::warn!("stopped at once by a second signal");
            std::process::exit(1);
        }
    }
}

/// How long the start waits for what was said while this server was not there.
const CATCH_UP: Duration = Duration::from_secs(5);

/// Closing connections politely gets this long, however late it is.
const CLOSE_LEAST: Duration = Duration::from_millis(500);

fn door_options(settings: &Settings) -> larder_core::Result<DoorOptions> {
    let server = &settings.config.server;
    let dangerous = server.dangerous_commands.iter().map(|command| command.name().to_owned());
    let mut options = DoorOptions {
        listen: server.bind,
        clients_max: server.max_clients,
        idle_timeout: server.idle_timeout.0,
        bulk_bytes_max: usize::try_from(server.value_size_max.0).unwrap_or(usize::MAX),
        password: secrets::password(&settings.config)?,
        users: secrets::users(&settings.config)?,
        dangerous_commands: dangerous.collect(),
        front: front::options(&settings.config)?,
        ..DoorOptions::default()
    };
    if let Some(threads) = server.threads {
        options.threads = threads;
    }
    Ok(options)
}

fn divide(settings: &Settings, plan: &Plan) -> Division {
    let memory = &settings.config.memory;
    let parts: Vec<_> = plan
        .caches
        .iter()
        .map(|cache| {
            let entry =
                cache.config_name.as_ref().and_then(|name| settings.config.caches.get(name));
            entry.and_then(|options| options.memory)
        })
        .collect();
    memory::divide(memory.budget.of(memory::available()), memory.plain_keys, &parts)
}

fn from_error(error: &larder_core::Error) -> Diagnostics {
    one(connect::with_source(error), error.remedy_text().unwrap_or_default())
}

fn one(message: String, remedy: &str) -> Diagnostics {
    let diagnostic = Diagnostic::error(message);
    Diagnostics(vec![if remedy.is_empty() { diagnostic } else { diagnostic.remedy(remedy) }])
}
