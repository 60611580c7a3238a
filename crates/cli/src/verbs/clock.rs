//! `gureum clock`: the region's time.

use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};
use gureum_proto::gateway::v1::{AdvanceClockRequest, AdvanceClockResponse, GetClockRequest, GetClockResponse};

use crate::{
    call,
    client::{Client, ask_within},
    failure::Failure,
    message,
    output::Output,
    table::{Cell, Show},
    time::{Timestamp, parse_span, stamp, to_proto},
};

/// Time for an advance: a long one has many timers to pass.
const ADVANCE_TIMEOUT: Duration = Duration::from_secs(600);

/// The region's time
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum clock
  gureum clock advance 5m
  gureum clock advance 1h30m")]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Tell the time and how it passes
    #[command(after_help = "Examples:\n  gureum clock show\n  gureum clock show -o json")]
    Show,
    /// Move virtual time forward, and return when all that fell due has happened
    #[command(after_help = "Examples:\n  gureum clock advance 5m\n  gureum clock advance 1d")]
    Advance {
        /// How far: 90s, 5m, 1h30m
        #[arg(value_name = "TIME", value_parser = parse_span)]
        by: Duration,
    },
}

/// Carries the command out.
pub async fn run(args: Args, client: &Client, out: &Output) -> Result<(), Failure> {
    match args.verb.unwrap_or(Verb::Show) {
        Verb::Show => {
            let clock = call!(client.clock().get_clock(GetClockRequest {}))?;
            if out.is_json() { out.write(&format!("{:#}\n", message::to_json(&clock)?)) } else { out.list(client, &[clock]).await }
        }
        Verb::Advance { by } => {
            let request = ask_within(AdvanceClockRequest { by: Some(to_proto(by)) }, ADVANCE_TIMEOUT);
            let clock = client.clock().advance_clock(request).await.map_err(|status| client.failed(status))?.into_inner();
            if out.is_json() { out.write(&format!("{:#}\n", message::to_json(&clock)?)) } else { out.list(client, &[clock]).await }
        }
    }
}

fn full(time: Option<&prost_types::Timestamp>) -> Cell {
    stamp(time).map(|time| time.to_string()).unwrap_or_default().into()
}

impl Show for GetClockResponse {
    const NAME: &'static str = "gureum.gateway.v1.GetClockResponse";
    const COLUMNS: &'static [&'static str] = &["NOW", "PASSES"];

    fn id(&self) -> &str {
        &self.setting
    }

    fn row(&self, _now: Option<Timestamp>) -> Vec<Cell> {
        vec![full(self.now.as_ref()), (&self.setting).into()]
    }
}

impl Show for AdvanceClockResponse {
    const NAME: &'static str = "gureum.gateway.v1.AdvanceClockResponse";
    const COLUMNS: &'static [&'static str] = &["NOW", "TIMERS"];

    fn id(&self) -> &str {
        ""
    }

    fn row(&self, _now: Option<Timestamp>) -> Vec<Cell> {
        vec![full(self.now.as_ref()), self.steps.to_string().into()]
    }
}
