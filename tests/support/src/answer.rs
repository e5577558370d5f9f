//! An HTTP answer of the gateway.

use serde_json::Value;

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// Reads the status line and the headers.
    pub fn read_head(head: &str) -> Answer {
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
        Answer { status, headers: headers.collect(), body: String::new() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The length of the body.
    pub fn content_length(&self) -> usize {
        self.header("content-length").map_or(0, |length| length.parse().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }

    /// Status and id of a 200; fails on anything else.
    pub fn taken(&self) -> (String, String) {
        assert_eq!(self.status, 200, "{self:?}");
        let body = self.json();
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        (text("status"), text("id"))
    }

    pub fn assert_accepted(&self, id: &str) {
        assert_eq!(self.taken(), ("accepted".to_owned(), id.to_owned()));
    }

    pub fn assert_duplicate(&self, id: &str) {
        assert_eq!(self.taken(), ("duplicate".to_owned(), id.to_owned()));
    }

    /// Fails unless it is a 503 that says when to come again.
    pub fn assert_come_again(&self) {
        assert_eq!(self.status, 503, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let seconds: u32 = self.header("retry-after").unwrap_or("absent").parse().unwrap_or(0);
        assert!((1..=30).contains(&seconds), "{self:?}");
    }
}
