//! The forwarder of an instance: a thread of its shim that moves what comes to the instance and what it sends, by the last
//! rules that it was given. It asks no service for anything, so traffic goes on whoever else is down.

mod alias;
mod doors;
mod enter;
mod exchange;
mod fabric;
mod flow_log;
mod inside;
mod leave;
mod pump;
mod resolver;
mod switch;
mod world;

use std::{
    collections::BTreeSet,
    io,
    net::Ipv4Addr,
    os::unix::net::{UnixListener as StdListener, UnixStream as StdStream},
    path::Path,
    rc::Rc,
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::mpsc,
    task::{JoinSet, LocalSet},
};

use self::{alias::Alias, doors::Doors, inside::Inside, switch::Switch, world::World};
pub use self::{alias::METADATA_PORT, fabric::forget, flow_log::FLOW_LOG_FILE, leave::RESOLVER};
use super::{
    InterfaceRules, Network,
    listening::Listening,
    metadata::{self, Machine},
};
use crate::{control::Lines, protocol::PLAN_FILE};

/// Where what is within connects, so that its sockets can cross.
pub const SWITCH_SOCKET: &str = "switch.sock";

/// Between two looks at who listens: the kernel tells nobody of it. At first often, later less, and often again when
/// something changed.
const LOOKS: [(u32, Duration); 4] = [
    (500, Duration::from_millis(20)),
    (1_000, Duration::from_millis(100)),
    (2_000, Duration::from_millis(250)),
    (u32::MAX, Duration::from_secs(1)),
];

/// What the shim wants of its forwarder.
#[derive(Debug)]
pub enum Order {
    Configure {
        generation: u64,
        network: Network,
        /// None: as before.
        machine: Option<Box<Machine>>,
    },
    Rules(Vec<InterfaceRules>),
    /// The instance runs without a network of its own, and as this user if that is nobody else.
    OnAlias {
        address: Ipv4Addr,
        user: Option<u32>,
    },
    /// The instance runs no more: nothing leads to it.
    Off,
}

/// What a forwarder tells its shim, as a line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// It is as this generation has it: what it is to let go of is let go.
    Configured {
        generation: u64,
    },
    Note {
        text: String,
    },
    /// Public ports that cannot be opened, and why.
    Stuck {
        doors: Vec<String>,
    },
    /// The instance's directory was removed: nobody can keep it any more, and what it holds is to be free.
    Removed,
}

/// A forwarder, as its shim has it.
pub struct Forwarder {
    orders: mpsc::UnboundedSender<Order>,
    pub reports: Lines,
    thread: thread::JoinHandle<()>,
}

impl Forwarder {
    /// Starts the thread. The current directory is the instance's.
    pub fn start(network: Network, machine: Machine) -> io::Result<Self> {
        let _ = std::fs::remove_file(SWITCH_SOCKET);
        let listener = StdListener::bind(SWITCH_SOCKET)?;
        listener.set_nonblocking(true)?;
        let (ours, theirs) = StdStream::pair()?;
        let metadata = metadata::Service::new(machine)?;
        let (orders, receiver) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name("forwarder".into()).spawn(move || {
            let world = Rc::new(World::new(network, metadata, Path::new("."), theirs));
            // It fails before it has begun alone, which is heard as the end of its reports.
            let _ = LocalSet::new().block_on(&runtime, serve(world, listener, receiver));
        })?;
        Ok(Self { orders, reports: Lines::new(ours)?, thread })
    }

    /// Ends the thread, and waits until nothing of the instance can be reached any more.
    pub fn finish(self) {
        drop(self.orders);
        // One that has panicked has left what is removed with the instance.
        let _ = self.thread.join();
    }

    pub fn order(&self, order: Order) {
        // If it has ended, so has the stream of its reports, which ends the shim.
        let _ = self.orders.send(order);
    }
}

