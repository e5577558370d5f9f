//! The data folder and the secrets' files as an operator may leave them: what `check` and `serve` say, and that looking
//! changes nothing.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;

use support::SmallDisk;
use support::*;

/// Secrets in files, and a data folder of this name.
fn home(data_dir: &str) -> Home {
    let home = Home::new(&format!(
        "data_dir = {data_dir:?}\n[sources.a]\nprovider = \"basiq\"\nsecrets = [{{ file = \"one\" }}, {{ file = \"two\" }}]\n\
         [sources.b]\nprovider = \"securitize\"\npath_token = {{ file = \"token\" }}\n"
    ));
    for name in ["one", "two"] {
        mode(&home.write(name, "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="), 0o600);
    }
    mode(&home.write("token", "a-path-token-of-thirty-two-bytes"), 0o600);
    home
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Every path in a folder with its mode, and when it last changed.
fn state(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let of = path.symlink_metadata().unwrap();
        found.push(format!("{} {:o} {:?}", path.display(), of.permissions().mode(), of.modified().unwrap()));
        if of.is_dir() {
            found.extend(state(&path));
        }
    }
    found.sort();
    found
}

/// What `check` prints; it must change nothing, and `serve` must log or print the same.
fn check(home: &Home) -> Ran {
    let before = state(&home.path(""));
    let ran = home.run(&["check"]);
    assert_eq!(state(&home.path("")), before, "check has changed something: {ran:?}");
    if ran.code == 1 {
        let served = home.run(&["serve"]);
        assert_eq!((served.code, &served.out), (1, &ran.out), "{served:?}");
        assert_eq!(state(&home.path("")), before, "serve has changed something: {served:?}");
    }
    ran
}

#[test]
fn a_data_dir_that_is_fit_or_is_to_be_made_needs_no_word() {
    for data_dir in ["data", "a/b/c", "./x/../data"] {
        let home = home(data_dir);
        let ran = check(&home);
        assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{ran:?}");
    }
    let home = home("data");
    fs::create_dir(home.path("data")).unwrap();
    mode(&home.path("data"), 0o700);
    assert_eq!(check(&home).out, "");
}

#[test]
fn a_data_dir_that_cannot_be_made_is_an_error_that_names_what_is_in_the_way() {
    let home = home("data");
    fs::write(home.path("data"), "").unwrap();
    let ran = check(&home);
    assert!(
        ran.code == 1 && ran.out.contains(":3:12: data_dir: ") && ran.out.contains("not a folder"),
        "{ran:?}"
    );
    fs::remove_file(home.path("data")).unwrap();
    symlink("nowhere", home.path("data")).unwrap();
    let ran = check(&home);
    assert!(ran.code == 1 && ran.out.contains("a link to a folder that is not there"), "{ran:?}");
    let under_a_file = self::home("one/data");
    let ran = check(&under_a_file);
    assert!(ran.code == 1 && ran.out.contains("data_dir: cannot"), "{ran:?}");
}

#[test]
fn a_data_dir_on_a_read_only_disk_is_an_error_for_root_too() {
    let Some(disk) = SmallDisk::mount(1) else { return };
    let made = disk.path().join("data");
    fs::create_dir(&made).unwrap();
    mode(&made, 0o700);
    disk.read_only();
    for (data_dir, says) in [(made.clone(), "cannot write to"), (disk.path().join("new/data"), "cannot make")]
    {
        let ran = check(&home(data_dir.to_str().unwrap()));
        assert!(
            ran.code == 1 && ran.out.contains(says) && ran.out.contains("Read-only file system"),
            "{ran:?}"
        );
    }
}

#[test]
fn a_full_disk_is_warned_of() {
    let Some(disk) = SmallDisk::mount(4) else { return };
    let home = home(disk.path().join("data").to_str().unwrap());
    let warns = |ran: &Ran| ran.out.contains("warning: data_dir: the disk of") && ran.out.contains("is full");
    let ran = check(&home);
    assert!(ran.code == 0 && !warns(&ran), "{ran:?}");
    let _filler = disk.fill();
    let ran = home.run(&["check"]);
    assert!(ran.code == 0 && warns(&ran), "{ran:?}");
}

