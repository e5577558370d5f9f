//! `hookgate schema`: the JSON Schema of the normalized event.

use std::io;

use super::{Done, Global, OK, line};
use crate::event::SCHEMA;

pub(super) fn run(global: &Global) -> Done {
    if global.json {
        let schema: serde_json::Value = serde_json::from_str(SCHEMA)?;
        line(&mut io::stdout(), &schema.to_string())?;
    } else {
        line(&mut io::stdout(), SCHEMA.trim_end())?;
    }
    Ok(OK)
}
