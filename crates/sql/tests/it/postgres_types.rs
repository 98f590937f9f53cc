use larder_testkit::postgres::Postgres;

use crate::support::{
    KeyCase, TypeCase, check_keys, check_puts, check_types, connect, key_script, type_script,
};

const SETUP: &str = r#"
    CREATE TYPE mood AS ENUM ('sad', 'it''s "ok"');
    CREATE SCHEMA "Odd.Schema";
    CREATE TYPE "Odd.Schema"."Mood" AS ENUM ('Sad', 'sad');
    CREATE TYPE pair AS (n int, d numeric, t timestamptz);
    CREATE DOMAIN amount AS numeric(12,2) CHECK (VALUE >= 0);
    CREATE DOMAIN small AS amount;
    CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
"#;

const TYPES: &[TypeCase] = &[
    ("boolean", "true", "true"),
    ("smallint", "-32768", "-32768"),
    ("integer", "2147483647", "2147483647"),
    ("bigint", "9223372036854775807", "9223372036854775807"),
    ("bigint", "-9223372036854775808", "-9223372036854775808"),
    ("oid", "4294967295", "4294967295"),
    ("real", "0.1", "0.1"),
    ("real", "16777217", "16777216.0"),
    ("real", "'NaN'", "\"NaN\""),
    ("double precision", "0.1::float8 + 0.2::float8", "0.30000000000000004"),
    ("double precision", "1e300", "1e300"),
    ("double precision", "'-0'", "-0.0"),
    ("double precision", "'Infinity'", "\"Infinity\""),
    ("double precision", "'-Infinity'", "\"-Infinity\""),
    (
        "numeric",
        "12345678901234567890.123456789012345678901234567890",
        "\"12345678901234567890.123456789012345678901234567890\"",
    ),
    ("numeric(10,2)", "19.9", "\"19.90\""),
    ("numeric", "-0.000000000000000000000001", "\"-0.000000000000000000000001\""),
    ("numeric", "1e40", "\"10000000000000000000000000000000000000000\""),
    ("numeric", "0", "\"0\""),
    ("numeric", "'NaN'", "\"NaN\""),
    ("numeric", "'-Infinity'", "\"-Infinity\""),
    ("numeric(3,-2)", "12345", "\"12300\""),
    ("money", "'12.34'", "\"$12.34\""),
    (
        "text",
        "'Ünï ''q'' \"d\" \\ 🙂' || chr(10) || chr(1)",
        "\"Ünï 'q' \\\"d\\\" \\\\ 🙂\\n\\u0001\"",
    ),
    ("varchar(10)", "''", "\"\""),
    ("char(5)", "'ab'", "\"ab   \""),
    ("\"char\"", "'x'", "\"x\""),
    ("name", "'n'", "\"n\""),
    ("bytea", "'\\x00deadbeef'", "\"00deadbeef\""),
    ("bytea", "''", "\"\""),
    ("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\""),
    ("date", "'2013-01-31'", "\"2013-01-31\""),
    ("date", "'0044-03-15 BC'", "\"0044-03-15 BC\""),
    ("date", "'infinity'", "\"infinity\""),
    ("date", "'5874897-12-31'", "\"5874897-12-31\""),
    ("date", "'4713-01-01 BC'", "\"4713-01-01 BC\""),
    ("time", "'06:00:00.5'", "\"06:00:00.5\""),
    ("time", "'24:00:00'", "\"24:00:00\""),
    ("timetz", "'06:00:00+02'", "\"06:00:00+02\""),
    ("timestamp", "'2013-01-31 06:00:00.000001'", "\"2013-01-31T06:00:00.000001\""),
    ("timestamp", "'-infinity'", "\"-infinity\""),
    ("timestamp", "'0044-03-15 12:00:00 BC'", "\"0044-03-15T12:00:00 BC\""),
    ("timestamptz", "'2013-01-31 06:00:00.123456+02'", "\"2013-01-31T04:00:00.123456Z\""),
    ("timestamptz", "'1900-01-01 00:00:00Z'", "\"1900-01-01T00:00:00Z\""),
    ("timestamptz", "'294276-12-31 23:59:59.999999Z'", "\"294276-12-31T23:59:59.999999Z\""),
    ("interval", "'1 year 2 mons -3 days 04:05:06.7'", "\"P1Y2M-3DT4H5M6.7S\""),
    ("json", "' {\"b\": 1,  \"a\": [1, null]} '", " {\"b\": 1,  \"a\": [1, null]} "),
    (
        "jsonb",
        "'{\"b\": 1.50, \"a\": 18446744073709551616}'",
        "{\"a\": 18446744073709551616, \"b\": 1.50}",
    ),
    ("xml", "'<a>1</a>'", "\"<a>1</a>\""),
    ("mood", "'it''s \"ok\"'", "\"it's \\\"ok\\\"\""),
    ("small", "'1.5'", "\"1.50\""),
    (
        "pair",
        "ROW(1, 1.50, '2013-01-31 06:00:00Z')",
        "{\"n\":1,\"d\":1.50,\"t\":\"2013-01-31T06:00:00+00:00\"}",
    ),
    ("int[]", "'{1,NULL,3}'", "[1,null,3]"),
    ("int[]", "'{}'", "[]"),
    ("int[][]", "'{{1,2},{3,NULL}}'", "[[1,2],[3,null]]"),
    ("int[]", "'[5:6]={1,2}'", "[1,2]"),
    ("numeric[]", "'{1.50,NaN}'", "[\"1.50\",\"NaN\"]"),
    ("text[]", "ARRAY['a,b', NULL, 'NULL', '\"']", "[\"a,b\",null,\"NULL\",\"\\\"\"]"),
    ("timestamptz[]", "'{2013-01-31 06:00:00Z}'", "[\"2013-01-31T06:00:00Z\"]"),
    ("jsonb[]", "ARRAY['{\"a\": 1}'::jsonb]", "[{\"a\": 1}]"),
    ("bytea[]", "ARRAY['\\x00ff'::bytea]", "[\"00ff\"]"),
    (
        "uuid[]",
        "'{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'",
        "[\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\"]",
    ),
    ("boolean[]", "'{t,f}'", "[true,false]"),
    ("mood[]", "ARRAY['sad']::mood[]", "[\"sad\"]"),
    ("pair[]", "ARRAY[ROW(1,2,NULL)::pair]", "[{\"n\":1,\"d\":2,\"t\":null}]"),
    ("int4range", "'[1,5)'", "\"[1,5)\""),
    ("int4multirange", "'{[1,5)}'", "\"{[1,5)}\""),
    ("tstzrange", "'[2013-01-01 00:00Z,)'", "\"[\\\"2013-01-01 00:00:00+00\\\",)\""),
    ("inet", "'10.0.0.1'", "\"10.0.0.1\""),
    ("cidr", "'10.0.0.0/8'", "\"10.0.0.0/8\""),
    ("macaddr", "'08:00:2b:01:02:03'", "\"08:00:2b:01:02:03\""),
    ("bit(3)", "B'101'", "\"101\""),
    ("varbit", "B''", "\"\""),
    ("point", "'(1.5,2)'", "\"(1.5,2)\""),
    ("box", "'((1,2),(3,4))'", "\"(3,4),(1,2)\""),
    ("tsvector", "'a:1 b:2'", "\"'a':1 'b':2\""),
    ("pg_lsn", "'16/B374D848'", "\"16/B374D848\""),
    ("int2vector", "'1 2'", "[1,2]"),
];

