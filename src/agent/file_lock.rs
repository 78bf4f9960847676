//! One worker for each role of a box: a lock on a file, which its children keep.
//!
//! A worker that is killed leaves its `docker-compose` behind; the file descriptor is inherited, so the lock stays taken
//! until that one has ended too, and nothing it does lands after a successor has begun.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use log::info;
use rustix::io::{FdFlags, fcntl_setfd};

use crate::names::Role;

/// Held until it is dropped, and until every child that was started meanwhile has ended.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

impl FileLock {
    /// Takes the lock of `role`. While another worker has it, waits: returns `None` as soon as `let_go` answers true, and
    /// fails after `patience`.
    pub fn take(state_dir: &Path, role: &Role, patience: Duration, let_go: &dyn Fn() -> bool) -> Result<Option<Self>> {
        let path = state_dir.join(format!("{role}.lock"));
        let mut file = fs::create_dir_all(state_dir)
            .and_then(|()| OpenOptions::new().create(true).read(true).append(true).open(&path))
            .with_context(|| format!("cannot open {}; see state_dir", path.display()))?;
        let begun = Instant::now();
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(e)) => {
                    return Err(e).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
            if let_go() {
                return Ok(None);
            }
            let mut holder = String::new();
            let _ = file.rewind().and_then(|()| file.read_to_string(&mut holder));
            let holder = holder.trim();
            if begun.elapsed() > patience {
                bail!("another worker for {role} (pid {holder}) did not end within {}s", patience.as_secs());
            }
            if !told {
                info!(
                    "{role}: another worker (pid {holder}, or a program that it started) still runs; waiting for it to end"
                );
                told = true;
            }
            thread::sleep(Duration::from_millis(200));
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .with_context(|| format!("cannot write {}", path.display()))?;
        fcntl_setfd(&file, FdFlags::empty()).with_context(|| format!("cannot share {}", path.display()))?;
        Ok(Some(Self { _file: file }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_worker_waits_or_goes_as_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let role: Role = "app".parse().unwrap();
        let take = |patience, let_go: &dyn Fn() -> bool| FileLock::take(folder.path(), &role, patience, let_go);
        let first = take(Duration::ZERO, &|| false).unwrap().unwrap();
        assert!(take(Duration::from_secs(5), &|| true).unwrap().is_none());
        let error = take(Duration::ZERO, &|| false).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        drop(first);
        assert!(take(Duration::ZERO, &|| false).unwrap().is_some());
    }
}
