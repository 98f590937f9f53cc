//! Server processes that a test owns: on a free port of the loopback address,
//! in a directory of their own, stopped by process id.

use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

mod controls;
mod port;
mod slot;

pub(crate) use controls::controls;
pub(crate) use port::Port;
pub(crate) use slot::ProcessSlot;

/// How long a server may take to start or stop on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(10);

/// How often another port is tried when somebody took the first.
const PORT_TRIES: usize = 5;

/// A port that nobody listens at, and that no other test is given before this
/// process ends.
///
/// # Panics
/// If the machine has none.
#[must_use]
pub fn free_port() -> u16 {
    static GIVEN: Mutex<Vec<Port>> = Mutex::new(Vec::new());
    let port = Port::reserve();
    let number = port.number();
    GIVEN.lock().unwrap_or_else(PoisonError::into_inner).push(port);
    number
}

/// Waits until something holds that no event tells of.
///
/// # Panics
/// If it does not hold in time, with what was waited for.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "this does not come about: {what}");
        thread::sleep(POLL);
    }
}

/// The first of these programs that is installed, by name or path.
///
/// # Panics
/// If none is, with the Debian package that has it.
pub(crate) fn program(candidates: &[&str], package: &str) -> PathBuf {
    find_program(candidates).unwrap_or_else(|| {
        panic!("{} is not installed: run ./test, or apt-get install {package}", candidates[0])
    })
}

/// The first of these programs that is installed, if one is.
pub(crate) fn find_program(candidates: &[&str]) -> Option<PathBuf> {
    let directories = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = std::env::split_paths(&directories).collect();
    // The servers' own directories are often not on an ordinary user's path.
    let system = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    candidates.iter().find_map(|candidate| {
        // An absolute path stays what it is when it is joined.
        let paths = directories.iter().chain(&system).map(|directory| directory.join(candidate));
        paths.into_iter().find(|path| path.is_file())
    })
}

/// A directory for a server's files, and the user that the server runs as: the
/// databases refuse to run as root.
pub(crate) struct Home {
    directory: TempDir,
    user: Option<(u32, u32)>,
}

impl Home {
    /// A new directory. A test that runs as root gives it to the named user, or
    /// to `nobody` if there is no such user.
    pub(crate) fn new(user: &str) -> Self {
        let directory = TempDir::new().expect("a temporary directory can be made");
        let user = geteuid().is_root().then(|| {
            user_ids(user).or_else(|| user_ids("nobody")).expect("the machine has a user nobody")
        });
        let home = Self { directory, user };
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755))
            .expect("one's own directory can be opened to others");
        // MariaDB clears the directory for temporary files when it starts, also of
        // the files of others.
        fs::create_dir(home.path().join("tmp")).expect("a directory can be made in one's own");
        home.own(&home.path().join("tmp"));
        home.own(home.path());
        home
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A file of the server's user that only it can read.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        let mut file = File::create(&path).expect("a file can be made in one's own directory");
        file.write_all(text.as_bytes()).expect("a small file can be written");
        self.keep_private(&path);
        path
    }

    /// Gives a file to the server's user, and to nobody else.
    pub(crate) fn keep_private(&self, path: &Path) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .expect("one's own file can be closed to others");
        self.own(path);
    }

    /// A command that runs in the directory as the server's user.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.path())
            .env("HOME", self.path())
            .env("TMPDIR", self.path().join("tmp"))
            .stdin(Stdio::null());
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }

    /// Gives a file to the server's user.
    pub(crate) fn own(&self, path: &Path) {
        if let Some((user, group)) = self.user {
            chown(path, Some(user), Some(group)).expect("root can give files away");
        }
    }
}