#[test]
fn a_command_that_may_not_read_the_data_dir_does_not_say_that_nothing_is_there() {
    let home = home("data");
    let gateway = home.gateway();
    assert_eq!(gateway.ask(&Request::get("/nothing")).status, 404);
    gateway.stop();
    mode(&home.path(""), 0o755);
    let data_dir = home.path("data");
    for (mode_of_it, names) in [(0o700, data_dir.clone()), (0o755, data_dir.join("audit"))] {
        mode(&data_dir, mode_of_it);
        for command in [
            &["events", "tail"][..],
            &["events", "dead", "list"],
            &["audit", "query"],
            &["audit", "verify"],
            &["audit", "tail", "--no-follow"],
            &["quarantine", "list"],
            &["backup", "/tmp/never-made"],
        ] {
            let mut of_another = home.command(command);
            let ran = match of_another.uid(NOBODY).gid(NOBODY).output() {
                Ok(ran) => ran,
                Err(why) if why.kind() == std::io::ErrorKind::PermissionDenied => {
                    eprintln!("SKIPPED: only root can run a command as another user");
                    return;
                }
                Err(why) => panic!("{why}"),
            };
            let said = String::from_utf8(ran.stderr).unwrap();
            assert_eq!(ran.status.code(), Some(1), "{command:?}: {said}");
            assert!(
                said.contains(&format!("cannot read {}: Permission denied", names.display()))
                    && said.contains("gateway's user"),
                "{command:?}: {said}"
            );
        }
    }
}

const NOBODY: u32 = 65534;

#[test]
fn what_others_may_read_or_write_is_warned_of_and_not_what_only_the_owner_may() {
    let home = home("data");
    fs::create_dir(home.path("data")).unwrap();
    let modes = [
        (0o777, "may write"),
        (0o1777, "may write"),
        (0o702, "may write"),
        (0o770, "may write"),
        (0o755, "may read"),
        (0o701, "may read"),
        (0o700, ""),
        (0o750, ""),
    ];
    for (bits, says) in modes {
        mode(&home.path("data"), bits);
        let ran = check(&home);
        let warned =
            ran.out.contains(":3:12: warning: data_dir: ") && ran.out.contains(&format!("{bits:04o}"));
        assert_eq!((ran.code, warned), (0, !says.is_empty()), "{ran:?}");
        assert!(ran.out.contains(says) && ran.lines().len() <= 1, "{ran:?}");
    }
    for (name, key) in
        [("one", "sources.a.secrets"), ("two", "sources.a.secrets"), ("token", "sources.b.path_token")]
    {
        for (bits, warned) in [(0o666, true), (0o622, true), (0o664, true), (0o644, false), (0o400, false)] {
            mode(&home.path(name), bits);
            let ran = check(&home);
            assert_eq!((ran.code, ran.lines().len()), (0, usize::from(warned)), "{name} {bits:o}: {ran:?}");
            let says = ran.out.contains(&format!("warning: {key}: "))
                && ran.out.contains(&format!("/{name} has mode"));
            assert_eq!(says, warned, "{ran:?}");
        }
        mode(&home.path(name), 0o600);
    }
    // A link has the mode of what it leads to.
    fs::remove_file(home.path("one")).unwrap();
    symlink("two", home.path("one")).unwrap();
    assert_eq!(check(&home).out, "");
}

#[test]
fn serve_logs_what_check_warns_of() {
    let home = home("data");
    fs::create_dir(home.path("data")).unwrap();
    mode(&home.path("data"), 0o755);
    mode(&home.path("two"), 0o666);
    let (code, log) = home.gateway().stop();
    assert!(
        code == 0 && log.contains("others may read it") && log.contains("others may write another secret"),
        "{log}"
    );
}
