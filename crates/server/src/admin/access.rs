//! Who may look: where Redis clients need a password, so do administrators.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::answer::Failure;
use crate::resp::{Credentials, User};

/// The passwords, the same as those of Redis clients.
pub struct Access(Credentials);

impl Access {
    /// The password of the user `default`, and users with their own. Without
    /// any, everybody may look.
    #[must_use]
    pub fn new(password: Option<&str>, users: &[User]) -> Self {
        Self(Credentials::new(password, users))
    }

    /// Whether everybody may look.
    pub(super) fn is_open(&self) -> bool {
        !self.0.are_required()
    }

    fn allows(&self, authorization: Option<&[u8]>) -> bool {
        if self.is_open() {
            return true;
        }
        let Some((scheme, given)) = authorization.and_then(split_at_space) else { return false };
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return self.0.verify(None, given).is_some();
        }
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return false;
        }
        let Some(pair) = decode_base64(given) else { return false };
        let Some(colon) = pair.iter().position(|byte| *byte == b':') else { return false };
        let name = Some(&pair[..colon]).filter(|name| !name.is_empty());
        self.0.verify(name, &pair[colon + 1..]).is_some()
    }
}

/// Lets a request through that gives a password, where one is needed.
pub(super) async fn require(
    State(access): State<Arc<Access>>,
    request: Request,
    next: Next,
) -> Response {
    let authorization = request.headers().get(AUTHORIZATION).map(|value| value.as_bytes());
    if access.allows(authorization) {
        return next.run(request).await;
    }
    Failure::unauthorized().into_response()
}

fn split_at_space(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = text.iter().position(|byte| *byte == b' ')?;
    Some((&text[..space], text[space + 1..].trim_ascii()))
}

/// RFC 4648, padding optional.
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.iter().take_while(|byte| **byte != b'=') {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        let ann = User { name: "ann".to_owned(), password: "a:b".to_owned() };
        Access::new(Some("open"), &[ann])
    }

    #[test]
    fn only_a_right_password_lets_through() {
        for (header, allowed) in [
            (None, false),
            (Some("Bearer open"), true),
            (Some("bearer  open"), true),
            (Some("Bearer shut"), false),
            // "ann:a:b", ":open", "default:open", "ann:open"
            (Some("Basic YW5uOmE6Yg=="), true),
            (Some("Basic Om9wZW4="), true),
            (Some("Basic ZGVmYXVsdDpvcGVu"), true),
            (Some("Basic YW5uOm9wZW4="), false),
            (Some("Basic !"), false),
            (Some("Digest open"), false),
            (Some("open"), false),
        ] {
            assert_eq!(access().allows(header.map(str::as_bytes)), allowed, "{header:?}");
        }
        assert!(Access::new(None, &[]).allows(None));
    }
}
