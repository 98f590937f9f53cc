use larder_core::KeyPattern;

use crate::Dialect;
use crate::statement::infer::KnownTable;
use crate::statement::view::{Items, SimpleView};
use crate::table::{Column, Introspection, KeySource, Skipped, Table, TableKind};

/// A table or view as the database's catalog tells of it.
#[derive(Clone, Debug)]
pub(crate) struct Relation {
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) kind: TableKind,
    /// In the schema whose tables are served by their bare name.
    pub(crate) is_in_default_schema: bool,
    pub(crate) columns: Vec<Column>,
    /// The columns of the primary key, in its order.
    pub(crate) primary_key: Vec<String>,
    /// Unique indexes over whole columns and all rows.
    pub(crate) unique_indexes: Vec<UniqueIndex>,
    /// The text of a view; `None` where it cannot be read.
    pub(crate) definition: Option<String>,
    /// A reason not to serve it that the columns do not show, with the remedy.
    pub(crate) obstacle: Option<(String, String)>,
}

#[derive(Clone, Debug)]
pub(crate) struct UniqueIndex {
    pub(crate) name: String,
    pub(crate) columns: Vec<String>,
}

/// Views over views are followed so far.
const VIEW_DEPTH_MAX: usize = 8;
/// [`KeyPattern`] takes no more.
const KEY_COLUMNS_MAX: usize = 16;

/// Sorts the relations into those that can be served and the others.
pub(crate) fn introspection(dialect: Dialect, relations: &[Relation]) -> Introspection {
    let mut tables: Vec<Table> = Vec::new();
    let mut skipped = Vec::new();
    for relation in relations {
        match table(dialect, relation, relations) {
            Ok(table) => {
                let pattern = table.key_pattern.as_str();
                let taken = tables
                    .iter()
                    .find(|other| other.key_pattern.prefix() == table.key_pattern.prefix());
                match taken {
                    None => tables.push(table),
                    Some(other) => skipped.push(Skipped {
                        name: shown_name(relation),
                        reason: format!(
                            "its keys {pattern} would be those of {}.{}",
                            other.schema, other.name
                        ),
                        remedy: snippet(dialect, relation),
                    }),
                }
            }
            Err((reason, remedy)) => {
                skipped.push(Skipped { name: shown_name(relation), reason, remedy });
            }
        }
    }
    Introspection { tables, skipped }
}

/// The tables as far as the types of their columns are of interest.
pub(crate) fn known_tables(relations: &[Relation]) -> Vec<KnownTable<'_>> {
    let known = |relation| {
        let Relation { name, columns, .. }: &Relation = relation;
        let columns = columns.iter().map(|column| (column.name.as_str(), column.key)).collect();
        KnownTable { name, columns }
    };
    relations.iter().map(known).collect()
}

type Obstacle = (String, String);

fn table(dialect: Dialect, relation: &Relation, all: &[Relation]) -> Result<Table, Obstacle> {
    if let Some(obstacle) = &relation.obstacle {
        return Err(obstacle.clone());
    }
    let (names, key_source) = identity(dialect, relation, all, VIEW_DEPTH_MAX)?;
    let mut key_columns = Vec::with_capacity(names.len());
    for name in &names {
        let column = relation.columns.iter().find(|column| column.name == *name);
        let Some(column) = column else {
            return Err((
                format!("its key column {name} cannot be read"),
                snippet(dialect, relation),
            ));
        };
        if column.key.is_none() {
            return Err((
                format!(
                    "its key column {name} is of type {}, which keys cannot spell",
                    column.type_name
                ),
                snippet(dialect, relation),
            ));
        }
        key_columns.push(column.clone());
    }
    if key_columns.len() > KEY_COLUMNS_MAX {
        return Err((
            format!("its key has {} columns, more than {KEY_COLUMNS_MAX}", key_columns.len()),
            snippet(dialect, relation),
        ));
    }
    let key_pattern = key_pattern(relation, &names)
        .ok_or_else(|| ("its name has a `{` or `}`".to_owned(), snippet(dialect, relation)))?;
    Ok(Table {
        schema: relation.schema.clone(),
        name: relation.name.clone(),
        kind: relation.kind,
        key_columns,
        columns: relation.columns.clone(),
        key_source,
        key_pattern,
    })
}

