use std::fmt::Write;

use super::{RedisOptions, SOCKET};
use crate::process::{Home, Port};

/// The configuration of a server that lives in this home.
pub(super) fn text(options: &RedisOptions, port: &Port, home: &Home) -> String {
    let mut text = format!(
        "bind 127.0.0.1\nunixsocket {SOCKET}\nloglevel notice\n\
         repl-diskless-sync-delay 0\nrepl-timeout 10\nrepl-ping-replica-period 1\n"
    );
    let mut line = |line: std::fmt::Arguments<'_>| {
        text.write_fmt(line).and_then(|()| text.write_char('\n')).expect("a string takes any text");
    };
    match &options.tls {
        None => line(format_args!("port {}", port.number())),
        Some(tls) => {
            tls.authority.sign_for(home, &tls.names_list());
            line(format_args!("port 0\ntls-port {}", port.number()));
            line(format_args!("tls-cert-file server.crt\ntls-key-file server.key"));
            line(format_args!("tls-ca-cert-file authority.crt"));
            let demands = if tls.demands_client_certificate { "yes" } else { "no" };
            line(format_args!("tls-auth-clients {demands}"));
            line(format_args!("tls-replication yes"));
        }
    }
    if options.durable {
        // The kernel has what was written when the process dies.
        line(format_args!("save \"\"\nappendonly yes\nappendfsync no"));
    } else {
        line(format_args!("save \"\"\nappendonly no"));
    }
    if let Some(password) = &options.password {
        line(format_args!("requirepass \"{password}\"\nmasterauth \"{password}\""));
    }
    for user in &options.users {
        line(format_args!("user {user}"));
    }
    text
}
