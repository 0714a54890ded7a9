//! Whom a connection trusts: Mozilla's authorities and the system's, or only those that a variable names (a company's proxy,
//! a private hub).

use super::fetch_error::FetchError;
use super::settings::Certificates;
use std::fs;
use std::path::{Path, PathBuf};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// The configuration of connections.
pub fn tls(named: Option<&Certificates>) -> Result<TlsConfig, FetchError> {
    let trusted = match named {
        Some(named) => read(named)?,
        None => default_authorities(),
    };
    Ok(TlsConfig::builder().root_certs(RootCerts::from(trusted)).build())
}

/// Mozilla's, and those of the system, which may hold a company's own.
fn default_authorities() -> Vec<Certificate<'static>> {
    let mozilla = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|found| Certificate::from_der(found));
    let mut trusted: Vec<Certificate<'static>> = mozilla.map(|found| found.to_owned()).collect();
    // A store that is not there or cannot be read leaves Mozilla's.
    for found in rustls_native_certs::load_native_certs().certs {
        trusted.push(Certificate::from_der(found.as_ref()).to_owned());
    }
    trusted
}

/// The certificates of a PEM file, or of all files of a folder.
fn read(named: &Certificates) -> Result<Vec<Certificate<'static>>, FetchError> {
    let unusable = |path: &Path, why: String| FetchError::Certificates {
        variable: named.variable,
        path: path.to_owned(),
        why,
    };
    if !named.path.is_dir() {
        let found = certificates_of(&named.path).map_err(|why| unusable(&named.path, why))?;
        return if found.is_empty() { Err(unusable(&named.path, NONE.to_owned())) } else { Ok(found) };
    }
    let entries = fs::read_dir(&named.path).map_err(|error| unusable(&named.path, error.to_string()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    files.sort();
    // Such a folder holds keys, lists and README files, too.
    let found = files.iter().filter(|file| file.is_file()).filter_map(|file| certificates_of(file).ok());
    let found: Vec<Certificate<'static>> = found.flatten().collect();
    if found.is_empty() { Err(unusable(&named.path, NONE.to_owned())) } else { Ok(found) }
}

const NONE: &str = "there is none in it";

fn certificates_of(path: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let pem = fs::read(path).map_err(|error| error.to_string())?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| error.to_string())? {
            certificates.push(certificate);
        }
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";

    fn of(path: &Path) -> Result<usize, String> {
        let named = Certificates { variable: "SSL_CERT_DIR", path: path.to_owned() };
        read(&named).map(|found| found.len()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_folder_gives_the_certificates_of_all_its_files() {
        let folder = tempfile::tempdir().unwrap();
        assert!(of(folder.path()).unwrap_err().contains("there is none in it"));
        fs::write(folder.path().join("README"), "no certificate").unwrap();
        fs::write(folder.path().join("company.pem"), PEM.repeat(2)).unwrap();
        fs::write(folder.path().join("0a1b2c3d.0"), PEM).unwrap();
        assert_eq!(of(folder.path()), Ok(3));
        assert_eq!(of(&folder.path().join("company.pem")), Ok(2));
        assert!(of(&folder.path().join("README")).unwrap_err().contains("README"));
        assert!(of(&folder.path().join("no-such")).is_err());
    }

    #[test]
    fn mozillas_authorities_are_trusted_whatever_the_system_has() {
        assert!(default_authorities().len() >= webpki_root_certs::TLS_SERVER_ROOT_CERTS.len());
    }
}
