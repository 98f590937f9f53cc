use larder_testkit::mysql::MySql;

use crate::support::{
    KeyCase, TypeCase, check_keys, check_puts, check_types, connect, key_script, load, query,
    query_origin, table_origin, type_script, values,
};

const TYPES: &[TypeCase] = &[
    ("TINYINT", "-128", "-128"),
    ("TINYINT UNSIGNED", "255", "255"),
    ("TINYINT(1)", "-1", "-1"),
    ("TINYINT(1) UNSIGNED", "200", "200"),
    ("BOOLEAN", "TRUE", "1"),
    ("SMALLINT", "-32768", "-32768"),
    ("MEDIUMINT", "-8388608", "-8388608"),
    ("MEDIUMINT UNSIGNED", "16777215", "16777215"),
    ("INT", "-2147483648", "-2147483648"),
    ("INT UNSIGNED", "4294967295", "4294967295"),
    ("BIGINT", "-9223372036854775808", "-9223372036854775808"),
    ("BIGINT UNSIGNED", "18446744073709551615", "18446744073709551615"),
    ("YEAR", "2013", "2013"),
    ("BIT(1)", "b'1'", "1"),
    ("BIT(64)", "18446744073709551615", "18446744073709551615"),
    ("FLOAT", "0.1", "0.1"),
    ("DOUBLE", "0.1e0 + 0.2e0", "0.30000000000000004"),
    ("DOUBLE", "1e300", "1e300"),
    ("DECIMAL(10,2)", "19.9", "\"19.90\""),
    (
        "DECIMAL(65,30)",
        "-12345678901234567890123456789012345.123456789012345678901234567890",
        "\"-12345678901234567890123456789012345.123456789012345678901234567890\"",
    ),
    ("VARCHAR(100)", "'Ünï ''q'' \"d\" \\\\ 🙂\\n'", "\"Ünï 'q' \\\"d\\\" \\\\ 🙂\\n\""),
    ("VARCHAR(100) CHARACTER SET latin1", "'ü€'", "\"ü€\""),
    ("VARCHAR(100) COLLATE utf8mb4_bin", "'bin'", "\"bin\""),
    ("VARCHAR(100) CHARACTER SET utf16", "'wide'", "\"wide\""),
    ("CHAR(5)", "'ab'", "\"ab\""),
    ("TEXT", "CONCAT('a', CHAR(0), 'b')", "\"a\\u0000b\""),
    ("TEXT COLLATE utf8mb4_bin", "''", "\"\""),
    ("LONGTEXT", "'long'", "\"long\""),
    ("BINARY(4)", "x'00ff'", "\"00ff0000\""),
    ("VARBINARY(10)", "x'00deadbeef'", "\"00deadbeef\""),
    ("BLOB", "''", "\"\""),
    ("ENUM('a','b')", "'b'", "\"b\""),
    ("SET('a','b','c')", "'a,c'", "\"a,c\""),
    ("DATE", "'2013-01-31'", "\"2013-01-31\""),
    ("DATE", "'9999-12-31'", "\"9999-12-31\""),
    ("DATETIME", "'2013-01-31 06:00:00'", "\"2013-01-31T06:00:00\""),
    ("DATETIME(6)", "'2013-01-31 06:00:00.000001'", "\"2013-01-31T06:00:00.000001\""),
    ("DATETIME(3)", "'2013-01-31 06:00:00.120'", "\"2013-01-31T06:00:00.12\""),
    ("DATETIME", "'2013-01-31'", "\"2013-01-31T00:00:00\""),
    ("TIMESTAMP", "'2013-01-31 06:00:00'", "\"2013-01-31T05:00:00Z\""),
    ("TIMESTAMP(6)", "'2013-07-31 06:00:00.123456'", "\"2013-07-31T05:00:00.123456Z\""),
    ("TIME", "'-838:59:59'", "\"-838:59:59\""),
    ("TIME(6)", "'06:00:00.5'", "\"06:00:00.5\""),
    ("JSON", "'{\"b\": 1, \"a\": [1, null]}'", "{\"b\": 1, \"a\": [1, null]}"),
    ("UUID", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\""),
    ("INET6", "'::1'", "\"::1\""),
    ("POINT", "POINT(1, 2)", "\"000000000101000000000000000000f03f0000000000000040\""),
];

