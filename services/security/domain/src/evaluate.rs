//! Whether a flow may pass, and by which rules: said rule by rule, for people and for tests.
//!
//! A flow passes if a rule at its source lets it out and a rule at its destination lets it in. Groups
//! only ever allow, so one rule of any group of a side is enough. Answers to a flow that passed need no
//! rule: groups are stateful. Where speed counts, the compiled rules of [`crate::firewall`] say the same.

use std::net::IpAddr;

use gureum_model::{
    Refusal, RefusalKind,
    id::{SecurityGroupId, SecurityGroupRuleId},
    refusal::Violations,
};

use crate::{
    Directory, SecurityGroup,
    permission::Peer,
    rule::Direction,
    some_of,
    traffic::{Packet, Protocol, unknown_protocol},
};

/// A flow by its first packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    pub source: Side,
    pub destination: Side,
    pub packet: Packet,
}

/// One side of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// Of the same family as the other side's.
    pub address: IpAddr,
    /// The groups of its interface; none if it is outside the cloud, where everything is allowed.
    pub groups: Vec<SecurityGroupId>,
}

/// A flow as a request names it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FlowInput {
    pub source: SideInput,
    pub destination: SideInput,
    /// `tcp`, `udp`, `icmp`, `icmpv6` or a number.
    pub ip_protocol: String,
    /// Destination port (0 to 65535) or ICMP type (0 to 255).
    pub port: i32,
    /// 0 to 255.
    pub icmp_code: i32,
}

/// One side of a flow as a request names it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SideInput {
    pub address: String,
    pub group_ids: Vec<String>,
}

impl Flow {
    /// Reads a flow; every violation is recorded.
    pub fn parse(input: &FlowInput, violations: &mut Violations) -> Option<Self> {
        let source = parse_side("source", &input.source, violations);
        let destination = parse_side("destination", &input.destination, violations);
        let packet = parse_packet(input, violations);
        let (source, destination) = (source?, destination?);
        if source.address.is_ipv4() != destination.address.is_ipv4() {
            let text = format!("{} and {} are of different families; no packet has both", source.address, destination.address);
            violations.add("destination.address", text);
            return None;
        }
        Some(Self { source, destination, packet: packet? })
    }
}

fn parse_side(field: &str, side: &SideInput, violations: &mut Violations) -> Option<Side> {
    let address = side.address.parse::<IpAddr>().ok();
    if address.is_none() {
        violations.add(format!("{field}.address"), format!("\"{}\" is no IPv4 or IPv6 address", side.address));
    }
    let groups = violations.ids(&format!("{field}.group_ids"), &side.group_ids);
    // An IPv4 address in IPv6's clothes is meant as the IPv4 address: no rule should be got round so.
    Some(Side { address: address?.to_canonical(), groups })
}

fn parse_packet(input: &FlowInput, violations: &mut Violations) -> Option<Packet> {
    let protocol = Protocol::parse(&input.ip_protocol);
    let port = u16::try_from(input.port).ok();
    let code = u8::try_from(input.icmp_code).ok();
    if protocol.is_none() {
        violations.add("ip_protocol", unknown_protocol(&input.ip_protocol));
    }
    if port.is_none() {
        violations.add("port", format!("the port or ICMP type {} is out of range: expected 0 to 65535", input.port));
    }
    if code.is_none() {
        violations.add("icmp_code", format!("the ICMP code {} is out of range: expected 0 to 255", input.icmp_code));
    }
    let (protocol, port, code) = (protocol?, port?, code?);
    let packet = Packet::new(protocol, port, code);
    match (packet, protocol) {
        (Some(_), _) => {}
        (None, Protocol::All) => violations.add("ip_protocol", "a flow has one protocol; -1 means all of them"),
        (None, Protocol::Number(_)) => violations.add("port", format!("the ICMP type {port} is out of range: expected 0 to 255")),
    }
    packet
}

/// What one side says to a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It has no groups, so nothing asks.
    Outside,
    /// The first rule that lets the flow pass: groups in the order given, rules in the order of the group.
    Allowed { group: SecurityGroupId, rule: SecurityGroupRuleId },
    /// No rule of its groups lets it pass.
    Refused,
}

impl Decision {
    /// Whether the side lets the flow pass.
    pub fn allows(self) -> bool {
        match self {
            Self::Outside | Self::Allowed { .. } => true,
            Self::Refused => false,
        }
    }

