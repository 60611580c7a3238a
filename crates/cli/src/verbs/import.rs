//! `gureum images import`: an image of a directory or a tar archive.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use clap::Args as ClapArgs;
use gureum_proto::{
    common::v1::Tag,
    compute::v1::{
        BlockDeviceMapping, CompleteSnapshotRequest, DeleteSnapshotRequest, EbsBlockDevice, PutSnapshotBlockRequest, RegisterImageRequest,
        StartSnapshotRequest, block_device_mapping::Device,
    },
};
use sha2::{Digest, Sha256};

use super::images::image_tags;
use crate::{call, client::Client, failure::Failure, output::Output, parse, wait};

/// Bytes of a block: the most that the region takes.
const BLOCK: usize = 1 << 20;
/// How long the region may take to read what was brought.
const READ_WITHIN: Duration = Duration::from_secs(600);
/// Everything in an archive is in blocks of so many bytes.
const TAR_BLOCK: usize = 512;

#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Directory, or tar archive, perhaps compressed by gzip, bzip2, xz or zstd
    #[arg(value_name = "DIRECTORY|TARBALL")]
    source: PathBuf,
    /// Name of the image, unique among yours
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Program in it, from its top, that runs at every boot; else /etc/gureum/boot does, if it is there
    #[arg(long, value_name = "PATH")]
    boot_script: Option<String>,
    /// GiB that root volumes have at least
    #[arg(long, value_name = "GIB", default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..=65_536))]
    size: i32,
    /// x86_64 or arm64
    #[arg(long, default_value = "x86_64")]
    arch: String,
    /// What it is
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    /// Tag; may be given again
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse::tag)]
    tags: Vec<Tag>,
}

/// Carries the command out. What was begun and cannot be finished is removed.
pub async fn run(args: Args, client: &Client, out: &Output) -> Result<(), Failure> {
    let mut archive = Archive::open(&args)?;
    let request = StartSnapshotRequest {
        volume_size_gib: args.size,
        description: format!("Imported from {}", args.source.display()).chars().take(255).collect(),
        ..Default::default()
    };
    let Some(snapshot) = call!(client.compute().start_snapshot(request))?.snapshot else { return Ok(()) };
    let id = snapshot.snapshot_id;
    let brought = bring(&mut archive, &id, client, out).await;
    let registered = match brought {
        Ok(()) => register(args, &id, client, out).await,
        Err(failure) => Err(failure),
    };
    if registered.is_err() {
        // The failure that led here says more than one of this would.
        let _ = call!(client.compute().delete_snapshot(DeleteSnapshotRequest { snapshot_id: id, ..Default::default() }));
    }
    registered
}

async fn bring(archive: &mut Archive, id: &str, client: &Client, out: &Output) -> Result<(), Failure> {
    let (mut whole, mut count, mut bytes) = (Sha256::new(), 0u32, vec![0; BLOCK]);
    loop {
        let length = archive.fill(&mut bytes)?;
        if length == 0 {
            break;
        }
        let block_data = bytes[..length].to_vec();
        whole.update(&block_data);
        let checksum = Sha256::digest(&block_data).to_vec();
        let request = PutSnapshotBlockRequest { snapshot_id: id.to_owned(), block_index: count, block_data, checksum };
        call!(client.compute().put_snapshot_block(request))?;
        count += 1;
    }
    archive.finish()?;
    let request = CompleteSnapshotRequest {
        snapshot_id: id.to_owned(),
        changed_blocks_count: count,
        checksum: whole.finalize().to_vec(),
        ..Default::default()
    };
    call!(client.compute().complete_snapshot(request))?;
    wait::for_snapshot(client, out, id, READ_WITHIN).await.outcome
}

async fn register(args: Args, id: &str, client: &Client, out: &Output) -> Result<(), Failure> {
    let root = "/dev/xvda".to_owned();
    let ebs = EbsBlockDevice { snapshot_id: Some(id.to_owned()), ..Default::default() };
    let request = RegisterImageRequest {
        name: args.name,
        description: args.description,
        architecture: args.arch,
        block_device_mappings: vec![BlockDeviceMapping { device_name: root.clone(), device: Some(Device::Ebs(ebs)) }],
        root_device_name: root,
        ena_support: true,
        tag_specifications: image_tags(args.tags),
        ..Default::default()
    };
    match call!(client.compute().register_image(request))?.image {
        Some(image) => out.one(client, &image).await,
        None => Ok(()),
    }
}

/// The archive that is brought: what stands first, and then what comes from a file or a program.
struct Archive {
    source: PathBuf,
    first: io::Cursor<Vec<u8>>,
    rest: Rest,
}

enum Rest {
    File(File),
    /// What a program writes, and the program.
    Program(ChildStdout, Child),
}

fn unreadable(source: &Path, error: &io::Error) -> Failure {
    Failure::usage(format!("{} cannot be read: {error}", source.display()))
}

