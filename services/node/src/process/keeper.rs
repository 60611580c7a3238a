//! The task that keeps one instance: it starts its shim, tells it what the node wants, and reports what comes of it.

use std::{
    io,
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use gureum_model::id::InstanceId;
use gureum_node_domain::{BootSpec, DriverEvent, ExitReason, InstanceSpec, RuntimeReport};
use gureum_service::clock::monotonic;
use gureum_shim::{
    SHIM,
    process::Process,
    protocol::{CONTROL_SOCKET, Command, Limits, OffReason, PLAN_FILE, Plan, STATE_FILE, State, Status, read_json, write_json},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
};

use super::{
    Shared,
    boot::{self, SHIM_LOG},
    changes, connection, machine, removal,
    rules::{Interfaces, Rules},
    runtime,
};
use crate::{driver::Run, topology};

/// What the node wants of an instance.
#[derive(Debug)]
pub enum Order {
    /// It was found running.
    Adopt {
        state: Box<State>,
        interfaces: Interfaces,
    },
    Boot(Box<BootSpec>),
    Reconfigure(Box<BootSpec>),
    Stop {
        run: Run,
        grace: Duration,
    },
    Kill(Run),
    Reboot {
        run: Run,
        grace: Duration,
    },
    Terminate {
        run: Run,
        spec: Option<Box<InstanceSpec>>,
    },
}

/// The same for a shim whose connection has ended.
const LOST_WITHIN: Duration = Duration::from_secs(1);

/// Of what does not run.
const NO_LIMITS: Limits = Limits { cpu_milli: 0, memory_bytes: 0, tasks: 0 };

/// The connection to a shim.
struct Link {
    lines: Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
    /// What was last heard.
    state: State,
    /// What of it was last told beside its status, and when.
    told: Option<(RuntimeReport, Instant)>,
}

pub struct Keeper {
    id: InstanceId,
    directory: PathBuf,
    shared: Arc<Shared>,
    link: Option<Link>,
    /// The last boot that was begun.
    boot: u64,
    /// What it may use, while it runs.
    limits: Limits,
    rules: Rules,
    routes: topology::Interest,
    /// The highest generation as which the shim was told to be connected.
    told_generation: u64,
    /// The shim knows the connections of the plan. One that was found running may not: who wrote them may have died before
    /// telling them.
    plan_is_told: bool,
    /// A change that is not yet made.
    changing: Option<Changing>,
}

/// A change of a running instance.
struct Changing {
    wanted: Box<BootSpec>,
    /// How often it failed.
    failures: u32,
    /// Its volumes are as they are to be.
    volumes_done: bool,
    /// Why it cannot be made whole before the next boot.
    refused: Option<String>,
}

impl Keeper {
    /// Starts the task. It ends when the instance is removed, or nobody orders anything any more.
    pub fn start(id: InstanceId, shared: Arc<Shared>) -> mpsc::UnboundedSender<Order> {
        let (sender, mut orders) = mpsc::unbounded_channel();
        let (rules, routes) = (Rules::new(&shared.connections.groups), shared.connections.interest());
        let directory = shared.places.instance(id);
        let mut keeper = Self {
            directory,
            id,
            shared,
            link: None,
            boot: 0,
            limits: NO_LIMITS,
            rules,
            routes,
            told_generation: 0,
            plan_is_told: false,
            changing: None,
        };
        tokio::spawn(async move {
            loop {
                let due = keeper.link.as_ref().and_then(due_of);
                tokio::select! {
                    order = orders.recv() => match order {
                        Some(Order::Terminate { run, spec }) => {
                            keeper.terminate(run, spec.as_deref()).await;
                            return;
                        }
                        Some(order) => keeper.obey(order).await,
                        None => return,
                    },
                    heard = next(&mut keeper.link) => keeper.heard(heard).await,
                    () = keeper.rules.changed() => keeper.tell_rules().await,
                    () = keeper.routes.changed() => keeper.tell_routes().await,
                    () = again(keeper.changing.as_ref()) => keeper.change_volumes().await,
                    () = until(due) => keeper.tell_runtime(),
                }
            }
        });
        sender
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Adopt { state, interfaces } => {
                self.boot = state.boot;
                self.limits = read_json::<Plan>(&self.directory.join(PLAN_FILE)).ok().flatten().map_or(NO_LIMITS, |plan| plan.limits);
                self.interfaces_changed(interfaces).await;
                let shim = state.shim;
                self.plan_is_told = false;
                if let Err(error) = self.connect(*state).await {
                    self.lost(shim, &format!("its shim does not answer: {error}")).await;
                }
            }
            Order::Boot(spec) if spec.boot <= self.boot => {}
            Order::Boot(spec) => {
                self.boot = spec.boot;
                self.interfaces_changed(Interfaces::of(&spec.scope, &spec.spec)).await;
                if let Err(error) = self.boot(&spec).await {
                    self.report(spec.boot, DriverEvent::BootFailed { message: boot::explained(&error, &self.directory) });
                }
            }
            Order::Reconfigure(wanted) => self.begin_change(wanted).await,
            Order::Stop { run, grace } => self.end(run, Command::Stop { grace_ms: self.milliseconds(grace) }).await,
            Order::Kill(run) => self.end(run, Command::Kill).await,
            Order::Reboot { run, grace } => {
                if run.boot == self.boot {
                    self.tell(&Command::Reboot { grace_ms: self.milliseconds(grace) }).await;
                }
            }
            Order::Terminate { .. } => {}
        }
    }

    /// Domain time as the milliseconds that the host counts.
    fn milliseconds(&self, domain: Duration) -> u64 {
        u64::try_from(self.shared.clock.real(domain).as_millis()).unwrap_or(u64::MAX)
    }

    async fn end(&mut self, run: Run, command: Command) {
        if self.link.is_some() && run.boot >= self.boot {
            self.tell(&command).await;
        } else {
            self.report(run.boot, DriverEvent::Exited { reason: ExitReason::Asked });
        }
    }

    async fn tell(&mut self, command: &Command) {
        let Some(link) = &mut self.link else { return };
        let Ok(mut line) = serde_json::to_vec(command) else { return };
        line.push(b'\n');
        // One that does not hear it has ended, which is heard next.
        let _ = link.writer.write_all(&line).await;
    }

    /// Makes what the instance needs, starts its shim, and follows it.
    async fn boot(&mut self, spec: &BootSpec) -> io::Result<()> {
        let (shared, directory, spec) = (self.shared.clone(), self.directory.clone(), spec.clone());
        shared.signer.known().await;
        let prepared = tokio::task::spawn_blocking(move || {
            let log = boot::hold(&directory)?;
            boot::prepare(&shared, &directory, &spec).map(|plan| (plan, log))
        });
        let (plan, log) = prepared.await.map_err(io::Error::other)??;
        self.limits = plan.limits;
        let mut shim = tokio::process::Command::new("/proc/self/exe");
        shim.arg(SHIM).arg(&self.directory).env_clear().stdout(Stdio::piped()).stderr(log);
        shim.stdin(if plan.with_parent { Stdio::piped() } else { Stdio::null() });
        let mut child = shim.spawn()?;
        // It says so when it can be asked; one that could not begin ends instead.
        let mut ready = [0];
        let began = match child.stdout.take() {
            Some(mut output) => output.read(&mut ready).await? == 1,
            None => false,
        };
        if !began {
            let log = std::fs::read_to_string(self.directory.join(SHIM_LOG)).unwrap_or_default();
            return Err(io::Error::other(format!("its shim could not begin: {}", log.trim())));
        }
        let parent = child.stdin.take();
        tokio::spawn(async move {
            // Who holds this is seen as the shim's parent; and an ended child is to be reaped.
            let _parent = parent;
            let _ = child.wait().await;
        });
        match read_json::<State>(&self.directory.join(STATE_FILE))? {
            Some(state) => {
                self.plan_is_told = true;
                self.connect(State { status: Status::Booting, ..state }).await
            }
            None => Err(io::Error::other("its shim wrote no state")),
        }
    }

    /// Begins with a change: its connections at once, its volumes as soon as nothing uses those that go.
    async fn begin_change(&mut self, wanted: Box<BootSpec>) {
        if wanted.boot != self.boot || self.link.is_none() {
            // The next boot has it all.
            return;
        }
        let refused = self.change_connections(&wanted).await.err().map(|error| error.to_string());
        self.changing = Some(Changing { wanted, failures: 0, volumes_done: false, refused });
        self.change_volumes().await;
    }

    /// Has the shim connect the instance as it is to be. The plan has it first, for whoever keeps the instance next.
    async fn change_connections(&mut self, wanted: &BootSpec) -> io::Result<()> {
        let mut plan = self.plan()?;
        let network = self.shared.connections.of(&wanted.scope, &wanted.spec, Some(&plan.network));
        let (network, waiting) = connection::possible(&plan.network, network);
        plan.network = network;
        // It began to boot when it did, whatever it is now.
        let machine = machine::of(wanted, std::mem::take(&mut plan.machine.pending_time));
        plan.machine = self.shared.signer.sign(machine, &plan.network);
        write_json(&self.directory.join(PLAN_FILE), &plan)?;
        let (network, machine) = (plan.network, Box::new(plan.machine));
        if !waiting.is_empty() {
            let text =
                format!("changed interfaces are there from the next start on, as a stop and a start makes it: {}", waiting.join(", "));
            self.tell(&Command::Note { text }).await;
        }
        self.interfaces_changed(Interfaces::of(&wanted.scope, &wanted.spec)).await;
        self.told_generation = wanted.generation;
        self.tell(&Command::Configure { generation: wanted.generation, network, machine: Some(machine) }).await;
        Ok(())
    }

    fn plan(&self) -> io::Result<Plan> {
        let path = self.directory.join(PLAN_FILE);
        read_json(&path)?.ok_or_else(|| io::Error::other(format!("the plan of its boot is gone: {}", path.display())))
    }

    /// Tells the shim where traffic may go, unless it knows.
    async fn tell_routes(&mut self) {
        if self.link.is_none() {
            return;
        }
        if let Err(error) = self.try_to_tell_routes().await {
            tracing::warn!(id = %self.id, error = &error as &dyn std::error::Error, "an instance cannot be told of its routes");
        }
    }

    async fn try_to_tell_routes(&mut self) -> io::Result<()> {
        let mut plan = self.plan()?;
        let network = self.shared.connections.routed(self.rules.scope(), &plan.network);
        if network == plan.network && self.plan_is_told {
            return Ok(());
        }
        if network != plan.network {
            plan.network = network.clone();
            write_json(&self.directory.join(PLAN_FILE), &plan)?;
        }
        self.tell(&Command::Configure { generation: self.told_generation, network, machine: None }).await;
        self.plan_is_told = true;
        Ok(())
    }

    /// Makes what a change does to volumes, as far as that can be done now.
    async fn change_volumes(&mut self) {
        let Some(changing) = &mut self.changing else { return };
        if changing.wanted.boot != self.boot || self.link.is_none() {
            self.changing = None;
            return;
        }
        let (shared, directory, spec) = (self.shared.clone(), self.directory.clone(), changing.wanted.spec.clone());
        let made =
            tokio::task::spawn_blocking(move || changes::apply(&shared, &directory, &spec)).await.map_err(io::Error::other).flatten();
        match made {
            Ok(busy) if busy.is_empty() => changing.volumes_done = true,
            Ok(busy) => tracing::debug!(id = %self.id, volumes = busy.join(", "), "volumes are in use and will be asked for again"),
            // It may be on its way through a reboot.
            Err(error) if error.kind() != io::ErrorKind::Unsupported && changing.failures < CHANGE_TRIES => changing.failures += 1,
            Err(error) => {
                changing.refused.get_or_insert(error.to_string());
                changing.volumes_done = true;
            }
        }
        self.settle_change();
    }

    /// Reports what came of a change, once that is known.
    fn settle_change(&mut self) {
        let (Some(changing), Some(link)) = (&self.changing, &self.link) else { return };
        let generation = changing.wanted.generation;
        let is_connected = changing.refused.is_some() || link.state.configured >= generation;
        if !changing.volumes_done || !is_connected {
            return;
        }
        if let Some(Changing { wanted, refused, .. }) = self.changing.take() {
            let event = match refused {
                Some(message) => DriverEvent::ReconfigureFailed { generation, message },
                None => DriverEvent::Reconfigured { generation },
            };
            self.report(wanted.boot, event);
        }
    }

    async fn connect(&mut self, state: State) -> io::Result<()> {
        let stream = connect(&self.directory.join(CONTROL_SOCKET)).await?;
        let (reader, writer) = stream.into_split();
        self.shared.meters.is(self.id, &state, self.limits);
        self.told_generation = state.configured;
        self.link = Some(Link { lines: BufReader::new(reader).lines(), writer, state, told: None });
        self.tell(&Command::Follow).await;
        self.rules.forget_told();
        self.tell_rules().await;
        self.tell_routes().await;
        Ok(())
    }

    /// The instance has these interfaces, with these groups, from now on. If it runs, it obeys their rules at once.
    async fn interfaces_changed(&mut self, interfaces: Interfaces) {
        self.routes.set(interfaces.scope(), interfaces.vpcs());
        self.rules.set(interfaces);
        self.tell_rules().await;
    }

    /// Tells the shim its rules, unless it knows them.
    async fn tell_rules(&mut self) {
        if self.link.is_none() {
            return;
        }
        if let Some(interfaces) = self.rules.untold() {
            self.tell(&Command::Rules { interfaces }).await;
        }
    }

    /// Reports what a state of the shim says that the one before it did not.
    async fn heard(&mut self, heard: Option<State>) {
        let Some(now) = heard else {
            return self.closed().await;
        };
        let Some(link) = &mut self.link else { return };
        self.shared.meters.is(self.id, &now, self.limits);
        let before = std::mem::replace(&mut link.state, now.clone());
        let event = event(&before, &now);
        // What changes the state takes it along.
        if event.is_some() || due_of(link).is_some_and(|due| due <= monotonic()) {
            self.tell_runtime();
        }
        if let Some(event) = event {
            self.report(now.boot, event);
        }
        self.settle_change();
    }

    /// Reports how the instance runs, if that is news.
    fn tell_runtime(&mut self) {
        let Some(link) = &mut self.link else { return };
        let (boot, runtime) = (link.state.boot, runtime::of(&link.state));
        if link.told.as_ref().is_none_or(|(told, _)| *told != runtime) {
            link.told = Some((runtime.clone(), monotonic()));
            self.report(boot, DriverEvent::Told { runtime: Box::new(runtime) });
        }
    }

    /// The shim has ended. If it has not told how, its file may.
    async fn closed(&mut self) {
        let Some(Link { state: before, .. }) = self.link.take() else { return };
        self.shared.meters.ended(self.id);
        let last = read_json::<State>(&self.directory.join(STATE_FILE)).ok().flatten().unwrap_or_else(|| before.clone());
        if is_over(&last.status) {
            self.report(last.boot, DriverEvent::Told { runtime: Box::new(runtime::of(&last)) });
            if let Some(event) = event(&before, &last) {
                self.report(last.boot, event);
            }
            return;
        }
        let (directory, shim) = (self.directory.clone(), last.shim);
        let ended = tokio::task::spawn_blocking(move || removal::end_what_is_left(&directory, &last));
        if let Err(error) = ended.await.map_err(io::Error::other).flatten() {
            tracing::warn!(id = %self.id, error = &error as &dyn std::error::Error, "processes of an instance could not be ended");
        }
        self.lost(shim, "its shim was killed").await;
    }

    async fn lost(&mut self, shim: Process, message: &str) {
        self.link = None;
        let directory = self.directory.clone();
        // Its sockets are closed when it has ended.
        let left = tokio::task::spawn_blocking(move || {
            shim.ends_within(LOST_WITHIN);
            removal::leave_addresses(&directory);
        });
        // What is left goes with the instance.
        let _ = left.await;
        self.report(self.boot, DriverEvent::Exited { reason: ExitReason::Crashed { message: message.to_owned() } });
    }

    async fn terminate(&mut self, run: Run, spec: Option<&InstanceSpec>) {
        self.tell(&Command::Kill).await;
        self.shared.meters.ended(self.id);
        while self.link.is_some() {
            let heard = next(&mut self.link).await;
            if heard.is_none() {
                self.link = None;
            }
        }
        let (shared, directory) = (self.shared.clone(), self.directory.clone());
        let going: Vec<String> = spec
            .map_or_else(Vec::new, |spec| spec.volumes.iter().filter(|it| it.delete_on_termination).map(|it| it.id.to_string()).collect());
        let removed =
            tokio::task::spawn_blocking(move || removal::remove(&shared, &directory, &going)).await.map_err(io::Error::other).flatten();
        if let Err(error) = removed {
            // The node asks again when it is overdue.
            tracing::warn!(id = %self.id, error = &error as &dyn std::error::Error, "an instance could not be removed");
            return;
        }
        self.report(run.boot.max(self.boot), DriverEvent::Removed);
    }

    fn report(&self, boot: u64, event: DriverEvent) {
        self.shared.report(self.id, boot, event);
    }
}

