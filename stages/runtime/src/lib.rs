//! What every program of the chain shares: the worker loop, the broker, bodies, listeners, telemetry, shutdown.
//!
//! A stage says what becomes of a mail; everything that has to happen for it (acknowledging, publishing, retrying,
//! counting, timing) happens here, the same way for all of them. When a step fails, the message is left alone and comes
//! back: nothing here gives up a mail but by burying it where an operator finds it.

pub mod admin;
pub mod aside;
pub mod at_once;
pub mod bodies;
pub mod breaker;
pub mod broker;
pub mod clock;
pub mod config;
pub mod dns;
pub mod driver;
pub mod fault;
pub mod handover;
pub mod health;
pub mod in_hand;
pub mod linger;
pub mod listener;
pub mod name_server;
pub mod pull;
pub mod settle;
pub mod stage;
pub mod streams;
mod suspects;
mod sweep;
mod targets;
pub mod tasks;
pub mod telemetry;
pub mod tls;
mod trace;
pub mod version;
pub mod worker;

pub use fault::{Fault, OrNever};
pub use stage::{Ending, Mail, Outcome, Partly, Route, Stage};
