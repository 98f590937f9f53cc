//! Encrypted connections.

use std::path::Path;
use std::sync::Arc;

use larder_core::{Error, ErrorKind, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::{ServerAddress, TlsOptions, failure};

/// What encrypts connections, made once from the options.
#[derive(Clone)]
pub(crate) struct Tls {
    connector: TlsConnector,
    server_name: Option<ServerName<'static>>,
}

impl Tls {
    /// Reads the certificates.
    pub(crate) fn new(options: &TlsOptions) -> Result<Self> {
        let wrong = |what: &'static str| Error::new(ErrorKind::Config, what);
        let roots = match &options.ca_file {
            Some(path) => read_roots(path)?,
            None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
        };
        // Named, so that nothing depends on which default a process installed.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong("TLS cannot be set up").caused_by(error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let server_name = match &options.server_name {
            Some(name) => Some(ServerName::try_from(name.clone()).map_err(|error| {
                wrong("the name that memcached's certificate must have is no name")
                    .with("server_name", name)
                    .remedy("give a DNS name or an address")
                    .caused_by(error)
            })?),
            None => None,
        };
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), server_name })
    }

    /// Encrypts a connection and verifies who is at its other end.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the certificate is not one to trust, so that
    /// nobody tries again and again.
    pub(crate) async fn encrypt(
        &self,
        stream: TcpStream,
        server: &ServerAddress,
    ) -> Result<TlsStream<TcpStream>> {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(server.host.clone()).map_err(|error| {
                failure::config(server, "a host that no certificate can name").caused_by(error)
            })?,
        };
        self.connector.connect(name, stream).await.map_err(|error| {
            let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
            match cause {
                Some(rustls::Error::InvalidCertificate(_)) => failure::config(
                    server,
                    "memcached's certificate is not trusted",
                )
                .remedy(
                    "name the certificate of who signed it as ca_file, and a host that it names",
                )
                .caused_by(error),
                Some(rustls::Error::InvalidMessage(_)) => {
                    failure::config(server, "memcached does not speak TLS there")
                        .remedy("start it with -Z, or connect without TLS")
                        .caused_by(error)
                }
                _ => failure::unreachable(server, error),
            }
        })
    }
}

fn read_roots(path: &Path) -> Result<RootCertStore> {
    let unreadable = || {
        Error::new(ErrorKind::Config, "the certificates to trust cannot be read")
            .with("ca_file", path.display())
            .remedy("name a readable PEM file with at least one certificate")
    };
    let mut roots = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(path).map_err(|error| unreadable().caused_by(error))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| unreadable().caused_by(error))?;
        roots.add(certificate).map_err(|error| unreadable().caused_by(error))?;
    }
    if roots.is_empty() { Err(unreadable()) } else { Ok(roots) }
}