/// The program that undoes a file's compression, by its first bytes.
fn decompressor(first: &[u8]) -> Option<&'static str> {
    let known: [(&[u8], &str); 4] = [(b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"), (b"\x28\xb5\x2f\xfd", "zstd")];
    known.into_iter().find(|(magic, _)| first.starts_with(magic)).map(|(_, program)| program)
}

impl Archive {
    fn open(args: &Args) -> Result<Self, Failure> {
        let source = args.source.clone();
        let failed = |error: io::Error| unreadable(&args.source, &error);
        let is_directory = fs::metadata(&source).map_err(failed)?.is_dir();
        let rest = if is_directory {
            let mut tar = Command::new("tar");
            tar.args(["--create", "--format=posix", "--numeric-owner", "--file=-", "--directory"]).arg(&source);
            if !rustix::process::geteuid().is_root() {
                // Whose files they are here means nothing there.
                tar.args(["--owner=0", "--group=0"]);
            }
            program(tar.arg("."))?
        } else {
            let mut first = [0; 8];
            let count = File::open(&source).and_then(|mut file| file.read(&mut first)).map_err(failed)?;
            match decompressor(&first[..count]) {
                Some(name) => program(Command::new(name).args(["--decompress", "--stdout"]).arg(&source))?,
                None => Rest::File(File::open(&source).map_err(failed)?),
            }
        };
        let first = args.boot_script.as_deref().map(|path| boot_script(&source, path, is_directory)).transpose()?;
        Ok(Self { source, first: io::Cursor::new(first.unwrap_or_default()), rest })
    }

    /// Fills the buffer, but for what is missing at the end.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<usize, Failure> {
        let mut count = 0;
        while count < bytes.len() {
            let read = match self.first.read(&mut bytes[count..]) {
                Ok(0) => match &mut self.rest {
                    Rest::File(file) => file.read(&mut bytes[count..]),
                    Rest::Program(output, _) => output.read(&mut bytes[count..]),
                },
                read => read,
            };
            match read.map_err(|error| unreadable(&self.source, &error))? {
                0 => break,
                read => count += read,
            }
        }
        Ok(count)
    }

    /// Whether what came is all there is.
    fn finish(&mut self) -> Result<(), Failure> {
        let Rest::Program(_, program) = &mut self.rest else { return Ok(()) };
        let ended = program.wait().map_err(|error| unreadable(&self.source, &error))?;
        if ended.success() { Ok(()) } else { Err(Failure::usage(format!("{} could not be read whole ({ended})", self.source.display()))) }
    }
}

fn program(command: &mut Command) -> Result<Rest, Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|error| Failure::usage(format!("{name} cannot be run: {error}; install it")))?;
    match child.stdout.take() {
        Some(output) => Ok(Rest::Program(output, child)),
        None => Err(Failure::usage(format!("{name} has no output"))),
    }
}

/// The member of an archive that is the boot script, which runs the program at a path.
fn boot_script(source: &Path, path: &str, is_directory: bool) -> Result<Vec<u8>, Failure> {
    let path = path.trim_start_matches('/');
    let plain = |character: char| character.is_ascii_alphanumeric() || "/._-+".contains(character);
    if path.is_empty() || !path.chars().all(plain) {
        return Err(Failure::usage(format!("the boot script \"{path}\" has characters other than letters, digits and / . _ - +")));
    }
    if is_directory && !source.join(path).is_file() {
        return Err(Failure::usage(format!("there is no file {} for a boot script", source.join(path).display())));
    }
    if is_directory && fs::metadata(source.join(path)).is_ok_and(|found| found.permissions().mode() & 0o111 == 0) {
        return Err(Failure::usage(format!("the boot script {} may not be run; chmod +x it", source.join(path).display())));
    }
    Ok(member("etc/gureum/boot", format!("#!/bin/sh\nexec /{path}\n").as_bytes()))
}

/// A file as a member of an archive (POSIX 1003.1-1988, which calls it ustar).
fn member(name: &str, contents: &[u8]) -> Vec<u8> {
    let mut header = [0u8; TAR_BLOCK];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000755\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", contents.len()));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut member = header.to_vec();
    member.extend_from_slice(contents);
    member.resize(member.len().next_multiple_of(TAR_BLOCK), 0);
    member
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_read_by_tar() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one.tar");
        fs::write(&path, member("etc/gureum/boot", b"#!/bin/sh\n")).unwrap();
        let told = Command::new("tar").arg("-tvf").arg(&path).output().unwrap();
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        assert!(told.contains("-rwxr-xr-x") && told.contains("10 1970-01-01") && told.contains("etc/gureum/boot"), "{told}");
    }

    #[test]
    fn what_is_compressed_is_known_by_its_first_bytes() {
        assert_eq!(decompressor(b"\x1f\x8b\x08\0\0\0\0\0"), Some("gzip"));
        assert_eq!(decompressor(b"etc/"), None);
    }

    #[test]
    fn a_boot_script_is_refused_that_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        assert!(boot_script(folder.path(), "missing", true).is_err());
        assert!(boot_script(folder.path(), "a; reboot", false).is_err());
        fs::write(folder.path().join("start"), "").unwrap();
        assert!(boot_script(folder.path(), "/start", true).is_err(), "it may not be run");
        fs::set_permissions(folder.path().join("start"), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(boot_script(folder.path(), "/start", true).is_ok());
    }
}
