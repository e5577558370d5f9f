//! Checks Redis: its version, eviction, persistence, replicas, clock, and whether it takes events and claims.
//!
//! Keeps true: every master is checked. A command that the user may not run is a finding, and the other checks go on.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use tokio::time::timeout;

use super::{Finding, Setting, TIMEOUT, listed, no_answer};
use crate::base::clock::Clock;
use crate::durable::inbox::redis::Servers;
use crate::durable::inbox::redis::advice;
use crate::durable::inbox::redis::backlog::Backlog;
use crate::durable::inbox::redis::claims::Claims;
use crate::durable::inbox::redis::inspect::{self, Inspected};
use crate::durable::inbox::redis::lag::{Group, StreamInfo};
use crate::durable::inbox::redis::write_probe::{self, WriteProbe};

/// How the config uses Redis.
pub(super) struct Usage {
    /// The streams of the queue, if it is in Redis.
    pub(super) streams: Vec<String>,
    /// The limit of their length.
    pub(super) backlog: Backlog,
    /// How many replicas must have each event.
    pub(super) ack_replicas: u32,
    /// Whether the config says that Redis is a cluster.
    pub(super) cluster: bool,
    /// The name of the queue whose claims are in Redis, if the queue itself is elsewhere.
    pub(super) claims: Option<String>,
}

/// Checks every master, its streams and its claims.
pub(super) async fn check(servers: &Servers, usage: &Usage, clock: &Clock) -> Vec<Finding> {
    let unreachable = |what: String| Finding::new(Setting::RedisUnreachable, what);
    let masters = match timeout(TIMEOUT, inspect::masters(servers)).await {
        Ok(Ok(masters)) if masters.is_empty() => {
            return vec![unreachable("no node has any slots".to_owned())];
        }
        Ok(Ok(masters)) => masters,
        Ok(Err(why)) => return vec![unreachable(why)],
        Err(_) => return vec![unreachable(no_answer())],
    };
    let mut found = Vec::new();
    for Inspected { name, key, connection } in masters {
        let asked = match connection {
            Ok(mut connection) => {
                match timeout(TIMEOUT, check_master(&mut connection, usage, &key, clock)).await {
                    Ok(asked) => asked.map_err(|why| servers.explain(&why.to_string())),
                    Err(_) => Err(no_answer()),
                }
            }
            Err(why) => Err(why),
        };
        let findings = asked.unwrap_or_else(|why| vec![unreachable(why)]);
        found.extend(
            findings.into_iter().map(|one| Finding::new(one.setting, format!("{name}: {}", one.what))),
        );
    }
    found
}

async fn check_master(
    connection: &mut MultiplexedConnection,
    usage: &Usage,
    key: &str,
    clock: &Clock,
) -> RedisResult<Vec<Finding>> {
    let mut found = Vec::new();
    let mut question = redis::cmd("INFO");
    question.arg("server").arg("memory").arg("persistence").arg("replication");
    match allowed::<String>(question.query_async(connection).await)? {
        Some(info) => {
            let info = fields(&info);
            if let Some(other) = check_mode(&info, usage.cluster) {
                // The other checks would ask the wrong server.
                return Ok(vec![other]);
            }
            found.extend(check_version(&info));
            found.extend(check_eviction(&info));
            found.extend(check_replicas(&info, usage));
            if info.get("aof_enabled") != Some(&"1") {
                found.extend(check_save_points(connection).await?);
            }
        }
        None => found.push(unreadable("INFO", "its version, maxmemory-policy and persistence are")),
    }
    let before = clock.now();
    match allowed(redis::cmd("TIME").query_async(connection).await)? {
        Some(theirs) => found.extend(check_clock(before, theirs, clock.now())),
        None => found.push(unreadable("TIME", "whether its clock agrees with ours is")),
    }
    if let Some(why) = inspect::refusal(connection, usage.cluster.then_some(key)).await? {
        // The checks of streams and claims would fail in the same way.
        found.push(writes_refused(&why));
        return Ok(found);
    }
    if !usage.streams.is_empty() {
        let probes = write_probe::ask(connection, &usage.streams, &usage.backlog).await?;
        for (stream, probe) in usage.streams.iter().zip(&probes) {
            let Some(info) = StreamInfo::of(connection, stream).await else { continue };
            found.extend(check_ids(stream, &info));
            if let Some(WriteProbe::Full(holders)) = probe {
                found.push(stream_full(stream, usage.backlog.max(), holders, &info));
            }
        }
        found.extend(streams_refused(&usage.streams, probes));
    }
    if let Some(queue) = &usage.claims {
        found.extend(Claims::new(queue, key).ask(connection).await?.map(|why| claims_refused(&why)));
    }
    Ok(found)
}