    /// The rule that lets it pass.
    pub fn rule(self) -> Option<SecurityGroupRuleId> {
        match self {
            Self::Allowed { rule, .. } => Some(rule),
            Self::Outside | Self::Refused => None,
        }
    }
}

/// What both sides say to a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// At the source.
    pub egress: Decision,
    /// At the destination.
    pub ingress: Decision,
    /// In words: which side refuses and why, or which rules let it pass.
    pub reason: String,
}

impl Verdict {
    /// Whether the flow passes.
    pub fn allowed(&self) -> bool {
        self.egress.allows() && self.ingress.allows()
    }
}

/// Says whether a flow may pass. Error: `InvalidGroup.NotFound` (all that are missing are named).
pub fn evaluate(flow: &Flow, directory: &impl Directory) -> Result<Verdict, EvaluateError> {
    let ids = flow.source.groups.iter().chain(&flow.destination.groups);
    let missing: Vec<_> = ids.filter(|id| directory.group(**id).is_none()).copied().collect();
    if !missing.is_empty() {
        return Err(EvaluateError::GroupNotFound { groups: missing });
    }
    let egress = decide(Direction::Egress, flow.packet, &flow.source, &flow.destination, directory);
    let ingress = decide(Direction::Ingress, flow.packet, &flow.destination, &flow.source, directory);
    let reason = format!(
        "{}; {}",
        in_words(egress, "leaves", "source", flow.packet, &flow.source, "to", &flow.destination),
        in_words(ingress, "enters", "destination", flow.packet, &flow.destination, "from", &flow.source),
    );
    Ok(Verdict { egress, ingress, reason })
}

fn decide(direction: Direction, packet: Packet, own: &Side, peer: &Side, directory: &impl Directory) -> Decision {
    if own.groups.is_empty() {
        return Decision::Outside;
    }
    let groups: Vec<&SecurityGroup> = own.groups.iter().filter_map(|id| directory.group(*id)).collect();
    for group in groups {
        for rule in group.rules_of(direction) {
            if rule.traffic.covers(packet) && covers(rule.peer, peer, directory) {
                return Decision::Allowed { group: group.id, rule: rule.id };
            }
        }
    }
    Decision::Refused
}

/// Whether a rule's peer is this side. A prefix list that is not there has no entries.
fn covers(peer: Peer, side: &Side, directory: &impl Directory) -> bool {
    match (peer, side.address) {
        (Peer::Ipv4(network), IpAddr::V4(address)) => network.contains(&address),
        (Peer::Ipv6(network), IpAddr::V6(address)) => network.contains(&address),
        (Peer::Ipv4(_), IpAddr::V6(_)) | (Peer::Ipv6(_), IpAddr::V4(_)) => false,
        (Peer::PrefixList(id), address) => {
            directory.prefix_list(id).is_some_and(|list| list.networks().any(|network| network.contains(&address)))
        }
        (Peer::Group(id), _) => side.groups.contains(&id),
    }
}

fn in_words(decision: Decision, verb: &str, place: &str, packet: Packet, own: &Side, towards: &str, peer: &Side) -> String {
    match decision {
        Decision::Outside => format!("the {place} {} has no security groups, so nothing asks there", own.address),
        Decision::Allowed { group, rule } => format!("it {verb} its {place} {} by rule {rule} of {group}", own.address),
        Decision::Refused => {
            format!(
                "refused at the {place} {}: no rule of {} allows {packet} {towards} {}",
                own.address,
                some_of(&own.groups),
                peer.address
            )
        }
    }
}

/// Why a flow is not judged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluateError {
    #[error("The security group '{}' does not exist", some_of(groups))]
    GroupNotFound { groups: Vec<SecurityGroupId> },
}

