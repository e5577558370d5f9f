//! Decides which traces are sampled.
//!
//! Keeps true: requests of one trace are all sampled or none. A client that is not trusted cannot choose, neither by the
//! `sampled` flag nor by the trace's id.

use std::hash::{BuildHasher, RandomState};

use crate::base::trace_context::TraceContext;

/// Samples a share of all traces.
#[derive(Debug)]
pub struct Sampler {
    share: f64,
    /// Drawn at random, so that no client can tell which ids are sampled.
    key: RandomState,
}

impl Sampler {
    /// Samples this share of the traces, from 0 to 1.
    pub fn new(share: f64) -> Sampler {
        Sampler { share, key: RandomState::new() }
    }

    /// Whether a request is sampled that came with `parent`. A trusted parent's decision is kept.
    pub fn samples(&self, trace_id: &[u8; 16], parent: Option<&TraceContext>, trusted: bool) -> bool {
        match parent {
            Some(parent) if trusted => parent.sampled,
            _ => {
                // Of the hash, as many bits as the number holds exactly: it is always below 1.
                let hash = self.key.hash_one(trace_id) >> (u64::BITS - f64::MANTISSA_DIGITS);
                (hash as f64) < self.share * (1_u64 << f64::MANTISSA_DIGITS) as f64
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock;

    fn draw() -> TraceContext {
        TraceContext::root(clock::random(), clock::random())
    }

    #[test]
    fn a_share_of_the_traces_is_sampled() {
        for (share, few, many) in [(0.0, 0, 0), (0.25, 2200, 2800), (1.0, 10_000, 10_000)] {
            let sampler = Sampler::new(share);
            let sampled = (0..10_000).filter(|_| sampler.samples(&draw().trace_id, None, false)).count();
            assert!((few..=many).contains(&sampled), "{share}: {sampled}");
        }
    }

    #[test]
    fn a_trace_is_sampled_or_not_whatever_an_unknown_client_wants() {
        let sampler = Sampler::new(0.5);
        for _ in 0..100 {
            let (sampled, not) = (TraceContext { sampled: true, ..draw() }, draw());
            let own = sampler.samples(&not.trace_id, None, false);
            for parent in [sampled, not] {
                assert_eq!(sampler.samples(&not.trace_id, Some(&parent), false), own);
                assert_eq!(sampler.samples(&not.trace_id, Some(&parent), true), parent.sampled);
            }
        }
    }

    #[test]
    fn no_client_can_know_which_ids_are_sampled() {
        let guess = |_| Sampler::new(0.5).samples(&[0; 16], None, false);
        let sampled = (0..1000).map(guess).filter(|sampled| *sampled).count();
        assert!((300..700).contains(&sampled), "{sampled} of 1000 processes sample the same id");
    }
}