/// Before a change is tried again that could not be made at once.
const CHANGE_AGAIN: Duration = Duration::from_millis(250);
/// Tries after which a change has failed; together they last longer than a reboot does.
const CHANGE_TRIES: u32 = 20;

/// When a change is to be tried again. Never without one.
async fn again(changing: Option<&Changing>) {
    match changing.filter(|changing| !changing.volumes_done) {
        Some(_) => tokio::time::sleep(CHANGE_AGAIN).await,
        None => std::future::pending().await,
    }
}

/// Between two reports of how an instance runs: it can make its ports stuck and free again as often as it likes.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// From when on what is new of how an instance runs may be told; none: nothing is.
fn due_of(link: &Link) -> Option<Instant> {
    match &link.told {
        Some((told, at)) => (*told != runtime::of(&link.state)).then(|| *at + TELL_AGAIN),
        None => Some(monotonic()),
    }
}

/// Never without a moment.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// What is heard next; none: the shim has ended. Waits for ever without one.
async fn next(link: &mut Option<Link>) -> Option<State> {
    let Some(link) = link else { return std::future::pending().await };
    loop {
        match link.lines.next_line().await {
            Ok(Some(line)) => match serde_json::from_str(&line) {
                Ok(state) => return Some(state),
                Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "a shim said what is not understood"),
            },
            Ok(None) | Err(_) => return None,
        }
    }
}

