//! The gateways and the servers around them, each to be broken and mended by itself.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use support::{
    Client, Gateway, Home, HttpService, Nats, Persistence, Rabbitmq, Redis, Reply, SmallDisk, basiq,
    eventually, free_port, until,
};
use tokio::sync::Mutex;

use crate::ledger::Queued;
use crate::proxy::{Mode, Proxy};

/// All there is.
pub struct World {
    pub members: Vec<Member>,
    pub redis: Option<Mutex<Redis>>,
    pub broker: Option<Mutex<Broker>>,
}

/// Where the events go, if not to Redis or into the data folder.
pub enum Broker {
    Nats(Nats),
    /// And what was taken out of its queue.
    Rabbitmq(Rabbitmq, Vec<Queued>),
    Http(HttpService),
}

impl Broker {
    pub async fn kill9(&mut self) {
        match self {
            Broker::Nats(nats) => nats.kill9(),
            Broker::Rabbitmq(rabbitmq, _) => rabbitmq.kill9(),
            Broker::Http(service) => service.kill().await,
        }
    }

    pub async fn restart(&mut self) {
        match self {
            Broker::Nats(nats) => nats.restart().await,
            Broker::Rabbitmq(rabbitmq, _) => rabbitmq.restart().await,
            Broker::Http(service) => service.restart().await,
        }
    }

    pub fn pause(&self) {
        match self {
            Broker::Nats(nats) => nats.pause(),
            Broker::Rabbitmq(rabbitmq, _) => rabbitmq.pause(),
            Broker::Http(service) => service.replies(|_| Reply::Hang),
        }
    }

    /// Answers like this; false if it is no HTTP service.
    pub fn answer(&self, reply: Reply) -> bool {
        let Broker::Http(service) = self else { return false };
        service.replies(move |_| reply.clone());
        true
    }

    pub fn resume(&self) {
        match self {
            Broker::Nats(nats) => nats.resume(),
            Broker::Rabbitmq(rabbitmq, _) => rabbitmq.resume(),
            Broker::Http(service) => service.replies(|_| Reply::Status(200)),
        }
    }

    async fn queue(&mut self) -> Vec<Queued> {
        match self {
            Broker::Nats(nats) => {
                nats.messages("HOOKS").await.iter().map(|message| queued(&message.body)).collect()
            }
            Broker::Rabbitmq(rabbitmq, taken) => {
                taken.extend(rabbitmq.messages("hooks").await.iter().map(|message| queued(&message.body)));
                taken.clone()
            }
            Broker::Http(service) => service.taken().iter().map(|posted| queued(&posted.body)).collect(),
        }
    }
}

/// A gateway, and what is its own.
pub struct Member {
    home: Home,
    pub edge: SocketAddr,
    pub gateway: Mutex<Option<Gateway>>,
    /// Between it and its servers.
    pub proxies: Vec<Proxy>,
    /// Under its data folder.
    pub disk: Option<SmallDisk>,
}

impl World {
    /// One gateway with the embedded store.
    pub async fn embedded() -> World {
        let members = vec![Member::start(Home::embedded(), Vec::new(), SmallDisk::mount(DISK)).await];
        World { members, redis: None, broker: None }
    }

    /// Two gateways that share one Redis; the spool of one is on a small disk.
    pub async fn redis() -> World {
        let redis = Redis::start(Persistence::Always).await;
        let mut members = Vec::new();
        for disk in [None, SmallDisk::mount(DISK)] {
            let proxy = Proxy::before(redis.address()).await;
            let home = Home::redis(&redis).with("redis.url", format!("redis://{}", proxy.address));
            members.push(Member::start(home, vec![proxy], disk).await);
        }
        World { members, redis: Some(Mutex::new(redis)), broker: None }
    }

    /// Two gateways before one NATS, their claims in one Redis.
    pub async fn nats() -> World {
        let nats = Nats::start().await;
        nats.create_stream("HOOKS", &["hookgate.>"]).await;
        let url = nats.url();
        World::claiming("nats", &url, Broker::Nats(nats)).await
    }

    /// One gateway before NATS, with claims of its own.
    pub async fn nats_alone() -> World {
        let nats = Nats::start().await;
        nats.create_stream("HOOKS", &["hookgate.>"]).await;
        let proxy = Proxy::before(address(&nats.url())).await;
        let home =
            Home::embedded().with("queue.kind", "nats").with("queue.url", by_way_of(&proxy, &nats.url()));
        let members = vec![Member::start(home, vec![proxy], SmallDisk::mount(DISK)).await];
        World { members, redis: None, broker: Some(Mutex::new(Broker::Nats(nats))) }
    }

    /// Two gateways before one RabbitMQ, their claims in one Redis.
    pub async fn rabbitmq() -> World {
        let rabbitmq = Rabbitmq::start().await;
        rabbitmq.create_exchange("hookgate.events").await;
        rabbitmq.bind("hooks", "hookgate.events", "#").await;
        let url = rabbitmq.url();
        World::claiming("amqp", &url, Broker::Rabbitmq(rabbitmq, Vec::new())).await
    }

    /// Two gateways before one HTTP service, their claims in one Redis.
    pub async fn http() -> World {
        let service = HttpService::start().await;
        let url = service.url("/events");
        World::claiming("http", &url, Broker::Http(service)).await
    }

