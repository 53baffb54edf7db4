//! Any message: its parts lie within it, are not too many, and can be read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::mime::{self, Kind, Part};

fn look(message: &[u8], part: &Part) -> usize {
    assert!(part.header.end == part.body.start && part.body.end <= message.len());
    mime::text(&message[part.header.clone()], &message[part.body.clone()], 64 * 1024);
    1 + match &part.kind {
        Kind::Leaf => 0,
        Kind::Message(inner) => look(message, inner),
        Kind::Multipart(parts) => parts.iter().map(|part| look(message, part)).sum(),
    }
}

fuzz_target!(|bytes: &[u8]| {
    assert!(look(bytes, &mime::parse(bytes)) <= 1_001);
});
