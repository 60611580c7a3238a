//! One simulated instance: what it does next, and what it does then.

use std::time::Duration;

use gureum_model::{Timestamp, id::InstanceId};

use super::{
    chance::{Purpose, draw_for, happens},
    settings::{SimSettings, Span},
    steer::Steer,
};
use crate::driver::{BootSpec, DriverEvent, ExitReason};

/// A simulated instance.
#[derive(Debug, Clone, PartialEq)]
pub struct SimInstance {
    pub id: InstanceId,
    pub boot: u64,
    /// Reboots within this boot.
    pub reboots: u64,
    pub phase: Phase,
    /// Since when it has not answered.
    pub hung_since: Option<Timestamp>,
    pub steer: Steer,
    pub memory_mib: u64,
    pub(super) profile: Profile,
}

/// What the settings say of an instance's boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Profile {
    pub boot: Span,
    pub boot_failures_per_million: u32,
}

/// What it is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Until then; with a message if it will fail.
    Booting {
        until: Timestamp,
        fails: Option<String>,
    },
    /// Up; it may have plans of its own.
    Up {
        since: Timestamp,
        exits_at: Option<Timestamp>,
        hangs_at: Option<Timestamp>,
    },
    Rebooting {
        until: Timestamp,
    },
    Stopping {
        until: Timestamp,
    },
    Off {
        at: Timestamp,
        reason: ExitReason,
    },
    Terminating {
        until: Timestamp,
    },
    /// Removed; nothing follows.
    Gone,
}

impl SimInstance {
    /// An instance whose boot begins now. `fault`: the boot fails with this message.
    pub fn boot(settings: &SimSettings, spec: &BootSpec, fault: Option<String>, now: Timestamp) -> Self {
        let steer = Steer::from_user_data(&spec.spec.user_data);
        let profile = settings.profile(&spec.spec);
        let number = draw_for(settings.seed, Purpose::BootFailure, spec.id, [spec.boot, 0]);
        let fails = fault.or_else(|| steer.fail_boot.then(|| "the user data says fail=boot".to_owned())).or_else(|| {
            happens(number, profile.boot_failures_per_million).then(|| "a failure by chance, as the simulation is set to have".to_owned())
        });
        let mut instance = Self {
            id: spec.id,
            boot: spec.boot,
            reboots: 0,
            phase: Phase::Gone,
            hung_since: None,
            steer,
            memory_mib: spec.spec.demand.memory_mib,
            profile,
        };
        instance.phase = Phase::Booting { until: now + instance.boot_time(settings), fails };
        instance
    }

    /// The same instance, up since `since`.
    #[must_use]
    pub fn up(self, since: Timestamp) -> Self {
        let after = |delay: Option<Duration>| delay.map(|delay| since + delay);
        let phase = Phase::Up { since, exits_at: after(self.steer.exit_after), hangs_at: after(self.steer.hang_after) };
        Self { phase, hung_since: None, ..self }
    }

    /// The same instance with a reboot that begins now. What hangs must be ended by force first.
    #[must_use]
    pub fn reboot(self, settings: &SimSettings, grace: Duration, now: Timestamp) -> Self {
        let shutdown = if self.hung_since.is_some() { grace } else { Duration::ZERO };
        let next = Self { reboots: self.reboots + 1, ..self };
        let until = now + shutdown + next.boot_time(settings);
        Self { phase: Phase::Rebooting { until }, ..next }
    }

    /// The same instance with a shutdown that begins now; never later than one that has begun already.
    #[must_use]
    pub fn stop(self, settings: &SimSettings, grace: Duration, now: Timestamp) -> Self {
        let number = draw_for(settings.seed, Purpose::StopTime, self.id, [self.boot, self.reboots]);
        let own = self.steer.stop.unwrap_or_else(|| settings.stop.pick(number));
        let needed = if self.hung_since.is_some() { grace } else { own.min(grace) };
        let until = match self.phase {
            Phase::Stopping { until } => until.min(now + needed),
            Phase::Booting { .. } | Phase::Up { .. } | Phase::Rebooting { .. } => now + needed,
            Phase::Off { .. } | Phase::Terminating { .. } | Phase::Gone => return self,
        };
        Self { phase: Phase::Stopping { until }, ..self }
    }

    /// When it will next do something, if nobody interferes.
    pub fn next_event_at(&self) -> Option<Timestamp> {
        match &self.phase {
            Phase::Booting { until, .. } | Phase::Rebooting { until } | Phase::Stopping { until } | Phase::Terminating { until } => {
                Some(*until)
            }
            Phase::Up { exits_at, hangs_at, .. } => match (exits_at, hangs_at) {
                (Some(exits_at), Some(hangs_at)) => Some(*exits_at.min(hangs_at)),
                (Some(at), None) | (None, Some(at)) => Some(*at),
                (None, None) => None,
            },
            Phase::Off { .. } | Phase::Gone => None,
        }
    }

    /// Does what is due at `at`, which is what [`SimInstance::next_event_at`] said.
    pub fn happen(self, at: Timestamp) -> (Self, Option<DriverEvent>) {
        match self.phase {
            Phase::Booting { fails: None, .. } => (self.up(at), Some(DriverEvent::Up)),
            Phase::Booting { fails: Some(message), .. } => {
                let reason = ExitReason::Crashed { message: message.clone() };
                (Self { phase: Phase::Off { at, reason }, ..self }, Some(DriverEvent::BootFailed { message }))
            }
            Phase::Rebooting { .. } => (self.up(at), Some(DriverEvent::Rebooted)),
            Phase::Stopping { .. } => self.end(ExitReason::Asked, at),
            Phase::Up { exits_at: Some(exits_at), .. } if exits_at <= at => self.end(ExitReason::InstanceInitiated, at),
            Phase::Up { since, hangs_at: Some(_), .. } => {
                // What hangs never gets to shut itself down.
                let phase = Phase::Up { since, exits_at: None, hangs_at: None };
                let message = "the simulated instance hangs".to_owned();
                (Self { phase, hung_since: Some(at), ..self }, Some(DriverEvent::Unresponsive { message }))
            }
            Phase::Terminating { .. } => (Self { phase: Phase::Gone, ..self }, Some(DriverEvent::Removed)),
            Phase::Up { .. } | Phase::Off { .. } | Phase::Gone => (self, None),
        }
    }

    /// Off at once.
    pub fn end(self, reason: ExitReason, at: Timestamp) -> (Self, Option<DriverEvent>) {
        let event = DriverEvent::Exited { reason: reason.clone() };
        (Self { phase: Phase::Off { at, reason }, hung_since: None, ..self }, Some(event))
    }

    fn boot_time(&self, settings: &SimSettings) -> Duration {
        let number = draw_for(settings.seed, Purpose::BootTime, self.id, [self.boot, self.reboots]);
        self.steer.boot.unwrap_or_else(|| self.profile.boot.pick(number))
    }
}
