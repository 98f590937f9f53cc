//! Many processes of one program, each with a configuration of its own: a fleet
//! of nodes that a test kills, pauses and restarts one by one.
//!
//! ```no_run
//! use std::path::Path;
//! use larder_testkit::fleet::{Fleet, Ready};
//!
//! # let binary = Path::new("larder");
//! let fleet = Fleet::start(binary, 3, Ready::page("admin", "/readyz"), |node, command| {
//!     let configuration = node.write("larder.toml", "[server]\n");
//!     command.arg("serve").arg("--config").arg(configuration);
//!     command.arg("--port").arg(node.port("redis").to_string());
//!     command.arg("--admin-bind").arg(node.address("admin").to_string());
//! });
//! let node = fleet.node(1);
//! node.pause();
//! node.resume();
//! node.kill();
//! node.start();
//! assert!(node.output().contains("ready"));
//! assert_eq!(fleet.node(0).page("admin", "/healthz").0, 200);
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{self, Port, ProcessSlot};

/// How long a page may take to come.
const PAGE_WAIT: Duration = Duration::from_secs(10);

/// Some nodes of one program. Dropping it kills every one.
#[derive(Debug)]
pub struct Fleet {
    nodes: Vec<Node>,
}

/// How a node is known to be ready.
#[derive(Clone, Debug)]
pub enum Ready {
    /// It has written this text, to standard output or standard error, since it
    /// was started.
    Output(String),
    /// `GET` of this path at its port of this name is answered with status 200.
    Page {
        /// The name of the port: see [`Node::port`].
        port: &'static str,
        /// The path, from its first slash on.
        path: String,
    },
}

impl Ready {
    /// [`Ready::Output`].
    #[must_use]
    pub fn output(text: &str) -> Self {
        Self::Output(text.to_owned())
    }

    /// [`Ready::Page`].
    #[must_use]
    pub fn page(port: &'static str, path: &str) -> Self {
        Self::Page { port, path: path.to_owned() }
    }
}

impl Fleet {
    /// Starts this many nodes and waits until all are ready. Blocks.
    ///
    /// `configure` is called whenever a node is started, again included: it adds
    /// arguments and environment to the command, and writes files. It can tell
    /// nodes apart by [`Node::place`]. The command runs in the node's directory
    /// and inherits the environment, without variables that begin with `LARDER_`.
    ///
    /// # Panics
    /// If a node ends or is not ready in time, with the end of its output.
    #[must_use]
    pub fn start(
        program: &Path,
        nodes: usize,
        ready: Ready,
        configure: impl Fn(&Node, &mut Command) + Send + Sync + 'static,
    ) -> Self {
        let fleet = Self::prepare(program, nodes, ready, configure);
        // Each waits for itself, all at once.
        std::thread::scope(|scope| {
            for node in &fleet.nodes {
                scope.spawn(|| node.start());
            }
        });
        fleet
    }

    /// [`Fleet::start`] of which no node runs yet.
    ///
    /// # Panics
    /// If the machine has no ports or no room for temporary files.
    #[must_use]
    pub fn prepare(
        program: &Path,
        nodes: usize,
        ready: Ready,
        configure: impl Fn(&Node, &mut Command) + Send + Sync + 'static,
    ) -> Self {
        let plan =
            Arc::new(Plan { program: program.to_owned(), ready, configure: Box::new(configure) });
        let node = |place| Node {
            process: ProcessSlot::default(),
            place,
            directory: TempDir::new().expect("a temporary directory can be made"),
            ports: Mutex::default(),
            started_at: Mutex::default(),
            plan: Arc::clone(&plan),
        };
        Self { nodes: (0..nodes).map(node).collect() }
    }

    /// A node, by its place: 0 and up.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn node(&self, place: usize) -> &Node {
        &self.nodes[place]
    }

    /// Every node.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The nodes that run and do not stand still.
    pub fn awake(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.is_awake())
    }

    /// What every node wrote so far, for the message of an assertion.
    #[must_use]
    pub fn output(&self) -> String {
        let headed = |node: &Node| format!("── {node:?}\n{}", node.output());
        self.nodes.iter().map(headed).collect::<Vec<_>>().join("\n")
    }
}

/// Shows a program a wall clock that is this many seconds ahead, or behind if
/// they are fewer than none. Its monotonic clock, by which it waits, is right.
///
/// # Panics
/// If libfaketime is not installed.
pub fn shift_wall_clock(command: &mut Command, seconds: i64) {
    let library =
        format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
    assert!(Path::new(&library).exists(), "run ./test, or apt-get install libfaketime");
    command
        .env("LD_PRELOAD", library)
        .env("FAKETIME", format!("{seconds:+}s"))
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
}

