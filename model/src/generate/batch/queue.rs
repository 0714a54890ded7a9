//! Requests that wait for a place in the batch: first come, first served, and with those being answered never more than a number.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::{Refused, Request};

/// Shared between those who ask and the thread that answers.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    most: usize,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Request>,
    closed: bool,
}

impl Queue {
    pub fn new(most: usize) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), most }
    }

    /// Puts a request at the end, beside `answering` that are no longer here. Those that nobody waits for any more make room.
    pub fn push(&self, request: Request, answering: usize) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        state.waiting.retain(|request| !request.listener.gone());
        if state.waiting.len() + answering >= self.most {
            return Err(Refused::Full { waiting: state.waiting.len() });
        }
        state.waiting.push_back(request);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// The first request if it `fits`. With `wait`, the next one, as soon as there is one; `None` when there will be none.
    pub fn next(&self, wait: bool, fits: impl Fn(&Request) -> bool) -> Option<Request> {
        let mut state = self.lock();
        loop {
            state.waiting.retain(|request| !request.listener.gone());
            if state.waiting.front().is_some_and(&fits) {
                return state.waiting.pop_front();
            }
            if !wait || state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Takes no more; answers with those that waited.
    pub fn close(&self) -> Vec<Request> {
        let mut state = self.lock();
        state.closed = true;
        let left = std::mem::take(&mut state.waiting);
        drop(state);
        self.changed.notify_all();
        left.into()
    }

    /// Whether [`Queue::close`] was called.
    pub fn closed(&self) -> bool {
        self.lock().closed
    }

    /// No code panics while it holds the lock; were it to, the requests in it are still whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
