//! `hookgate providers`: the providers that a config knows, their definitions, and a trial of one on a captured delivery.
//!
//! Keeps true: a definition is printed so that it can be pasted under another name, and then behaves the same.

mod attempt;

use std::io;

use clap::Subcommand;
use serde_json::json;

use super::{CommandResult, Failure, Global, OK, print_line};
use crate::config::{Config, definitions};
use crate::provider::{Catalog, Origin, Provider, Reader, catalog};

/// What to do with providers.
#[derive(Subcommand)]
pub(super) enum Providers {
    /// List every provider that the config knows, built in or defined. Without a config: the built-in ones.
    List,
    /// Print a provider's definition as TOML. Paste it into a config under another name to change it.
    Show {
        /// The provider.
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Print what each part of a definition finds in a captured delivery, and the event that would come out.
    Try(attempt::Attempt),
}

pub(super) fn run(global: &Global, command: &Providers) -> CommandResult {
    let known = Known::of(global)?;
    match command {
        Providers::List => list(&known.catalog, global.json),
        Providers::Show { name } => {
            let provider = known.provider(name)?;
            let text = known.definition(provider);
            let shown = if global.json {
                let origin = provider.origin.label();
                json!({ "name": provider.name, "origin": origin, "definition": text }).to_string()
            } else {
                text.trim_end().to_owned()
            };
            print_line(&mut io::stdout(), &shown)?;
            Ok(OK)
        }
        Providers::Try(attempt) => attempt.run(&known, global.json),
    }
}

/// The providers of a config, or the built-in ones without a config.
struct Known {
    config: Config,
    catalog: Catalog,
}

impl Known {
    fn of(global: &Global) -> Result<Known, Failure> {
        let Some(path) = &global.config else {
            let (config, _) = crate::config::parse("", std::path::Path::new(""));
            return Ok(Known { config, catalog: Catalog::default() });
        };
        let config = global.config()?;
        let mut problems = Vec::new();
        let catalog = Catalog::of(&config.providers, &mut problems);
        match problems.first() {
            None => Ok(Known { config, catalog }),
            Some(first) => {
                let first = first.render(&path.display().to_string());
                Err(Failure(format!("{first}\nhookgate: `hookgate check` lists every problem")))
            }
        }
    }

    fn provider(&self, name: &str) -> Result<&'static Provider, Failure> {
        self.catalog.by_name(name).ok_or_else(|| {
            let names: Vec<&str> = self.catalog.iter().map(|provider| provider.name).collect();
            Failure(format!("no provider {name:?}; known: {}", names.join(", ")))
        })
    }

    /// A definition as TOML. What the grammar cannot say comes with `like`.
    fn definition(&self, provider: &Provider) -> String {
        let name = provider.name;
        let own = self.config.providers.iter().find(|definition| definition.name.value == name);
        if let Some(definition) = own.filter(|_| provider.origin == Origin::Config) {
            return definitions::show(definition, name);
        }
        let head = format!("[providers.{name}]\n");
        let like = format!("{head}like = \"{name}\"\n");
        match catalog::source(name) {
            Some(text) if matches!(provider.reader, Reader::Rules(_)) => {
                if provider.code.is_none() {
                    return text.to_owned();
                }
                let note = "# The grammar cannot say all of it; `like` brings the rest.\n";
                if text.contains(&head) {
                    text.replacen(&head, &format!("{note}{like}"), 1)
                } else {
                    let at = text.find("\n[").map_or(0, |at| at + 1);
                    format!("{}{note}{like}\n{}", &text[..at], &text[at..])
                }
            }
            _ => format!(
                "# Code reads the payloads of {name}, so its definition is what it is like. A table given here replaces that one.\n\
                 {like}"
            ),
        }
    }
}

fn list(catalog: &Catalog, json: bool) -> CommandResult {
    for provider in catalog.iter() {
        let (name, origin, algorithms) = (provider.name, provider.origin.label(), provider.algorithms());
        let types = provider.types.map_or(0, <[_]>::len);
        let line = if json {
            json!({ "name": name, "origin": origin, "algorithms": algorithms, "types": types }).to_string()
        } else {
            let signed = if algorithms.is_empty() { "unsigned".to_owned() } else { algorithms.join(", ") };
            let types = match provider.types {
                Some(_) => format!("{types} types"),
                None => "every type, as it comes".to_owned(),
            };
            format!("{name:<20} {origin:<9} {signed:<40} {types}")
        };
        if !print_line(&mut io::stdout(), &line)? {
            break;
        }
    }
    Ok(OK)
}
