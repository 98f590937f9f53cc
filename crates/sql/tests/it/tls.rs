use std::path::Path;

use larder_core::ErrorKind;
use larder_sql::{Database, KeyType, TlsMode};
use larder_testkit::mysql::MySql;
use larder_testkit::postgres::{Postgres, PostgresOptions};

use crate::support::{assert_error, load, options};

#[tokio::test]
async fn postgres_is_reached_as_safely_as_asked() {
    let options = PostgresOptions { tls: true, ..PostgresOptions::default() };
    let postgres = Postgres::launch_with(&options);
    let is_encrypted =
        "SELECT ssl, :id AS id FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND :id > 0";
    let certificate = postgres.certificate().expect("the server offers TLS");
    let stranger = Postgres::launch_with(&options);
    let stranger = stranger.certificate().expect("the server offers TLS");
    check(&postgres.url("postgres"), certificate, stranger, is_encrypted, |tls| {
        format!("{{\"ssl\":{tls},\"id\":1}}")
    })
    .await;
}

#[tokio::test]
async fn mysql_is_reached_as_safely_as_asked() {
    let mysql = MySql::launch_with_tls();
    let is_encrypted = "SELECT VARIABLE_VALUE <> '' AS tls FROM information_schema.SESSION_STATUS \
         WHERE VARIABLE_NAME = 'Ssl_cipher' AND :id > 0";
    let certificate = mysql.certificate().expect("the server offers TLS");
    let stranger = MySql::launch_with_tls();
    let stranger = stranger.certificate().expect("the server offers TLS");
    check(&mysql.url("larder"), certificate, stranger, is_encrypted, |tls| {
        format!("{{\"tls\":{}}}", u8::from(tls))
    })
    .await;
}

/// Each mode connects, or does not, and is encrypted, or is not. The certificate
/// is one for `localhost`; the stranger is another server's for the same name.
async fn check(
    url: &str,
    certificate: &Path,
    stranger: &Path,
    query: &str,
    row: impl Fn(bool) -> String,
) {
    let by_name = url.replace("127.0.0.1", "localhost");
    let (trusted, stranger) = (Some(certificate), Some(stranger));
    for (url, mode, trust, encrypted) in [
        (url, TlsMode::Disable, None, Some(false)),
        (url, TlsMode::Prefer, None, Some(true)),
        (url, TlsMode::Require, None, Some(true)),
        (url, TlsMode::VerifyCa, None, None),
        (&by_name, TlsMode::VerifyFull, None, None),
        (url, TlsMode::VerifyCa, stranger, None),
        (&by_name, TlsMode::VerifyCa, stranger, None),
        (&by_name, TlsMode::VerifyFull, stranger, None),
        (url, TlsMode::VerifyCa, trusted, Some(true)),
        (url, TlsMode::VerifyFull, trusted, None),
        (&by_name, TlsMode::VerifyFull, trusted, Some(true)),
    ] {
        let mut options = options(url);
        options.tls = Some(mode);
        options.root_certificate = trust.map(Path::to_owned);
        match (Database::connect(&options).await, encrypted) {
            (Ok(database), Some(encrypted)) => {
                let typed = crate::support::query("tls:{id}", query);
                let typed = typed.parameter_type("id", KeyType::Integer);
                let origin = database.query_origin(typed).await.expect("the query is sound");
                let found = load(&origin, "tls:1").await.expect("it loads");
                assert_eq!(found, Some(row(encrypted)), "{mode:?}");
            }
            (Err(error), None) => {
                assert_eq!(error.kind(), ErrorKind::Config, "{mode:?}: {error}");
                assert_error(&error, &["TLS failed", "ca_file"]);
            }
            (outcome, expected) => panic!("{mode:?} {trust:?}: {outcome:?}, not {expected:?}"),
        }
    }
}
