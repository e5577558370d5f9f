//! Faults of a management API, as a test orders them.

use std::time::Duration;

use super::{Call, Reply};

/// What goes wrong with a call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The answer has this status and the provider's own shape of errors. The call has no effect.
    Status(u16),
    /// 429, with this Retry-After if there is one. The call has no effect.
    TooMany(Option<String>),
    /// The connection is cut before the call has an effect.
    CutBefore,
    /// The call has its effect; the connection is cut before the answer.
    CutAfter,
    /// The call has its effect; the answer comes that much later.
    Slow(Duration),
    /// Every token that was given out ends before the call.
    TokensEnd,
    /// 307 to this URL. The call has no effect.
    Redirect(String),
    /// This answer. The call has no effect.
    Answer(Reply),
}

/// The faults to come.
#[derive(Default)]
pub(super) struct Faults {
    next: Vec<Next>,
    when: Vec<When>,
}

struct Next {
    times: usize,
    method: String,
    path: String,
    fault: Fault,
}

type When = Box<dyn FnMut(&Call) -> Option<Fault> + Send>;

impl Faults {
    pub(super) fn next(&mut self, times: usize, call: &str, fault: Fault) {
        let (method, path) = call.split_once(' ').expect("a method, a blank and the beginning of a path");
        self.next.push(Next { times, method: method.to_owned(), path: path.to_owned(), fault });
    }

    pub(super) fn when(&mut self, fault: impl FnMut(&Call) -> Option<Fault> + Send + 'static) {
        self.when.push(Box::new(fault));
    }

    /// The fault of this call; the faults ordered first come first.
    pub(super) fn take(&mut self, call: &Call) -> Option<Fault> {
        let ordered = self
            .next
            .iter_mut()
            .find(|next| next.times > 0 && next.method == call.method && call.path.starts_with(&next.path));
        if let Some(next) = ordered {
            next.times -= 1;
            return Some(next.fault.clone());
        }
        self.when.iter_mut().find_map(|fault| fault(call))
    }
}
