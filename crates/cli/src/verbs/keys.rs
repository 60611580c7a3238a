//! `gureum keys`: key pairs. A private key is given once; it is written so that nobody else can read it.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use gureum_proto::{
    common::v1::Tag,
    security::v1::{
        CreateKeyPairRequest, CreateKeyPairResponse, DeleteKeyPairRequest, DescribeKeyPairsRequest, ImportKeyPairRequest, KeyFormat,
        KeyPair, KeyType,
    },
};

use crate::{
    call,
    client::Client,
    failure::Failure,
    list::ListArgs,
    message,
    output::Output,
    pages, parse, resolve,
    table::{Cell, Show, word},
    time::Timestamp,
};

/// The longest public key that is taken.
const MAX_PUBLIC_KEY_BYTES: u64 = 16 << 10;

/// Key pairs: who may log in to instances
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum keys create ops --out ~/.ssh/ops.pem
  gureum keys import laptop ~/.ssh/id_ed25519.pub
  gureum keys ls
  gureum keys delete ops")]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List key pairs
    #[command(visible_alias = "list", after_help = "Examples:\n  gureum keys ls\n  gureum keys ls --filter key-name='ops*'")]
    Ls(ListArgs),
    /// Make a key pair; the private key is given now and never again
    #[command(
        after_help = "Examples:\n  gureum keys create ops --out ops.pem\n  gureum keys create old --type rsa --format ppk --out old.ppk\n  gureum keys create ops > ops.pem"
    )]
    Create(CreateArgs),
    /// Register a public key that exists already
    #[command(
        after_help = "Examples:\n  gureum keys import laptop ~/.ssh/id_ed25519.pub\n  ssh-add -L | head -1 | gureum keys import agent @-"
    )]
    Import {
        /// Name of the key pair
        name: String,
        /// The public key: its file, its text, or @- for standard input
        #[arg(value_name = "FILE|KEY")]
        key: String,
        /// Tag; may be given again
        #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse::tag)]
        tags: Vec<Tag>,
    },
    /// Delete key pairs; instances keep the keys that they have
    #[command(visible_alias = "rm", after_help = "Examples:\n  gureum keys delete ops\n  gureum keys delete key-00000000000000001")]
    Delete {
        /// Key pairs, by name or id
        #[arg(value_name = "KEY", required = true)]
        keys: Vec<String>,
    },
}

#[derive(Debug, ClapArgs)]
struct CreateArgs {
    /// Name of the key pair
    name: String,
    /// Kind of key
    #[arg(long = "type", value_enum, default_value = "ed25519")]
    kind: Kind,
    /// Form of the private key
    #[arg(long, value_enum, default_value = "pem")]
    format: PrivateForm,
    /// File for the private key, readable by its owner only; one that exists is left alone. Without it the key goes to standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Tag; may be given again
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse::tag)]
    tags: Vec<Tag>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Ed25519,
    Rsa,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PrivateForm {
    /// For OpenSSH
    Pem,
    /// For PuTTY
    Ppk,
}

/// Carries the command out.
pub async fn run(args: Args, client: &Client, out: &Output) -> Result<(), Failure> {
    match args.verb.unwrap_or_else(|| Verb::Ls(ListArgs::default())) {
        Verb::Ls(list) => {
            let request = DescribeKeyPairsRequest { filters: list.filters, ..Default::default() };
            let keys: Vec<KeyPair> = pages!(client.security().describe_key_pairs(request).key_pairs, list.limit)?;
            out.list(client, &keys).await
        }
        Verb::Create(args) => create(args, client, out).await,
        Verb::Import { name, key, tags } => {
            let public_key_material = public_key(&key)?;
            let request = ImportKeyPairRequest { key_name: name, public_key_material, tags, ..Default::default() };
            match call!(client.security().import_key_pair(request))?.key_pair {
                Some(key) => out.one(client, &key).await,
                None => Ok(()),
            }
        }
        Verb::Delete { keys } => {
            for key in keys {
                let request = if resolve::is_id(&key, "key-") {
                    DeleteKeyPairRequest { key_pair_id: key.clone(), ..Default::default() }
                } else {
                    DeleteKeyPairRequest { key_name: key.clone(), ..Default::default() }
                };
                call!(client.security().delete_key_pair(request))?;
                out.done(&key, "deleted")?;
            }
            Ok(())
        }
    }
}