struct Plan {
    program: PathBuf,
    ready: Ready,
    configure: Box<Configure>,
}

type Configure = dyn Fn(&Node, &mut Command) + Send + Sync;

/// One process of a [`Fleet`], whether it runs or not. Its directory and its
/// ports stay the same when it is started again.
pub struct Node {
    /// Before the directory, so that it ends before that goes.
    process: ProcessSlot,
    place: usize,
    directory: TempDir,
    ports: Mutex<BTreeMap<String, Port>>,
    /// Where in the output the present run began.
    started_at: Mutex<usize>,
    plan: Arc<Plan>,
}

impl Node {
    /// Its place in the fleet.
    #[must_use]
    pub const fn place(&self) -> usize {
        self.place
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its port of this name, a free one when it is first asked for.
    ///
    /// # Panics
    /// If the machine has none.
    pub fn port(&self, name: &str) -> u16 {
        self.address(name).port()
    }

    /// The loopback address with [`Node::port`].
    ///
    /// # Panics
    /// If the machine has no port.
    pub fn address(&self, name: &str) -> SocketAddr {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        ports.entry(name.to_owned()).or_insert_with(Port::reserve).address()
    }

    /// Writes a file into its directory and returns the path.
    ///
    /// # Panics
    /// If that fails.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory().join(name);
        fs::write(&path, text).expect("a file can be written into one's own directory");
        path
    }

    /// Starts it and waits until it is ready. Blocks. Nothing happens if it runs.
    ///
    /// # Panics
    /// If it ends or is not ready in time, with the end of its output.
    pub fn start(&self) {
        if let Err(how) = self.try_start() {
            panic!("{self:?} ended at once {how}");
        }
    }

    /// [`Node::start`] of one that may end at once: it is told how, with the end
    /// of its output.
    ///
    /// # Errors
    /// If it ends before it is ready.
    ///
    /// # Panics
    /// If it is not ready in time.
    pub fn try_start(&self) -> Result<(), String> {
        if self.is_running() {
            return Ok(());
        }
        *self.started_at.lock().unwrap_or_else(PoisonError::into_inner) = self.output().len();
        let mut command = Command::new(&self.plan.program);
        command.current_dir(self.directory()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("LARDER_") {
                command.env_remove(name);
            }
        }
        (self.plan.configure)(self, &mut command);
        self.process.try_start(&mut command, &self.log_path(), || self.is_ready())
    }

    process::controls!();

    /// Asks it to end, by SIGTERM, and waits until it has. Nothing happens if it
    /// does not run.
    pub fn stop(&self) {
        self.process.stop();
    }

    /// [`Node::stop`] and [`Node::start`].
    ///
    /// # Panics
    /// As [`Node::start`].
    pub fn restart(&self) {
        self.stop();
        self.start();
    }

    /// Everything it wrote so far, to standard output and standard error, in
    /// every run.
    #[must_use]
    pub fn output(&self) -> String {
        process::log_text(&self.log_path())
    }

    /// What it wrote since it was started last.
    #[must_use]
    pub fn output_of_this_run(&self) -> String {
        let from = *self.started_at.lock().unwrap_or_else(PoisonError::into_inner);
        self.output().split_off(from)
    }

    /// The status and the body of a page at its port of this name. Blocks.
    ///
    /// # Panics
    /// If it is not answered within ten seconds.
    #[must_use]
    pub fn page(&self, port: &str, path: &str) -> (u16, String) {
        self.try_page(port, path)
            .unwrap_or_else(|error| panic!("{self:?} does not answer {path}: {error}"))
    }

    /// [`Node::page`] of a node that may be gone.
    ///
    /// # Errors
    /// If it is not answered, or not in HTTP.
    pub fn try_page(&self, port: &str, path: &str) -> io::Result<(u16, String)> {
        let address = self.address(port);
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PAGE_WAIT))?;
        // HTTP/1.0: the server closes behind its answer, which is not in chunks.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        parse_answer(&String::from_utf8_lossy(&answer))
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an answer of HTTP"))
    }

    fn is_ready(&self) -> bool {
        match &self.plan.ready {
            Ready::Output(text) => self.output_of_this_run().contains(text),
            Ready::Page { port, path } => {
                self.try_page(port, path).is_ok_and(|(status, _)| status == 200)
            }
        }
    }

    fn log_path(&self) -> PathBuf {
        self.directory().join("output.log")
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = self.plan.program.file_name().unwrap_or_default().to_string_lossy();
        write!(f, "node {} of {program}", self.place)
    }
}

fn parse_answer(answer: &str) -> Option<(u16, String)> {
    const STATUS: Range<usize> = 9..12;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.starts_with("HTTP/1.").then(|| head.get(STATUS))??;
    Some((status.parse().ok()?, body.to_owned()))
}
