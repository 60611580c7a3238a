//! How instances are reached, and what they reach.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    sync::atomic::{AtomicU8, Ordering},
};

use gureum_firewall::{Direction, Peer, Rule};
use gureum_shim::network::{Interface, InterfaceRules, Route, Target, forward::FLOW_LOG_FILE};

use super::*;

const WEB: &str = "mkdir /tmp/web && cd /tmp/web && echo hello >index.html && exec python3 -m http.server 8080";

fn rule(direction: Direction, protocol: Option<u8>, ports: (u16, u16), peer: Peer) -> Rule {
    Rule { id: "sgr-00000000000000001".parse().unwrap(), direction, protocol, first: ports.0, last: ports.1, peer }
}

pub fn anywhere() -> Peer {
    Peer::Network("0.0.0.0/0".parse().unwrap())
}

fn everything_out() -> Rule {
    rule(Direction::Egress, None, (0, 65_535), anywhere())
}

pub fn tcp_in(port: u16, peer: Peer) -> Rule {
    rule(Direction::Ingress, Some(6), (port, port), peer)
}

pub fn udp_in(port: u16, peer: Peer) -> Rule {
    rule(Direction::Ingress, Some(17), (port, port), peer)
}

/// A public address of these tests that no other has.
pub fn public() -> Ipv4Addr {
    static LAST: AtomicU8 = AtomicU8::new(0);
    let [high, low] = u16::try_from(std::process::id() % 60_000).unwrap().to_be_bytes();
    // What begins with 127.0 is an instance's own.
    Ipv4Addr::new(127, high.max(1), low, LAST.fetch_add(1, Ordering::Relaxed) + 10)
}

/// An instance's network: at this private address, and perhaps a public one, in a group.
pub fn network(fabric: &Path, private: [u8; 4], public: Option<Ipv4Addr>, group: &str) -> Network {
    let interface = Interface {
        id: format!("eni-{}", private[3]),
        mac_address: format!("0a:00:00:00:00:{:02x}", private[3]),
        vpc: "vpc-1".into(),
        subnet: "subnet-1".into(),
        prefix_length: 20,
        private_addresses: vec![private.into()],
        public_address: public,
        groups: vec![(group.into(), "a group".into())],
        source_dest_check: true,
        vpc_cidr_blocks: vec!["172.31.0.0/16".parse().unwrap()],
        routes: vec![Route { destination: "0.0.0.0/0".parse().unwrap(), target: Target::InternetGateway }],
        ..Interface::default()
    };
    Network { interfaces: vec![interface], fabric: fabric.to_owned(), ..Network::default() }
}

impl Instance {
    pub fn rules(&mut self, interface: &str, rules: Vec<Rule>) {
        let interfaces = vec![InterfaceRules { interface: interface.into(), rules }];
        self.order(&protocol::Command::Rules { interfaces });
    }

    fn flow_log(&self) -> String {
        fs::read_to_string(self.folder.path().join(FLOW_LOG_FILE)).unwrap_or_default()
    }
}

/// Fetches a page, again and again until it is served.
pub fn fetch_when_served(instance: &Instance, address: SocketAddrV4) -> String {
    let deadline = std::time::Instant::now() + Duration::from_secs(8);
    loop {
        match fetch(address) {
            Ok(page) => return page,
            Err(error) => {
                assert!(std::time::Instant::now() < deadline, "{address}: {error}\n{}{}", instance.console(), instance.flow_log())
            }
        }
        std::thread::yield_now();
    }
}

pub fn fetch(address: SocketAddrV4) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(address), Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    if page.is_empty() { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(page) }
}

