//! `gureum console`.

use std::io::IsTerminal;

use clap::Args as ClapArgs;
use gureum_proto::compute::v1::{GetConsoleOutputRequest, GetConsoleOutputResponse};

use crate::{
    call,
    client::Client,
    failure::Failure,
    message,
    output::Output,
    resolve,
    table::{Cell, Show},
    time::Timestamp,
};

/// Show what an instance wrote to its console
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum console web
  gureum console i-00000000000000001 --latest | tail")]
pub struct Args {
    /// Instance, by id or name
    instance: String,
    /// Ask its node now, in place of what was last kept
    #[arg(long)]
    latest: bool,
}

impl Show for GetConsoleOutputResponse {
    const NAME: &'static str = "gureum.compute.v1.GetConsoleOutputResponse";
    const COLUMNS: &'static [&'static str] = &["ID", "BYTES", "UPDATED"];
    const TELLS_TIME: bool = true;

    fn id(&self) -> &str {
        &self.instance_id
    }

    fn row(&self, now: Option<Timestamp>) -> Vec<Cell> {
        vec![self.id().into(), self.output.len().to_string().into(), Cell::ago(self.update_time.as_ref(), now)]
    }
}

/// Prints the console's output.
pub async fn run(args: Args, client: &Client, out: &Output) -> Result<(), Failure> {
    let instance_id = resolve::instance(client, &args.instance).await?;
    let answer = call!(client.compute().get_console_output(GetConsoleOutputRequest { instance_id, latest: args.latest }))?;
    if out.is_json() {
        return out.write(&format!("{:#}\n", message::to_json(&answer)?));
    }
    if answer.output.is_empty() {
        out.remark("nothing was written to the console yet");
    }
    if std::io::stdout().is_terminal() { out.write(&harmless(&answer.output)) } else { out.write_bytes(&answer.output) }
}

/// What an instance writes may not steer the terminal of whoever looks.
fn harmless(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let mut text: String = text.chars().filter(|letter| !letter.is_control() || matches!(letter, '\n' | '\t')).collect();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(harmless(b"boot\r\n\x1b[2Jlogin:"), "boot\n[2Jlogin:\n");
        assert_eq!(harmless(b""), "");
    }
}
