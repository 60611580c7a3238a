//! `gureum cp`: files into an instance and out of it.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::{client::Client, copy::Copy, failure::Failure, output::Output, resolve};

/// Copy files into an instance or out of it
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum cp index.html web:/var/www/html
  gureum cp i-00000000000000001:/var/log/app.log .
  gureum cp --recursive site web:/srv/site        a directory, with its modes and links
  gureum cp -r web:/etc etc-of-web

What has a colon before any slash is in an instance, named by id or name; a file here whose name has one is
written ./with:colon. Where the second names a directory, the copy goes into it. A path that does not begin
with / is one in the user's home. The instance needs sh and tar.")]
pub struct Args {
    /// What to copy: FILE, or INSTANCE:PATH
    #[arg(value_name = "FROM")]
    from: String,
    /// Where to: INSTANCE:PATH, or FILE
    #[arg(value_name = "TO")]
    to: String,
    /// Copy directories with all that is in them
    #[arg(short, long)]
    recursive: bool,
    /// Who reads or writes in the instance: a user of it, whose the copies are
    #[arg(short, long, value_name = "NAME", default_value = "root")]
    user: String,
}

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Side<'a> {
    Here(PathBuf),
    Instance { name: &'a str, path: &'a str },
}

impl<'a> Side<'a> {
    fn read(text: &'a str) -> Self {
        match text.split_once(':') {
            Some((name, path)) if !name.is_empty() && !name.contains('/') => Self::Instance { name, path },
            _ => Self::Here(text.into()),
        }
    }
}

/// Copies.
pub async fn run(args: Args, client: &Client, out: &Output) -> Result<(), Failure> {
    let (from, to) = (Side::read(&args.from), Side::read(&args.to));
    let copy = async |name: &str| {
        let instance_id = resolve::instance(client, name).await?;
        Ok::<_, Failure>(Copy { client, out, instance_id, user: args.user.clone(), recursive: args.recursive })
    };
    match (from, to) {
        (Side::Here(from), Side::Instance { name, path }) => copy(name).await?.push(&from, path).await,
        (Side::Instance { name, path }, Side::Here(to)) if !path.is_empty() => copy(name).await?.pull(path, &to).await,
        (Side::Instance { .. }, Side::Here(_)) => Err(Failure::usage(format!("\"{}\" names no path in the instance", args.from))),
        (Side::Here(_), Side::Here(_)) => {
            Err(Failure::usage("neither side is in an instance: write one of them as INSTANCE:PATH, such as web:/tmp"))
        }
        (Side::Instance { .. }, Side::Instance { .. }) => {
            Err(Failure::usage("both sides are in instances: copy to a file here first, and from there"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_an_instance_is_told_from_what_is_here() {
        assert_eq!(Side::read("web:/etc/hosts"), Side::Instance { name: "web", path: "/etc/hosts" });
        assert_eq!(Side::read("i-00000000000000001:"), Side::Instance { name: "i-00000000000000001", path: "" });
        for here in ["file", "./with:colon", "/a/b:c", ":x", "."] {
            assert_eq!(Side::read(here), Side::Here(here.into()));
        }
    }
}
