"""The life of an instance, from Python: python client.py HOST:PORT ACCOUNT"""

import sys
import uuid

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from gureum.common.v1.common_pb2 import Filter, Tag
from gureum.compute.v1 import compute_service_pb2, compute_service_pb2_grpc, image_pb2, instance_pb2
from gureum.security.v1 import security_service_pb2 as security_pb2
from gureum.security.v1 import security_service_pb2_grpc

# Every call has a deadline: without one, grpcio waits for ever. A boot takes seconds.
CALL_SECONDS = 30
BOOT_SECONDS = 60


class Region:
    """The services of a region as one account sees them."""

    def __init__(self, channel: grpc.Channel, account: str):
        self.compute = compute_service_pb2_grpc.ComputeServiceStub(channel)
        self.security = security_service_pb2_grpc.SecurityServiceStub(channel)
        # The account is metadata of every call, never a field. Two accounts never see each other.
        self.scope = (("gureum-account", account),)

    def call(self, method, request):
        return method(request, metadata=self.scope, timeout=CALL_SECONDS)

    def follow(self, instance_id: str, goal: "instance_pb2.InstanceState", after: int | None = None) -> int:
        """Watches until the instance is in the state `goal`; answers the place at which that was told.

        Without `after` the stream begins with everything as it is now, so a change that came before the
        watch is not missed; with the place of an earlier answer it goes on from there.
        """
        request = compute_service_pb2.WatchRequest(after_sequence=after)
        stream = self.compute.Watch(request, metadata=self.scope, timeout=BOOT_SECONDS)
        for message in stream:
            # Other resources change too, and now and then the stream only says how far it has come.
            event = message.event
            if event.instance.instance_id != instance_id:
                continue
            state = event.instance.state
            say("watched", f"{instance_id} is {instance_pb2.InstanceState.Name(state)}")
            if state == goal:
                stream.cancel()
                return event.metadata.sequence
        raise AssertionError(f"the watch ended before {instance_id} was {instance_pb2.InstanceState.Name(goal)}")


def say(what: str, text: str) -> None:
    print(f"  {what:<10} {text}", flush=True)


def refusal(call) -> tuple[grpc.StatusCode, str, list[str]]:
    """Makes a call that must be refused; answers its code, EC2's reason, and the fields that are wrong."""
    try:
        call()
    except grpc.RpcError as error:
        # The details of an error travel as a google.rpc.Status, in which each is wrapped in an Any.
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        for detail in rpc_status.from_call(error).details:
            for known in (info, bad):
                if detail.Is(known.DESCRIPTOR):
                    detail.Unpack(known)
        say("refused", f"{error.code().name} {info.reason}: {error.details()}")
        return error.code(), info.reason, [violation.field for violation in bad.field_violations]
    raise AssertionError("the call passed, and should have been refused")


def main(endpoint: str, account: str) -> None:
    with grpc.insecure_channel(endpoint) as channel:
        live(Region(channel, account))


def live(region: Region) -> None:
    compute, security, call = region.compute, region.security, region.call
    # A client token makes a call safe to repeat: the same token gives the same answer, never a second instance.
    name = token = f"python-{uuid.uuid4()}"

    call(security.CreateKeyPair, security_pb2.CreateKeyPairRequest(client_token=token, key_name=name, key_type="KEY_TYPE_ED25519"))
    group = call(security.CreateSecurityGroup, security_pb2.CreateSecurityGroupRequest(client_token=token, group_name=name, description="ssh")).security_group
    ssh = security_pb2.IpPermission(ip_protocol="tcp", from_port=22, to_port=22, ip_ranges=[{"cidr": "0.0.0.0/0"}])
    request = security_pb2.AuthorizeSecurityGroupIngressRequest(client_token=token, group_id=group.group_id, ip_permissions=[ssh])
    rules = call(security.AuthorizeSecurityGroupIngress, request).security_group_rules
    say("created", f"key pair {name}, {group.group_id} with {rules[0].security_group_rule_id}")

    request = image_pb2.DescribeImagesRequest(owners=["amazon"], filters=[Filter(name="name", values=["al2023-ami-*"]), Filter(name="architecture", values=["x86_64"])])
    # The newest of them.
    image = max(call(compute.DescribeImages, request).images, key=lambda image: image.creation_time.ToNanoseconds())
    say("chose", f"{image.image_id} {image.name}")

    tags = [Tag(key="Name", value=name)]
    spec = instance_pb2.LaunchSpec(
        image_id=image.image_id,
        instance_type="t3.micro",
        key_name=name,
        security_group_ids=[group.group_id],
        tag_specifications=[instance_pb2.TagSpecification(resource_type="instance", tags=tags)],
    )
    launch = instance_pb2.RunInstancesRequest(client_token=token, spec=spec, min_count=1, max_count=1)
    instance_id = call(compute.RunInstances, launch).instances[0].instance_id
    again = call(compute.RunInstances, launch).instances[0].instance_id
    assert again == instance_id, f"the same token launched {instance_id} and {again}"
    say("launched", instance_id)
    place = region.follow(instance_id, instance_pb2.INSTANCE_STATE_RUNNING)

    by_id = call(compute.DescribeInstances, instance_pb2.DescribeInstancesRequest(instance_ids=[instance_id])).instances
    by_tag = call(compute.DescribeInstances, instance_pb2.DescribeInstancesRequest(filters=[Filter(name="tag:Name", values=[name])])).instances
    assert [it.instance_id for it in by_id] == [it.instance_id for it in by_tag] == [instance_id], f"by id {by_id}, by tag {by_tag}"
    found = by_id[0]
    assert list(found.tags) == tags and found.key_name == name, f"launched otherwise than asked: {found}"
    say("found", f"{instance_id} by id and by tag: {found.instance_type}, {found.private_ip_address}, {found.placement.availability_zone}")

    missing = instance_pb2.DescribeInstancesRequest(instance_ids=["i-0123456789abcdef0"])
    code, reason, _ = refusal(lambda: call(compute.DescribeInstances, missing))
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "InvalidInstanceID.NotFound"), f"{code} {reason}"
    # Every field that is wrong is named at once, not one after the other.
    wrong = instance_pb2.RunInstancesRequest(client_token="x" * 65, spec=spec, min_count=1, max_count=1001)
    code, _, fields = refusal(lambda: call(compute.RunInstances, wrong))
    assert code == grpc.StatusCode.INVALID_ARGUMENT and {"client_token", "max_count"} <= set(fields), f"{code} {fields}"

    call(compute.TerminateInstances, instance_pb2.TerminateInstancesRequest(client_token=token, instance_ids=[instance_id]))
    region.follow(instance_id, instance_pb2.INSTANCE_STATE_TERMINATED, after=place)
    call(security.DeleteSecurityGroup, security_pb2.DeleteSecurityGroupRequest(client_token=token, group_id=group.group_id))
    call(security.DeleteKeyPair, security_pb2.DeleteKeyPairRequest(client_token=token, key_name=name))
    say("cleaned up", f"{group.group_id} and the key pair")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
