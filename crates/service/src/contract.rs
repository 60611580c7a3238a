//! What calls there are.

use std::{collections::HashSet, sync::OnceLock};

use prost::Message;
use prost_types::FileDescriptorSet;

/// What every gRPC server here answers beside the contracts' own calls.
const REFLECTION: [&str; 2] =
    ["grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"];

/// Every call that a service here may answer, as `package.Service/Method`.
pub fn methods() -> &'static HashSet<String> {
    static METHODS: OnceLock<HashSet<String>> = OnceLock::new();
    METHODS.get_or_init(|| {
        let sets = [gureum_proto::DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET];
        // What is built in can be read; if not, no call is known by name.
        let files = sets.into_iter().filter_map(|set| FileDescriptorSet::decode(set).ok()).flat_map(|set| set.file);
        let mut methods: HashSet<String> = REFLECTION.into_iter().map(str::to_owned).collect();
        for file in files {
            for service in &file.service {
                methods.extend(service.method.iter().map(|method| format!("{}.{}/{}", file.package(), service.name(), method.name())));
            }
        }
        methods
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_known_by_their_full_names() {
        for call in ["gureum.compute.v1.ComputeService/RunInstances", "grpc.health.v1.Health/Watch", REFLECTION[0]] {
            assert!(methods().contains(call), "{call}");
        }
        assert!(!methods().contains("gureum.compute.v1.ComputeService/MineBitcoins"));
    }
}
