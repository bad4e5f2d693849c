//! Questions of brokers on their way to an answer.
//!
//! Those of clients that show an id and a secret come by the thousand when a fleet connects for the
//! first time. They are answered together, in batches that grow with what waits; all others, and who
//! is not found in its batch, are answered alone.

use std::collections::VecDeque;
use std::sync::Mutex;

use authcache::feed::{ASKS_MAX, LinkId, Question};

use crate::clock::lock;

/// Questions of all brokers together that are open: as many as two brokers may have. A further one
/// is answered with "unavailable" at once, and its peer tries again later.
const OPEN_MAX: usize = 2 * ASKS_MAX;
/// Questions of one batch: some milliseconds of a reader's time.
const BATCH: usize = 256;
/// Batches at a time: half of the database's readers, so that the API keeps the others.
const BATCHES: usize = 2;

/// A question that a broker waits for.
pub(crate) struct Asked {
    pub(crate) link: LinkId,
    /// The link's number for it.
    pub(crate) number: u64,
    pub(crate) question: Question,
}

/// What is open. Invariant: `waiting.len() <= open <= OPEN_MAX` and `batches <= BATCHES`.
#[derive(Default)]
pub(crate) struct Questions(Mutex<State>);

#[derive(Default)]
struct State {
    open: usize,
    /// Those that wait for a batch, oldest first.
    waiting: VecDeque<Asked>,
    batches: usize,
}

impl Questions {
    /// Counts a question as open; false if too many are.
    pub(crate) fn open(&self) -> bool {
        let mut state = lock(&self.0);
        let fits = state.open < OPEN_MAX;
        state.open += usize::from(fits);
        fits
    }

    /// So many open questions were answered.
    pub(crate) fn close(&self, count: usize) {
        let mut state = lock(&self.0);
        state.open = state.open.saturating_sub(count);
    }

    /// Lets an open question wait for a batch. True if nobody is there to take it: then the caller has
    /// to see to it that somebody takes [`Batches`].
    pub(crate) fn wait(&self, asked: Asked) -> bool {
        let mut state = lock(&self.0);
        state.waiting.push_back(asked);
        let wanted = state.batches < BATCHES;
        state.batches += usize::from(wanted);
        wanted
    }
}

/// Whoever takes batches, one after the other, until nothing waits.
pub(crate) struct Batches<'a> {
    questions: &'a Questions,
    ended: bool,
}

impl<'a> Batches<'a> {
    /// Begins to take batches, as [`Questions::wait`] asked for.
    pub(crate) fn of(questions: &'a Questions) -> Batches<'a> {
        Batches {
            questions,
            ended: false,
        }
    }

    /// The oldest questions that wait; none if nothing does, which is the end.
    pub(crate) fn next(&mut self) -> Option<Vec<Asked>> {
        let mut state = lock(&self.questions.0);
        let count = state.waiting.len().min(BATCH);
        if count == 0 {
            // Under the same lock, so that who waits next is told that nobody is there.
            self.end(&mut state);
            return None;
        }
        Some(state.waiting.drain(..count).collect())
    }

    fn end(&mut self, state: &mut State) {
        if !std::mem::replace(&mut self.ended, true) {
            state.batches -= 1;
        }
    }
}

impl Drop for Batches<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.questions.0);
        self.end(&mut state);
    }
}

#[cfg(test)]
mod tests {
    use authcache::feed::{Leader, LeaseTerms};

    use super::*;

    fn asked(number: u64) -> Asked {
        let link = Leader::new(1, false, 0).connected(LeaseTerms::Pipe, 0);
        let question = Question::Token(Vec::new());
        Asked {
            link,
            number,
            question,
        }
    }

    #[test]
    fn what_waits_is_taken_in_order_by_a_few_at_a_time() {
        let questions = Questions::default();
        let begun: Vec<bool> = (0..1_000).map(|n| questions.wait(asked(n))).collect();
        assert!(begun[..BATCHES].iter().all(|begun| *begun));
        assert!(!begun[BATCHES..].iter().any(|begun| *begun));
        let mut takers = [Batches::of(&questions), Batches::of(&questions)];
        let mut taken = Vec::new();
        for at in (0..BATCHES).cycle() {
            let Some(batch) = takers[at].next() else {
                break;
            };
            assert!(batch.len() <= BATCH);
            taken.extend(batch.into_iter().map(|asked| asked.number));
        }
        assert!(taken.into_iter().eq(0..1_000));
        assert!(
            questions.wait(asked(1)),
            "one that found nothing has ended: another is needed"
        );
    }

    #[test]
    fn whoever_ends_early_is_replaced() {
        let questions = Questions::default();
        for n in 0..BATCHES as u64 {
            assert!(questions.wait(asked(n)));
        }
        drop(Batches::of(&questions));
        assert!(questions.wait(asked(9)));
    }

    #[test]
    fn a_question_too_many_is_not_opened() {
        let questions = Questions::default();
        assert!((0..OPEN_MAX).all(|_| questions.open()));
        assert!(!questions.open());
        questions.close(1);
        assert!(questions.open());
        assert!(!questions.open());
    }
}
