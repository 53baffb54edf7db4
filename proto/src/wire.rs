//! The generated protobuf types. They stay inside this crate.
#![allow(missing_docs, unreachable_pub)]

include!(concat!(env!("OUT_DIR"), "/chainmail.rs"));
