//! What a rule lets pass, seen without its peer: protocol, ports, ICMP types and codes.

use std::fmt;

use gureum_firewall::protocol::{self, ICMP, ICMPV6, TCP, UDP};
use gureum_model::refusal::Violations;
use serde::{Deserialize, Serialize};

/// What a rule lets pass. Two rules with equal traffic and equal peer are the same rule to EC2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Traffic {
    /// Every protocol: EC2's `-1`.
    All,
    Tcp(PortRange),
    Udp(PortRange),
    Icmp(IcmpMatch),
    Icmpv6(IcmpMatch),
    /// Any other protocol, by its number, on all its ports. Never 1, 6, 17 or 58.
    Other(u8),
}

/// Destination ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortRange {
    pub from: u16,
    /// Not below `from`.
    pub to: u16,
}

/// Which ICMP messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum IcmpMatch {
    /// All types; EC2's type -1 and code -1.
    All,
    /// One type with all its codes; EC2's code -1.
    Type(u8),
    /// One type and one code.
    TypeAndCode(u8, u8),
}

/// One packet, or the first of a flow, as far as rules look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Packet {
    /// To this port.
    Tcp(u16),
    /// To this port.
    Udp(u16),
    /// Type and code.
    Icmp(u8, u8),
    /// Type and code.
    Icmpv6(u8, u8),
    /// Any other protocol, by its number.
    Other(u8),
}

/// A protocol as users write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `-1`.
    All,
    Number(u8),
}

impl Protocol {
    /// Reads `tcp`, `udp`, `icmp`, `icmpv6` in any case, `-1`, or a number from 0 to 255.
    pub fn parse(text: &str) -> Option<Self> {
        protocol::parse(text).map(|number| number.map_or(Self::All, Self::Number))
    }
}

/// What is said of a protocol that cannot be read.
pub(crate) fn unknown_protocol(text: &str) -> String {
    format!("Invalid value '{text}' for IP protocol: expected tcp, udp, icmp, icmpv6, -1 or a number from 0 to 255")
}

impl Traffic {
    /// Reads protocol and ports as EC2 takes them, records every violation under `field`.
    ///
    /// TCP, UDP and ICMP demand both ends (`InvalidParameterValue`); a TCP or UDP port out of range is
    /// `InvalidPermission.Malformed`; ICMPv6 without any is all of it; all other protocols ignore them.
    pub fn parse(protocol: &str, from: Option<i32>, to: Option<i32>, field: &str, violations: &mut Violations) -> Option<Self> {
        let Some(known) = Protocol::parse(protocol) else {
            violations.add(format!("{field}.ip_protocol"), unknown_protocol(protocol));
            return None;
        };
        match known {
            Protocol::All => Some(Self::All),
            Protocol::Number(TCP) => parse_ports(from, to, field, violations).map(Self::Tcp),
            Protocol::Number(UDP) => parse_ports(from, to, field, violations).map(Self::Udp),
            Protocol::Number(ICMP) => parse_icmp(from, to, field, violations).map(Self::Icmp),
            Protocol::Number(ICMPV6) if from.is_none() && to.is_none() => Some(Self::Icmpv6(IcmpMatch::All)),
            Protocol::Number(ICMPV6) => parse_icmp(from, to, field, violations).map(Self::Icmpv6),
            Protocol::Number(other) => Some(Self::Other(other)),
        }
    }

    /// The protocol in EC2's words: `tcp`, `udp`, `icmp`, `icmpv6`, `-1`, or a number.
    pub fn protocol(&self) -> String {
        match self {
            Self::All => "-1".to_owned(),
            Self::Tcp(_) => "tcp".to_owned(),
            Self::Udp(_) => "udp".to_owned(),
            Self::Icmp(_) => "icmp".to_owned(),
            Self::Icmpv6(_) => "icmpv6".to_owned(),
            Self::Other(number) => number.to_string(),
        }
    }

