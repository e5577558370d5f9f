//! `hookgate schema`: the JSON Schema of the normalized event.

use std::io;

use super::{Done, OK, line};
use crate::event::SCHEMA;

pub(super) fn run() -> Done {
    line(&mut io::stdout(), SCHEMA.trim_end())?;
    Ok(OK)
}
