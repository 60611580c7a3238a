//! How an instance runs here, and what came of its scripts: what its user is told beside its state.

use serde::{Deserialize, Serialize};

use crate::driver::{AddressMode, Capabilities, Isolation, Limit};

/// What is told of an instance beside its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeReport {
    pub isolation: Isolation,
    pub cpu_limit: Limit,
    pub memory_limit: Limit,
    pub address_mode: AddressMode,
    /// How its user data ended, at whichever boot it was run; none: it was not run, or runs still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<ScriptEnd>,
    /// How its image's boot script ended since it last came up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_script: Option<ScriptEnd>,
    /// Public ports that cannot be opened, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stuck_ports: Vec<String>,
}

/// How a script ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptEnd {
    pub exit_code: i32,
    /// What it wrote last; a driver bounds it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_lines: Vec<String>,
}

impl RuntimeReport {
    /// What there is to tell of an instance of a driver that tells nothing more of it.
    pub fn of(capabilities: &Capabilities) -> Self {
        Self {
            isolation: capabilities.isolation,
            cpu_limit: capabilities.cpu_limit,
            memory_limit: capabilities.memory_limit,
            address_mode: capabilities.address_mode,
            user_data: None,
            boot_script: None,
            stuck_ports: Vec::new(),
        }
    }

    /// This after what was told before: user data is run once, and what came of it is told for good.
    pub fn after(mut self, before: Option<&Self>) -> Self {
        self.user_data = self.user_data.or_else(|| before.and_then(|before| before.user_data.clone()));
        self
    }

    /// What of this is still so when another boot begins.
    pub fn at_next_boot(mut self) -> Self {
        (self.boot_script, self.stuck_ports) = (None, Vec::new());
        self
    }
}
