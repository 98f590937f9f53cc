//! The flags of `larder serve`, and those that other commands share with it.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::config::{
    Bind, DangerousCommand, LogFormat, LogLevel, OptionalDuration, Overrides, PolicyOptions,
    SizeOrShare, TtlText,
};

/// Serve a database, or plain keys, to Redis clients
///
/// Every table and view with a primary key answers as table:key, from memory
/// when it can and from the database, once, when it must. Keys of no table are
/// plain Redis-like keys. Without a database all keys are.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  larder serve --demo                                  a shop that does not exist, to look around
  larder serve --database sqlite:shop.db               a file
  larder serve --database postgres://ann@db/shop       a server
  larder serve --redis redis://cache:6379              in front of an existing Redis
  larder serve --config larder.toml                    queries, policies, several databases
  LARDER_DATABASE=mysql://db/shop larder serve         the same flags as environment variables
")]
pub struct ServeOptions {
    #[command(flatten)]
    pub(crate) source: SourceOptions,

    #[command(flatten)]
    pub(crate) demo: DemoOptions,

    /// An existing Redis to stand in front of: reads of strings come from memory
    /// while they hold, everything else passes through
    ///
    /// A password in a flag can be seen by everyone on the machine: set
    /// LARDER_REDIS instead, or password_env in the configuration file.
    #[arg(
        long,
        value_name = "URL",
        env = "LARDER_REDIS",
        hide_env_values = true,
        help_heading = "Data"
    )]
    pub(crate) redis: Option<String>,

    /// The address for Redis clients, with or without a port
    #[arg(long, value_name = "ADDRESS", env = "LARDER_BIND", help_heading = "Addresses")]
    bind: Option<Bind>,

    /// The port for Redis clients [default: 6380]
    #[arg(long, value_name = "PORT", env = "LARDER_PORT", help_heading = "Addresses")]
    port: Option<u16>,

    /// The address for metrics, health and caches over HTTP [default: 127.0.0.1:6381]
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        env = "LARDER_ADMIN_BIND",
        help_heading = "Addresses"
    )]
    admin_bind: Option<SocketAddr>,

    /// The environment variable that holds the password clients must give
    #[arg(long, value_name = "NAME", env = "LARDER_PASSWORD_ENV", help_heading = "Clients")]
    password_env: Option<String>,

    /// How many clients may be connected at once [default: 10000]
    #[arg(long, value_name = "COUNT", env = "LARDER_MAX_CLIENTS", help_heading = "Clients")]
    max_clients: Option<usize>,

    /// Allow KEYS, FLUSHALL or FLUSHDB
    #[arg(
        long,
        value_name = "COMMAND",
        value_delimiter = ',',
        value_parser = dangerous_command,
        env = "LARDER_ALLOW_DANGEROUS",
        help_heading = "Clients"
    )]
    allow_dangerous: Vec<DangerousCommand>,

    #[command(flatten)]
    policy: PolicyFlags,

    /// What all caches and plain keys may take: a size or a share of the machine's memory
    /// [default: 25%]
    #[arg(long, value_name = "SIZE", env = "LARDER_MEMORY", help_heading = "Resources")]
    memory: Option<SizeOrShare>,

    /// How many threads may answer clients [default: one for each core]
    #[arg(long, value_name = "COUNT", env = "LARDER_THREADS", help_heading = "Resources")]
    threads: Option<usize>,

    /// How much is logged [default: info]
    #[arg(long, value_name = "LEVEL", env = "LARDER_LOG_LEVEL", help_heading = "Log")]
    log_level: Option<LogLevel>,

    /// How the log is written [default: auto]
    #[arg(long, value_name = "FORMAT", env = "LARDER_LOG_FORMAT", help_heading = "Log")]
    log_format: Option<LogFormat>,
}

/// Where the configuration and the data come from.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct SourceOptions {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", env = "LARDER_CONFIG", help_heading = "Data")]
    pub(crate) config: Option<PathBuf>,

    /// A database to serve; may be given several times, as URL or NAME=URL
    ///
    /// A password in a flag can be seen by everyone on the machine: set
    /// LARDER_DATABASE instead, or url_env in the configuration file.
    #[arg(
        short,
        long,
        value_name = "URL",
        env = "LARDER_DATABASE",
        hide_env_values = true,
        help_heading = "Data"
    )]
    pub(crate) database: Vec<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct DemoOptions {
    /// Serve a made-up shop of 100 000 rows
    #[arg(long, help_heading = "Data", conflicts_with = "database")]
    pub(crate) demo: bool,

    /// Where the demonstration is kept [default: your cache directory]
    #[arg(long, value_name = "DIR", requires = "demo", help_heading = "Data")]
    pub(crate) demo_dir: Option<PathBuf>,
}

/// Policies of every cache that the file does not give its own.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct PolicyFlags {
    /// How long answers are fresh, where the cache does not say [default: 5m]
    #[arg(long, value_name = "DURATION", env = "LARDER_TTL", help_heading = "Freshness")]
    ttl: Option<TtlText>,

    /// How long after that they are served when the database fails [default: off]
    #[arg(
        long,
        value_name = "DURATION",
        env = "LARDER_STALE_IF_ERROR",
        help_heading = "Freshness"
    )]
    stale_if_error: Option<OptionalDuration>,
}

impl PolicyFlags {
    pub(crate) fn options(&self) -> PolicyOptions {
        PolicyOptions {
            ttl: self.ttl,
            stale_if_error: self.stale_if_error,
            ..PolicyOptions::default()
        }
    }
}

impl ServeOptions {
    /// What the flags say.
    #[must_use]
    pub fn overrides(&self) -> Overrides {
        Overrides {
            bind: self.bind,
            port: self.port,
            admin_bind: self.admin_bind,
            threads: self.threads,
            max_clients: self.max_clients,
            memory: self.memory,
            password_env: self.password_env.clone(),
            dangerous_commands: self.allow_dangerous.clone(),
            log_level: self.log_level,
            log_format: self.log_format,
            redis: self.redis.clone(),
            databases: self.source.database.clone(),
            policy: self.policy.options(),
        }
    }
}

fn dangerous_command(text: &str) -> Result<DangerousCommand, String> {
    let known = [DangerousCommand::Keys, DangerousCommand::FlushAll, DangerousCommand::FlushDb];
    known
        .into_iter()
        .find(|command| command.name().eq_ignore_ascii_case(text))
        .ok_or_else(|| "it may be KEYS, FLUSHALL or FLUSHDB".to_owned())
}
