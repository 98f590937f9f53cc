//! The URL of a database: what of it may be printed, and which options it may
//! have.

use larder_core::{Error, ErrorKind, Result};

use crate::Dialect;

/// The dialect of a URL all of whose options mean something.
///
/// The drivers leave out options that they do not know, one of them with a line
/// in the log that has the value: a password in the wrong place would be
/// printed, and a misspelled `ssl-mode` would encrypt nothing.
pub(crate) fn check(url: &str) -> Result<Dialect> {
    let dialect = dialect_of(url)?;
    let wrong =
        |what: &'static str| Error::new(ErrorKind::Config, what).with("database", redact(url));
    let Some((_, options)) = url.split_once('?') else { return Ok(dialect) };
    if dialect != Dialect::Sqlite && options.contains('@') {
        return Err(wrong("the URL has an @ behind its ?").remedy(
            "escape special characters in user, password and options: ? as %3F, # as %23, @ as %40",
        ));
    }
    let options = options.split('#').next().unwrap_or_default();
    for option in options.split('&').filter(|option| !option.is_empty()) {
        let name = option.split('=').next().unwrap_or_default();
        if !is_known(dialect, name) {
            return Err(wrong("the URL has an option that is not known")
                .with("option", shown(option))
                .with("known", known(dialect).join(", "))
                .remedy("correct its name, or take it out of the URL"));
        }
    }
    Ok(dialect)
}

/// The URL without anything that may be secret: scheme, host, port and database
/// are kept; user, password and options go. Text that is no URL is not shown.
pub(crate) fn redact(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once(':') else { return "?".to_owned() };
    let (address, options) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
    match address.strip_prefix("//") {
        // An unescaped mark in the password, not the start of the options.
        Some(_) if scheme != "sqlite" && options.contains('@') => format!("{scheme}://?"),
        Some(authority) if scheme != "sqlite" => {
            // The last `@` ends the credentials: a password may hold an unescaped one.
            let after = authority.rfind('@').map_or(0, |at| at + 1);
            format!("{scheme}://{}", &authority[after..])
        }
        _ if scheme == "sqlite" => {
            format!("sqlite:{}", address.strip_prefix("//").unwrap_or(address))
        }
        _ => format!("{scheme}:?"),
    }
}

fn dialect_of(url: &str) -> Result<Dialect> {
    Dialect::of_url(url).ok_or_else(|| {
        let scheme = url.split_once("://").map_or("none", |(scheme, _)| scheme);
        let is_scheme = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+');
        Error::new(ErrorKind::Config, "the database URL has an unknown scheme")
            .with("scheme", if is_scheme { scheme } else { "?" })
            .remedy("start the URL with sqlite:, postgres:// or mysql://")
    })
}

fn known(dialect: Dialect) -> &'static [&'static str] {
    match dialect {
        Dialect::Sqlite => &["mode", "cache", "immutable", "vfs"],
        Dialect::Postgres => &[
            "sslmode",
            "ssl-mode",
            "sslrootcert",
            "ssl-root-cert",
            "ssl-ca",
            "sslcert",
            "ssl-cert",
            "sslkey",
            "ssl-key",
            "statement-cache-capacity",
            "host",
            "hostaddr",
            "port",
            "dbname",
            "user",
            "password",
            "application_name",
            "options",
        ],
        Dialect::MySql => &[
            "sslmode",
            "ssl-mode",
            "sslca",
            "ssl-ca",
            "charset",
            "collation",
            "sslcert",
            "ssl-cert",
            "sslkey",
            "ssl-key",
            "statement-cache-capacity",
            "socket",
            "timezone",
            "time-zone",
        ],
    }
}

fn is_known(dialect: Dialect, name: &str) -> bool {
    // Postgres takes a setting of the session as `options[name]`.
    let setting = name.strip_prefix("options[").and_then(|rest| rest.strip_suffix(']'));
    known(dialect).contains(&name) || (dialect == Dialect::Postgres && setting.is_some())
}

/// The name of an option, if it looks like one and not like a piece of a
/// password: it has a value.
fn shown(option: &str) -> &str {
    let is_name = |name: &&str| {
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    };
    option.split_once('=').map(|(name, _)| name).filter(is_name).unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_is_cut_off() {
        for (url, label) in [
            ("postgres://ann:pa:ss@w0rd@h:5432/shop?password=x", "postgres://h:5432/shop"),
            ("mysql://root:hidden@127.0.0.1/shop#hidden", "mysql://127.0.0.1/shop"),
            ("mysql://u:hid?den@h/d", "mysql://?"),
            ("mysql://u:hid#den@h/d", "mysql://?"),
            ("postgres://u:h#id?den@h/d?sslmode=require", "postgres://?"),
            ("postgres://u:hid/den@h/d", "postgres://h/d"),
            ("sqlite://shop.db?mode=ro", "sqlite:shop.db"),
            ("sqlite:/var/shop@home.db", "sqlite:/var/shop@home.db"),
            ("hidden", "?"),
            ("postgres:hidden", "postgres:?"),
        ] {
            assert_eq!(redact(url), label);
        }
    }

    #[test]
    fn options_that_mean_nothing_are_refused_without_their_values() {
        for (url, part) in [
            ("postgres://u@h/d?sslmode=require&sslmod=hidden", "option: sslmod,"),
            ("postgres://u@h/d?connect_timeout=hidden", "option: connect_timeout,"),
            ("mysql://u@h/d?ssl_mode=hidden", "known: sslmode, ssl-mode"),
            ("mysql://u@h/d?hidden", "option: ?,"),
            ("mysql://u@h/d?hidden%3D1=2", "option: ?,"),
            ("mysql://u@h/d?options[x]=hidden", "option: ?,"),
            ("mysql://u:hid?den=hidden@h/d", "escape special characters"),
            ("postgres://h/d?password=hid@den", "escape special characters"),
            ("sqlite:shop.db?mod=hidden", "option: mod,"),
            ("hidden:x://y", "scheme: ?"),
        ] {
            let error = check(url).expect_err(url);
            let text = format!("{error} {error:?}");
            assert!(text.contains(part) && !text.contains("hid"), "{text}");
            assert_eq!(error.kind(), ErrorKind::Config);
        }
        for url in [
            "postgres://u:p@h/d?sslmode=require&options[search_path]=a&application_name=x",
            "mysql://u:p@h/d?ssl-mode=REQUIRED&charset=utf8mb4#x",
            "mysql://u:p@h/d?",
            "sqlite:shop@home.db?mode=ro&immutable=1",
        ] {
            assert!(check(url).is_ok(), "{url}");
        }
    }
}
