//! A server of its own for a test: the real program on ports that the system
//! chooses, ended by its process id.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything in these tests may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The program under test, with nothing of the environment that it reads.
pub(crate) fn larder() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LARDER_")) {
        command.env_remove(name);
    }
    command.env("COLUMNS", "100");
    command
}

/// A server that runs.
pub(crate) struct Running {
    child: Child,
    /// Where Redis clients connect.
    pub(crate) redis: SocketAddr,
    /// Where the administration answers.
    pub(crate) admin: SocketAddr,
    /// What it said when it was ready.
    pub(crate) banner: String,
    stderr: PathBuf,
}

impl Running {
    /// Starts `larder serve` with these arguments. The log goes to a file in
    /// the directory.
    pub(crate) fn start(directory: &Path, arguments: &[&str]) -> Self {
        Self::start_with(directory, arguments, |_| {})
    }

    /// The same, with a change to the command.
    pub(crate) fn start_with(
        directory: &Path,
        arguments: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> Self {
        let stderr = directory.join("server.log");
        let log = std::fs::File::create(&stderr).expect("the log can be written");
        let mut command = larder();
        command
            .arg("serve")
            .args(["--bind", "127.0.0.1", "--port", "0", "--admin-bind", "127.0.0.1:0"])
            .args(["--memory", "64MiB", "--threads", "1"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        change(&mut command);
        let mut child = command.spawn().expect("the program starts");
        let banner = read_banner(&mut child, &stderr);
        let address = |label: &str| {
            let line = banner.lines().find_map(|line| line.trim().strip_prefix(label));
            let text = line.expect("the banner names its addresses").trim();
            text.trim_start_matches("http://").parse().expect("it is an address")
        };
        let (redis, admin) = (address("Redis"), address("admin"));
        Self { child, redis, admin, banner, stderr }
    }

    /// A connection for commands.
    pub(crate) async fn redis(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(format!("redis://{}", self.redis)).expect("a URL");
        // The client's own patience is a second at most.
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let connection = client.get_multiplexed_async_connection_with_config(&config).await;
        connection.expect("the door is open")
    }

    /// The status and the JSON of a page.
    pub(crate) async fn page(&self, path: &str) -> (u16, Value) {
        let response = self.request(reqwest::Method::GET, path).await;
        let status = response.status().as_u16();
        (status, response.json().await.expect("the page is JSON"))
    }

    /// Any request to the administration.
    pub(crate) async fn request(&self, method: reqwest::Method, path: &str) -> reqwest::Response {
        let url = format!("http://{}{path}", self.admin);
        reqwest::Client::new()
            .request(method, url)
            .timeout(PATIENCE)
            .send()
            .await
            .expect("the administration answers")
    }

    /// The value of one metric, by its name and labels as they are written.
    pub(crate) async fn metric(&self, sample: &str) -> Option<f64> {
        let response = self.request(reqwest::Method::GET, "/metrics").await;
        let text = response.text().await.expect("metrics are text");
        let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.map(|number| number.parse().expect("a sample is a number"))
    }

    /// Waits until a metric has at least this value; returns it.
    pub(crate) async fn wait_for_metric(&self, sample: &str, least: f64) -> f64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(value) = self.metric(sample).await.filter(|value| *value >= least) {
                return value;
            }
            assert!(Instant::now() < deadline, "{sample} is below {least}; log:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends a signal, by its name without `SIG`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status().expect("kill runs");
        assert!(sent.success(), "the server is gone; log:\n{}", self.log());
    }

    /// Waits for the server to end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status;
            }
            assert!(Instant::now() < deadline, "the server does not end; log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads standard output up to the line with the last address.
fn read_banner(child: &mut Child, stderr: &Path) -> String {
    let stdout = child.stdout.take().expect("standard output is a pipe");
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(stdout);
        let mut banner = String::new();
        while let Ok(1..) = lines.read_line(&mut banner) {
            if banner.contains("\n  admin ") {
                break;
            }
        }
        // The rest is read so that the server never waits for a reader.
        let _ = send.send(banner);
        let _ = lines.read_to_end(&mut Vec::new());
    });
    let log = || std::fs::read_to_string(stderr).unwrap_or_default();
    let banner = receive.recv_timeout(PATIENCE);
    let banner = banner.unwrap_or_else(|_| panic!("the server does not start; log:\n{}", log()));
    assert!(banner.contains("\n  admin "), "the server ended at once; log:\n{}", log());
    banner
}

/// Waits until something holds.
pub(crate) async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it does not come: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
