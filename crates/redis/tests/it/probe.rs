//! What a doctor is told.

use larder_redis::{Level, RIGHTS, RedisOptions, RedisTier};
use larder_testkit::conformance::block_on;
use larder_testkit::redis::{RedisServer, Replicated};

use crate::support::{connect, options, patient};

#[test]
fn a_healthy_server_is_fine() {
    block_on(async {
        let server = RedisServer::start_with(&["--maxmemory-policy", "volatile-lru"]);
        let findings = connect(&server).await.probe().await;
        let checks: Vec<_> = findings.iter().map(|finding| finding.check).collect();
        let all = ["reachable", "version", "role", "rights", "clock", "eviction", "tracking"];
        assert_eq!(checks, all);
        for finding in &findings {
            assert_eq!(finding.level, Level::Fine, "{finding:?}");
            assert_eq!(finding.server, server.address().to_string());
        }
    });
}

#[test]
fn what_is_wrong_has_a_remedy() {
    block_on(async {
        let server = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]);
        let mut allow = vec!["ACL", "SETUSER", "app", "reset", "on", ">secret"];
        allow.extend(["~larder:*", "~{larder}:*", "&larder:*", "&{larder}:*", "+config|get"]);
        let rights: Vec<String> = RIGHTS.iter().map(|right| format!("+{right}")).collect();
        allow.extend(rights.iter().map(String::as_str));
        assert!(!server.command(&allow).is_error());
        let mut options = patient(RedisOptions::new(format!("redis://{}", server.address())));
        options.user = Some("app".to_owned());
        options.password = Some("secret".to_owned());
        let tier = RedisTier::connect(options).await.expect("enough");
        server.command(&["ACL", "SETUSER", "app", "-xadd"]);
        let findings = tier.probe().await;
        let bad: Vec<_> = findings.iter().filter(|finding| finding.level > Level::Fine).collect();
        let checks: Vec<_> = bad.iter().map(|finding| (finding.check, finding.level)).collect();
        let expected = [
            ("rights", Level::Failure),
            ("eviction", Level::Warning),
            ("tracking", Level::Warning),
        ];
        assert_eq!(checks, expected);
        assert!(bad.iter().all(|finding| finding.remedy.is_some()), "{bad:?}");
        assert!(bad[0].message.contains("+xadd"), "{bad:?}");
        assert!(!format!("{findings:?}").contains("secret"));
    });
}

#[test]
fn a_dead_replica_is_told() {
    block_on(async {
        let redis = Replicated::start(1);
        let mut options = options(redis.primary());
        options.urls.push(redis.servers()[1].url());
        let tier = RedisTier::connect(options).await.expect("the primary runs");
        let role = |findings: &[larder_redis::Finding]| -> Vec<String> {
            let roles = findings.iter().filter(|finding| finding.check == "role");
            roles.map(|finding| finding.message.clone()).collect()
        };
        assert_eq!(role(&tier.probe().await), ["primary", "replica"]);
        redis.servers()[1].kill();
        let findings = tier.probe().await;
        assert_eq!(role(&findings), ["primary"]);
        let dead = findings.iter().find(|finding| finding.level == Level::Failure);
        let dead = dead.expect("one is dead");
        assert_eq!(dead.server, redis.servers()[1].address().to_string());
        assert_eq!((dead.check, dead.remedy.is_some()), ("reachable", true));
    });
}