/// Runs a command to its end.
///
/// # Panics
/// If it fails, with what it wrote.
pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{} cannot be started: {error}", command.get_program().to_string_lossy())
    });
    assert!(
        output.status.success(),
        "{} failed ({}): {}{}",
        command.get_program().to_string_lossy(),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Starts a server on the port asked for, or on a free one: on another if somebody
/// took it meanwhile, which the error of `start` says then.
///
/// # Panics
/// If it does not start, or another test has the port asked for.
pub(crate) fn start_on_port<S>(
    asked: Option<u16>,
    mut start: impl FnMut(Port) -> Result<S, String>,
) -> S {
    let mut said = String::new();
    for _ in 0..PORT_TRIES {
        let port = match asked {
            Some(number) => Port::claim(number).expect("no other test has the port"),
            None => Port::reserve(),
        };
        match start(port) {
            Ok(server) => return server,
            Err(error) if error.contains("Address already in use") => said = error,
            Err(error) => panic!("the server ended at once {error}"),
        }
    }
    panic!("the server finds no port {said}");
}

/// Everything in a log so far; nothing if there is none.
pub(crate) fn log_text(path: &Path) -> String {
    let log = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&log).into_owned()
}

/// A server that runs. Dropping it kills it.
pub(crate) struct ServerProcess {
    child: Child,
    log: PathBuf,
}

impl ServerProcess {
    /// Starts a server whose output goes to the end of `log`, and waits until
    /// `is_ready` says so.
    ///
    /// # Panics
    /// If it ends or is not ready in time, with the end of its log.
    pub(crate) fn start(command: &mut Command, log: &Path, is_ready: impl Fn() -> bool) -> Self {
        Self::try_start(command, log, is_ready)
            .unwrap_or_else(|log_end| panic!("the server ended at once {log_end}"))
    }

    /// [`ServerProcess::start`] of a server that may end at once: the error is
    /// how it ended and the end of its log.
    ///
    /// # Panics
    /// If it is not ready in time.
    pub(crate) fn try_start(
        command: &mut Command,
        log: &Path,
        is_ready: impl Fn() -> bool,
    ) -> Result<Self, String> {
        let output = File::options().create(true).append(true).open(log).expect("the log opens");
        let errors = output.try_clone().expect("a file handle can be doubled");
        let child = command.stdout(output).stderr(errors).spawn().unwrap_or_else(|error| {
            panic!("{} cannot be started: {error}", command.get_program().to_string_lossy())
        });
        let mut server = Self { child, log: log.to_owned() };
        let deadline = Instant::now() + PATIENCE;
        while !is_ready() {
            let status = server.child.try_wait().expect("a child can be asked for its status");
            if let Some(status) = status {
                return Err(format!("({status}): {}", server.log_end()));
            }
            assert!(Instant::now() < deadline, "the server is not ready: {}", server.log_end());
            thread::sleep(POLL);
        }
        Ok(server)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended by itself.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks the server to stop, waits, and kills it if it does not.
    pub(crate) fn stop(mut self, signal: Signal) {
        self.signal(signal);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(POLL);
        }
    }

    /// Sends a signal, such as one that makes it stand still and one that makes
    /// it go on.
    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // One that has ended already cannot be asked any more.
        let _ = id.map(|id| kill_process(id, signal));
    }

    /// Makes the server stand still, and waits until each of its threads does:
    /// the signal alone lets them answer for a moment longer.
    ///
    /// # Panics
    /// If they go on for too long.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
        wait_until("the server stands still", || self.is_paused());
    }

    /// Makes the server go on after [`ServerProcess::pause`].
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Whether it stands still: all threads are in the state `T`.
    pub(crate) fn is_paused(&self) -> bool {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id()));
        tasks.expect("Linux lists the threads").flatten().all(|task| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            // The name stands in parentheses and may hold any.
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
        })
    }

    fn log_end(&self) -> String {
        let log = log_text(&self.log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether somebody listens at a port of the loopback address.
pub(crate) fn is_listening(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn user_ids(name: &str) -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields.as_slice() {
            [user, _, id, group, ..] if *user == name => {
                Some((id.parse().ok()?, group.parse().ok()?))
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_whose_port_somebody_took_is_given_another() {
        let mut seen = Vec::new();
        let started = start_on_port(None, |port| {
            seen.push(port.number());
            match seen.len() {
                1 => Err("(exit status: 1): bind: Address already in use".to_owned()),
                _ => Ok(port),
            }
        });
        assert_eq!(seen.len(), 2);
        assert_eq!(started.number(), seen[1]);
    }

    #[test]
    #[should_panic(expected = "the server ended at once (exit status: 1): no such option")]
    fn a_server_that_ends_for_another_reason_says_why() {
        start_on_port(None, |_| Err::<(), _>("(exit status: 1): no such option".to_owned()));
    }
}
