//! Delivery: which store and which folder, for every recipient.
//!
//! Aliases become mailboxes, spam goes to Junk, held mail to the quarantine. A recipient that vanished after the mail was
//! accepted is held with the reason, not lost. When the directory cannot say, the mail waits.

pub mod config;
pub mod decide;
mod look;

use directory::Directory;
use runtime::{Fault, Mail, Outcome, Stage};

/// The stage.
#[derive(Clone)]
pub struct Deliver {
    directory: Directory,
}

impl Deliver {
    /// Delivery by what this directory says.
    pub fn new(directory: Directory) -> Self {
        Self { directory }
    }
}

impl Stage for Deliver {
    async fn handle(&self, mail: &Mail) -> Result<Outcome, Fault> {
        let found = look::recipients(&self.directory, mail.envelope()).await?;
        let quarantine = look::quarantine(&self.directory).await?;
        Ok(decide::decide(mail.envelope(), &found, &quarantine))
    }
}
