//! `gureum sg`: security groups and their rules.

use clap::{Args as ClapArgs, Subcommand};
use gureum_proto::{
    common::v1::Tag,
    security::v1::{
        AuthorizeSecurityGroupEgressRequest, AuthorizeSecurityGroupIngressRequest, CreateSecurityGroupRequest, DeleteSecurityGroupRequest,
        DescribeSecurityGroupRulesRequest, DescribeSecurityGroupsRequest, Endpoint, EvaluateRequest, EvaluateResponse, IpPermission,
        RevokeSecurityGroupEgressRequest, RevokeSecurityGroupIngressRequest, SecurityGroup, SecurityGroupRule,
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
    rule::{self, OtherSide, Traffic},
    table::{Cell, Show},
    time::Timestamp,
};

/// Security groups: which traffic reaches instances
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum sg create web --description 'web servers'
  gureum sg allow web tcp:80 --from any
  gureum sg allow web tcp:22 --from 10.0.0.0/8 --from 192.0.2.7
  gureum sg allow db tcp:5432 --from-group web
  gureum sg rules web
  gureum sg deny web tcp:80 --from any")]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List security groups
    #[command(visible_alias = "list", after_help = "Examples:\n  gureum sg ls\n  gureum sg ls --filter vpc-id=vpc-00000000000000001")]
    Ls(ListArgs),
    /// Make a security group
    #[command(
        after_help = "Examples:\n  gureum sg create web\n  gureum sg create db --vpc vpc-00000000000000001 --description 'data bases' --tag stage=test"
    )]
    Create(CreateArgs),
    /// Delete security groups
    #[command(visible_alias = "rm", after_help = "Examples:\n  gureum sg delete web\n  gureum sg delete sg-00000000000000001")]
    Delete {
        /// Groups, by id or name
        #[arg(value_name = "GROUP", required = true)]
        groups: Vec<String>,
    },
    /// Let traffic pass
    #[command(
        after_help = "Examples:\n  gureum sg allow web tcp:22 tcp:80 --from any\n  gureum sg allow db tcp:5432 --from-group web\n  gureum sg allow web icmp --from 10.0.0.0/8\n  gureum sg allow web udp:53 --egress --to 10.0.0.2"
    )]
    Allow(RuleArgs),
    /// Let traffic pass no longer: removes the rule that says so
    #[command(after_help = "Examples:\n  gureum sg deny web tcp:80 --from any\n  gureum sg deny web all --egress --to any")]
    Deny(RuleArgs),
    /// List rules
    #[command(after_help = "Examples:\n  gureum sg rules\n  gureum sg rules web\n  gureum sg rules web -o json")]
    Rules {
        /// Only of this group, by id or name
        group: Option<String>,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Remove rules by their ids
    #[command(after_help = "Examples:\n  gureum sg revoke web sgr-00000000000000001")]
    Revoke {
        /// Group, by id or name
        group: String,
        /// Rules
        #[arg(value_name = "RULE-ID", required = true)]
        rules: Vec<String>,
    },
    /// Tell whether traffic would pass, and by which rules
    #[command(after_help = "Examples:\n  gureum sg check tcp:5432 --from 172.31.0.4 --from-group web --to 172.31.0.9 --to-group db")]
    Check(CheckArgs),
}

#[derive(Debug, ClapArgs)]
struct CreateArgs {
    /// Name, unique in its VPC
    name: String,
    /// What it is for; the name if not given
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// VPC; the default one if not given
    #[arg(long, value_name = "ID")]
    vpc: Option<String>,
    /// Tag; may be given again
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse::tag)]
    tags: Vec<Tag>,
}

