//! Compiles the contracts without an installed `protoc`: messages, clients and servers, validation
//! from the rules in the protos, and small traits that let the scaffold serve all services alike.

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};

mod validation;

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../..");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let (own, foreign) = (root.join("proto"), root.join("third_party/proto"));
    println!("cargo:rerun-if-changed={}", own.display());
    println!("cargo:rerun-if-changed={}", foreign.display());

    // The details of refusals too, so that a client that knows only reflection can read them.
    let mut files = protos(&own)?;
    files.extend(protos(&foreign.join("google/rpc"))?);
    let mut compiler = protox::Compiler::new([&own, &foreign])?;
    compiler.include_imports(true).include_source_info(true).open_files(&files)?;
    let compiled = compiler.file_descriptor_set();
    let of = |wanted: &dyn Fn(&str) -> bool| FileDescriptorSet {
        file: compiled.file.iter().filter(|file| wanted(file.package())).cloned().collect(),
    };
    let ours = of(&|package| package.starts_with("gureum."));

    write_descriptors(&out, &compiled)?;
    fs::write(out.join("validation.rs"), validation::generate(&compiler.descriptor_pool())?)?;
    fs::write(out.join("traits.rs"), traits(&ours)?)?;
    fs::write(out.join("modules.rs"), modules(&ours)?)?;
    tonic_prost_build::configure()
        .codec_path("crate::codec::ValidatingCodec")
        // Ordered, so that a request has one encoding and a client token one fingerprint.
        .btree_map(".")
        // The well-known types are not generated, but ours are compiled against them.
        .compile_fds(of(&|package| package.starts_with("gureum.") || package == "google.protobuf"))?;
    Ok(())
}

fn protos(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(protos(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// What reflection serves: everything but the comments, which would be most of it.
fn write_descriptors(out: &Path, all: &FileDescriptorSet) -> Result<(), Box<dyn Error>> {
    let mut lean = all.clone();
    for file in &mut lean.file {
        file.source_code_info = None;
    }
    fs::write(out.join("descriptors.bin"), lean.encode_to_vec())?;
    for file in &mut lean.file {
        // Nodes speak with compute alone.
        let peers_only = file.package() == "gureum.node.v1";
        file.service.retain(|service| !peers_only && !service.name().ends_with("PeerService"));
    }
    fs::write(out.join("public_descriptors.bin"), lean.encode_to_vec())?;
    Ok(())
}

fn traits(ours: &FileDescriptorSet) -> Result<String, Box<dyn Error>> {
    let mut code = String::new();
    for (file, message) in messages(ours) {
        let rust = rust_path(file, message);
        let has = |name: &str| message.field.iter().any(|field| field.name() == name);
        if has("client_token") && has("dry_run") {
            writeln!(
                code,
                "impl crate::Mutation for {rust} {{\n    const NAME: &'static str = \"{}.{}\";\n    fn client_token(&self) -> &str {{ &self.client_token }}\n    fn dry_run(&self) -> bool {{ self.dry_run }}\n}}",
                file.package(),
                message.name()
            )?;
        }
        if message.name() == "Event" && has("metadata") {
            writeln!(
                code,
                "impl crate::EventMessage for {rust} {{\n    const PACKAGE: &'static str = \"{}\";\n    fn metadata(&self) -> Option<&crate::common::v1::EventMetadata> {{ self.metadata.as_ref() }}\n    fn set_metadata(&mut self, metadata: crate::common::v1::EventMetadata) {{ self.metadata = Some(metadata); }}\n}}",
                file.package()
            )?;
        }
        let told = ["event", "caught_up_to_sequence"];
        let streams = message.oneof_decl.iter().any(|oneof| oneof.name() == "message") && message.field.len() == told.len();
        if streams && told.iter().all(|name| has(name)) {
            let (module, name) = rust.rsplit_once("::").ok_or("a message outside every module")?;
            let oneof = format!("{module}::{}::Message", validation::snake(name));
            writeln!(
                code,
                "impl crate::WatchMessage for {rust} {{\n    type Event = {module}::Event;\n    fn event(event: Self::Event) -> Self {{ Self {{ message: Some({oneof}::Event(event)) }} }}\n    fn caught_up(sequence: u64) -> Self {{ Self {{ message: Some({oneof}::CaughtUpToSequence(sequence)) }} }}\n    fn into_parts(self) -> crate::WatchPart<Self::Event> {{ match self.message {{ Some({oneof}::Event(event)) => crate::WatchPart::Event(Box::new(event)), Some({oneof}::CaughtUpToSequence(sequence)) => crate::WatchPart::CaughtUp(sequence), None => crate::WatchPart::Unknown }} }}\n}}"
            )?;
        }
    }
    Ok(code)
}

/// `pub mod security { pub mod v1 { include!(…) } }` for every package.
fn modules(ours: &FileDescriptorSet) -> Result<String, Box<dyn Error>> {
    let mut packages: BTreeMap<&str, String> = BTreeMap::new();
    for file in &ours.file {
        packages.entry(file.package()).or_default();
    }
    let mut code = String::new();
    for package in packages.keys() {
        let parts: Vec<&str> = package.split('.').skip(1).collect();
        let [name, version] = parts[..] else { return Err(format!("package {package} is not gureum.<service>.<version>").into()) };
        writeln!(
            code,
            "#[doc = \"The contract `{package}`.\"]\npub mod {name} {{ pub mod {version} {{ include!(concat!(env!(\"OUT_DIR\"), \"/{package}.rs\")); }} }}"
        )?;
    }
    Ok(code)
}

fn messages(set: &FileDescriptorSet) -> impl Iterator<Item = (&FileDescriptorProto, &DescriptorProto)> {
    set.file.iter().flat_map(|file| file.message_type.iter().map(move |message| (file, message)))
}

/// Where the generated type stands, seen from the crate's root. Our names are already as Rust has them.
fn rust_path(file: &FileDescriptorProto, message: &DescriptorProto) -> String {
    let package = file.package().trim_start_matches("gureum.").replace('.', "::");
    format!("crate::{package}::{}", message.name())
}
