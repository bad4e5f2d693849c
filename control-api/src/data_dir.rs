//! The data directory: made for its owner only, used by one process at a time.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::OpenError;

/// A data directory that is ours until this is dropped.
pub(crate) struct DataDir {
    path: PathBuf,
    /// The kernel gives the lock back when the process ends, however it ends.
    _lock: File,
}

impl DataDir {
    /// Makes the directory if there is none, and takes its lock.
    pub(crate) fn open(path: &Path) -> Result<DataDir, OpenError> {
        let failed = |source| OpenError::DataDir {
            path: path.to_owned(),
            source,
        };
        if !path.is_dir() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(failed)?;
        }
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("turnpike.lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut process = String::new();
                // Only for the sentence; a holder that has not written yet is "another".
                let _ = lock.take(20).read_to_string(&mut process);
                let process = process.trim().parse::<u32>().ok();
                return Err(OpenError::InUse {
                    path: path.to_owned(),
                    process,
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        note_process(&mut lock).map_err(failed)?;
        Ok(DataDir {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

fn note_process(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn f_10_a_second_holder_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/data");
        let first = DataDir::open(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let text = DataDir::open(&path).err().unwrap().to_string();
        let expected = format!(
            "data directory {} is in use by process {}",
            path.display(),
            std::process::id()
        );
        assert!(text.starts_with(&expected), "{text}");
        drop(first);
        assert!(DataDir::open(&path).is_ok());
    }

    #[test]
    fn a_path_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let text = DataDir::open(&file.join("data")).err().unwrap().to_string();
        assert!(
            text.contains(&file.join("data").display().to_string()),
            "{text}"
        );
    }
}