    /// First port, or ICMP type; -1 for all.
    pub fn from_port(&self) -> i32 {
        match self {
            Self::All | Self::Other(_) => -1,
            Self::Tcp(ports) | Self::Udp(ports) => i32::from(ports.from),
            Self::Icmp(icmp) | Self::Icmpv6(icmp) => match icmp {
                IcmpMatch::All => -1,
                IcmpMatch::Type(kind) | IcmpMatch::TypeAndCode(kind, _) => i32::from(*kind),
            },
        }
    }

    /// Last port, or ICMP code; -1 for all.
    pub fn to_port(&self) -> i32 {
        match self {
            Self::All | Self::Other(_) => -1,
            Self::Tcp(ports) | Self::Udp(ports) => i32::from(ports.to),
            Self::Icmp(icmp) | Self::Icmpv6(icmp) => match icmp {
                IcmpMatch::All | IcmpMatch::Type(_) => -1,
                IcmpMatch::TypeAndCode(_, code) => i32::from(*code),
            },
        }
    }

    /// Whether a packet is of this traffic.
    pub fn covers(&self, packet: Packet) -> bool {
        match (self, packet) {
            (Self::All, _) => true,
            (Self::Tcp(ports), Packet::Tcp(port)) | (Self::Udp(ports), Packet::Udp(port)) => (ports.from..=ports.to).contains(&port),
            (Self::Icmp(icmp), Packet::Icmp(kind, code)) | (Self::Icmpv6(icmp), Packet::Icmpv6(kind, code)) => icmp.covers(kind, code),
            (Self::Other(number), Packet::Other(other)) => *number == other,
            (Self::Tcp(_) | Self::Udp(_) | Self::Icmp(_) | Self::Icmpv6(_) | Self::Other(_), _) => false,
        }
    }

    /// The protocol's number and the [points](gureum_firewall::Packet::point) that pass. No protocol means all.
    pub(crate) fn interval(&self) -> (Option<u8>, u16, u16) {
        let protocol = match self {
            Self::All => None,
            Self::Tcp(_) => Some(TCP),
            Self::Udp(_) => Some(UDP),
            Self::Icmp(_) => Some(ICMP),
            Self::Icmpv6(_) => Some(ICMPV6),
            Self::Other(number) => Some(*number),
        };
        let (first, last) = match self {
            Self::Tcp(ports) | Self::Udp(ports) => (ports.from, ports.to),
            Self::Icmp(icmp) | Self::Icmpv6(icmp) => icmp.interval(),
            Self::All | Self::Other(_) => protocol::ALL,
        };
        (protocol, first, last)
    }
}

impl IcmpMatch {
    fn covers(self, kind: u8, code: u8) -> bool {
        match self {
            Self::All => true,
            Self::Type(wanted) => wanted == kind,
            Self::TypeAndCode(wanted, wanted_code) => wanted == kind && wanted_code == code,
        }
    }

    fn interval(self) -> (u16, u16) {
        match self {
            Self::All => (0, u16::MAX),
            Self::Type(kind) => (u16::from_be_bytes([kind, 0]), u16::from_be_bytes([kind, u8::MAX])),
            Self::TypeAndCode(kind, code) => (u16::from_be_bytes([kind, code]), u16::from_be_bytes([kind, code])),
        }
    }
}

impl Packet {
    /// The packet of this protocol; `port` is the ICMP type for the two that have one.
    /// `None` for `-1`, which is no packet's protocol, and where an ICMP type or code exceeds 255.
    pub fn new(protocol: Protocol, port: u16, icmp_code: u8) -> Option<Self> {
        match protocol {
            Protocol::All => None,
            Protocol::Number(TCP) => Some(Self::Tcp(port)),
            Protocol::Number(UDP) => Some(Self::Udp(port)),
            Protocol::Number(ICMP) => u8::try_from(port).ok().map(|kind| Self::Icmp(kind, icmp_code)),
            Protocol::Number(ICMPV6) => u8::try_from(port).ok().map(|kind| Self::Icmpv6(kind, icmp_code)),
            Protocol::Number(other) => Some(Self::Other(other)),
        }
    }
}

impl From<Packet> for gureum_firewall::Packet {
    fn from(packet: Packet) -> Self {
        match packet {
            Packet::Tcp(port) => Self::tcp(port),
            Packet::Udp(port) => Self::udp(port),
            Packet::Icmp(kind, code) => Self::icmp(kind, code),
            Packet::Icmpv6(kind, code) => Self::icmpv6(kind, code),
            Packet::Other(protocol) => Self { protocol, point: 0 },
        }
    }
}

