//! What flags and environment variables say, which goes before the file.

use std::net::{IpAddr, SocketAddr};

use larder_sql::Dialect;

use super::{
    Config, DangerousCommand, LogFormat, LogLevel, OriginOptions, PolicyOptions, SizeOrShare,
};

/// What flags and environment variables say.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Overrides {
    /// `--bind`.
    pub bind: Option<Bind>,
    /// `--port`.
    pub port: Option<u16>,
    /// `--admin-bind`.
    pub admin_bind: Option<SocketAddr>,
    /// `--threads`.
    pub threads: Option<usize>,
    /// `--max-clients`.
    pub max_clients: Option<usize>,
    /// `--memory`.
    pub memory: Option<SizeOrShare>,
    /// `--password-env`.
    pub password_env: Option<String>,
    /// `--allow-dangerous`.
    pub dangerous_commands: Vec<DangerousCommand>,
    /// `--log-level`.
    pub log_level: Option<LogLevel>,
    /// `--log-format`.
    pub log_format: Option<LogFormat>,
    /// `--redis`.
    pub redis: Option<String>,
    /// `--database`, once for each: `URL` or `NAME=URL`.
    pub databases: Vec<String>,
    /// `--ttl` and `--stale-if-error`.
    pub policy: PolicyOptions,
}

/// An address with or without a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bind {
    /// Address and port.
    Socket(SocketAddr),
    /// An address; the port is said elsewhere.
    Address(IpAddr),
}

impl std::str::FromStr for Bind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.trim_start_matches('[').trim_end_matches(']');
        text.parse().map(Self::Socket).or_else(|_| address.parse().map(Self::Address)).map_err(
            |_| "this is not an IP address; write it like 127.0.0.1 or 127.0.0.1:6380".to_owned(),
        )
    }
}

impl Overrides {
    /// Puts what was said in place of what the file says.
    pub fn apply(&self, config: &mut Config) {
        let server = &mut config.server;
        match self.bind {
            Some(Bind::Socket(address)) => server.bind = address,
            Some(Bind::Address(address)) => server.bind.set_ip(address),
            None => {}
        }
        if let Some(port) = self.port {
            server.bind.set_port(port);
        }
        set(&mut server.admin_bind, self.admin_bind);
        set(&mut server.max_clients, self.max_clients);
        set(&mut server.log_level, self.log_level);
        set(&mut server.log_format, self.log_format);
        set(&mut config.memory.budget, self.memory);
        if self.threads.is_some() {
            server.threads = self.threads;
        }
        if let Some(name) = &self.password_env {
            server.password_env = Some(name.clone());
            server.password_file = None;
        }
        for command in &self.dangerous_commands {
            if !server.dangerous_commands.contains(command) {
                server.dangerous_commands.push(*command);
            }
        }
        if let Some(url) = &self.redis {
            config.front.url = Some(url.clone());
            config.front.url_env = None;
            config.front.urls.clear();
        }
        for database in &self.databases {
            add_database(config, database);
        }
    }
}

fn set<T>(option: &mut T, said: Option<T>) {
    if let Some(said) = said {
        *option = said;
    }
}

/// An origin for a URL: the one it names, or the file's only one, or a new one
/// named after the database.
fn add_database(config: &mut Config, database: &str) {
    let (name, url) = match database.split_once('=') {
        Some((name, url)) if Dialect::of_url(database).is_none() && is_name(name) => {
            (Some(name.to_owned()), url)
        }
        _ => (None, database),
    };
    let name = name.unwrap_or_else(|| match config.origins.first_key_value() {
        Some((only, origin)) if config.origins.len() == 1 && !is_from_flag(origin) => only.clone(),
        _ => new_name(config, url),
    });
    let origin = config.origins.entry(name).or_default();
    origin.url = Some(url.to_owned());
    origin.url_env = None;
}

/// What stands before the `=` of `NAME=URL`; other text may be part of a URL,
/// and of its password.
fn is_name(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
}

