//! Whether clamd has room to unpack mail.
//!
//! Without it clamd fails open: what it cannot write of an attachment it leaves out, or leaves the whole attachment out
//! when it cannot make a file, and calls the rest clean. It says so in its log alone. So its folder is looked at before
//! a scan and after it, and a clean mail is believed when there was plenty both times, and it was the same folder: one
//! that was removed or mounted over in between has told nothing of the one in which clamd unpacked. It fails closed: a
//! folder that cannot be looked at has no room.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use nix::sys::statvfs::statvfs;
use runtime::config::ByteSize;

/// So many files more must fit. Of some kinds of archive clamd has all members at a time: its `MaxFiles`, 10,000, for
/// each of the four threads of ops/clamd.conf. Of other mail it has a few, and removes each when it has looked at it.
const FILES: u64 = 40_000;

/// Where clamd unpacks mail, and what must stay free there.
#[derive(Debug, Clone)]
pub struct Room {
    /// The folder; none when it is on another machine.
    pub folder: Option<PathBuf>,
    /// More than all scans that run at a time take between two looks.
    pub free: ByteSize,
}

/// A folder, whatever its name is: its file system, its number there, and when it was made, because a number is given
/// again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Folder(u64, u64, Option<SystemTime>);

impl From<Metadata> for Folder {
    fn from(folder: Metadata) -> Self {
        Self(folder.dev(), folder.ino(), folder.created().ok())
    }
}

impl Room {
    /// Looks whether there is enough, and in which folder; in none when it is on another machine.
    ///
    /// # Errors
    /// When there is not, or nobody can say.
    pub(crate) fn look(&self) -> anyhow::Result<Option<Folder>> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let shown = folder.display();
        let failed = || format!("clamd's folder {shown} (stages.scan.temporary) cannot be looked at");
        let disk = statvfs(folder).with_context(failed)?;
        let looked_at = Folder::from(fs::metadata(folder).with_context(failed)?);
        let free = disk.blocks_available().saturating_mul(disk.fragment_size());
        if free < self.free.0 {
            let (left, least) = (ByteSize(free >> 10 << 10), self.free);
            bail!("clamd's folder {shown} has {left} left, and {least} must stay free (stages.scan.temporary_free)");
        }
        // Some file systems have as many files as there is room, and name no number.
        if disk.files() > 0 && disk.files_available() < FILES {
            bail!("clamd's folder {shown} takes no {FILES} files more");
        }
        Ok(Some(looked_at))
    }

    /// Looks again, after a scan.
    ///
    /// # Errors
    /// When there is not enough, nobody can say, or it is another folder than before.
    pub(crate) fn look_again(&self, before: Option<Folder>) -> anyhow::Result<()> {
        if self.look()? != before {
            bail!("clamd's folder (stages.scan.temporary) has become another during a scan");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[track_caller]
    fn check(folder: Option<&str>, free: &str, want: Option<&str>) {
        let room = Room { folder: folder.map(Into::into), free: free.parse().unwrap() };
        let said = room.look().map_err(|error| format!("{error:#}"));
        assert_eq!(said.is_ok(), want.is_none(), "{said:?}");
        assert!(said.err().is_none_or(|error| want.is_some_and(|want| error.contains(want))));
    }

    #[test]
    fn only_plenty_is_enough() {
        let here = tempfile::tempdir().unwrap();
        let (here, gone) = (here.path().to_str().unwrap(), here.path().join("gone"));
        check(Some(here), "1KiB", None);
        check(Some(here), "1000TiB", Some("(stages.scan.temporary_free)"));
        check(gone.to_str(), "1KiB", Some("(stages.scan.temporary) cannot be looked at: ENOENT"));
        check(None, "1000TiB", None);
    }
}
