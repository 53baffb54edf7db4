//! The journal's folder: it outlives a loss of power, and one process has it at a time.

use std::fs::File;
use std::path::Path;

use anyhow::{Context as _, bail};

/// The folder's own name must outlive a loss of power as what is in it does.
pub(super) fn sync_above(folder: &Path) -> anyhow::Result<()> {
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(above).and_then(|above| above.sync_all()).with_context(|| format!("syncing {}", above.display()))
}

pub(super) fn lock(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join("lock");
    let file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            bail!("the journal in {} is in use by another process; every accept node needs its own", folder.display())
        }
        Err(std::fs::TryLockError::Error(error)) => Err(error).with_context(|| format!("locking {}", path.display())),
    }
}
