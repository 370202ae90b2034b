//! `git http-backend` behind a small HTTP server on loopback, with TLS and credentials where a test wants them.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// What a client asked.
pub struct Request {
    pub method: String,
    /// Without the query.
    pub path: String,
    pub query: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// An answer of the test's own, instead of git's.
pub type Rule = dyn Fn(&Request) -> Option<String> + Send + Sync;

/// How a server is set up.
#[derive(Clone, Default)]
pub struct Setup {
    tls: Option<Arc<rustls::ServerConfig>>,
    /// What the `Authorization` header must be.
    authorization: Option<String>,
    rule: Option<Arc<Rule>>,
}

impl Setup {
    pub fn tls(mut self, authority: &Authority) -> Self {
        self.tls = Some(authority.server_config());
        self
    }

    pub fn authorization(mut self, header: &str) -> Self {
        self.authorization = Some(header.to_owned());
        self
    }

    pub fn rule(mut self, rule: impl Fn(&Request) -> Option<String> + Send + Sync + 'static) -> Self {
        self.rule = Some(Arc::new(rule));
        self
    }
}

/// An authority of one test.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("an authority") }
    }

    pub fn pem(&self) -> Vec<u8> {
        self.issuer.pem().into_bytes()
    }

    fn server_config(&self) -> Arc<rustls::ServerConfig> {
        let key = KeyPair::generate().expect("a key");
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let certificate = CertificateParams::new(names).expect("good names").signed_by(&key, &self.issuer);
        let chain = vec![certificate.expect("signed").der().clone()];
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring knows them")
            .with_no_client_auth()
            .with_single_cert(chain, key.serialize_der().try_into().expect("a key"))
            .expect("they belong together");
        Arc::new(config)
    }
}

/// Stops when it is dropped.
pub struct Server {
    shared: Arc<Shared>,
    port: u16,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    root: PathBuf,
    backend: PathBuf,
    setup: Setup,
    requests: Mutex<Vec<Request>>,
    stopped: AtomicBool,
}

impl Server {
    /// Serves the repositories in the folder `root`.
    pub fn start(root: &Path, setup: Setup) -> Self {
        let exec_path = Command::new("git").arg("--exec-path").output().expect("git is installed").stdout;
        let backend = Path::new(String::from_utf8_lossy(&exec_path).trim()).join("git-http-backend");
        assert!(fs::metadata(&backend).is_ok(), "git's own HTTP server is missing: {}", backend.display());
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            backend,
            setup,
            requests: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        let acceptor = thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), shared) = (stream, Arc::clone(&serving)) else { continue };
                // A client that hangs up, or does not trust us, is what some tests are about.
                thread::spawn(move || drop(shared.serve(stream)));
            }
        });
        Self { shared, port, acceptor: Some(acceptor) }
    }

    /// The URL of a repository, by the name or address of this machine that is given.
    pub fn url(&self, host: &str, path: &str) -> String {
        let scheme = if self.shared.setup.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{host}:{}/{path}", self.port)
    }

    /// What was asked so far, as `METHOD path`, with the credentials that came along.
    pub fn asked(&self) -> Vec<(String, Option<String>)> {
        let requests = self.shared.requests.lock().expect("not poisoned");
        requests
            .iter()
            .map(|r| (format!("{} {}", r.method, r.path), r.header("authorization").map(str::to_owned)))
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread, which then sees that it is over.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().expect("the server does not panic");
        }
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        match &self.setup.tls {
            Some(config) => {
                let connection = rustls::ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
                let mut stream = rustls::StreamOwned::new(connection, stream);
                self.answer(&mut stream)?;
                stream.conn.send_close_notify();
                stream.flush()
            }
            None => self.answer(&mut { stream }),
        }
    }

    fn answer(&self, stream: &mut (impl Read + Write)) -> io::Result<()> {
        let request = read_request(stream)?;
        let own = self.setup.rule.as_ref().and_then(|rule| rule(&request));
        let allowed = match &self.setup.authorization {
            Some(expected) => request.header("authorization") == Some(expected.as_str()),
            None => true,
        };
        let answer = match own {
            Some(answer) => answer.into_bytes(),
            None if !allowed => status("401 Unauthorized", "www-authenticate: Basic realm=\"test\"\r\n").into_bytes(),
            None => self.backend(&request)?,
        };
        self.requests.lock().expect("not poisoned").push(request);
        stream.write_all(&answer)?;
        stream.flush()
    }

    /// Runs git's server as the gateway program that it is.
    fn backend(&self, request: &Request) -> io::Result<Vec<u8>> {
        let mut child = Command::new(&self.backend)
            .env("GIT_PROJECT_ROOT", &self.root)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("REMOTE_USER", "ada")
            .env("REMOTE_ADDR", "127.0.0.1")
            .env("REQUEST_METHOD", &request.method)
            .env("PATH_INFO", &request.path)
            .env("QUERY_STRING", &request.query)
            .env("CONTENT_TYPE", request.header("content-type").unwrap_or(""))
            .env("CONTENT_LENGTH", request.body.len().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut stdin = child.stdin.take().expect("a pipe");
        let body = request.body.clone();
        let writer = thread::spawn(move || stdin.write_all(&body));
        let output = child.wait_with_output()?;
        // It may end before it has read all.
        drop(writer.join().expect("no panic"));
        let split = output.stdout.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(output.stdout.len());
        let head = String::from_utf8_lossy(&output.stdout[..split]).into_owned();
        let body = output.stdout.get(split + 4..).unwrap_or_default();
        let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK");
        let others: Vec<&str> = head.lines().filter(|line| !line.starts_with("Status: ")).collect();
        let head = format!(
            "HTTP/1.1 {status}\r\n{}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            others.join("\r\n"),
            body.len()
        );
        Ok([head.as_bytes(), body].concat())
    }
}

/// An answer without a body.
pub fn status(line: &str, headers: &str) -> String {
    format!("HTTP/1.1 {line}\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n")
}

fn read_request(stream: &mut impl Read) -> io::Result<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body: Vec::new(),
    };
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    request.body.resize(length, 0);
    reader.read_exact(&mut request.body)?;
    Ok(request)
}
