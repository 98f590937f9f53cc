//! A Postgres server of one's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use crate::certificates;
use crate::process::{self, Home, ServerProcess};
use crate::psql;

/// A Postgres server on a free loopback port, in a temporary directory. It logs
/// every statement, unless it is durable, is stopped when it is dropped, and keeps
/// nothing.
///
/// Its user `larder` owns everything and has a password, which [`Postgres::url`]
/// holds.
///
/// ```no_run
/// let mut postgres = larder_testkit::postgres::Postgres::launch();
/// postgres.execute("CREATE TABLE t (id int PRIMARY KEY)");
/// postgres.stop();
/// postgres.start();
/// assert_eq!(postgres.statements("FROM t"), 0);
/// ```
pub struct Postgres {
    server: Option<ServerProcess>,
    home: Home,
    port: u16,
    certificate: Option<PathBuf>,
    durable: bool,
}

/// What a server is like before it is made.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// Whether it offers TLS, with a certificate that signs itself.
    pub tls: bool,
    /// The encoding of its databases.
    pub encoding: String,
    /// Whether what is committed is on the disk, as with Postgres' own defaults,
    /// and nothing is logged of statements: for measurements.
    pub durable: bool,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self { tls: false, encoding: "UTF8".to_owned(), durable: false }
    }
}

/// The password of the user `larder`; its odd characters are escaped in the URL.
pub const PASSWORD: &str = "s3cret@larder/%";
const PASSWORD_IN_URL: &str = "s3cret%40larder%2F%25";

impl Postgres {
    /// Makes and starts a server. Blocks: some seconds.
    ///
    /// # Panics
    /// If Postgres is not installed or does not start.
    #[must_use]
    pub fn launch() -> Self {
        Self::launch_with(&PostgresOptions::default())
    }

    /// [`Postgres::launch`] of a server with these options.
    ///
    /// # Panics
    /// As [`Postgres::launch`].
    #[must_use]
    pub fn launch_with(options: &PostgresOptions) -> Self {
        let home = Home::new("postgres");
        let password = home.write("password", PASSWORD);
        process::run(
            home.command(&binary("initdb"))
                .args(["--no-sync", "--username=larder", "--auth=scram-sha-256", "--locale=C"])
                .arg(format!("--encoding={}", options.encoding))
                .arg(format!("--pwfile={}", password.display()))
                .arg("--pgdata=data"),
        );
        let certificate = options.tls.then(|| certificates::self_signed(&home));
        let port = process::free_port();
        let mut postgres = Self { server: None, home, port, certificate, durable: options.durable };
        postgres.start();
        postgres
    }

    /// Starts the server again after [`Postgres::stop`], with the same port and
    /// data. Nothing happens if it runs.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(&mut self) {
        if self.server.is_some() {
            return;
        }
        let mut command = self.home.command(&binary("postgres"));
        command.args(["-D", "data", "-p"]).arg(self.port.to_string());
        let mut settings =
            vec!["listen_addresses=127.0.0.1", "unix_socket_directories=", "log_line_prefix=>"];
        settings.extend_from_slice(match self.durable {
            true => &["fsync=on", "synchronous_commit=on", "max_connections=100"],
            false => {
                &["fsync=off", "full_page_writes=off", "log_statement=all", "max_connections=60"]
            }
        });
        if self.certificate.is_some() {
            settings.extend([
                "ssl=on",
                "ssl_cert_file=../server.crt",
                "ssl_key_file=../server.key",
            ]);
        }
        for setting in settings {
            command.args(["-c", setting]);
        }
        let url = self.url("postgres");
        let is_ready = || process::is_listening(self.port) && answers(&url);
        self.server = Some(ServerProcess::start(&mut command, &self.log(), is_ready));
    }

    /// Stops the server at once: its connections break. Nothing happens if it
    /// does not run.
    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            // Postgres' immediate shutdown.
            server.stop(Signal::QUIT);
        }
    }

    /// Ends the server and each process of it at once, by SIGKILL, as when the
    /// machine takes its memory away. Nothing happens if it does not run.
    pub fn kill(&mut self) {
        let Some(server) = self.server.take() else { return };
        let id = server.id();
        // The children are asked for first: they are nobody's afterwards.
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let children = children.unwrap_or_default();
        let children: Vec<Pid> =
            children.split_whitespace().filter_map(|it| Pid::from_raw(it.parse().ok()?)).collect();
        server.stop(Signal::KILL);
        for child in &children {
            // It may have seen that the server is gone, and gone too.
            let _ = kill_process(*child, Signal::KILL);
        }
        let is_gone =
            |child: &Pid| !Path::new(&format!("/proc/{}", child.as_raw_nonzero())).exists();
        process::wait_until("the server's processes are gone", || children.iter().all(is_gone));
    }

    /// The URL of a database, with user and password.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://larder:{PASSWORD_IN_URL}@127.0.0.1:{}/{database}", self.port)
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The certificate, if the server offers TLS.
    #[must_use]
    pub fn certificate(&self) -> Option<&Path> {
        self.certificate.as_deref()
    }

    /// Runs a script in the database `postgres`, in one transaction, and returns
    /// what psql printed.
    ///
    /// # Panics
    /// If a statement fails.
    pub fn execute(&self, script: &str) -> String {
        psql::script(&self.url("postgres"), script)
    }

    /// How many statements the server has run so far whose text holds this one,
    /// parsing and binding not counted.
    #[must_use]
    pub fn statements(&self, text: &str) -> usize {
        let log = fs::read(self.log()).expect("the server writes a log");
        let log = String::from_utf8_lossy(&log).into_owned();
        // An entry can be longer than a line.
        log.split("\n>")
            .map(|entry| entry.trim_start_matches('>'))
            .filter(|entry| {
                let is_run =
                    entry.starts_with("LOG:  execute ") || entry.starts_with("LOG:  statement: ");
                is_run && entry.contains(text)
            })
            .count()
    }

    fn log(&self) -> PathBuf {
        self.home.path().join("log")
    }
}

/// Postgres keeps its own directory for each major version; the newest wins.
fn binary(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|version| {
            let number = version.file_name().to_str()?.parse().ok()?;
            let path = version.path().join("bin").join(name);
            path.is_file().then_some((number, path))
        })
        .collect();
    found.sort();
    match found.pop() {
        Some((_, path)) => path,
        None => process::program(&[name], "postgresql"),
    }
}

fn answers(url: &str) -> bool {
    Command::new("psql")
        .args(["--no-psqlrc", "--quiet", "--command=SELECT", url])
        .output()
        .is_ok_and(|output| output.status.success())
}
