//! Arguments with a form of their own: tags, filters, counts, text from files, volumes.

use std::{fs, io::Read, ops::RangeInclusive, path::Path};

use gureum_proto::{
    common::v1::{Filter, Tag},
    compute::v1::{BlockDeviceMapping, EbsBlockDevice, Permission, VolumeType, block_device_mapping::Device, permission::Grantee},
};

use crate::failure::Failure;

/// `KEY=VALUE`; the value may be empty and may have more equals signs.
pub fn tag(text: &str) -> Result<Tag, String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok(Tag { key: key.to_owned(), value: value.to_owned() }),
        _ => Err("a tag is written as KEY=VALUE".to_owned()),
    }
}

/// `NAME=VALUE,VALUE`: one of the values must match. A comma in a value is written `\,`.
pub fn filter(text: &str) -> Result<Filter, String> {
    match text.split_once('=') {
        Some((name, values)) if !name.is_empty() && !values.is_empty() => {
            Ok(Filter { name: name.to_owned(), values: split_values(values) })
        }
        _ => Err("a filter is written as NAME=VALUE or NAME=VALUE,VALUE; * and ? stand for any letters".to_owned()),
    }
}

fn split_values(text: &str) -> Vec<String> {
    let mut values = vec![String::new()];
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        let last = values.len() - 1;
        match (letter, letters.as_str().starts_with(',')) {
            ('\\', true) => {
                letters.next();
                values[last].push(',');
            }
            (',', _) => values.push(String::new()),
            (letter, _) => values[last].push(letter),
        }
    }
    values
}

/// A filter whose one value is taken as it is, also with `*`, `?` or `\` in it.
pub fn exact(name: &str, value: &str) -> Filter {
    let escaped = value.chars().flat_map(|letter| matches!(letter, '*' | '?' | '\\').then_some('\\').into_iter().chain([letter])).collect();
    Filter { name: name.to_owned(), values: vec![escaped] }
}

/// How many instances: `3`, or `1-5` for as many of them as there is room for.
pub fn count(text: &str) -> Result<RangeInclusive<i32>, String> {
    let (least, most) = text.split_once('-').unwrap_or((text, text));
    match (least.parse(), most.parse()) {
        (Ok(least), Ok(most)) if 1 <= least && least <= most && most <= 1000 => Ok(least..=most),
        _ => Err("a count is a number from 1 to 1000, or two as 1-5".to_owned()),
    }
}

/// Text, the content of a file for `@FILE`, or standard input for `@-`.
pub fn content(argument: &str, limit: u64) -> Result<Vec<u8>, Failure> {
    let Some(path) = argument.strip_prefix('@') else { return Ok(argument.as_bytes().to_vec()) };
    let failed = |error| Failure::file("read", Path::new(path), &error);
    let mut content = Vec::new();
    // One byte more than allowed tells that it is too long; the rest need not be read.
    let read = match path {
        "-" => std::io::stdin().lock().take(limit + 1).read_to_end(&mut content),
        path => fs::File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut content)),
    };
    read.map_err(failed)?;
    if content.len() as u64 > limit {
        return Err(Failure::usage(format!("{path} has more than {limit} bytes")));
    }
    Ok(content)
}

/// The kind of a volume.
pub fn volume_type(text: &str) -> Result<VolumeType, String> {
    Ok(match text {
        "gp2" => VolumeType::Gp2,
        "gp3" => VolumeType::Gp3,
        "io1" => VolumeType::Io1,
        "io2" => VolumeType::Io2,
        "st1" => VolumeType::St1,
        "sc1" => VolumeType::Sc1,
        "standard" => VolumeType::Standard,
        _ => return Err(format!("\"{text}\" is no kind of volume: gp2, gp3, io1, io2, st1, sc1 or standard")),
    })
}

