//! A RabbitMQ server of a test's own, to be killed, frozen and restarted. It takes ten seconds to start, so tests that can share
//! one should.
//!
//! It has a node name, an `epmd`, a cookie and folders of its own, so that it meets no other RabbitMQ on the machine. It takes
//! messages of up to [`Rabbitmq::MAX_MESSAGE`] bytes.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use lapin::options::{
    BasicGetOptions, ExchangeBindOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};
use tempfile::TempDir;

use super::process::{Process, free_port};
use super::{Taken, eventually};

pub struct Rabbitmq {
    /// None while it is down.
    process: Option<Process>,
    /// Erlang looks nodes up in it.
    _epmd: Process,
    epmd_port: u16,
    port: u16,
    dist_port: u16,
    folder: TempDir,
}

impl Rabbitmq {
    pub const MAX_MESSAGE: usize = 512 << 10;

    pub async fn start() -> Rabbitmq {
        Rabbitmq::start_on(free_port(), "[].", "").await
    }

    /// With the management API, on the port 10,000 above its own.
    pub async fn start_with_management() -> Rabbitmq {
        let (port, api) = loop {
            let port = free_port();
            match port.checked_add(10_000) {
                Some(api) if TcpListener::bind(("127.0.0.1", api)).is_ok() => break (port, api),
                _ => {}
            }
        };
        let config = format!("management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {api}\n");
        Rabbitmq::start_on(port, "[rabbitmq_management].", &config).await
    }

    async fn start_on(port: u16, plugins: &str, config: &str) -> Rabbitmq {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("enabled_plugins"), plugins).unwrap();
        let config = format!("max_message_size = {}\nlog.file.level = warning\n{config}", Self::MAX_MESSAGE);
        fs::write(folder.path().join("rabbitmq.conf"), config).unwrap();
        let epmd_port = free_port();
        let mut epmd = Command::new("epmd");
        epmd.args(["-address", "127.0.0.1", "-port", &epmd_port.to_string()]);
        let epmd = Process::spawn(epmd.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
        let dist_port = free_port();
        let mut rabbitmq = Rabbitmq { process: None, _epmd: epmd, epmd_port, port, dist_port, folder };
        rabbitmq.restart().await;
        rabbitmq
    }

    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    pub fn kill9(&mut self) {
        self.process.take().unwrap().kill9();
    }

