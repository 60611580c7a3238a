//! What an instance shall be: the options that `launch` and `templates` share.

use clap::{Args, ValueEnum, builder::NonEmptyStringValueParser};
use gureum_proto::{
    common::v1::Tag,
    compute::v1::{
        BlockDeviceMapping, EbsBlockDevice, HttpTokens, InstanceMetadataOptionsSpec, LaunchSpec, PlacementSpec, ShutdownBehavior,
        TagSpecification, VolumeType, block_device_mapping::Device,
    },
};

use crate::{client::Client, failure::Failure, output::Output, parse, resolve};

/// The most that a launch takes as user data.
const MAX_USER_DATA_BYTES: u64 = 16 << 10;

/// What an instance shall be.
#[derive(Debug, Clone, Args)]
pub struct SpecArgs {
    /// Image: id, name, how the name of a public one begins, or '*' and '?' in it; of several the newest for the type
    #[arg(short, long, value_name = "IMAGE", value_parser = NonEmptyStringValueParser::new())]
    image: Option<String>,
    /// Instance type, such as t3.micro
    #[arg(short = 't', long = "type", value_name = "TYPE")]
    instance_type: Option<String>,
    /// Name of the key pair that may log in
    #[arg(short, long, value_name = "NAME")]
    key: Option<String>,
    /// Security group, by id or name; may be given again
    #[arg(short, long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// Subnet; the zone's default one if not given
    #[arg(long, value_name = "ID")]
    subnet: Option<String>,
    /// Zone, such as us-east-1a
    #[arg(long, value_name = "ZONE", conflicts_with = "subnet")]
    zone: Option<String>,
    /// Private address in the subnet
    #[arg(long, value_name = "ADDRESS")]
    private_ip: Option<String>,
    /// A public address, whatever the subnet says
    #[arg(long)]
    public_ip: bool,
    /// No public address, whatever the subnet says
    #[arg(long, conflicts_with = "public_ip")]
    no_public_ip: bool,
    /// What runs at first boot: text, @FILE, or @- for standard input; at most 16 KiB
    #[arg(long, value_name = "TEXT|@FILE")]
    user_data: Option<String>,
    /// GiB of the root volume
    #[arg(long, value_name = "GIB", value_parser = clap::value_parser!(i32).range(1..))]
    root_size: Option<i32>,
    /// Kind of the root volume, such as gp3
    #[arg(long, value_name = "KIND", value_parser = parse::volume_type)]
    root_type: Option<VolumeType>,
    /// A further volume: dev=/dev/sdf,size=20,type=gp3,keep; may be given again
    #[arg(long = "volume", value_name = "VOLUME", value_parser = parse::volume)]
    volumes: Vec<BlockDeviceMapping>,
    /// Name, which is the tag Name
    #[arg(short, long, value_name = "NAME")]
    name: Option<String>,
    /// Tag of the instances; may be given again
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse::tag)]
    tags: Vec<Tag>,
    /// Tag of their volumes; may be given again
    #[arg(long = "volume-tag", value_name = "KEY=VALUE", value_parser = parse::tag)]
    volume_tags: Vec<Tag>,
    /// Refuse to terminate them until `gureum unprotect`
    #[arg(long)]
    protect: bool,
    /// What shutdown from inside does
    #[arg(long, value_enum, value_name = "DEED")]
    shutdown_behavior: Option<Shutdown>,
    /// Measure every minute
    #[arg(long)]
    monitoring: bool,
    /// Role that programs in them have
    #[arg(long, value_name = "NAME|ARN")]
    iam_instance_profile: Option<String>,
    /// Answer requests for metadata only with a token
    #[arg(long)]
    require_metadata_token: bool,
}

/// What shutdown from inside does.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shutdown {
    /// They stop, and can be started
    Stop,
    /// They are gone
    Terminate,
}

impl SpecArgs {
    /// The options as the contract has them. Names become ids; what was not said stays unsaid.
    pub async fn resolve(self, client: &Client, out: &Output) -> Result<LaunchSpec, Failure> {
        let image = match &self.image {
            Some(text) if self.sets_root() || !resolve::is_id(text, "ami-") => {
                Some(resolve::image_to_launch(client, out, text, self.instance_type.as_deref()).await?)
            }
            Some(_) | None => None,
        };
        let root_device = image.as_ref().map(|image| image.root_device_name.clone());
        let image_id = image.map(|image| image.image_id).or(self.image.clone());
        let mut security_group_ids = Vec::with_capacity(self.groups.len());
        for group in &self.groups {
            security_group_ids.push(resolve::group(client, group).await?);
        }
        self.spec(image_id, root_device, security_group_ids)
    }

    fn sets_root(&self) -> bool {
        self.root_size.is_some() || self.root_type.is_some()
    }

