use std::collections::HashMap;

use larder_core::Result;
use sqlx::{PgConnection, Row};

use super::PostgresEngine;
use super::types::types;
use crate::catalog::{Relation, UniqueIndex};
use crate::engine::Pools;
use crate::table::{Column, Filled, TableKind};

/// The tables and views of these schemas, or of all but the system's.
pub(crate) async fn relations(
    pools: &Pools<PostgresEngine>,
    schemas: &[String],
) -> Result<Vec<Relation>> {
    let mut lease = pools.primary.acquire().await?;
    let (_, connection) = lease.parts();
    match read(connection, schemas).await {
        Ok(relations) => {
            lease.release();
            Ok(relations)
        }
        Err(error) => Err(lease.fail(pools.primary.label(), &error)),
    }
}

async fn read(connection: &mut PgConnection, schemas: &[String]) -> sqlx::Result<Vec<Relation>> {
    let mut relations = read_relations(connection, schemas).await?;
    let oids: Vec<i64> = relations.iter().map(|(oid, _)| *oid).collect();
    let places: HashMap<i64, usize> =
        oids.iter().enumerate().map(|(place, oid)| (*oid, place)).collect();
    read_columns(connection, &oids, |oid, column| {
        if let Some(&place) = places.get(&oid) {
            relations[place].1.columns.push(column);
        }
    })
    .await?;
    read_indexes(connection, &oids, |oid, is_primary, index| {
        let Some(&place) = places.get(&oid) else { return };
        if is_primary {
            relations[place].1.primary_key = index.columns;
        } else {
            relations[place].1.unique_indexes.push(index);
        }
    })
    .await?;
    for (_, relation) in &mut relations {
        if relation.columns.is_empty() && relation.obstacle.is_none() {
            relation.obstacle = Some((
                "the user of the URL may read none of its columns".to_owned(),
                "grant SELECT on it".to_owned(),
            ));
        }
    }
    Ok(relations.into_iter().map(|(_, relation)| relation).collect())
}

async fn read_relations(
    connection: &mut PgConnection,
    schemas: &[String],
) -> sqlx::Result<Vec<(i64, Relation)>> {
    // A view is followed to its table only if Postgres can update through it and
    // no rule of one's own says how: then each row of it is one of the table's.
    let rows = sqlx::query(
        "SELECT c.oid::int8, n.nspname::text, c.relname::text, c.relkind::text, \
            n.nspname = pg_catalog.current_schema(), \
            CASE WHEN c.relispartition THEN 'partition' \
                WHEN NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE') THEN 'privilege' \
                WHEN c.relkind = 'r' AND EXISTS ( \
                    SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid \
                ) THEN 'inherited' END, \
            CASE WHEN c.relkind = 'v' \
                AND pg_catalog.pg_relation_is_updatable(c.oid, false) & 16 = 16 \
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_rewrite r \
                    WHERE r.ev_class = c.oid AND r.rulename <> '_RETURN') \
                THEN pg_catalog.pg_get_viewdef(c.oid) END \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't' \
            AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%' \
            AND (pg_catalog.cardinality($1::text[]) = 0 OR n.nspname = ANY ($1::text[])) \
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d \
                WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
                AND d.objid = c.oid AND d.deptype = 'e') \
         ORDER BY n.nspname <> pg_catalog.current_schema(), n.nspname, c.relname",
    )
    .bind(schemas.to_vec())
    .fetch_all(connection)
    .await?;
    let relation = |row: &sqlx::postgres::PgRow| {
        let is_view = matches!(row.try_get::<String, _>(3)?.as_str(), "v" | "m");
        let obstacle: Option<String> = row.try_get(5)?;
        Ok((
            row.try_get(0)?,
            Relation {
                schema: row.try_get(1)?,
                name: row.try_get(2)?,
                kind: if is_view { TableKind::View } else { TableKind::Table },
                is_in_default_schema: row.try_get::<Option<bool>, _>(4)?.unwrap_or(false),
                columns: Vec::new(),
                primary_key: Vec::new(),
                unique_indexes: Vec::new(),
                definition: row.try_get(6)?,
                obstacle: obstacle.as_deref().map(obstacle_text),
            },
        ))
    };
    rows.iter().map(relation).collect()
}

