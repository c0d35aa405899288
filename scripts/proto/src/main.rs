//! Compiles `proto/` into `src/servers/grpc/generated` (messages and client) and `benches/peers/src/generated` (server
//! trait, for the benchmark's bare server). They are checked in, so that users need no protobuf compiler.
//!
//! ```text
//! cargo run --locked --manifest-path scripts/proto/Cargo.toml [-- --check]
//! ```
//! With `--check` it writes nothing, and fails if the files that are checked in differ from what `proto/` compiles to.

use std::error::Error;
use std::fs;
use std::path::Path;

use prost::Message;
use protox::Compiler;
use protox::file::{ChainFileResolver, DescriptorSetFileResolver, GoogleFileResolver, IncludeFileResolver};

/// Names of the files that are made, and where they are checked in.
const FILES: [(&str, &str); 4] = [
    ("client/tower_kernels.v1.rs", "src/servers/grpc/generated/tower_kernels.v1.rs"),
    ("client/inference.rs", "src/servers/grpc/generated/inference.rs"),
    ("descriptor.bin", "src/servers/grpc/generated/descriptor.bin"),
    ("server/tower_kernels.v1.rs", "benches/peers/src/generated/kernel_server.rs"),
];

fn main() -> Result<(), Box<dyn Error>> {
    let check = std::env::args().skip(1).any(|argument| argument == "--check");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let made = tempfile::tempdir()?;
    generate(&root.join("proto"), made.path())?;
    for (name, known) in FILES {
        let (new, known) = (fs::read(made.path().join(name))?, root.join(known));
        if !check {
            fs::write(known, new)?;
        } else if fs::read(&known)? != new {
            return Err(format!("{} is not what proto/ compiles to: run this without --check", known.display()).into());
        }
    }
    Ok(())
}

fn generate(proto: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    // tonic-types has google.rpc.Status under its file name alone, and others import it by its full path.
    let mut google = prost_types::FileDescriptorSet::decode(tonic_types::pb::FILE_DESCRIPTOR_SET)?;
    for file in google.file.iter_mut().filter(|file| file.name() == "status.proto") {
        file.name = Some("google/rpc/status.proto".to_owned());
    }
    let mut files = ChainFileResolver::new();
    files.add(IncludeFileResolver::new(proto.to_owned()));
    files.add(DescriptorSetFileResolver::new(google));
    files.add(GoogleFileResolver::new());

    let mut compiler = Compiler::with_file_resolver(files);
    compiler.include_source_info(true).include_imports(true);
    compiler.open_file("tower_kernels/v1/kernel.proto")?.open_file("inference/inference.proto")?;
    let mut descriptors = compiler.file_descriptor_set();

    let [client, server] = ["client", "server"].map(|name| out.join(name));
    fs::create_dir(&client)?;
    fs::create_dir(&server)?;
    tonic_prost_build::configure()
        .build_server(false)
        .out_dir(client)
        // Tensor data is a slice of the message that it came in.
        .bytes(".")
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        .compile_fds(descriptors.clone())?;
    tonic_prost_build::configure()
        .build_client(false)
        .out_dir(server)
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        .extern_path(".tower_kernels.v1", "::tower_kernels::grpc::proto")
        .compile_fds(descriptors.clone())?;

    // For the reflection service. Comments would triple its size.
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    fs::write(out.join("descriptor.bin"), descriptors.encode_to_vec())?;
    Ok(())
}
