//! Redis: is it new enough, does it take what it is given and keep it, and does its clock agree with ours?
//!
//! Keeps true: every master is asked; a question that is not allowed is told as such, and the others are asked all the same.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use tokio::time::timeout;

use super::{Finding, PATIENCE, Setting, listed, no_answer};
use crate::base::clock::Clock;
use crate::durable::inbox::redis::Servers;
use crate::durable::inbox::redis::advice;
use crate::durable::inbox::redis::backlog::Backlog;
use crate::durable::inbox::redis::claims::Claims;
use crate::durable::inbox::redis::inspect::{self, Inspected};
use crate::durable::inbox::redis::lag::{Group, StreamInfo};
use crate::durable::inbox::redis::write_probe::{self, WriteProbe};

/// What besides a master's settings is asked about.
pub(super) struct Use {
    /// The streams of the queue, where it is here.
    pub(super) streams: Vec<String>,
    /// Their bound.
    pub(super) backlog: Backlog,
    /// How many replicas of each must have an event.
    pub(super) ack_replicas: u32,
    /// Whether the config says that it is a cluster.
    pub(super) cluster: bool,
    /// The queue whose claims are taken here, where it is not.
    pub(super) claims: Option<String>,
}

/// Asks every master of itself, of those of the streams that it has, and of claims.
pub(super) async fn look(servers: &Servers, of: &Use, clock: &Clock) -> Vec<Finding> {
    let unreachable = |what: String| Finding::new(Setting::RedisUnreachable, what);
    let masters = match timeout(PATIENCE, inspect::masters(servers)).await {
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
            Ok(mut connection) => match timeout(PATIENCE, ask(&mut connection, of, &key, clock)).await {
                Ok(asked) => asked.map_err(|why| servers.explain(&why.to_string())),
                Err(_) => Err(no_answer()),
            },
            Err(why) => Err(why),
        };
        let findings = asked.unwrap_or_else(|why| vec![unreachable(why)]);
        found.extend(
            findings.into_iter().map(|one| Finding::new(one.setting, format!("{name}: {}", one.what))),
        );
    }
    found
}

/// What one server says of itself.
async fn ask(
    connection: &mut MultiplexedConnection,
    of: &Use,
    key: &str,
    clock: &Clock,
) -> RedisResult<Vec<Finding>> {
    let mut found = Vec::new();
    let mut question = redis::cmd("INFO");
    question.arg("server").arg("memory").arg("persistence").arg("replication");
    match allowed::<String>(question.query_async(connection).await)? {
        Some(info) => {
            let info = fields(&info);
            if let Some(other) = of_mode(&info, of.cluster) {
                // The rest would be asked of the wrong server.
                return Ok(vec![other]);
            }
            found.extend(of_version(&info));
            found.extend(of_eviction(&info));
            found.extend(of_replicas(&info, of));
            if info.get("aof_enabled") != Some(&"1") {
                found.extend(without_append_only(connection).await?);
            }
        }
        None => found.push(unreadable("INFO", "its version, maxmemory-policy and persistence are")),
    }
    let before = clock.now();
    match allowed(redis::cmd("TIME").query_async(connection).await)? {
        Some(theirs) => found.extend(of_clock(before, theirs, clock.now())),
        None => found.push(unreadable("TIME", "whether its clock agrees with ours is")),
    }
    if let Some(why) = inspect::refusal(connection, of.cluster.then_some(key)).await? {
        // Of a stream and of claims it would say the same.
        found.push(of_writes(&why));
        return Ok(found);
    }
    if !of.streams.is_empty() {
        let doors = write_probe::ask(connection, &of.streams, &of.backlog).await?;
        for (stream, door) in of.streams.iter().zip(&doors) {
            let Some(standing) = StreamInfo::of(connection, stream).await else { continue };
            found.extend(of_ids(stream, &standing));
            if let Some(WriteProbe::Full(holders)) = door {
                found.push(of_backlog(stream, of.backlog.max(), holders, &standing));
            }
        }
        found.extend(of_streams(&of.streams, doors));
    }
    if let Some(queue) = &of.claims {
        found.extend(Claims::new(queue, key).ask(connection).await?.map(|why| of_claims(&why)));
    }
    Ok(found)
}

