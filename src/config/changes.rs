//! What differs between two configs, and which files a config lives on.
//!
//! Keeps true: what has only moved in the file is no change; a key that is added to a section does not compile until it is
//! compared here too.

use std::path::Path;

use super::{Admin, Audit, Config, Dedupe, Edge, Quarantine, Queue, Redis, Spool, Tls};
use crate::secret::SecretRef;

impl Config {
    /// The keys outside `[sources]` whose values are not what they were `before`.
    pub fn changed_keys(&self, before: &Config) -> Vec<&'static str> {
        let Config {
            data_dir,
            edge,
            admin,
            redis,
            dedupe,
            queue,
            spool,
            audit,
            quarantine,
            sources: _,
            places: _,
            unparsed: _,
        } = self;
        let keys = [
            vec![("data_dir", *data_dir == before.data_dir)],
            of_edge(edge, &before.edge),
            of_admin(admin, &before.admin),
            of_redis(redis, &before.redis),
            of_dedupe(dedupe, &before.dedupe),
            of_queue(queue, &before.queue),
            of_spool(spool, &before.spool),
            of_audit(audit, &before.audit),
            of_quarantine(quarantine, &before.quarantine),
        ];
        keys.into_iter().flatten().filter(|(_, same)| !same).map(|(key, _)| key).collect()
    }

    /// The files besides its own that it is made of: those of secrets, certificates and their keys.
    pub fn files(&self) -> Vec<&Path> {
        let secrets = self.secrets().into_iter();
        let secrets = secrets.filter_map(|secret| match secret {
            SecretRef::File(path) => Some(path.as_path()),
            SecretRef::Env(_) | SecretRef::Plain(_) => None,
        });
        let tls = [&self.edge.tls, &self.admin.tls].into_iter().flatten().flat_map(of_tls);
        secrets.chain(tls).chain(self.redis.ca.as_deref()).collect()
    }

    /// Every secret that it refers to or holds, those without a use included.
    fn secrets(&self) -> Vec<&SecretRef> {
        let urls = self.redis.urls.iter().map(|url| &url.value).chain([&self.queue.url.value]);
        urls.chain(self.secrets_but_urls()).collect()
    }

    /// Every secret that is read to serve by this config.
    pub fn secrets_in_use(&self) -> Vec<&SecretRef> {
        let urls = self.urls_in_use().into_iter().map(|(_, url)| &url.value);
        // A URL is one only if the config keeps it as one.
        urls.filter(|url| !matches!(url, SecretRef::Plain(_))).chain(self.secrets_but_urls()).collect()
    }

    fn secrets_but_urls(&self) -> impl Iterator<Item = &SecretRef> {
        let more = [&self.admin.token, &self.audit.key, &self.quarantine.key].into_iter().flatten();
        let of_sources = self.sources.iter().flat_map(|source| {
            let token = source.path_token.iter().map(|token| &token.value);
            source.secrets.iter().map(|secret| &secret.value.reference).chain(token)
        });
        more.map(|secret| &secret.value).chain(of_sources)
    }
}

fn of_tls(tls: &Tls) -> impl Iterator<Item = &Path> {
    let Tls { certificates, client_ca } = tls;
    let pairs = certificates.iter().flat_map(|pair| [&pair.certificate, &pair.private_key]);
    pairs.chain(client_ca).map(|path| path.value.as_path())
}