#[test]
fn a_port_on_which_an_instance_listens_is_open_at_its_public_address_to_whom_its_rules_let_in() {
    let fabric = tempfile::tempdir().unwrap();
    let address = SocketAddrV4::new(public(), 8080);
    let mut instance = Instance::boot_with(WEB, network(fabric.path(), [172, 31, 0, 4], Some(*address.ip()), "sg-00000000000000001"));
    instance.wait(|state| state.status == Status::Up);
    assert!(fetch(address).is_err(), "nothing is open without rules");
    instance.rules("eni-4", vec![tcp_in(8080, anywhere())]);
    assert!(fetch_when_served(&instance, address).ends_with("hello\n"));
    // Another port, though something may listen there.
    assert!(fetch(SocketAddrV4::new(*address.ip(), 8081)).is_err());

    instance.rules("eni-4", vec![tcp_in(8080, Peer::Network("10.0.0.0/8".parse().unwrap()))]);
    while fetch(address).is_ok() {}
    assert!(instance.flow_log().contains("REJECT"), "{}", instance.flow_log());
    assert!(instance.flow_log().contains(r#""rule":"sgr-00000000000000001""#), "{}", instance.flow_log());
    instance.end();
}

/// An echo of lines by TCP and of datagrams by UDP that tells from where they come.
const ECHO: &str = r#"exec python3 -c '
import socket, threading
def tcp():
    listener = socket.create_server(("", 7))
    while True:
        stream, peer = listener.accept()
        def serve(stream=stream, peer=peer):
            with stream, stream.makefile("rw") as lines:
                for line in lines:
                    lines.write(f"{peer[0]} {line}")
                    lines.flush()
        threading.Thread(target=serve, daemon=True).start()
threading.Thread(target=tcp, daemon=True).start()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("", 7))
print("echo listens", flush=True)
while True:
    text, peer = udp.recvfrom(65535)
    udp.sendto(peer[0].encode() + b" " + text, peer)
'"#;

fn until(what: &str, instance: &Instance, mut done: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(std::time::Instant::now() < deadline, "{what}\n{}\n{}", instance.console(), instance.flow_log());
        std::thread::yield_now();
    }
}

