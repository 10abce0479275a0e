//! Keys and certificates of one control plane, and kubeconfigs for its users.

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

/// A certificate authority, and the directory of its certificates.
pub struct Pki {
    ca: Issuer<'static, KeyPair>,
    dir: PathBuf,
}

impl Pki {
    /// Makes the authority and a key for service account tokens (`sa.key`, `sa.pub`).
    ///
    /// # Errors
    /// If files cannot be written.
    pub fn new(dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, "lab");
        let key = KeyPair::generate()?;
        fs::write(dir.join("ca.crt"), params.self_signed(&key)?.pem())?;
        let accounts = KeyPair::generate()?;
        fs::write(dir.join("sa.key"), accounts.serialize_pem())?;
        fs::write(dir.join("sa.pub"), accounts.public_key_pem())?;
        Ok(Self { ca: Issuer::new(params, key), dir: dir.into() })
    }

    /// The authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// The keys of service account tokens: the private and the public one.
    pub fn service_account_keys(&self) -> (PathBuf, PathBuf) {
        (self.dir.join("sa.key"), self.dir.join("sa.pub"))
    }

    /// A serving certificate as `NAME.crt` and `NAME.key`. It is valid for the name `kubernetes` and
    /// these addresses.
    ///
    /// # Errors
    /// If files cannot be written.
    pub fn serving(&self, name: &str, addresses: &[IpAddr]) -> anyhow::Result<(PathBuf, PathBuf)> {
        let mut params = CertificateParams::new(vec!["kubernetes".to_owned(), "localhost".to_owned()])?;
        params.subject_alt_names.extend(addresses.iter().map(|ip| SanType::IpAddress(*ip)));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(name, params)
    }

    /// A kubeconfig with a certificate for this user and group.
    ///
    /// # Errors
    /// If files cannot be written.
    pub fn kubeconfig(&self, server: &str, user: &str, group: &str) -> anyhow::Result<PathBuf> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, user);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let name = user.replace(':', "-");
        let (certificate, key) = self.issue(&name, params)?;
        let path = self.dir.join(format!("{name}.kubeconfig"));
        let user =
            format!("client-certificate: {}, client-key: {}", certificate.display(), key.display());
        self.write_kubeconfig(&path, server, &user)?;
        Ok(path)
    }

    /// A kubeconfig that reads its token from a file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn token_kubeconfig(&self, server: &str, token: &Path) -> anyhow::Result<PathBuf> {
        let path = token.with_extension("kubeconfig");
        self.write_kubeconfig(&path, server, &format!("tokenFile: {}", token.display()))?;
        Ok(path)
    }

    fn write_kubeconfig(&self, path: &Path, server: &str, user: &str) -> anyhow::Result<()> {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: lab\n\
             clusters: [{{name: lab, cluster: {{server: '{server}', certificate-authority: {}, tls-server-name: kubernetes}}}}]\n\
             users: [{{name: lab, user: {{{user}}}}}]\n\
             contexts: [{{name: lab, context: {{cluster: lab, user: lab}}}}]\n",
            self.ca().display()
        );
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    fn issue(&self, name: &str, params: CertificateParams) -> anyhow::Result<(PathBuf, PathBuf)> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.ca)?;
        let (crt, pem) = (self.dir.join(format!("{name}.crt")), self.dir.join(format!("{name}.key")));
        fs::write(&crt, certificate.pem())?;
        fs::write(&pem, key.serialize_pem())?;
        Ok((crt, pem))
    }
}