#[derive(Debug, ClapArgs)]
struct RuleArgs {
    /// Group, by id or name
    group: String,
    /// tcp:80, tcp:8000-8100, udp:53, icmp, icmp:8, all, or a protocol's number
    #[arg(value_parser = rule::traffic, required = true)]
    traffic: Vec<Traffic>,
    /// From these addresses: a range, an address, or any; may be given again
    #[arg(long = "from", visible_alias = "to", value_name = "CIDR", value_parser = rule::cidr)]
    cidrs: Vec<String>,
    /// From the instances of this group, by id or name; may be given again
    #[arg(long = "from-group", visible_alias = "to-group", value_name = "GROUP")]
    groups: Vec<String>,
    /// From a prefix list, by id or name; may be given again
    #[arg(long = "from-prefix-list", visible_alias = "to-prefix-list", value_name = "LIST")]
    prefix_lists: Vec<String>,
    /// Traffic that leaves, in place of traffic that comes in
    #[arg(long)]
    egress: bool,
    /// What the rule is for
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
}

#[derive(Debug, ClapArgs)]
struct CheckArgs {
    /// tcp:80, udp:53, icmp:8
    #[arg(value_parser = rule::traffic)]
    traffic: Traffic,
    /// Source address
    #[arg(long, value_name = "ADDRESS")]
    from: String,
    /// Group of the source, by id or name; may be given again
    #[arg(long, value_name = "GROUP")]
    from_group: Vec<String>,
    /// Destination address
    #[arg(long, value_name = "ADDRESS")]
    to: String,
    /// Group of the destination, by id or name; may be given again
    #[arg(long, value_name = "GROUP")]
    to_group: Vec<String>,
}

/// Carries the command out.
pub async fn run(args: Args, client: &Client, out: &Output) -> Result<(), Failure> {
    match args.verb.unwrap_or_else(|| Verb::Ls(ListArgs::default())) {
        Verb::Ls(list) => {
            let request = DescribeSecurityGroupsRequest { filters: list.filters, ..Default::default() };
            let groups: Vec<SecurityGroup> = pages!(client.security().describe_security_groups(request).security_groups, list.limit)?;
            out.list(client, &groups).await
        }
        Verb::Create(args) => create(args, client, out).await,
        Verb::Delete { groups } => {
            for group in groups {
                let request = DeleteSecurityGroupRequest { group_id: resolve::group(client, &group).await?, ..Default::default() };
                let group_id = call!(client.security().delete_security_group(request))?.group_id;
                out.done(&group_id, "deleted")?;
            }
            Ok(())
        }
        Verb::Allow(args) => allow(args, client, out).await,
        Verb::Deny(args) => deny(args, client, out).await,
        Verb::Rules { group, list } => rules(group, list, client, out).await,
        Verb::Revoke { group, rules } => revoke(&group, rules, client, out).await,
        Verb::Check(args) => check(args, client, out).await,
    }
}

async fn create(args: CreateArgs, client: &Client, out: &Output) -> Result<(), Failure> {
    let request = CreateSecurityGroupRequest {
        description: args.description.unwrap_or_else(|| args.name.clone()),
        group_name: args.name,
        vpc_id: args.vpc.unwrap_or_default(),
        tags: args.tags,
        ..Default::default()
    };
    match call!(client.security().create_security_group(request))?.security_group {
        Some(group) => out.one(client, &group).await,
        None => Ok(()),
    }
}

/// The group and what the rules say.
async fn permissions(args: &RuleArgs, client: &Client) -> Result<(String, Vec<IpPermission>), Failure> {
    let mut others: Vec<_> = args.cidrs.iter().cloned().map(OtherSide::Cidr).collect();
    for group in &args.groups {
        others.push(OtherSide::Group(resolve::group(client, group).await?));
    }
    for list in &args.prefix_lists {
        others.push(OtherSide::PrefixList(resolve::prefix_list(client, list).await?));
    }
    if others.is_empty() {
        return Err(Failure::usage("who is at the other side? --from CIDR, --from any or --from-group GROUP"));
    }
    let permissions = args.traffic.iter().map(|traffic| rule::permission(traffic, &others, &args.description)).collect();
    Ok((resolve::group(client, &args.group).await?, permissions))
}

