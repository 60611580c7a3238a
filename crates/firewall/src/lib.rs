//! What decides on a connection: the rules of an interface's security groups, and the engine that is compiled from them.
//!
//! ```text
//!  security: groups, prefix lists ──► Rule (a socket, a file) ──► Firewall::compile ──► decide, for every connection
//! ```
//!
//! Rules are plain data, so that whoever holds a data plane needs nothing of the service that owns the groups: prefix
//! lists are resolved to their networks, ports and ICMP messages are numbers. Groups only ever allow, so one rule is
//! enough, and without any nothing passes. Answers to what passed need no rule: a data plane remembers its connections.
//!
//! Nothing here does I/O or asks for the time.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that unwraps fails where it should"))]

mod engine;
pub mod protocol;

use gureum_model::id::{SecurityGroupId, SecurityGroupRuleId};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use crate::engine::Firewall;

/// Which connections a rule looks at, seen from the interfaces in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// Those that come in.
    Ingress,
    /// Those that go out.
    Egress,
}

impl Direction {
    /// `ingress` or `egress`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// What one rule of a group lets pass. A rule that names a prefix list is one of these for each of the list's networks,
/// all with its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rule {
    pub id: SecurityGroupRuleId,
    pub direction: Direction,
    /// IP protocol number (IANA); none means every protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
    /// The first point that passes: see [`Packet::point`].
    pub first: u16,
    /// The last point that passes; not below `first`.
    pub last: u16,
    pub peer: Peer,
}

/// The other side of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Peer {
    /// Addresses. Bits behind the mask do not count.
    Network(IpNet),
    /// The interfaces that are in a group.
    Group(SecurityGroupId),
}

/// The first packet of a connection, as far as rules look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Packet {
    /// IP protocol number (IANA).
    pub protocol: u8,
    /// The destination port of TCP and UDP; type and code of ICMP and ICMPv6 as the high and the low byte; else 0.
    pub point: u16,
}

impl Packet {
    /// To this port.
    pub const fn tcp(port: u16) -> Self {
        Self { protocol: protocol::TCP, point: port }
    }

    /// To this port.
    pub const fn udp(port: u16) -> Self {
        Self { protocol: protocol::UDP, point: port }
    }

    /// A message of ICMP.
    pub const fn icmp(kind: u8, code: u8) -> Self {
        Self { protocol: protocol::ICMP, point: u16::from_be_bytes([kind, code]) }
    }

    /// A message of ICMPv6.
    pub const fn icmpv6(kind: u8, code: u8) -> Self {
        Self { protocol: protocol::ICMPV6, point: u16::from_be_bytes([kind, code]) }
    }
}

#[cfg(test)]
mod tests {
    use gureum_model::id::ResourceId;

    use super::*;

    #[test]
    fn rules_are_written_in_a_form_that_is_read_for_ever() {
        let rule = |protocol, peer| Rule {
            id: SecurityGroupRuleId::from_number(1),
            direction: Direction::Ingress,
            protocol,
            first: 80,
            last: 81,
            peer,
        };
        let (network, group) = ("10.0.0.0/8".parse().unwrap(), SecurityGroupId::from_number(2));
        let rules = [rule(Some(protocol::TCP), Peer::Network(network)), rule(None, Peer::Group(group))];
        let written = [
            r#"{"id":"sgr-00000000000000001","direction":"Ingress","protocol":6,"first":80,"last":81,"peer":{"network":"10.0.0.0/8"}}"#,
            r#"{"id":"sgr-00000000000000001","direction":"Ingress","first":80,"last":81,"peer":{"group":"sg-00000000000000002"}}"#,
        ];
        for (rule, text) in rules.iter().zip(written) {
            assert_eq!(serde_json::to_string(rule).unwrap(), text);
            assert_eq!(serde_json::from_str::<Rule>(text).unwrap(), *rule);
        }
    }
}
