//! Who may use the door. Passwords are kept as digests and never written out.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};

/// The user that `AUTH password` means, as in Redis.
const DEFAULT_USER: &str = "default";

/// A user and a password, as configured.
#[derive(Clone)]
pub struct User {
    /// The name that `AUTH name password` gives.
    pub name: String,
    /// The password in clear; kept only until the door is opened.
    pub password: String,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Every user. Without any, everybody may use the door.
pub(crate) struct Credentials(Vec<(Arc<str>, Digest)>);

impl Credentials {
    /// The users, and the password of the user `default` if there is one.
    pub(crate) fn new(password: Option<&str>, users: &[User]) -> Self {
        let default = password.map(|password| (DEFAULT_USER, password));
        let users = users.iter().map(|user| (user.name.as_str(), user.password.as_str()));
        Self(
            default
                .into_iter()
                .chain(users)
                .map(|(name, password)| (Arc::from(name), digest(&SHA256, password.as_bytes())))
                .collect(),
        )
    }

    /// Whether a client must authenticate.
    pub(crate) fn are_required(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether the user `default` has a password.
    pub(crate) fn has_default_password(&self) -> bool {
        self.0.iter().any(|(name, _)| &**name == DEFAULT_USER)
    }

    /// Whether there is a user of this name.
    pub(crate) fn has_user(&self, name: &[u8]) -> bool {
        let is_default = name == DEFAULT_USER.as_bytes() && !self.are_required();
        is_default || self.0.iter().any(|(user, _)| user.as_bytes() == name)
    }

    /// Who a client is before it says so: the user `default` if nobody needs a
    /// password.
    pub(crate) fn stranger(&self) -> Option<Arc<str>> {
        (!self.are_required()).then(|| Arc::from(DEFAULT_USER))
    }

    /// The user, if the password is right. Takes as long for an unknown user as
    /// for a wrong password.
    pub(crate) fn verify(&self, name: Option<&[u8]>, password: &[u8]) -> Option<Arc<str>> {
        let name = name.unwrap_or(DEFAULT_USER.as_bytes());
        if !self.are_required() {
            // As in Redis, any password is right for a user without one.
            return (name == DEFAULT_USER.as_bytes()).then(|| Arc::from(DEFAULT_USER));
        }
        let given = digest(&SHA256, password);
        let mut found = None;
        for (user, expected) in &self.0 {
            let is_right = verify_slices_are_equal(given.as_ref(), expected.as_ref()).is_ok();
            if is_right && user.as_bytes() == name {
                found = Some(Arc::clone(user));
            }
        }
        found
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> Credentials {
        let ann = User { name: "ann".to_owned(), password: "secret".to_owned() };
        Credentials::new(Some("open"), &[ann])
    }

    #[test]
    fn only_the_right_password_of_the_right_user_opens() {
        let credentials = credentials();
        assert_eq!(credentials.verify(None, b"open").as_deref(), Some("default"));
        assert_eq!(credentials.verify(Some(b"ann"), b"secret").as_deref(), Some("ann"));
        assert_eq!(credentials.verify(Some(b"ann"), b"open"), None);
        assert_eq!(credentials.verify(Some(b"bob"), b"secret"), None);
        assert_eq!(credentials.verify(None, b""), None);
        assert_eq!(credentials.stranger(), None);
    }

    #[test]
    fn without_users_everybody_is_the_default_user() {
        let open = Credentials::new(None, &[]);
        assert_eq!(open.stranger().as_deref(), Some("default"));
        assert_eq!(open.verify(Some(b"default"), b"anything").as_deref(), Some("default"));
        assert_eq!(open.verify(Some(b"ann"), b"anything"), None);
    }

    #[test]
    fn nothing_prints_a_password() {
        let user = User { name: "ann".to_owned(), password: "secret".to_owned() };
        assert!(!format!("{user:?} {:?}", credentials()).contains("secret"));
    }
}
