//! What calls there are.

use std::{collections::HashMap, sync::OnceLock};

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
}
