package gureum.example;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import gureum.common.v1.Common.Filter;
import gureum.common.v1.Common.Tag;
import gureum.compute.v1.ComputeServiceGrpc;
import gureum.compute.v1.ComputeServiceOuterClass.WatchRequest;
import gureum.compute.v1.ImageOuterClass.DescribeImagesRequest;
import gureum.compute.v1.ImageOuterClass.Image;
import gureum.compute.v1.InstanceOuterClass.DescribeInstancesRequest;
import gureum.compute.v1.InstanceOuterClass.InstanceState;
import gureum.compute.v1.InstanceOuterClass.LaunchSpec;
import gureum.compute.v1.InstanceOuterClass.RunInstancesRequest;
import gureum.compute.v1.InstanceOuterClass.TagSpecification;
import gureum.compute.v1.InstanceOuterClass.TerminateInstancesRequest;
import gureum.security.v1.SecurityServiceGrpc;
import gureum.security.v1.SecurityServiceOuterClass.AuthorizeSecurityGroupIngressRequest;
import gureum.security.v1.SecurityServiceOuterClass.CreateKeyPairRequest;
import gureum.security.v1.SecurityServiceOuterClass.CreateSecurityGroupRequest;
import gureum.security.v1.SecurityServiceOuterClass.DeleteKeyPairRequest;
import gureum.security.v1.SecurityServiceOuterClass.DeleteSecurityGroupRequest;
import gureum.security.v1.SecurityServiceOuterClass.IpPermission;
import gureum.security.v1.SecurityServiceOuterClass.IpRange;
import gureum.security.v1.SecurityServiceOuterClass.KeyType;
import io.grpc.ClientInterceptor;
import io.grpc.Context;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.TimeUnit;

/** The life of an instance, from Java: Client HOST:PORT ACCOUNT. */
public final class Client {
  /** Every call has a deadline: without one, a stub waits for ever. A boot takes seconds. */
  private static final long CALL_SECONDS = 30;

  private static final long BOOT_SECONDS = 60;

  private final ComputeServiceGrpc.ComputeServiceBlockingStub compute;
  private final SecurityServiceGrpc.SecurityServiceBlockingStub security;

  private Client(ManagedChannel channel) {
    compute = ComputeServiceGrpc.newBlockingStub(channel);
    security = SecurityServiceGrpc.newBlockingStub(channel);
  }

  public static void main(String[] args) throws Exception {
    if (args.length != 2) {
      System.err.println("usage: Client HOST:PORT ACCOUNT");
      System.exit(2);
    }
    // The account is metadata of every call, never a field. Two accounts never see each other.
    Metadata scope = new Metadata();
    scope.put(Metadata.Key.of("gureum-account", Metadata.ASCII_STRING_MARSHALLER), args[1]);
    ClientInterceptor scoped = MetadataUtils.newAttachHeadersInterceptor(scope);
    ManagedChannel channel = Grpc.newChannelBuilder(args[0], InsecureChannelCredentials.create()).intercept(scoped).build();
    try {
      new Client(channel).live();
    } finally {
      channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
    }
  }

  private void live() {
    // A client token makes a call safe to repeat: the same token gives the same answer, never a second instance.
    String name = "java-" + UUID.randomUUID();
    String token = name;

    security().createKeyPair(CreateKeyPairRequest.newBuilder().setClientToken(token).setKeyName(name).setKeyType(KeyType.KEY_TYPE_ED25519).build());
    String group = createGroup(name);

    RunInstancesRequest launch =
        RunInstancesRequest.newBuilder().setClientToken(token).setSpec(launchSpec(name, group)).setMinCount(1).setMaxCount(1).build();
    String id = compute().runInstances(launch).getInstances(0).getInstanceId();
    String again = compute().runInstances(launch).getInstances(0).getInstanceId();
    check(again.equals(id), "the same token launched %s and %s", id, again);
    say("launched", id);
    WatchRequest fromNow = WatchRequest.getDefaultInstance();
    long place = follow(id, InstanceState.INSTANCE_STATE_RUNNING, fromNow);

    find(DescribeInstancesRequest.newBuilder().addInstanceIds(id).build(), id, name);
    find(DescribeInstancesRequest.newBuilder().addFilters(filter("tag:Name", name)).build(), id, name);

    DescribeInstancesRequest missing = DescribeInstancesRequest.newBuilder().addInstanceIds("i-0123456789abcdef0").build();
    Refusal unknown = refusal(() -> compute().describeInstances(missing));
    check(unknown.code == Code.NOT_FOUND && unknown.reason.equals("InvalidInstanceID.NotFound"), "unknown instance: %s", unknown);
    // Every field that is wrong is named at once, not one after the other.
    RunInstancesRequest wrong = launch.toBuilder().setClientToken("x".repeat(65)).setMaxCount(1001).build();
    Refusal bad = refusal(() -> compute().runInstances(wrong));
    check(bad.code == Code.INVALID_ARGUMENT && bad.fields.containsAll(List.of("client_token", "max_count")), "bad request: %s", bad);

    compute().terminateInstances(TerminateInstancesRequest.newBuilder().setClientToken(token).addInstanceIds(id).build());
    follow(id, InstanceState.INSTANCE_STATE_TERMINATED, WatchRequest.newBuilder().setAfterSequence(place).build());
    security().deleteSecurityGroup(DeleteSecurityGroupRequest.newBuilder().setClientToken(token).setGroupId(group).build());
    security().deleteKeyPair(DeleteKeyPairRequest.newBuilder().setClientToken(token).setKeyName(name).build());
    say("cleaned up", group + " and the key pair");
  }

