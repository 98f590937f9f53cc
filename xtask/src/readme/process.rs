use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// No command of a README takes longer.
const COMMAND_MAX: Duration = Duration::from_secs(900);
const STOP_MAX: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// Runs a command with bash in `root`: what it printed, or why it failed. The
/// outer error means that it could not be run at all.
pub(super) fn output(root: &Path, command: &str) -> Result<Result<String, String>, String> {
    let mut bash = Command::new("timeout");
    bash.arg(COMMAND_MAX.as_secs().to_string()).args(["bash", "-c", command]).current_dir(root);
    let output = bash
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("bash cannot be started: {error}"))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(Ok(printed));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Ok(Err(format!("it fails ({}): {printed}{said}", output.status)))
}

/// A command that runs beside the others, stopped when this is dropped.
pub(super) struct Server {
    child: Child,
}

impl Server {
    pub(super) fn start(root: &Path, command: &str) -> Result<Self, String> {
        // A group of its own, so that what it starts is stopped with it.
        let child = Command::new("bash")
            .args(["-c", command])
            .current_dir(root)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| format!("bash cannot be started: {error}"))?;
        Ok(Self { child })
    }

    /// An error if it has ended.
    pub(super) fn is_running(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("the server before it has ended ({status})")),
            Err(error) => Err(format!("the server before it is lost: {error}")),
        }
    }

    fn signal(&self, name: &str) {
        let group = format!("-{}", self.child.id());
        // It may have ended by itself, and then there is nobody to signal.
        let _ = Command::new("bash")
            .args(["-c", "kill -s \"$1\" -- \"$2\"", "kill", name, &group])
            .stderr(Stdio::null())
            .status();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal("TERM");
        let deadline = Instant::now() + STOP_MAX;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                self.signal("KILL");
            }
            std::thread::sleep(PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_prints_or_fails_with_what_it_said() {
        let root = Path::new(".");
        assert_eq!(output(root, "echo hello"), Ok(Ok("hello\n".into())));
        let failure = output(root, "echo out; echo why >&2; exit 3").expect("bash runs");
        let failure = failure.expect_err("it exits with 3");
        assert!(failure.contains("3") && failure.contains("out") && failure.contains("why"));
    }

    #[test]
    fn a_server_is_stopped_with_what_it_started() {
        let directory = std::env::temp_dir();
        let file = directory.join(format!("xtask-readme-{}", std::process::id()));
        let command = format!("sleep 600 & echo $! > '{}'; wait", file.display());
        let mut server = Server::start(&directory, &command).expect("bash starts");
        let deadline = Instant::now() + STOP_MAX;
        let child = loop {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            if let Ok(child) = text.trim().parse::<u32>() {
                break child;
            }
            assert!(Instant::now() < deadline, "the command writes its child's id");
            std::thread::sleep(PAUSE);
        };
        server.is_running().expect("it sleeps");
        drop(server);
        std::fs::remove_file(&file).expect("it was written");
        // An orphan that has ended may wait for a moment to be collected.
        while is_alive(child) {
            assert!(Instant::now() < deadline, "its child still runs");
            std::thread::sleep(PAUSE);
        }
    }

    fn is_alive(process: u32) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let state = status.rsplit(')').next().and_then(|rest| rest.trim().chars().next());
        state.is_some_and(|state| state != 'Z')
    }
}
