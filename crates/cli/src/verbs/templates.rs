//! `gureum templates`: launch templates and their versions.

use clap::{Args as ClapArgs, Subcommand};
use gureum_proto::compute::v1::{
    CreateLaunchTemplateRequest, CreateLaunchTemplateVersionRequest, DeleteLaunchTemplateRequest, DescribeLaunchTemplateVersionsRequest,
    DescribeLaunchTemplatesRequest, LaunchTemplate, LaunchTemplateVersion, ModifyLaunchTemplateRequest,
    create_launch_template_version_request::LaunchTemplate as VersionOf, delete_launch_template_request::LaunchTemplate as DeletionOf,
    describe_launch_template_versions_request::LaunchTemplate as VersionsOf, modify_launch_template_request::LaunchTemplate as ChangeOf,
};

use super::spec::SpecArgs;
use crate::{
    call,
    client::Client,
    failure::Failure,
    list::ListArgs,
    output::Output,
    pages, resolve,
    table::{Cell, Show},
    time::Timestamp,
};

/// Launch templates: launches by name
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum templates create web --image 'al2023-*' --type t3.micro --group web --key ops
  gureum templates new-version web --from 1 --type t3.small
  gureum templates set-default web 2
  gureum launch --template web
  gureum templates versions web")]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List launch templates
    #[command(
        visible_alias = "list",
        after_help = "Examples:\n  gureum templates ls\n  gureum templates ls --filter launch-template-name='web*'"
    )]
    Ls(ListArgs),
    /// List the versions of a launch template
    #[command(after_help = "Examples:\n  gureum templates versions web\n  gureum templates versions web -o json")]
    Versions {
        /// Template, by id or name
        template: String,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Make a launch template
    #[command(after_help = "Examples:\n  gureum templates create web --image 'al2023-*' --type t3.micro --group web --key ops --name web")]
    Create(CreateArgs),
    /// Make a further version of a launch template
    #[command(
        after_help = "Examples:\n  gureum templates new-version web --from '$Latest' --type t3.small --version-description 'more memory'"
    )]
    NewVersion(NewVersionArgs),
    /// Say which version counts when none is named
    #[command(after_help = "Examples:\n  gureum templates set-default web 2\n  gureum templates set-default web '$Latest'")]
    SetDefault {
        /// Template, by id or name
        template: String,
        /// A number, or $Latest
        version: String,
    },
    /// Delete launch templates with all their versions
    #[command(visible_alias = "rm", after_help = "Examples:\n  gureum templates delete web")]
    Delete {
        /// Templates, by id or name
        #[arg(value_name = "TEMPLATE", required = true)]
        templates: Vec<String>,
    },
}

#[derive(Debug, ClapArgs)]
struct CreateArgs {
    /// Name of the template
    template: String,
    /// What is special about this version
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    version_description: String,
    #[command(flatten)]
    spec: SpecArgs,
}

#[derive(Debug, ClapArgs)]
struct NewVersionArgs {
    /// Template, by id or name
    template: String,
    /// Take what is not said here from this version: a number, $Latest or $Default
    #[arg(long, value_name = "VERSION", default_value = "", hide_default_value = true)]
    from: String,
    /// What is special about this version
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    version_description: String,
    #[command(flatten)]
    spec: SpecArgs,
}

/// Carries the command out.
pub async fn run(args: Args, client: &Client, out: &Output) -> Result<(), Failure> {
    match args.verb.unwrap_or_else(|| Verb::Ls(ListArgs::default())) {
        Verb::Ls(list) => {
            let request = DescribeLaunchTemplatesRequest { filters: list.filters, ..Default::default() };
            let templates: Vec<LaunchTemplate> = pages!(client.compute().describe_launch_templates(request).launch_templates, list.limit)?;
            out.list(client, &templates).await
        }
        Verb::Versions { template, list } => versions(template, list, client, out).await,
        Verb::Create(args) => {
            let request = CreateLaunchTemplateRequest {
                launch_template_name: args.template,
                version_description: args.version_description,
                launch_template_data: Some(args.spec.resolve(client, out).await?),
                ..Default::default()
            };
            template(call!(client.compute().create_launch_template(request))?.launch_template, client, out).await
        }
        Verb::NewVersion(args) => new_version(args, client, out).await,
        Verb::SetDefault { template: name, version } => {
            let launch_template = Some(which(name, ChangeOf::LaunchTemplateId, ChangeOf::LaunchTemplateName));
            let request = ModifyLaunchTemplateRequest { launch_template, default_version: version, ..Default::default() };
            template(call!(client.compute().modify_launch_template(request))?.launch_template, client, out).await
        }
        Verb::Delete { templates } => {
            for name in templates {
                let launch_template = Some(which(name.clone(), DeletionOf::LaunchTemplateId, DeletionOf::LaunchTemplateName));
                call!(client.compute().delete_launch_template(DeleteLaunchTemplateRequest { launch_template, ..Default::default() }))?;
                out.done(&name, "deleted")?;
            }
            Ok(())
        }
    }
}

