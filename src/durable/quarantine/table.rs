//! The quarantine's tables: one row for each kept request, the bytes that each source and client uses, and the
//! requested verifications with their verdicts.
//!
//! Keeps true: all rows use at most `max_bytes`, each source at most its share, each client at most a quarter of that
//! share. A new row deletes the oldest rows of the client that uses most, so one client's flood does not delete other
//! clients' requests. Triggers count the bytes, so changes by other processes count too.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::seal::{Label, Sealed};
use crate::base::peer;

/// `held` is what a row uses of `max_bytes`. In `quarantine_held`, the row with network `*` is the source's total.
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS quarantine (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    arrived INTEGER NOT NULL,
    source TEXT NOT NULL,
    provider TEXT NOT NULL,
    reason TEXT NOT NULL,
    reject TEXT NOT NULL,
    client TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    network TEXT NOT NULL,
    held INTEGER NOT NULL,
    key BLOB NOT NULL,
    nonce BLOB NOT NULL,
    sealed BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS quarantine_arrived ON quarantine (arrived);
CREATE INDEX IF NOT EXISTS quarantine_network ON quarantine (source, network, seq);
CREATE TABLE IF NOT EXISTS quarantine_held (
    source TEXT NOT NULL,
    network TEXT NOT NULL,
    requests INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (source, network)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS quarantine_most ON quarantine_held (source, bytes) WHERE network <> '*';
CREATE INDEX IF NOT EXISTS quarantine_sources ON quarantine_held (bytes) WHERE network = '*';
CREATE TRIGGER IF NOT EXISTS quarantine_in AFTER INSERT ON quarantine BEGIN
    INSERT INTO quarantine_held VALUES (new.source, new.network, 1, new.held), (new.source, '*', 1, new.held)
        ON CONFLICT DO UPDATE SET requests = requests + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER IF NOT EXISTS quarantine_out AFTER DELETE ON quarantine BEGIN
    UPDATE quarantine_held SET requests = requests - 1, bytes = bytes - old.held
        WHERE source = old.source AND network IN (old.network, '*');
    DELETE FROM quarantine_held
        WHERE source = old.source AND network IN (old.network, '*') AND requests <= 0;
END;
CREATE TABLE IF NOT EXISTS quarantine_asked (
    run TEXT NOT NULL,
    seq INTEGER NOT NULL,
    dry_run INTEGER NOT NULL,
    at INTEGER NOT NULL,
    verdict TEXT,
    PRIMARY KEY (run, seq)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS quarantine_unanswered ON quarantine_asked (seq) WHERE verdict IS NULL;
CREATE INDEX IF NOT EXISTS quarantine_asked_at ON quarantine_asked (at);
";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) requests: i64,
    pub(super) bytes: i64,
}

/// Limits in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// For all rows.
    pub(super) all: i64,
    /// For one source.
    pub(super) source: i64,
    /// For one client of a source.
    pub(super) client: i64,
}

impl Bounds {
    /// Splits `max_bytes` among that many sources.
    pub(super) fn new(max_bytes: u64, sources: usize) -> Bounds {
        let all = i64::try_from(max_bytes).unwrap_or(i64::MAX);
        let source = all / i64::try_from(sources.max(1)).unwrap_or(i64::MAX);
        Bounds { all, source, client: source / CLIENT_FRACTION }
    }
}

/// A requested verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReverifyRequest {
    pub(super) run: String,
    pub(super) seq: i64,
    pub(super) dry_run: bool,
}

/// The result of [`put`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Put {
    /// Whether the request was stored.
    pub(super) kept: bool,
    /// The sources of the rows deleted to make room.
    pub(super) pushed_out: Vec<String>,
}