const KEYS: &[KeyCase] = &[
    ("TINYINT UNSIGNED", "7", "7", &["07", "256", "-7", "7a", "seven", ""]),
    ("INT", "0", "0", &["abc", "0x0", "-0", "00", " ", "0 "]),
    (
        "INT",
        "42",
        "42",
        &["042", "+42", "42abc", "42.0", "4.2e1", "2147483648", "99999999999999999999"],
    ),
    (
        "BIGINT UNSIGNED",
        "18446744073709551615",
        "18446744073709551615",
        &["18446744073709551616", "-1"],
    ),
    ("VARCHAR(20)", "'ann'", "ann", &["Ann", "ANN", "ann ", "änn", "a%6En"]),
    ("VARCHAR(20)", "'a:b%c'", "a:b%25c", &["a%3Ab%25c", "a:b%c"]),
    (
        "VARCHAR(60)",
        "'''; DROP TABLE key_0; -- '",
        "'; DROP TABLE key_0; -- ",
        &["'; DROP TABLE key_0; --", "\\"],
    ),
    ("VARCHAR(20) CHARACTER SET latin1", "'ü€'", "ü€", &["u€", "🙂", "ł"]),
    ("VARCHAR(20) CHARACTER SET ascii", "'x'", "x", &["X", "ü"]),
    ("VARCHAR(20) COLLATE utf8mb4_bin", "'12'", "12", &["012", "12 "]),
    ("CHAR(5)", "'ab'", "ab", &["ab ", "AB"]),
    ("VARBINARY(10)", "x'00ff'", "00ff", &["00FF", "00", "00ff00", "zz"]),
    ("BINARY(4)", "x'00ff'", "00ff0000", &["00ff"]),
    ("DECIMAL(10,2)", "19.9", "19.90", &["19.9", "019.90", "19.900", "x"]),
    (
        "DECIMAL(65,0)",
        "12345678901234567890123456789012345678901234567890123456789012345",
        "12345678901234567890123456789012345678901234567890123456789012345",
        &[
            "12345678901234567890123456789012345678901234567890123456789012346",
            "123456789012345678901234567890123456789012345678901234567890123450",
            "99999999999999999999999999999999999",
        ],
    ),
    (
        "DECIMAL(60,30)",
        "-0.000000000000000000000000000001",
        "-0.000000000000000000000000000001",
        &["-0.000000000000000000000000000002", "-0.0000000000000000000000000000014"],
    ),
    (
        "DECIMAL(38,38)",
        "0.12345678901234567890123456789012345678",
        "0.12345678901234567890123456789012345678",
        &["0.12345678901234567890123456789012345679", "0.123456789012345678901234567890"],
    ),
    (
        "DECIMAL(65,38)",
        "123456789012345678901234567.12345678901234567890123456789012345678",
        "123456789012345678901234567.12345678901234567890123456789012345678",
        &["123456789012345678901234567.12345678901234567890123456789012345679"],
    ),
    ("VARCHAR(20) CHARACTER SET sjis", "'xあ'", "xあ", &["xい", "x?", "x🙂", "xü", "Xあ"]),
    ("VARCHAR(20) CHARACTER SET sjis COLLATE sjis_bin", "'x?'", "x?", &["x🙂", "xあ"]),
    ("VARCHAR(20) CHARACTER SET latin2", "'łódź'", "łódź", &["ŁÓDŹ", "lodz", "あ"]),
    ("VARCHAR(20) CHARACTER SET cp1251", "'Москва'", "Москва", &["Moskva", "москва"]),
    ("VARCHAR(20) CHARACTER SET gbk", "'北京'", "北京", &["北", "🙂"]),
    ("ENUM('あ','い') CHARACTER SET eucjpms", "'い'", "い", &["う", "2"]),
    ("ENUM('a','b')", "'b'", "b", &["B", "2", "c"]),
    ("DATE", "'2013-01-31'", "2013-01-31", &["2013-1-31", "20130131", "2013-02-30"]),
    (
        "DATETIME(3)",
        "'2013-01-31 06:00:00.5'",
        "2013-01-31T06:00:00.5",
        &["2013-01-31 06:00:00.5", "2013-01-31T06:00:00.500"],
    ),
    (
        "TIMESTAMP",
        "'2013-01-31 06:00:00'",
        "2013-01-31T05:00:00Z",
        &["2013-01-31T06:00:00Z", "2013-01-31T05:00:00"],
    ),
    ("TIME", "'-12:30:00'", "-12:30:00", &["12:30:00", "-12:30"]),
    ("YEAR", "2013", "2013", &["13", "1900"]),
    ("BIT(8)", "b'101'", "5", &["05", "101"]),
    (
        "UUID",
        "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        &["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"],
    ),
];

