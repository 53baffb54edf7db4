//! What is made from the types of the command line: its reference, manual pages, completions for shells.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{CommandFactory, Subcommand};
use clap_complete::Shell;
use clap_markdown::MarkdownOptions;

use crate::Arguments;
use crate::output::print;

/// What is to be made.
#[derive(Debug, Subcommand)]
pub(crate) enum Generate {
    /// The reference of every command, as Markdown.
    Commands,
    /// Manual pages, one for each command, into a folder: that of section 1, like /usr/local/share/man/man1.
    Man {
        /// The folder; it is made if it is not there.
        folder: PathBuf,
    },
    /// Completions for a shell, to be read by it: for bash into /etc/bash_completion.d/chainmail.
    Completions {
        /// Which.
        shell: Shell,
    },
}

/// Makes it; what is one text is printed.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn generate(what: Generate) -> anyhow::Result<()> {
    let mut command = Arguments::command();
    match what {
        Generate::Commands => print(reference().as_bytes())?,
        Generate::Man { folder } => {
            std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
            clap_mangen::generate_to(command, &folder).with_context(|| format!("writing into {}", folder.display()))?;
        }
        Generate::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "chainmail", &mut script);
            print(&script)?;
        }
    }
    Ok(())
}

fn reference() -> String {
    let options = MarkdownOptions::new().title("Commands".to_owned()).show_footer(false).show_table_of_contents(false);
    let body = clap_markdown::help_markdown_custom::<Arguments>(&options);
    let origin = "Made by `chainmail generate commands`; not edited by hand.";
    let made = body.replacen("# Commands\n", &format!("# Commands\n\n{origin}\n"), 1);
    format!("{}\n", made.trim_end())
}
