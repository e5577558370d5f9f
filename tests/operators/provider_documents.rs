//! The providers' own documents, replayed against the simulators: each documented call gets the documented answer. So the
//! simulators are held to the documents, and not to hookgate's client.

mod anduin;
mod atelio;
mod basiq;
mod iof;
mod securitize;

use std::net::SocketAddr;

use serde_json::{Value, json};
use support::{Answer, Client, Request};

/// A request as a document writes it for curl.
fn curl(command: &str) -> Request {
    let command = command.replace("\\\n", " ");
    let mut words = Vec::new();
    // Outside of quotes, blanks part the words.
    for (number, part) in command.split('\'').enumerate() {
        match number % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    let mut words = words.into_iter();
    assert_eq!(words.next().as_deref(), Some("curl"));
    let mut request = Request::get("");
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap();
        request = match word.as_str() {
            "--location" => request,
            "--request" => request.method(&value()),
            "--header" => {
                let header = value();
                let (name, value) = header.split_once(": ").unwrap();
                request.with(name, value)
            }
            "--data" | "--data-raw" => Request { body: value().into(), ..request },
            url => {
                let url = if url == "--url" { value() } else { url.to_owned() };
                let path = url.strip_prefix("https://").unwrap().find('/').unwrap();
                request.to(&url["https://".len() + path..])
            }
        };
    }
    request
}

fn json_body(request: Request) -> Request {
    request.with("Content-Type", "application/json")
}

async fn ask(address: SocketAddr, request: &Request) -> Answer {
    Client::connect(address).await.unwrap().deliver(request).await.unwrap()
}

/// Fails unless the answer is the documented one. At these places it may have another text.
fn documented(answer: &Answer, status: u16, mut documented: Value, varying: &[&str]) {
    let body = answer.json();
    for place in varying {
        let text = body.pointer(place).filter(|value| value.is_string());
        *documented.pointer_mut(place).unwrap() = text.unwrap_or_else(|| panic!("{place}: {body}")).clone();
    }
    assert_eq!((answer.status, body), (status, documented));
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

/// Fails unless it is an error of Basiq's.
fn assert_error(answer: &Answer, status: u16, code: &str) {
    let body = answer.json();
    assert_eq!((answer.status, &body["type"]), (status, &json!("list")), "{body}");
    assert!(body["correlationId"].is_string(), "{body}");
    let error = &body["data"][0];
    assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(code)), "{body}");
    assert!(error["title"].is_string() && error["detail"].is_string(), "{body}");
}