/// As by table, so by query: extreme decimals and texts in any character set.
#[tokio::test]
async fn keys_of_a_query_find_what_is_stored() {
    let mysql = MySql::launch();
    mysql.execute(&key_script(KEYS));
    let database = connect(&mysql.url("larder")).await;
    for (index, (sql_type, _, spelling, _)) in KEYS.iter().enumerate() {
        if !sql_type.starts_with("DECIMAL") && !sql_type.contains("CHARACTER SET") {
            continue;
        }
        let select = format!("SELECT n FROM key_{index} WHERE k = :k");
        let origin = query_origin(&database, "k:{k}", &select).await;
        let row = Some(format!("{{\"n\":{index}}}"));
        let found = load(&origin, &format!("k:{spelling}")).await;
        assert_eq!(found.expect(sql_type), row, "{sql_type}");
        let found = values(&origin, [format!("k:{spelling}"), "k:77".to_owned()]).await;
        assert_eq!(found, [row, None], "{sql_type}");
    }
    mysql.execute("CREATE TABLE wide (k DECIMAL(65,0) PRIMARY KEY); INSERT INTO wide VALUES (99999999999999999999999999999999999)");
    let declared = query("w:{k}", "SELECT k FROM wide WHERE k + 0 = :k");
    let declared = declared.parameter_type("k", larder_sql::KeyType::Decimal);
    let declared = database.query_origin(declared).await.expect("the type is declared");
    // Nothing is taken for the largest number that the comparison can hold.
    let found =
        values(&declared, [format!("w:{}", "9".repeat(35)), format!("w:{}", "9".repeat(36))]).await;
    assert!(found[0].is_some() && found[1].is_none(), "{found:?}");
}

#[tokio::test]
async fn every_type_becomes_json_and_every_key_has_one_spelling() {
    let mysql = MySql::launch();
    // The session that writes is not in UTC: one that reads must not care.
    let zone = "SET time_zone = '+01:00';\n";
    mysql.execute(&format!("{zone}{}", type_script(TYPES)));
    mysql.execute(&format!("{zone}{}", key_script(KEYS)));
    let database = connect(&mysql.url("larder")).await;
    check_types(&database, TYPES).await;
    check_keys(&database, KEYS).await;
    check_puts(&database, TYPES).await;

    mysql.execute(
        "SET sql_mode = ''; CREATE TABLE zero (id INT PRIMARY KEY, d DATE, dt DATETIME, ts TIMESTAMP NULL);
         INSERT INTO zero VALUES (1, '0000-00-00', '0000-00-00', '0000-00-00'), (2, '2013-00-00', '2013-00-00', NULL);",
    );
    let zero = table_origin(&database, "zero").await;
    assert_eq!(
        load(&zero, "zero:1").await.expect("it loads").as_deref(),
        Some(r#"{"id":1,"d":"0000-00-00","dt":"0000-00-00T00:00:00","ts":"0000-00-00T00:00:00Z"}"#)
    );
    assert_eq!(
        load(&zero, "zero:2").await.expect("it loads").as_deref(),
        Some(r#"{"id":2,"d":"2013-00-00","dt":"2013-00-00T00:00:00","ts":null}"#)
    );

    // A JSON column is JSON through an alias too, and text made of it is text.
    let json =
        TYPES.iter().position(|(sql_type, ..)| *sql_type == "JSON").expect("it is in the list");
    let select = format!(
        "SELECT x.v AS doc, CONCAT(x.v, '') AS text FROM type_{json} AS x WHERE x.id = :id"
    );
    let doc = query_origin(&database, "doc:{id}", &select).await;
    assert_eq!(
        load(&doc, "doc:1").await.expect("it loads").as_deref(),
        Some(r#"{"doc":{"b": 1, "a": [1, null]},"text":"{\"b\": 1, \"a\": [1, null]}"}"#)
    );
}
