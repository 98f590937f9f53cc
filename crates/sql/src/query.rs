use larder_core::{Error, ErrorKind, KeyPattern, Result};

use crate::KeyType;
use crate::failure::TABLE_REMEDY;
use crate::key_type::KeyColumn;

/// A key pattern and the SELECT that answers it.
///
/// ```
/// use larder_sql::{KeyType, QueryOptions};
///
/// let album = QueryOptions::new(
///     "album:{id}".parse()?,
///     "SELECT a.id, a.title, r.name AS artist FROM album a JOIN artist r USING (artist_id) WHERE a.id = :id",
/// );
/// let lines = QueryOptions::new(
///     "order:{id}:lines".parse()?,
///     "SELECT * FROM order_line WHERE order_id = :id ORDER BY number",
/// )
/// .list(true)
/// .parameter_type("id", KeyType::Integer);
/// # let _ = (album, lines);
/// # Ok::<_, larder_core::PatternError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QueryOptions {
    /// Which keys it answers.
    pub pattern: KeyPattern,
    /// One SELECT (or WITH … SELECT) with a parameter `:name` for each
    /// `{name}` of the pattern.
    pub select: String,
    /// `true`: the value is a JSON array of all rows, `[]` if there are none.
    /// `false`: the value is one row as a JSON object; none is absent, two are
    /// an error.
    pub list: bool,
    /// The types of parameters, by name, where they are not to be inferred;
    /// `types` in the server's configuration.
    pub parameter_types: Vec<(String, KeyType)>,
}

impl QueryOptions {
    /// One row for a key, types inferred.
    #[must_use]
    pub fn new(pattern: KeyPattern, select: impl Into<String>) -> Self {
        Self { pattern, select: select.into(), list: false, parameter_types: Vec::new() }
    }

    /// Whether the value is the array of all rows.
    #[must_use]
    pub fn list(mut self, list: bool) -> Self {
        self.list = list;
        self
    }

    /// Checks what can be checked without a connection: that it is one SELECT
    /// and that its parameters are those of the pattern.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](larder_core::ErrorKind::Config) with the remedy; a
    /// parameter that is wrong stands in its context as `parameter`.
    pub fn check(&self, dialect: crate::Dialect) -> larder_core::Result<()> {
        let parameters = self.pattern.parameters();
        crate::statement::Template::parse(dialect, &self.select, parameters).map(drop)
    }

    /// Checks what can be checked of declared writes without a connection: that
    /// each is one statement and uses the parameters of the pattern.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](larder_core::ErrorKind::Config) with the remedy; the
    /// context has the name of the statement as `statement`, such as `put` or
    /// `add.stock`, and a parameter that is wrong as `parameter`.
    pub fn check_writes(
        &self,
        dialect: crate::Dialect,
        options: &crate::WriteOptions,
    ) -> larder_core::Result<()> {
        crate::write::declared::parse(dialect, &self.pattern, self.list, options).map(drop)
    }

    /// Declares the type of a parameter.
    #[must_use]
    pub fn parameter_type(mut self, name: impl Into<String>, key_type: KeyType) -> Self {
        self.parameter_types.push((name.into(), key_type));
        self
    }
}

/// The type of each parameter: as declared, else as inferred.
pub(crate) fn parameter_types(
    options: &QueryOptions,
    infer: impl Fn(&str) -> Option<KeyColumn>,
) -> Result<Vec<KeyColumn>> {
    let parameters = options.pattern.parameters();
    for (name, _) in &options.parameter_types {
        if !parameters.contains(name) {
            return Err(Error::new(ErrorKind::Config, "a type is declared for no parameter")
                .with("parameter", name)
                .with("pattern has", parameters.join(", "))
                .remedy("correct the name, or take the type out"));
        }
    }
    let column_of = |name: &String| {
        let declared = options.parameter_types.iter().find(|(declared, _)| declared == name);
        let column =
            declared.map(|(_, key_type)| KeyColumn::new(*key_type)).or_else(|| infer(name));
        column.ok_or_else(|| {
            Error::new(ErrorKind::Config, "the type of a parameter cannot be told from the query")
                .with("parameter", name)
                .remedy(format!("declare it, such as types = {{ {name} = \"integer\" }}"))
        })
    };
    parameters.iter().map(column_of).collect()
}

/// Refuses columns that would be two members of one name.
pub(crate) fn check_columns(names: &[&str]) -> Result<()> {
    if names.is_empty() {
        return Err(
            Error::new(ErrorKind::Config, "the query has no columns").remedy("select at least one")
        );
    }
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            return Err(Error::new(ErrorKind::Config, "two columns of the query have one name")
                .with("column", name)
                .remedy("give one of them another name with AS"));
        }
    }
    Ok(())
}

/// The query was described twice, with another outcome.
pub(crate) fn changed_meanwhile() -> Error {
    Error::new(ErrorKind::Unavailable, "a table changed while the query was checked")
        .remedy("try again when nobody changes the tables")
}

/// What the database says of a query at start: its failure is one of the
/// configuration unless the database could not be reached.
pub(crate) fn refused(error: Error) -> Error {
    if error.is_retryable() || error.kind() == ErrorKind::Config {
        return error;
    }
    let mut refused = Error::new(ErrorKind::Config, REFUSED);
    for (name, value) in error.context() {
        refused = refused.with(name, value);
    }
    let remedy = match error.remedy_text() {
        // Nothing changed: the query is new.
        Some(TABLE_REMEDY) => "correct the names of tables and columns in the query",
        Some(remedy) => remedy,
        None => "try it in the database's own client",
    };
    refused.remedy(remedy.to_owned())
}

const REFUSED: &str = "the database refuses the query";

/// What the database says of a declared statement at start, by the name under
/// which it is declared.
pub(crate) fn refused_statement(error: Error, name: impl std::fmt::Display) -> Error {
    if error.message() != REFUSED {
        return error.with("statement", name);
    }
    let mut refused = Error::new(ErrorKind::Config, "the database refuses the statement");
    for (name, value) in error.context() {
        refused = refused.with(name, value);
    }
    let remedy = error.remedy_text().unwrap_or_default().replace("query", "statement");
    refused.with("statement", name).remedy(remedy)
}
