//! `gureum tour`: a person's first day with EC2, each step proved on the running region.

mod guide;
mod visitor;

use std::time::Duration;

use clap::Args as ClapArgs;
use gureum_proto::compute::v1::InstanceState;

use self::guide::Guide;
use crate::{client::Client, failure::Failure, output::Output};

/// Take the tour: launch, open, close, stop, move, enlarge, image and end a web server, each step proved
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum tour
  gureum tour --port-offset 10000     for a region that was started so
  gureum tour -o json | jq -r .proof

The region's instances must run, which those of gureum up --driver sim do not. What the tour makes has a name of its
own, and is removed at the end, also if a step fails.")]
pub struct Args {
    /// What the region adds to the ports of public addresses
    #[arg(long, value_name = "PORTS", default_value_t = 0)]
    port_offset: u16,
}

/// The smaller type first: what it begins with, and what it is moved to.
const TYPES: [&str; 2] = ["t3.micro", "t3.large"];
const HTTP: u16 = 80;
const SSH: u16 = 22;

/// How long a page may take to be served, or no longer to be.
const PATIENCE: Duration = Duration::from_secs(20);

pub async fn run(args: Args, client: &Client, out: &Output) -> Result<(), Failure> {
    let mut guide = Guide::new(client, out, args.port_offset)?;
    let toured = tokio::select! {
        toured = tour(&mut guide) => toured,
        _ = tokio::signal::ctrl_c() => Err(Failure::NotReached("the tour was broken off".to_owned())),
    };
    let removed = guide.remove_all().await;
    toured.and(removed)?;
    guide.sum_up()
}

async fn tour(guide: &mut Guide<'_>) -> Result<(), Failure> {
    guide.begin("make a key pair and a security group")?;
    let key = guide.make_key("key").await?;
    let group = guide.make_group().await?;
    guide.prove(format!("{group} lets nothing in"))?;

    guide.begin("launch a web server whose page comes from user data")?;
    let web = guide.launch("gureum-web", &key, "one").await?;
    let first = guide.public_address(&web).await?;
    guide.prove(format!("{web} runs at {first}"))?;

    guide.begin("open its port")?;
    guide.refused(first, HTTP).await?;
    guide.allow(HTTP).await?;
    let page = guide.page(first).await?;
    guide.prove(format!("closed before, now http://{first} answers: {page}"))?;

    guide.begin("close it, and open it again")?;
    guide.revoke(HTTP).await?;
    guide.refused(first, HTTP).await?;
    guide.allow(HTTP).await?;
    guide.page(first).await?;
    guide.prove("refused while it was closed".to_owned())?;

    guide.begin("log in by ssh")?;
    guide.allow(SSH).await?;
    let told = guide.log_in(&web, first, &key).await?;
    guide.prove(told)?;

    guide.begin("stop and start it")?;
    guide.stop(&web).await?;
    guide.start(&web).await?;
    let second = guide.public_address(&web).await?;
    guide.page(second).await?;
    guide.prove(format!(
        "its address was {first}, and now is {second}: {}",
        if first == second { "by chance the same" } else { "another" }
    ))?;

    guide.begin("give it an elastic IP, and stop and start it again")?;
    let elastic = guide.elastic_address(&web).await?;
    guide.page(elastic).await?;
    guide.stop(&web).await?;
    guide.start(&web).await?;
    guide.page(elastic).await?;
    guide.prove(format!("{elastic} stays"))?;

    guide.begin("move it to a bigger instance type")?;
    guide.stop(&web).await?;
    guide.resize(&web, TYPES[1]).await?;
    guide.start(&web).await?;
    guide.page(elastic).await?;
    guide.prove(format!("the page is served by a {} at the same address", TYPES[1]))?;

    guide.begin("make an image of it, and launch that with another key")?;
    let image = guide.make_image(&web).await?;
    let other_key = guide.make_key("other-key").await?;
    let copy = guide.launch(&image, &other_key, "copy").await?;
    let at = guide.public_address(&copy).await?;
    let copied = guide.page(at).await?;
    let told = guide.log_in(&copy, at, &other_key).await?;
    guide.prove(format!("the copy answers as the first did: {copied}; {told}"))?;

    guide.begin("move the elastic IP to the copy")?;
    let took = guide.move_address(&copy).await?;
    guide.prove(format!("{elastic} led to the other within {} ms", took.as_millis()))?;

    guide.begin("protect it from termination")?;
    guide.protect(&web, true).await?;
    let reason = guide.termination_refused(&web).await?;
    guide.protect(&web, false).await?;
    guide.prove(format!("termination was refused: {reason}"))?;

    guide.begin("terminate both")?;
    guide.terminate(&[web.clone(), copy.clone()]).await?;
    guide.wait(&[web, copy], InstanceState::Terminated).await?;
    guide.refused(elastic, HTTP).await?;
    guide.prove(format!("nobody answers at {elastic} any more"))
}