/// Connects to a socket whose path may be longer than a socket's may be: by way of its directory.
pub async fn connect(path: &std::path::Path) -> io::Result<UnixStream> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Err(io::ErrorKind::InvalidInput.into()) };
    let directory = std::fs::File::open(directory)?;
    let short = format!("/proc/self/fd/{}/{}", std::os::fd::AsRawFd::as_raw_fd(&directory), name.to_string_lossy());
    UnixStream::connect(short).await
}

pub fn is_over(status: &Status) -> bool {
    matches!(status, Status::Off { .. } | Status::Failed { .. })
}

/// What is to be told when one state follows another.
fn event(before: &State, now: &State) -> Option<DriverEvent> {
    if before.status == now.status && before.reboots == now.reboots {
        return None;
    }
    match &now.status {
        Status::Up if now.reboots > before.reboots => Some(DriverEvent::Rebooted),
        Status::Up => Some(DriverEvent::Up),
        Status::Failed { message } if now.reboots == 0 && before.status == Status::Booting => {
            Some(DriverEvent::BootFailed { message: message.clone() })
        }
        Status::Failed { message } => Some(DriverEvent::Exited { reason: ExitReason::Crashed { message: message.clone() } }),
        Status::Off { reason } => Some(DriverEvent::Exited { reason: exit_reason(reason) }),
        Status::Booting | Status::Rebooting | Status::Stopping => None,
    }
}

pub fn exit_reason(reason: &OffReason) -> ExitReason {
    match reason {
        OffReason::Asked => ExitReason::Asked,
        OffReason::Itself => ExitReason::InstanceInitiated,
        OffReason::Crashed { message } => ExitReason::Crashed { message: message.clone() },
    }
}
