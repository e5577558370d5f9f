use std::fs;

use super::*;
use crate::durable::database::{Layout, open};

const TABLES: &str = "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, text TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS u (id INTEGER PRIMARY KEY);";

/// A database that a gateway writes to, and its state after a simulated crash.
struct Written {
    dir: tempfile::TempDir,
    conn: Connection,
    pairing: Pairing,
}

impl Written {
    fn new() -> Written {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("hookgate.db");
        crate::durable::database::lock(&db).unwrap();
        let (conn, pairing) = open(&db, Layout::default(), TABLES).unwrap();
        Written { dir, conn, pairing }
    }

    fn db(&self) -> PathBuf {
        self.dir.path().join("hookgate.db")
    }

    fn write(&mut self, rows: usize) {
        for _ in 0..rows {
            self.conn.execute("INSERT INTO t (text) VALUES (?1)", ["x".repeat(3000)]).unwrap();
            self.pairing.committed(&self.conn);
        }
    }

    fn checkpoint(&self, mode: &str) {
        self.conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(())).unwrap();
    }

    /// Copies the files as they are on disk now to a new folder.
    fn crash(&self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in ["hookgate.db", "hookgate.db-wal", "hookgate.lock"] {
            fs::copy(self.dir.path().join(name), dir.path().join(name)).unwrap();
        }
        dir
    }

    /// The same, with this file copied over the database.
    fn put_back(&self, copy: &Path) -> Result<(), OpenError> {
        let dir = self.crash();
        fs::copy(copy, dir.path().join("hookgate.db")).unwrap();
        check(&dir.path().join("hookgate.db"))
    }

    fn copies(&self, name: &str) -> [PathBuf; 3] {
        let [online, vacuumed, ours] =
            ["online", "vacuumed", "ours"].map(|kind| self.dir.path().join(format!("{name}-{kind}")));
        let mut other = Connection::open(&online).unwrap();
        rusqlite::backup::Backup::new(&self.conn, &mut other).unwrap().step(-1).unwrap();
        self.conn.execute("VACUUM INTO ?1", [vacuumed.to_str().unwrap()]).unwrap();
        crate::durable::database::copy::copy(&self.db(), &ours).unwrap();
        [online, vacuumed, ours]
    }
}

