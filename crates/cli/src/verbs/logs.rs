//! `gureum logs`.

use std::io::IsTerminal;

use clap::Args as ClapArgs;
use gureum_proto::compute::v1::WatchConsoleRequest;

use crate::{client::Client, failure::Failure, output::Output, resolve, verbs::console::Harmless};

/// Show all that is kept of an instance's console, and follow it
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum logs web                     all that is kept: about 20 MiB
  gureum logs web --follow            and what is written from now on, until Ctrl-C or the instance's end
  gureum logs -f web --tail 4096      beginning with the last 4 KiB")]
pub struct Args {
    /// Instance, by id or name
    instance: String,
    /// Go on with what is written from now on
    #[arg(short, long)]
    follow: bool,
    /// Begin with so many bytes before the end; 0 is all that is kept
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    tail: u64,
}

/// Prints a console as it is told.
pub async fn run(args: Args, client: &Client, out: &Output) -> Result<(), Failure> {
    let instance_id = resolve::instance(client, &args.instance).await?;
    let request = WatchConsoleRequest { instance_id, follow: args.follow, tail_bytes: args.tail };
    let mut stream = client.compute().watch_console(request).await.map_err(|status| client.failed(status))?.into_inner();
    let mut harmless = std::io::stdout().is_terminal().then(Harmless::default);
    while let Some(told) = stream.message().await.map_err(|status| client.failed(status))? {
        match &mut harmless {
            Some(harmless) => out.write(&harmless.next(&told.output))?,
            None => out.write_bytes(&told.output)?,
        }
    }
    Ok(())
}