async fn serve(world: Rc<World>, listener: StdListener, mut orders: mpsc::UnboundedReceiver<Order>) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let (mut doors, mut listening, mut stuck) = (Doors::default(), BTreeSet::new(), Vec::new());
    let mut tasks = JoinSet::new();
    let mut looks = 0;
    loop {
        let until = LOOKS.iter().find(|(most, _)| looks < *most).map_or(Duration::MAX, |(_, between)| *between);
        tokio::select! {
            order = orders.recv() => match order {
                None => {
                    obey(&world, Order::Off, &mut doors, &mut listening, &mut tasks).await;
                    return Ok(());
                }
                Some(order) => {
                    obey(&world, order, &mut doors, &mut listening, &mut tasks).await;
                    looks = 0;
                }
            },
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    tasks.abort_all();
                    connected(&world, stream, &mut tasks).await;
                    looks = 0;
                }
            }
            () = tokio::time::sleep(until), if world.inside().is_some() => {
                looks += 1;
                if is_removed() {
                    world.report(&Report::Removed);
                }
            }
        }
        if let Some(inside) = world.inside() {
            // It fails where the kernel has no such tables, which was found out when the instance was connected.
            let (now, notes) = inside.listening().unwrap_or_default();
            notes.into_iter().for_each(|note| world.note(note));
            if now != listening {
                listening = now;
                looks = 0;
            }
            open(&world, &mut doors, &listening).await;
        }
        if doors.stuck() != stuck {
            stuck = doors.stuck();
            world.report(&Report::Stuck { doors: stuck.clone() });
        }
    }
}

/// Whether the directory that this is in is no more: its plan is replaced, and never away.
fn is_removed() -> bool {
    matches!(std::fs::metadata(PLAN_FILE), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

async fn open(world: &Rc<World>, doors: &mut Doors, listening: &BTreeSet<Listening>) {
    let wanted = doors::wanted(&world.network(), listening, |interface| world.firewall(interface));
    doors.set(world, &wanted).await;
}

async fn obey(world: &Rc<World>, order: Order, doors: &mut Doors, listening: &mut BTreeSet<Listening>, tasks: &mut JoinSet<()>) {
    match order {
        Order::Configure { generation, network, machine } => {
            if let Some(machine) = machine {
                world.metadata.set(*machine);
            }
            world.network.replace(Rc::new(network));
            if world.inside().is_some() {
                open(world, doors, listening).await;
            }
            world.cut_what_leads_elsewhere();
            if world.network().strict_tracking {
                world.cut_what_is_not_allowed();
            }
            world.report(&Report::Configured { generation });
        }
        Order::Rules(rules) => world.set_rules(rules),
        Order::OnAlias { address, user } => match Alias::open(address, user) {
            Ok(alias) => {
                let alias = Rc::new(alias);
                world.inside.replace(Some(Inside::Alias(alias.clone())));
                tasks.spawn_local(alias::serve_metadata(world.clone(), alias));
            }
            Err(error) => world.note(format!("the instance is not reached by its public address: asking who listens: {error}")),
        },
        Order::Off => {
            world.inside.replace(None);
            // What it listened on is free for its next boot.
            tasks.shutdown().await;
            world.cut_all();
            listening.clear();
            doors.set(world, &BTreeSet::new()).await;
        }
    }
}

/// What is within has connected: from now on its traffic is taken.
async fn connected(world: &Rc<World>, stream: UnixStream, tasks: &mut JoinSet<()>) {
    match Switch::open(stream).await {
        Ok(switch) => {
            let switch = Rc::new(switch);
            world.inside.replace(Some(Inside::Switch(switch.clone())));
            tasks.spawn_local(leave::accept(world.clone(), switch.clone()));
            tasks.spawn_local(leave::hold(world.clone(), switch.clone()));
            tasks.spawn_local(exchange::datagrams(world.clone(), switch));
        }
        // What is within has ended before it was connected, and has said why.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => world.note(format!("the instance is not connected to any network: {error}")),
    }
}
