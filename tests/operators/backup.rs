//! Backups of the data folder, and databases that were put back by hand: what is in them afterwards, and what a start says.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rusqlite::Connection;
use serde_json::Value;
use support::*;
use tokio::task::JoinSet;

/// What a command did.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs a command to its end. One that serves where it should have refused is ended.
fn run(home: &Home, arguments: &[&str]) -> Ran {
    let command = home.command(arguments);
    let mut bounded = Command::new("timeout");
    bounded.arg("60").arg(command.get_program()).args(command.get_args()).env_remove("HOOKGATE_LOG");
    let output = bounded.stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

impl Ran {
    fn ok(self) -> Ran {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// It failed, and said this.
    fn refused(self, says: &str) -> Ran {
        assert!(
            self.code == Some(1) && format!("{}{}", self.out, self.err).contains(says),
            "{says}: {self:?}"
        );
        self
    }
}

fn back_up(home: &Home, name: &str) -> String {
    let to = home.path(name).to_str().unwrap().to_owned();
    run(home, &["backup", &to]).ok();
    to
}

#[tokio::test]
async fn all_that_a_gateway_makes_is_its_owners_alone_whatever_the_umask() {
    let home = Home::embedded()
        .with("quarantine.enabled", true)
        .with("quarantine.key", "a key of more than sixteen bytes");
    home.write_config();
    let gateway = home.command(&["serve"]);
    let mut open = Command::new("sh");
    open.args(["-c", "umask 0; exec \"$@\"", "sh"]).arg(gateway.get_program()).args(gateway.get_args());
    let mut gateway = open.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let locks = ["hookgate.lock", "quarantine.lock", "audit/.lock"].map(|name| home.path("data").join(name));
    until("it has made its files", async || locks.iter().all(|lock| lock.exists())).await;
    gateway.kill().unwrap();
    gateway.wait().unwrap();
    for (path, _) in contents(&home.path("data")) {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{path}: {mode:o}");
    }
}

/// Every file under a folder with its content.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

fn ids_of(ids: std::ops::Range<u32>) -> Vec<String> {
    ids.map(|n| format!("evt-{n}")).collect()
}

async fn deliver(gateway: &Gateway, ids: &[String]) {
    for id in ids {
        gateway.deliver(&basiq(id)).await.assert_accepted(id);
    }
}

fn in_queue(home: &Home) -> Vec<String> {
    ids(&home.events()).into_iter().map(str::to_owned).collect()
}

// -- backup

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_is_whole_and_restores_to_what_was_answered_before_it() {
    let home = Home::embedded();
    let gateway = home.serve().await;
    let load = Load::start(gateway.edge);
    let (edge, mut forger) = (gateway.edge, JoinSet::new());
    forger.spawn(async move {
        let mut client = Client::connect(edge).await.unwrap();
        for n in 0.. {
            let forged = basiq_by_another_secret(&format!("forged-{n}"));
            assert_eq!(client.deliver(&forged).await.unwrap().status, 401);
        }
    });
    for n in 0..5 {
        load.taken(50).await;
        let before = in_queue(&home);
        let to = back_up(&home, &format!("backup-{n}"));
        let restored = Home::embedded();
        run(&restored, &["restore", &to]).ok();
        let after = in_queue(&restored);
        assert_eq!(after[..before.len()], before, "what was answered before is in it");
        assert!(!restored.records("signature_mismatch").is_empty());
        run(&restored, &["audit", "verify"]).ok();
    }
    forger.shutdown().await;
    let sent = load.finish().await;
    assert_each_once(&home.events(), &sent.taken);
    run(&home, &["audit", "verify"]).ok();
}

#[tokio::test]
async fn a_backup_is_its_owners_alone_and_leaves_what_it_copies_as_it_was() {
    let home = Home::embedded()
        .with("quarantine.enabled", true)
        .with("quarantine.key", "a key of over sixteen bytes");
    let gateway = home.serve().await;
    deliver(&gateway, &ids_of(0..5)).await;
    let foreign = basiq_by_another_secret("kept");
    assert_eq!(gateway.deliver(&foreign).await.status, 401);
    until("it is kept", async || gateway.metric("hookgate_quarantine_requests").await == 1.0).await;
    gateway.kill9();
    let data = home.path("data");
    // SQLite makes this file for a reader after a crash.
    let _ = fs::remove_file(data.join("hookgate.db-shm"));
    let stores =
        || contents(&data).into_iter().filter(|(path, _)| !path.ends_with("-shm")).collect::<Vec<_>>();
    let before = stores();
    let to = back_up(&home, "new/backup");
    assert_eq!(stores(), before);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(Path::new(&to)), 0o700);
    let mut names = Vec::new();
    for (path, _) in contents(Path::new(&to)) {
        assert_eq!(mode(Path::new(&path)), 0o600, "{path}");
        names.push(path.strip_prefix(&to).unwrap().to_owned());
    }
    assert_eq!(mode(&Path::new(&to).join("audit")), 0o700);
    assert!(names.iter().any(|name| name.starts_with("/audit/") && name.ends_with(".jsonl")), "{names:?}");
    names.retain(|name| !name.starts_with("/audit/"));
    assert_eq!(names, ["/backup.json", "/hookgate.db", "/quarantine.db"]);
    // No secret is in it, and what the quarantine's key is for is said.
    let mut said = run(&home, &["backup", home.path("again").to_str().unwrap()]).ok();
    assert!(said.err.contains("quarantine.key"), "{said:?}");
    said = run(&home, &["--json", "backup", home.path("json").to_str().unwrap()]).ok();
    let [line] = &said.out.lines().collect::<Vec<_>>()[..] else { panic!("{said:?}") };
    let line: Value = serde_json::from_str(line).unwrap();
    assert!(line["files"].as_array().unwrap().iter().any(|file| file["path"] == "quarantine.db"), "{line}");
    let restored = Home::embedded();
    run(&restored, &["restore", &to]).ok();
    assert_eq!(in_queue(&restored), ids_of(0..5));
    assert_eq!(restored.records("signature_mismatch").len(), 1);
    let with_key =
        restored.with("quarantine.enabled", true).with("quarantine.key", "a key of over sixteen bytes");
    assert_eq!(with_key.lines(&["quarantine", "list", "--json"]).len(), 1);
    // Its gateway knows what the backup knows.
    let gateway = with_key.serve().await;
    gateway.deliver(&basiq("evt-3")).await.assert_duplicate("evt-3");
    gateway.deliver(&basiq("evt-9")).await.assert_accepted("evt-9");
}

#[tokio::test]
async fn a_spool_is_in_the_backup_and_is_drained_after_it() {
    let port = free_port();
    let home = Home::redis_at(format!("redis://127.0.0.1:{port}")).with("spool.enabled", true);
    let gateway = home.serve().await;
    deliver(&gateway, &ids_of(0..4)).await;
    let to = back_up(&home, "backup");
    drop(gateway);
    let redis = Redis::start(Persistence::Always).await;
    let restored = Home::redis(&redis).with("spool.enabled", true);
    run(&restored, &["restore", &to]).ok();
    let _gateway = restored.serve().await;
    until("they are drained", async || in_queue(&restored) == ids_of(0..4)).await;
}

#[tokio::test]
async fn a_backup_that_cannot_be_made_says_why_and_leaves_nothing() {
    let home = Home::embedded();
    let to = home.path("backup");
    run(&home, &["backup", to.to_str().unwrap()]).refused("no gateway has run");
    assert!(!to.exists());
    let gateway = home.serve().await;
    deliver(&gateway, &ids_of(0..3)).await;
    fs::create_dir(&to).unwrap();
    fs::write(to.join("mine"), "").unwrap();
    run(&home, &["backup", to.to_str().unwrap()]).refused("is not empty");
    assert_eq!(contents(&to).len(), 1);
    fs::remove_file(to.join("mine")).unwrap();
    back_up(&home, "backup");
    run(&home, &["backup", home.path("hookgate.toml").to_str().unwrap()]).refused("hookgate.toml");
    let Some(disk) = SmallDisk::mount(1) else { return };
    for room in [0, 10, 20] {
        let filler = disk.fill();
        let length = filler.metadata().unwrap().len();
        fs::File::options().write(true).open(&filler).unwrap().set_len(length - room * 4096).unwrap();
        for to in [disk.path().join("new"), disk.path().join("there")] {
            let _ = fs::create_dir(disk.path().join("there"));
            run(&home, &["backup", to.to_str().unwrap()]).refused("no backup was made");
            assert!(!to.exists() || contents(&to).is_empty(), "{:?}", contents(&to));
        }
        fs::remove_file(filler).unwrap();
    }
    run(&home, &["backup", disk.path().join("there").to_str().unwrap()]).ok();
}

// -- restore

#[tokio::test]
async fn a_restore_puts_back_what_was_and_keeps_what_was_there_aside() {
    let home = Home::embedded();
    let gateway = home.serve().await;
    deliver(&gateway, &ids_of(0..5)).await;
    let to = back_up(&home, "backup");
    deliver(&gateway, &ids_of(5..9)).await;
    let before = contents(&home.path("data"));
    run(&home, &["restore", &to]).refused("a gateway runs");
    let names =
        |contents: &[(String, Vec<u8>)]| contents.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&contents(&home.path("data"))), names(&before));
    // What was written since lies in the log beside the database.
    gateway.kill9();
    let ran = run(&home, &["restore", &to]).ok();
    assert!(ran.err.contains("before-restore-"), "{ran:?}");
    assert_eq!(in_queue(&home), ids_of(0..5));
    let gateway = home.serve().await;
    gateway.deliver(&basiq("evt-4")).await.assert_duplicate("evt-4");
    // Nothing is known of what came since.
    gateway.deliver(&basiq("evt-7")).await.assert_accepted("evt-7");
    gateway.kill9();
    run(&home, &["audit", "verify"]).ok();
    // What was moved aside is whole, and can be put back itself.
    let aside = fs::read_dir(home.path("data")).unwrap().map(|entry| entry.unwrap().path());
    let aside = aside.filter(|path| path.to_str().unwrap().contains("before-restore-")).collect::<Vec<_>>();
    let [aside] = &aside[..] else { panic!("{aside:?}") };
    let other = Home::embedded().with("data_dir", aside.to_str());
    assert_eq!(in_queue(&other), ids_of(0..9));
}

