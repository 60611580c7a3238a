//! The command line as a whole.

use clap::{CommandFactory, Parser, Subcommand};

use crate::{
    client::{Client, Connection},
    failure::Failure,
    output::{Format, Output},
    verbs,
};

/// An elastic compute cloud that anyone can run
#[derive(Debug, Parser)]
#[command(
    name = "gureum",
    version,
    arg_required_else_help = true,
    max_term_width = 120,
    after_help = "Examples:
  gureum up                                            start a region
  gureum launch --image 'al2023-*' --type t3.micro --name web --wait
  gureum ps                                            what runs
  gureum connect web                                   a shell in it
  gureum eip associate $(gureum eip allocate -o id) web
  gureum events --follow                               what happens
  gureum terminate web

The region is found at --endpoint or GUREUM_ENDPOINT, the access key, where one is demanded, in
GUREUM_ACCESS_KEY as ID:SECRET. Exit codes: 0 done, 1 refused, 2 wrong usage, 3 no region answers; of connect
that of the program."
)]
pub struct Cli {
    #[command(flatten)]
    connection: Connection,
    /// How results are printed
    #[arg(short, long, global = true, value_enum, default_value = "table", help_heading = "Region")]
    pub output: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[cfg(feature = "region")]
    Up(crate::up::Args),
    #[cfg(feature = "region")]
    Serve(crate::serve::Args),
    Launch(Box<verbs::launch::Args>),
    Ps(verbs::ps::Args),
    Describe(verbs::describe::Args),
    Start(verbs::power::StartArgs),
    Stop(verbs::power::StopArgs),
    Reboot(verbs::power::RebootArgs),
    Terminate(verbs::power::TerminateArgs),
    Protect(verbs::attribute::ProtectArgs),
    Unprotect(verbs::attribute::UnprotectArgs),
    Resize(verbs::attribute::ResizeArgs),
    Console(verbs::console::Args),
    Logs(verbs::logs::Args),
    Connect(verbs::connect::Args),
    Cp(verbs::cp::Args),
    Eip(verbs::eip::Args),
    Sg(verbs::sg::Args),
    Keys(verbs::keys::Args),
    PrefixLists(verbs::prefix_lists::Args),
    Images(verbs::images::Args),
    Volumes(verbs::volumes::Args),
    Snapshots(verbs::snapshots::Args),
    Types(verbs::types::Args),
    Templates(Box<verbs::templates::Args>),
    Vpcs(verbs::vpcs::Args),
    Subnets(verbs::subnets::Args),
    Interfaces(verbs::interfaces::Args),
    Gateways(verbs::gateways::Args),
    Routes(verbs::routes::Args),
    Zones(verbs::zones::Args),
    IdentityCertificate(verbs::identity_certificate::Args),
    Tags(verbs::tags::Args),
    Events(verbs::events::Args),
    Tour(verbs::tour::Args),
    Webhooks(verbs::webhooks::Args),
    Clock(verbs::clock::Args),
    Completion(verbs::completion::Args),
}

impl Cli {
    /// Threads that serve calls: one for each processor. A service that is its own process leaves one to its store's writer,
    /// which is a thread of its own and as busy as they are.
    pub fn worker_threads(&self) -> usize {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        match self.command {
            #[cfg(feature = "region")]
            Command::Serve(_) => (processors - 1).max(1),
            _ => processors,
        }
    }

    /// Carries the command out.
    pub async fn run(self, out: &Output) -> Result<(), Failure> {
        match self.command {
            #[cfg(feature = "region")]
            Command::Up(args) => crate::up::run(args, out).await,
            #[cfg(feature = "region")]
            Command::Serve(args) => crate::serve::run(args, out).await,
            Command::Completion(args) => verbs::completion::run(&args, Self::command(), out),
            command => {
                let client = Client::connect(&self.connection).await?;
                match command.call(&client, out).await {
                    Err(failure) => Err(self.connection.explain(failure).await),
                    done => done,
                }
            }
        }
    }
}

