//! File systems on which a database is not safe, by the number that statfs(2) gives for their type.
//!
//! Keeps true: a local file system is never named here. Of FUSE nothing is known but the name: some are local.
//!
//! SQLite in WAL mode needs locks, shared memory and syncs that hold for every process that opens the file; over a network they
//! hold at best for one host ("How To Corrupt An SQLite Database File", sections 2.1 and 3; "Write-Ahead Logging", section 1).

use std::path::Path;

/// What to warn of where `path` is; none where the file system is fit, or cannot be asked.
pub(super) fn warning(path: &Path) -> Option<String> {
    // The width of the number differs between systems, and it was extended by its sign on some; the magic numbers have 32 bits.
    let number = rustix::fs::statfs(path).ok()?.f_type as u32;
    let name = name(number)?;
    Some(format!(
        "{} is on {name}: locks and syncs of a database may not hold there, so that events can be lost or the database damaged; \
         use a local disk",
        path.display()
    ))
}

/// What to warn of where next to nothing can be written to `path`; none where there is room, or it cannot be asked.
pub(super) fn without_room(path: &Path) -> Option<String> {
    let of = rustix::fs::statvfs(path).ok()?;
    let free = of.f_bavail.saturating_mul(of.f_frsize);
    // Some that keep nothing have no blocks at all, such as /proc.
    (of.f_blocks > 0 && free < LITTLE).then(|| {
        format!(
            "the disk of {} is full ({} KiB are free): events and rejects cannot be written; make room",
            path.display(),
            free / 1024
        )
    })
}

/// Bytes: less than a new database and its log take.
const LITTLE: u64 = 1024 * 1024;

/// The name of one that is not fit (linux/magic.h, and the sources of those that are not in there).
fn name(number: u32) -> Option<&'static str> {
    UNFIT.iter().find(|(unfit, _)| *unfit == number).map(|(_, name)| *name)
}

const UNFIT: [(u32, &str); 15] = [
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