#[tokio::test]
async fn a_backup_that_is_not_whole_is_refused_and_changes_nothing() {
    let home = Home::embedded();
    let gateway = home.serve().await;
    deliver(&gateway, &ids_of(0..5)).await;
    gateway.deliver(&basiq_by_another_secret("evt")).await;
    until("it is recorded", async || home.records("signature_mismatch").len() == 1).await;
    let to = back_up(&home, "backup");
    gateway.kill9();
    let restored = Home::embedded();
    let refused = |says: &str| {
        run(&restored, &["restore", &to]).refused(says);
        let left = contents(&restored.path("data"));
        assert!(left.iter().all(|(path, _)| path.ends_with(".lock")), "{left:?}");
    };
    fs::create_dir(restored.path("data")).unwrap();
    let list = Path::new(&to).join("backup.json");
    let text = fs::read_to_string(&list).unwrap();
    fs::remove_file(&list).unwrap();
    refused("is not a complete backup");
    fs::write(&list, &text[..text.len() / 2]).unwrap();
    refused("backup.json");
    fs::write(&list, text.replace("hookgate.db", "../hookgate.db")).unwrap();
    refused("not a file of a data_dir");
    fs::write(&list, text.replace("\"format\": 1", "\"format\": 2")).unwrap();
    refused("newer");
    fs::write(&list, &text).unwrap();
    for (path, whole) in contents(Path::new(&to)).iter().filter(|(path, _)| !path.ends_with(".json")) {
        let mut altered = whole.clone();
        altered[whole.len() / 2] ^= 1;
        for content in [&altered[..], &whole[..whole.len() - 1], &[&whole[..], b"\n"].concat()] {
            fs::write(path, content).unwrap();
            refused("differs from the file that was backed up");
        }
        fs::remove_file(path).unwrap();
        refused("missing");
        fs::write(path, whole).unwrap();
    }
    // What is no file holds nothing up, and has no end.
    for (path, whole) in contents(Path::new(&to)) {
        fs::remove_file(&path).unwrap();
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        refused("regular file");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        refused(if path.ends_with(".json") { "16 MiB" } else { "regular file" });
        fs::remove_file(&path).unwrap();
        fs::write(&path, whole).unwrap();
    }
    run(&restored, &["restore", restored.path("nowhere").to_str().unwrap()]).refused("no backup there");
    run(&restored, &["restore", &to]).ok();
    assert_eq!(in_queue(&restored), ids_of(0..5));
}

