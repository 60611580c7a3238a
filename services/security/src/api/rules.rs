//! Rules of security groups: authorize, revoke, modify, describe.

use gureum_model::{Filters, PageRequest, Refusal, Scope, Tags, id::SecurityGroupId, id::SecurityGroupRuleId, refusal::Violations};
use gureum_proto::security::v1 as proto;
use gureum_security_domain::{
    SecurityGroup, SecurityGroupRule,
    group::{GroupError, GroupSelector},
    permission::parse_permissions,
    rule::{self, Direction, Revocation, RuleChange, RuleInGroup},
};
use gureum_service::{Error, mutate, wire};
use gureum_store::State;

use super::{Api, convert, groups::group_of_rule, groups::parse_selector};
use crate::store::{BY_RULE, Happened, Schema, View, write_group};

impl Api {
    pub(super) async fn authorize_ingress(
        &self,
        scope: Scope,
        request: proto::AuthorizeSecurityGroupIngressRequest,
    ) -> Result<proto::AuthorizeSecurityGroupIngressResponse, Error> {
        let wanted = Authorization::parse(&request.group_id, &request.group_name, &request.ip_permissions, &request.tags)?;
        let decide = self.authorize(scope.clone(), wanted, Direction::Ingress);
        let answer = |security_group_rules| proto::AuthorizeSecurityGroupIngressResponse { security_group_rules };
        mutate(&self.store, &scope, &request, move |transaction| decide(transaction).map(answer)).await
    }

    pub(super) async fn authorize_egress(
        &self,
        scope: Scope,
        request: proto::AuthorizeSecurityGroupEgressRequest,
    ) -> Result<proto::AuthorizeSecurityGroupEgressResponse, Error> {
        let wanted = Authorization::parse(&request.group_id, &request.group_name, &request.ip_permissions, &request.tags)?;
        let decide = self.authorize(scope.clone(), wanted, Direction::Egress);
        let answer = |security_group_rules| proto::AuthorizeSecurityGroupEgressResponse { security_group_rules };
        mutate(&self.store, &scope, &request, move |transaction| decide(transaction).map(answer)).await
    }

    pub(super) async fn revoke_ingress(
        &self,
        scope: Scope,
        request: proto::RevokeSecurityGroupIngressRequest,
    ) -> Result<proto::RevokeSecurityGroupIngressResponse, Error> {
        let decide = revoke(
            scope.clone(),
            Direction::Ingress,
            parse_revocation(&request.group_id, &request.group_name, &request.ip_permissions, &request.security_group_rule_ids)?,
        );
        let answer = |revoked_security_group_rules| proto::RevokeSecurityGroupIngressResponse { revoked_security_group_rules };
        mutate(&self.store, &scope, &request, move |transaction| decide(transaction).map(answer)).await
    }

    pub(super) async fn revoke_egress(
        &self,
        scope: Scope,
        request: proto::RevokeSecurityGroupEgressRequest,
    ) -> Result<proto::RevokeSecurityGroupEgressResponse, Error> {
        let decide = revoke(
            scope.clone(),
            Direction::Egress,
            parse_revocation(&request.group_id, &request.group_name, &request.ip_permissions, &request.security_group_rule_ids)?,
        );
        let answer = |revoked_security_group_rules| proto::RevokeSecurityGroupEgressResponse { revoked_security_group_rules };
        mutate(&self.store, &scope, &request, move |transaction| decide(transaction).map(answer)).await
    }

    pub(super) async fn modify_rules(
        &self,
        scope: Scope,
        request: proto::ModifySecurityGroupRulesRequest,
    ) -> Result<proto::ModifySecurityGroupRulesResponse, Error> {
        let mut violations = Violations::new();
        let id: Option<SecurityGroupId> = violations.id("group_id", &request.group_id);
        let updates = rule::parse_updates("updates", &convert::updates(request.updates.clone()), &mut violations);
        violations.finish()?;
        let selector = GroupSelector::Id(id.ok_or_else(|| Refusal::missing("group_id"))?);
        let scope_of_group = scope.clone();
        mutate(&self.store, &scope, &request, move |transaction| {
            let view = View { tables: transaction, scope: &scope_of_group };
            let change = rule::modify(find(&selector, &view)?, &updates, &view)?;
            Ok(proto::ModifySecurityGroupRulesResponse { security_group_rules: write(transaction, change) })
        })
        .await
    }

