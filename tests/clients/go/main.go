// The life of an instance, from Go: client HOST:PORT ACCOUNT
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	commonv1 "gureum.example/client/gen/gureum/common/v1"
	computev1 "gureum.example/client/gen/gureum/compute/v1"
	securityv1 "gureum.example/client/gen/gureum/security/v1"
)

// The whole run ends by then: a context without a deadline waits for ever.
const runTimeout = 2 * time.Minute

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: client HOST:PORT ACCOUNT")
	}
	ctx, cancel := context.WithTimeout(context.Background(), runTimeout)
	defer cancel()
	// The account is metadata of every call, never a field. Two accounts never see each other.
	ctx = metadata.AppendToOutgoingContext(ctx, "gureum-account", os.Args[2])
	if err := run(ctx, os.Args[1]); err != nil {
		log.Fatalf("failed: %v", err)
	}
}

func run(ctx context.Context, endpoint string) error {
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	compute := computev1.NewComputeServiceClient(conn)
	security := securityv1.NewSecurityServiceClient(conn)
	// A client token makes a call safe to repeat: the same token gives the same answer, never a second instance.
	name := "go-" + rand.Text()
	token := name

	groupID, err := prepare(ctx, security, name)
	if err != nil {
		return err
	}
	spec, err := launchSpec(ctx, compute, name, groupID)
	if err != nil {
		return err
	}
	launch := &computev1.RunInstancesRequest{ClientToken: token, Spec: spec, MinCount: 1, MaxCount: 1}
	launched, err := compute.RunInstances(ctx, launch)
	if err != nil {
		return fmt.Errorf("RunInstances: %w", err)
	}
	id := launched.Instances[0].InstanceId
	again, err := compute.RunInstances(ctx, launch)
	if err != nil || again.Instances[0].InstanceId != id {
		return fmt.Errorf("the same token answered %s, then %v, %v", id, again, err)
	}
	say("launched", id)
	place, err := follow(ctx, compute, id, computev1.InstanceState_INSTANCE_STATE_RUNNING, nil)
	if err != nil {
		return err
	}

	if err := find(ctx, compute, id, name); err != nil {
		return err
	}
	if err := beRefused(ctx, compute, spec); err != nil {
		return err
	}

	if _, err := compute.TerminateInstances(ctx, &computev1.TerminateInstancesRequest{ClientToken: token, InstanceIds: []string{id}}); err != nil {
		return fmt.Errorf("TerminateInstances: %w", err)
	}
	if _, err := follow(ctx, compute, id, computev1.InstanceState_INSTANCE_STATE_TERMINATED, &place); err != nil {
		return err
	}
	if _, err := security.DeleteSecurityGroup(ctx, &securityv1.DeleteSecurityGroupRequest{ClientToken: token, GroupId: groupID}); err != nil {
		return fmt.Errorf("DeleteSecurityGroup: %w", err)
	}
	if _, err := security.DeleteKeyPair(ctx, &securityv1.DeleteKeyPairRequest{ClientToken: token, KeyName: name}); err != nil {
		return fmt.Errorf("DeleteKeyPair: %w", err)
	}
	say("cleaned up", groupID+" and the key pair")
	return nil
}

// prepare makes a key pair and a group that lets ssh in, and answers the group's id.
func prepare(ctx context.Context, security securityv1.SecurityServiceClient, name string) (string, error) {
	if _, err := security.CreateKeyPair(ctx, &securityv1.CreateKeyPairRequest{ClientToken: name, KeyName: name, KeyType: securityv1.KeyType_KEY_TYPE_ED25519}); err != nil {
		return "", fmt.Errorf("CreateKeyPair: %w", err)
	}
	group, err := security.CreateSecurityGroup(ctx, &securityv1.CreateSecurityGroupRequest{ClientToken: name, GroupName: name, Description: "ssh"})
	if err != nil {
		return "", fmt.Errorf("CreateSecurityGroup: %w", err)
	}
	id := group.SecurityGroup.GroupId
	ssh := &securityv1.IpPermission{IpProtocol: "tcp", FromPort: proto.Int32(22), ToPort: proto.Int32(22), IpRanges: []*securityv1.IpRange{{Cidr: "0.0.0.0/0"}}}
	rules, err := security.AuthorizeSecurityGroupIngress(ctx, &securityv1.AuthorizeSecurityGroupIngressRequest{ClientToken: name, GroupId: id, IpPermissions: []*securityv1.IpPermission{ssh}})
	if err != nil {
		return "", fmt.Errorf("AuthorizeSecurityGroupIngress: %w", err)
	}
	say("created", fmt.Sprintf("key pair %s, %s with %s", name, id, rules.SecurityGroupRules[0].SecurityGroupRuleId))
	return id, nil
}

