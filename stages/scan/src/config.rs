//! What of scanning can be configured.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use runtime::config::{ByteSize, Section};
use runtime::worker;

use crate::room::Room;
use crate::scanner::QUESTION;

/// Where clamd listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clamd {
    /// A Unix socket.
    Unix(PathBuf),
    /// TCP.
    Tcp(SocketAddr),
}

/// The section `stages.scan`, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The worker loop.
    pub work: worker::Config,
    /// The scanner.
    pub clamd: Clamd,
    /// Where it unpacks.
    pub room: Room,
    /// It has to answer within that.
    pub deadline: Duration,
    /// Larger mail is not given to it.
    pub largest: ByteSize,
    /// What becomes of larger mail.
    pub too_large: TooLarge,
}

/// What becomes of mail that is too large to scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooLarge {
    /// It goes to the quarantine.
    Hold,
    /// It goes on, unscanned. Only for those who scan elsewhere.
    Pass,
}

impl Config {
    /// Reads the section; the socket's default lies in `var`.
    pub fn read(mut section: Section, var: &std::path::Path) -> Self {
        let default = format!("unix:{}", var.join("clamd.sock").display());
        let text =
            section.text("clamd", &default, "Where clamd listens: unix: and a path, or an address with its port. One clamd, not several behind one address: what one has shown says nothing about the others.");
        let clamd = match text.strip_prefix("unix:") {
            Some(path) => Clamd::Unix(path.into()),
            None => Clamd::Tcp(text.parse().unwrap_or_else(|_| {
                section
                    .wrong("clamd", format_args!("{text:?} is neither unix: with a path nor an address with a port"));
                SocketAddr::from(([127, 0, 0, 1], 0))
            })),
        };
        let room = room(&mut section, text == default, &clamd, var);
        let too_large = section.choice(
            "too_large",
            &["hold", "pass"],
            "What becomes of mail that is larger than `largest`: the quarantine, or on its way unscanned.",
        );
        let config = Self {
            work: worker::Config::read(&mut section, 8),
            clamd,
            room,
            deadline: section
                .span(
                    "deadline",
                    "1min",
                    "100ms"..="2min",
                    "clamd has to answer within that; then the mail waits and is tried again.",
                )
                .0,
            largest: section.size(
                "largest",
                "25MiB",
                "1MiB"..="4GiB",
                "Larger mail, with the header lines that we add, is not given to clamd. Not above clamd's \
                 StreamMaxLength, which is 25 MiB if not set.",
            ),
            too_large: if too_large == "pass" { TooLarge::Pass } else { TooLarge::Hold },
        };
        // A mail waits for two questions before its scan, if others ask, and for two after it.
        let longest = config.deadline + 4 * QUESTION.min(config.deadline);
        if config.work.time_limit <= longest {
            section.wrong(
                "work",
                format_args!(
                    "time_limit must be above {longest:?}, or a slow clamd looks like a mail that hangs the stage"
                ),
            );
        }
        section.finish();
        config
    }
}

/// What stands for the folder of a clamd that unpacks where nobody here can look.
const ELSEWHERE: &str = "elsewhere";

/// Reads where clamd unpacks. Only of the clamd that `ops/run` starts, and of one on another machine, that is known.
fn room(section: &mut Section, is_usual: bool, clamd: &Clamd, var: &std::path::Path) -> Room {
    let usual = var.join("clamd").display().to_string();
    let is_away = matches!(clamd, Clamd::Tcp(address) if !address.ip().is_loopback());
    if !is_usual && !is_away && !section.has("temporary") {
        section.wrong(
            "temporary",
            format_args!(
                "must name the folder in which this clamd unpacks mail (its TemporaryDirectory, /tmp if not set), or \
                 be `{ELSEWHERE}` if this process cannot look there"
            ),
        );
    }
    let folder = section.text(
        "temporary",
        if is_usual { &usual } else { ELSEWHERE },
        "The folder in which clamd unpacks mail: its TemporaryDirectory, for which a tmpfs of its own is best. A clamd \
         without room there leaves parts out and calls the rest clean, so mail waits then. To be named with `clamd`; \
         `elsewhere` if clamd is on another machine, where nobody looks after its room.",
    );
    Room {
        folder: (folder != ELSEWHERE).then(|| folder.into()),
        free: section.size(
            "temporary_free",
            "512MiB",
            "1MiB"..="1TiB",
            "So much must be free there before and after a scan, or the mail waits. The default is what clamd takes at \
             most with the settings of ops/clamd.conf: MaxThreads times the sum of MaxScanSize and StreamMaxLength.",
        ),
    }
}