/// Wherever it is killed, the data folder is the old one, the new one, or says that it is neither.
#[tokio::test]
async fn a_restore_that_is_killed_never_looks_whole_and_can_be_run_again() {
    let home = Home::embedded();
    let gateway = home.serve().await;
    deliver(&gateway, &ids_of(0..3)).await;
    // Many files take their time to be moved.
    let to = back_up(&home, "backup");
    gateway.kill9();
    let mut halves = 0;
    for round in 0..25_u64 {
        let victim = Home::embedded();
        let gateway = victim.serve().await;
        deliver(&gateway, &ids_of(3..5)).await;
        gateway.kill9();
        for n in 0..300 {
            fs::write(
                victim.path("data/audit").join(format!("{n:020}-20260101T000000Z.jsonl.unreadable")),
                "x",
            )
            .unwrap();
        }
        let mut restore = Process::spawn(&mut victim.command(&["restore", &to]));
        let plan = victim.path("data/.restore/plan.json");
        while !plan.exists() && restore.ended().is_none() {
            std::thread::yield_now();
        }
        // Some at once, some later.
        for _ in 0..round * 2000 {
            std::hint::spin_loop();
        }
        restore.kill9();
        let check = run(&victim, &["check"]);
        if plan.exists() {
            halves += 1;
            assert!(check.code == Some(1) && check.out.contains("half restored"), "{check:?}");
            run(&victim, &["serve"]).refused("half restored");
            run(&victim, &["events", "tail", "--json"]).refused("half restored");
            run(&victim, &["backup", victim.path("backup").to_str().unwrap()]).refused("half restored");
        } else {
            check.ok();
            let queue = in_queue(&victim);
            assert!(queue == ids_of(0..3) || queue == ids_of(3..5), "{queue:?}");
        }
        run(&victim, &["restore", &to]).ok();
        assert_eq!(in_queue(&victim), ids_of(0..3));
        assert!(!victim.path("data/.restore").exists());
    }
    assert!(halves > 0, "it was never killed in the middle");
}

