//! Runs SQL scripts and programs of Postgres, and says what they said.

use std::io::Write;
use std::process::{Command, Stdio};

/// Runs a script with psql against the database at `url` and returns what it
/// printed: rows without headers, columns separated by `|`. Blocks.
///
/// # Panics
/// If psql cannot be started or any statement fails.
pub(crate) fn script(url: &str, script: &str) -> String {
    let mut psql = Command::new("psql");
    psql.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only"]).args([
        "--set=ON_ERROR_STOP=1",
        "--single-transaction",
        "--file=-",
        url,
    ]);
    run(psql, script)
}

/// Runs a program with this input to its end and returns what it printed.
///
/// # Panics
/// If it cannot be started or reports a failure; the message holds what it
/// wrote to standard error.
pub(crate) fn run(mut command: Command, input: &str) -> String {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{name} cannot be started ({error}); is it installed?"));
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    // A program that fails early closes the pipe; its exit status tells more.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("the program's output can be read");
    assert!(
        output.status.success(),
        "{name} failed ({}): {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
