//! Blots secrets out of what is shown or logged.

/// What stands in place of a secret.
pub const BLOT: &str = "***";

/// A database URL without its password; parameters that may be secrets are
/// blotted too.
#[must_use]
pub fn url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
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
    match rest.split_once('?') {
        Some((address, query)) => {
            let parameters: Vec<_> = query.split('&').map(parameter).collect();
            shown.push_str(&format!("{address}?{}", parameters.join("&")));
        }
        None => shown.push_str(rest),
    }
    shown
}

/// A line of a configuration without passwords: those in URLs, and the values
/// of options whose names say that they are secrets.
#[must_use]
pub fn line(line: &str) -> String {
    if let Some((name, _)) = line.split_once('=')
        && is_secret_name(name.trim())
    {
        return format!("{}= {BLOT}", name);
    }
    let Some(scheme) = line.find("://") else {
        return line.to_owned();
    };
    let start = line[..scheme].trim_end_matches(|c: char| c.is_ascii_alphanumeric()).len();
    let quote = line[..start].chars().next_back().filter(|c| matches!(c, '"' | '\''));
    let end = match quote {
        Some(quote) => line[start..].find(quote).map_or(line.len(), |length| start + length),
        None => line.len(),
    };
    format!("{}{}{}", &line[..start], url(&line[start..end]), &line[end..])
}

fn parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, _)) if is_secret_name(name) => format!("{name}={BLOT}"),
        _ => parameter.to_owned(),
    }
}

fn is_secret_name(name: &str) -> bool {
    let name = name.trim_matches(['"', '\'']).to_ascii_lowercase();
    // These name where a secret is kept, not the secret.
    if name.ends_with("_env") || name.ends_with("_file") {
        return false;
    }
    ["password", "passwd", "pwd", "secret", "token"].iter().any(|word| name.contains(word))
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
        ] {
            assert_eq!(url(from), to);
        }
    }

    #[test]
    fn lines_keep_everything_but_the_secret() {
        for (from, to) in [
            ("url = \"mysql://a:b@h/d\" # x", "url = \"mysql://a:***@h/d\" # x"),
            ("password = \"hunter2\"", "password = ***"),
            ("password_env = \"SHOP\"", "password_env = \"SHOP\""),
            ("ttl = \"5m\"", "ttl = \"5m\""),
            ("ü🕴://a:b@c", "ü🕴://a:***@c"),
        ] {
            assert_eq!(line(from), to);
        }
    }
}