/// Stores a request, and deletes older ones where a limit needs it.
pub(super) fn put(conn: &Connection, label: &Label, sealed: &Sealed, bounds: Bounds) -> Result<Put> {
    let held = i64::try_from(sealed.text.len()).unwrap_or(i64::MAX).saturating_add(ROW_BYTES);
    let mut pushed_out = Vec::new();
    if held > bounds.client {
        return Ok(Put { kept: false, pushed_out });
    }
    let (source, network) = (&*label.source, peer::network(label.client).to_string());
    let mut push_out = |source: &str, network: &str| -> Result<bool> {
        let gone = conn
            .prepare_cached(
                "DELETE FROM quarantine WHERE seq =
                    (SELECT seq FROM quarantine WHERE source = ?1 AND network = ?2 ORDER BY seq LIMIT 1)",
            )?
            .execute([source, network])?;
        pushed_out.extend((gone > 0).then(|| source.to_owned()));
        Ok(gone > 0)
    };
    // Each loop ends when nothing is left to delete.
    while used_bytes(conn, source, &network)? + held > bounds.client && push_out(source, &network)? {}
    while used_bytes(conn, source, ALL)? + held > bounds.source {
        let Some(most) = largest_client(conn, source)? else { break };
        if !push_out(source, &most)? {
            break;
        }
    }
    // Needed after a reload changed the number of sources. Otherwise the shares already leave room.
    while totals(conn)?.bytes + held > bounds.all {
        let Some(largest) = largest_source(conn)? else { break };
        let Some(most) = largest_client(conn, &largest)? else { break };
        if !push_out(&largest, &most)? {
            break;
        }
    }
    conn.prepare_cached(
        "INSERT INTO quarantine
            (arrived, source, provider, reason, reject, client, bytes, network, held, key, nonce, sealed)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?
    .execute(params![
        label.arrived.as_microsecond(),
        source,
        label.provider,
        label.reason,
        label.reject,
        label.client.to_string(),
        i64::try_from(label.bytes).unwrap_or(i64::MAX),
        network,
        held,
        sealed.key,
        sealed.nonce,
        sealed.text,
    ])?;
    Ok(Put { kept: true, pushed_out })
}

fn used_bytes(conn: &Connection, source: &str, network: &str) -> Result<i64> {
    let taken = conn
        .prepare_cached("SELECT bytes FROM quarantine_held WHERE source = ?1 AND network = ?2")?
        .query_row([source, network], |row| row.get(0))
        .optional()?;
    Ok(taken.unwrap_or(0))
}

fn largest_client(conn: &Connection, source: &str) -> Result<Option<String>> {
    conn.prepare_cached(
        "SELECT network FROM quarantine_held WHERE source = ?1 AND network <> '*' ORDER BY bytes DESC LIMIT 1",
    )?
    .query_row([source], |row| row.get(0))
    .optional()
}

fn largest_source(conn: &Connection) -> Result<Option<String>> {
    conn.prepare_cached("SELECT source FROM quarantine_held WHERE network = '*' ORDER BY bytes DESC LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()
}

pub(super) fn totals(conn: &Connection) -> Result<Totals> {
    conn.prepare_cached(
        "SELECT coalesce(sum(requests), 0), coalesce(sum(bytes), 0) FROM quarantine_held WHERE network = '*'",
    )?
    .query_row([], |row| Ok(Totals { requests: row.get(0)?, bytes: row.get(1)? }))
}

/// Deletes some requests that arrived before `arrived`, and all verifications requested before `asked`: Unix time in
/// microseconds.
pub(super) fn purge(conn: &Connection, arrived: i64, asked: i64) -> Result<()> {
    conn.prepare_cached(
        "DELETE FROM quarantine WHERE seq IN
            (SELECT seq FROM quarantine WHERE arrived < ?1 ORDER BY arrived LIMIT ?2)",
    )?
    .execute([arrived, PURGED_AT_ONCE])?;
    conn.prepare_cached("DELETE FROM quarantine_asked WHERE at < ?1")?.execute([asked]).map(drop)
}

/// Some requested verifications without a verdict, oldest first.
pub(super) fn pending_requests(conn: &Connection) -> Result<Vec<ReverifyRequest>> {
    conn.prepare_cached(
        "SELECT run, seq, dry_run FROM quarantine_asked WHERE verdict IS NULL ORDER BY seq LIMIT ?1",
    )?
    .query_map([VERIFIED_AT_ONCE], |row| {
        Ok(ReverifyRequest { run: row.get(0)?, seq: row.get(1)?, dry_run: row.get(2)? })
    })?
    .collect()
}

/// A row. `Some(None)`: its label cannot be read, so the row was tampered with.
pub(super) fn row(conn: &Connection, seq: i64) -> Result<Option<Option<(Label, Sealed)>>> {
    conn.prepare_cached(&format!("SELECT {LABEL}, key, nonce, sealed FROM quarantine WHERE seq = ?1"))?
        .query_row([seq], |row| {
            let text = |at: &str| row.get::<_, Vec<u8>>(at).ok();
            let sealed = || Some(Sealed { key: text("key")?, nonce: text("nonce")?, text: text("sealed")? });
            Ok(label(row).zip(sealed()))
        })
        .optional()
}

/// The columns of [`Label`].
pub(super) const LABEL: &str = "arrived, source, provider, reason, reject, client, bytes";

/// Reads the columns of [`LABEL`]; none if the row was tampered with.
pub(super) fn label(row: &Row<'_>) -> Option<Label> {
    let text = |column: &str| row.get::<_, String>(column).ok();
    Some(Label {
        arrived: Timestamp::from_microsecond(row.get("arrived").ok()?).ok()?,
        source: text("source")?.into(),
        provider: text("provider")?,
        reason: text("reason")?,
        reject: text("reject")?,
        client: text("client")?.parse().ok()?,
        bytes: row.get::<_, i64>("bytes").ok()?.try_into().ok()?,
    })
}

/// Stores a verdict. `settled`: also deletes the request.
pub(super) fn answer(conn: &Connection, asked: &ReverifyRequest, verdict: &str, settled: bool) -> Result<()> {
    if settled {
        conn.prepare_cached("DELETE FROM quarantine WHERE seq = ?1")?.execute([asked.seq])?;
    }
    conn.prepare_cached("UPDATE quarantine_asked SET verdict = ?3 WHERE run = ?1 AND seq = ?2")?
        .execute(params![asked.run, asked.seq, verdict])
        .map(drop)
}

const ALL: &str = "*";
/// A client gets this fraction of its source's share.
pub(super) const CLIENT_FRACTION: i64 = 4;
/// The size of a row and its index entries, besides the encrypted part.
const ROW_BYTES: i64 = 512;
const PURGED_AT_ONCE: i64 = 1000;
const VERIFIED_AT_ONCE: i64 = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(TABLES).unwrap();
        conn
    }

    fn label(source: &str, client: &str, n: i64) -> Label {
        Label {
            arrived: Timestamp::from_microsecond(n).unwrap(),
            source: source.into(),
            provider: "basiq".to_owned(),
            reason: "signature_mismatch".to_owned(),
            reject: format!("rej_{n}"),
            client: client.parse().unwrap(),
            bytes: 1,
        }
    }

    fn sealed(bytes: usize) -> Sealed {
        Sealed { key: vec![1; 8], nonce: vec![2; 12], text: vec![3; bytes] }
    }

    /// A row of this takes 1000 bytes.
    const TEXT: usize = 488;

    fn clients(conn: &Connection, source: &str) -> Vec<String> {
        conn.prepare("SELECT client FROM quarantine WHERE source = ?1 ORDER BY seq")
            .unwrap()
            .query_map([source], |row| row.get(0))
            .unwrap()
            .collect::<Result<_>>()
            .unwrap()
    }

    #[test]
    fn a_flood_from_one_client_pushes_out_only_itself() {
        let (conn, bounds) = (open(), Bounds::new(16_000, 2));
        put(&conn, &label("a", "192.0.2.1", 0), &sealed(TEXT), bounds).unwrap();
        put(&conn, &label("b", "192.0.2.2", 0), &sealed(TEXT), bounds).unwrap();
        for n in 1..100 {
            let put = put(&conn, &label("a", "192.0.2.2", n), &sealed(TEXT), bounds).unwrap();
            assert!(put.kept);
            assert!(put.pushed_out.iter().all(|source| source == "a"));
        }
        assert_eq!(clients(&conn, "a"), ["192.0.2.1", "192.0.2.2", "192.0.2.2"]);
        assert_eq!(clients(&conn, "b"), ["192.0.2.2"]);
        assert_eq!(totals(&conn).unwrap(), Totals { requests: 4, bytes: 4000 });
    }

    #[test]
    fn many_flooding_clients_push_out_each_other_before_one_that_sent_less() {
        let (conn, bounds) = (open(), Bounds::new(16_000, 1));
        put(&conn, &label("a", "192.0.2.1", 0), &sealed(TEXT), bounds).unwrap();
        for n in 0..400 {
            let client = format!("2001:db8:0:{:x}::{n:x}", n % 7);
            put(&conn, &label("a", &client, n), &sealed(TEXT), bounds).unwrap();
        }
        assert!(clients(&conn, "a").contains(&"192.0.2.1".to_owned()));
        assert_eq!(totals(&conn).unwrap().bytes, 16_000);
    }

    #[test]
    fn a_source_that_is_new_takes_its_share_of_those_that_had_more() {
        let conn = open();
        for n in 0..16 {
            let client = format!("192.0.2.{n}");
            put(&conn, &label("a", &client, n), &sealed(TEXT), Bounds::new(16_000, 1)).unwrap();
        }
        let bounds = Bounds::new(16_000, 2);
        for n in 0..8 {
            let client = format!("192.0.2.{n}");
            let put = put(&conn, &label("b", &client, n), &sealed(TEXT), bounds).unwrap();
            assert_eq!(put.pushed_out, ["a"]);
        }
        assert_eq!((clients(&conn, "a").len(), clients(&conn, "b").len()), (8, 8));
        let too_large = put(&conn, &label("b", "192.0.2.99", 9), &sealed(1489), bounds).unwrap();
        assert_eq!(too_large, Put { kept: false, pushed_out: Vec::new() });
    }

    #[test]
    fn what_any_hand_deletes_is_no_longer_counted() {
        let (conn, bounds) = (open(), Bounds::new(16_000, 1));
        for n in 0..3 {
            put(&conn, &label("a", "192.0.2.1", n), &sealed(TEXT), bounds).unwrap();
        }
        purge(&conn, 2, 0).unwrap();
        assert_eq!(totals(&conn).unwrap(), Totals { requests: 1, bytes: 1000 });
        conn.execute("DELETE FROM quarantine", []).unwrap();
        assert_eq!(totals(&conn).unwrap(), Totals::default());
        let left: i64 = conn.query_row("SELECT count(*) FROM quarantine_held", [], |row| row.get(0)).unwrap();
        assert_eq!(left, 0);
    }
}
