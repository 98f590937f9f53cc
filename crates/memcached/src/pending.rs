//! Which reply answers which request.

use crate::protocol::{Complaint, Kind, Reply, Request};

/// More lines of statistics than this are no statistics of a memcached.
const STATISTICS_MAX: usize = 10_000;

/// What came back for a batch.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// One for each request, in their order.
    pub(crate) replies: Vec<Reply>,
    /// What requests for statistics brought: names and values.
    pub(crate) statistics: Vec<(String, String)>,
}

/// A batch that was sent, and what of it has been answered.
///
/// A server answers in the order asked, but says nothing of misses that were
/// asked for quietly: the token of the next answer tells how many those were.
/// Errors carry no token. One that may belong to any of several quiet requests
/// is given to all of them: a failure must not look like a miss.
#[derive(Debug)]
pub(crate) struct Pending {
    first_opaque: u32,
    expected: Vec<Expected>,
    ends_with_noop: bool,
    answers: Answers,
    /// An error that none of the requests can be told to have caused.
    complaint: Option<Complaint>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expected {
    /// An answer with a token, or `EN`.
    Item,
    /// An answer with a token, or nothing.
    Quiet,
    Line,
    Statistics,
}

/// The answers do not fit the requests: the connection is of no use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OutOfStep;

impl Pending {
    /// A batch whose tokens count up from this one. Reads of more than one item
    /// are quiet.
    pub(crate) fn new(requests: &[Request], first_opaque: u32) -> Self {
        let expected: Vec<Expected> = requests
            .iter()
            .map(|request| match request.kind() {
                Kind::Item { may_be_quiet: true } if requests.len() > 1 => Expected::Quiet,
                Kind::Item { .. } => Expected::Item,
                Kind::Line => Expected::Line,
                Kind::Statistics => Expected::Statistics,
            })
            .collect();
        let ends_with_noop = expected.contains(&Expected::Quiet);
        let replies = Vec::with_capacity(expected.len());
        let answers = Answers { replies, statistics: Vec::new() };
        Self { first_opaque, expected, ends_with_noop, answers, complaint: None }
    }

    /// Whether the request at this place is to be sent as quiet.
    pub(crate) fn is_quiet(&self, index: usize) -> bool {
        self.expected.get(index) == Some(&Expected::Quiet)
    }

    /// Whether a `mn` is to follow the requests.
    pub(crate) fn ends_with_noop(&self) -> bool {
        self.ends_with_noop
    }

    /// Takes the next reply. Returns whether it was the last one.
    pub(crate) fn accept(&mut self, reply: Reply) -> Result<bool, OutOfStep> {
        let next = self.expected.get(self.answers.replies.len()).copied();
        match (reply, next) {
            (Reply::Noop, _) if self.ends_with_noop => {
                self.pass_over(self.expected.len())?;
                return Ok(true);
            }
            (Reply::Stat(name, value), Some(Expected::Statistics))
                if self.answers.statistics.len() < STATISTICS_MAX =>
            {
                self.answers.statistics.push((name, value));
            }
            (Reply::Complaint(complaint), None | Some(Expected::Quiet)) if self.ends_with_noop => {
                self.complaint = Some(complaint);
            }
            (reply @ Reply::Complaint(_), Some(_)) => self.answers.replies.push(reply),
            (reply @ Reply::Missing, Some(Expected::Item)) => self.answers.replies.push(reply),
            (reply @ Reply::End, Some(Expected::Statistics)) => self.answers.replies.push(reply),
            (
                reply @ (Reply::Noop
                | Reply::Debug(_)
                | Reply::Stored
                | Reply::Version(_)
                | Reply::Missing),
                Some(Expected::Line),
            ) => self.answers.replies.push(reply),
            (reply, Some(Expected::Item | Expected::Quiet)) => self.accept_item(reply)?,
            _ => return Err(OutOfStep),
        }
        Ok(!self.ends_with_noop && self.answers.replies.len() == self.expected.len())
    }

    /// The answers of a batch that is complete.
    pub(crate) fn into_answers(self) -> Answers {
        self.answers
    }

    fn accept_item(&mut self, reply: Reply) -> Result<(), OutOfStep> {
        let opaque = reply.flags().and_then(|flags| flags.opaque).ok_or(OutOfStep)?;
        let index = opaque.wrapping_sub(self.first_opaque) as usize;
        if index < self.answers.replies.len() || index >= self.expected.len() {
            return Err(OutOfStep);
        }
        self.pass_over(index)?;
        if !matches!(self.expected[index], Expected::Item | Expected::Quiet) {
            return Err(OutOfStep);
        }
        self.answers.replies.push(reply);
        Ok(())
    }

