//! Delivery: which store and which folder, for every recipient.
//!
//! Aliases become mailboxes, spam goes to Junk, held mail to the quarantine. A recipient that vanished after the mail
//! was accepted is held with the reason, not lost. When the directory cannot say, the mail waits.

pub mod config;
pub mod decide;
mod look;

use directory::Directory;
use runtime::{Fault, Mail, Outcome, Stage};

/// The stage.
#[derive(Clone)]
pub struct Deliver {
    directory: Directory,
    scanner: Option<String>,
}

impl Deliver {
    /// Delivery by what this directory says. When the chain has a scanner, nothing that it has not passed is delivered,
    /// whichever way it came here.
    pub fn new(directory: Directory, scanner: Option<String>) -> Self {
        Self { directory, scanner }
    }
}

impl Stage for Deliver {
    async fn handle(&self, mail: &Mail) -> Result<Outcome, Fault> {
        if let Some(scanner) = self.scanner.as_ref().filter(|scanner| decide::is_unscanned(mail.envelope(), scanner)) {
            return Ok(Outcome::Back(scanner.clone()));
        }
        let found = look::recipients(&self.directory, mail.envelope()).await?;
        let quarantine = look::quarantine(&self.directory).await?;
        Ok(decide::decide(mail.envelope(), &found, &quarantine))
    }
}
