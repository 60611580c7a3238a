//! The rules of one instance's interfaces: which groups they are of, and what its shim has been told.

use gureum_model::{
    Scope,
    id::{NetworkInterfaceId, SecurityGroupId, VpcId},
};
use gureum_node_domain::InstanceSpec;
use gureum_shim::protocol::InterfaceRules;

use crate::firewall::{Groups, Interest};

/// An instance's interfaces: whose they are, their groups, and the VPCs that they are in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interfaces {
    scope: Scope,
    of: Vec<(NetworkInterfaceId, Vec<SecurityGroupId>)>,
    vpcs: Vec<VpcId>,
}

impl Interfaces {
    pub fn of(scope: &Scope, spec: &InstanceSpec) -> Self {
        let groups = |interface: &gureum_node_domain::spec::InterfaceSpec| interface.groups.iter().map(|group| group.id).collect();
        let of = spec.interfaces.iter().map(|interface| (interface.id, groups(interface))).collect();
        Self { scope: scope.clone(), of, vpcs: spec.interfaces.iter().map(|interface| interface.vpc).collect() }
    }

    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    pub fn vpcs(&self) -> impl Iterator<Item = VpcId> {
        self.vpcs.iter().copied()
    }
}

/// What is to be told to a shim, and what was.
pub struct Rules {
    interest: Interest,
    interfaces: Interfaces,
    told: Option<Vec<InterfaceRules>>,
}

impl Rules {
    pub fn new(groups: &Groups) -> Self {
        Self { interest: groups.interest(), interfaces: Interfaces::default(), told: None }
    }

    /// The instance has these interfaces from now on.
    pub fn set(&mut self, interfaces: Interfaces) {
        self.interest.set(&interfaces.scope, interfaces.of.iter().flat_map(|(_, groups)| groups).copied());
        self.interfaces = interfaces;
    }

    pub fn scope(&self) -> &Scope {
        self.interfaces.scope()
    }

    /// There is a shim that may know nothing yet.
    pub fn forget_told(&mut self) {
        self.told = None;
    }

    /// Ends when the rules of one of the groups have changed.
    pub async fn changed(&self) {
        self.interest.changed().await;
    }

    /// What the shim is to be told, if that is not what it was told last. While nobody knows the rules it keeps those
    /// that it has.
    pub fn untold(&mut self) -> Option<Vec<InterfaceRules>> {
        let Interfaces { scope, of, .. } = &self.interfaces;
        let rules = of.iter().map(|(interface, groups)| {
            let rules = self.interest.rules_of(scope, groups)?;
            Some(InterfaceRules { interface: interface.to_string(), rules })
        });
        let rules = rules.collect::<Option<Vec<_>>>()?;
        if self.told.as_ref() == Some(&rules) {
            return None;
        }
        self.told = Some(rules.clone());
        Some(rules)
    }
}
