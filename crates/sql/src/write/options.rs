/// What of a cache can be written, and how. A table needs nothing of it.
///
/// ```
/// use larder_sql::WriteOptions;
///
/// // A table: optimistic writes are checked against this column.
/// let by_version = WriteOptions::new().version_column("version");
///
/// // A query: each change is a statement of one's own. `:id` is of the key, the
/// // other names are members of the value.
/// let declared = WriteOptions::new()
///     .put("INSERT INTO album (id, title) VALUES (:id, :title) \
///           ON CONFLICT (id) DO UPDATE SET title = excluded.title")
///     .remove("DELETE FROM album WHERE id = :id")
///     .add("stock", "UPDATE album SET stock = stock + :by WHERE id = :id");
/// # let _ = (by_version, declared);
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct WriteOptions {
    /// The column that counts the versions of a row: a whole number, which each
    /// write of a table increments and each declared statement has to.
    pub version_column: Option<String>,
    /// The statement of a put, for a query.
    pub put: Option<String>,
    /// The statement of a removal, for a query.
    pub remove: Option<String>,
    /// The statement of a patch, for a query. A member that the patch lacks is
    /// NULL.
    pub patch: Option<String>,
    /// The statement of an addition for each field that can grow, for a query;
    /// `:by` is by how much.
    pub add: Vec<(String, String)>,
}

impl WriteOptions {
    /// Nothing declared.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the column that counts versions.
    #[must_use]
    pub fn version_column(mut self, column: impl Into<String>) -> Self {
        self.version_column = Some(column.into());
        self
    }

    /// Declares the statement of a put.
    #[must_use]
    pub fn put(mut self, statement: impl Into<String>) -> Self {
        self.put = Some(statement.into());
        self
    }

    /// Declares the statement of a removal.
    #[must_use]
    pub fn remove(mut self, statement: impl Into<String>) -> Self {
        self.remove = Some(statement.into());
        self
    }

    /// Declares the statement of a patch.
    #[must_use]
    pub fn patch(mut self, statement: impl Into<String>) -> Self {
        self.patch = Some(statement.into());
        self
    }

    /// Declares the statement by which a field grows.
    #[must_use]
    pub fn add(mut self, field: impl Into<String>, statement: impl Into<String>) -> Self {
        self.add.push((field.into(), statement.into()));
        self
    }

    /// The declared statements by name: `put`, `remove`, `patch`, `add.stock`.
    pub(crate) fn statements(&self) -> impl Iterator<Item = (String, &str)> {
        let single = [("put", &self.put), ("remove", &self.remove), ("patch", &self.patch)];
        let single =
            single.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text.as_deref()?)));
        let added = self.add.iter().map(|(field, text)| (format!("add.{field}"), text.as_str()));
        single.chain(added)
    }
}
