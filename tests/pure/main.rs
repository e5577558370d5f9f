//! Formats, formulas and rules, held to the files of this repository. No server but the gateway runs.

mod config;
mod corpora;
mod definition_keys;
mod definitions;
mod deploy;
mod docs;
mod drift;
mod key_confusion;
mod layers;
mod model;
mod signatures;
mod vectors;
