//! Certificates for servers that offer TLS, made by openssl when a test starts.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use crate::process::{self, Home, program};

/// A certificate authority of a test's own. What it signs is trusted by whoever
/// is given [`Authority::certificate`], and by nobody else. Clones are the same
/// authority.
///
/// ```no_run
/// use larder_testkit::certificates::Authority;
/// use larder_testkit::redis::{RedisOptions, RedisServer};
///
/// let authority = Authority::new();
/// let redis = RedisServer::launch(&RedisOptions::with_tls(&authority));
/// assert_eq!(redis.certificate(), Some(authority.certificate()));
/// let stranger = Authority::new();
/// assert_ne!(redis.certificate(), Some(stranger.certificate()));
/// ```
#[derive(Clone)]
pub struct Authority(Arc<Files>);

struct Files {
    directory: TempDir,
    certificate: PathBuf,
}

/// A certificate and its key, as files in the PEM format.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key, for the owner's eyes only.
    pub key: PathBuf,
}

/// What most servers of tests are called: by name and by address.
pub const LOCAL_NAMES: [&str; 2] = ["DNS:localhost", "IP:127.0.0.1"];

impl Authority {
    /// A new authority. Blocks: some tens of milliseconds.
    ///
    /// # Panics
    /// If openssl is not installed or fails.
    #[must_use]
    pub fn new() -> Self {
        let directory = TempDir::new().expect("a temporary directory can be made");
        let subject = ["-subj", "/CN=Authority"];
        let certificate = make(directory.path(), "authority", &subject, &AUTHORITY).certificate;
        Self(Arc::new(Files { directory, certificate }))
    }

    /// What to trust, as a file in the PEM format.
    #[must_use]
    pub fn certificate(&self) -> &Path {
        &self.0.certificate
    }

    /// A certificate for a client or a server with these names, such as
    /// `DNS:localhost` or `IP:127.0.0.1`. The files live as long as the
    /// authority, and are named after `name`.
    ///
    /// # Panics
    /// If openssl fails.
    #[must_use]
    pub fn sign(&self, name: &str, alternative_names: &[&str]) -> Identity {
        self.sign_in(self.0.directory.path(), name, alternative_names)
    }

    /// Puts `server.crt`, `server.key` and `authority.crt` into the home of a
    /// server, which may read them.
    pub(crate) fn sign_for(&self, home: &Home, alternative_names: &[&str]) {
        let identity = self.sign_in(home.path(), "server", alternative_names);
        home.own(&identity.certificate);
        home.keep_private(&identity.key);
        let certificate = std::fs::read_to_string(self.certificate());
        home.write("authority.crt", &certificate.expect("the authority has its certificate"));
    }

    fn sign_in(&self, directory: &Path, name: &str, alternative_names: &[&str]) -> Identity {
        let certificate = self.certificate().display().to_string();
        let key = self.certificate().with_extension("key").display().to_string();
        let subject = format!("/CN={name}");
        let signer = ["-subj", &subject, "-CA", &certificate, "-CAkey", &key];
        let names = format!("subjectAltName={}", alternative_names.join(","));
        let mut extensions = vec!["-addext", "basicConstraints=critical,CA:FALSE"];
        if !alternative_names.is_empty() {
            extensions.extend(["-addext", &names]);
        }
        make(directory, name, &signer, &extensions)
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Authority").field(&self.0.certificate).finish()
    }
}

/// How a server offers TLS.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    /// Who signs its certificate, and those of clients if it asks for them.
    pub authority: Authority,
    /// The names in its certificate.
    pub names: Vec<String>,
    /// Whether clients need a certificate of the authority.
    pub demands_client_certificate: bool,
}

impl TlsOptions {
    /// A certificate for `localhost` and 127.0.0.1; clients need none.
    #[must_use]
    pub fn new(authority: &Authority) -> Self {
        Self {
            authority: authority.clone(),
            names: LOCAL_NAMES.map(str::to_owned).into(),
            demands_client_certificate: false,
        }
    }

    /// The same with other names in the certificate.
    #[must_use]
    pub fn names<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.names = names.into_iter().map(Into::into).collect();
        self
    }

    pub(crate) fn names_list(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }
}

/// Makes `server.crt`, a certificate for `localhost`, not for 127.0.0.1, that
/// signs itself, and its key `server.key`. Returns what to trust: itself.
///
/// # Panics
/// If openssl is not installed or fails.
pub(crate) fn self_signed(home: &Home) -> PathBuf {
    let signer = ["-subj", "/CN=localhost"];
    let names = "subjectAltName=DNS:localhost";
    let extensions = ["-addext", names, "-addext", "basicConstraints=critical,CA:FALSE"];
    let identity = make(home.path(), "server", &signer, &extensions);
    home.own(&identity.certificate);
    home.keep_private(&identity.key);
    identity.certificate
}

const AUTHORITY: [&str; 2] = ["-addext", "basicConstraints=critical,CA:TRUE"];

fn make(directory: &Path, name: &str, signer: &[&str], extensions: &[&str]) -> Identity {
    let path = |ending: &str| directory.join(format!("{name}.{ending}"));
    let identity = Identity { certificate: path("crt"), key: path("key") };
    let mut openssl = Command::new(program(&["openssl"], "openssl"));
    openssl
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-days", "30"])
        .args(signer)
        .args(extensions)
        .arg("-keyout")
        .arg(&identity.key)
        .arg("-out")
        .arg(&identity.certificate);
    process::run(&mut openssl);
    identity
}
