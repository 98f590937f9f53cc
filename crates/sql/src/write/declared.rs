//! Writes of a query's cache: statements that somebody declared.

use bytes::Bytes;
use larder_core::{
    Action, Error, ErrorKind, Expected, Key, KeyPattern, Result, Value, Version, Write,
    WriteAbilities, Written,
};
use serde_json::value::RawValue;

use super::apply::expected_number;
use super::members::{members, whole_number};
use super::table::{key_argument, shown, unknown_action};
use super::value::{self, Argument, Misfit};
use super::{Bound, Change, Operation};
use crate::plan::{Plan, Request};
use crate::statement::Template;
use crate::{Dialect, WriteOptions, json};

/// The declared statements of a cache, ready to run.
#[derive(Debug)]
pub(crate) struct DeclaredWrites {
    pub(crate) dialect: Dialect,
    pub(crate) version_column: Option<String>,
    pub(crate) statements: Vec<DeclaredStatement>,
}

/// One declared statement.
#[derive(Clone, Debug)]
pub(crate) struct DeclaredStatement {
    pub(crate) verb: Verb,
    /// As it is sent.
    pub(crate) sql: String,
    /// What it is given, in the order of its placeholders; in Postgres each of
    /// them once.
    pub(crate) parameters: Vec<Parameter>,
}

/// What a declared statement is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verb {
    Put,
    Remove,
    Patch,
    /// Of this field.
    Add(String),
}

/// What stands for a parameter.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Parameter {
    /// The part of the key at this place.
    Key(usize),
    /// A member of the value.
    Member(String),
    /// By how much a field grows.
    By,
    /// The version that is expected, NULL for any.
    ExpectedVersion,
}

impl Verb {
    /// The name under which the statement is declared.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Put => "put".to_owned(),
            Self::Remove => "remove".to_owned(),
            Self::Patch => "patch".to_owned(),
            Self::Add(field) => format!("add.{field}"),
        }
    }
}

const BY: &str = "by";
const EXPECTED_VERSION: &str = "expected_version";

/// A declared statement cut at its parameters, as far as it can be checked
/// without a connection.
pub(crate) struct Parsed {
    pub(crate) verb: Verb,
    pub(crate) template: Template,
    /// Each parameter once.
    pub(crate) parameters: Vec<Parameter>,
}

/// Cuts the declared statements at their parameters.
///
/// # Errors
/// [`ErrorKind::Config`]; the context holds the statement's name as `statement`
/// and a parameter that is wrong as `parameter`.
pub(crate) fn parse(
    dialect: Dialect,
    pattern: &KeyPattern,
    is_list: bool,
    options: &WriteOptions,
) -> Result<Vec<Parsed>> {
    let mut parsed: Vec<Parsed> = Vec::new();
    for (name, sql) in options.statements() {
        let verb = match name.split_once('.') {
            Some((_, field)) => Verb::Add(field.to_owned()),
            None if name == "put" => Verb::Put,
            None if name == "remove" => Verb::Remove,
            None => Verb::Patch,
        };
        if parsed.iter().any(|known| known.verb == verb) {
            return Err(Error::new(ErrorKind::Config, "two statements are declared for one field")
                .with("statement", name)
                .remedy("keep one of them"));
        }
        if is_list && verb != Verb::Remove {
            return Err(Error::new(ErrorKind::Config, "a list can only be removed as a whole")
                .with("statement", name)
                .remedy("declare the writes of the rows at a cache of the rows"));
        }
        let one = parse_one(dialect, pattern, verb, sql);
        parsed.push(one.map_err(|error| error.with("statement", &name))?);
    }
    Ok(parsed)
}

