//! What a forwarder knows, and what goes on in it.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io::Write,
    net::{Ipv4Addr, SocketAddrV4},
    os::unix::net::UnixStream,
    path::Path,
    rc::Rc,
    time::Duration,
};

use gureum_firewall::{Direction, Firewall};
use gureum_model::id::SecurityGroupId;
use tokio::{
    sync::Notify,
    task::{AbortHandle, spawn_local},
};

use super::{
    Report,
    fabric::Fabric,
    flow_log::{Flow, FlowLog},
    inside::Inside,
    pump::Moved,
};
use crate::network::{Interface, InterfaceRules, Network, Transport, metadata};

/// How long what the instance does first waits for the rules, which follow its boot.
const RULES_COME_WITHIN: Duration = Duration::from_secs(10);

pub struct World {
    pub network: RefCell<Rc<Network>>,
    pub metadata: metadata::Service,
    firewalls: RefCell<BTreeMap<String, Rc<Firewall>>>,
    pub inside: RefCell<Option<Inside>>,
    pub fabric: Option<Fabric>,
    log: FlowLog,
    reports: RefCell<UnixStream>,
    flows: RefCell<BTreeMap<u64, Open>>,
    next_flow: Cell<u64>,
    rules_came: Notify,
}

/// Who wants to reach an instance, or whom it wants to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub address: SocketAddrV4,
    /// Its security groups, if it is an instance or a balancer of the VPC.
    pub groups: Vec<SecurityGroupId>,
}

struct Open {
    question: Question,
    /// The instance's address by which it came, if it did.
    called: Option<Ipv4Addr>,
    /// The other side, if an internet gateway stands in between.
    outside: Option<Ipv4Addr>,
    task: AbortHandle,
}

/// What is asked of the rules about one connection.
#[derive(Debug, Clone)]
pub struct Question {
    pub interface: String,
    pub direction: Direction,
    pub transport: Transport,
    /// At the side that is called.
    pub port: u16,
    pub peer: Peer,
}

impl World {
    pub fn new(network: Network, metadata: metadata::Service, directory: &Path, reports: UnixStream) -> Self {
        // Without it instances are not found by their private addresses; the node says so when it starts.
        let fabric = Fabric::open(&network.fabric).ok();
        Self {
            network: RefCell::new(Rc::new(network)),
            metadata,
            firewalls: RefCell::default(),
            inside: RefCell::default(),
            fabric,
            log: FlowLog::open(directory),
            reports: RefCell::new(reports),
            flows: RefCell::default(),
            next_flow: Cell::new(0),
            rules_came: Notify::new(),
        }
    }

    pub fn network(&self) -> Rc<Network> {
        self.network.borrow().clone()
    }

    pub fn inside(&self) -> Option<Inside> {
        self.inside.borrow().clone()
    }

    pub fn report(&self, report: &Report) {
        let Ok(mut line) = serde_json::to_vec(report) else { return };
        line.push(b'\n');
        // The shim that does not take it has ended.
        let _ = self.reports.borrow_mut().write_all(&line);
    }

    pub fn note(&self, text: String) {
        self.report(&Report::Note { text });
    }

    pub fn firewall(&self, interface: &str) -> Option<Rc<Firewall>> {
        self.firewalls.borrow().get(interface).cloned()
    }

    /// Takes new rules. Where tracking is strict, what they no longer allow is cut.
    pub fn set_rules(&self, interfaces: Vec<InterfaceRules>) {
        let compiled = interfaces.into_iter().map(|one| (one.interface, Rc::new(Firewall::compile(one.rules))));
        *self.firewalls.borrow_mut() = compiled.collect();
        self.rules_came.notify_waiters();
        if self.network().strict_tracking {
            self.cut_what_is_not_allowed();
        }
    }

    pub fn cut_what_is_not_allowed(&self) {
        let flows = self.flows.borrow();
        flows.values().filter(|open| self.decide_now(&open.question).is_none()).for_each(|open| open.task.abort());
    }

    /// What came by a public address that leads elsewhere now is cut: it would be answered by two. So is what no route
    /// leads to any more, for routes track no connections.
    pub fn cut_what_leads_elsewhere(&self) {
        let flows = self.flows.borrow();
        flows.values().filter(|open| self.leads_elsewhere(open)).for_each(|open| open.task.abort());
    }