    /// Starts it again on the same port, with the same queues.
    pub async fn restart(&mut self) {
        // It runs as the process that was started, where its script believes that systemd watches that one.
        let mut command = self.command("rabbitmq-server");
        command.env("RUNNING_UNDER_SYSTEMD", "1");
        let process = self.process.insert(Process::spawn(&mut command));
        // A server that others starve of time takes longer than anything else here.
        for _ in 0..PATIENCE_SECONDS {
            assert!(process.ended().is_none(), "rabbitmq-server ends: {:?}", fs::read_dir(&self.folder));
            if connect(self.port).await.is_some() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        panic!("rabbitmq-server does not come up");
    }

    /// Freezes it: connections stay open, nothing is answered.
    pub fn pause(&self) {
        self.process.as_ref().unwrap().freeze();
    }

    pub fn resume(&self) {
        self.process.as_ref().unwrap().signal("CONT");
    }

    pub fn control(&self, arguments: &[&str]) {
        let ran = self.command("rabbitmqctl").args(arguments).status().unwrap();
        assert!(ran.success(), "rabbitmqctl {arguments:?}");
    }

    /// Makes a durable topic exchange.
    pub async fn create_exchange(&self, exchange: &str) {
        let (_connection, channel) = self.channel().await;
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let none = FieldTable::default();
        channel.exchange_declare(exchange.into(), ExchangeKind::Topic, options, none).await.unwrap();
    }

    pub async fn delete_exchange(&self, exchange: &str) {
        let (_connection, channel) = self.channel().await;
        channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await.unwrap();
    }

    /// Makes a durable queue for the messages of an exchange with these routing keys.
    pub async fn bind(&self, queue: &str, exchange: &str, pattern: &str) {
        self.bind_with(queue, exchange, pattern, &[]).await;
    }

    /// The same with arguments of the queue. Values that are no numbers are sent as text.
    pub async fn bind_with(&self, queue: &str, exchange: &str, pattern: &str, arguments: &[(&str, &str)]) {
        let (_connection, channel) = self.channel().await;
        let (durable, none) = (QueueDeclareOptions::durable(), FieldTable::default());
        let mut table = FieldTable::default();
        for (name, value) in arguments {
            let value = match value.parse() {
                Ok(number) => AMQPValue::LongLongInt(number),
                Err(_) => AMQPValue::LongString((*value).into()),
            };
            table.insert((*name).into(), value);
        }
        channel.queue_declare(queue.into(), durable, table).await.unwrap();
        let plain = QueueBindOptions::default();
        channel.queue_bind(queue.into(), exchange.into(), pattern.into(), plain, none).await.unwrap();
    }

    /// Makes an exchange that forwards its messages to another one.
    pub async fn bind_exchange(&self, to: &str, from: &str) {
        self.create_exchange(from).await;
        let (_connection, channel) = self.channel().await;
        let (plain, none) = (ExchangeBindOptions::default(), FieldTable::default());
        channel.exchange_bind(to.into(), from.into(), "#".into(), plain, none).await.unwrap();
    }

    pub async fn delete_queue(&self, queue: &str) {
        let (_connection, channel) = self.channel().await;
        channel.queue_delete(queue.into(), Default::default()).await.unwrap();
    }

    /// Takes all messages of a queue, in order.
    pub async fn messages(&self, queue: &str) -> Vec<Taken> {
        let (_connection, channel) = self.channel().await;
        let mut messages = Vec::new();
        while let Some(got) = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.unwrap()
        {
            let message = got.delivery;
            let of = &message.properties;
            let text =
                |text: &Option<lapin::types::ShortString>| text.as_ref().map(|t| t.as_str().to_owned());
            let table =
                |name: &str| Some(of.headers().as_ref()?.inner().get(name)?.as_long_string()?.to_string());
            let headers = [
                ("content-type", text(of.content_type())),
                ("type", text(of.kind())),
                ("app-id", text(of.app_id())),
                ("delivery-mode", of.delivery_mode().map(|mode| mode.to_string())),
                ("exchange", Some(message.exchange.to_string())),
                ("traceparent", table("traceparent")),
            ];
            let headers = headers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
            messages.push(Taken {
                id: text(of.message_id()).unwrap_or_default(),
                name: message.routing_key.to_string(),
                headers: headers.collect::<BTreeMap<_, _>>(),
                body: String::from_utf8(message.data).unwrap(),
            });
        }
        messages
    }

    async fn channel(&self) -> (Connection, Channel) {
        let connection = eventually("rabbitmq takes a connection", async || connect(self.port).await).await;
        let channel = connection.create_channel().await.unwrap();
        (connection, channel)
    }

    /// One of RabbitMQ's own programs. Debian's commands of the same names change the user.
    fn command(&self, program: &str) -> Command {
        let folder = self.folder.path();
        let mut command = Command::new(format!("/usr/lib/rabbitmq/bin/{program}"));
        command.env("HOME", folder);
        command.env("RABBITMQ_CONF_ENV_FILE", "/dev/null");
        command.env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"));
        command.env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("enabled_plugins"));
        command.env("RABBITMQ_NODENAME", format!("hookgate-{}@localhost", self.port));
        command.env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1");
        command.env("RABBITMQ_NODE_PORT", self.port.to_string());
        command.env("RABBITMQ_DIST_PORT", self.dist_port.to_string());
        command.env("RABBITMQ_MNESIA_BASE", folder.join("mnesia"));
        command.env("RABBITMQ_LOG_BASE", folder.join("log"));
        command.env("RABBITMQ_PID_FILE", folder.join("pid"));
        command.env("ERL_EPMD_PORT", self.epmd_port.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

async fn connect(port: u16) -> Option<Connection> {
    let url = format!("amqp://guest:guest@127.0.0.1:{port}/%2f");
    let connected = Connection::connect(&url, ConnectionProperties::default());
    tokio::time::timeout(Duration::from_secs(5), connected).await.ok()?.ok()
}

const PATIENCE_SECONDS: u32 = 120;
