//! One client's connection: HTTP/1.1 with keep-alive, as little as the two servers need.
//!
//! The clients share the machine's cores with what they measure, so they must cost next to nothing; a general HTTP client
//! takes as much CPU for a request as the bare loop does for a step. Deliberately absent: chunked bodies, redirects,
//! connecting again. An answer without `content-length` ends the bench.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

/// A connection that stays open.
pub struct Connection {
    stream: BufReader<TcpStream>,
    address: SocketAddr,
    token: String,
    line: String,
    body: Vec<u8>,
}

impl Connection {
    /// Connects; `token` goes with every request.
    pub async fn open(address: SocketAddr, token: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream), address, token: token.to_owned(), line: String::new(), body: Vec::new() }
    }

    /// Sends a request and reads the whole answer: its body. Any status but 2xx is a failure of the bench.
    pub async fn ask(&mut self, method: &str, path: &str, body: &str) -> &[u8] {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            self.address,
            self.token,
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes()).await.unwrap();
        self.read_line().await;
        let status = self.line.clone();
        let mut length = None;
        loop {
            self.read_line().await;
            if self.line == "\r\n" {
                break;
            }
            let (name, value) = self.line.split_once(':').unwrap();
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.trim().parse::<usize>().unwrap());
            }
        }
        self.body.resize(length.expect("both servers tell the length of what they answer"), 0);
        self.stream.read_exact(&mut self.body).await.unwrap();
        let good = status.split(' ').nth(1).is_some_and(|code| code.starts_with('2'));
        assert!(good, "{method} {path}: {status}{}", String::from_utf8_lossy(&self.body));
        &self.body
    }

    async fn read_line(&mut self) {
        self.line.clear();
        assert!(self.stream.read_line(&mut self.line).await.unwrap() > 0, "{} closed the connection", self.address);
    }
}