    fn leads_elsewhere(&self, open: &Open) -> bool {
        let network = self.network();
        let interface = network.interface(&open.question.interface);
        let has_barrier = |outside| interface.is_none_or(|interface| interface.barrier(outside).is_some());
        open.called.is_some_and(|called| !self.leads_here(called)) || open.outside.is_some_and(has_barrier)
    }

    /// The other side of a connection, if an internet gateway stands in between.
    fn outside(&self, flow: &Flow, question: &Question) -> Option<Ipv4Addr> {
        let network = self.network();
        let interface = network.interface(&question.interface)?;
        let peer = *question.peer.address.ip();
        let passes_gateway = match question.direction {
            Direction::Ingress => interface.public_address == Some(*flow.destination.ip()),
            Direction::Egress => !interface.is_in_vpc(peer) && !network.is_resolver(peer),
        };
        passes_gateway.then_some(peer)
    }

    fn leads_here(&self, address: Ipv4Addr) -> bool {
        let network = self.network();
        network.public_addresses().any(|public| public == address)
            || network.interfaces.iter().any(|interface| interface.private_addresses.contains(&address))
    }

    pub fn cut_all(&self) {
        self.flows.borrow().values().for_each(|open| open.task.abort());
    }

    /// The rule that lets a connection pass; none: it may not.
    pub async fn decide(&self, question: &Question) -> Option<String> {
        let came = async {
            loop {
                let next = self.rules_came.notified();
                if self.firewall(&question.interface).is_some() {
                    return;
                }
                next.await;
            }
        };
        let _ = tokio::time::timeout(RULES_COME_WITHIN, came).await;
        self.decide_now(question)
    }

    fn decide_now(&self, question: &Question) -> Option<String> {
        let firewall = self.firewall(&question.interface)?;
        let Question { direction, transport, port, peer, .. } = question;
        firewall.decide(*direction, transport.packet(*port), (*peer.address.ip()).into(), &peer.groups).map(|rule| rule.to_string())
    }

    pub fn reject(&self, flow: &Flow, reason: &str) {
        self.log.reject(flow, reason);
    }

    /// Writes down that a connection begins, and keeps it among those that can be cut. It ends with what is answered.
    pub fn begin(self: &Rc<Self>, flow: Flow, question: Question, rule: Option<String>, task: AbortHandle) -> Begun {
        self.log.begin(&flow, rule.as_deref());
        let number = self.next_flow.get();
        self.next_flow.set(number + 1);
        let called = (question.direction == Direction::Ingress).then(|| *flow.destination.ip());
        let outside = self.outside(&flow, &question);
        let open = Open { question, called, outside, task };
        // Its address or its rule may have gone while it was being made.
        let is_strict = self.network().strict_tracking;
        if self.leads_elsewhere(&open) || (is_strict && rule.is_some() && self.decide_now(&open.question).is_none()) {
            open.task.abort();
        }
        self.flows.borrow_mut().insert(number, open);
        Begun { world: self.clone(), number, flow, rule, moved: RefCell::default(), reason: RefCell::default() }
    }
}

/// A connection that is open.
pub struct Begun {
    world: Rc<World>,
    number: u64,
    flow: Flow,
    rule: Option<String>,
    pub moved: RefCell<Moved>,
    reason: RefCell<Option<String>>,
}

impl Begun {
    pub fn ends_with(&self, reason: impl Into<String>) {
        self.reason.replace(Some(reason.into()));
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.world.flows.borrow_mut().remove(&self.number);
        let Moved { there, back } = *self.moved.borrow();
        self.world.log.end(&self.flow, self.rule.as_deref(), self.reason.borrow().as_deref(), there, back);
    }
}

/// What an instance sees as the other side. What is the host's loopback, or the instance itself, comes from the gateway:
/// no kernel takes a packet that says it comes from there.
pub fn seen_as(source: SocketAddrV4, interface: &Interface) -> SocketAddrV4 {
    let own = interface.private_addresses.contains(source.ip());
    let ip: Ipv4Addr = if source.ip().is_loopback() || source.ip().is_unspecified() || own { interface.gateway() } else { *source.ip() };
    SocketAddrV4::new(ip, source.port())
}

/// Starts a task that knows the handle by which it is cut.
pub fn start<F: Future<Output = ()> + 'static>(task: impl FnOnce(AbortHandle) -> F + 'static) -> AbortHandle {
    let (announce, announced) = tokio::sync::oneshot::channel();
    let started = spawn_local(async move {
        if let Ok(handle) = announced.await {
            task(handle).await;
        }
    });
    let handle = started.abort_handle();
    let _ = announce.send(handle.clone());
    handle
}