    /// Everything up to this place got no answer of its own.
    fn pass_over(&mut self, index: usize) -> Result<(), OutOfStep> {
        while self.answers.replies.len() < index {
            let expected = self.expected[self.answers.replies.len()];
            let answer = match (&self.complaint, expected) {
                (Some(complaint), _) => Reply::Complaint(complaint.clone()),
                (None, Expected::Quiet) => Reply::Missing,
                (None, _) => return Err(OutOfStep),
            };
            self.answers.replies.push(answer);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::{ComplaintKind, Mode, ReplyFlags, WireKey};

    fn get() -> Request {
        Request::get(WireKey::new(b"k").expect("it is short")).with_value()
    }

    fn set() -> Request {
        Request::set(WireKey::new(b"k").expect("it is short"), Bytes::new(), Mode::Set)
    }

    fn done(opaque: u32) -> Reply {
        Reply::Done(ReplyFlags { opaque: Some(opaque), ..ReplyFlags::default() })
    }

    fn complaint() -> Reply {
        let text = "out of memory".to_owned();
        Reply::Complaint(Complaint { kind: ComplaintKind::Server, text })
    }

    /// The answers to a batch whose tokens begin shortly before they wrap.
    fn check(requests: &[Request], replies: Vec<Reply>) -> Result<Vec<Reply>, OutOfStep> {
        let mut pending = Pending::new(requests, u32::MAX);
        let count = replies.len();
        for (index, reply) in replies.into_iter().enumerate() {
            if pending.accept(reply)? {
                assert_eq!(index + 1, count, "it is complete before its last reply");
                return Ok(pending.into_answers().replies);
            }
        }
        panic!("it is not complete: {pending:?}");
    }

    #[test]
    fn what_is_silent_was_missed() {
        let replies = check(&[get(), get(), get()], vec![done(0), Reply::Noop]);
        assert_eq!(replies, Ok(vec![Reply::Missing, done(0), Reply::Missing]));
        assert_eq!(check(&[get()], vec![Reply::Missing]), Ok(vec![Reply::Missing]));
    }

    #[test]
    fn an_error_is_told_to_whom_it_may_concern() {
        let replies = check(&[set(), set()], vec![complaint(), done(0)]);
        assert_eq!(replies, Ok(vec![complaint(), done(0)]));
        let replies = check(&[get(), get()], vec![complaint(), done(0), Reply::Noop]);
        assert_eq!(replies, Ok(vec![complaint(), done(0)]));
        // Which of the two it was cannot be known.
        let replies = check(&[get(), set()], vec![complaint(), Reply::Noop]);
        assert_eq!(replies, Ok(vec![complaint(), complaint()]));
    }

    #[test]
    fn answers_that_nobody_asked_for_are_not_taken() {
        for (requests, reply) in [
            (vec![set()], done(0)),
            (vec![set(), set()], done(0)),
            (vec![set()], Reply::Done(ReplyFlags::default())),
            (vec![set()], Reply::Noop),
            (vec![get(), set()], Reply::Noop),
            (vec![get()], Reply::Stored),
            (vec![Request::noop()], done(u32::MAX)),
            (vec![Request::statistics()], Reply::Noop),
        ] {
            let mut pending = Pending::new(&requests, u32::MAX);
            assert_eq!(pending.accept(reply.clone()), Err(OutOfStep), "{requests:?} {reply:?}");
        }
    }

    proptest! {
        #[test]
        fn any_order_of_answers_is_taken_or_refused(
            requests in vec(prop_oneof![Just(get()), Just(set()), Just(Request::noop())], 1..6),
            replies in vec(
                prop_oneof![
                    (0..8_u32).prop_map(|n| done(n.wrapping_sub(1))),
                    Just(Reply::Noop),
                    Just(Reply::Missing),
                    Just(complaint()),
                    Just(Reply::End),
                ],
                0..12,
            ),
        ) {
            let count = requests.len();
            let mut pending = Pending::new(&requests, u32::MAX);
            for reply in replies {
                match pending.accept(reply) {
                    Ok(true) => {
                        prop_assert_eq!(pending.into_answers().replies.len(), count);
                        return Ok(());
                    }
                    Ok(false) => {}
                    Err(OutOfStep) => return Ok(()),
                }
            }
        }
    }
}