/// The answer, or `None` if this user may not run the command or the server has disabled it.
fn allowed<T>(answer: RedisResult<T>) -> RedisResult<Option<T>> {
    match answer {
        Err(why) if matches!(why.code(), Some("NOPERM" | "ERR")) => Ok(None),
        answer => answer.map(Some),
    }
}

fn unreadable(command: &str, unknown: &str) -> Finding {
    Finding::new(Setting::RedisUnreadable, format!("{command} is not allowed: {unknown} not known"))
}

fn fields(info: &str) -> HashMap<&str, &str> {
    info.lines().filter_map(|line| line.split_once(':')).collect()
}

/// Finds a server of another kind than the config says.
fn check_mode(info: &HashMap<&str, &str>, cluster: bool) -> Option<Finding> {
    let what = match info.get("redis_mode").copied() {
        Some("sentinel") => {
            "it is a Sentinel, which stores no events: set redis.sentinel to the name of the master that it watches"
        }
        Some("cluster") if !cluster => {
            "it is a node of a cluster, which refuses the streams of other nodes: set redis.cluster = true"
        }
        _ => return None,
    };
    Some(Finding::new(Setting::RedisUnreachable, what))
}

fn check_version(info: &HashMap<&str, &str>) -> Option<Finding> {
    let version = info.get("redis_version").copied().unwrap_or("unknown");
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    let what = || format!("version {version}; 7.0 or newer is needed");
    major.is_none_or(|major| major < 7).then(|| Finding::new(Setting::RedisVersion, what()))
}

fn check_eviction(info: &HashMap<&str, &str>) -> Option<Finding> {
    let policy = info.get("maxmemory_policy").copied().unwrap_or("unknown");
    let what = || {
        format!(
            "maxmemory-policy is {policy}: Redis may evict claims or queued events; set maxmemory-policy noeviction"
        )
    };
    (policy != "noeviction").then(|| Finding::new(Setting::RedisEviction, what()))
}

/// Finds a master with fewer replicas than must have each event. A replica is found by its refusal to write.
fn check_replicas(info: &HashMap<&str, &str>, usage: &Usage) -> Option<Finding> {
    let is_master = info.get("role") == Some(&"master");
    let online = |(field, value): &(&&str, &&str)| {
        field.strip_prefix("slave").is_some_and(|n| n.parse::<u32>().is_ok())
            && value.contains("state=online")
    };
    let (needed, online) = (u64::from(usage.ack_replicas), info.iter().filter(online).count() as u64);
    (is_master && !usage.streams.is_empty() && online < needed).then(|| {
        let what = format!(
            "{online} replicas are online, fewer than queue.ack_replicas = {needed}: no event counts as queued; repair the \
             replicas, or lower queue.ack_replicas"
        );
        Finding::new(Setting::RedisWrites, what)
    })
}

/// A server that now refuses writes from every user.
fn writes_refused(why: &str) -> Finding {
    let advice = match why.split(' ').next().unwrap_or_default() {
        "OOM" => "; raise maxmemory, or lower queue.max_backlog",
        "MISCONF" => "; its disk is failing or full: read its log",
        "NOREPLICAS" => "; repair its replicas, or lower min-replicas-to-write",
        "READONLY" => {
            "; it is a replica: set redis.url to its master, or set redis.sentinel or redis.cluster"
        }
        "LOADING" => "; it is still loading its data: wait",
        _ => "",
    };
    Finding::new(Setting::RedisWrites, format!("it refuses writes: {why}{advice}"))
}

/// Makes one finding for each reason, with the streams that it affects.
fn streams_refused(streams: &[String], probes: Vec<Option<WriteProbe>>) -> Vec<Finding> {
    let mut refused: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    for (stream, probe) in streams.iter().zip(probes) {
        if let Some(WriteProbe::Rejected(why)) = probe {
            refused.entry(why).or_default().push(stream);
        }
    }
    let finding = |(why, streams): (String, Vec<&String>)| {
        let what = format!("it refuses events for {}: {why}; {}", listed(&streams), advice::of_stream(&why));
        Finding::new(Setting::RedisStream, what)
    };
    refused.into_iter().map(finding).collect()
}

/// A stream that is full, with the consumer groups that hold it up.
fn stream_full(stream: &str, max: u64, holders: &[String], info: &StreamInfo) -> Finding {
    let describe = |group: &Group| {
        let since = group.oldest.as_deref().and_then(StreamInfo::time);
        let since = since.map(|since| format!(", the oldest since {since}")).unwrap_or_default();
        format!("consumer group {} has not acknowledged {} entries{since}", group.name, group.behind)
    };
    let held = info.groups.iter().filter(|group| holders.contains(&group.name)).map(describe);
    let held: Vec<String> = held.collect();
    let what = if held.is_empty() {
        "it has no consumer group, so no entry is acknowledged; read it with a group, trim it, or raise \
         queue.max_backlog"
            .to_owned()
    } else {
        format!(
            "{}; let it read and XACK, or XGROUP DESTROY it if it has no reader, or set queue.ignore_idle_groups",
            listed(&held)
        )
    };
    let what = format!("{stream} is at queue.max_backlog, {max}, and takes no more events: {what}");
    Finding::new(Setting::RedisBacklog, what)
}

