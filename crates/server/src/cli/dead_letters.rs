//! `larder dead-letters`: writes that the database refused, seen, mended and replayed.

use std::fmt::Write;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{Failure, Outcome, count, print, remote};

/// See, replay and drop writes that the database refused
///
/// Of caches that write behind. Asks the administration of a running server; where
/// clients need a password, LARDER_PASSWORD has to hold it.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  larder dead-letters list
  larder dead-letters show 3-1207
  larder dead-letters replay 3-1207
  larder dead-letters replay 3-1207 --with '{\"id\":7,\"name\":\"cup\"}'
  larder dead-letters drop 3-1207 3-1208
")]
pub(crate) struct DeadLettersOptions {
    /// Where the administration of the server listens
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:6381", global = true)]
    admin: String,

    #[command(subcommand)]
    command: LettersCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum LettersCommand {
    /// List them, oldest first in each lane
    List {
        /// Only those behind this one
        #[arg(long, value_name = "ID")]
        after: Option<String>,

        /// How many at most
        #[arg(long, value_name = "COUNT", default_value_t = 100)]
        limit: usize,

        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one, with what was to be written
    Show {
        /// Which, such as 3-1207
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Write them again: each as a new write, after all that was accepted meanwhile
    Replay {
        /// Which, such as 3-1207
        #[arg(value_name = "ID", required = true)]
        ids: Vec<String>,

        /// Another row, or other members, in the place of what was refused
        #[arg(long = "with", value_name = "JSON")]
        instead: Option<String>,
    },
    /// Drop them for good
    Drop {
        /// Which, such as 3-1207
        #[arg(value_name = "ID", required = true)]
        ids: Vec<String>,
    },
}

pub(crate) fn run(options: &DeadLettersOptions) -> Outcome {
    let admin = &options.admin;
    match &options.command {
        LettersCommand::List { after, limit, json } => {
            let mut query = format!("limit={limit}");
            if let Some(after) = after {
                let _ = write!(query, "&after={}", remote::encode(after));
            }
            let request = remote::Request::get(&["dead-letters"]).query(&query);
            let answer = request.send(admin)?;
            match json {
                true => print(format_args!("{}\n", serde_json::to_string_pretty(&answer)?)),
                false => print(list(&answer)),
            }
        }
        LettersCommand::Show { id } => {
            let answer = remote::get(admin, &["dead-letters", id])?;
            print(format_args!("{}\n", serde_json::to_string_pretty(&answer)?))
        }
        LettersCommand::Replay { ids, instead } => {
            if instead.is_some() && ids.len() > 1 {
                let message = "--with says what one letter is to be: name one";
                return Err(Failure::Message(message.to_owned()));
            }
            for id in ids {
                let request = remote::Request::post(&["dead-letters", id, "replay"]);
                request.body(instead.clone().unwrap_or_default()).send(admin)?;
            }
            print(format_args!("replayed {}\n", count(ids.len(), "dead letter")))
        }
        LettersCommand::Drop { ids } => {
            for id in ids {
                remote::Request::delete(&["dead-letters", id]).send(admin)?;
            }
            print(format_args!("dropped {}\n", count(ids.len(), "dead letter")))
        }
    }
}

fn list(answer: &Value) -> String {
    let letters = answer["dead_letters"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut text = String::new();
    for letter in letters {
        let part = |name: &str| letter[name].as_str().unwrap_or_default();
        let _ = writeln!(
            text,
            "{:8}  {:8}  {:6}  {}  {}",
            part("id"),
            part("cause"),
            part("action"),
            part("key"),
            part("reason"),
        );
    }
    let all = answer["count"].as_u64().and_then(|all| usize::try_from(all).ok());
    let _ = match all.unwrap_or(letters.len()) {
        0 => writeln!(text, "no dead letters"),
        all if all > letters.len() => writeln!(text, "{} of {all}", letters.len()),
        all => writeln!(text, "{}", count(all, "dead letter")),
    };
    text
}