    fn spec(self, image_id: Option<String>, root_device: Option<String>, security_group_ids: Vec<String>) -> Result<LaunchSpec, Failure> {
        let mut block_device_mappings = self.volumes.clone();
        if self.sets_root() {
            let device = root_device
                .ok_or_else(|| Failure::usage("--root-size and --root-type need --image, which says what the root device is"))?;
            block_device_mappings.insert(0, self.root_volume(device));
        }
        let tokens = InstanceMetadataOptionsSpec { http_tokens: HttpTokens::Required.into(), ..Default::default() };
        Ok(LaunchSpec {
            image_id,
            security_group_ids,
            block_device_mappings,
            tag_specifications: self.tag_specifications(),
            associate_public_ip_address: match (self.public_ip, self.no_public_ip) {
                (true, _) => Some(true),
                (false, true) => Some(false),
                (false, false) => None,
            },
            user_data: self.user_data.map(|text| parse::content(&text, MAX_USER_DATA_BYTES)).transpose()?,
            instance_type: self.instance_type,
            key_name: self.key,
            subnet_id: self.subnet,
            placement: self.zone.map(|zone| PlacementSpec { availability_zone: Some(zone), ..Default::default() }),
            private_ip_address: self.private_ip,
            instance_initiated_shutdown_behavior: self.shutdown_behavior.map_or(ShutdownBehavior::Unspecified, Into::into).into(),
            disable_api_termination: self.protect.then_some(true),
            monitoring_enabled: self.monitoring.then_some(true),
            iam_instance_profile: self.iam_instance_profile,
            metadata_options: self.require_metadata_token.then_some(tokens),
            ..LaunchSpec::default()
        })
    }

    fn root_volume(&self, device_name: String) -> BlockDeviceMapping {
        let volume_type = self.root_type.unwrap_or(VolumeType::Unspecified).into();
        let ebs = EbsBlockDevice { size_gib: self.root_size, volume_type, ..Default::default() };
        BlockDeviceMapping { device_name, device: Some(Device::Ebs(ebs)) }
    }

    fn tag_specifications(&self) -> Vec<TagSpecification> {
        let name = self.name.iter().map(|name| Tag { key: "Name".to_owned(), value: name.clone() });
        let instance = name.chain(self.tags.iter().cloned()).collect::<Vec<_>>();
        [("instance", instance), ("volume", self.volume_tags.clone())]
            .into_iter()
            .filter(|(_, tags)| !tags.is_empty())
            .map(|(kind, tags)| TagSpecification { resource_type: kind.to_owned(), tags })
            .collect()
    }
}

impl From<Shutdown> for ShutdownBehavior {
    fn from(shutdown: Shutdown) -> Self {
        match shutdown {
            Shutdown::Stop => Self::Stop,
            Shutdown::Terminate => Self::Terminate,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        spec: SpecArgs,
    }

    fn spec(line: &str) -> Result<LaunchSpec, Failure> {
        let args = Line::try_parse_from(std::iter::once("x").chain(line.split(' '))).unwrap().spec;
        let image = args.image.clone();
        args.spec(image, Some("/dev/xvda".into()), vec!["sg-1".into()])
    }

    #[test]
    fn what_is_not_said_stays_unsaid() {
        let expected = LaunchSpec { image_id: Some("ami-1".into()), security_group_ids: vec!["sg-1".into()], ..Default::default() };
        assert_eq!(spec("--image ami-1").unwrap(), expected);
    }

    #[test]
    fn what_is_said_is_passed_on() {
        let spec = spec("-i ami-1 -t t3.micro --zone us-east-1b --no-public-ip --protect --name web --tag a=b --root-size 20 --volume dev=/dev/sdf,size=1 --shutdown-behavior terminate --user-data hi").unwrap();
        assert_eq!(spec.instance_type.as_deref(), Some("t3.micro"));
        assert_eq!(spec.associate_public_ip_address, Some(false));
        assert_eq!(spec.disable_api_termination, Some(true));
        assert_eq!(spec.user_data.as_deref(), Some(b"hi".as_slice()));
        assert_eq!(spec.instance_initiated_shutdown_behavior(), ShutdownBehavior::Terminate);
        let devices: Vec<_> = spec.block_device_mappings.iter().map(|mapping| mapping.device_name.as_str()).collect();
        assert_eq!(devices, ["/dev/xvda", "/dev/sdf"]);
        let tags: Vec<_> = spec.tag_specifications[0].tags.iter().map(|tag| tag.key.as_str()).collect();
        assert_eq!(tags, ["Name", "a"]);
    }

    #[test]
    fn what_excludes_each_other_is_refused() {
        for line in ["--public-ip --no-public-ip", "--zone us-east-1a --subnet subnet-1", "--root-size 0", "--volume size=1"] {
            assert!(Line::try_parse_from(std::iter::once("x").chain(line.split(' '))).is_err(), "{line}");
        }
    }
}
