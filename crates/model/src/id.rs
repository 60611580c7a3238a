//! Resource ids: a kind's prefix and 17 hexadecimal digits, as EC2's are (`i-0a1b2c3d4e5f60718`).
//!
//! An id is a number of 68 bits, so it is `Copy`, orders like its text, and costs no allocation.

use std::fmt;

use rand::{RngCore, SeedableRng, rngs::StdRng};
use std::sync::Mutex;

/// Digits behind the prefix.
pub const ID_DIGITS: usize = 17;

/// The highest value an id's digits can carry.
pub const ID_MAX: u128 = (1 << (4 * ID_DIGITS)) - 1;

/// A text that is not an id of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is no {kind} id: expected \"{prefix}\" and {ID_DIGITS} hexadecimal digits in lower case")]
pub struct IdError {
    /// What was given.
    pub text: String,
    /// The kind that was expected, in words: `instance`.
    pub kind: &'static str,
    /// The prefix of that kind: `i-`.
    pub prefix: &'static str,
    /// EC2's code for a malformed id of that kind: `InvalidInstanceID.Malformed`.
    pub reason: &'static str,
}

/// What all id types have in common, so that code can be written once for all of them.
pub trait ResourceId: Copy + Ord + fmt::Display + fmt::Debug + std::str::FromStr<Err = IdError> + Send + Sync + 'static {
    /// Text before the digits: `i-`.
    const PREFIX: &'static str;
    /// EC2's code for an id that does not exist: `InvalidInstanceID.NotFound`.
    const NOT_FOUND: &'static str;
    /// EC2's code for a text that cannot be an id: `InvalidInstanceID.Malformed`.
    const MALFORMED: &'static str;
    /// The kind in words: `instance`.
    const KIND: &'static str;
    /// The id with these digits; bits above the 68th are dropped.
    fn from_number(number: u128) -> Self;
    /// The digits as a number.
    fn number(self) -> u128;
}

/// Reads the digits of an id.
pub fn parse_digits(text: &str, prefix: &str) -> Option<u128> {
    let digits = text.strip_prefix(prefix)?;
    let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digits.len() != ID_DIGITS || !digits.bytes().all(lower_hex) {
        return None;
    }
    u128::from_str_radix(digits, 16).ok()
}

/// EC2's code for a text that is no id of a kind, where it has another stem than that for an unknown one.
#[doc(hidden)]
#[macro_export]
macro_rules! malformed_id {
    ($stem:literal) => {
        concat!($stem, ".Malformed")
    };
    ($stem:literal, $own:literal) => {
        concat!($own, ".Malformed")
    };
}

/// Declares id types: name, prefix, kind in words, EC2's error stem, and that of malformed ids if it differs.
#[macro_export]
macro_rules! resource_ids {
    ($($(#[$doc:meta])* $name:ident($prefix:literal, $kind:literal, $stem:literal $(, $malformed:literal)?);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $crate::id::ResourceId for $name {
            const PREFIX: &'static str = $prefix;
            const NOT_FOUND: &'static str = concat!($stem, ".NotFound");
            const MALFORMED: &'static str = $crate::malformed_id!($stem $(, $malformed)?);
            const KIND: &'static str = $kind;
            fn from_number(number: u128) -> Self {
                Self(number & $crate::id::ID_MAX)
            }
            fn number(self) -> u128 {
                self.0
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                write!(f, concat!($prefix, "{:017x}"), self.0)
            }
        }

        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::fmt::Display::fmt(self, f)
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::IdError;
            fn from_str(text: &str) -> Result<Self, $crate::IdError> {
                $crate::id::parse_digits(text, $prefix).map(Self).ok_or_else(|| $crate::IdError {
                    text: text.to_owned(),
                    kind: $kind,
                    prefix: $prefix,
                    reason: $crate::malformed_id!($stem $(, $malformed)?),
                })
            }
        }

        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <::std::borrow::Cow<'de, str> as ::serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(::serde::de::Error::custom)
            }
        }
    )*};
}

