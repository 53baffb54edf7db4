//! What of delivery can be configured.

use runtime::config::Section;
use runtime::worker;

/// The section `stages.deliver`, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The worker loop.
    pub work: worker::Config,
}

impl Config {
    /// Reads the section.
    pub fn read(mut section: Section) -> Self {
        let config = Self { work: worker::Config::read(&mut section, 64) };
        section.finish();
        config
    }
}