impl From<EvaluateError> for Refusal {
    fn from(error: EvaluateError) -> Self {
        let text = error.to_string();
        match error {
            EvaluateError::GroupNotFound { .. } => Self::new(RefusalKind::NotFound, "InvalidGroup.NotFound", text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        testing::{World, bare_group, list, pl, rule, sg, sgr, tcp, v4},
        traffic::{IcmpMatch, Traffic},
    };

    fn side(address: &str, groups: &[u128]) -> SideInput {
        SideInput { address: address.into(), group_ids: groups.iter().map(|number| sg(*number).to_string()).collect() }
    }

    fn parse(input: &FlowInput) -> Result<Flow, Refusal> {
        let mut violations = Violations::new();
        let flow = Flow::parse(input, &mut violations);
        violations.finish().map(|()| flow.unwrap())
    }

    fn judge(world: &World, source: SideInput, destination: SideInput, protocol: &str, port: i32) -> Verdict {
        let input = FlowInput { source, destination, ip_protocol: protocol.into(), port, icmp_code: 0 };
        evaluate(&parse(&input).unwrap(), world).unwrap()
    }

    /// Web (1) takes 443 from anywhere and talks to db (2), which takes 5432 from web and ping from a
    /// prefix list, and talks to nobody.
    fn world() -> World {
        let (mut web, mut db, mut world) = (bare_group(1), bare_group(2), World::default());
        web.rules.push(rule(1, Direction::Ingress, tcp(443, 443), v4("0.0.0.0/0")));
        web.rules.push(rule(2, Direction::Egress, tcp(5432, 5432), Peer::Group(sg(2))));
        db.rules.push(rule(3, Direction::Ingress, tcp(5432, 5432), Peer::Group(sg(1))));
        db.rules.push(rule(4, Direction::Ingress, Traffic::Icmp(IcmpMatch::Type(8)), Peer::PrefixList(pl(1))));
        world.prefix_lists.insert(pl(1), list(pl(1), vec!["192.0.2.0/24".parse().unwrap()]));
        world.put(web);
        world.put(db);
        world
    }

    #[test]
    fn both_sides_must_agree() {
        let world = world();
        let to_db = judge(&world, side("10.0.0.1", &[1]), side("10.0.0.2", &[2]), "tcp", 5432);
        assert!(to_db.allowed());
        assert_eq!((to_db.egress.rule(), to_db.ingress.rule()), (Some(sgr(2)), Some(sgr(3))));
        let back = judge(&world, side("10.0.0.2", &[2]), side("10.0.0.1", &[1]), "tcp", 443);
        assert_eq!((back.egress, back.ingress.rule()), (Decision::Refused, Some(sgr(1))));
        assert!(
            back.reason.starts_with("refused at the source 10.0.0.2: no rule of sg-00000000000000002 allows TCP to port 443 to 10.0.0.1"),
            "{}",
            back.reason
        );
        // A group means its interfaces, never an address.
        let stranger = judge(&world, side("10.0.0.1", &[]), side("10.0.0.2", &[2]), "tcp", 5432);
        assert_eq!((stranger.egress, stranger.ingress), (Decision::Outside, Decision::Refused));
    }

    #[test]
    fn prefix_lists_types_and_families_count() {
        let world = world();
        let ping = |address: &str, kind| judge(&world, side(address, &[]), side("10.0.0.2", &[2]), "icmp", kind).allowed();
        assert!(ping("192.0.2.7", 8));
        assert!(!ping("192.0.2.7", 0) && !ping("198.51.100.7", 8));
        let v6 = judge(&world, side("2001:db8::1", &[]), side("2001:db8::2", &[1]), "tcp", 443);
        assert!(!v6.allowed());
        let mapped = judge(&world, side("::ffff:203.0.113.1", &[]), side("10.0.0.1", &[1]), "6", 443);
        assert!(mapped.allowed());
    }

    #[test]
    fn bad_flows_are_refused_with_all_violations() {
        let input = FlowInput {
            source: side("x", &[]),
            destination: side("10.0.0.1", &[]),
            ip_protocol: "-2".into(),
            port: 65_536,
            icmp_code: 256,
        };
        let fields: Vec<_> = parse(&input).unwrap_err().violations.into_iter().map(|violation| violation.field).collect();
        assert_eq!(fields, ["source.address", "ip_protocol", "port", "icmp_code"]);
        let field = |protocol: &str, port, destination: &str| {
            let input = FlowInput {
                source: side("10.0.0.1", &[]),
                destination: side(destination, &[]),
                ip_protocol: protocol.into(),
                port,
                icmp_code: 0,
            };
            parse(&input).unwrap_err().violations[0].field.clone()
        };
        assert_eq!(field("-1", 0, "10.0.0.2"), "ip_protocol");
        assert_eq!(field("icmp", 256, "10.0.0.2"), "port");
        assert_eq!(field("tcp", 1, "::1"), "destination.address");
        let unknown = FlowInput {
            source: side("10.0.0.1", &[9]),
            destination: side("10.0.0.2", &[1]),
            ip_protocol: "tcp".into(),
            ..FlowInput::default()
        };
        let refused = evaluate(&parse(&unknown).unwrap(), &world()).map_err(|error| Refusal::from(error).reason);
        assert_eq!(refused, Err("InvalidGroup.NotFound"));
    }
}
