//! What instances learn about themselves.

use gureum_shim::network::metadata::Options;

use super::{network::network, *};

/// Asks as programs do, and tells what is answered. `IP_MINTTL` (21) drops what has fewer hops left than that: what came
/// from a place further away would have been dropped underway.
const ASK: &str = r#"exec python3 -c '
import socket, urllib.request, urllib.error
BASE = "http://169.254.169.254/latest/"
def ask(path, method="GET", **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(BASE + path, method=method, headers=headers)
    try:
        return urllib.request.urlopen(request, timeout=10).read().decode()
    except urllib.error.HTTPError as error:
        return str(error.code)
def token_over(hops):
    with socket.create_connection(("169.254.169.254", 80), 10) as stream:
        stream.setsockopt(socket.IPPROTO_IP, 21, hops)
        stream.settimeout(2)
        stream.sendall(b"PUT /latest/api/token HTTP/1.1\r\nHost: x\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n")
        try:
            return stream.recv(1000).decode().split()[1]
        except OSError:
            return "lost"
print("without", ask("meta-data/instance-id"))
print("forwarded", ask("api/token", "PUT", X_Forwarded_For="192.0.2.1", X_aws_ec2_metadata_token_ttl_seconds="60"))
token = ask("api/token", "PUT", X_aws_ec2_metadata_token_ttl_seconds="60")
print("id", ask("meta-data/instance-id", X_aws_ec2_metadata_token=token))
print("data", ask("user-data", X_aws_ec2_metadata_token=token))
print("address", ask("meta-data/local-ipv4", X_aws_ec2_metadata_token=token))
print("hops", token_over(2), token_over(3))
print("asked", flush=True)
'"#;

fn machine(id: &str, tokens_required: bool) -> Machine {
    let options = Options { enabled: true, tokens_required, hop_limit: 2, tags_enabled: false };
    Machine { id: id.into(), user_data: b"hello".into(), options, ..Machine::default() }
}

#[test]
fn an_instance_gets_a_token_and_learns_what_it_is() {
    let fabric = tempfile::tempdir().unwrap();
    let connected = network(fabric.path(), [172, 31, 0, 60], None, "sg-00000000000000001");
    let mut instance = Instance::boot_as(ASK, |plan, _| (plan.network, plan.machine) = (connected, machine("i-60", true)));
    let (_, console) = instance.wait_for_user_data();
    for line in ["without 401", "forwarded 403", "id i-60", "data hello", "address 172.31.0.60", "hops 200 lost", "asked"] {
        assert!(console.contains(line), "{line}: {console}");
    }
    instance.end();
}
