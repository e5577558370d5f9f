use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    command: AuditCommand,
}

fn parse(line: &str) -> AuditCommand {
    Line::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{error}")).command
}

fn record(seq: u64, change: impl FnOnce(&mut Record)) -> String {
    let zeros = "0".repeat(64);
    let line = format!(
        "{{\"seq\":{seq},\"ts\":\"2026-11-21T10:00:{seq:02}.000000Z\",\"id\":\"rej_{seq}\",\"source\":\"iof\",\
         \"provider\":\"iof\",\"reason\":\"rate_limited\",\"status\":429,\"client\":\"203.0.113.{seq}\",\
         \"method\":\"POST\",\"path\":\"/hooks/iof\",\"headers\":{{}},\"detail\":\"d\",\"prev\":\"{zeros}\",\
         \"hash\":\"{zeros}\"}}"
    );
    let mut record = Record::parse(line.as_bytes()).unwrap();
    change(&mut record);
    record.hash = record.digest().unwrap();
    record.line().unwrap() + "\n"
}

/// A log of five records in two files, and half of a sixth record.
fn log() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, lines: &[String]| std::fs::write(dir.path().join(name), lines.concat()).unwrap();
    let plain = |seq| record(seq, |_| {});
    write("00000000000000000001-20261121T100000Z.jsonl", &[plain(1), plain(2), plain(3)]);
    let other = record(4, |of| {
        of.source = "basiq".to_owned();
        of.suppressed = Some(7);
        of.path = "/\u{1b}[2J\u{202e}é".to_owned();
    });
    write("00000000000000000004-20261121T100004Z.jsonl", &[other, plain(5), "{\"seq\"".to_owned()]);
    dir
}

/// Without a database.
fn log_in(dir: &Path, key: Option<Key>) -> Log<'_> {
    Log { dir, db: Path::new("/no/such/hookgate.db"), key }
}

fn output(line: &str, dir: &Path, json: bool) -> (u8, String) {
    let mut out = Vec::new();
    let code = run(&parse(line), log_in(dir, None), json, &mut out).unwrap();
    (code, String::from_utf8(out).unwrap())
}

fn seqs(line: &str) -> Vec<u64> {
    let (code, text) = output(line, log().path(), true);
    assert_eq!(code, 0);
    text.lines().map(|line| Record::parse(line.as_bytes()).unwrap().seq).collect()
}

#[test]
fn tail_prints_the_last_whole_records_over_files() {
    assert_eq!(seqs("audit tail --no-follow"), [1, 2, 3, 4, 5]);
    assert_eq!(seqs("audit tail --no-follow --lines 3"), [3, 4, 5]);
    assert_eq!(seqs("audit tail --no-follow --lines 0"), [0; 0]);
}

#[test]
fn query_prints_what_matches_every_filter() {
    assert_eq!(seqs("audit query"), [1, 2, 3, 4, 5]);
    assert_eq!(seqs("audit query --source basiq"), [4]);
    assert_eq!(seqs("audit query --reason overloaded"), [0; 0]);
    assert_eq!(seqs("audit query --since 2026-11-21T10:00:02Z --until 2026-11-21T11:00:04+01:00"), [2, 3]);
    assert_eq!(seqs("audit query --client 203.0.113.2"), [2]);
    assert_eq!(seqs("audit query --client 203.0.113.4/31 --source iof"), [5]);
    assert_eq!(seqs("audit query --reason rate_limited"), [1, 2, 3, 4, 5]);
    assert!(Line::try_parse_from("audit query --reason nothing".split(' ')).is_err());
    assert!(Line::try_parse_from("audit query --client nowhere".split(' ')).is_err());
    assert!(Line::try_parse_from("audit query --since yesterday".split(' ')).is_err());
}

#[test]
fn query_finds_the_record_that_an_answer_names() {
    assert_eq!(seqs("audit query --id rej_4"), [4]);
    assert_eq!(seqs("audit query --id rej_4 --source iof"), [0; 0]);
    assert_eq!(seqs("audit query --id rej_44"), [0; 0]);
}

#[test]
fn query_takes_a_date_and_a_time_ago_too() {
    assert_eq!(seqs("audit query --since 2026-11-21 --until 2026-11-22"), [1, 2, 3, 4, 5]);
    assert_eq!(seqs("audit query --until 2026-11-21"), [0; 0]);
    assert_eq!(seqs("audit query --until 1ms"), seqs("audit query --until 2026-11-22"));
    assert_eq!(seqs("audit query --since 36500d"), [1, 2, 3, 4, 5]);
}