const KEYS: &[KeyCase] = &[
    ("smallint", "7", "7", &["07", "32768", "seven"]),
    (
        "integer",
        "42",
        "42",
        &["042", "+42", "abc", "2147483648", "9999999999999999999999", "42 ", "4:2"],
    ),
    ("bigint", "-9223372036854775808", "-9223372036854775808", &["-9223372036854775809"]),
    ("oid", "4294967295", "4294967295", &["-1"]),
    ("text", "'a:b%c'", "a:b%25c", &["a%3Ab%25c", "a:b%c", "A:b%25c"]),
    ("text", "'''; DROP TABLE key_0; --'", "'; DROP TABLE key_0; --", &["'", "\0", "\u{FFFF}"]),
    ("text COLLATE nocase", "'Ann'", "Ann", &["ann", "ANN"]),
    ("varchar(10)", "'ann'", "ann", &["ann ", "Ann"]),
    ("char(5)", "'ab'", "ab", &["ab ", "ab   ", "a"]),
    ("name", "'n'", "n", &["N"]),
    (
        "uuid",
        "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        &["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc999c0b4ef8bb6d6bb9bd380a11", "x"],
    ),
    ("numeric", "1.50", "1.50", &["1.5", "1.500", "01.50", "NaN", "1e1"]),
    ("amount", "2", "2.00", &["2", "two"]),
    ("boolean", "true", "true", &["t", "TRUE", "1"]),
    ("bytea", "'\\x00ff'", "00ff", &["\\x00ff", "00FF", "0"]),
    (
        "date",
        "'2013-01-31'",
        "2013-01-31",
        &["2013-1-31", "2013-02-30", "31.01.2013", "infinity", "today"],
    ),
    ("time", "'06:00'", "06:00:00", &["06:00", "6:00:00", "25:00:00"]),
    (
        "timestamp",
        "'2013-01-31 06:00'",
        "2013-01-31T06:00:00",
        &["2013-01-31 06:00:00", "2013-01-31T06:00:00Z", "now"],
    ),
    (
        "timestamptz",
        "'2013-01-31 06:00:00.5Z'",
        "2013-01-31T06:00:00.5Z",
        &["2013-01-31T06:00:00.500Z", "2013-01-31T08:00:00.5+02:00"],
    ),
    ("mood", "'it''s \"ok\"'", "it's \"ok\"", &["happy", "SAD"]),
    ("\"Odd.Schema\".\"Mood\"", "'Sad'", "Sad", &["sad", "SAD", ""]),
];

#[tokio::test]
async fn every_type_becomes_json_and_every_key_has_one_spelling() {
    let postgres = Postgres::launch();
    postgres.execute(SETUP);
    postgres.execute(&type_script(TYPES));
    postgres.execute(&key_script(KEYS));
    let database = connect(&postgres.url("postgres")).await;
    check_types(&database, TYPES).await;
    check_keys(&database, KEYS).await;
    check_puts(&database, TYPES).await;
}
