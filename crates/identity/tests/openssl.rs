//! What is signed is verified as users do it: by the openssl program.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use gureum_identity::Key;

fn openssl(folder: &Path, arguments: &str) -> Output {
    Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().unwrap()
}

#[test]
fn openssl_takes_what_the_key_signed_and_nothing_else() {
    if Command::new("openssl").arg("version").output().is_err() {
        println!("not tried: there is no openssl program here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let run = |arguments: &str| openssl(folder.path(), arguments);
    let done = |output: Output| {
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let document = "{\n  \"instanceId\": \"i-0123456789abcdef0\"\n}";
    let made = Key::make().unwrap();
    let key = Key::from_bytes(&made.to_bytes().unwrap()).unwrap();
    assert_eq!((key.certificate(), key.sign(b"x").unwrap()), (made.certificate(), made.sign(b"x").unwrap()), "all follows from the key");
    let signed = key.sign(document.as_bytes()).unwrap();
    assert!(signed.signature.lines().all(|line| line.len() <= 76) && signed.pkcs7.lines().all(|line| line.len() <= 64));

    write("certificate.pem", &key.certificate());
    write("document", document);
    write("rsa2048", &format!("-----BEGIN PKCS7-----\n{}\n-----END PKCS7-----\n", signed.pkcs7));
    write("signature.txt", &format!("{}\n", signed.signature));
    let shown = done(run("x509 -in certificate.pem -noout -subject -ext basicConstraints"));
    assert!(shown.contains("Gureum") && shown.contains("CA:FALSE"), "{shown}");
    done(run("verify -CAfile certificate.pem -partial_chain certificate.pem"));
    write("key.pem", &done(run("x509 -in certificate.pem -noout -pubkey")));
    done(run("base64 -d -in signature.txt -out signature"));
    assert_eq!(done(run("dgst -sha256 -verify key.pem -signature signature document")), "Verified OK\n");
    let verify = "smime -verify -in rsa2048 -inform PEM -certfile certificate.pem -nointern -noverify";
    assert_eq!(done(run(verify)), document);

    write("document", &document.replace("i-0", "i-1"));
    assert!(!run("dgst -sha256 -verify key.pem -signature signature document").status.success());
    write("certificate.pem", &Key::make().unwrap().certificate());
    assert!(!run(verify).status.success(), "another region's certificate");
}