#[test]
fn instances_of_a_vpc_reach_each_other_by_private_address_as_rules_that_name_a_group_allow() {
    let fabric = tempfile::tempdir().unwrap();
    let group = |number: u8| format!("sg-{number:017x}");
    let mut server = Instance::boot_with(ECHO, network(fabric.path(), [172, 31, 0, 10], None, &group(1)));
    let member = Peer::Group(group(2).parse().unwrap());
    server.rules("eni-10", vec![tcp_in(7, member), tcp_in(9, member), rule(Direction::Ingress, Some(17), (7, 7), member)]);
    until("it listens", &server, || server.console().contains("echo listens"));
    let script = r#"python3 -c '
import socket
try:
    with socket.create_connection(("172.31.0.10", 7), 2) as stream:
        stream.sendall(b"by tcp\n")
        print(stream.recv(100).decode().strip(), flush=True)
except OSError as error:
    print("tcp fails:", error, flush=True)
try:
    socket.create_connection(("172.31.0.10", 9), 5)
    print("somebody listens", flush=True)
except OSError as error:
    print("nobody listens:", error, flush=True)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.settimeout(1)
for attempt in range(3):
    udp.sendto(b"by udp", ("172.31.0.10", 7))
    try:
        print(*udp.recvfrom(100), flush=True)
        break
    except OSError as error:
        print("udp fails", error, flush=True)
'"#;
    let mut friend = Instance::boot_with(script, network(fabric.path(), [172, 31, 0, 11], None, &group(2)));
    friend.rules("eni-11", vec![everything_out()]);
    let (_, console) = friend.wait_for_user_data();
    assert!(console.contains("172.31.0.11 by tcp"), "{console}{}{}", friend.flow_log(), server.flow_log());
    assert!(console.contains("b'172.31.0.11 by udp' ('172.31.0.10', 7)"), "{console}");
    // As rules let it through, it is answered as whoever is called answers.
    assert!(console.contains("nobody listens: [Errno 111] Connection refused"), "{console}");
    let mut stranger = Instance::boot_with(script, network(fabric.path(), [172, 31, 0, 12], None, &group(3)));
    stranger.rules("eni-12", vec![everything_out()]);
    let (_, console) = stranger.wait_for_user_data();
    // Nobody answers whom no rule lets in.
    assert!(console.contains("tcp fails: timed out") && console.contains("udp fails"), "{console}");
    assert!(server.flow_log().contains(r#""action":"REJECT""#), "{}", server.flow_log());
    [server, friend, stranger].into_iter().for_each(Instance::end);
    assert_eq!(fs::read_dir(fabric.path().join("vpc-1")).unwrap().count(), 0, "nobody has an address any more");
}

#[test]
fn instances_reach_each_other_and_themselves_by_public_address_as_if_from_outside() {
    let fabric = tempfile::tempdir().unwrap();
    let (group, own, other) = ("sg-00000000000000001", public(), public());
    let mut server = Instance::boot_with(ECHO, network(fabric.path(), [172, 31, 0, 60], Some(own), group));
    let from = |address: Ipv4Addr| Peer::Network(ipnet::IpNet::from(std::net::IpAddr::V4(address)));
    let ports = |peer| [tcp_in(7, peer), rule(Direction::Ingress, Some(17), (7, 7), peer)];
    server.rules("eni-60", [ports(from(other)), ports(from(own))].concat());
    until("it listens", &server, || server.console().contains("echo listens"));
    let script = |address| {
        format!(
            r#"python3 -c '
import socket
try:
    with socket.create_connection(("{address}", 7), 2) as stream:
        stream.sendall(b"by tcp\n")
        print(stream.recv(100).decode().strip(), flush=True)
except OSError as error:
    print("tcp fails:", error, flush=True)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.settimeout(1)
for attempt in range(3):
    udp.sendto(b"by udp", ("{address}", 7))
    try:
        print(*udp.recvfrom(100), flush=True)
        break
    except OSError as error:
        print("udp fails", error, flush=True)
'"#
        )
    };
    let mut friend = Instance::boot_with(&script(own), network(fabric.path(), [172, 31, 0, 61], Some(other), group));
    friend.rules("eni-61", vec![everything_out()]);
    let (_, console) = friend.wait_for_user_data();
    assert!(console.contains("172.31.0.1 by tcp"), "{console}{}{}", friend.flow_log(), server.flow_log());
    assert!(console.contains(&format!("b'172.31.0.1 by udp' ('{own}', 7)")), "{console}");
    assert!(server.flow_log().contains(&format!(r#""source":"{other}"#)), "{}", server.flow_log());
    // From there its group is not seen, and without a public address nothing leaves the VPC.
    server.rules("eni-60", ports(Peer::Group(group.parse().unwrap())).to_vec());
    for (last, public) in [(62, Some(public())), (63, None)] {
        let mut stranger = Instance::boot_with(&script(own), network(fabric.path(), [172, 31, 0, last], public, group));
        stranger.rules(&format!("eni-{last}"), vec![everything_out()]);
        let (_, console) = stranger.wait_for_user_data();
        assert!(console.contains("tcp fails: timed out") && console.contains("udp fails"), "{console}");
        stranger.end();
    }
    // To itself it is outside, too.
    let mut alone = Instance::boot_with(
        &format!("({ECHO}) &\nwhile ! bash -c 'exec 3<>/dev/tcp/127.0.0.1/7'; do sleep 0.05; done\n{}", script(other)),
        network(fabric.path(), [172, 31, 0, 64], Some(other), group),
    );
    alone.rules("eni-64", [ports(from(other)).to_vec(), vec![everything_out()]].concat());
    let (_, console) = alone.wait_for_user_data();
    assert!(console.contains("172.31.0.1 by tcp"), "{console}{}", alone.flow_log());
    [server, friend, alone].into_iter().for_each(Instance::end);
    assert_eq!(fs::read_dir(fabric.path().join("public")).unwrap().count(), 0, "nobody has an address any more");
}

#[test]
fn the_outside_is_reached_from_a_subnet_that_leads_there_and_the_host_is_not() {
    let fabric = tempfile::tempdir().unwrap();
    // On the host, at an address of its own that is not the loopback's: as its services may listen.
    let Some(own) = own_address() else { return };
    let listener = std::net::TcpListener::bind((own, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!("for place in {own}/{port} 172.31.9.9/9; do timeout 1 bash -c \"exec 3<>/dev/tcp/$place\"; done; true");
    let mut instance = Instance::boot_with(&script, network(fabric.path(), [172, 31, 0, 20], Some(public()), "sg-00000000000000001"));
    instance.rules("eni-20", vec![everything_out()]);
    instance.wait_for_user_data();
    assert!(listener.accept().is_err(), "the instance reached the host");
    let log = instance.flow_log();
    assert!(log.contains("it is an address of the host itself"), "{log}");
    assert!(log.contains("nobody in the VPC has this address"), "{log}");
    instance.end();
}

/// The address from which this host speaks to others, if it can.
fn own_address() -> Option<Ipv4Addr> {
    let probe = std::net::UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    probe.connect(("192.0.2.1", 9)).ok()?;
    match probe.local_addr().ok()? {
        SocketAddr::V4(own) => Some(*own.ip()),
        SocketAddr::V6(_) => None,
    }
}

#[test]
fn what_is_open_stays_open_when_a_rule_goes_unless_tracking_is_strict() {
    for strict in [false, true] {
        let fabric = tempfile::tempdir().unwrap();
        let address = SocketAddrV4::new(public(), 7);
        let connected = network(fabric.path(), [172, 31, 0, 30], Some(*address.ip()), "sg-00000000000000001");
        let mut instance = Instance::boot_with(ECHO, Network { strict_tracking: strict, port_offset: 10_000, ..connected });
        instance.rules("eni-30", vec![tcp_in(7, anywhere())]);
        let outside = SocketAddrV4::new(*address.ip(), 10_007);
        let mut stream = None;
        until("it listens", &instance, || {
            stream = TcpStream::connect(outside).ok();
            stream.is_some()
        });
        let mut stream = stream.unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut said = |text: &str| {
            let mut answer = [0; 100];
            stream.write_all(text.as_bytes()).and_then(|()| stream.read(&mut answer)).map(|length| answer[..length].to_vec())
        };
        // From the host's loopback it comes by way of the subnet's router.
        assert_eq!(said("one\n").unwrap(), b"172.31.0.1 one\n");
        instance.rules("eni-30", Vec::new());
        until("nobody new is let in", &instance, || TcpStream::connect(outside).is_err());
        let second = said("two\n");
        assert_eq!(second.is_ok_and(|answer| !answer.is_empty()), !strict);
        instance.end();
    }
}

#[test]
fn an_address_that_moves_is_never_at_two_and_what_it_carried_ends() {
    let fabric = tempfile::tempdir().unwrap();
    let address = SocketAddrV4::new(public(), 10_007);
    let with = |last: u8, public| {
        let connected = network(fabric.path(), [172, 31, 0, last], public, "sg-00000000000000001");
        Network { port_offset: 10_000, ..connected }
    };
    let mut old = Instance::boot_with(ECHO, with(40, Some(*address.ip())));
    let mut new = Instance::boot_with(ECHO, with(41, None));
    old.rules("eni-40", vec![tcp_in(7, anywhere())]);
    new.rules("eni-41", vec![tcp_in(7, anywhere())]);
    until("both listen", &new, || old.console().contains("echo listens") && new.console().contains("echo listens"));
    let mut carried = None;
    until("it is reached", &old, || {
        carried = TcpStream::connect(address).ok();
        carried.is_some()
    });
    old.order(&protocol::Command::Configure { generation: 2, network: with(40, None), machine: None });
    old.wait(|state| state.configured == 2);
    assert!(TcpStream::connect(address).is_err(), "it was let go before that was told");
    let mut carried = carried.unwrap();
    carried.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    match carried.read(&mut [0]) {
        Ok(length) => assert_eq!(length, 0),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    new.order(&protocol::Command::Configure { generation: 2, network: with(41, Some(*address.ip())), machine: None });
    new.wait(|state| state.configured == 2);
    assert!(TcpStream::connect(address).is_ok(), "it leads there as soon as that is told");
    [old, new].into_iter().for_each(Instance::end);
}

#[test]
fn who_has_the_key_logs_in_by_ssh_and_nobody_else() {
    if !Path::new("/usr/sbin/sshd").exists() {
        return;
    }
    let fabric = tempfile::tempdir().unwrap();
    let key = |name: &str| {
        let path = fabric.path().join(name);
        assert!(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path).status().unwrap().success());
        path
    };
    let (right, wrong) = (key("right"), key("wrong"));
    let public_key = fs::read_to_string(right.with_extension("pub")).unwrap();
    let address = public();
    let connected = network(fabric.path(), [172, 31, 0, 50], Some(address), "sg-00000000000000001");
    let login = Login { user: "ec2-user".into(), public_key: Some(public_key), first: true };
    let mut instance = Instance::boot_for("true", Network { port_offset: 10_000, ..connected }, Some(login));
    instance.rules("eni-50", vec![tcp_in(22, anywhere())]);
    let ssh = |key: &Path, command: &str| {
        let mut ssh = Command::new("ssh");
        let options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes", "LogLevel=ERROR"];
        for option in options {
            ssh.args(["-o", option]);
        }
        ssh.arg("-i").arg(key).args(["-p", "10022"]).arg(format!("ec2-user@{address}")).arg(command).output().unwrap()
    };
    let mut output = None;
    until("somebody can log in", &instance, || {
        let tried = ssh(&right, "echo $HOME; hostname; exit 7");
        let connected = tried.status.code() == Some(7);
        output = Some(tried);
        connected
    });
    let output = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(output.starts_with("/home/ec2-user\nip-172-31-0-4\n"), "{output}");
    let refused = ssh(&wrong, "true");
    assert_eq!(refused.status.code(), Some(255));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Permission denied (publickey)"), "{refused:?}");
    instance.end();
}