fn parse_one(dialect: Dialect, pattern: &KeyPattern, verb: Verb, sql: &str) -> Result<Parsed> {
    let (template, names) = Template::parse_write(dialect, sql)?;
    let takes_members = matches!(verb, Verb::Put | Verb::Patch);
    let parameter = |name: &String| {
        if let Some(part) = pattern.parameters().iter().position(|known| known == name) {
            return Ok(Parameter::Key(part));
        }
        match name.as_str() {
            EXPECTED_VERSION => Ok(Parameter::ExpectedVersion),
            BY if matches!(verb, Verb::Add(_)) => Ok(Parameter::By),
            _ if takes_members => Ok(Parameter::Member(name.clone())),
            _ => {
                Err(Error::new(ErrorKind::Config, "the statement uses a parameter that it has not")
                    .with("parameter", name)
                    .with("pattern has", pattern.parameters().join(", "))
                    .remedy("use parameters of the key, :by in an addition, and :expected_version"))
            }
        }
    };
    let parameters = names.iter().map(parameter).collect::<Result<Vec<_>>>()?;
    for (part, name) in pattern.parameters().iter().enumerate() {
        if !parameters.contains(&Parameter::Key(part)) {
            return Err(Error::new(
                ErrorKind::Config,
                "the statement does not use a parameter of its key pattern",
            )
            .with("parameter", name)
            .remedy(format!(
                "write :{name} where the key's value belongs: else other rows change"
            )));
        }
    }
    if matches!(verb, Verb::Add(_)) && !parameters.contains(&Parameter::By) {
        return Err(Error::new(ErrorKind::Config, "the addition does not use :by")
            .with("parameter", BY)
            .remedy("write it like stock = stock + :by"));
    }
    Ok(Parsed { verb, template, parameters })
}

/// Statements with a placeholder for each parameter where it stands (MySQL and
/// SQLite).
pub(crate) fn with_placeholders(parsed: Parsed) -> DeclaredStatement {
    let sql = parsed.template.render(|_, sql| sql.push('?'));
    let occurrences = parsed.template.occurrences();
    let parameters = occurrences.into_iter().map(|at| parsed.parameters[at].clone()).collect();
    DeclaredStatement { verb: parsed.verb, sql, parameters }
}

impl DeclaredWrites {
    pub(crate) fn new(
        dialect: Dialect,
        options: &WriteOptions,
        statements: Vec<DeclaredStatement>,
        read: &Plan,
    ) -> Result<Self> {
        let wrong = |what: &'static str| Error::new(ErrorKind::Config, what);
        if let Some(name) = &options.version_column
            && !read.members.iter().any(|member| member == name)
        {
            return Err(wrong("the query does not select the version column")
                .with("version_column", name)
                .remedy("select it, or correct its name"));
        }
        if statements.is_empty() {
            return Err(wrong("a query is not written without statements")
                .remedy("declare put, remove, patch or add, or serve the table itself"));
        }
        for statement in &statements {
            let names_version = statement.parameters.contains(&Parameter::ExpectedVersion);
            if names_version && options.version_column.is_none() {
                return Err(wrong("a statement expects a version that nobody reads")
                    .with("parameter", EXPECTED_VERSION)
                    .remedy("declare version_column, a column of the query"));
            }
        }
        Ok(Self { dialect, version_column: options.version_column.clone(), statements })
    }

    pub(crate) fn abilities(&self) -> WriteAbilities {
        let has = |is: fn(&Verb) -> bool| self.statements.iter().any(|it| is(&it.verb));
        let mut abilities = WriteAbilities::NONE;
        abilities.put = has(|verb| *verb == Verb::Put);
        abilities.remove = has(|verb| *verb == Verb::Remove);
        abilities.patch = has(|verb| *verb == Verb::Patch);
        abilities.add = has(|verb| matches!(verb, Verb::Add(_)));
        abilities.versions = self.version_column.is_some()
            && self
                .statements
                .iter()
                .all(|statement| statement.parameters.contains(&Parameter::ExpectedVersion));
        abilities
    }

