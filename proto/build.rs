//! Compiles `mail.proto` without a protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=mail.proto");
    let descriptors = protox::compile(["mail.proto"], ["."])?;
    prost_build::Config::new().bytes([".chainmail.DeadLetter.payload"]).compile_fds(descriptors)?;
    Ok(())
}
