//! Retention: events leave the queue oldest first, a few with every commit.
//!
//! Keeps true: an event is readable for at least `retain`. Its row, which remembers the body and the id, stays for at
//! least the window. If the window is longer, the event's text goes first and the row later. The newest row always
//! stays, so that no cursor is reused.

use rusqlite::{Connection, OptionalExtension, Result, params};

/// The progress of the purge.
pub(super) struct Purge {
    retain: i64,
    keep: i64,
    /// The event text is deleted up to this row.
    blanked: i64,
    /// The receipt time of the next row to delete, or to blank. Until it is old enough, nothing is due.
    next_delete: i64,
    next_blank: i64,
}

impl Purge {
    /// Loads the progress of an earlier run. Times are in microseconds.
    pub(super) fn load(conn: &Connection, retain: i64, window: i64) -> Result<Purge> {
        Ok(Purge {
            retain,
            keep: retain.max(window),
            blanked: conn.query_row("SELECT value FROM meta WHERE name = 'blanked'", [], |row| row.get(0))?,
            next_delete: i64::MIN,
            next_blank: i64::MIN,
        })
    }

    /// Deletes up to `rows` rows, and blanks up to `rows` rows. `last` is the newest row.
    pub(super) fn step(&mut self, conn: &Connection, now: i64, last: i64, rows: usize) -> Result<()> {
        let old = now.saturating_sub(self.keep);
        if self.next_delete <= old {
            let due = Due::look(conn, 0, last - 1, old, rows)?;
            if let Some(through) = due.through {
                conn.prepare_cached("DELETE FROM events WHERE seq <= ?1")?.execute([through])?;
            }
            self.next_delete = due.next.unwrap_or(now);
        }
        let old = now.saturating_sub(self.retain);
        if self.retain < self.keep && self.next_blank <= old {
            let due = Due::look(conn, self.blanked, last, old, rows)?;
            if let Some(through) = due.through {
                self.blank(conn, through)?;
            }
            self.next_blank = due.next.unwrap_or(now);
        }
        Ok(())
    }

    /// Whether more is due already.
    pub(super) fn busy(&self, now: i64) -> bool {
        self.next_delete <= now.saturating_sub(self.keep)
            || (self.retain < self.keep && self.next_blank <= now.saturating_sub(self.retain))
    }

    fn blank(&mut self, conn: &Connection, through: i64) -> Result<()> {
        conn.prepare_cached("UPDATE events SET event = NULL WHERE seq > ?1 AND seq <= ?2")?
            .execute([self.blanked, through])?;
        conn.prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'blanked'")?.execute([through])?;
        self.blanked = through;
        Ok(())
    }
}

/// The oldest rows of a range that are due.
struct Due {
    /// The last due row, if any.
    through: Option<i64>,
    /// The receipt time of the row after them, if there is one.
    next: Option<i64>,
}

impl Due {
    fn look(conn: &Connection, after: i64, upto: i64, old: i64, rows: usize) -> Result<Due> {
        let mut select = conn.prepare_cached(
            "SELECT seq, received FROM events WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3",
        )?;
        let mut due = Due { through: None, next: None };
        let mut found = select.query(params![after, upto, rows as i64])?;
        while let Some(row) = found.next()? {
            let received: i64 = row.get(1)?;
            if received > old {
                due.next = Some(received);
                return Ok(due);
            }
            due.through = Some(row.get(0)?);
        }
        if let Some(through) = due.through {
            due.next = conn
                .prepare_cached(
                    "SELECT received FROM events WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT 1",
                )?
                .query_row([through, upto], |row| row.get(0))
                .optional()?;
        }
        Ok(due)
    }
}
