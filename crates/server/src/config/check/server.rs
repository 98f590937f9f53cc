//! Rules for `[server]`, `[memory]` and `[disk]`.

use larder_disk::DiskOptions;

use super::Checker;
use crate::config::{ByteSize, DiskTierOptions, MemoryOptions, ServerOptions, SizeOrShare};

pub(super) fn check(checker: &mut Checker<'_>) {
    let server = &checker.parsed.config.server;
    addresses(checker, server);
    passwords(checker, server);
    limits(checker, server);
    memory(checker, &checker.parsed.config.memory);
    disk(checker, &checker.parsed.config.disk);
}

/// Whether a client needs a password, or only this machine can connect.
#[must_use]
pub fn is_protected(server: &ServerOptions) -> bool {
    let has_password =
        server.password_env.is_some() || server.password_file.is_some() || !server.users.is_empty();
    let is_local = server.bind.ip().is_loopback() && server.admin_bind.ip().is_loopback();
    has_password || is_local || server.allow_remote_without_password
}

fn addresses(checker: &mut Checker<'_>, server: &ServerOptions) {
    if server.bind == server.admin_bind && server.bind.port() != 0 {
        checker.error(
            &["server", "admin_bind"],
            format!("Redis clients and administration cannot share {}", server.bind),
            "give admin_bind another port, such as 6381",
        );
    }
    if is_protected(server) {
        return;
    }
    for (name, address) in [("bind", server.bind), ("admin_bind", server.admin_bind)] {
        if !address.ip().is_loopback() {
            checker.error(
                &["server", name],
                format!("other machines reach {address}, and no password is set"),
                "set password_env or password_file, bind to 127.0.0.1, or say \
                 allow_remote_without_password = true if everyone there may read and write",
            );
        }
    }
}

fn passwords(checker: &mut Checker<'_>, server: &ServerOptions) {
    const REMEDY: &str = "keep the one that holds the password";
    if server.password_env.is_some() && server.password_file.is_some() {
        let path = ["server", "password_file"];
        checker.error(&path, "password_env and password_file are both set", REMEDY);
    }
    for (name, user) in &server.users {
        let path = ["server", "users", name.as_str()];
        if user.password_env.is_some() && user.password_file.is_some() {
            checker.error(&path, "password_env and password_file are both set", REMEDY);
        }
        if user.password_env.is_none()
            && user.password_file.is_none()
            && !checker.is_set(&[path[0], path[1], name, "password_env"])
            && !checker.is_set(&[path[0], path[1], name, "password_file"])
        {
            let message = format!("the user `{name}` has no password");
            checker.error(&path, message, "set password_env or password_file");
        }
    }
}

fn limits(checker: &mut Checker<'_>, server: &ServerOptions) {
    const KIB: u64 = 1024;
    const GIB: u64 = 1024 * 1024 * 1024;
    let size = server.value_size_max;
    if !(KIB..=GIB / 2).contains(&size.0) {
        checker.error(
            &["server", "value_size_max"],
            format!("the largest value cannot be {size}: it is from 1KiB to 512MiB"),
            "64MiB is usual",
        );
    }
    if let Some(threads) = server.threads.filter(|threads| !(1..=1024).contains(threads)) {
        let message = format!("`threads` cannot be {threads}: it is from 1 to 1024");
        checker.error(&["server", "threads"], message, "leave it out for one for each core");
    }
    if !(1..=1_000_000).contains(&server.max_clients) {
        let message =
            format!("`max_clients` cannot be {}: it is from 1 to 1000000", server.max_clients);
        checker.error(&["server", "max_clients"], message, "10000 is usual");
    }
}

fn disk(checker: &mut Checker<'_>, disk: &DiskTierOptions) {
    if disk.directory.as_deref() == Some("") {
        checker.error(
            &["disk", "directory"],
            "the directory has no name",
            "name one, such as \"/var/cache/larder\", or leave [disk] out",
        );
    }
    for (option, size, least) in [
        ("budget", disk.budget, DiskOptions::DISK_BYTES_MIN),
        ("memory", disk.memory, DiskOptions::MEMORY_BYTES_MIN),
    ] {
        if size.0 < least {
            checker.error(
                &["disk", option],
                format!("{size} is too little for the disk tier"),
                format!("give it at least {}", ByteSize(least)),
            );
        }
    }
}

fn memory(checker: &mut Checker<'_>, memory: &MemoryOptions) {
    const LEAST: u64 = 1 << 20;
    if let SizeOrShare::Bytes(bytes) = memory.budget
        && bytes < LEAST
    {
        checker.error(
            &["memory", "budget"],
            format!("a budget of {} is below 1MiB", memory.budget),
            "give the server at least 1MiB; 256MiB is a good start",
        );
    }
    if memory.budget == SizeOrShare::Share(0.0) {
        checker.error(&["memory", "budget"], "a budget of 0% holds nothing", "25% is usual");
    }
    let SizeOrShare::Bytes(budget) = memory.budget else { return };
    let mut assigned = memory.plain_keys.map_or(0, |share| share.of(budget));
    for (name, cache) in &checker.parsed.config.caches {
        let Some(share) = cache.memory.filter(|_| cache.enabled != Some(false)) else { continue };
        assigned = assigned.saturating_add(share.of(budget));
        if assigned > budget {
            checker.error(
                &["caches", name, "memory"],
                format!(
                    "with this cache more memory is assigned than the budget of {} has",
                    memory.budget
                ),
                "raise [memory] budget, or assign less",
            );
            return;
        }
    }
}
