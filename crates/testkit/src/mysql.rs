//! A MariaDB server of one's own, which speaks MySQL's protocol.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::certificates::Authority;
use crate::process::{self, Home, ServerProcess};
use crate::psql;

/// A MariaDB server on a free loopback port, in a temporary directory. It logs
/// every statement, is stopped when it is dropped, and keeps nothing.
///
/// Its user `larder` may do everything and has a password, which [`MySql::url`]
/// holds; its database is `larder`.
pub struct MySql {
    server: Option<ServerProcess>,
    home: Home,
    port: u16,
    authority: Option<Authority>,
}

/// The password of the user `larder`.
pub const PASSWORD: &str = "s3cretlarder";

/// Also what tells that the server is ready: it listens only after this.
const SETUP: &str = "\
    CREATE DATABASE IF NOT EXISTS larder CHARACTER SET utf8mb4;\n\
    CREATE OR REPLACE USER 'larder'@'127.0.0.1' IDENTIFIED BY 's3cretlarder';\n\
    GRANT ALL ON *.* TO 'larder'@'127.0.0.1' WITH GRANT OPTION;\n";

impl MySql {
    /// Makes and starts a server. Blocks: some seconds.
    ///
    /// # Panics
    /// If MariaDB is not installed or does not start.
    #[must_use]
    pub fn launch() -> Self {
        Self::launch_with(false)
    }

    /// [`MySql::launch`] of a server that offers TLS, with a certificate that
    /// an authority of its own signed.
    ///
    /// # Panics
    /// As [`MySql::launch`].
    #[must_use]
    pub fn launch_with_tls() -> Self {
        Self::launch_with(true)
    }

    fn launch_with(tls: bool) -> Self {
        let home = Home::new("mysql");
        let install =
            process::program(&["mariadb-install-db", "mysql_install_db"], "mariadb-server");
        process::run(
            home.command(&install)
                .args([
                    "--no-defaults",
                    "--skip-test-db",
                    "--auth-root-authentication-method=normal",
                ])
                .arg(format!("--datadir={}", home.path().join("data").display())),
        );
        home.write("setup.sql", SETUP);
        let authority = tls.then(Authority::new);
        if let Some(authority) = &authority {
            // Not for 127.0.0.1: tests connect under a name that it does not have.
            authority.sign_for(&home, &["DNS:localhost"]);
        }
        let mut mysql = Self { server: None, home, port: process::free_port(), authority };
        mysql.start();
        mysql
    }

    /// Starts the server again after [`MySql::stop`], with the same port and
    /// data. Nothing happens if it runs.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(&mut self) {
        if self.server.is_some() {
            return;
        }
        let path = |name: &str| self.home.path().join(name).display().to_string();
        let mut command =
            self.home.command(&process::program(&["mariadbd", "mysqld"], "mariadb-server"));
        command
            .args([
                "--no-defaults",
                "--bind-address=127.0.0.1",
                "--skip-name-resolve",
                "--general-log",
            ])
            .args(["--innodb-flush-log-at-trx-commit=0", "--max-connections=60"])
            .arg(format!("--datadir={}", path("data")))
            .arg(format!("--socket={}", path("socket")))
            .arg(format!("--pid-file={}", path("pid")))
            .arg(format!("--init-file={}", path("setup.sql")))
            .arg(format!("--general-log-file={}", path("statements")))
            .arg(format!("--port={}", self.port));
        if self.authority.is_some() {
            command
                .arg(format!("--ssl-cert={}", path("server.crt")))
                .arg(format!("--ssl-key={}", path("server.key")));
        }
        let is_ready = || process::is_listening(self.port) && self.answers();
        self.server =
            Some(ServerProcess::start(&mut command, &self.home.path().join("log"), is_ready));
    }

    /// Stops the server: its connections break. Nothing happens if it does not
    /// run.
    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop(Signal::TERM);
        }
    }

    /// Makes the server stand still: it neither answers nor breaks connections.
    pub fn pause(&self) {
        self.server.as_ref().inspect(|server| server.pause());
    }

    /// Makes the server go on after [`MySql::pause`].
    pub fn resume(&self) {
        self.server.as_ref().inspect(|server| server.resume());
    }

    /// The URL of a database, with user and password.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("mysql://larder:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The certificate to trust, if the server offers TLS: the authority's.
    #[must_use]
    pub fn certificate(&self) -> Option<&Path> {
        self.authority.as_ref().map(Authority::certificate)
    }

    /// Runs a script in the database `larder` and returns what the client
    /// printed.
    ///
    /// # Panics
    /// If a statement fails.
    pub fn execute(&self, script: &str) -> String {
        psql::run(self.client(), script)
    }

    /// How many statements the server has run so far whose text holds this one,
    /// preparing not counted.
    #[must_use]
    pub fn statements(&self, text: &str) -> usize {
        let log = fs::read(self.home.path().join("statements")).expect("the server writes a log");
        let log = String::from_utf8_lossy(&log).into_owned();
        log.lines()
            .filter(|line| {
                (line.contains(" Execute\t") || line.contains(" Query\t")) && line.contains(text)
            })
            .count()
    }

    fn client(&self) -> Command {
        let mut client = Command::new(process::program(&["mariadb", "mysql"], "mariadb-client"));
        client
            .args(["--no-defaults", "--batch", "--skip-column-names", "--protocol=tcp"])
            .args(["--host=127.0.0.1", "--user=larder", "--default-character-set=utf8mb4"])
            .arg(format!("--port={}", self.port))
            .arg("larder")
            .env("MYSQL_PWD", PASSWORD);
        client
    }

    fn answers(&self) -> bool {
        let mut client = self.client();
        client.arg("--execute=SELECT 1").output().is_ok_and(|output| output.status.success())
    }
}