/// An answer, or none where this user may not ask, or the command was taken away.
fn allowed<T>(answer: RedisResult<T>) -> RedisResult<Option<T>> {
    match answer {
        Err(why) if matches!(why.code(), Some("NOPERM" | "ERR")) => Ok(None),
        answer => answer.map(Some),
    }
}

fn unreadable(command: &str, unknown: &str) -> Finding {
    Finding::new(Setting::RedisUnreadable, format!("{command} is not allowed: {unknown} not known"))
}

/// The fields of INFO.
fn fields(info: &str) -> HashMap<&str, &str> {
    info.lines().filter_map(|line| line.split_once(':')).collect()
}

/// A server of another kind than the config says.
fn of_mode(info: &HashMap<&str, &str>, cluster: bool) -> Option<Finding> {
    let what = match info.get("redis_mode").copied() {
        Some("sentinel") => {
            "it is a Sentinel, which keeps nothing itself: set redis.sentinel to the name of the master that it watches"
        }
        Some("cluster") if !cluster => {
            "it is a node of a cluster, which refuses the streams that other nodes have: set redis.cluster = true"
        }
        _ => return None,
    };
    Some(Finding::new(Setting::RedisUnreachable, what))
}

fn of_version(info: &HashMap<&str, &str>) -> Option<Finding> {
    let version = info.get("redis_version").copied().unwrap_or("unknown");
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    let what = || format!("version {version}; 7.0 or newer is needed");
    major.is_none_or(|major| major < 7).then(|| Finding::new(Setting::RedisVersion, what()))
}

fn of_eviction(info: &HashMap<&str, &str>) -> Option<Finding> {
    let policy = info.get("maxmemory_policy").copied().unwrap_or("unknown");
    let what = || {
        format!(
            "maxmemory-policy is {policy}: what is remembered or queued may be evicted; set maxmemory-policy noeviction"
        )
    };
    (policy != "noeviction").then(|| Finding::new(Setting::RedisEviction, what()))
}

/// Fewer replicas than must have each event. A replica itself is told by its refusal to write.
fn of_replicas(info: &HashMap<&str, &str>, of: &Use) -> Option<Finding> {
    let is_master = info.get("role") == Some(&"master");
    let online = |(field, value): &(&&str, &&str)| {
        field.strip_prefix("slave").is_some_and(|n| n.parse::<u32>().is_ok())
            && value.contains("state=online")
    };
    let (needed, online) = (u64::from(of.ack_replicas), info.iter().filter(online).count() as u64);
    (is_master && !of.streams.is_empty() && online < needed).then(|| {
        let what = format!(
            "{online} replicas are online, fewer than queue.ack_replicas = {needed}: no event counts as queued; see to its \
             replicas, or lower queue.ack_replicas"
        );
        Finding::new(Setting::RedisWrites, what)
    })
}

/// A server that takes no writes now, from no user.
fn of_writes(why: &str) -> Finding {
    let advice = match why.split(' ').next().unwrap_or_default() {
        "OOM" => "; raise maxmemory, or lower queue.max_backlog",
        "MISCONF" => "; its disk fails, or is full: see its log",
        "NOREPLICAS" => "; see to its replicas, or lower min-replicas-to-write",
        "READONLY" => "; it is a replica: give the URL of its master, or set redis.sentinel or redis.cluster",
        "LOADING" => "; it still reads its files: wait",
        _ => "",
    };
    Finding::new(Setting::RedisWrites, format!("it takes no writes: {why}{advice}"))
}

/// One finding a reason.
fn of_streams(streams: &[String], doors: Vec<Option<WriteProbe>>) -> Vec<Finding> {
    let mut shut: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    for (stream, door) in streams.iter().zip(doors) {
        if let Some(WriteProbe::Rejected(why)) = door {
            shut.entry(why).or_default().push(stream);
        }
    }
    let finding = |(why, streams): (String, Vec<&String>)| {
        let what = format!("no event can enter {}: {why}; {}", listed(&streams), advice::of_stream(&why));
        Finding::new(Setting::RedisStream, what)
    };
    shut.into_iter().map(finding).collect()
}