// -- put back by hand

/// Copies as an operator may make them under a gateway that runs.
fn copies(db: &Path, beside: &Path) -> Vec<std::path::PathBuf> {
    let name = db.file_name().unwrap().to_str().unwrap();
    let [online, vacuumed] = ["online", "vacuumed"].map(|kind| beside.join(format!("{name}.{kind}")));
    let conn = Connection::open(db).unwrap();
    conn.backup("main", &online, None::<fn(rusqlite::backup::Progress)>).unwrap();
    conn.execute("VACUUM INTO ?1", [vacuumed.to_str().unwrap()]).unwrap();
    vec![online, vacuumed]
}

#[tokio::test]
async fn a_database_put_back_beside_the_log_of_another_is_refused_and_taken_once_that_is_gone() {
    let settings = |home: Home| {
        home.with("quarantine.enabled", true).with("quarantine.key", "a key of over sixteen bytes")
    };
    let home = settings(Home::embedded());
    let gateway = home.serve().await;
    deliver(&gateway, &ids_of(0..5)).await;
    let mut all = copies(&home.database(), &home.path(""));
    all.extend(copies(&home.path("data/quarantine.db"), &home.path("")));
    let ours = back_up(&home, "backup");
    all.extend(["hookgate.db", "quarantine.db"].map(|name| Path::new(&ours).join(name)));
    deliver(&gateway, &ids_of(5..9)).await;
    assert_eq!(gateway.deliver(&basiq_by_another_secret("kept")).await.status, 401);
    until("it is kept", async || gateway.metric("hookgate_quarantine_requests").await == 1.0).await;
    gateway.kill9();
    for copy in all {
        let name = copy.file_name().unwrap().to_str().unwrap();
        let name = if name.starts_with("quarantine") { "quarantine.db" } else { "hookgate.db" };
        let (db, log) = (home.path("data").join(name), home.path("data").join(format!("{name}-wal")));
        let [killed, killed_log] = [&db, &log].map(|file| fs::read(file).unwrap());
        fs::copy(&copy, &db).unwrap();
        let put_back = fs::read(&copy).unwrap();
        let names_it = format!("{name}-wal");
        run(&home, &["check"]).refused(&names_it);
        run(&home, &["serve"]).refused(&names_it);
        if name == "hookgate.db" {
            run(&home, &["events", "tail", "--json"]).refused(&names_it);
        } else {
            run(&home, &["quarantine", "list"]).refused(&names_it);
        }
        run(&home, &["backup", home.path("no").to_str().unwrap()]).refused(&names_it);
        assert_eq!(
            (fs::read(&db).unwrap(), fs::read(&log).unwrap()),
            (put_back, killed_log.clone()),
            "untouched"
        );
        fs::remove_file(&log).unwrap();
        let _ = fs::remove_file(home.path("data").join(format!("{name}-shm")));
        let gateway = home.serve().await;
        if name == "hookgate.db" {
            assert_eq!(in_queue(&home), ids_of(0..5));
        } else {
            assert_eq!(gateway.metric("hookgate_quarantine_requests").await, 0.0);
        }
        gateway.kill9();
        // As it was killed first.
        for (file, content) in [(&db, killed), (&log, killed_log)] {
            fs::write(file, content).unwrap();
        }
        let _ = fs::remove_file(home.path("data").join(format!("{name}-shm")));
        let lock = home.path("data").join(name.replace(".db", ".lock"));
        fs::write(lock, "").unwrap();
        let gateway = home.serve().await;
        assert_eq!(in_queue(&home), ids_of(0..9), "{name}");
        gateway.kill9();
    }
}

/// The log is reset while this goes on, and the gateway is killed wherever it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_was_killed_always_starts_again() {
    let home = Home::embedded();
    let (mut taken, mut copied) = (Vec::new(), None);
    for round in 0..12 {
        let gateway = home.serve().await;
        let load = Load::spread(gateway.edge);
        load.taken(40 + 37 * round).await;
        if round % 4 == 1 {
            // Another process resets the log meanwhile.
            let conn = Connection::open(home.database()).unwrap();
            let _ = conn.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()));
            copied = copies(&home.database(), &home.path("")).pop();
            load.taken(40).await;
        }
        gateway.kill9();
        taken.extend(load.finish().await.taken);
        run(&home, &["check"]).ok();
        if let Some(copy) = copied.take() {
            let killed = fs::read(home.database()).unwrap();
            fs::copy(&copy, home.database()).unwrap();
            run(&home, &["serve"]).refused("hookgate.db-wal");
            fs::write(home.database(), killed).unwrap();
            fs::remove_file(copy.with_file_name("hookgate.db.online")).unwrap();
            fs::remove_file(copy).unwrap();
        }
    }
    let _gateway = home.serve().await;
    let queue = in_queue(&home);
    assert!(taken.iter().all(|id| queue.contains(id)));
}
