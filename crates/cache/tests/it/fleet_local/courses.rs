//! Any course of events: changes, ends and starts, and what goes wrong meanwhile.

use proptest::prelude::*;

use super::*;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Event {
    Read {
        by_other: bool,
        user: u8,
    },
    RemoveKey {
        by_other: bool,
        user: u8,
    },
    RemoveTag {
        by_other: bool,
        user: u8,
    },
    Clear {
        by_other: bool,
    },
    /// The process with the store ends, kill -9 or not.
    End {
        is_killed: bool,
    },
    Start,
    Lose(u64),
    Stall,
    Resume,
    Trim,
    ChangeEpoch,
    /// A replica has what there is now, and takes over later without the rest.
    HoldReplica,
    FailOver,
    /// The store fails so often.
    Refuse(usize),
    LoseReply,
    Pass(u64),
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (any::<bool>(), 0..8_u8).prop_map(|(by_other, user)| Event::Read { by_other, user }),
        4 => (any::<bool>(), 0..8_u8)
            .prop_map(|(by_other, user)| Event::RemoveKey { by_other, user }),
        2 => (any::<bool>(), 0..8_u8)
            .prop_map(|(by_other, user)| Event::RemoveTag { by_other, user }),
        1 => any::<bool>().prop_map(|by_other| Event::Clear { by_other }),
        3 => any::<bool>().prop_map(|is_killed| Event::End { is_killed }),
        4 => Just(Event::Start),
        1 => (1..3_u64).prop_map(Event::Lose),
        1 => Just(Event::Stall),
        2 => Just(Event::Resume),
        1 => Just(Event::Trim),
        1 => Just(Event::ChangeEpoch),
        1 => Just(Event::HoldReplica),
        1 => Just(Event::FailOver),
        1 => (1..4_usize).prop_map(Event::Refuse),
        1 => Just(Event::LoseReply),
        4 => (1..1500_u64).prop_map(Event::Pass),
    ]
}

/// What happens, and what every read is judged by.
struct Course {
    world: World,
    other: Process,
    process: Option<Process>,
    is_stalled: bool,
    /// What was acknowledged of each user, and when: no read may be below.
    acknowledged: Vec<(u8, i64, tokio::time::Instant)>,
    value: i64,
    answers_from_disk: u64,
}

impl Course {
    async fn new(is_sharing: bool) -> Self {
        let world = if is_sharing { World::sharing(plain()) } else { World::new(plain()) };
        let other = world.other().await;
        let process = Some(world.start().await);
        let acknowledged = Vec::new();
        Self {
            world,
            other,
            process,
            is_stalled: false,
            acknowledged,
            value: 1,
            answers_from_disk: 0,
        }
    }

    async fn happen(&mut self, event: &Event) {
        match event {
            Event::Read { by_other, user: number } => self.read(*by_other, *number).await,
            Event::RemoveKey { by_other, user: number } => {
                self.change([*number]);
                let removed = self.at(*by_other).users.remove(&user(*number)).await.is_ok();
                self.settle(removed, [*number]).await;
            }
            Event::RemoveTag { by_other, user: number } => {
                let members = [number & !1, number | 1];
                self.change(members);
                let tag = team(&user(*number));
                let removed = self.at(*by_other).users.remove_tag(tag).await.is_ok();
                self.settle(removed, members).await;
            }
            Event::Clear { by_other } => {
                let all = [0, 1, 2, 3, 4, 5, 6, 7];
                self.change(all);
                let cleared = self.at(*by_other).users.clear().await.is_ok();
                self.settle(cleared, all).await;
            }
            Event::End { is_killed } => {
                match self.process.take() {
                    Some(process) if *is_killed => process.kill(),
                    Some(process) => process.stop().await,
                    None => {}
                }
                // What it has announced it will not announce again.
                self.world.bus.hold_replica();
            }
            Event::Start if self.process.is_none() => {
                self.is_stalled = false;
                self.process = Some(self.world.start().await);
            }
            Event::Start => {}
            Event::Lose(count) => self.with_process(|process| process.bus.lose(*count)),
            Event::Stall => {
                self.is_stalled = self.process.is_some();
                self.with_process(|process| process.bus.stall());
            }
            Event::Resume => {
                self.is_stalled = false;
                self.with_process(|process| process.bus.resume());
                self.pass(Duration::from_millis(150)).await;
            }
            Event::Trim => self.world.bus.trim(),
            Event::ChangeEpoch => {
                self.world.bus.change_epoch();
                self.pass(Duration::from_millis(150)).await;
            }
            Event::HoldReplica => self.world.bus.hold_replica(),
            Event::FailOver if !self.is_stalled => {
                self.world.bus.fail_over();
                self.pass(Duration::from_millis(400)).await;
            }
            Event::FailOver => {}
            Event::Refuse(calls) => self.world.disk.script(vec![StoreFault::Refused; *calls]),
            Event::LoseReply => self.world.disk.script([StoreFault::ReplyLost]),
            Event::Pass(millis) => self.pass(Duration::from_millis(*millis)).await,
        }
    }

