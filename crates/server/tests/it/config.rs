//! What is wrong with a configuration is said with its place and the remedy.

use larder_server::config::{self, Source};
use proptest::prelude::*;

fn check(text: &str) -> String {
    let source = Source { name: "larder.toml".into(), text: text.into() };
    config::check(&source).diagnostics.to_string()
}

#[test]
fn the_example_has_no_mistake() {
    insta::assert_snapshot!(check(config::EXAMPLE));
}

#[test]
fn mistakes_in_server_and_memory() {
    insta::assert_snapshot!(check(
        r#"
[server]
bind = "0.0.0.0:6380"
admin_bind = "0.0.0.0:6380"
threads = 0
value_size_max = "12B"

[server.users.ann]

[memory]
budget = "64MiB"
plain_keys = "32MiB"

[caches.big]
memory = "48MiB"
"#
    ));
}

#[test]
fn an_open_address_needs_a_password() {
    let open = "[server]\nbind = \"0.0.0.0:6380\"\n";
    insta::assert_snapshot!(check(open));
    for protected in ["password_env = \"P\"", "allow_remote_without_password = true"] {
        assert_eq!(check(&format!("{open}{protected}\n")), "");
    }
}

#[test]
fn mistakes_in_origins() {
    insta::assert_snapshot!(check(
        r#"
[origins.main]
url = "oracle://scott:tiger@db/shop"
url_env = "SHOP"
serve_tables = false
exclude_tables = ["audit"]
pool_size = 0
connect_timeout = "0s"
breaker = { failures = 0, open = "0s" }

[origins."a b"]
tls = "disable"
ca_file = "ca.pem"
"#
    ));
}

#[test]
fn mistakes_in_caches() {
    insta::assert_snapshot!(check(
        r#"
[origins.shop]
url = "sqlite:shop.db"

[defaults]
ttl = "5m"
ttl_class = "static"

[caches.album]
key = "album:{id}"
query = "SELECT * FROM album WHERE id = :ident"
origin = "shoop"
tags = ["artist:{artist", ""]
ttl_by_age = { rules = [{ under = "2h", ttl = "1m" }, { under = "1h", ttl = "1s" }] }

[caches.album_again]
key = "album:{number}"
query = "SELECT * FROM album WHERE id = :number"
table = "album"

[caches.half]
key = "half:{a}:b"
query = "SELECT 1 WHERE :a = 1"

[caches.other_half]
key = "half:b:{a}"
query = "SELECT 1 WHERE :a = 1"

[caches.keyless]
query = "SELECT 1"

[caches.broken]
key = "broken:{id"
query = "SELECT 1"

[caches.listed]
list = true
key = "x:{id}"
"#
    ));
}

#[test]
fn policies_that_contradict_themselves() {
    insta::assert_snapshot!(check(
        r#"
[origins.shop]
url = "sqlite:shop.db"

[caches.slow]
soft_timeout = "9s"

[caches.sliding]
sliding = true

[caches.bounded]
ttl = "1h"
max_age = "1m"

[caches.forever]
ttl = "forever"
refresh_ahead = "80%"

[caches.zero]
ttl = "0s"

[caches.customer]
class = "personal"

[caches.stubborn]
ttl = "5s"
negative_ttl = "1h"
"#
    ));
}

