//! File systems on which a database is not safe, by their type in statfs(2).
//!
//! Keeps true: no local file system is in the list, except FUSE, which may be local or remote.
//!
//! SQLite in WAL mode needs locks, shared memory and syncs that work across all processes with the file open. Over a
//! network they work at best within one host ("How To Corrupt An SQLite Database File", sections 2.1 and 3;
//! "Write-Ahead Logging", section 1).

use std::path::Path;

/// A warning if the file system at `path` is not safe; none if it is, or its type is unknown.
pub(super) fn warning(path: &Path) -> Option<String> {
    // The type's width differs between systems, and some extend its sign. The magic numbers have 32 bits.
    let number = rustix::fs::statfs(path).ok()?.f_type as u32;
    let name = name(number)?;
    Some(format!(
        "{} is on {name}: locks and syncs of a database may not hold there, so that events can be lost or the database damaged; \
         use a local disk",
        path.display()
    ))
}

/// A warning if the disk at `path` is nearly full; none if there is room, or it cannot be checked.
pub(super) fn full_disk_warning(path: &Path) -> Option<String> {
    let of = rustix::fs::statvfs(path).ok()?;
    let free = of.f_bavail.saturating_mul(of.f_frsize);
    // Some file systems that store nothing have no blocks, such as /proc.
    (of.f_blocks > 0 && free < MIN_FREE).then(|| {
        format!(
            "the disk of {} is full ({} KiB are free): events and rejects cannot be written; free some space",
            path.display(),
            free / 1024
        )
    })
}

/// In bytes: less than a new database with its log needs.
const MIN_FREE: u64 = 1024 * 1024;

/// The name of an unsafe file system (linux/magic.h, and the sources of those not listed there).
fn name(number: u32) -> Option<&'static str> {
    UNSAFE.iter().find(|(unsafe_number, _)| *unsafe_number == number).map(|(_, name)| *name)
}

const UNSAFE: [(u32, &str); 15] = [
    (0x0000_6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x0000_517b, "SMB"),
    (0x6573_5546, "FUSE"),
    (0x0102_1997, "9P"),
    (0x00c3_6400, "CephFS"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
    (0x786f_4256, "a VirtualBox shared folder"),
    (0xaad7_aaea, "PanFS"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_of_a_network_are_named_and_local_ones_are_not() {
        for (number, expected) in [(0x6969, "NFS"), (0xff53_4d42, "CIFS"), (0x6573_5546, "FUSE")] {
            assert_eq!(name(number), Some(expected));
        }
        // ext4, XFS, Btrfs, tmpfs, overlay, ZFS, F2FS.
        for local in [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630, 0x2fc1_2fc1, 0xf2f5_2010] {
            assert_eq!(name(local), None, "{local:x}");
        }
        assert_eq!(warning(Path::new("/proc")), None);
    }
}
