//! Security group rules as they are written on a command line: `tcp:80`, `udp:5000-5010`, `icmp:8`, `all`.

use gureum_proto::security::v1::{GroupPeer, IpPermission, IpRange, PrefixListPeer, SecurityGroupRule, security_group_rule::Peer};

/// Protocol and ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traffic {
    /// "tcp", "udp", "icmp", "icmpv6", "-1" for all, or a protocol's number.
    pub protocol: String,
    /// First port, or ICMP type; absent for all.
    pub from_port: Option<i32>,
    /// Last port, or ICMP code; absent for all.
    pub to_port: Option<i32>,
}

const FORM: &str = "traffic is written as tcp:80, tcp:8000-8100, udp:53, tcp, icmp, icmp:8, icmp:3/4, all, or a protocol's number";

/// Reads protocol and ports.
pub fn traffic(text: &str) -> Result<Traffic, String> {
    let (protocol, ports) = text.split_once(':').map_or((text, None), |(protocol, ports)| (protocol, Some(ports)));
    let wrong = || format!("\"{text}\" cannot be read; {FORM}");
    let (protocol, (from_port, to_port)) = match (protocol, ports) {
        ("tcp" | "udp", None) => (protocol, (Some(0), Some(65_535))),
        ("tcp" | "udp", Some(ports)) => (protocol, port_range(ports).ok_or_else(wrong)?),
        ("icmp" | "icmpv6", None) => (protocol, (Some(-1), Some(-1))),
        ("icmp" | "icmpv6", Some(kind)) => (protocol, icmp(kind).ok_or_else(wrong)?),
        ("all" | "-1", None) => ("-1", (None, None)),
        (number, None) if number.parse::<u8>().is_ok() => (number, (None, None)),
        _ => return Err(wrong()),
    };
    Ok(Traffic { protocol: protocol.to_owned(), from_port, to_port })
}

fn port_range(text: &str) -> Option<(Option<i32>, Option<i32>)> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to): (u16, u16) = (from.parse().ok()?, to.parse().ok()?);
    (from <= to).then_some((Some(from.into()), Some(to.into())))
}

fn icmp(text: &str) -> Option<(Option<i32>, Option<i32>)> {
    let (kind, code) = text.split_once('/').map_or((text, None), |(kind, code)| (kind, Some(code)));
    let kind: u8 = kind.parse().ok()?;
    let code = code.map_or(Some(-1), |code| code.parse::<u8>().ok().map(i32::from))?;
    Some((Some(kind.into()), Some(code)))
}

/// The other side of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OtherSide {
    /// A range of addresses, or one.
    Cidr(String),
    /// A security group's id.
    Group(String),
    PrefixList(String),
}

/// A range of addresses as the contract wants it: one address is a range of one.
pub fn cidr(text: &str) -> Result<String, String> {
    match text {
        "any" | "anywhere" => Ok("0.0.0.0/0".to_owned()),
        text if text.contains('/') => Ok(text.to_owned()),
        text => match text.parse() {
            Ok(std::net::IpAddr::V4(address)) => Ok(format!("{address}/32")),
            Ok(std::net::IpAddr::V6(address)) => Ok(format!("{address}/128")),
            Err(_) => Err(format!("\"{text}\" is no address: write 10.0.0.0/8, 10.0.0.1, ::/0, or any")),
        },
    }
}

/// Rules for the traffic, one for each other side.
pub fn permission(traffic: &Traffic, others: &[OtherSide], description: &str) -> IpPermission {
    let mut permission = IpPermission {
        ip_protocol: traffic.protocol.clone(),
        from_port: traffic.from_port,
        to_port: traffic.to_port,
        ..IpPermission::default()
    };
    for other in others {
        let description = description.to_owned();
        match other {
            OtherSide::Cidr(cidr) if cidr.contains(':') => permission.ipv6_ranges.push(IpRange { cidr: cidr.clone(), description }),
            OtherSide::Cidr(cidr) => permission.ip_ranges.push(IpRange { cidr: cidr.clone(), description }),
            OtherSide::Group(group) => {
                permission.groups.push(GroupPeer { group_id: group.clone(), group_name: String::new(), description });
            }
            OtherSide::PrefixList(list) => permission.prefix_lists.push(PrefixListPeer { prefix_list_id: list.clone(), description }),
        }
    }
    permission
}

/// Protocol and ports of a rule, in the form in which they are read.
pub fn show_traffic(rule: &SecurityGroupRule) -> String {
    let protocol = rule.ip_protocol.as_str();
    match (protocol, rule.from_port, rule.to_port) {
        ("-1", _, _) => "all".to_owned(),
        ("tcp" | "udp", 0, 65_535) => protocol.to_owned(),
        ("tcp" | "udp", from, to) if from == to => format!("{protocol}:{from}"),
        ("tcp" | "udp", from, to) => format!("{protocol}:{from}-{to}"),
        ("icmp" | "icmpv6", -1, _) => protocol.to_owned(),
        ("icmp" | "icmpv6", kind, -1) => format!("{protocol}:{kind}"),
        ("icmp" | "icmpv6", kind, code) => format!("{protocol}:{kind}/{code}"),
        _ => protocol.to_owned(),
    }
}

/// The other side of a rule.
pub fn show_peer(rule: &SecurityGroupRule) -> &str {
    match &rule.peer {
        None => "",
        Some(Peer::CidrIpv4(text) | Peer::CidrIpv6(text) | Peer::PrefixListId(text) | Peer::ReferencedGroupId(text)) => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(traffic: &Traffic) -> SecurityGroupRule {
        SecurityGroupRule {
            ip_protocol: traffic.protocol.clone(),
            from_port: traffic.from_port.unwrap_or(-1),
            to_port: traffic.to_port.unwrap_or(-1),
            ..Default::default()
        }
    }

    #[test]
    fn what_is_read_is_shown_alike() {
        for text in ["tcp:80", "tcp:8000-8100", "udp:53", "tcp", "icmp", "icmp:8", "icmp:3/4", "icmpv6", "all", "50"] {
            assert_eq!(show_traffic(&rule(&traffic(text).unwrap())), text);
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for wrong in ["", "tcp:", "tcp:80-", "tcp:90-80", "tcp:65536", "icmp:256", "icmp:8/x", "all:80", "http", "256", "tcp:80:90", "50:1"]
        {
            assert!(traffic(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_become_ranges() {
        assert_eq!(cidr("10.0.0.1").unwrap(), "10.0.0.1/32");
        assert_eq!(cidr("fd00::1").unwrap(), "fd00::1/128");
        assert_eq!(cidr("10.0.0.0/8").unwrap(), "10.0.0.0/8");
        assert_eq!(cidr("any").unwrap(), "0.0.0.0/0");
        assert!(cidr("home").is_err());
    }

    #[test]
    fn each_other_side_goes_to_its_list() {
        let others = [OtherSide::Cidr("10.0.0.0/8".into()), OtherSide::Cidr("::/0".into()), OtherSide::Group("sg-1".into())];
        let permission = permission(&traffic("tcp:80").unwrap(), &others, "web");
        assert_eq!(permission.ip_ranges[0].cidr, "10.0.0.0/8");
        assert_eq!(permission.ipv6_ranges[0].cidr, "::/0");
        assert_eq!(permission.groups[0].group_id, "sg-1");
        assert_eq!((permission.from_port, permission.to_port), (Some(80), Some(80)));
        assert_eq!(permission.groups[0].description, "web");
    }
}
