//! Runs what the README tells its readers to run.
//!
//! A fenced block marked `console` holds commands after `$ ` and below each
//! what it prints. `...` stands for any text within a line, or alone on a line
//! for any lines; a command without output below it must only succeed. A
//! command that starts a server (`… serve …`) runs until the next one or the
//! end, and what follows it is tried again until the server answers.

mod block;
mod process;

use std::path::Path;
use std::time::{Duration, Instant};

use block::Step;
use process::Server;

/// A server may have to be compiled first.
const SERVER_START_MAX: Duration = Duration::from_secs(900);
const PAUSE: Duration = Duration::from_millis(200);

/// Runs every step of the file at `path`, relative to `root`.
pub(crate) fn run(root: &Path, path: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(root.join(path))
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let steps = block::steps(&text);
    if steps.is_empty() {
        return Err(format!("{} has no console block to run", path.display()));
    }
    let mut server: Option<Server> = None;
    let mut deadline = Instant::now();
    for step in &steps {
        println!("{}:{}: $ {}", path.display(), step.line, step.command);
        if step.is_server() {
            // The old one must be gone before the new one wants its port.
            drop(server.take());
            server = Some(Server::start(root, &step.command)?);
            deadline = Instant::now() + SERVER_START_MAX;
            continue;
        }
        try_step(root, step, server.as_mut(), deadline)
            .map_err(|why| format!("{}:{}: {why}", path.display(), step.line))?;
        // From the first answer on the server is up, and nothing is tried twice.
        deadline = Instant::now();
    }
    println!("readme: {} commands do what {} says", steps.len(), path.display());
    Ok(())
}

/// Runs a step until it does what it should or the deadline has passed. A
/// server that ends while its answers are waited for fails the step at once.
fn try_step(
    root: &Path,
    step: &Step,
    mut server: Option<&mut Server>,
    deadline: Instant,
) -> Result<(), String> {
    loop {
        let why = match process::output(root, &step.command)? {
            Ok(printed) if step.accepts(&printed) => return Ok(()),
            Ok(printed) => format!("it should print\n{}\nand prints\n{printed}", step.expected()),
            Err(failure) => failure,
        };
        if let Some(server) = server.as_deref_mut() {
            server.is_running().map_err(|ended| format!("{ended}\n{why}"))?;
        }
        if Instant::now() >= deadline {
            return Err(why);
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a README with this one block in a directory of its own.
    fn run_block(name: &str, block: &str) -> Result<(), String> {
        let directory = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory can be made");
        let text = format!("# Test\n\n```console\n{block}```\n");
        std::fs::write(directory.join("README.md"), text).expect("a file can be written");
        let result = run(&directory, Path::new("README.md"));
        std::fs::remove_dir_all(&directory).expect("the directory can be removed");
        result
    }

    #[test]
    fn a_step_waits_for_the_server_before_it() {
        let block = "$ sleep 0.5; echo up > state; sleep 600 # serve\n$ cat state\nup\n";
        run_block("waits", block).expect("the file appears");
    }

    #[test]
    fn a_server_that_ends_fails_the_step_after_it() {
        let why = run_block("ends", "$ exit 3 # serve\n$ cat state\n").expect_err("no server");
        assert!(why.contains("README.md:5: the server before it has ended"), "{why}");
    }

    #[test]
    fn other_output_than_shown_is_an_error_that_shows_both() {
        let why = run_block("differs", "$ echo one\ntwo\n").expect_err("one is not two");
        assert!(why.contains("README.md:4:") && why.contains("two") && why.contains("one"));
    }

    #[test]
    fn a_file_without_commands_proves_nothing() {
        run_block("empty", "").expect_err("nothing to run");
    }
}