/// Whether nothing but its URL was said of an origin: then it came from another
/// `--database`, and is not to be replaced by this one.
fn is_from_flag(origin: &OriginOptions) -> bool {
    *origin == OriginOptions { url: origin.url.clone(), ..OriginOptions::default() }
}

/// The file of SQLite, or what stands behind the host of another database.
/// Nothing that may be part of a password.
fn database_of(url: &str) -> &str {
    let until_parameters = |text: &'_ str| text.find(['?', '#']).unwrap_or(text.len());
    if Dialect::of_url(url) == Some(Dialect::Sqlite) {
        return url[..until_parameters(url)].rsplit(['/', ':']).next().unwrap_or_default();
    }
    let Some((_, rest)) = url.split_once("://") else { return "" };
    let rest = match rest.rsplit_once('@') {
        // The `@` may stand in a parameter, and the parameter may be a password.
        Some((before, _)) if before.contains('?') => return "",
        Some((_, rest)) => rest,
        None => rest,
    };
    let address = &rest[..until_parameters(rest)];
    address.split_once('/').map_or("", |(_, path)| path.rsplit('/').next().unwrap_or_default())
}

/// The database's name, made fit for a label, and unused.
fn new_name(config: &Config, url: &str) -> String {
    let file = database_of(url);
    let stem = file.strip_suffix(".db").or_else(|| file.strip_suffix(".sqlite")).unwrap_or(file);
    let name: String =
        stem.chars().filter(|c| c.is_ascii_alphanumeric() || "_-".contains(*c)).take(32).collect();
    let name = if name.is_empty() { "main".to_owned() } else { name };
    if !config.origins.contains_key(&name) {
        return name;
    }
    let numbered = (2..).map(|number| format!("{name}{number}"));
    numbered.into_iter().find(|name| !config.origins.contains_key(name)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(databases: &[&str], config: &mut Config) -> Vec<String> {
        let databases = databases.iter().map(|database| (*database).to_owned()).collect();
        Overrides { databases, ..Overrides::default() }.apply(config);
        config.origins.keys().cloned().collect()
    }

    #[test]
    fn databases_are_named_after_themselves() {
        let urls = [
            "postgres://ann:pa=ss@db:5432/shop?a=b",
            "sqlite:/var/lib/my shop.db",
            "mysql://db",
            "crm=mysql://db/customers",
            "postgres://other/shop",
        ];
        let mut config = Config::default();
        assert_eq!(names(&urls, &mut config), ["crm", "main", "myshop", "shop", "shop2"]);
        assert_eq!(config.origins["crm"].url.as_deref(), Some("mysql://db/customers"));
    }

    #[test]
    fn no_part_of_a_password_becomes_a_name() {
        for url in [
            "postgres:u:hunter2@h",
            "postgres://u:hunt/er2@h",
            "postgres://u:hunt?er2@h/shop",
            "postgres://h/shop?password=hunt@er/2",
            "oracle://u:hunt=er2@h",
            "oracle:u:hunt=er2@h",
        ] {
            assert_eq!(names(&[url], &mut Config::default()), ["main"], "{url}");
        }
        assert_eq!(names(&["mysql://u:p@h/shop"], &mut Config::default()), ["shop"]);
    }

    #[test]
    fn the_only_origin_of_the_file_is_given_the_url() {
        let mut config = Config::default();
        let origin = OriginOptions { url_env: Some("X".into()), ..OriginOptions::default() };
        config.origins.insert("primary".to_owned(), origin);
        assert_eq!(names(&["sqlite:a.db"], &mut config), ["primary"]);
        assert_eq!(config.origins["primary"].url_env, None);
    }

    #[test]
    fn an_address_may_leave_the_port_to_others() {
        let mut config = Config::default();
        let overrides = Overrides {
            bind: Some("0.0.0.0".parse().expect("an address")),
            port: Some(7000),
            ..Overrides::default()
        };
        overrides.apply(&mut config);
        assert_eq!(config.server.bind.to_string(), "0.0.0.0:7000");
        assert!("localhost".parse::<Bind>().is_err());
        assert!("[::1]:80".parse::<Bind>().is_ok() && "::1".parse::<Bind>().is_ok());
    }
}