// launchSpec describes an instance of the newest Amazon Linux.
func launchSpec(ctx context.Context, compute computev1.ComputeServiceClient, name, groupID string) (*computev1.LaunchSpec, error) {
	answer, err := compute.DescribeImages(ctx, &computev1.DescribeImagesRequest{
		Owners:  []string{"amazon"},
		Filters: []*commonv1.Filter{{Name: "name", Values: []string{"al2023-ami-*"}}, {Name: "architecture", Values: []string{"x86_64"}}},
	})
	if err != nil || len(answer.Images) == 0 {
		return nil, fmt.Errorf("DescribeImages: %v, %w", answer, err)
	}
	image := slices.MaxFunc(answer.Images, func(a, b *computev1.Image) int { return a.CreationTime.AsTime().Compare(b.CreationTime.AsTime()) })
	say("chose", image.ImageId+" "+image.Name)
	return &computev1.LaunchSpec{
		ImageId:           proto.String(image.ImageId),
		InstanceType:      proto.String("t3.micro"),
		KeyName:           proto.String(name),
		SecurityGroupIds:  []string{groupID},
		TagSpecifications: []*computev1.TagSpecification{{ResourceType: "instance", Tags: []*commonv1.Tag{{Key: "Name", Value: name}}}},
	}, nil
}

// follow watches until the instance is in the state goal, and answers the place at which that was told.
//
// Without a place the stream begins with everything as it is now, so a change that came before the watch is
// not missed; with the place of an earlier answer it goes on from there.
func follow(ctx context.Context, compute computev1.ComputeServiceClient, id string, goal computev1.InstanceState, after *uint64) (uint64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := compute.Watch(ctx, &computev1.WatchRequest{AfterSequence: after})
	if err != nil {
		return 0, fmt.Errorf("Watch: %w", err)
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			return 0, fmt.Errorf("Watch, before %s was %v: %w", id, goal, err)
		}
		// Other resources change too, and now and then the stream only says how far it has come. Getters of nil answer zero.
		instance := message.GetEvent().GetInstance()
		if instance.GetInstanceId() != id {
			continue
		}
		say("watched", fmt.Sprintf("%s is %v", id, instance.State))
		if instance.State == goal {
			return message.GetEvent().GetMetadata().GetSequence(), nil
		}
	}
}

// find looks the instance up in two ways.
func find(ctx context.Context, compute computev1.ComputeServiceClient, id, name string) error {
	byID := &computev1.DescribeInstancesRequest{InstanceIds: []string{id}}
	byTag := &computev1.DescribeInstancesRequest{Filters: []*commonv1.Filter{{Name: "tag:Name", Values: []string{name}}}}
	for _, request := range []*computev1.DescribeInstancesRequest{byID, byTag} {
		answer, err := compute.DescribeInstances(ctx, request)
		if err != nil {
			return fmt.Errorf("DescribeInstances %v: %w", request, err)
		}
		if len(answer.Instances) != 1 || answer.Instances[0].InstanceId != id || answer.Instances[0].KeyName != name {
			return fmt.Errorf("DescribeInstances %v answered %v", request, answer.Instances)
		}
		it := answer.Instances[0]
		say("found", fmt.Sprintf("%s: %s, %s, %s", id, it.InstanceType, it.PrivateIpAddress, it.Placement.AvailabilityZone))
	}
	return nil
}

// beRefused makes two calls that must fail, and reads why.
func beRefused(ctx context.Context, compute computev1.ComputeServiceClient, spec *computev1.LaunchSpec) error {
	_, err := compute.DescribeInstances(ctx, &computev1.DescribeInstancesRequest{InstanceIds: []string{"i-0123456789abcdef0"}})
	if reason, _ := details(err); status.Code(err) != codes.NotFound || reason != "InvalidInstanceID.NotFound" {
		return fmt.Errorf("an unknown instance: got %q, %w", reason, orPassed(err))
	}
	// Every field that is wrong is named at once, not one after the other.
	_, err = compute.RunInstances(ctx, &computev1.RunInstancesRequest{ClientToken: strings.Repeat("x", 65), Spec: spec, MinCount: 1, MaxCount: 1001})
	if _, fields := details(err); status.Code(err) != codes.InvalidArgument || !slices.Contains(fields, "client_token") || !slices.Contains(fields, "max_count") {
		return fmt.Errorf("a bad request: got fields %v, %w", fields, orPassed(err))
	}
	return nil
}

// details answers EC2's reason and the fields that are wrong. They travel as a google.rpc.Status.
func details(err error) (reason string, fields []string) {
	refused := status.Convert(err)
	for _, detail := range refused.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			reason = detail.Reason
		case *errdetails.BadRequest:
			for _, violation := range detail.FieldViolations {
				fields = append(fields, violation.Field)
			}
		}
	}
	say("refused", fmt.Sprintf("%v %s: %s", refused.Code(), reason, refused.Message()))
	return reason, fields
}

func orPassed(err error) error {
	if err == nil {
		return errors.New("the call passed")
	}
	return err
}

func say(what, text string) {
	fmt.Printf("  %-10s %s\n", what, text)
}