    pub(crate) fn operation(
        &self,
        read: &Plan,
        index: usize,
        write: &Write<Key, Bytes>,
    ) -> Result<Operation> {
        let request = read.request(write.key.as_bytes()).ok_or_else(|| {
            invalid("the key can be none of this cache")
                .with("pattern", &read.pattern)
                .remedy("spell each part as its type is spelled")
        })?;
        let (which, value) = self.statement_of(&write.action)?;
        let statement = &self.statements[which];
        let has_version = statement.parameters.contains(&Parameter::ExpectedVersion);
        match write.expected {
            Expected::Anything => {}
            Expected::Version(_) if has_version => {}
            _ => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "the declared statement takes no such expectation",
                )
                .remedy("use :expected_version in it, or expect nothing"));
            }
        }
        let members = match value {
            Some(value) if value.len() > read.value_size_max => {
                return Err(invalid("the value is too large")
                    .with("limit in bytes", read.value_size_max)
                    .remedy("write less, or raise value_size_max"));
            }
            Some(value) => members(value)?,
            None => Vec::new(),
        };
        check_members(read, statement, &members)?;
        let argument = |parameter: &Parameter| {
            self.argument(read, &request, write, &members, &statement.verb, parameter)
        };
        let arguments = statement.parameters.iter().map(argument).collect::<Result<_>>()?;
        let change = Change::Declared(which, arguments);
        Ok(Operation { index, request, expected: write.expected, change })
    }

    pub(crate) fn bound(&self, which: usize, arguments: &[Argument]) -> Bound {
        let statement = &self.statements[which];
        let arguments = match self.dialect {
            Dialect::Postgres => vec![Argument::Text(record(arguments))],
            Dialect::MySql | Dialect::Sqlite => arguments.to_vec(),
        };
        Bound { sql: statement.sql.clone(), arguments, is_kept: true }
    }

    /// What became of a statement that changed so many rows.
    pub(crate) fn answer(
        &self,
        which: usize,
        expected: Expected,
        written: u64,
        row: Option<Bytes>,
        read: &Plan,
    ) -> Result<Written<Bytes>> {
        let verb = &self.statements[which].verb;
        let version = self.version_column.as_deref().and_then(|name| {
            row.as_deref().and_then(|row| whole_number(row, name)).map(Version::new)
        });
        let is_there = row.is_some();
        if written > 0 {
            let now = match (read.is_list(), row) {
                (false, Some(row)) if !row.is_empty() => Some(Value::Present(row)),
                (false, None) => Some(Value::Absent),
                _ => None,
            };
            return Ok(Written::Done { changed: true, now, version });
        }
        match (verb, expected) {
            (_, Expected::Version(_)) => Ok(Written::Conflict { version }),
            (Verb::Remove, _) if !is_there => {
                let now = (!read.is_list()).then_some(Value::Absent);
                Ok(Written::Done { changed: false, now, version: None })
            }
            (Verb::Patch | Verb::Add(_), _) if !is_there => Ok(Written::Missing),
            _ => Err(Error::new(ErrorKind::OriginFailed, "the declared statement changed no row")
                .remedy("see that its WHERE finds the row of the key")),
        }
    }

    fn statement_of<'w>(&self, action: &'w Action<Bytes>) -> Result<(usize, Option<&'w Bytes>)> {
        let (verb, value) = match action {
            Action::Put(value) => (Verb::Put, Some(value)),
            Action::Remove => (Verb::Remove, None),
            Action::Patch(value) => (Verb::Patch, Some(value)),
            Action::Add { field, .. } => (Verb::Add(field.to_string()), None),
            _ => return Err(unknown_action()),
        };
        let place = self.statements.iter().position(|statement| statement.verb == verb);
        let Some(place) = place else {
            let (what, remedy) = match &verb {
                Verb::Put => ("no statement is declared for puts", "declare put"),
                Verb::Remove => ("no statement is declared for removals", "declare remove"),
                Verb::Patch => ("no statement is declared for patches", "declare patch"),
                Verb::Add(_) => {
                    ("no statement is declared by which this field grows", "declare add")
                }
            };
            let error = Error::new(ErrorKind::Unsupported, what).remedy(remedy);
            return Err(match verb {
                Verb::Add(field) => error.with("field", shown(&field)),
                _ => error,
            });
        };
        Ok((place, value))
    }

    fn argument(
        &self,
        read: &Plan,
        request: &Request,
        write: &Write<Key, Bytes>,
        members: &[(String, &RawValue)],
        verb: &Verb,
        parameter: &Parameter,
    ) -> Result<Argument> {
        let argument = match parameter {
            Parameter::Key(part) => {
                key_argument(self.dialect, read.parameters[*part].key_type, &request.values[*part])
            }
            Parameter::By => match &write.action {
                Action::Add { by, .. } => match by.as_i64() {
                    Some(whole) => Argument::Signed(whole),
                    None => Argument::Text(by.to_string()),
                },
                _ => Argument::Null,
            },
            Parameter::ExpectedVersion => {
                expected_number(write.expected).map_or(Argument::Null, Argument::Signed)
            }
            Parameter::Member(name) => match members.iter().find(|(known, _)| known == name) {
                Some((_, token)) if self.dialect == Dialect::Postgres => {
                    Argument::Token(token.get().into())
                }
                Some((_, token)) => value::untyped(self.dialect, token.get())
                    .map_err(|misfit| of_member(name, misfit))?,
                None if *verb == Verb::Patch => Argument::Null,
                None => {
                    return Err(invalid("the value lacks a member that the put needs")
                        .with("member", name)
                        .remedy("write it, as null if there is none"));
                }
            },
        };
        Ok(argument)
    }
}