/// Finds a stream whose last id is ahead of the server's clock: its ids do not tell the age of its entries.
fn check_ids(stream: &str, info: &StreamInfo) -> Option<Finding> {
    let ahead = info.ahead()?;
    let what = format!(
        "the last id of {stream}, {}, is {} s ahead of the server's clock: an entry was added by hand, or the clock was wrong. \
         Until the clock catches up, acknowledged entries are trimmed at once, regardless of queue.retain; wait, or use a stream \
         of another queue.name",
        info.last,
        ahead.as_secs()
    );
    Some(Finding::new(Setting::RedisIds, what))
}

fn claims_refused(why: &str) -> Finding {
    let what = format!("it refuses claims: {why}; grant this user the rights on the keys hookgate:*");
    Finding::new(Setting::RedisClaims, what)
}

/// Finds a server without an append-only file that has no save points either.
async fn check_save_points(connection: &mut MultiplexedConnection) -> RedisResult<Option<Finding>> {
    let mut question = redis::cmd("CONFIG");
    question.arg("GET").arg("save");
    let Some(answer) = allowed::<HashMap<String, String>>(question.query_async(connection).await)? else {
        let unknown = "appendonly is no, and whether there are save points is";
        return Ok(Some(unreadable("CONFIG GET save", unknown)));
    };
    let has_points = answer.get("save").is_some_and(|points| !points.trim().is_empty());
    let what = "no persistence: appendonly is no and there are no save points; set appendonly yes";
    Ok((!has_points).then(|| Finding::new(Setting::RedisPersistence, what)))
}

/// Compares their clock (seconds and microseconds) with ours, read before the question and after the answer.
fn check_clock(before: Timestamp, theirs: (i64, i64), after: Timestamp) -> Option<Finding> {
    let seconds = |at: Timestamp| at.as_microsecond() as f64 / 1e6;
    let theirs = theirs.0 as f64 + theirs.1 as f64 / 1e6;
    // Their clock was read at some moment in between, so a slow answer is not a clock difference.
    let apart = (theirs - seconds(after)).max(0.0) + (theirs - seconds(before)).min(0.0);
    let what = || format!("its clock differs from ours by {apart:+.1} s: set both by NTP");
    (apart.abs() > MAX_DIFFERENCE).then(|| Finding::new(Setting::RedisClock, what()))
}

/// Seconds.
const MAX_DIFFERENCE: f64 = 2.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn info(version: &str, policy: &str) -> String {
        format!("# Server\r\nredis_version:{version}\r\n\r\n# Memory\r\nmaxmemory_policy:{policy}\r\n")
    }

    #[test]
    fn a_server_older_than_7_is_found() {
        for good in ["7.0.0", "7.2.4", "8.0.1", "10.1"] {
            assert_eq!(check_version(&fields(&info(good, "noeviction"))), None, "{good}");
        }
        for bad in ["6.2.14", "2.8", "", "x"] {
            let found = check_version(&fields(&info(bad, "noeviction"))).unwrap();
            assert_eq!(found.setting, Setting::RedisVersion);
            assert!(found.what.contains(bad) && found.what.contains("7.0"), "{found:?}");
        }
        assert!(check_version(&fields("")).is_some_and(|found| found.what.contains("unknown")));
    }

    #[test]
    fn nothing_may_be_evicted() {
        assert_eq!(check_eviction(&fields(&info("7.0.0", "noeviction"))), None);
        for bad in ["allkeys-lru", "volatile-ttl"] {
            assert!(
                check_eviction(&fields(&info("7.0.0", bad))).is_some_and(|found| found.what.contains(bad))
            );
        }
        assert!(check_eviction(&fields("")).is_some());
    }

    #[test]
    fn clocks_may_be_two_seconds_apart() {
        let at = |millis| Timestamp::from_millisecond(millis).unwrap();
        let apart =
            |theirs, before, after| check_clock(at(before), theirs, at(after)).map(|found| found.what);
        for theirs in [(98, 0), (100, 0), (102, 0)] {
            assert_eq!(apart(theirs, 100_000, 100_000), None, "{theirs:?}");
        }
        assert!(apart((102, 200_000), 100_000, 100_000).unwrap().contains("+2.2 s"));
        assert!(apart((97, 800_000), 100_000, 100_000).unwrap().contains("-2.2 s"));
        // An answer after five seconds.
        for theirs in [(98, 0), (105, 0), (107, 0)] {
            assert_eq!(apart(theirs, 100_000, 105_000), None, "{theirs:?}");
        }
        assert!(apart((108, 0), 100_000, 105_000).unwrap().contains("+3.0 s"));
    }
}
