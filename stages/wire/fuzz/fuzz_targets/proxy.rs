//! A PROXY header from anybody: read or refused, and what is read is written the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::proxy::Header;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some((header, used))) = Header::decode(bytes) {
        assert!(used <= bytes.len());
        let again = Header::decode(&header.encode()).expect("our own header is read");
        assert_eq!(again.map(|(header, _)| header), Some(header));
    }
});