async fn allow(args: RuleArgs, client: &Client, out: &Output) -> Result<(), Failure> {
    let (group_id, ip_permissions) = permissions(&args, client).await?;
    let rules = if args.egress {
        let request = AuthorizeSecurityGroupEgressRequest { group_id, ip_permissions, ..Default::default() };
        call!(client.security().authorize_security_group_egress(request))?.security_group_rules
    } else {
        let request = AuthorizeSecurityGroupIngressRequest { group_id, ip_permissions, ..Default::default() };
        call!(client.security().authorize_security_group_ingress(request))?.security_group_rules
    };
    out.list(client, &rules).await
}

async fn deny(args: RuleArgs, client: &Client, out: &Output) -> Result<(), Failure> {
    let (group_id, ip_permissions) = permissions(&args, client).await?;
    let rules = if args.egress {
        let request = RevokeSecurityGroupEgressRequest { group_id, ip_permissions, ..Default::default() };
        call!(client.security().revoke_security_group_egress(request))?.revoked_security_group_rules
    } else {
        let request = RevokeSecurityGroupIngressRequest { group_id, ip_permissions, ..Default::default() };
        call!(client.security().revoke_security_group_ingress(request))?.revoked_security_group_rules
    };
    removed(&rules, out)
}

fn removed(rules: &[SecurityGroupRule], out: &Output) -> Result<(), Failure> {
    if rules.is_empty() {
        out.remark("no such rule; nothing was removed");
    }
    rules.iter().try_for_each(|rule| out.done(&rule.security_group_rule_id, "removed"))
}

async fn rules(group: Option<String>, list: ListArgs, client: &Client, out: &Output) -> Result<(), Failure> {
    let mut filters = list.filters;
    if let Some(group) = group {
        filters.push(parse::exact("group-id", &resolve::group(client, &group).await?));
    }
    let request = DescribeSecurityGroupRulesRequest { filters, ..Default::default() };
    let rules: Vec<SecurityGroupRule> = pages!(client.security().describe_security_group_rules(request).security_group_rules, list.limit)?;
    out.list(client, &rules).await
}

/// An id does not say on which side its rule stands, so that is looked up first.
async fn revoke(group: &str, ids: Vec<String>, client: &Client, out: &Output) -> Result<(), Failure> {
    let group_id = resolve::group(client, group).await?;
    let request = DescribeSecurityGroupRulesRequest { security_group_rule_ids: ids, ..Default::default() };
    let found: Vec<SecurityGroupRule> = pages!(client.security().describe_security_group_rules(request).security_group_rules, None)?;
    let (egress, ingress): (Vec<_>, Vec<_>) = found.into_iter().partition(|rule| rule.is_egress);
    let ids = |rules: Vec<SecurityGroupRule>| rules.into_iter().map(|rule| rule.security_group_rule_id).collect::<Vec<_>>();
    let mut gone = Vec::new();
    if !ingress.is_empty() {
        let request =
            RevokeSecurityGroupIngressRequest { group_id: group_id.clone(), security_group_rule_ids: ids(ingress), ..Default::default() };
        gone.extend(call!(client.security().revoke_security_group_ingress(request))?.revoked_security_group_rules);
    }
    if !egress.is_empty() {
        let request = RevokeSecurityGroupEgressRequest { group_id, security_group_rule_ids: ids(egress), ..Default::default() };
        gone.extend(call!(client.security().revoke_security_group_egress(request))?.revoked_security_group_rules);
    }
    removed(&gone, out)
}

async fn check(args: CheckArgs, client: &Client, out: &Output) -> Result<(), Failure> {
    let (port, icmp_code) = match (args.traffic.from_port, args.traffic.to_port) {
        _ if args.traffic.protocol.starts_with("icmp") => {
            (args.traffic.from_port.unwrap_or(0).max(0), args.traffic.to_port.unwrap_or(0).max(0))
        }
        (from, to) if from == to => (from.unwrap_or(0), 0),
        _ => return Err(Failure::usage("one packet has one port: tcp:80")),
    };
    let request = EvaluateRequest {
        source: Some(endpoint(args.from, &args.from_group, client).await?),
        destination: Some(endpoint(args.to, &args.to_group, client).await?),
        ip_protocol: args.traffic.protocol,
        port,
        icmp_code,
    };
    let verdict = call!(client.security().evaluate(request))?;
    if out.is_json() {
        return out.write(&format!("{:#}\n", message::to_json(&verdict)?));
    }
    out.list(client, &[verdict]).await
}

