//! What calls there are.

use std::{
    collections::{HashMap, HashSet},
    sync::OnceLock,
};

use prost::Message;
use prost_types::FileDescriptorSet;

/// What every gRPC server here answers beside the contracts' own calls, as a stream.
const REFLECTION: [&str; 2] =
    ["grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"];

/// Every call that a service here may answer, as `package.Service/Method`, and whether its answer is a stream.
pub fn methods() -> &'static HashMap<String, bool> {
    static METHODS: OnceLock<HashMap<String, bool>> = OnceLock::new();
    METHODS.get_or_init(|| {
        let sets = [gureum_proto::DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET];
        // What is built in can be read; if not, no call is known by name.
        let files = sets.into_iter().filter_map(|set| FileDescriptorSet::decode(set).ok()).flat_map(|set| set.file);
        let mut methods: HashMap<String, bool> = REFLECTION.into_iter().map(|method| (method.to_owned(), true)).collect();
        for file in files {
            for service in &file.service {
                let full = |name: &str| format!("{}.{}/{name}", file.package(), service.name());
                methods.extend(service.method.iter().map(|method| (full(method.name()), method.server_streaming())));
            }
        }
        methods
    })
}

/// Whether the answer to this call is a stream.
pub fn streams(method: &str) -> bool {
    methods().get(method) == Some(&true)
}

/// The service whose calls change what is in no store: the region's time.
const OF_TIME: &str = "gureum.gateway.v1.ClockService";

/// Whether what is wrong with this call's request is gathered from the rules that its proto declares and from its
/// handler. So are calls of one request and one answer that a region's callers make; where it is not, a request
/// that breaks a declared rule reaches no handler.
pub fn gathers(method: &str) -> bool {
    static GATHERED: OnceLock<HashSet<String>> = OnceLock::new();
    let gathered = GATHERED.get_or_init(|| {
        let files = FileDescriptorSet::decode(gureum_proto::PUBLIC_DESCRIPTORS).into_iter().flat_map(|set| set.file);
        let ours = files.filter(|file| file.package().starts_with("gureum."));
        let mut gathered = HashSet::new();
        for file in ours {
            for service in &file.service {
                let full = format!("{}.{}", file.package(), service.name());
                let plain = service.method.iter().filter(|method| !method.client_streaming() && !method.server_streaming());
                if full != OF_TIME {
                    gathered.extend(plain.map(|method| format!("{full}/{}", method.name())));
                }
            }
        }
        gathered
    });
    gathered.contains(method)
}

/// Whether a peer's call of this name only tells something.
pub fn only_tells(method: &str) -> bool {
    let name = method.rsplit('/').next().unwrap_or_default();
    ["Describe", "Get", "Resolve"].iter().any(|verb| name.starts_with(verb))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_known_by_their_full_names() {
        for call in ["gureum.compute.v1.ComputeService/RunInstances", "grpc.health.v1.Health/Watch", REFLECTION[0]] {
            assert!(methods().contains_key(call), "{call}");
        }
        assert!(!methods().contains_key("gureum.compute.v1.ComputeService/MineBitcoins"));
        assert!(streams("gureum.compute.v1.ComputeService/Watch") && streams("gureum.gateway.v1.EventService/Subscribe"));
        assert!(!streams("gureum.compute.v1.ComputeService/DescribeInstances") && !streams("nothing"));
    }

    #[test]
    fn violations_are_gathered_for_callers_alone_and_never_where_no_store_would_bar_a_change() {
        let plain =
            ["compute.v1.ComputeService/RunInstances", "gateway.v1.TaggingService/CreateTags", "gateway.v1.EventService/CreateWebhook"];
        assert!(plain.iter().all(|call| gathers(&format!("gureum.{call}"))));
        let others = [
            "gureum.gateway.v1.ClockService/AdvanceClock",
            "gureum.compute.v1.ComputeService/Watch",
            "gureum.gateway.v1.EventService/Subscribe",
            "gureum.compute.v1.ComputePeerService/RegisterNode",
            "gureum.node.v1.NodeService/ApplyInstances",
            "gureum.clock.v1.ClockPeerService/SetTime",
            "nothing",
        ];
        assert!(!others.iter().any(|call| gathers(call)));
    }

    #[test]
    fn what_only_tells_is_known_by_its_verb() {
        assert!(only_tells("/gureum.network.v1.NetworkPeerService/ResolveLaunchNetwork"));
        assert!(only_tells("/gureum.security.v1.SecurityService/DescribeKeyPairs"));
        assert!(!only_tells("/gureum.network.v1.NetworkPeerService/CreateInstanceInterfaces") && !only_tells(""));
    }
}
