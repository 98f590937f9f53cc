//! Which texts are URLs of databases.

use larder_sql::Dialect;

/// What to say of a text that is none.
pub(crate) const REMEDY: &str = "it starts with sqlite:, postgres:// or mysql://";

/// Whether this is the URL of a database that Larder knows. Drivers take
/// `postgres:user@host` as well, and read the host as something else.
pub(crate) fn is_known(url: &str) -> bool {
    match Dialect::of_url(url) {
        Some(Dialect::Sqlite) => true,
        Some(_) => url.contains("://"),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_stands_behind_two_slashes() {
        for (url, known) in [
            ("sqlite:a.db", true),
            ("sqlite://a.db", true),
            ("postgres://h", true),
            ("mariadb://h", true),
            ("postgres:u:p@h", false),
            ("oracle://h", false),
            ("", false),
        ] {
            assert_eq!(is_known(url), known, "{url}");
        }
    }
}