resource_ids! {
    /// A VPC.
    VpcId("vpc-", "VPC", "InvalidVpcID");
    /// A subnet.
    SubnetId("subnet-", "subnet", "InvalidSubnetID");
    /// A network interface.
    NetworkInterfaceId("eni-", "network interface", "InvalidNetworkInterfaceID", "InvalidNetworkInterfaceId");
    /// A network interface's attachment to an instance.
    AttachmentId("eni-attach-", "attachment", "InvalidAttachmentID");
    /// An internet gateway.
    InternetGatewayId("igw-", "internet gateway", "InvalidInternetGatewayID", "InvalidInternetGatewayId");
    /// A route table.
    RouteTableId("rtb-", "route table", "InvalidRouteTableID", "InvalidRouteTableId");
    /// A route table's association with a subnet, or its being a VPC's main one.
    RouteTableAssociationId("rtbassoc-", "route table association", "InvalidAssociationID");
    /// An elastic IP's allocation.
    AllocationId("eipalloc-", "allocation", "InvalidAllocationID");
    /// An elastic IP's association with an interface.
    AssociationId("eipassoc-", "association", "InvalidAssociationID");
    /// A security group.
    SecurityGroupId("sg-", "security group", "InvalidGroup", "InvalidGroupId");
    /// A rule of a security group.
    SecurityGroupRuleId("sgr-", "security group rule", "InvalidSecurityGroupRuleId");
    /// A list of CIDRs that rules and routes can name.
    PrefixListId("pl-", "prefix list", "InvalidPrefixListID");
    /// A key pair.
    KeyPairId("key-", "key pair", "InvalidKeyPair");
    /// An instance.
    InstanceId("i-", "instance", "InvalidInstanceID");
    /// The instances of one launch.
    ReservationId("r-", "reservation", "InvalidReservationID");
    /// A machine image.
    ImageId("ami-", "image", "InvalidAMIID");
    /// A volume.
    VolumeId("vol-", "volume", "InvalidVolume", "InvalidVolumeID");
    /// A snapshot of a volume.
    SnapshotId("snap-", "snapshot", "InvalidSnapshot", "InvalidSnapshotID");
    /// A launch template.
    LaunchTemplateId("lt-", "launch template", "InvalidLaunchTemplateId");
    /// A host that runs instances.
    NodeId("node-", "node", "InvalidNodeID");
    /// An event of the outbox or the event log.
    EventId("evt-", "event", "InvalidEventID");
    /// A webhook of the event log.
    WebhookId("wh-", "webhook", "InvalidWebhookID");
}

/// Where new ids come from: the system's random numbers, or a seed, so that a simulated day is the
/// same twice.
pub struct IdSource(Mutex<StdRng>);

impl IdSource {
    /// Ids that nobody can guess.
    pub fn random() -> Self {
        Self(Mutex::new(StdRng::from_os_rng()))
    }

    /// The same ids in the same order for the same seed.
    pub fn seeded(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    /// As [`IdSource::seeded`], for one of several who share a seed: each has ids of its own.
    pub fn seeded_for(seed: u64, name: &str) -> Self {
        // FNV-1a: what matters is that it never changes and that names differ.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&hash.to_le_bytes());
        Self(Mutex::new(StdRng::from_seed(bytes)))
    }

    /// The next id.
    pub fn next<I: ResourceId>(&self) -> I {
        I::from_number(self.next_number())
    }

    /// The next 128 random bits, for what is not an id.
    pub fn next_number(&self) -> u128 {
        // A panic cannot leave a generator in a bad state, so a poisoned lock is as good as any.
        let mut rng = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        (u128::from(rng.next_u64()) << 64) | u128::from(rng.next_u64())
    }
}

impl fmt::Debug for IdSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdSource")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_and_id_are_one(a in 0..=ID_MAX, b in 0..=ID_MAX) {
            let (first, second) = (InstanceId::from_number(a), InstanceId::from_number(b));
            prop_assert_eq!(first.to_string().parse::<InstanceId>(), Ok(first));
            prop_assert_eq!(first.cmp(&second), first.to_string().cmp(&second.to_string()));
        }

        #[test]
        fn what_is_not_an_id_is_refused(text in ".{0,24}") {
            if let Ok(id) = text.parse::<InstanceId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }

    #[test]
    fn a_malformed_id_says_what_was_expected() {
        let refused = "i-12".parse::<InstanceId>().map_err(|error| (error.reason, error.to_string()));
        let text = "\"i-12\" is no instance id: expected \"i-\" and 17 hexadecimal digits in lower case";
        assert_eq!(refused, Err(("InvalidInstanceID.Malformed", text.to_owned())));
    }

    #[test]
    fn a_seed_repeats() {
        let (one, two) = (IdSource::seeded(7), IdSource::seeded(7));
        assert_eq!(one.next::<VpcId>(), two.next::<VpcId>());
        let [network, again, compute, other] = [(7, "network"), (7, "network"), (7, "compute"), (8, "network")]
            .map(|(seed, name)| IdSource::seeded_for(seed, name).next::<VpcId>());
        assert!(network == again && network != compute && network != other);
    }
}
