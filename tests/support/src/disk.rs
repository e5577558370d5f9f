//! A disk so small that it can be filled.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// It is in memory, and unmounted when dropped.
pub struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// Mounts one of this size. Returns none where mounting is not allowed.
    pub fn mount(mib: u32) -> Option<SmallDisk> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(folder.path());
        let mounted = mount.output().is_ok_and(|mounted| mounted.status.success());
        if !mounted {
            eprintln!("SKIPPED: mounting a tmpfs takes root, so no disk can be filled here");
        }
        mounted.then_some(SmallDisk { folder })
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Remounts it read-only.
    pub fn read_only(&self) {
        let mut mount = Command::new("mount");
        let remounted = mount.args(["-o", "remount,ro"]).arg(self.folder.path()).status().unwrap();
        assert!(remounted.success());
    }

    /// Leaves no byte free.
    pub fn fill(&self) -> PathBuf {
        self.fill_once().unwrap()
    }

    /// Returns none if it is full already.
    pub fn fill_once(&self) -> Option<PathBuf> {
        let path = self.folder.path().join("filler");
        let mut file = File::create_new(&path).ok()?;
        for size in [4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        Some(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a gateway that a failing test leaves behind still has files open.
        let _ = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
    }
}
