use std::fmt;

/// Which family of database a URL names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Dialect {
    /// A SQLite file: `sqlite:shop.db`.
    Sqlite,
    /// Postgres: `postgres://user@host:5432/shop`.
    Postgres,
    /// MySQL and MariaDB: `mysql://user@host:3306/shop`.
    MySql,
}

impl Dialect {
    /// The dialect that the scheme of a URL names; `None` for any other scheme.
    #[must_use]
    pub fn of_url(url: &str) -> Option<Self> {
        let (scheme, _) = url.split_once(':')?;
        match scheme {
            "sqlite" => Some(Self::Sqlite),
            "postgres" | "postgresql" => Some(Self::Postgres),
            "mysql" | "mariadb" => Some(Self::MySql),
            _ => None,
        }
    }

    /// The identifier quoted, so that any name is safe inside a statement.
    pub(crate) fn quote(self, identifier: &str) -> String {
        let mark = if self == Self::MySql { '`' } else { '"' };
        let mut quoted = String::with_capacity(identifier.len() + 2);
        quoted.push(mark);
        for c in identifier.chars() {
            if c == mark {
                quoted.push(mark);
            }
            quoted.push(c);
        }
        quoted.push(mark);
        quoted
    }

    /// `schema.name`, both quoted.
    pub(crate) fn quote_table(self, schema: &str, name: &str) -> String {
        format!("{}.{}", self.quote(schema), self.quote(name))
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "Postgres",
            Self::MySql => "MySQL",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_decides() {
        for (url, dialect) in [
            ("sqlite:shop.db", Some(Dialect::Sqlite)),
            ("postgresql://h/d", Some(Dialect::Postgres)),
            ("mariadb://h/d", Some(Dialect::MySql)),
            ("oracle://h/d", None),
            ("shop.db", None),
        ] {
            assert_eq!(Dialect::of_url(url), dialect, "{url}");
        }
    }

    #[test]
    fn a_quote_inside_a_name_is_doubled() {
        assert_eq!(Dialect::Postgres.quote(r#"o"dd"#), r#""o""dd""#);
        assert_eq!(Dialect::MySql.quote("o`dd"), "`o``dd`");
        assert_eq!(Dialect::Sqlite.quote_table("main", "a b"), r#""main"."a b""#);
    }
}
