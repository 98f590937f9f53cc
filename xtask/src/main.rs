//! Project chores, run as `cargo xtask CHORE`.
#![allow(clippy::print_stdout, reason = "a chore speaks to the person who runs it")]

mod readme;
mod tidy;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask CHORE

  tidy            check the layers, the sizes and the wording of the tree
  readme [FILE]   run the console blocks of README.md and compare what they print
";

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the manifest of this crate lies one level below the root");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let passed = match arguments[..] {
        ["tidy"] => tidy::run(root),
        ["readme"] => readme::run(root, Path::new("README.md")),
        ["readme", file] => readme::run(root, Path::new(file)),
        ["--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        _ => Err(USAGE.to_owned()),
    };
    match passed {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