fn parse_ports(from: Option<i32>, to: Option<i32>, field: &str, violations: &mut Violations) -> Option<PortRange> {
    let (Some(from), Some(to)) = (from, to) else {
        let absent = if from.is_none() { "from_port" } else { "to_port" };
        violations.add(format!("{field}.{absent}"), "Invalid value for portRange. Must specify both from and to ports with TCP/UDP.");
        return None;
    };
    let mut port = |name: &str, value: i32| {
        let port = u16::try_from(value).ok();
        if port.is_none() {
            let text = format!("TCP/UDP port ({value}) out of range: expected 0 to 65535");
            violations.add_as("InvalidPermission.Malformed", format!("{field}.{name}"), text);
        }
        port
    };
    // Both are looked at before either failure returns, so that both are named.
    let (first, last) = (port("from_port", from), port("to_port", to));
    let (first, last) = (first?, last?);
    if first > last {
        violations
            .add(format!("{field}.to_port"), format!("Invalid TCP/UDP port range ({first}:{last}): the last port is below the first"));
        return None;
    }
    Some(PortRange { from: first, to: last })
}

fn parse_icmp(kind: Option<i32>, code: Option<i32>, field: &str, violations: &mut Violations) -> Option<IcmpMatch> {
    let (Some(kind), Some(code)) = (kind, code) else {
        let absent = if kind.is_none() { "from_port" } else { "to_port" };
        violations.add(format!("{field}.{absent}"), "Invalid value for portRange. Must specify both from and to ports with ICMP.");
        return None;
    };
    let mut number = |name: &str, word: &str, value: i32| match u8::try_from(value) {
        Ok(number) => Some(Some(number)),
        Err(_) if value == -1 => Some(None),
        Err(_) => {
            violations.add(format!("{field}.{name}"), format!("ICMP {word} ({value}) out of range: expected 0 to 255, or -1 for all"));
            None
        }
    };
    let (kinds, codes) = (number("from_port", "type", kind), number("to_port", "code", code));
    match (kinds?, codes?) {
        (None, None) => Some(IcmpMatch::All),
        (Some(kind), None) => Some(IcmpMatch::Type(kind)),
        (Some(kind), Some(code)) => Some(IcmpMatch::TypeAndCode(kind, code)),
        (None, Some(code)) => {
            violations.add(format!("{field}.to_port"), format!("ICMP code ({code}) must be -1 where the ICMP type is -1"));
            None
        }
    }
}