    /// The decision behind both authorize calls.
    fn authorize(
        &self,
        scope: Scope,
        wanted: Authorization,
        direction: Direction,
    ) -> impl FnOnce(&mut Transaction<'_>) -> Decided + Send + 'static {
        let ids = self.ids.clone();
        move |transaction| {
            let view = View { tables: transaction, scope: &scope };
            let change = rule::authorize(find(&wanted.selector, &view)?, direction, &wanted.specs, &wanted.tags, &ids, &view)?;
            Ok(write(transaction, change))
        }
    }
}

type Transaction<'a> = gureum_store::Transaction<'a, Schema>;
type Decided = Result<Vec<proto::SecurityGroupRule>, Refusal>;

/// What an authorize call wants.
struct Authorization {
    selector: GroupSelector,
    specs: Vec<gureum_security_domain::permission::RuleSpec>,
    tags: Tags,
}

impl Authorization {
    fn parse(
        group_id: &str,
        group_name: &str,
        permissions: &[proto::IpPermission],
        tags: &[gureum_proto::common::v1::Tag],
    ) -> Result<Self, Refusal> {
        let mut violations = Violations::new();
        let selector = violations.check("", parse_selector(group_id, group_name));
        let specs = parse_permissions("ip_permissions", &convert::permissions(permissions.to_vec()), &mut violations);
        let tags = violations.check("", Tags::from_user("tags", wire::tag_pairs(tags.to_vec()))).unwrap_or_default();
        violations.finish()?;
        Ok(Self { selector: selector.ok_or_else(|| Refusal::missing("group_id"))?, specs, tags })
    }
}

fn parse_revocation(
    group_id: &str,
    group_name: &str,
    permissions: &[proto::IpPermission],
    ids: &[String],
) -> Result<(GroupSelector, Revocation), Refusal> {
    let mut violations = Violations::new();
    let selector = violations.check("", parse_selector(group_id, group_name));
    let revocation = Revocation::parse(ids, &convert::permissions(permissions.to_vec()), &mut violations);
    violations.finish()?;
    Ok((selector.ok_or_else(|| Refusal::missing("group_id"))?, revocation))
}

/// The decision behind both revoke calls.
fn revoke(
    scope: Scope,
    direction: Direction,
    (selector, revocation): (GroupSelector, Revocation),
) -> impl FnOnce(&mut Transaction<'_>) -> Decided + Send + 'static {
    move |transaction| {
        let view = View { tables: transaction, scope: &scope };
        let change = rule::revoke(find(&selector, &view)?, direction, &revocation, &view)?;
        Ok(write(transaction, change))
    }
}

fn find<'a>(selector: &GroupSelector, view: &'a View<'_>) -> Result<&'a SecurityGroup, GroupError> {
    selector.find(view.default_vpc(), view)
}

/// Writes the changed group and shows the rules that the change was about.
fn write(transaction: &mut Transaction<'_>, change: RuleChange) -> Vec<proto::SecurityGroupRule> {
    let RuleChange { next, rules } = change;
    let shown = rules.iter().map(|rule: &SecurityGroupRule| convert::rule(&next, rule)).collect();
    write_group(transaction, next, Happened::Changed);
    shown
}

/// In ascending order of the rules' ids, whichever group they are in.
pub fn describe(
    state: &State<Schema>,
    scope: &Scope,
    request: proto::DescribeSecurityGroupRulesRequest,
) -> Result<proto::DescribeSecurityGroupRulesResponse, Refusal> {
    let mut violations = Violations::new();
    let mut ids: Vec<SecurityGroupRuleId> = violations.ids("security_group_rule_ids", &request.security_group_rule_ids);
    let filters = violations.check("", Filters::for_kind::<RuleInGroup<'_>>(wire::filters(request.filters))).unwrap_or_default();
    violations.finish()?;
    let shown = |group: &SecurityGroup, id: SecurityGroupRuleId| {
        let rule = group.rules.iter().find(|rule| rule.id == id)?;
        filters.pass(&RuleInGroup { group, rule }).then(|| convert::rule(group, rule))
    };
    if !ids.is_empty() {
        let absent = ids.iter().copied().enumerate().filter(|(_, id)| group_of_rule(state, scope, *id).is_none()).collect::<Vec<_>>();
        if !absent.is_empty() {
            return Err(Refusal::none_found("security_group_rule_ids", &absent));
        }
        ids.sort_unstable();
        ids.dedup();
        let mut rules = Vec::new();
        for id in ids {
            let group = group_of_rule(state, scope, id).ok_or_else(|| Refusal::not_found(id))?;
            rules.extend(shown(&group, id));
        }
        return Ok(proto::DescribeSecurityGroupRulesResponse { security_group_rules: rules, next_page_token: String::new() });
    }
    let page = PageRequest::new(request.page_size, &request.page_token, &("rules", scope, &filters))?;
    let prefix = format!("{scope}/");
    // A tilde is behind every hexadecimal digit, so this begins behind the last rule that was shown.
    let from = page.after.as_ref().map_or_else(|| prefix.clone(), |after| format!("{prefix}{after}~"));
    let found = state.groups.find_from(BY_RULE, &from).take_while(|(value, _)| value.starts_with(&prefix));
    let rules = found.filter_map(|(value, row)| shown(&row.record.0, value[prefix.len()..].parse().ok()?)).take(page.size + 1);
    let (security_group_rules, next_page_token) =
        page.cut(rules.collect(), |rule: &proto::SecurityGroupRule| rule.security_group_rule_id.clone());
    Ok(proto::DescribeSecurityGroupRulesResponse { security_group_rules, next_page_token })
}