/// A stream that takes no more, and the groups that hold it.
fn of_backlog(stream: &str, max: u64, holders: &[String], standing: &StreamInfo) -> Finding {
    let of = |group: &Group| {
        let since = group.oldest.as_deref().and_then(StreamInfo::time);
        let since = since.map(|since| format!(", the oldest since {since}")).unwrap_or_default();
        format!("consumer group {} has not acknowledged {} entries{since}", group.name, group.behind)
    };
    let held = standing.groups.iter().filter(|group| holders.contains(&group.name)).map(of);
    let held: Vec<String> = held.collect();
    let what = if held.is_empty() {
        "it has no consumer group, so that nothing in it is acknowledged; read it with one, trim it, or raise \
         queue.max_backlog"
            .to_owned()
    } else {
        format!(
            "{}; let it read and XACK, XGROUP DESTROY it if it has no reader, or set queue.ignore_idle_groups",
            listed(&held)
        )
    };
    let what = format!("{stream} is at queue.max_backlog, {max}, and takes no more events: {what}");
    Finding::new(Setting::RedisBacklog, what)
}

/// A stream whose last id is ahead of the server's clock, so that its ids do not tell its entries' age.
fn of_ids(stream: &str, standing: &StreamInfo) -> Option<Finding> {
    let ahead = standing.ahead()?;
    let what = format!(
        "the last id of {stream}, {}, is {} s ahead of the server's clock: an entry was added by hand, or the clock was wrong. \
         From there on entries are trimmed once they are acknowledged, without regard to queue.retain; move to a stream of \
         another queue.name, or wait until the clock is there",
        standing.last,
        ahead.as_secs()
    );
    Some(Finding::new(Setting::RedisIds, what))
}

fn of_claims(why: &str) -> Finding {
    let what = format!("it takes no claims: {why}; see that this user has the rights on the keys hookgate:*");
    Finding::new(Setting::RedisClaims, what)
}

async fn without_append_only(connection: &mut MultiplexedConnection) -> RedisResult<Option<Finding>> {
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

/// What their clock, seconds and microseconds, is apart from ours, which was read before it was asked and after it had answered.
fn of_clock(before: Timestamp, theirs: (i64, i64), after: Timestamp) -> Option<Finding> {
    let seconds = |at: Timestamp| at.as_microsecond() as f64 / 1e6;
    let theirs = theirs.0 as f64 + theirs.1 as f64 / 1e6;
    // It was read somewhere in between: a slow answer is no wrong clock.
    let apart = (theirs - seconds(after)).max(0.0) + (theirs - seconds(before)).min(0.0);
    let what = || format!("its clock is {apart:+.1} s from ours: set both by NTP");
    (apart.abs() > MAX_APART).then(|| Finding::new(Setting::RedisClock, what()))
}

/// Seconds.
const MAX_APART: f64 = 2.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn info(version: &str, policy: &str) -> String {
        format!("# Server\r\nredis_version:{version}\r\n\r\n# Memory\r\nmaxmemory_policy:{policy}\r\n")
    }

    #[test]
    fn a_server_older_than_7_is_told() {
        for good in ["7.0.0", "7.2.4", "8.0.1", "10.1"] {
            assert_eq!(of_version(&fields(&info(good, "noeviction"))), None, "{good}");
        }
        for bad in ["6.2.14", "2.8", "", "x"] {
            let found = of_version(&fields(&info(bad, "noeviction"))).unwrap();
            assert_eq!(found.setting, Setting::RedisVersion);
            assert!(found.what.contains(bad) && found.what.contains("7.0"), "{found:?}");
        }
        assert!(of_version(&fields("")).is_some_and(|found| found.what.contains("unknown")));
    }

    #[test]
    fn nothing_may_be_evicted() {
        assert_eq!(of_eviction(&fields(&info("7.0.0", "noeviction"))), None);
        for bad in ["allkeys-lru", "volatile-ttl"] {
            assert!(of_eviction(&fields(&info("7.0.0", bad))).is_some_and(|found| found.what.contains(bad)));
        }
        assert!(of_eviction(&fields("")).is_some());
    }

    #[test]
    fn clocks_may_be_two_seconds_apart() {
        let at = |millis| Timestamp::from_millisecond(millis).unwrap();
        let apart = |theirs, before, after| of_clock(at(before), theirs, at(after)).map(|found| found.what);
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