  /** Makes a group that lets ssh in; answers its id. */
  private String createGroup(String name) {
    var created = security().createSecurityGroup(
        CreateSecurityGroupRequest.newBuilder().setClientToken(name).setGroupName(name).setDescription("ssh").build());
    String group = created.getSecurityGroup().getGroupId();
    IpPermission ssh = IpPermission.newBuilder().setIpProtocol("tcp").setFromPort(22).setToPort(22)
        .addIpRanges(IpRange.newBuilder().setCidr("0.0.0.0/0")).build();
    var rules = security().authorizeSecurityGroupIngress(
        AuthorizeSecurityGroupIngressRequest.newBuilder().setClientToken(name).setGroupId(group).addIpPermissions(ssh).build());
    say("created", "key pair %s, %s with %s".formatted(name, group, rules.getSecurityGroupRules(0).getSecurityGroupRuleId()));
    return group;
  }

  /** Describes an instance of the newest Amazon Linux. */
  private LaunchSpec launchSpec(String name, String group) {
    var images = compute().describeImages(
        DescribeImagesRequest.newBuilder().addOwners("amazon").addFilters(filter("name", "al2023-ami-*")).addFilters(filter("architecture", "x86_64")).build());
    Image image = images.getImagesList().stream().max(Comparator.comparingLong(it -> it.getCreationTime().getSeconds())).orElseThrow();
    say("chose", image.getImageId() + " " + image.getName());
    Tag tag = Tag.newBuilder().setKey("Name").setValue(name).build();
    return LaunchSpec.newBuilder().setImageId(image.getImageId()).setInstanceType("t3.micro").setKeyName(name).addSecurityGroupIds(group)
        .addTagSpecifications(TagSpecification.newBuilder().setResourceType("instance").addTags(tag)).build();
  }

  /**
   * Watches until the instance is in the state {@code goal}; answers the place at which that was told.
   *
   * <p>Without a place the stream begins with everything as it is now, so a change that came before the watch is not
   * missed; with the place of an earlier answer it goes on from there.
   */
  private long follow(String id, InstanceState goal, WatchRequest from) {
    // Closing the context cancels the call: a blocking stub's stream has no other way to end early.
    try (Context.CancellableContext watching = Context.current().withCancellation()) {
      Context before = watching.attach();
      try {
        var messages = compute.withDeadlineAfter(BOOT_SECONDS, TimeUnit.SECONDS).watch(from);
        while (messages.hasNext()) {
          var event = messages.next().getEvent();
          // Other resources change too, and now and then the stream only says how far it has come.
          if (!event.getInstance().getInstanceId().equals(id)) {
            continue;
          }
          say("watched", id + " is " + event.getInstance().getState());
          if (event.getInstance().getState() == goal) {
            return event.getMetadata().getSequence();
          }
        }
      } finally {
        watching.detach(before);
      }
    }
    throw new IllegalStateException("the watch ended before " + id + " was " + goal);
  }

  private void find(DescribeInstancesRequest request, String id, String name) {
    var found = compute().describeInstances(request).getInstancesList();
    check(found.size() == 1 && found.get(0).getInstanceId().equals(id) && found.get(0).getKeyName().equals(name), "%s answered %s", request, found);
    var it = found.get(0);
    say("found", "%s: %s, %s, %s".formatted(id, it.getInstanceType(), it.getPrivateIpAddress(), it.getPlacement().getAvailabilityZone()));
  }

  /** Why a call was refused: its code, EC2's reason, and the fields that are wrong. */
  private record Refusal(Code code, String reason, List<String> fields) {}

  /** Makes a call that must be refused. The details of an error travel as a google.rpc.Status, each wrapped in an Any. */
  private static Refusal refusal(Runnable call) {
    try {
      call.run();
    } catch (StatusRuntimeException error) {
      String reason = "";
      List<String> fields = new ArrayList<>();
      try {
        for (Any detail : StatusProto.fromThrowable(error).getDetailsList()) {
          if (detail.is(ErrorInfo.class)) {
            reason = detail.unpack(ErrorInfo.class).getReason();
          } else if (detail.is(BadRequest.class)) {
            detail.unpack(BadRequest.class).getFieldViolationsList().forEach(violation -> fields.add(violation.getField()));
          }
        }
      } catch (InvalidProtocolBufferException broken) {
        throw new IllegalStateException("the details of the refusal cannot be read", broken);
      }
      say("refused", error.getStatus().getCode() + " " + reason + ": " + error.getStatus().getDescription());
      return new Refusal(error.getStatus().getCode(), reason, fields);
    }
    throw new IllegalStateException("the call passed, and should have been refused");
  }

  private ComputeServiceGrpc.ComputeServiceBlockingStub compute() {
    return compute.withDeadlineAfter(CALL_SECONDS, TimeUnit.SECONDS);
  }

  private SecurityServiceGrpc.SecurityServiceBlockingStub security() {
    return security.withDeadlineAfter(CALL_SECONDS, TimeUnit.SECONDS);
  }

  private static Filter filter(String name, String value) {
    return Filter.newBuilder().setName(name).addValues(value).build();
  }

  private static void check(boolean holds, String otherwise, Object... values) {
    if (!holds) {
      throw new IllegalStateException(otherwise.formatted(values));
    }
  }

  private static void say(String what, String text) {
    System.out.printf("  %-10s %s%n", what, text);
  }
}