/// The arguments as the one JSON object that a statement of Postgres is given,
/// named by their places.
fn record(arguments: &[Argument]) -> String {
    let mut out = vec![b'{'];
    for (place, argument) in arguments.iter().enumerate() {
        out.extend_from_slice(if place == 0 { b"\"p" } else { b",\"p" });
        json::write_integer(&mut out, place);
        out.extend_from_slice(b"\":");
        write_argument(&mut out, argument);
    }
    out.push(b'}');
    // Escaped text and tokens of a JSON text are UTF-8.
    String::from_utf8(out).unwrap_or_default()
}

/// Writes an argument as the JSON from which Postgres makes a value.
pub(crate) fn write_argument(out: &mut Vec<u8>, argument: &Argument) {
    match argument {
        Argument::Null => out.extend_from_slice(b"null"),
        Argument::Signed(number) => json::write_integer(out, *number),
        Argument::Unsigned(number) => json::write_integer(out, *number),
        Argument::Real(number) => json::write_float(out, *number),
        Argument::Text(text) => json::write_string(out, text.as_bytes()),
        Argument::Bytes(bytes) => {
            out.extend_from_slice(b"\"\\\\x");
            json::write_hexadecimal(out, bytes);
            out.push(b'"');
        }
        Argument::Token(token) => out.extend_from_slice(token),
    }
}

/// Each member is written by the statement, or is one that the query selects: a
/// value that was read can be put back.
fn check_members(
    read: &Plan,
    statement: &DeclaredStatement,
    members: &[(String, &RawValue)],
) -> Result<()> {
    for (name, _) in members {
        let is_used = statement
            .parameters
            .iter()
            .any(|parameter| matches!(parameter, Parameter::Member(known) if known == name));
        let is_known = read.members.iter().any(|known| known == name)
            || read.pattern.parameters().contains(name);
        if !is_used && (statement.verb == Verb::Patch || !is_known) {
            return Err(invalid("the value has a member that the statement does not write")
                .with("member", shown(name))
                .remedy("leave it out, or add it to the statement"));
        }
    }
    Ok(())
}

fn of_member(name: &str, misfit: Misfit) -> Error {
    invalid("a member of the value cannot be bound")
        .with("member", shown(name))
        .with("reason", misfit.reason)
        .remedy(misfit.remedy)
}

fn invalid(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidInput, what)
}