/// As EC2 names traffic in its errors: `TCP, from port: 22, to port: 22`.
impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = |value: i32| if value < 0 { "ALL".to_owned() } else { value.to_string() };
        match self {
            Self::All => f.write_str("ALL"),
            Self::Tcp(ports) => write!(f, "TCP, from port: {}, to port: {}", ports.from, ports.to),
            Self::Udp(ports) => write!(f, "UDP, from port: {}, to port: {}", ports.from, ports.to),
            Self::Icmp(_) => write!(f, "ICMP, type: {}, code: {}", all(self.from_port()), all(self.to_port())),
            Self::Icmpv6(_) => write!(f, "ICMPv6, type: {}, code: {}", all(self.from_port()), all(self.to_port())),
            Self::Other(number) => write!(f, "protocol: {number}"),
        }
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "TCP to port {port}"),
            Self::Udp(port) => write!(f, "UDP to port {port}"),
            Self::Icmp(kind, code) => write!(f, "ICMP type {kind} code {code}"),
            Self::Icmpv6(kind, code) => write!(f, "ICMPv6 type {kind} code {code}"),
            Self::Other(number) => write!(f, "protocol {number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{packet, traffic};
    use gureum_model::Refusal;
    use proptest::prelude::*;

    fn parse(protocol: &str, from: Option<i32>, to: Option<i32>) -> Result<Traffic, Refusal> {
        let mut violations = Violations::new();
        let traffic = Traffic::parse(protocol, from, to, "ip_permissions[0]", &mut violations);
        violations.finish()?;
        Ok(traffic.unwrap())
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_again(traffic in traffic()) {
            prop_assert_eq!(parse(&traffic.protocol(), Some(traffic.from_port()), Some(traffic.to_port())), Ok(traffic));
        }

        #[test]
        fn an_interval_covers_what_its_traffic_covers(traffic in traffic(), packet in packet()) {
            let ((protocol, first, last), seen) = (traffic.interval(), gureum_firewall::Packet::from(packet));
            let inside = protocol.is_none_or(|protocol| protocol == seen.protocol) && (first..=last).contains(&seen.point);
            prop_assert_eq!(inside, traffic.covers(packet));
        }

        /// Whoever follows this service has the shown form alone.
        #[test]
        fn what_is_shown_becomes_the_same_interval(traffic in traffic()) {
            let protocol = protocol::parse(&traffic.protocol());
            let points = protocol.and_then(|protocol| protocol::points(protocol, traffic.from_port(), traffic.to_port()));
            let (wanted, first, last) = traffic.interval();
            prop_assert_eq!((protocol, points), (Some(wanted), Some((first, last))));
        }

        #[test]
        fn no_input_is_taken_for_what_it_is_not(protocol in "(tcp|udp|icmp|icmpv6|-1|[0-9]{1,3}|.{0,6})", from in prop::option::of(-3..70_000i32), to in prop::option::of(-3..70_000i32)) {
            if let Ok(traffic) = parse(&protocol, from, to) {
                match traffic {
                    Traffic::Tcp(ports) | Traffic::Udp(ports) => {
                        prop_assert!(ports.from <= ports.to);
                        prop_assert_eq!((Some(traffic.from_port()), Some(traffic.to_port())), (from, to));
                    }
                    Traffic::Other(number) => prop_assert!(![ICMP, TCP, UDP, ICMPV6].contains(&number)),
                    Traffic::All | Traffic::Icmp(_) | Traffic::Icmpv6(_) => {}
                }
            }
        }
    }

    #[test]
    fn names_and_numbers_are_one() {
        let ssh = Traffic::Tcp(PortRange { from: 22, to: 22 });
        assert_eq!(parse("tcp", Some(22), Some(22)), Ok(ssh));
        assert_eq!(parse("6", Some(22), Some(22)), Ok(ssh));
        assert_eq!(parse("TCP", Some(22), Some(22)), Ok(ssh));
        assert_eq!(parse("58", None, None), Ok(Traffic::Icmpv6(IcmpMatch::All)));
        assert_eq!(parse("50", Some(1), None), Ok(Traffic::Other(50)));
        assert_eq!(parse("-1", Some(80), Some(80)), Ok(Traffic::All));
    }

    #[test]
    fn each_fault_has_its_code_and_field() {
        let fault = |protocol, from, to| parse(protocol, from, to).map_err(|refusal| (refusal.reason, refusal.violations[0].field.clone()));
        let invalid = |field: &str| Err(("InvalidParameterValue", format!("ip_permissions[0].{field}")));
        let malformed = |field: &str| Err(("InvalidPermission.Malformed", format!("ip_permissions[0].{field}")));
        assert_eq!(fault("tpc", None, None), invalid("ip_protocol"));
        assert_eq!(fault("256", None, None), invalid("ip_protocol"));
        assert_eq!(fault("", None, None), invalid("ip_protocol"));
        assert_eq!(fault("tcp", Some(22), None), invalid("to_port"));
        assert_eq!(fault("tcp", Some(443), Some(80)), invalid("to_port"));
        assert_eq!(fault("udp", Some(-1), Some(-1)), malformed("from_port"));
        assert_eq!(fault("tcp", Some(1), Some(65_536)), malformed("to_port"));
        assert_eq!(fault("icmp", Some(8), None), invalid("to_port"));
        assert_eq!(fault("icmp", Some(0), Some(65_535)), invalid("to_port"));
        assert_eq!(fault("icmp", Some(-1), Some(0)), invalid("to_port"));
        assert_eq!(parse("tcp", Some(-1), Some(70_000)).unwrap_err().violations.len(), 2);
    }
}