#[test]
fn secrets_are_not_shown() {
    let text = "[origins.a]\nurl = 5 # postgres://ann:hunter2@db/shop\n\
                [origins.b]\nurl = \"oracle://ann:hunter2@db/shop\"\n\
                [server]\npassword = \"hunter2\"\n";
    let shown = check(text);
    assert!(!shown.contains("hunter2"), "{shown}");
    assert_eq!(shown.matches("error:").count(), 3, "{shown}");
    for line in [
        "pass = \"hunter2\"",
        "requirepass = \"hunter2\"",
        "auth=\"hunter2\"",
        "requirepass hunter2",
        "users = { ann = { pass = \"hunter2\" } }",
    ] {
        let shown = check(&format!("[server]\n{line}\n"));
        assert!(shown.contains("error:") && !shown.contains("hunter2"), "{shown}");
    }
    let shown = check("[origins.a]\nurl = \"postgres:u:hunter2@h\"\n");
    assert!(shown.contains("it starts with") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn more_loads_than_connections_are_warned_of() {
    let origin = "[origins.a]\nurl = \"sqlite:a.db\"\npool_size = 4\n";
    assert_eq!(check(&format!("{origin}max_concurrent_loads = 4\n")), "");
    insta::assert_snapshot!(check(&format!("{origin}max_concurrent_loads = 5\n")));
}

#[test]
fn a_policy_mistake_of_the_defaults_is_reported_with_the_cache_it_hits() {
    let shown = check(
        "[origins.a]\nurl = \"sqlite:a.db\"\n[defaults]\nsoft_timeout = \"9s\"\n[caches.x]\nttl = \"1m\"\n",
    );
    assert!(shown.starts_with("larder.toml:5:9: error:"), "{shown}");
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = config::fuzz(&bytes);
    }

    #[test]
    fn no_mangled_example_panics(
        cuts in proptest::collection::vec((0..4200_usize, 0..40_usize, ".{0,6}"), 1..4),
    ) {
        let mut text: Vec<char> = config::EXAMPLE.chars().collect();
        for (at, length, insert) in cuts {
            let at = at.min(text.len());
            let end = (at + length).min(text.len());
            text.splice(at..end, insert.chars());
        }
        let _ = config::fuzz(text.into_iter().collect::<String>().as_bytes());
    }
}

#[test]
fn what_the_guide_shows_has_no_mistake() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for name in ["README.md", "docs/guide/getting-started.md", "docs/guide/tiers.md"] {
        let page = std::fs::read_to_string(root.join(name)).expect("the page is there");
        let blocks: Vec<_> = page
            .split("```toml\n")
            .skip(1)
            .map(|rest| rest.split("```").next().expect("a block ends"))
            .collect();
        assert!(!blocks.is_empty(), "{name} shows a configuration");
        for block in blocks {
            assert_eq!(check(block), "", "{name}");
        }
    }
}

#[test]
fn mistakes_in_front() {
    insta::assert_snapshot!(check(
        r#"
[server]
value_size_max = "1MiB"

[front]
url = "http://ann:hunter2@cache"
url_env = "CACHE"
password_env = "A"
password_file = "b"
staleness_max = "1ms"
untracked_ttl = "2h"
reply_timeout = "0s"
kept_size_max = "2MiB"
"#
    ));
    insta::assert_snapshot!(check("[front]\nstaleness_max = \"2s\"\n"));
    insta::assert_snapshot!(check("[front]\nurl = \"redis://:hunter2@c\"\nca_file = \"x\"\n"));
    insta::assert_snapshot!(check("[front]\nurl = \"redis://:hunter2@c\"\npassword_env = \"X\"\n"));
    assert_eq!(check("[front]\nurl = \"rediss://ann@c:1/2\"\nca_file = \"x\"\n"), "");
}

#[test]
fn mistakes_in_front_of_a_cluster() {
    insta::assert_snapshot!(check(
        r#"
[front]
urls = ["redis://ann@a/1", "rediss://:hunter2@b"]
topology = "standalone"
user = "bob"
password_env = "A"
"#
    ));
    insta::assert_snapshot!(check("[front]\nurls = [\"redis://a\", \"http://:hunter2@b\"]\n"));
    insta::assert_snapshot!(check("[front]\nurl = \"redis://a\"\ntopology = \"ring\"\n"));
    assert_eq!(check("[front]\nurls = [\"redis://a\", \"redis://b:7\"]\nuser = \"ann\"\n"), "");
    assert_eq!(check("[front]\nurl = \"redis://a\"\ntopology = \"cluster\"\n"), "");
}