#[test]
fn a_line_for_people_cannot_drive_a_terminal() {
    let (_, text) = output("audit query --source basiq", log().path(), false);
    assert!(text.contains("/\\u{1b}[2J\\u{202e}é") && text.contains("(and 7 more)"), "{text}");
    assert_eq!(text.matches(|c: char| c.is_control()).collect::<Vec<_>>(), ["\n"]);
}

#[test]
fn a_follower_reads_on_over_rotation_and_waits_for_whole_lines() {
    let dir = log();
    let mut position = Position::default();
    let mut read = || {
        let mut seqs = Vec::new();
        let each = |_, line: &[u8]| {
            seqs.push(Record::parse(line).unwrap().seq);
            Ok(())
        };
        position.advance(dir.path(), each).unwrap();
        seqs
    };
    assert_eq!(read(), [1, 2, 3, 4, 5]);
    assert_eq!(read(), [0; 0]);
    let second = dir.path().join("00000000000000000004-20261121T100004Z.jsonl");
    let whole = std::fs::read_to_string(&second).unwrap().replace("{\"seq\"\n", "");
    let whole = whole.trim_end_matches("{\"seq\"").to_owned();
    std::fs::write(&second, whole.clone() + &record(6, |_| {})).unwrap();
    std::fs::write(dir.path().join("00000000000000000007-20261121T100007Z.jsonl"), record(7, |_| {}))
        .unwrap();
    std::fs::remove_file(dir.path().join("00000000000000000001-20261121T100000Z.jsonl")).unwrap();
    assert_eq!(read(), [6, 7]);
}

#[test]
fn a_slow_follower_is_told_which_records_it_missed() {
    let dir = log();
    let (mut position, mut detector, mut gaps) = (Position::default(), GapDetector::default(), Vec::new());
    let mut read = |gaps: &mut Vec<(u64, u64)>| {
        let each = |first, line: &[u8]| {
            gaps.extend(detector.check(first, line));
            Ok(())
        };
        position.advance(dir.path(), each).unwrap();
    };
    read(&mut gaps);
    std::fs::write(dir.path().join("00000000000000000009-20261121T100009Z.jsonl"), record(9, |_| {}))
        .unwrap();
    read(&mut gaps);
    read(&mut gaps);
    assert_eq!(gaps, [(6, 8)]);
}

#[test]
fn verify_exits_1_and_names_the_record() {
    let dir = log();
    let (code, text) = output("audit verify", dir.path(), false);
    assert_eq!(code, 1);
    assert!(text.starts_with("broken: 00000000000000000001-20261121T100000Z.jsonl:1: record 1: "), "{text}");
    let (code, text) = output("audit verify", dir.path(), true);
    assert_eq!((code, text.lines().count()), (1, 1));
    assert!(text.contains("\"status\":\"broken\"") && text.contains("\"line\":1"), "{text}");

    let empty = tempfile::tempdir().unwrap();
    assert_eq!(output("audit verify", empty.path(), false), (0, format!("ok: no records\n{UNCOMPARED}")));
    assert!(
        run(&parse("audit verify"), log_in(&empty.path().join("no"), None), false, &mut Vec::new()).is_err()
    );
}

#[test]
fn verify_misses_the_anchors_that_are_due_by_now() {
    let dir = tempfile::tempdir().unwrap();
    let verified = |written: jiff::Timestamp| {
        let record = record(1, |of| of.ts = format!("{written:.6}"));
        std::fs::write(dir.path().join("00000000000000000001-20261121T100000Z.jsonl"), record).unwrap();
        let key = Key::new(&crate::config::secret::Secret::new("sixteen chars...")).unwrap();
        let mut out = Vec::new();
        let code = run(&parse("audit verify"), log_in(dir.path(), Some(key)), false, &mut out).unwrap();
        (code, String::from_utf8(out).unwrap())
    };
    let now = crate::base::clock::Clock::System.now();
    let (code, said) = verified(now);
    assert!(code == 0 && said.ends_with("note: not anchored yet\n"), "{said}");
    let (code, said) = verified(now - std::time::Duration::from_secs(3600));
    assert!(code == 1 && said.starts_with("unanchored: no anchor vouches for these 1 records"), "{said}");
}

#[test]
fn a_reader_that_hangs_up_ends_it_quietly() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    assert_eq!(run(&parse("audit tail"), log_in(log().path(), None), false, &mut Closed).unwrap(), 0);
}

const UNCOMPARED: &str = "note: not compared with the head that a gateway keeps: there is no hookgate.db\n";