fn whole(dir: &Path) -> i64 {
    let conn = Connection::open(dir.join("hookgate.db")).unwrap();
    let found: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(found, "ok");
    conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

#[test]
fn a_copy_put_back_is_refused_whatever_has_happened_since() {
    let mut written = Written::new();
    let mut copies = Vec::from(written.copies("empty"));
    for round in 0..4 {
        written.write(3);
        copies.extend(written.copies(&format!("written-{round}")));
        written.write(1);
        for copy in &copies {
            let refused = written.put_back(copy);
            let Err(OpenError::ForeignLog { log, .. }) = refused else {
                panic!("{}: {refused:?}", copy.display())
            };
            assert!(log.ends_with("hookgate.db-wal"));
        }
        // The next write begins a new log. A crash may come before it.
        written.checkpoint("PASSIVE");
        for copy in &copies {
            assert!(written.put_back(copy).is_err(), "{}", copy.display());
        }
        written.write(1);
    }
}

#[test]
fn a_file_copied_in_an_earlier_time_of_the_log_is_refused() {
    let mut written = Written::new();
    let mut files = Vec::new();
    for round in 0..4 {
        let file = written.dir.path().join(format!("file-{round}"));
        fs::copy(written.db(), &file).unwrap();
        written.write(5);
        written.checkpoint("RESTART");
        written.write(5);
        files.push(file);
        for file in &files {
            assert!(written.put_back(file).is_err(), "{}", file.display());
        }
    }
}

/// The file was copied while no gateway ran, or is the backup that the database was restored from.
#[test]
fn a_file_copied_before_a_start_is_refused() {
    let mut written = Written::new();
    written.write(3);
    let Written { dir, conn, pairing } = written;
    conn.close().unwrap();
    drop(pairing);
    let (db, file) = (dir.path().join("hookgate.db"), dir.path().join("file"));
    fs::copy(&db, &file).unwrap();
    for _ in 0..2 {
        let (conn, pairing) = open(&db, Layout::default(), TABLES).unwrap();
        let mut written = Written { dir: tempfile::tempdir().unwrap(), conn, pairing };
        for rows in [1, 5] {
            written.write(rows);
            let crashed = tempfile::tempdir().unwrap();
            for name in ["hookgate.db", "hookgate.db-wal", "hookgate.lock"] {
                fs::copy(dir.path().join(name), crashed.path().join(name)).unwrap();
            }
            let db = crashed.path().join("hookgate.db");
            check(&db).unwrap();
            fs::copy(&file, &db).unwrap();
            assert!(matches!(check(&db), Err(OpenError::ForeignLog { .. })));
        }
        written.conn.close().unwrap();
        // As `restore` does.
        fs::copy(&file, &db).unwrap();
    }
}

#[test]
fn no_crash_is_refused_wherever_it_comes() {
    let mut written = Written::new();
    let mut rows = 0;
    for step in 0..60 {
        match step % 10 {
            3 => written.checkpoint("PASSIVE"),
            6 => written.checkpoint("RESTART"),
            9 => written.checkpoint("TRUNCATE"),
            more => {
                written.write(more);
                rows += more as i64;
            }
        }
        let crashed = written.crash();
        let db = crashed.path().join("hookgate.db");
        check(&db).unwrap();
        assert_eq!(whole(crashed.path()), rows, "after step {step}");
    }
}

/// A checkpoint writes page after page, and may stop after any of them.
#[test]
fn no_checkpoint_that_is_cut_short_is_refused() {
    let mut written = Written::new();
    written.write(10);
    written.checkpoint("PASSIVE");
    written.write(10);
    let (before, log) = (fs::read(written.db()).unwrap(), written.crash());
    written.checkpoint("PASSIVE");
    let after = fs::read(written.db()).unwrap();
    let db = log.path().join("hookgate.db");
    for cut in (0..=after.len()).step_by(8192) {
        let rest = before.get(cut..).unwrap_or_default();
        fs::write(&db, [&after[..cut], rest].concat()).unwrap();
        check(&db).unwrap();
    }
    assert_eq!(whole(log.path()), 20);
}

#[test]
fn other_processes_that_write_and_reset_the_log_are_no_reason_to_refuse() {
    let mut written = Written::new();
    for _ in 0..5 {
        written.write(2);
        let other = Connection::open(written.db()).unwrap();
        other.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap();
        other.execute("INSERT INTO t (text) VALUES ('other')", []).unwrap();
        check(written.crash().path().join("hookgate.db").as_path()).unwrap();
        check(&written.db()).unwrap();
        written.write(1);
        check(written.crash().path().join("hookgate.db").as_path()).unwrap();
    }
}

#[test]
fn without_a_log_that_holds_anything_whatever_is_put_back_is_taken() {
    let mut written = Written::new();
    let copies = written.copies("copy");
    written.write(3);
    let crashed = written.crash();
    let (db, log) = (crashed.path().join("hookgate.db"), crashed.path().join("hookgate.db-wal"));
    let bytes = fs::read(&log).unwrap();
    for copy in &copies {
        fs::copy(copy, &db).unwrap();
        // The log has no complete transaction, so SQLite would not apply it either.
        for length in [0, 31, 32, 100] {
            fs::write(&log, &bytes[..length]).unwrap();
            check(&db).unwrap();
        }
        fs::write(&log, &bytes).unwrap();
        assert!(check(&db).is_err());
    }
    // A lock file without a note says nothing about the log.
    fs::write(crashed.path().join("hookgate.lock"), "").unwrap();
    check(&db).unwrap();
    fs::remove_file(crashed.path().join("hookgate.lock")).unwrap();
    check(&db).unwrap();
}

#[test]
fn a_gateway_that_starts_after_a_crash_goes_on_and_still_knows_a_copy() {
    let mut written = Written::new();
    written.write(5);
    let copy = written.copies("copy")[0].clone();
    written.write(5);
    let crashed = written.crash();
    let db = crashed.path().join("hookgate.db");
    for _ in 0..3 {
        let (conn, mut pairing) = open(&db, Layout::default(), TABLES).unwrap();
        conn.execute("INSERT INTO t (text) VALUES ('more')", []).unwrap();
        pairing.committed(&conn);
        let again = tempfile::tempdir().unwrap();
        for name in ["hookgate.db", "hookgate.db-wal", "hookgate.lock"] {
            fs::copy(crashed.path().join(name), again.path().join(name)).unwrap();
        }
        check(&again.path().join("hookgate.db")).unwrap();
        fs::copy(&copy, again.path().join("hookgate.db")).unwrap();
        assert!(check(&again.path().join("hookgate.db")).is_err());
        assert!(open(&again.path().join("hookgate.db"), Layout::default(), TABLES).is_err());
    }
}

#[test]
fn the_note_reads_back_and_half_of_it_says_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("hookgate.db");
    write_note(&db, *b"saltsalt", [1, 2, 3, u32::MAX]).unwrap();
    assert_eq!(read_note(&db), Some((*b"saltsalt", [1, 2, 3, u32::MAX])));
    let text = fs::read(dir.path().join("hookgate.lock")).unwrap();
    for length in 0..text.len() {
        fs::write(dir.path().join("hookgate.lock"), &text[..length]).unwrap();
        assert_eq!(read_note(&db), None);
    }
}
