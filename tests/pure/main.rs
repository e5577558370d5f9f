//! Formats, formulas and rules, held to the files of this repository. No server but the gateway runs.

mod config;
mod corpora;
mod deploy;
mod docs;
mod drift;
mod layers;
mod model;
mod signatures;
mod vectors;
