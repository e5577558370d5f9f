//! Writes the manual pages and the shell completions of `hookgate` from the definitions of its commands.
//!
//! A program of its own, since a gateway needs neither.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Command, Parser};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// Writes hookgate's manual pages into FOLDER/man, and its completions for bash, zsh and fish into FOLDER/completions.
#[derive(Parser)]
#[command(name = "hookgate-pages")]
struct Pages {
    folder: PathBuf,
    /// The date on the manual pages, as 2026-11-30.
    date: String,
}

fn main() -> ExitCode {
    let pages = Pages::parse();
    match pages.write() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("hookgate-pages: {}: {why}", pages.folder.display());
            ExitCode::FAILURE
        }
    }
}

impl Pages {
    fn write(&self) -> io::Result<()> {
        let man = self.folder.join("man");
        fs::create_dir_all(&man)?;
        let mut commands = hookgate::cli::command().disable_help_subcommand(true);
        commands.build();
        self.page_of(&commands, &[], &man)?;

        let completions = self.folder.join("completions");
        fs::create_dir_all(&completions)?;
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            clap_complete::generate_to(shell, &mut hookgate::cli::command(), NAME, &completions)?;
        }
        Ok(())
    }

    /// Writes the page of a command, and the pages of those below it. `above` names the commands above it.
    fn page_of(&self, command: &Command, above: &[&str], folder: &Path) -> io::Result<()> {
        let below = || command.get_subcommands().filter(|below| !below.is_hide_set());
        let path = [above, &[command.get_name()]].concat();
        let others = match above {
            [] => below().map(|below| page(&[&path[..], &[below.get_name()]].concat())).collect(),
            _ => vec![page(above), page(&path[..1])],
        };
        let man = Man::new(command.clone()).date(&self.date).source(SOURCE).manual("Commands of hookgate");
        let mut text = Vec::new();
        man.render_title(&mut text)?;
        man.render_name_section(&mut text)?;
        man.render_synopsis_section(&mut text)?;
        man.render_description_section(&mut text)?;
        man.render_options_section(&mut text)?;
        if below().next().is_some() {
            man.render_subcommands_section(&mut text)?;
        }
        end(others).to_writer(&mut text)?;
        // mandoc warns of breaks around an empty line.
        let text = String::from_utf8_lossy(&text).replace("\n.br\n\n.br\n", "\n.sp\n");
        fs::write(folder.join(man.get_filename()), text)?;
        below().try_for_each(|below| self.page_of(below, &path, folder))
    }
}

/// The sections at a page's end.
fn end(mut others: Vec<String>) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for (code, means) in [("0", "Success."), ("1", "A reported failure."), ("2", "Wrong usage.")] {
        roff.control("TP", []);
        roff.text([bold(code)]);
        roff.text([roman(means)]);
    }
    others.dedup();
    roff.control("SH", ["SEE ALSO"]);
    let last = others.len().saturating_sub(1);
    for (at, name) in others.iter().enumerate() {
        roff.text([bold(name), roman(if at == last { "(1)" } else { "(1)," })]);
    }
    roff
}

/// The name of a command's page.
fn page(path: &[&str]) -> String {
    path.join("-")
}

const NAME: &str = "hookgate";
const SOURCE: &str = concat!("hookgate ", env!("CARGO_PKG_VERSION"));
