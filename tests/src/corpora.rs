//! Mail that nobody here wrote: the archives under `shared/corpora` beside the project, or in the folder that
//! `CHAINMAIL_CORPORA` names. A test whose archives are absent says that it is skipped, and passes.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// A folder of archives, if the corpora are there; else the test that asks is told of as skipped.
pub fn folder(name: &str) -> Option<PathBuf> {
    let near = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora").join(name);
    let folder = std::env::var_os("CHAINMAIL_CORPORA").map_or(near, |folder| PathBuf::from(folder).join(name));
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: there is no {}", folder.display());
    None
}

/// The files of an archive with their names, in its order.
pub fn unpack(archive: &Path) -> Vec<(String, Vec<u8>)> {
    let file = File::open(archive).unwrap_or_else(|error| panic!("{}: {error}", archive.display()));
    let mut archive = tar::Archive::new(zstd::Decoder::new(file).unwrap());
    let mut files = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.header().entry_type().is_file() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            files.push((entry.path().unwrap().display().to_string(), bytes));
        }
    }
    files
}

/// Every `.tar.zst` of a folder, unpacked, in the order of their names.
pub fn all(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut archives: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    archives.retain(|path| path.to_string_lossy().ends_with(".tar.zst"));
    archives.sort();
    archives.iter().flat_map(|archive| unpack(archive)).collect()
}

/// Line ends as SMTP has them: each CR, LF or CRLF becomes CRLF.
pub fn with_crlf(mail: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(mail.len() + mail.len() / 30);
    let mut bytes = mail.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\r' => {
                bytes.next_if_eq(&b'\n');
                out.extend(b"\r\n");
            }
            b'\n' => out.extend(b"\r\n"),
            _ => out.push(byte),
        }
    }
    if !out.ends_with(b"\r\n") {
        out.extend(b"\r\n");
    }
    out
}
