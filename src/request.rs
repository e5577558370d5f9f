//! Handles a request from its head to its answer.

pub mod admission;
pub mod answer;
pub mod outcome;
pub mod pipeline;
pub mod source;
