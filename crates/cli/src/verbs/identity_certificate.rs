//! `gureum identity-certificate`.

use clap::Args as ClapArgs;
use gureum_proto::compute::v1::{GetIdentityCertificateRequest, GetIdentityCertificateResponse};

use crate::{
    call,
    client::Client,
    failure::Failure,
    message,
    output::Output,
    table::{Cell, Show},
    time::Timestamp,
};

/// Print the certificate that instances' identity documents are signed with
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum identity-certificate > certificate.pem

In an instance, its identity document with the signature in it:
  (echo -----BEGIN PKCS7-----
   curl -s http://169.254.169.254/latest/dynamic/instance-identity/rsa2048; echo
   echo -----END PKCS7-----) > rsa2048

Where the certificate is, which prints the document if the region signed it:
  openssl smime -verify -in rsa2048 -inform PEM -certfile certificate.pem -nointern -noverify

The same of `document` and `signature` as they are at the same place:
  openssl x509 -in certificate.pem -noout -pubkey > key.pem
  base64 -d signature > signature.bin
  openssl dgst -sha256 -verify key.pem -signature signature.bin document")]
pub struct Args {}

impl Show for GetIdentityCertificateResponse {
    const NAME: &'static str = "gureum.compute.v1.GetIdentityCertificateResponse";
    const COLUMNS: &'static [&'static str] = &["CERTIFICATE"];

    fn id(&self) -> &str {
        &self.certificate
    }

    fn row(&self, _now: Option<Timestamp>) -> Vec<Cell> {
        vec![self.id().into()]
    }
}

/// Prints the certificate, in PEM form.
pub async fn run(_: Args, client: &Client, out: &Output) -> Result<(), Failure> {
    let answer = call!(client.compute().get_identity_certificate(GetIdentityCertificateRequest {}))?;
    if out.is_json() {
        return out.write(&format!("{:#}\n", message::to_json(&answer)?));
    }
    out.write(&answer.certificate)
}
