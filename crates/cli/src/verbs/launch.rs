//! `gureum launch`.

use std::ops::RangeInclusive;

use clap::Args as ClapArgs;
use gureum_proto::compute::v1::{
    InstanceState, LaunchTemplateSpecification, RunInstancesRequest, launch_template_specification::LaunchTemplate,
};

use super::spec::SpecArgs;
use crate::{
    call,
    client::Client,
    failure::Failure,
    output::Output,
    parse, resolve,
    wait::{self, WaitArgs},
};

/// Launch instances
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum launch --image 'al2023-*' --type t3.micro --name web --wait
  gureum launch -i ami-00000000000000001 -t m5.large --count 3 --key ops -g web -g ssh --zone us-east-1b
  gureum launch -i ubuntu -t t3.small --root-size 30 --volume dev=/dev/sdf,size=100,type=gp3,keep --user-data @boot.sh
  gureum launch --template web:3 --tag stage=test
  ID=$(gureum launch -i ubuntu -t t3.micro --wait -o id)")]
pub struct Args {
    #[command(flatten)]
    spec: SpecArgs,
    /// Launch template, by id or name, and its version: a number, $Latest or $Default
    #[arg(long, value_name = "TEMPLATE[:VERSION]")]
    template: Option<String>,
    /// How many; 1-5 takes as many of 5 as there is room for
    #[arg(short, long, value_name = "COUNT", default_value = "1", value_parser = parse::count)]
    count: RangeInclusive<i32>,
    /// Makes the launch idempotent: the same token never launches twice
    #[arg(long, value_name = "TOKEN")]
    client_token: Option<String>,
    /// Only check whether it would succeed
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Launches, and waits until all run if that is wanted.
pub async fn run(args: Args, client: &Client, out: &Output) -> Result<(), Failure> {
    let request = RunInstancesRequest {
        client_token: args.client_token.unwrap_or_default(),
        dry_run: args.dry_run,
        spec: Some(args.spec.resolve(client, out).await?),
        launch_template: args.template.as_deref().map(template),
        min_count: *args.count.start(),
        max_count: *args.count.end(),
    };
    let answer = match call!(client.compute().run_instances(request)) {
        Err(failure) if failure.reason().as_deref() == Some("DryRunOperation") => {
            out.remark("it would succeed; nothing was launched");
            return Ok(());
        }
        answer => answer?,
    };
    if !args.wait.wait {
        return out.list(client, &answer.instances).await;
    }
    let ids: Vec<_> = answer.instances.into_iter().map(|instance| instance.instance_id).collect();
    let waited = wait::for_instances(client, out, &ids, InstanceState::Running, args.wait.timeout).await;
    out.list(client, &waited.items).await?;
    waited.outcome
}

/// `web`, `web:3`, `lt-…:$Latest`.
fn template(text: &str) -> LaunchTemplateSpecification {
    let (name, version) = text.rsplit_once(':').unwrap_or((text, ""));
    let name = name.to_owned();
    let launch_template =
        if resolve::is_id(&name, "lt-") { LaunchTemplate::LaunchTemplateId(name) } else { LaunchTemplate::LaunchTemplateName(name) };
    LaunchTemplateSpecification { launch_template: Some(launch_template), version: version.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_named_with_or_without_version() {
        assert_eq!(template("web").launch_template, Some(LaunchTemplate::LaunchTemplateName("web".into())));
        assert_eq!(template("web").version, "");
        assert_eq!(template("web:$Latest").version, "$Latest");
        let by_id = template("lt-00000000000000001:2");
        assert_eq!(by_id.launch_template, Some(LaunchTemplate::LaunchTemplateId("lt-00000000000000001".into())));
        assert_eq!(by_id.version, "2");
    }
}