/// Each key, and whether it is the same.
type Keys = Vec<(&'static str, bool)>;

fn of_edge(now: &Edge, before: &Edge) -> Keys {
    let Edge {
        listen,
        threads,
        max_body,
        max_connections,
        max_connections_per_client,
        max_in_flight,
        max_in_flight_bytes,
        header_timeout,
        idle_timeout,
        health_path,
        body_timeout,
        request_timeout,
        drain_timeout,
        reuse_port,
        trusted_proxies,
        proxy_protocol,
        tls,
    } = now;
    vec![
        ("edge.listen", *listen == before.listen),
        ("edge.threads", *threads == before.threads),
        ("edge.max_body", *max_body == before.max_body),
        ("edge.max_connections", *max_connections == before.max_connections),
        ("edge.max_connections_per_client", *max_connections_per_client == before.max_connections_per_client),
        ("edge.max_in_flight", *max_in_flight == before.max_in_flight),
        ("edge.max_in_flight_bytes", *max_in_flight_bytes == before.max_in_flight_bytes),
        ("edge.header_timeout", *header_timeout == before.header_timeout),
        ("edge.idle_timeout", *idle_timeout == before.idle_timeout),
        ("edge.health_path", *health_path == before.health_path),
        ("edge.body_timeout", *body_timeout == before.body_timeout),
        ("edge.request_timeout", *request_timeout == before.request_timeout),
        ("edge.drain_timeout", *drain_timeout == before.drain_timeout),
        ("edge.reuse_port", *reuse_port == before.reuse_port),
        ("edge.trusted_proxies", *trusted_proxies == before.trusted_proxies),
        ("edge.proxy_protocol", *proxy_protocol == before.proxy_protocol),
        ("edge.tls", *tls == before.tls),
    ]
}

fn of_admin(now: &Admin, before: &Admin) -> Keys {
    let Admin { listen, token, tls } = now;
    vec![
        ("admin.listen", *listen == before.listen),
        ("admin.token", *token == before.token),
        ("admin.tls", *tls == before.tls),
    ]
}

fn of_redis(now: &Redis, before: &Redis) -> Keys {
    let Redis { urls, cluster, sentinel, ca } = now;
    vec![
        ("redis.url", *urls == before.urls),
        ("redis.cluster", *cluster == before.cluster),
        ("redis.sentinel", *sentinel == before.sentinel),
        ("redis.ca", *ca == before.ca),
    ]
}

fn of_dedupe(now: &Dedupe, before: &Dedupe) -> Keys {
    let Dedupe { store, window, lease } = now;
    vec![
        ("dedupe.store", *store == before.store),
        ("dedupe.window", *window == before.window),
        ("dedupe.lease", *lease == before.lease),
    ]
}

fn of_queue(now: &Queue, before: &Queue) -> Keys {
    let Queue { kind, name, partitions, max_backlog, retain, ignore_idle_groups, ack_replicas, url } = now;
    vec![
        ("queue.kind", *kind == before.kind),
        ("queue.name", *name == before.name),
        ("queue.partitions", *partitions == before.partitions),
        ("queue.max_backlog", *max_backlog == before.max_backlog),
        ("queue.retain", *retain == before.retain),
        ("queue.ignore_idle_groups", *ignore_idle_groups == before.ignore_idle_groups),
        ("queue.ack_replicas", *ack_replicas == before.ack_replicas),
        ("queue.url", *url == before.url),
    ]
}

fn of_spool(now: &Spool, before: &Spool) -> Keys {
    let Spool { enabled, max_bytes } = now;
    vec![("spool.enabled", *enabled == before.enabled), ("spool.max_bytes", *max_bytes == before.max_bytes)]
}

fn of_audit(now: &Audit, before: &Audit) -> Keys {
    let Audit { retain, max_bytes, key } = now;
    vec![
        ("audit.retain", *retain == before.retain),
        ("audit.max_bytes", *max_bytes == before.max_bytes),
        ("audit.key", *key == before.key),
    ]
}

fn of_quarantine(now: &Quarantine, before: &Quarantine) -> Keys {
    let Quarantine { enabled, max_bytes, retain, key } = now;
    vec![
        ("quarantine.enabled", *enabled == before.enabled),
        ("quarantine.max_bytes", *max_bytes == before.max_bytes),
        ("quarantine.retain", *retain == before.retain),
        ("quarantine.key", *key == before.key),
    ]
}