/// A file that exists, or what [`parse::content`] takes. No form of a public key is a file's name: it has blanks, or is base64.
fn public_key(argument: &str) -> Result<Vec<u8>, Failure> {
    if Path::new(argument).is_file() {
        return parse::content(&format!("@{argument}"), MAX_PUBLIC_KEY_BYTES);
    }
    let base64 = |letter: char| letter.is_ascii_alphanumeric() || "+/=".contains(letter);
    if !argument.starts_with('@') && !argument.contains(char::is_whitespace) && !argument.chars().all(base64) {
        let told = format!("\"{argument}\" is neither a file that exists nor a public key; name one, or give the key's text");
        return Err(Failure::usage(told));
    }
    parse::content(argument, MAX_PUBLIC_KEY_BYTES)
}

async fn create(args: CreateArgs, client: &Client, out: &Output) -> Result<(), Failure> {
    let request = CreateKeyPairRequest {
        key_name: args.name,
        key_type: match args.kind {
            Kind::Ed25519 => KeyType::Ed25519,
            Kind::Rsa => KeyType::Rsa,
        }
        .into(),
        key_format: match args.format {
            PrivateForm::Pem => KeyFormat::Pem,
            PrivateForm::Ppk => KeyFormat::Ppk,
        }
        .into(),
        tags: args.tags,
        ..Default::default()
    };
    let Some(path) = args.out else {
        if out.is_id() {
            return Err(Failure::usage("`-o id` prints the id alone, so the private key needs a file: add --out FILE"));
        }
        let answer = call!(client.security().create_key_pair(request))?;
        return if out.is_json() { out.write(&format!("{:#}\n", message::to_json(&answer)?)) } else { out.write(&answer.key_material) };
    };
    // Made before the call: a key that could not be kept must not come to be.
    let file = new_private_file(&path)?;
    let mut answer = match call!(client.security().create_key_pair(request)) {
        Ok(answer) => answer,
        Err(failure) => {
            // It is empty and this command's own.
            let _ = fs::remove_file(&path);
            return Err(failure);
        }
    };
    keep(file, &path, &answer.key_material)?;
    answer.key_material.clear();
    match answer.key_pair {
        Some(key) => out.one(client, &key).await,
        None => Ok(()),
    }
}

fn new_private_file(path: &Path) -> Result<File, Failure> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::usage(format!("{} exists already and is left as it is; name another file", path.display())),
        _ => Failure::file("make", path, &error),
    })
}

fn keep(mut file: File, path: &Path, key: &str) -> Result<(), Failure> {
    file.write_all(key.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| Failure::file("write the private key to", path, &error))
}

impl Show for KeyPair {
    const NAME: &'static str = "gureum.security.v1.KeyPair";
    const COLUMNS: &'static [&'static str] = &["ID", "NAME", "TYPE", "FINGERPRINT", "CREATED"];
    const TELLS_TIME: bool = true;

    fn id(&self) -> &str {
        &self.key_pair_id
    }

    fn row(&self, now: Option<Timestamp>) -> Vec<Cell> {
        vec![
            self.id().into(),
            (&self.key_name).into(),
            word(self.key_type().as_str_name(), "KEY_TYPE_").into(),
            (&self.key_fingerprint).into(),
            Cell::ago(self.create_time.as_ref(), now),
        ]
    }
}

impl Show for CreateKeyPairResponse {
    const NAME: &'static str = "gureum.security.v1.CreateKeyPairResponse";
    const COLUMNS: &'static [&'static str] = &["ID", "NAME"];

    fn id(&self) -> &str {
        self.key_pair.as_ref().map_or("", |key| &key.key_pair_id)
    }

    fn row(&self, _now: Option<Timestamp>) -> Vec<Cell> {
        vec![self.id().into(), self.key_pair.as_ref().map_or("", |key| key.key_name.as_str()).into()]
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_private_key_is_its_owners_and_overwrites_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ops.pem");
        keep(new_private_file(&path).unwrap(), &path, "secret").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(new_private_file(&path), Err(Failure::Usage(text)) if text.contains("exists already")));
        assert_eq!(fs::read_to_string(&path).unwrap(), "secret");
    }

    #[test]
    fn a_public_key_is_a_file_or_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ops.pub");
        let name = path.display().to_string();
        assert!(matches!(public_key(&name), Err(Failure::Usage(text)) if text.contains(&name) && text.contains("nor a public key")));
        fs::write(&path, "ssh-ed25519 AAAA me@home").unwrap();
        for argument in [name.clone(), format!("@{name}"), "ssh-ed25519 AAAA me@home".to_owned()] {
            assert_eq!(public_key(&argument).unwrap(), b"ssh-ed25519 AAAA me@home", "{argument}");
        }
        assert_eq!(public_key("MCowBQYDK2VwAyEA+/==").unwrap(), b"MCowBQYDK2VwAyEA+/==");
    }
}