#[test]
fn mistakes_in_redis() {
    insta::assert_snapshot!(check(
        r#"
[redis]
url = "http://ann:hunter2@cache"
urls = ["redis://b"]
password_env = "A"
password_file = "b"
sentinel_service = "main"
prefix = "a{b}"
connections = 51
reply_timeout = "0s"
staleness_bound = "1ms"
memory_ttl = "0s"
value_size_max = "1GiB"
"#
    ));
    insta::assert_snapshot!(check("[redis]\nprefix = \"shop\"\n"));
    insta::assert_snapshot!(check("[redis]\nurl = \"redis://:hunter2@c\"\npassword_env = \"X\"\n"));
    insta::assert_snapshot!(check("[redis]\nurls = [\"redis://a\", \"rediss://b\"]\n"));
    insta::assert_snapshot!(check("[redis]\nurl = \"redis://a\"\nca_file = \"x\"\n"));
    insta::assert_snapshot!(check("[redis]\nurl = \"redis://a\"\ntopology = \"sentinel\"\n"));
    insta::assert_snapshot!(check("[redis]\nurl = \"redis://a/3\"\ntopology = \"cluster\"\n"));
    // Once the section of the Redis to stand in front of.
    insta::assert_snapshot!(check("[redis]\nurl = \"redis://a\"\nnot_kept = [\"x\"]\n"));
    let lagging = "[redis]\nurl = \"redis://a\"\nread_from_replicas = true\n";
    insta::assert_snapshot!(check(lagging));
    let good = "[redis]\nurls = [\"rediss://ann@a\", \"rediss://ann@b\"]\ntopology = \"sentinel\"\n\
                sentinel_service = \"main\"\nca_file = \"x\"\nmemory_ttl = \"off\"\n";
    assert_eq!(check(good), "");
    assert_eq!(check(&format!("{good}\n[disk]\ndirectory = \"/var/cache/larder\"\n")), "");
}

#[test]
fn an_idle_ttl_and_a_tier_contradict_each_other() {
    let caches = "[caches.a]\ntable = \"a\"\nidle_ttl = \"10s\"\n\n[caches.b]\ntable = \"b\"\n\n\
                  [caches.c]\ntable = \"c\"\nidle_ttl = \"10s\"\nclass = \"preference\"\n";
    let text =
        format!("[redis]\nurl = \"redis://a\"\n\n[origins.o]\nurl = \"sqlite:o\"\n\n{caches}");
    insta::assert_snapshot!(check(&text));
    insta::assert_snapshot!(check(&format!("{text}\n[defaults]\nidle_ttl = \"20s\"\n")));
    let on_disk = text.replace("[redis]\nurl = \"redis://a\"", "[disk]\ndirectory = \"x\"");
    assert!(check(&on_disk).contains("[disk] would go on"), "{}", check(&on_disk));
    let bus_only = text.replace("redis://a\"", "redis://a\"\nentries = false");
    assert_eq!(check(&bus_only), "");
}

#[test]
fn mistakes_in_memcached() {
    let redis = "[redis]\nurl = \"redis://a\"\n";
    insta::assert_snapshot!(check("[memcached]\nservers = [\"a\"]\n"));
    insta::assert_snapshot!(check(&format!("{redis}[memcached]\ntls = true\n")));
    insta::assert_snapshot!(check(&format!(
        r#"{redis}[memcached]
servers = ["a:11211", "a"]
user = "ann"
ca_file = "x"
server_name = "y"
reply_timeout = "2h"
"#
    )));
    insta::assert_snapshot!(check(&format!(
        "{redis}[memcached]\nservers = [\"ann:hunter2@a:1\"]\n"
    )));
    let good = "[memcached]\nservers = [\"a\", \"b:1/?2\"]\nuser = \"ann\"\npassword_env = \"P\"\n\
                tls = true\nca_file = \"x\"\nwhen_dead = \"eject\"\n";
    assert_eq!(check(&format!("{redis}{good}")), "");
}