    fn at(&self, by_other: bool) -> &Process {
        self.process.as_ref().filter(|_| !by_other).unwrap_or(&self.other)
    }

    fn with_process(&self, act: impl Fn(&Process)) {
        self.process.iter().for_each(act);
    }

    /// The origin has other rows now.
    fn change<const N: usize>(&mut self, users: [u8; N]) {
        self.value += 1;
        users.iter().for_each(|number| self.world.origin.set(user(*number), self.value));
    }

    /// The change was acknowledged, and what is heard at all was heard.
    async fn settle<const N: usize>(&mut self, is_acknowledged: bool, users: [u8; N]) {
        if is_acknowledged {
            let (value, now) = (self.value, tokio::time::Instant::now());
            self.acknowledged.extend(users.map(|number| (number, value, now)));
        }
        self.pass(Duration::from_millis(150)).await;
    }

    async fn read(&mut self, by_other: bool, number: u8) {
        // One that hears nothing may be behind by its bound.
        let is_deaf = self.is_stalled && !by_other;
        let behind = if is_deaf { BOUND + Duration::from_millis(100) } else { Duration::ZERO };
        let least = self.least(number, behind);
        let (value, tier) = self.at(by_other).read(&user(number)).await;
        self.answers_from_disk += u64::from(tier == Tier::Store(0));
        assert!(value >= least, "user {number} is {value} from {tier:?}, {least} is acknowledged");
    }

    /// What was acknowledged of a user so long ago.
    fn least(&self, number: u8, ago: Duration) -> i64 {
        let of_user = |(user, value, at): &(u8, i64, tokio::time::Instant)| {
            (*user == number && at.elapsed() >= ago).then_some(*value)
        };
        self.acknowledged.iter().filter_map(of_user).max().unwrap_or(1)
    }

    async fn pass(&self, time: Duration) {
        self.other.clock.advance(time);
        match &self.process {
            Some(process) => process.pass(time).await,
            None => tokio::time::sleep(time).await,
        }
    }
}

/// Ends well: everybody agrees with the origin.
async fn run(events: Vec<Event>, is_sharing: bool) -> u64 {
    let mut course = Course::new(is_sharing).await;
    for event in &events {
        course.happen(event).await;
    }
    course.happen(&Event::Start).await;
    course.happen(&Event::Resume).await;
    course.pass(A_WHILE).await;
    for number in 0..8 {
        course.read(false, number).await;
        course.read(true, number).await;
    }
    course.answers_from_disk
}

/// `./test --full` asks for the long form.
fn cases() -> u32 {
    if std::env::var_os("LARDER_FULL").is_some() { 5000 } else { 300 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn whatever_happens_nothing_is_read_from_disk_that_was_invalidated(
        events in proptest::collection::vec(events(), 1..60),
        is_sharing: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime starts");
        runtime.block_on(run(events, is_sharing));
    }
}

/// The random courses above are of use only if the disk answers in them.
#[tokio::test(start_paused = true)]
async fn a_course_of_events_without_faults_is_answered_from_disk() {
    let read = |user| Event::Read { by_other: false, user };
    let mut events = vec![Event::Pass(100)];
    events.extend((0..8).map(read));
    events.extend([Event::Pass(1000), Event::End { is_killed: true }, Event::Start]);
    events.extend([Event::Pass(100)]);
    events.extend((0..8).map(read));
    assert_eq!(run(events, false).await, 8);
}

/// What was loaded before anything was announced has the lowest version that there is,
/// and is in doubt like all else.
#[tokio::test(start_paused = true)]
async fn what_is_on_disk_from_before_the_first_change_is_in_doubt_once_history_is_lost() {
    let read = Event::Read { by_other: false, user: 0 };
    let clear = Event::Clear { by_other: true };
    let end = Event::End { is_killed: false };
    let events = vec![Event::Stall, read, Event::Trim, clear, Event::Trim, end];
    run(events, false).await;
}