/// Each request has a oneof of its own for the same choice.
fn which<T>(text: String, id: impl Fn(String) -> T, name: impl Fn(String) -> T) -> T {
    if resolve::is_id(&text, "lt-") { id(text) } else { name(text) }
}

async fn template(template: Option<LaunchTemplate>, client: &Client, out: &Output) -> Result<(), Failure> {
    match template {
        Some(template) => out.one(client, &template).await,
        None => Ok(()),
    }
}

async fn versions(template: String, list: ListArgs, client: &Client, out: &Output) -> Result<(), Failure> {
    let launch_template = Some(which(template, VersionsOf::LaunchTemplateId, VersionsOf::LaunchTemplateName));
    let request = DescribeLaunchTemplateVersionsRequest { launch_template, filters: list.filters, ..Default::default() };
    let versions: Vec<LaunchTemplateVersion> =
        pages!(client.compute().describe_launch_template_versions(request).launch_template_versions, list.limit)?;
    out.list(client, &versions).await
}

async fn new_version(args: NewVersionArgs, client: &Client, out: &Output) -> Result<(), Failure> {
    let request = CreateLaunchTemplateVersionRequest {
        launch_template: Some(which(args.template, VersionOf::LaunchTemplateId, VersionOf::LaunchTemplateName)),
        source_version: args.from,
        version_description: args.version_description,
        launch_template_data: Some(args.spec.resolve(client, out).await?),
        ..Default::default()
    };
    match call!(client.compute().create_launch_template_version(request))?.launch_template_version {
        Some(version) => out.one(client, &version).await,
        None => Ok(()),
    }
}

impl Show for LaunchTemplate {
    const NAME: &'static str = "gureum.compute.v1.LaunchTemplate";
    const COLUMNS: &'static [&'static str] = &["ID", "NAME", "DEFAULT", "LATEST", "CREATED"];
    const TELLS_TIME: bool = true;

    fn id(&self) -> &str {
        &self.launch_template_id
    }

    fn row(&self, now: Option<Timestamp>) -> Vec<Cell> {
        vec![
            self.id().into(),
            (&self.launch_template_name).into(),
            self.default_version_number.to_string().into(),
            self.latest_version_number.to_string().into(),
            Cell::ago(self.create_time.as_ref(), now),
        ]
    }
}

impl Show for LaunchTemplateVersion {
    const NAME: &'static str = "gureum.compute.v1.LaunchTemplateVersion";
    const COLUMNS: &'static [&'static str] = &["ID", "NAME", "VERSION", "DEFAULT", "IMAGE", "TYPE", "DESCRIPTION", "CREATED"];
    const TELLS_TIME: bool = true;

    fn id(&self) -> &str {
        &self.launch_template_id
    }

    fn row(&self, now: Option<Timestamp>) -> Vec<Cell> {
        let data = self.launch_template_data.as_ref();
        let said = |part: fn(&gureum_proto::compute::v1::LaunchSpec) -> Option<&str>| Cell::from(data.and_then(part).unwrap_or_default());
        vec![
            self.id().into(),
            (&self.launch_template_name).into(),
            self.version_number.to_string().into(),
            Cell::flag(self.default_version),
            said(|data| data.image_id.as_deref()),
            said(|data| data.instance_type.as_deref()),
            (&self.version_description).into(),
            Cell::ago(self.create_time.as_ref(), now),
        ]
    }
}