    /// One gateway before an HTTP service, with claims of its own.
    pub async fn http_alone() -> World {
        let service = HttpService::start().await;
        let proxy = Proxy::before(service.address()).await;
        let url = by_way_of(&proxy, &service.url("/events"));
        let home = Home::embedded().with("queue.kind", "http").with("queue.url", url);
        let members = vec![Member::start(home, vec![proxy], SmallDisk::mount(DISK)).await];
        World { members, redis: None, broker: Some(Mutex::new(Broker::Http(service))) }
    }

    async fn claiming(kind: &str, url: &str, broker: Broker) -> World {
        let redis = Redis::start(Persistence::Always).await;
        let mut members = Vec::new();
        for disk in [None, SmallDisk::mount(DISK)] {
            let (to_redis, to_broker) =
                (Proxy::before(redis.address()).await, Proxy::before(address(url)).await);
            let home = Home::embedded()
                .with("dedupe.store", "redis")
                .with("redis.url", format!("redis://{}", to_redis.address))
                .with("queue.kind", kind)
                .with("queue.url", by_way_of(&to_broker, url));
            members.push(Member::start(home, vec![to_redis, to_broker], disk).await);
        }
        World { members, redis: Some(Mutex::new(redis)), broker: Some(Mutex::new(broker)) }
    }

    /// Where the gateways take deliveries, whatever becomes of them.
    pub fn edges(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| member.edge).collect()
    }

    /// Ends every fault.
    pub async fn heal(&self) {
        for member in &self.members {
            for proxy in &member.proxies {
                proxy.set(Mode::Pass);
            }
        }
        for member in &self.members {
            let gateway = member.gateway.lock().await;
            let gateway = gateway.as_ref().unwrap();
            until("the gateway is ready again", async || gateway.ready().await).await;
        }
    }

    /// Waits until every spool is empty.
    pub async fn settle(&self) {
        for member in &self.members {
            let gateway = member.gateway.lock().await;
            let gateway = gateway.as_ref().unwrap();
            let mut left = f64::INFINITY;
            while left > 0.0 {
                // However many there are: as long as they become fewer.
                left = eventually("the spool is drained further", async || {
                    let now = gateway.metric("hookgate_spool_events").await;
                    (now == 0.0 || now < left).then_some(now)
                })
                .await;
            }
            assert_eq!(gateway.metric("hookgate_spool_dead_events").await, 0.0);
        }
    }

    /// What is in the queue.
    pub async fn queue(&self) -> Vec<Queued> {
        match &self.broker {
            Some(broker) => broker.lock().await.queue().await,
            None => self.members[0].home.raw_events().iter().map(|event| queued(event)).collect(),
        }
    }

    /// One more, as if nothing had been.
    pub async fn a_fresh_event_flows(&self) {
        for (number, member) in self.members.iter().enumerate() {
            let delivery = basiq(&format!("fresh-{number}"));
            let mut client = Client::connect(member.edge).await.unwrap();
            client.deliver(&delivery).await.unwrap().assert_accepted(&format!("fresh-{number}"));
            eventually("the fresh event is in the queue", async || {
                self.queue().await.into_iter().find(|event| event.payload == delivery.text())
            })
            .await;
        }
    }
}

/// The event's id, and its payload as it stands there.
pub fn queued(event: &str) -> Queued {
    #[derive(Deserialize)]
    struct Event<'a> {
        id: String,
        #[serde(borrow)]
        data: Data<'a>,
    }
    #[derive(Deserialize)]
    struct Data<'a> {
        #[serde(borrow)]
        payload: &'a RawValue,
    }
    let event: Event<'_> = serde_json::from_str(event).unwrap();
    Queued { id: event.id, payload: event.data.payload.get().to_owned() }
}

/// Host and port of a URL.
fn address(url: &str) -> SocketAddr {
    let (_, rest) = url.split_once("://").unwrap();
    let authority = rest.split('/').next().unwrap();
    authority.rsplit('@').next().unwrap().parse().unwrap()
}

fn by_way_of(proxy: &Proxy, url: &str) -> String {
    url.replacen(&address(url).to_string(), &proxy.address.to_string(), 1)
}

impl Member {
    async fn start(home: Home, proxies: Vec<Proxy>, disk: Option<SmallDisk>) -> Member {
        let edge = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut home = home
            .with("edge.listen", edge.to_string())
            .with("spool.enabled", true)
            .with("dedupe.lease", "1s")
            .with("edge.drain_timeout", "2s");
        if let Some(disk) = &disk {
            home = home.with("data_dir", disk.path().join("data").to_str());
        }
        let gateway = Mutex::new(Some(home.serve().await));
        Member { home, edge, gateway, proxies, disk }
    }

    /// Brings it back where it was, as a supervisor would: again and again, since on a full disk it does not start.
    pub async fn restart(&self, gateway: &mut Option<Gateway>) {
        let started = async || match self.home.start().listens_or_ends().await {
            Ok(gateway) => Some(gateway),
            Err(said) => {
                let why = said.lines().last().unwrap_or_default();
                if !why.contains("disk") {
                    eprintln!("chaos: a gateway does not start: {why}");
                }
                None
            }
        };
        *gateway = Some(eventually("the gateway starts again", started).await);
    }
}

/// MiB: room for what is kept of all that happens, and soon filled.
const DISK: u32 = 64;
/// For how long a fault lasts, at most.
pub const LONGEST: Duration = Duration::from_millis(2500);
