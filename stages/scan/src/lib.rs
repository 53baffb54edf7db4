//! Virus scanning: asks clamd about the body of every mail.
//!
//! Clean mail goes on; infected mail is refused, or held once it was accepted. It fails closed: when clamd cannot be
//! asked, its answer is anything but clear, it does not know the EICAR test file any more, or it has no room to unpack,
//! the mail waits. A scan that failed never looks like a scan that passed.

mod clamd;
pub mod config;
pub mod decide;
pub mod room;
mod scanner;

pub use scanner::Scanner;

use runtime::{Fault, Mail, Outcome, Stage};

use config::Config;
use decide::{Report, decide};

/// The stage.
#[derive(Debug, Clone)]
pub struct Scan {
    config: Config,
    scanner: Scanner,
}

impl Scan {
    /// Scanning by this clamd.
    pub fn new(config: Config, scanner: Scanner) -> Self {
        Self { config, scanner }
    }
}

impl Stage for Scan {
    async fn handle(&self, mail: &Mail) -> Result<Outcome, Fault> {
        let config = &self.config;
        // The header lines that every copy begins with are scanned, too: a body alone may begin with something by which
        // clamd takes it for another kind of file and does not look for parts, although every reader does.
        let header = &mail.envelope().header_block;
        if mail.envelope().body.size.saturating_add(header.len() as u64) > config.largest.0 {
            return Ok(decide(config.too_large, &Report::TooLarge));
        }
        let body = mail.body().await?;
        let report = self.scanner.scan(&[header.as_slice(), &body].concat()).await?;
        Ok(decide(config.too_large, &report))
    }
}
