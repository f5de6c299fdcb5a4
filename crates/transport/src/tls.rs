//! TLS for QUIC: version 1.3, ring, no resumption, no 0-RTT, and names that are regions instead of hosts.
//!
//! Who may connect is judged by the certificate's chain (here) and its name (`identity.rs`). Sessions are never
//! resumed: every connection proves its certificate anew, so a reload or a removal counts from the next handshake on.

use std::sync::{Arc, OnceLock};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{CertificateName, Identity, Refusal, TransportError, certificate_name};

/// What the TLS server name says. It is not what is verified: regions are named by their URI.
pub(crate) const SERVER_NAME: &str = "region.tombolo";

/// The cryptography in use.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(ring::default_provider())).clone()
}

/// Whether who connects must show a certificate of the cluster's CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Demand {
    /// Peers.
    Certificate,
    /// Clients: they prove themselves with a token, above this layer.
    Nothing,
}

/// The listening side.
///
/// Errors: [`TransportError::Tls`].
pub(crate) fn server(
    identity: &Identity,
    demand: Demand,
    alpn: &[u8],
) -> Result<Arc<QuicServerConfig>, TransportError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls_error)?;
    let builder = match demand {
        Demand::Nothing => builder.with_no_client_auth(),
        Demand::Certificate => {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(identity.roots.clone(), provider()).build();
            builder.with_client_cert_verifier(verifier.map_err(tls_error)?)
        }
    };
    let certified = SingleCertAndKey::from((*identity.certified).clone());
    let mut config = builder.with_cert_resolver(Arc::new(certified));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(QuicServerConfig::try_from(config).map_err(tls_error)?))
}

/// Judges the name in a certificate.
pub(crate) type Judge = dyn Fn(&CertificateName) -> Result<(), Refusal> + Send + Sync;

/// The dialling side: one configuration per attempt, because it carries the expectation and keeps the refusal.
///
/// Errors: [`TransportError::Tls`].
pub(crate) fn client(
    roots: Arc<RootCertStore>,
    identity: Option<&Identity>,
    judge: Box<Judge>,
    alpn: &[u8],
) -> Result<(Arc<QuicClientConfig>, Arc<OnceLock<Refusal>>), TransportError> {
    let refusal = Arc::new(OnceLock::new());
    let verifier = RegionVerifier { roots, judge, refusal: refusal.clone() };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls_error)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from((*identity.certified).clone())))
        }
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok((Arc::new(QuicClientConfig::try_from(config).map_err(tls_error)?), refusal))
}

fn tls_error(error: impl std::fmt::Display) -> TransportError {
    TransportError::Tls { detail: error.to_string() }
}

/// The name in the certificate that a connection's peer has shown and the handshake has verified.
///
/// Errors: [`Refusal::NoCertificate`], [`Refusal::Name`].
pub(crate) fn peer_name(connection: &quinn::Connection) -> Result<CertificateName, Refusal> {
    let shown = connection.peer_identity().ok_or(Refusal::NoCertificate)?;
    let chain = shown.downcast::<Vec<CertificateDer<'static>>>().map_err(|_| Refusal::NoCertificate)?;
    Ok(certificate_name(chain.first().ok_or(Refusal::NoCertificate)?)?)
}

/// Checks the chain and the signatures like webpki does, and the region's URI where webpki would check a host name.
struct RegionVerifier {
    roots: Arc<RootCertStore>,
    judge: Box<Judge>,
    /// TLS errors are texts by the time they come back; the caller finds the typed reason here.
    refusal: Arc<OnceLock<Refusal>>,
}

impl std::fmt::Debug for RegionVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegionVerifier").finish_non_exhaustive()
    }
}

impl RegionVerifier {
    fn chain_refused(&self, error: rustls::Error) -> rustls::Error {
        let _ = self.refusal.set(Refusal::Chain { detail: error.to_string() });
        error
    }
}

impl ServerCertVerifier for RegionVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms.all;
        ParsedCertificate::try_from(end_entity)
            .and_then(|parsed| {
                verify_server_cert_signed_by_trust_anchor(
                    &parsed,
                    &self.roots,
                    intermediates,
                    now,
                    algorithms,
                )
            })
            .map_err(|error| self.chain_refused(error))?;
        let judged = certificate_name(end_entity).map_err(Refusal::from).and_then(|name| (self.judge)(&name));
        match judged {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(refusal) => {
                let _ = self.refusal.set(refusal);
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // QUIC has no TLS below 1.3.
        Err(CertificateError::BadSignature.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
            .map_err(|error| self.chain_refused(error))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
