//! Passwords and certificates: the wrong ones are named, never shown.

use larder_core::{ErrorKind, Key, PutCondition, Store};
use larder_redis::{RedisOptions, RedisTier};
use larder_testkit::certificates::{Authority, TlsOptions};
use larder_testkit::conformance::{Kept, block_on, store::entry};
use larder_testkit::redis::{RedisOptions as ServerOptions, RedisServer};

use crate::support::{message, options, patient, publish, removal, subscribe};

async fn encrypted() -> Kept<larder_redis::RedisStore, RedisServer> {
    let authority = Authority::new();
    let mut server = ServerOptions::with_tls(&authority);
    server.password = Some("sesame".to_owned());
    let server = RedisServer::launch(&server);
    let mut options = options(&server);
    options.ca_file = Some(authority.certificate().to_owned());
    let tier = RedisTier::connect(options).await.expect("the CA is the right one");
    Kept::new(tier.store("album"), server)
}

larder_testkit::store_conformance!(tls, encrypted());

#[test]
fn the_bus_goes_through_tls() {
    block_on(async {
        let authority = Authority::new();
        let server = RedisServer::launch(&ServerOptions::with_tls(&authority));
        let mut options = options(&server);
        options.ca_file = Some(authority.certificate().to_owned());
        let tier = RedisTier::connect(options).await.expect("the CA is the right one");
        let mut subscription = subscribe(&tier, None).await;
        publish(&tier, &removal("a")).await;
        assert_eq!(message(&mut subscription).await.announcement, removal("a"));
    });
}

#[test]
fn a_certificate_that_is_not_trusted_is_refused_with_a_remedy() {
    block_on(async {
        let authority = Authority::new();
        let server = RedisServer::launch(&ServerOptions::with_tls(&authority));
        let stranger = Authority::new();
        let elsewhere = TlsOptions::new(&authority).names(["DNS:elsewhere"]);
        let elsewhere =
            RedisServer::launch(&ServerOptions { tls: Some(elsewhere), ..Default::default() });
        let cases = [
            (&server, Some(stranger.certificate())),
            (&server, None),
            (&elsewhere, Some(authority.certificate())),
        ];
        for (server, trusted) in cases {
            let mut options = options(server);
            options.ca_file = trusted.map(std::borrow::ToOwned::to_owned);
            let error = RedisTier::connect(options).await.expect_err("it is not trusted");
            let text = error.to_string();
            assert_eq!(error.kind(), ErrorKind::Config, "{text}");
            assert!(text.contains("certificate") && text.contains("ca_file"), "{text}");
            assert!(text.contains(&server.address().to_string()), "{text}");
        }
    });
}

#[test]
fn a_wrong_password_is_refused_and_not_shown() {
    block_on(async {
        let server = RedisServer::launch(&ServerOptions::with_password("sesame"));
        let address = server.address();
        for url in [
            format!("redis://:wrongsecret@{address}"),
            format!("redis://nobody:wrongsecret@{address}"),
            format!("redis://{address}"),
        ] {
            let error = RedisTier::connect(patient(RedisOptions::new(url))).await;
            let error = error.expect_err("it is wrong");
            let text = format!("{error} {error:?}");
            assert_eq!(error.kind(), ErrorKind::Config, "{text}");
            assert!(text.contains("password") && text.contains(&address.to_string()), "{text}");
            assert!(!text.contains("wrongsecret") && !text.contains("sesame"), "{text}");
        }
    });
}

#[test]
fn a_server_that_is_not_there_is_unavailable() {
    block_on(async {
        let server = RedisServer::launch(&ServerOptions::with_password("sesame"));
        let tier = RedisTier::connect(options(&server)).await.expect("it runs");
        server.kill();
        let late = RedisTier::connect(options(&server)).await.expect_err("it is gone");
        let store = tier.store("album");
        let read = store.get(&Key::new("a")).await.expect_err("it is gone");
        let put = [(Key::new("a"), entry("value", 1))];
        let put = store.put_many(&put, PutCondition::Vacant).await.expect_err("it is gone");
        for error in [late, read, put] {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            let text = error.to_string();
            assert!(text.contains(&server.address().to_string()), "{text}");
            assert!(!text.contains("sesame"), "{text}");
        }
        server.revive();
        crate::support::wait_until("it is used again", async || {
            store.get(&Key::new("a")).await.is_ok()
        })
        .await;
    });
}

#[test]
fn another_programs_port_is_not_taken_for_redis() {
    block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        let talker = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                use tokio::io::AsyncWriteExt;
                let _ = stream.write_all(b"220 mail.example ESMTP\r\n").await;
            }
        });
        let options = patient(RedisOptions::new(format!("redis://{address}")));
        let error = RedisTier::connect(options).await.expect_err("it is no Redis");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        talker.abort();
    });
}
