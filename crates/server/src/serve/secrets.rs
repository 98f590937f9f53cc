//! Passwords and URLs that stand in the environment or in files, not in the
//! configuration.

use larder_core::{Error, ErrorKind, Result};

use crate::config::{Config, OriginOptions};
use crate::resp::User;

/// The variable that holds the clients' password if the configuration names no
/// other.
const PASSWORD_VARIABLE: &str = "LARDER_PASSWORD";

/// A password file is one line; anything longer is another kind of file.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// The password of the user `default`, if clients must give one.
///
/// # Errors
/// [`ErrorKind::Config`] if it is said to be somewhere and is not.
pub(super) fn password(config: &Config) -> Result<Option<String>> {
    let server = &config.server;
    if server.password_env.is_none() && server.password_file.is_none() {
        return Ok(std::env::var(PASSWORD_VARIABLE).ok().filter(|password| !password.is_empty()));
    }
    read(server.password_env.as_deref(), server.password_file.as_deref())
}

/// The users with passwords of their own.
///
/// # Errors
/// As [`password`].
pub(super) fn users(config: &Config) -> Result<Vec<User>> {
    let mut users = Vec::with_capacity(config.server.users.len());
    for (name, user) in &config.server.users {
        let password = read(user.password_env.as_deref(), user.password_file.as_deref())
            .map_err(|error| error.with("user", name))?;
        if let Some(password) = password {
            users.push(User { name: name.clone(), password });
        }
    }
    Ok(users)
}

/// The URL of an origin, and of its replica if it has one.
///
/// # Errors
/// [`ErrorKind::Config`] if a variable that should hold one is not set.
pub(super) fn urls(origin: &OriginOptions) -> Result<(String, Option<String>)> {
    let url = url(origin.url.as_deref(), origin.url_env.as_deref())?.ok_or_else(|| {
        Error::new(ErrorKind::Config, "the origin has no URL").remedy("set url or url_env")
    })?;
    Ok((url, self::url(origin.replica_url.as_deref(), origin.replica_url_env.as_deref())?))
}

fn url(url: Option<&str>, variable: Option<&str>) -> Result<Option<String>> {
    match (url, variable) {
        (Some(url), _) => Ok(Some(url.to_owned())),
        (None, Some(name)) => variable_value(name).map(Some),
        (None, None) => Ok(None),
    }
}

pub(super) fn read(variable: Option<&str>, file: Option<&str>) -> Result<Option<String>> {
    match (variable, file) {
        (Some(name), _) => variable_value(name).map(Some),
        (None, Some(path)) => file_value(path).map(Some),
        (None, None) => Ok(None),
    }
}

pub(super) fn variable_value(name: &str) -> Result<String> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    value.ok_or_else(|| {
        Error::new(ErrorKind::Config, "an environment variable is not set")
            .with("variable", name)
            .remedy(format!("set {name}, or name another variable in the configuration"))
    })
}

pub(super) fn file_value(path: &str) -> Result<String> {
    use std::io::Read;
    let refuse = |why: &dyn std::fmt::Display| {
        Error::new(ErrorKind::Config, "a password file cannot be used")
            .with("file", path)
            .with("reason", why)
            .remedy("it holds the password on one line, readable by this user")
    };
    let file = std::fs::File::open(path).map_err(|error| refuse(&error))?;
    let mut text = String::new();
    // One byte more than allowed, so that a longer file is refused and not cut.
    file.take(PASSWORD_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| refuse(&error))?;
    if text.len() as u64 > PASSWORD_BYTES_MAX {
        return Err(refuse(&format_args!("it is longer than {PASSWORD_BYTES_MAX} bytes")));
    }
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() || password.contains('\n') {
        return Err(refuse(&"it is not one line"));
    }
    Ok(password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_file_holds_one_line() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("password");
        let path = path.to_str().expect("the path is text");
        let (most, more) = ("x".repeat(4096), "x".repeat(4097));
        for (text, password) in [
            ("secret\n", Some("secret")),
            ("secret", Some("secret")),
            ("", None),
            ("a\nb\n", None),
            (&most, Some(most.as_str())),
            (&more, None),
        ] {
            std::fs::write(path, text).expect("it can be written");
            assert_eq!(file_value(path).ok().as_deref(), password, "{text:?}");
        }
        let error = file_value("/no/such/file").expect_err("it is not there").to_string();
        assert!(error.contains("/no/such/file"), "{error}");
    }

    #[test]
    fn a_variable_that_is_not_set_is_named() {
        let origin = OriginOptions {
            url_env: Some("LARDER_TEST_NOT_SET".to_owned()),
            ..OriginOptions::default()
        };
        let error = urls(&origin).expect_err("it is not set").to_string();
        assert!(error.contains("set LARDER_TEST_NOT_SET"), "{error}");
    }
}