async fn endpoint(address: String, groups: &[String], client: &Client) -> Result<Endpoint, Failure> {
    let mut group_ids = Vec::with_capacity(groups.len());
    for group in groups {
        group_ids.push(resolve::group(client, group).await?);
    }
    Ok(Endpoint { address, group_ids })
}

impl Show for SecurityGroup {
    const NAME: &'static str = "gureum.security.v1.SecurityGroup";
    const COLUMNS: &'static [&'static str] = &["ID", "NAME", "VPC", "IN", "OUT", "DESCRIPTION"];

    fn id(&self) -> &str {
        &self.group_id
    }

    fn row(&self, _now: Option<Timestamp>) -> Vec<Cell> {
        let egress = self.rules.iter().filter(|rule| rule.is_egress).count();
        vec![
            self.id().into(),
            (&self.group_name).into(),
            (&self.vpc_id).into(),
            (self.rules.len() - egress).to_string().into(),
            egress.to_string().into(),
            (&self.description).into(),
        ]
    }
}

impl Show for SecurityGroupRule {
    const NAME: &'static str = "gureum.security.v1.SecurityGroupRule";
    const COLUMNS: &'static [&'static str] = &["ID", "GROUP", "WAY", "TRAFFIC", "OTHER SIDE", "DESCRIPTION"];

    fn id(&self) -> &str {
        &self.security_group_rule_id
    }

    fn row(&self, _now: Option<Timestamp>) -> Vec<Cell> {
        vec![
            self.id().into(),
            (&self.group_id).into(),
            if self.is_egress { "out".into() } else { "in".into() },
            rule::show_traffic(self).into(),
            rule::show_peer(self).into(),
            (&self.description).into(),
        ]
    }
}

impl Show for EvaluateResponse {
    const NAME: &'static str = "gureum.security.v1.EvaluateResponse";
    const COLUMNS: &'static [&'static str] = &["PASSES", "OUT BY", "IN BY", "REASON"];

    fn id(&self) -> &str {
        if self.allowed { "yes" } else { "no" }
    }

    fn row(&self, _now: Option<Timestamp>) -> Vec<Cell> {
        vec![self.id().into(), (&self.egress_rule_id).into(), (&self.ingress_rule_id).into(), (&self.reason).into()]
    }
}

#[cfg(test)]
mod tests {
    use gureum_proto::security::v1::security_group_rule::Peer;

    use super::*;
    use crate::table::Table;

    #[test]
    fn rules_as_they_are_shown() {
        let rule = |number: u32, is_egress, protocol: &str, port, peer| SecurityGroupRule {
            security_group_rule_id: format!("sgr-{number:017x}"),
            group_id: "sg-00000000000000001".into(),
            is_egress,
            ip_protocol: protocol.into(),
            from_port: port,
            to_port: port,
            peer: Some(peer),
            ..Default::default()
        };
        let rules = [
            rule(1, false, "tcp", 80, Peer::CidrIpv4("0.0.0.0/0".into())),
            rule(2, true, "-1", -1, Peer::ReferencedGroupId("sg-00000000000000002".into())),
        ];
        let expected = "\
ID                      GROUP                  WAY   TRAFFIC   OTHER SIDE             DESCRIPTION
sgr-00000000000000001   sg-00000000000000001   in    tcp:80    0.0.0.0/0              -
sgr-00000000000000002   sg-00000000000000001   out   all       sg-00000000000000002   -
";
        assert_eq!(Table::new::<SecurityGroupRule>(false).render(&rules, None), expected);
    }
}