impl Command {
    /// What needs a region that answers.
    async fn call(self, client: &Client, out: &Output) -> Result<(), Failure> {
        match self {
            #[cfg(feature = "region")]
            Self::Up(_) | Self::Serve(_) => Ok(()),
            Self::Completion(_) => Ok(()),
            Self::Launch(args) => verbs::launch::run(*args, client, out).await,
            Self::Ps(args) => verbs::ps::run(args, client, out).await,
            Self::Describe(args) => verbs::describe::run(args, client, out).await,
            Self::Start(args) => verbs::power::start(args, client, out).await,
            Self::Stop(args) => verbs::power::stop(args, client, out).await,
            Self::Reboot(args) => verbs::power::reboot(args, client, out).await,
            Self::Terminate(args) => verbs::power::terminate(args, client, out).await,
            Self::Protect(args) => verbs::attribute::protect(args, client, out).await,
            Self::Unprotect(args) => verbs::attribute::unprotect(args, client, out).await,
            Self::Resize(args) => verbs::attribute::resize(args, client, out).await,
            Self::Console(args) => verbs::console::run(args, client, out).await,
            Self::Logs(args) => verbs::logs::run(args, client, out).await,
            Self::Tour(args) => verbs::tour::run(args, client, out).await,
            Self::Connect(args) => verbs::connect::run(args, client, out).await,
            Self::Cp(args) => verbs::cp::run(args, client, out).await,
            Self::Eip(args) => verbs::eip::run(args, client, out).await,
            Self::Sg(args) => verbs::sg::run(args, client, out).await,
            Self::Keys(args) => verbs::keys::run(args, client, out).await,
            Self::PrefixLists(args) => verbs::prefix_lists::run(args, client, out).await,
            Self::Images(args) => verbs::images::run(args, client, out).await,
            Self::Volumes(args) => verbs::volumes::run(args, client, out).await,
            Self::Snapshots(args) => verbs::snapshots::run(args, client, out).await,
            Self::Types(args) => verbs::types::run(args, client, out).await,
            Self::Templates(args) => verbs::templates::run(*args, client, out).await,
            Self::Vpcs(args) => verbs::vpcs::run(args, client, out).await,
            Self::Subnets(args) => verbs::subnets::run(args, client, out).await,
            Self::Interfaces(args) => verbs::interfaces::run(args, client, out).await,
            Self::Gateways(args) => verbs::gateways::run(args, client, out).await,
            Self::Routes(args) => verbs::routes::run(args, client, out).await,
            Self::Zones(args) => verbs::zones::run(args, client, out).await,
            Self::IdentityCertificate(args) => verbs::identity_certificate::run(args, client, out).await,
            Self::Tags(args) => verbs::tags::run(args, client, out).await,
            Self::Events(args) => verbs::events::run(args, client, out).await,
            Self::Webhooks(args) => verbs::webhooks::run(args, client, out).await,
            Self::Clock(args) => verbs::clock::run(args, client, out).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(command: &clap::Command, path: &str, visit: &mut impl FnMut(&clap::Command, &str)) {
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
            let path = format!("{path} {}", verb.get_name());
            visit(verb, &path);
            walk(verb, &path, visit);
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_says_what_it_does_and_shows_how() {
        walk(&Cli::command(), "gureum", &mut |verb, path| {
            assert!(verb.get_about().is_some_and(|about| !about.to_string().is_empty()), "{path} does not say what it does");
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Examples:\n"), "{path} shows no example");
            for argument in verb.get_arguments().filter(|argument| !argument.is_hide_set()) {
                assert!(argument.get_help().is_some(), "{path} does not explain {}", argument.get_id());
            }
        });
    }

    /// An example that cannot be parsed is worse than none.
    #[test]
    fn every_example_is_a_command_line_that_parses() {
        let mut seen = 0;
        let mut examples = vec![Cli::command()];
        walk(&Cli::command(), "gureum", &mut |verb, _| examples.push(verb.clone()));
        for command in examples {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples = help.lines().take_while(|line| !line.is_empty());
            for line in examples.filter_map(|line| line.trim().strip_prefix("gureum ")) {
                if line.starts_with("up") && !cfg!(feature = "region") {
                    continue;
                }
                // Explanations stand behind two blanks; a shell's own signs end a command.
                let line = line.split("  ").next().unwrap_or_default();
                let line = line.split(['|', '>', '&']).next().unwrap_or_default().trim();
                let words = words(line);
                assert!(Cli::try_parse_from(std::iter::once("gureum".to_owned()).chain(words)).is_ok(), "gureum {line}");
                seen += 1;
            }
        }
        assert!(seen > 100, "only {seen} examples");
    }

    /// Words as a shell takes them apart; `$(…)` counts as one.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quoted, mut depth) = (Vec::new(), String::new(), false, 0);
        for letter in line.chars() {
            match letter {
                '\'' => quoted = !quoted,
                '(' if !quoted => depth += 1,
                ')' if !quoted => depth -= 1,
                ' ' if !quoted && depth == 0 => words.push(std::mem::take(&mut word)),
                letter => word.push(letter),
            }
        }
        words.push(word);
        words
    }

    #[test]
    fn help_has_every_verb() {
        let help = Cli::command().render_help().to_string();
        let verbs = [
            "launch",
            "ps",
            "describe",
            "start",
            "stop",
            "reboot",
            "terminate",
            "protect",
            "unprotect",
            "resize",
            "console",
            "logs",
            "connect",
            "cp",
            "eip",
            "sg",
            "keys",
            "prefix-lists",
            "images",
            "volumes",
            "snapshots",
            "types",
            "templates",
            "vpcs",
            "subnets",
            "interfaces",
            "gateways",
            "routes",
            "zones",
            "identity-certificate",
            "tags",
            "events",
            "webhooks",
            "clock",
            "completion",
        ];
        let of_region: &[&str] = if cfg!(feature = "region") { &["up", "serve"] } else { &[] };
        for verb in verbs.iter().chain(of_region) {
            assert!(help.lines().any(|line| line.trim_start().starts_with(&format!("{verb} "))), "{verb} is missing:\n{help}");
        }
    }
}
