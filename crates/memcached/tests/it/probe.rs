use larder_core::ErrorKind;
use larder_memcached::{Credentials, Finding, MemcachedOptions, Severity, probe};
use larder_testkit::conformance::block_on;

use crate::support::{TestServer, options, server_with};

/// What is not as it should be: the subject and how bad it is.
fn bad(findings: &[Finding]) -> Vec<(&'static str, Severity)> {
    let bad = findings.iter().filter(|finding| finding.severity != Severity::Good);
    bad.map(|finding| {
        assert!(finding.remedy.is_some(), "no remedy: {finding}");
        (finding.subject, finding.severity)
    })
    .collect()
}

#[test]
fn a_healthy_server_is_found_to_be_so_and_left_as_it_was() {
    block_on(async {
        let servers = [TestServer::start()];
        let findings = probe(&options(&servers)).await.expect("options are right");
        assert_eq!(bad(&findings), [("login", Severity::Warning)]);
        for subject in
            ["connection", "version", "encryption", "limits", "evictions", "rights", "connections"]
        {
            assert!(findings.iter().any(|finding| finding.subject == subject), "{subject}");
        }
        assert_eq!(servers[0].statistic("curr_items"), 0);
    });
}

#[test]
fn a_password_that_nobody_asks_for_is_worth_a_word() {
    block_on(async {
        let servers = [TestServer::start()];
        let mut options = options(&servers);
        options.credentials = Some(Credentials::new("shop", "secret"));
        let findings = probe(&options).await.expect("options are right");
        let expected = [("login", Severity::Warning), ("encryption", Severity::Warning)];
        assert_eq!(bad(&findings), expected);
    });
}

#[test]
fn one_that_is_gone_and_one_without_compare_and_swap_fail() {
    block_on(async {
        let servers = [TestServer::start(), server_with(&["-C"])];
        servers[0].kill();
        let findings = probe(&options(&servers)).await.expect("options are right");
        let expected = [("connection", Severity::Failure), ("connection", Severity::Failure)];
        assert_eq!(bad(&findings), expected);
        for (finding, server) in findings.iter().zip(&servers) {
            assert_eq!(finding.server.port, server.address().port());
        }
    });
}

#[test]
fn evictions_are_found() {
    block_on(async {
        let servers = [server_with(&["-m", "2", "-o", "no_lru_maintainer"])];
        let value = "x".repeat(100_000);
        for number in 0..200 {
            let request = format!("ms {number} {}\r\n{value}\r\n", value.len());
            servers[0].ask(request.as_bytes());
        }
        assert!(servers[0].statistic("evictions") > 0);
        let findings = probe(&options(&servers)).await.expect("options are right");
        assert!(bad(&findings).contains(&("evictions", Severity::Warning)), "{findings:?}");
    });
}

#[test]
fn a_server_that_refuses_when_full_is_found() {
    block_on(async {
        let servers = [server_with(&["-M"])];
        let findings = probe(&options(&servers)).await.expect("options are right");
        assert!(bad(&findings).contains(&("evictions", Severity::Warning)), "{findings:?}");
    });
}

#[test]
fn options_that_cannot_work_are_an_error() {
    block_on(async {
        let error = probe(&MemcachedOptions::new([])).await.expect_err("no server");
        assert_eq!(error.kind(), ErrorKind::Config);
    });
}
