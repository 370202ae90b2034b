//! TLS: a certificate and its key, read from files and read again when they change.
//!
//! rustls with ring. A pair that cannot be used is refused at the start; later it leaves the one in force where it is, and
//! [`Tls::problem`] says why. The two files cannot be replaced at one moment, so a pair that does not fit is looked at
//! again like any other change.

use std::{
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, RwLock},
    time::Duration,
};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Between two looks at the files.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Largest file that is read.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Where the pair is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM: the server's certificate, then those between it and an authority.
    pub certificate: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
}

/// A pair that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("read {path}: {message}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// What is in the files is no pair.
    #[error("use the certificate {certificate} with the key {key}: {message}")]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        message: String,
    },
}

/// The pair in force.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    current: RwLock<Arc<ServerConfig>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// As the files were when they were looked at last.
    seen: [Vec<u8>; 2],
    problem: Option<TlsError>,
}

impl Tls {
    /// Reads the pair.
    pub fn load(files: TlsFiles) -> Result<Arc<Self>, TlsError> {
        let seen = read(&files)?;
        let current = RwLock::new(Arc::new(config(&files, &seen)?));
        Ok(Arc::new(Self { files, current, state: Mutex::new(State { seen, problem: None }) }))
    }

    /// For the next connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.read().expect("no holder of this lock panics")))
    }

    /// The certificate's file.
    pub fn certificate(&self) -> &std::path::Path {
        &self.files.certificate
    }

    /// Why the files, as they are now, are not what is in force.
    pub fn problem(&self) -> Option<TlsError> {
        self.state.lock().expect("no holder of this lock panics").problem.clone()
    }

    /// Takes a changed pair into force, if it can be used.
    pub fn look(&self) {
        let mut state = self.state.lock().expect("no holder of this lock panics");
        let found = read(&self.files);
        if found.as_ref().is_ok_and(|found| *found == state.seen)
            && !matches!(state.problem, Some(TlsError::File { .. }))
        {
            return;
        }
        let checked = found.and_then(|found| {
            let config = config(&self.files, &found);
            state.seen = found;
            config
        });
        match checked {
            Ok(config) => {
                *self.current.write().expect("no holder of this lock panics") = Arc::new(config);
                state.problem = None;
                tracing::info!(certificate = %self.files.certificate.display(), "a changed certificate is in force");
            }
            Err(e) => {
                if state.problem.as_ref() != Some(&e) {
                    tracing::warn!("the certificate in force stays: cannot {e}");
                }
                state.problem = Some(e);
            }
        }
    }

    /// Looks at the files until told to stop.
    pub async fn look_for_ever(self: Arc<Self>, ending: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = ending.cancelled() => return,
            }
            let tls = Arc::clone(&self);
            if tokio::task::spawn_blocking(move || tls.look()).await.is_err() {
                tracing::error!("looking at the certificate's files failed");
            }
        }
    }
}

fn read(files: &TlsFiles) -> Result<[Vec<u8>; 2], TlsError> {
    let read = |path: &PathBuf| {
        let failed = |e: io::Error| TlsError::File { path: path.clone(), message: e.to_string() };
        if fs::metadata(path).map_err(failed)?.len() > MAX_FILE_BYTES {
            return Err(failed(io::Error::other("it is too large to be a certificate or a key")));
        }
        fs::read(path).map_err(failed)
    };
    Ok([read(&files.certificate)?, read(&files.key)?])
}

fn config(files: &TlsFiles, [certificate, key]: &[Vec<u8>; 2]) -> Result<ServerConfig, TlsError> {
    let unusable =
        |message: String| TlsError::Pair { certificate: files.certificate.clone(), key: files.key.clone(), message };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|e| unusable(format!("the certificate is no PEM: {e}")))?;
    if chain.is_empty() {
        return Err(unusable("there is no certificate in it".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| unusable(format!("the key is no PEM: {e}")))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| unusable(e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| unusable(e.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn write(folder: &Path, pair: &rcgen::CertifiedKey<rcgen::KeyPair>, what: &[&str]) {
        if what.contains(&"certificate") {
            fs::write(folder.join("cert.pem"), pair.cert.pem()).expect("written");
        }
        if what.contains(&"key") {
            fs::write(folder.join("key.pem"), pair.signing_key.serialize_pem()).expect("written");
        }
    }

    fn pair() -> rcgen::CertifiedKey<rcgen::KeyPair> {
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate")
    }

    #[test]
    fn a_new_pair_is_taken_and_one_that_does_not_fit_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = TlsFiles { certificate: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
        assert!(matches!(Tls::load(files.clone()), Err(TlsError::File { .. })));
        write(folder.path(), &pair(), &["certificate", "key"]);
        let tls = Tls::load(files).expect("it fits");
        let in_force = || Arc::as_ptr(&tls.current.read().expect("no panic"));
        let first = in_force();
        tls.look();
        assert_eq!((in_force(), tls.problem()), (first, None), "nothing has changed");

        let second = pair();
        write(folder.path(), &second, &["certificate"]);
        tls.look();
        assert_eq!(in_force(), first, "the old one is kept");
        assert!(matches!(tls.problem(), Some(TlsError::Pair { .. })));
        write(folder.path(), &second, &["key"]);
        tls.look();
        assert_ne!(in_force(), first);
        assert_eq!(tls.problem(), None);

        fs::remove_file(folder.path().join("key.pem")).expect("removed");
        tls.look();
        assert!(matches!(tls.problem(), Some(TlsError::File { .. })));
        write(folder.path(), &second, &["key"]);
        tls.look();
        assert_eq!(tls.problem(), None);
        fs::write(folder.path().join("cert.pem"), "no PEM").expect("written");
        tls.look();
        assert!(matches!(tls.problem(), Some(TlsError::Pair { .. })));
    }
}
