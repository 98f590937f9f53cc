//! Blots secrets out of what is shown or logged.

/// What stands in place of a secret.
pub const BLOT: &str = "***";

/// A database URL without its password; parameters that may be secrets are
/// blotted too.
#[must_use]
pub fn url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return opaque(url);
    };
    let mut shown = format!("{scheme}://");
    // The last `@` ends the credentials: a password may hold `@`, `/` and `?`
    // itself. An `@` further behind blots too much, never too little.
    let rest = match rest.rsplit_once('@') {
        Some((credentials, rest)) => {
            let (user, secret) = credentials.split_once(':').unwrap_or((credentials, ""));
            shown.push_str(user);
            if !secret.is_empty() {
                shown.push(':');
                shown.push_str(BLOT);
            }
            shown.push('@');
            rest
        }
        None => rest,
    };
    shown + &without_parameters(rest)
}

/// A URL without `//`: a path of SQLite, or a slip that may hold a password
/// anywhere before its last `@`.
fn opaque(url: &str) -> String {
    match (url.split_once(':'), url.rsplit_once('@')) {
        (Some(("sqlite", _)), _) | (_, None) => without_parameters(url),
        (Some((scheme, _)), Some((before, rest))) if scheme.len() < before.len() => {
            format!("{scheme}:{BLOT}@{}", without_parameters(rest))
        }
        (_, Some((_, rest))) => format!("{BLOT}@{}", without_parameters(rest)),
    }
}

/// The address, and its parameters with those blotted that may be secrets.
fn without_parameters(address: &str) -> String {
    match address.split_once('?') {
        Some((address, query)) => {
            let parameters: Vec<_> = query.split('&').map(parameter).collect();
            format!("{address}?{}", parameters.join("&"))
        }
        None => address.to_owned(),
    }
}

/// A line of a configuration without passwords: those in URLs, and the values
/// of options whose names say that they are secrets.
#[must_use]
pub fn line(line: &str) -> String {
    let shown = without_urls(line);
    match after_secret_name(&shown) {
        Some(end) => format!("{}{BLOT}", &shown[..end]),
        None => shown,
    }
}

/// Where the value begins of the first option whose name says that it is a
/// secret, however it is separated from its name.
fn after_secret_name(line: &str) -> Option<usize> {
    let mut at = 0;
    for word in line.split_inclusive(|c: char| !is_of_name(c)) {
        let name = word.trim_end_matches(|c| !is_of_name(c));
        let end = at + name.len();
        let is_first = line[..at].trim().is_empty();
        at += word.len();
        if !is_secret_name(name) {
            continue;
        }
        let rest = line[end..].trim_start_matches(['"', '\'']);
        let value = rest.trim_start();
        let value = match value.strip_prefix(['=', ':']) {
            Some(value) => value,
            // As other programs' files have it: a name, a space, a value.
            None if is_first && value.len() < rest.len() => value,
            None => continue,
        };
        let value = value.trim_start();
        // A parameter of a URL is blotted already.
        if !value.is_empty() && !value.starts_with(BLOT) {
            return Some(line.len() - value.len());
        }
    }
    None
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || "_-.".contains(c)
}

fn without_urls(line: &str) -> String {
    let Some(scheme) = line.find("://") else { return without_opaque_urls(line) };
    let start = line[..scheme].trim_end_matches(|c: char| c.is_ascii_alphanumeric()).len();
    let quote = line[..start].chars().next_back().filter(|c| matches!(c, '"' | '\''));
    let end = match quote {
        Some(quote) => line[start..].find(quote).map_or(line.len(), |length| start + length),
        None => line.len(),
    };
    let before = without_opaque_urls(&line[..start]);
    // A list may have more of them.
    format!("{before}{}{}", url(&line[start..end]), without_urls(&line[end..]))
}

/// URLs without `//` that stand in quotes on a line, blotted.
fn without_opaque_urls(line: &str) -> String {
    let is_one = |text: &&str| {
        let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
        text.contains('@')
            && !scheme.is_empty()
            && scheme.chars().all(|c| c.is_ascii_alphanumeric())
    };
    let urls = line.split(['"', '\'']).filter(is_one);
    urls.fold(line.to_owned(), |line, found| line.replace(found, &url(found)))
}

fn parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, _)) if is_secret_name(name) => format!("{name}={BLOT}"),
        _ => parameter.to_owned(),
    }
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_lowercase();
    // These name where a secret is kept, not the secret.
    if name.ends_with("_env") || name.ends_with("_file") {
        return false;
    }
    let is_auth = name.split(['_', '-', '.']).any(|word| word.ends_with("auth"));
    const WORDS: [&str; 6] = ["pass", "pwd", "secret", "token", "credential", "apikey"];
    is_auth || WORDS.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_blotted_out() {
        for (from, to) in [
            ("postgres://ann:pa@ss:w@db:5432/shop", "postgres://ann:***@db:5432/shop"),
            ("postgres://ann@db/shop?password=x&a=b", "postgres://ann@db/shop?password=***&a=b"),
            ("mysql://ann:a/b?c@db/shop", "mysql://ann:***@db/shop"),
            ("sqlite:///tmp/shop.db", "sqlite:///tmp/shop.db"),
            ("no url", "no url"),
            ("postgres:u:hunter2@h", "postgres:***@h"),
            ("postgres:hunter2@h/shop?password=x", "postgres:***@h/shop?password=***"),
            ("postgres:h/shop?password=x", "postgres:h/shop?password=***"),
            ("ann@h:5432", "***@h:5432"),
            ("sqlite:/tmp/a@b.db", "sqlite:/tmp/a@b.db"),
        ] {
            assert_eq!(url(from), to);
        }
    }

    #[test]
    fn lines_keep_everything_but_the_secret() {
        for (from, to) in [
            ("url = \"mysql://a:b@h/d\" # x", "url = \"mysql://a:***@h/d\" # x"),
            ("password = \"hunter2\"", "password = ***"),
            ("pass = \"hunter2\"", "pass = ***"),
            ("requirepass = hunter2 # x", "requirepass = ***"),
            ("auth=\"hunter2\"", "auth=***"),
            ("  \"x-auth\" = \"hunter2\"", "  \"x-auth\" = ***"),
            ("requirepass hunter2", "requirepass ***"),
            ("password: hunter2", "password: ***"),
            ("users = { ann = { password = \"hunter2\" } }", "users = { ann = { password = ***"),
            ("url = \"postgres:u:hunter2@h\"", "url = \"postgres:***@h\""),
            (
                "urls = [\"redis://a:b@c\", 'redis://d:e@f']",
                "urls = [\"redis://a:***@c\", 'redis://d:***@f']",
            ),
            (
                "servers = [\"a:1\", \"d:e@f:1\", \"g:h@i\"]",
                "servers = [\"a:1\", \"d:***@f:1\", \"g:***@i\"]",
            ),
            ("[\"a:b@c\", \"redis://d:e@f\"]", "[\"a:***@c\", \"redis://d:***@f\"]"),
            ("author = \"Miles\"", "author = \"Miles\""),
            ("password_file = \"/run/secret\"", "password_file = \"/run/secret\""),
            ("password_env = \"SHOP\"", "password_env = \"SHOP\""),
            ("ttl = \"5m\"", "ttl = \"5m\""),
            ("ü🕴://a:b@c", "ü🕴://a:***@c"),
        ] {
            assert_eq!(line(from), to);
        }
    }
}
