use larder_core::{BusEvent, Change, Key, Verb};

use super::*;
use crate::conformance::block_on;
use crate::conformance::bus as cases;

fn nodes() -> (FaultyBus, FaultyBus) {
    let one = FaultyBus::new();
    let two = one.join();
    (one, two)
}

crate::bus_conformance!(conforms, async { nodes() });

async fn publish(bus: &FaultyBus, number: u64) -> Version {
    bus.publish(&cases::removal(number), Version::ZERO).await.expect("it is there").version
}

/// The next event that is no heartbeat.
async fn news(ear: &mut FaultySubscription) -> BusEvent {
    loop {
        match ear.next().await.expect("it is not shut down") {
            BusEvent::Current { .. } => {}
            event => return event,
        }
    }
}

fn key_of(event: &BusEvent) -> &Key {
    match event {
        BusEvent::Message(BusMessage {
            announcement: Announcement { change: Change::Keys(keys), verb: Verb::Remove, .. },
            ..
        }) => &keys[0],
        other => panic!("not a removal of a key: {other:?}"),
    }
}

#[test]
fn a_message_lost_in_the_middle_is_told_before_the_next() {
    block_on(async {
        let (one, two) = nodes();
        let mut of_one = one.subscribe(None, Version::ZERO).await.expect("the bus is there");
        let mut of_two = two.subscribe(None, Version::ZERO).await.expect("the bus is there");
        two.lose(1);
        let first = publish(&one, 1).await;
        let second = publish(&one, 2).await;
        let lost = news(&mut of_two).await;
        let BusEvent::Lost { head, version, .. } = lost else { panic!("{lost:?}") };
        assert!(version >= first && head.sequence == 1);
        let message = news(&mut of_two).await;
        assert!(matches!(message, BusEvent::Message(message) if message.version == second));
        for number in 1..=2 {
            let message = news(&mut of_one).await;
            assert_eq!(*key_of(&message), Key::new(format!("conformance:bus:{number}")));
        }
    });
}

#[test]
fn only_the_heartbeat_tells_that_the_last_message_was_lost() {
    block_on(async {
        let (one, two) = nodes();
        let mut ear = two.subscribe(None, Version::ZERO).await.expect("the bus is there");
        two.lose(1);
        let start = Instant::now();
        let version = publish(&one, 1).await;
        let lost = ear.next().await;
        assert!(start.elapsed() >= HEARTBEAT / 2, "there is nothing else to notice it by");
        let head = BusPosition { epoch: 1, sequence: 1 };
        assert_eq!(lost, Some(BusEvent::Lost { head, version, is_intact: true }));
        assert!(matches!(ear.next().await, Some(BusEvent::Current { .. })), "it goes on");
    });
}

#[test]
fn a_stalled_node_hears_nothing_and_then_everything() {
    block_on(async {
        let (one, two) = nodes();
        let mut ear = two.subscribe(None, Version::ZERO).await.expect("the bus is there");
        two.stall();
        let version = publish(&one, 1).await;
        tokio::time::timeout(HEARTBEAT * 3, ear.next()).await.expect_err("nothing arrives");
        assert!(publish(&two, 2).await > version, "it can still announce");
        two.resume();
        for number in 1..=2 {
            let message = news(&mut ear).await;
            assert_eq!(*key_of(&message), Key::new(format!("conformance:bus:{number}")));
        }
    });
}

#[test]
fn a_new_epoch_a_trimmed_stream_and_a_reconnect_are_told() {
    block_on(async {
        let (one, two) = nodes();
        let mut ear = two.subscribe(None, Version::ZERO).await.expect("the bus is there");
        let known = publish(&one, 1).await;
        two.reconnect();
        assert_eq!(news(&mut ear).await, BusEvent::Reconnected);
        key_of(&news(&mut ear).await);
        one.change_epoch();
        let begun = Version::new(known.get() + EPOCH_STEP);
        let head = BusPosition { epoch: 2, sequence: 0 };
        assert_eq!(news(&mut ear).await, BusEvent::Lost { head, version: begun, is_intact: false });
        assert_eq!((publish(&one, 2).await, one.announced()), (begun.above(), 1), "it forgot");
        key_of(&news(&mut ear).await);

        two.stall();
        publish(&one, 3).await;
        one.trim();
        two.resume();
        assert!(matches!(news(&mut ear).await, BusEvent::Lost { head, .. } if head.sequence == 2));
        one.shut_down();
        assert_eq!(ear.next().await, None);
        one.subscribe(None, Version::ZERO).await.expect_err("it is shut down");
    });
}

#[test]
fn a_publish_fails_with_and_without_effect() {
    block_on(async {
        let (one, two) = nodes();
        let mut ear = two.subscribe(None, Version::ZERO).await.expect("the bus is there");
        one.script([PublishFault::Refused, PublishFault::ReplyLost, PublishFault::None]);
        for number in 1..=2 {
            let error = one.publish(&cases::removal(number), Version::ZERO).await;
            assert_eq!(error.expect_err("the script says so").kind(), ErrorKind::Unavailable);
        }
        publish(&one, 3).await;
        for number in 2..=3 {
            let message = news(&mut ear).await;
            assert_eq!(*key_of(&message), Key::new(format!("conformance:bus:{number}")));
        }
    });
}

/// The suite notices a bus that breaks its promises.
mod is_noticed {
    use super::*;

    #[test]
    #[should_panic(expected = "nothing is lost, and it says Lost")]
    fn a_lost_message() {
        block_on(async {
            let (one, two) = nodes();
            two.lose(1);
            cases::every_node_hears_each_message_once_and_in_order(one, two).await;
        });
    }

    #[test]
    #[should_panic(expected = "of another node")]
    fn a_bus_each_node_has_to_itself() {
        block_on(async {
            let (one, two) = (FaultyBus::new(), FaultyBus::new());
            cases::versions_exceed_what_the_publisher_knows(one, two).await;
        });
    }

    #[test]
    #[should_panic(expected = "not heard at")]
    fn a_heartbeat_that_lies() {
        block_on(async {
            let (one, two) = nodes();
            cases::current_tells_the_truth(Liar(one), Liar(two)).await;
        });
    }

    /// Messages arrive late, and heartbeats say that none is missing.
    struct Liar(FaultyBus);

    impl Bus for Liar {
        type Subscription = LiarSubscription;

        async fn publish(&self, announcement: &Announcement, after: Version) -> Result<Published> {
            self.0.publish(announcement, after).await
        }

        async fn subscribe(
            &self,
            after: Option<BusPosition>,
            known: Version,
        ) -> Result<LiarSubscription> {
            Ok(LiarSubscription(self.0.subscribe(after, known).await?))
        }
    }

    struct LiarSubscription(FaultySubscription);

    impl Subscription for LiarSubscription {
        async fn next(&mut self) -> Option<BusEvent> {
            let head = self.0.place;
            let version = Version::new(u64::MAX);
            tokio::time::sleep(Duration::from_millis(1)).await;
            if self.0.changes.has_changed().unwrap_or(false) && fastrand::bool() {
                return Some(BusEvent::Current { age: Duration::ZERO, head, version });
            }
            self.0.next().await
        }
    }
}