/// A volume of a launch: `dev=/dev/sdf,size=20,type=gp3,keep`.
pub fn volume(text: &str) -> Result<BlockDeviceMapping, String> {
    let (mut device_name, mut ebs, mut none) = (None, EbsBlockDevice::default(), false);
    for part in text.split(',') {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        match (key, value) {
            ("dev" | "device", device) if !device.is_empty() => device_name = Some(device.to_owned()),
            ("size", size) => ebs.size_gib = Some(positive("size", size)?),
            ("type", kind) => ebs.volume_type = volume_type(kind)?.into(),
            ("iops", iops) => ebs.iops = Some(positive("iops", iops)?),
            ("throughput", throughput) => ebs.throughput_mibps = Some(positive("throughput", throughput)?),
            ("snapshot", snapshot) if !snapshot.is_empty() => ebs.snapshot_id = Some(snapshot.to_owned()),
            ("kms-key", key) if !key.is_empty() => ebs.kms_key_id = Some(key.to_owned()),
            ("keep", "") => ebs.delete_on_termination = Some(false),
            ("delete", "") => ebs.delete_on_termination = Some(true),
            ("encrypted", "") => ebs.encrypted = Some(true),
            ("none", "") => none = true,
            _ => return Err(format!("\"{part}\" is not known; {VOLUME_FORM}")),
        }
    }
    let device_name = device_name.ok_or_else(|| format!("dev= is missing; {VOLUME_FORM}"))?;
    let device = match (none, ebs == EbsBlockDevice::default()) {
        (false, _) => Device::Ebs(ebs),
        (true, true) => Device::NoDevice(true),
        (true, false) => return Err("none leaves a device of the image out, and goes with dev= only".to_owned()),
    };
    Ok(BlockDeviceMapping { device_name, device: Some(device) })
}

const VOLUME_FORM: &str = "a volume is written as dev=/dev/sdf,size=20 with any of type=, iops=, throughput=, snapshot=, kms-key=, \
                           encrypted, keep, delete, or as dev=/dev/sdf,none";

fn positive(what: &str, text: &str) -> Result<i32, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| format!("{what} \"{text}\" is not a number above 0"))
}

/// Who may use an image or snapshot: an account, or `all`.
pub fn grantee(text: &str) -> Result<Permission, String> {
    let grantee = match text {
        "all" => Grantee::Group("all".to_owned()),
        account => Grantee::UserId(account.parse::<gureum_model::AccountId>().map_err(|error| error.to_string())?.to_string()),
    };
    Ok(Permission { grantee: Some(grantee) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_keep_what_is_behind_the_first_equals_sign() {
        assert_eq!(tag("a=b=c"), Ok(Tag { key: "a".into(), value: "b=c".into() }));
        assert_eq!(tag("a="), Ok(Tag { key: "a".into(), value: String::new() }));
        assert!(tag("=b").is_err());
        assert!(tag("b").is_err());
    }

    #[test]
    fn filters_have_one_or_more_values() {
        assert_eq!(filter("vpc-id=a,b").unwrap().values, ["a", "b"]);
        assert_eq!(filter(r"tag:x=a\,b,c\*").unwrap().values, ["a,b", r"c\*"]);
        assert!(filter("vpc-id=").is_err());
        assert!(filter("vpc-id").is_err());
        assert_eq!(exact("tag:Name", r"a*b?\").values, [r"a\*b\?\\"]);
    }

    #[test]
    fn counts_are_a_number_or_two() {
        assert_eq!(count("3"), Ok(3..=3));
        assert_eq!(count("1-5"), Ok(1..=5));
        for wrong in ["0", "5-1", "1001", "-1", "1-", "", "many"] {
            assert!(count(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn volumes_are_read() {
        let ebs = EbsBlockDevice {
            size_gib: Some(20),
            volume_type: VolumeType::Gp3.into(),
            iops: Some(4000),
            delete_on_termination: Some(false),
            ..Default::default()
        };
        let expected = BlockDeviceMapping { device_name: "/dev/sdf".into(), device: Some(Device::Ebs(ebs)) };
        assert_eq!(volume("dev=/dev/sdf,size=20,type=gp3,iops=4000,keep"), Ok(expected));
        assert_eq!(volume("dev=/dev/sdb,none").unwrap().device, Some(Device::NoDevice(true)));
        for wrong in
            ["", "size=20", "dev=", "dev=/dev/sdf,size=0", "dev=/dev/sdf,type=gp9", "dev=/dev/sdf,keep=yes", "dev=/dev/sdf,none,size=1"]
        {
            assert!(volume(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn content_comes_from_text_or_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("user-data");
        fs::write(&path, b"#!/bin/sh\n").unwrap();
        assert_eq!(content("echo", 100).unwrap(), b"echo");
        assert_eq!(content(&format!("@{}", path.display()), 10).unwrap(), b"#!/bin/sh\n");
        assert!(matches!(content(&format!("@{}", path.display()), 9), Err(Failure::Usage(text)) if text.contains("more than 9 bytes")));
        assert!(matches!(content("@/nowhere", 9), Err(Failure::Usage(text)) if text.contains("/nowhere")));
    }

    #[test]
    fn images_are_shared_with_accounts_or_all() {
        assert_eq!(grantee("all").unwrap().grantee, Some(Grantee::Group("all".into())));
        assert_eq!(grantee("000000000002").unwrap().grantee, Some(Grantee::UserId("000000000002".into())));
        assert!(grantee("bob").is_err());
    }
}