/// The columns that identify a row, and why.
fn identity(
    dialect: Dialect,
    relation: &Relation,
    all: &[Relation],
    depth: usize,
) -> Result<(Vec<String>, KeySource), Obstacle> {
    if !relation.primary_key.is_empty() {
        return Ok((relation.primary_key.clone(), KeySource::PrimaryKey));
    }
    // A materialized view says of no column that it is NOT NULL; a row whose key
    // has a NULL is the row of no key.
    let is_view = relation.kind == TableKind::View;
    let is_whole = |index: &&UniqueIndex| {
        index.columns.iter().all(|name| {
            relation
                .columns
                .iter()
                .any(|column| column.name == *name && (is_view || !column.is_nullable))
        })
    };
    let usable = relation.unique_indexes.iter().filter(is_whole);
    if let Some(index) = usable.min_by_key(|index| (index.columns.len(), &index.name)) {
        return Ok((index.columns.clone(), KeySource::UniqueIndex(index.name.clone())));
    }
    if is_view {
        return view_identity(dialect, relation, all, depth).ok_or_else(|| {
            (
                "it is a view for whose rows no key can be proved unique: only a view of one \
                     table that shows the table's whole key has one"
                    .to_owned(),
                snippet(dialect, relation),
            )
        });
    }
    Err((
        "it has neither a primary key nor a unique index over NOT NULL columns".to_owned(),
        format!("add a primary key, or {}", snippet(dialect, relation)),
    ))
}

fn view_identity(
    dialect: Dialect,
    view: &Relation,
    all: &[Relation],
    depth: usize,
) -> Option<(Vec<String>, KeySource)> {
    let simple = SimpleView::parse(dialect, view.definition.as_deref()?)?;
    let base = all.iter().find(|base| {
        base.name == simple.table && simple.schema.as_ref().unwrap_or(&view.schema) == &base.schema
    })?;
    let depth = depth.checked_sub(1)?;
    let (base_key, _) = identity(dialect, base, all, depth).ok()?;
    let shown: Vec<Option<&str>> = match &simple.items {
        Items::All => base.columns.iter().map(|column| Some(column.name.as_str())).collect(),
        Items::Columns(columns) => columns.iter().map(Option::as_deref).collect(),
    };
    if shown.len() != view.columns.len() {
        return None;
    }
    let key = base_key.iter().map(|name| {
        let place = shown
            .iter()
            .position(|shown| shown.is_some_and(|shown| same_column(dialect, shown, name)));
        place.map(|place| view.columns[place].name.clone())
    });
    Some((key.collect::<Option<_>>()?, KeySource::BaseTable(base.name.clone())))
}

/// Names of columns: in Postgres the definition spells them as they are, the
/// others do not tell upper from lower case.
fn same_column(dialect: Dialect, one: &str, other: &str) -> bool {
    match dialect {
        Dialect::Postgres => one == other,
        Dialect::MySql | Dialect::Sqlite => one.eq_ignore_ascii_case(other),
    }
}

fn shown_name(relation: &Relation) -> String {
    if relation.is_in_default_schema {
        relation.name.clone()
    } else {
        format!("{}.{}", relation.schema, relation.name)
    }
}

/// `name:{column}:{column}`, with what separates parts escaped in the name and
/// what cannot stand in a parameter's name replaced.
fn key_pattern(relation: &Relation, key: &[String]) -> Option<KeyPattern> {
    let mut text = shown_name(relation).replace('%', "%25").replace(':', "%3A");
    let mut taken: Vec<String> = Vec::with_capacity(key.len());
    for name in key {
        let mut parameter = parameter_name(name);
        while taken.contains(&parameter) {
            parameter.push('_');
        }
        text.push_str(":{");
        text.push_str(&parameter);
        text.push('}');
        taken.push(parameter);
    }
    text.parse().ok()
}

fn parameter_name(column: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' };
    let name: String = column.chars().map(allowed).collect();
    if name.is_empty() { "_".to_owned() } else { name }
}

