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
    let mut text = Harmless::default().next(output);
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// The same, of what comes in parts.
#[derive(Default)]
pub struct Harmless {
    /// The beginning of a letter whose end has not come yet.
    begun: Vec<u8>,
}

impl Harmless {
    pub fn next(&mut self, output: &[u8]) -> String {
        let bytes = [std::mem::take(&mut self.begun), output.to_vec()].concat();
        let whole = match bytes.utf8_chunks().last() {
            // No more than a letter has, or it is none.
            Some(last) if last.invalid().len() < 4 && bytes.ends_with(last.invalid()) => bytes.len() - last.invalid().len(),
            _ => bytes.len(),
        };
        // One that will never be whole is not waited for: what is invalid wherever it goes on is told by its own length.
        let incomplete = std::str::from_utf8(&bytes[whole..]).is_err_and(|error| error.error_len().is_none());
        let whole = if incomplete { whole } else { bytes.len() };
        self.begun = bytes[whole..].to_vec();
        let text = String::from_utf8_lossy(&bytes[..whole]);
        text.chars().filter(|letter| !letter.is_control() || matches!(letter, '\n' | '\t')).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(harmless(b"boot\r\n\x1b[2Jlogin:"), "boot\n[2Jlogin:\n");
        assert_eq!(harmless(b""), "");
    }

    #[test]
    fn a_letter_that_comes_in_parts_is_whole_and_one_that_is_none_is_not_waited_for() {
        let mut parts = Harmless::default();
        let shown: Vec<String> = [&b"gr\xc3"[..], b"\xbc\xe2\x82", b"\xac", b"\xff", b"\x1b[1m!"].map(|part| parts.next(part)).to_vec();
        assert_eq!(shown, ["gr", "ü", "€", "\u{fffd}", "[1m!"]);
    }
}
