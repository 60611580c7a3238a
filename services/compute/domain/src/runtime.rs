//! How an instance runs, as its node tells it. Nothing is decided by it: users are shown it, in the node's words.

use serde::{Deserialize, Serialize};

/// How an instance runs, or last ran, and what came of its scripts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RuntimeReport {
    pub isolation: String,
    pub cpu_limit: String,
    pub memory_limit: String,
    pub address_mode: String,
    /// None: it was not run, or runs still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<ScriptEnd>,
    /// None: there is none, or it runs still.
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
    /// What it wrote last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_lines: Vec<String>,
}
