//! Whether a subscriber has heard everything: no I/O, only the rules.

use larder_core::{BusPosition, Version};

use crate::message::MessageId;
use crate::state::{Message, State};

/// How far a subscriber has heard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    /// Which of the messages with this number it was, if that is known.
    pub(crate) nonce: Option<u64>,
    /// The highest version heard of.
    pub(crate) version: Version,
}

/// What a look at the shared clock means to a subscriber.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Nothing is missing.
    Current,
    /// These follow, and perhaps more.
    Messages(Vec<Message>),
    /// Messages were lost to this subscriber: it goes on from the end.
    Missed,
    /// The server has lost messages that it had: its history is another one now,
    /// and everybody must know.
    Shortened,
}

impl Place {
    /// The end of what there is.
    pub(crate) fn head(state: &State) -> Self {
        let BusPosition { epoch, sequence } = state.head();
        Self { epoch, sequence, nonce: Some(state.last.nonce), version: state.version }
    }

    pub(crate) fn position(&self) -> BusPosition {
        BusPosition { epoch: self.epoch, sequence: self.sequence }
    }

    /// Judges a look that asked for messages from this place on.
    pub(crate) fn judge(&self, state: &State) -> Verdict {
        if state.epoch != Some(self.epoch) {
            return Verdict::Missed;
        }
        if state.last.sequence < self.sequence {
            return Verdict::Shortened;
        }
        if state.last.sequence == self.sequence {
            return if self.is(state.last) { Verdict::Current } else { Verdict::Shortened };
        }
        let mut messages = state.messages.clone();
        // The first is the one heard last: it proves that those behind it follow.
        if self.sequence > 0 {
            match messages.first() {
                Some(first) if first.id.sequence == self.sequence && self.is(first.id) => {
                    messages.remove(0);
                }
                Some(first) if first.id.sequence == self.sequence => return Verdict::Shortened,
                _ => return Verdict::Missed,
            }
        }
        let numbers = messages.iter().map(|message| message.id.sequence);
        if messages.is_empty() || !numbers.eq((self.sequence + 1..).take(messages.len())) {
            return Verdict::Missed;
        }
        Verdict::Messages(messages)
    }

    /// Whether a pushed message is the next one.
    pub(crate) fn is_followed_by(&self, epoch: u64, id: MessageId) -> bool {
        epoch == self.epoch && id.sequence == self.sequence + 1
    }

    /// Notes that a message was heard.
    pub(crate) fn heard(&mut self, id: MessageId, version: Version) {
        self.sequence = id.sequence;
        self.nonce = Some(id.nonce);
        self.version = self.version.max(version);
    }

    fn is(&self, id: MessageId) -> bool {
        self.nonce.is_none_or(|nonce| nonce == id.nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: u64 = 77;

    fn id(sequence: u64) -> MessageId {
        MessageId { sequence, nonce: NONCE + sequence }
    }

    fn state(head: u64, from: u64) -> State {
        let message = |sequence| Message {
            id: id(sequence),
            version: Version::new(sequence),
            announcement: Vec::new(),
        };
        State {
            epoch: Some(1),
            version: Version::new(head),
            floor: Version::ZERO,
            last: id(head),
            micros: 0,
            messages: (from..=head).map(message).collect(),
            changes: None,
        }
    }

    fn place(sequence: u64) -> Place {
        let nonce = Some(NONCE + sequence);
        Place { epoch: 1, sequence, nonce, version: Version::new(sequence) }
    }

    #[test]
    fn nothing_new_is_current() {
        assert_eq!(place(5).judge(&state(5, 6)), Verdict::Current);
        assert_eq!(place(0).judge(&state(0, 1)), Verdict::Current);
        let unsure = Place { nonce: None, ..place(5) };
        assert_eq!(unsure.judge(&state(5, 6)), Verdict::Current);
    }

    #[test]
    fn what_follows_is_heard_without_what_was() {
        let Verdict::Messages(messages) = place(5).judge(&state(7, 5)) else { panic!("6 and 7") };
        assert_eq!(messages.iter().map(|message| message.id.sequence).collect::<Vec<_>>(), [6, 7]);
        let Verdict::Messages(messages) = place(0).judge(&state(2, 1)) else { panic!("1 and 2") };
        assert_eq!(messages.len(), 2);
    }

    #[test]
    fn what_was_trimmed_is_missed() {
        assert_eq!(place(5).judge(&state(9, 6)), Verdict::Missed);
        assert_eq!(place(5).judge(&state(9, 8)), Verdict::Missed);
        assert_eq!(place(5).judge(&state(9, 10)), Verdict::Missed);
        assert_eq!(place(0).judge(&state(9, 3)), Verdict::Missed);
        let mut hole = state(9, 5);
        hole.messages.remove(2);
        assert_eq!(place(5).judge(&hole), Verdict::Missed);
    }

    #[test]
    fn another_epoch_is_another_history() {
        let other = State { epoch: Some(2), ..state(5, 6) };
        assert_eq!(place(5).judge(&other), Verdict::Missed);
        assert_eq!(place(5).judge(&State { epoch: None, ..other }), Verdict::Missed);
    }

    #[test]
    fn a_history_without_its_end_is_shortened() {
        assert_eq!(place(5).judge(&state(4, 5)), Verdict::Shortened);
        let replaced = Place { nonce: Some(1), ..place(5) };
        assert_eq!(replaced.judge(&state(5, 6)), Verdict::Shortened);
        assert_eq!(replaced.judge(&state(8, 5)), Verdict::Shortened);
    }

    #[test]
    fn pushes_follow_one_another() {
        let mut place = place(5);
        assert!(place.is_followed_by(1, id(6)));
        assert!(!place.is_followed_by(1, id(7)));
        assert!(!place.is_followed_by(1, id(5)));
        assert!(!place.is_followed_by(2, id(6)));
        place.heard(id(6), Version::new(3));
        assert_eq!((place.sequence, place.version), (6, Version::new(5)));
    }
}
