//! Status checks: how an instance and its host are doing, as a function of what is recorded.

use std::{borrow::Cow, time::Duration};

use gureum_model::{Filterable, Tags, Timestamp};

use crate::{
    instance::{Instance, StateName},
    node::NodeState,
};

/// The first checks are through so long after an instance began to run, unless configured otherwise.
pub const DEFAULT_INITIALIZING: Duration = Duration::from_secs(10);

/// The outcome of one group of checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    Ok,
    Impaired { since: Timestamp },
    Initializing,
    InsufficientData,
    NotApplicable,
}

impl Check {
    /// EC2's word for the group's status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Impaired { .. } => "impaired",
            Self::Initializing => "initializing",
            Self::InsufficientData => "insufficient-data",
            Self::NotApplicable => "not-applicable",
        }
    }

    /// EC2's word for the one check in the group, `reachability`.
    pub fn reachability(self) -> &'static str {
        match self {
            Self::Ok => "passed",
            Self::Impaired { .. } => "failed",
            Self::Initializing => "initializing",
            Self::InsufficientData | Self::NotApplicable => "insufficient-data",
        }
    }
}

/// How an instance is doing: one row of DescribeInstanceStatus.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceStatus<'a> {
    pub instance: &'a Instance,
    /// What concerns the instance itself.
    pub instance_check: Check,
    /// What concerns its host.
    pub system_check: Check,
    /// What concerns its volumes.
    pub ebs_check: Check,
}

/// How an instance on a node in this state is doing.
///
/// A lost node impairs the host's check since it was lost, and leaves nothing to be known of the
/// instance: its state stays what it was.
pub fn status<'a>(it: &'a Instance, node: Option<NodeState>, initializing: Duration, now: Timestamp) -> InstanceStatus<'a> {
    let (instance_check, system_check, ebs_check) = match it.state.name() {
        StateName::Running => running(it, node, initializing, now),
        StateName::Pending => (Check::Initializing, Check::Initializing, Check::Initializing),
        StateName::Stopping | StateName::ShuttingDown | StateName::Stopped | StateName::Terminated => {
            (Check::NotApplicable, Check::NotApplicable, Check::NotApplicable)
        }
    };
    InstanceStatus { instance: it, instance_check, system_check, ebs_check }
}

fn running(it: &Instance, node: Option<NodeState>, initializing: Duration, now: Timestamp) -> (Check, Check, Check) {
    match node {
        Some(NodeState::Lost { since } | NodeState::Dead { since }) => {
            (Check::InsufficientData, Check::Impaired { since }, Check::InsufficientData)
        }
        None => (Check::InsufficientData, Check::InsufficientData, Check::InsufficientData),
        Some(NodeState::Up { .. }) => {
            if let Some(since) = it.observed.unreachable_since {
                (Check::Impaired { since }, Check::Ok, Check::Ok)
            } else if now < it.state.since() + initializing {
                (Check::Initializing, Check::Initializing, Check::Initializing)
            } else {
                (Check::Ok, Check::Ok, Check::Ok)
            }
        }
    }
}

impl Filterable for InstanceStatus<'_> {
    const FILTER_NAMES: &'static [&'static str] = &[
        "attached-ebs-status.status",
        "availability-zone",
        "availability-zone-id",
        "instance-state-code",
        "instance-state-name",
        "instance-status.reachability",
        "instance-status.status",
        "system-status.reachability",
        "system-status.status",
    ];

    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        let state = self.instance.state.name();
        let value = match name {
            "attached-ebs-status.status" => Cow::from(self.ebs_check.as_str()),
            "availability-zone" => Cow::from(self.instance.availability_zone()),
            "availability-zone-id" => Cow::from(self.instance.availability_zone_id()),
            "instance-state-code" => Cow::from(state.code().to_string()),
            "instance-state-name" => Cow::from(state.as_str()),
            "instance-status.reachability" => Cow::from(self.instance_check.reachability()),
            "instance-status.status" => Cow::from(self.instance_check.as_str()),
            "system-status.reachability" => Cow::from(self.system_check.reachability()),
            "system-status.status" => Cow::from(self.system_check.as_str()),
            _ => return Vec::new(),
        };
        vec![value]
    }

    fn filter_tags(&self) -> Option<&Tags> {
        Some(&self.instance.tags)
    }
}
