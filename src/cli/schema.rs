//! `hookgate schema`: the JSON Schema of the normalized event.

use std::io;

use super::{CommandResult, Global, OK, print_line};
use crate::event::SCHEMA;

pub(super) fn run(global: &Global) -> CommandResult {
    if global.json {
        let schema: serde_json::Value = serde_json::from_str(SCHEMA)?;
        print_line(&mut io::stdout(), &schema.to_string())?;
    } else {
        print_line(&mut io::stdout(), SCHEMA.trim_end())?;
    }
    Ok(OK)
}