fn obstacle_text(obstacle: &str) -> (String, String) {
    let (reason, remedy) = match obstacle {
        "partition" => ("it is a partition", "ask for the rows of the partitioned table"),
        "inherited" => (
            "other tables inherit from it, and their rows may have the same keys",
            "declare a cache whose query selects FROM ONLY it",
        ),
        _ => ("the user of the URL may not use its schema", "grant USAGE on the schema"),
    };
    (reason.to_owned(), remedy.to_owned())
}

async fn read_columns(
    connection: &mut PgConnection,
    relations: &[i64],
    mut add: impl FnMut(i64, Column),
) -> sqlx::Result<()> {
    let rows = sqlx::query(
        "SELECT a.attrelid::int8, a.attname::text, \
            pg_catalog.format_type(a.atttypid, a.atttypmod), a.atttypid::int8, a.attnotnull, \
            a.atttypmod, a.attidentity::text, a.attgenerated::text \
         FROM pg_catalog.pg_attribute a WHERE a.attrelid = ANY ($1::int8[]::oid[]) \
            AND a.attnum > 0 AND NOT a.attisdropped \
            AND pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'SELECT') \
         ORDER BY a.attrelid, a.attnum",
    )
    .bind(relations.to_vec())
    .fetch_all(&mut *connection)
    .await?;
    let mut oids = Vec::with_capacity(rows.len());
    for row in &rows {
        oids.push(row.try_get::<i64, _>(3)?);
    }
    let types = types(connection, oids).await?;
    for row in &rows {
        let Some(column_type) = types.get(&row.try_get::<i64, _>(3)?) else { continue };
        add(
            row.try_get(0)?,
            Column {
                name: row.try_get(1)?,
                type_name: row.try_get(2)?,
                key: column_type.key,
                fetch: column_type.fetch,
                kind: column_type.kind(row.try_get(5)?),
                filled: filled(&row.try_get::<String, _>(6)?, &row.try_get::<String, _>(7)?),
                is_nullable: !row.try_get::<bool, _>(4)?,
                cast: Some(column_type.cast.clone()),
                charset: None,
            },
        );
    }
    Ok(())
}

fn filled(identity: &str, generated: &str) -> Filled {
    match (identity, generated) {
        ("a", _) => Filled::Sequence,
        (_, "") => Filled::Writer,
        _ => Filled::Expression,
    }
}

async fn read_indexes(
    connection: &mut PgConnection,
    relations: &[i64],
    mut add: impl FnMut(i64, bool, UniqueIndex),
) -> sqlx::Result<()> {
    let rows = sqlx::query(
        "SELECT i.indrelid::int8, i.indisprimary, c.relname::text, ( \
            SELECT pg_catalog.array_agg(a.attname::text ORDER BY k.place) \
            FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, place) \
            JOIN pg_catalog.pg_attribute a \
                ON a.attrelid = i.indrelid AND a.attnum = k.number AND k.place <= i.indnkeyatts) \
         FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid \
         WHERE i.indrelid = ANY ($1::int8[]::oid[]) AND i.indisunique AND i.indisvalid \
            AND i.indpred IS NULL AND i.indexprs IS NULL \
         ORDER BY c.relname",
    )
    .bind(relations.to_vec())
    .fetch_all(connection)
    .await?;
    for row in rows {
        let columns = row.try_get::<Option<Vec<String>>, _>(3)?.unwrap_or_default();
        if !columns.is_empty() {
            add(row.try_get(0)?, row.try_get(1)?, UniqueIndex { name: row.try_get(2)?, columns });
        }
    }
    Ok(())
}