/// What to write into the configuration to have it served all the same.
fn snippet(dialect: Dialect, relation: &Relation) -> String {
    let name = parameter_name(&relation.name);
    let column = relation.columns.first().map_or("id", |column| column.name.as_str());
    let parameter = parameter_name(column);
    let parameter =
        if parameter.starts_with(|c: char| c.is_ascii_digit()) { "id" } else { &parameter };
    let compared = match dialect {
        Dialect::Postgres => format!("{}::text", dialect.quote(column)),
        Dialect::MySql | Dialect::Sqlite => dialect.quote(column),
    };
    format!(
        "declare a cache: key = \"{name}:{{{parameter}}}\", query = \
         'SELECT * FROM {} WHERE {compared} = :{parameter}'",
        dialect.quote_table(&relation.schema, &relation.name),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeyType;
    use crate::key_type::KeyColumn;
    use crate::table::{Fetch, Filled};
    use crate::write::kind::ValueKind;

    fn column(name: &str, is_nullable: bool) -> Column {
        Column {
            name: name.to_owned(),
            type_name: "integer".to_owned(),
            key: Some(KeyColumn::new(KeyType::Integer)),
            fetch: Fetch::Native,
            kind: ValueKind::Any,
            filled: Filled::Writer,
            is_nullable,
            cast: None,
            charset: None,
        }
    }

    fn relation(name: &str, columns: &[&str], primary_key: &[&str]) -> Relation {
        Relation {
            schema: "main".to_owned(),
            name: name.to_owned(),
            kind: TableKind::Table,
            is_in_default_schema: true,
            columns: columns.iter().map(|name| column(name, false)).collect(),
            primary_key: primary_key.iter().map(|name| (*name).to_owned()).collect(),
            unique_indexes: Vec::new(),
            definition: None,
            obstacle: None,
        }
    }

    fn view(name: &str, columns: &[&str], definition: &str) -> Relation {
        Relation {
            kind: TableKind::View,
            definition: Some(definition.to_owned()),
            ..relation(name, columns, &[])
        }
    }

    fn served(relations: &[Relation]) -> Vec<String> {
        let introspection = introspection(Dialect::Sqlite, relations);
        introspection.tables.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn odd_names_make_sound_patterns() {
        let mut other = relation("t", &["id"], &["id"]);
        other.is_in_default_schema = false;
        other.schema = "aux".to_owned();
        let odd =
            relation("a:b%", &["Ünicode x", "_nicode x", ""], &["Ünicode x", "_nicode x", ""]);
        assert_eq!(
            served(&[relation("t", &["id"], &["id"]), other, odd]),
            ["t:{id}", "aux.t:{id}", "a%3Ab%25:{_nicode_x}:{_nicode_x_}:{_}"]
        );
        assert_eq!(served(&[relation("a{b", &["id"], &["id"])]), [""; 0]);
    }

    #[test]
    fn the_smallest_unique_index_over_not_null_columns_replaces_a_primary_key() {
        let mut table = relation("t", &["a", "b", "c"], &[]);
        table.columns[2].is_nullable = true;
        let index = |name: &str, columns: &[&str]| UniqueIndex {
            name: name.to_owned(),
            columns: columns.iter().map(|name| (*name).to_owned()).collect(),
        };
        table.unique_indexes =
            vec![index("x", &["c"]), index("y", &["a", "b"]), index("z", &["b"])];
        let found = introspection(Dialect::Sqlite, std::slice::from_ref(&table));
        assert_eq!(found.tables[0].key_source, KeySource::UniqueIndex("z".to_owned()));
        table.unique_indexes.truncate(1);
        let skipped = introspection(Dialect::Sqlite, &[table]).skipped;
        assert!(skipped[0].reason.contains("neither a primary key"), "{}", skipped[0]);
        assert!(skipped[0].remedy.contains("key = \"t:{a}\""), "{}", skipped[0]);
    }

    #[test]
    fn a_view_takes_the_key_of_its_table_also_through_a_view() {
        let relations = [
            relation("t", &["id", "part", "x"], &["id", "part"]),
            view("v", &["nr", "part"], "CREATE VIEW v AS SELECT id AS nr, part FROM t"),
            view("w", &["part", "nr"], "CREATE VIEW w AS SELECT part, nr FROM v WHERE nr > 0"),
            view("lost", &["id"], "CREATE VIEW lost AS SELECT id FROM t"),
            view("me", &["id"], "CREATE VIEW me AS SELECT id FROM me"),
        ];
        assert_eq!(served(&relations), ["t:{id}:{part}", "v:{nr}:{part}", "w:{nr}:{part}"]);
    }

    #[test]
    fn two_tables_with_the_same_keys_are_not_both_served() {
        let mut other = relation("t", &["id"], &["id"]);
        other.is_in_default_schema = false;
        other.schema = "a".to_owned();
        let relations = [relation("a.t", &["id"], &["id"]), other];
        let found = introspection(Dialect::Sqlite, &relations);
        assert_eq!((found.tables.len(), found.skipped.len()), (1, 1));
    }
}
