//! The whole router in front of a real engine in a temporary folder, without a socket.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Method, Request, StatusCode, header},
};
use kickwheel_runtime::{Config, EgressSettings, Engine, POLL_GRACE, bus::BusConfig, secrets::KeySource};
use kickwheel_server::{ServerConfig, router, routes::Door};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::Notify;
use tower::ServiceExt as _;

pub const TOKEN: &str = "0123456789abcdef";
pub const HOST: &str = "127.0.0.1:7070";
/// No answer on this machine may take longer, however busy it is.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// An engine with its door. The folder goes last: the engine uses it until then.
pub struct House {
    pub engine: Engine,
    pub router: Router,
    pub nudge: Arc<Notify>,
    pub folder: TempDir,
}

impl House {
    pub async fn build() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let engine = engine(folder.path().to_owned()).await;
        let nudge = Arc::new(Notify::new());
        let address: SocketAddr = HOST.parse().expect("an address");
        let router = router(Door::at(engine.clone(), config(&nudge), address));
        Self { engine, router, nudge, folder }
    }

    pub async fn answer(&self, request: Request<Body>) -> (StatusCode, Value) {
        let response = self.router.clone().oneshot(request).await.expect("the router never fails");
        assert_eq!(response.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        let status = response.status();
        let bytes = to_bytes(response.into_body(), 1 << 20).await.expect("a whole body");
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// The answer with its headers.
    pub async fn raw(&self, request: Request<Body>) -> axum::response::Response {
        self.router.clone().oneshot(request).await.expect("the router never fails")
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.answer(authorized(Method::GET, path).body(Body::empty()).expect("a request")).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let request = authorized(Method::POST, path).header(header::CONTENT_TYPE, "application/json");
        self.answer(request.body(Body::from(body.to_string())).expect("a request")).await
    }

    /// The answer is a `Problem` with this status and code.
    #[track_caller]
    pub fn refused((status, problem): (StatusCode, Value), expected: u16, code: &str) -> Value {
        assert_eq!((status.as_u16(), problem["code"].as_str()), (expected, Some(code)), "{problem}");
        assert_eq!(problem["status"], expected);
        assert!(problem["detail"].as_str().is_some_and(|d| !d.is_empty()), "{problem}");
        problem
    }
}

pub async fn engine(data: PathBuf) -> Engine {
    let config = Config {
        data,
        database: None,
        // It must be a file; nothing here starts it.
        runner: std::env::current_exe().expect("this program"),
        local_cpu_milli: None,
        docker: None,
        bus: BusConfig::Embedded,
        base_url: format!("http://{HOST}"),
        base_url_lasts: true,
        lease: Duration::from_secs(15),
        pure_batching: true,
        secrets_key: KeySource::Folder,
        host_processes: true,
        job_user: None,
        egress: EgressSettings::default(),
        poll_grace: POLL_GRACE,
    };
    Engine::start(config).await.expect("an empty folder is enough")
}

pub fn config(nudge: &Arc<Notify>) -> ServerConfig {
    ServerConfig {
        token: TOKEN.to_owned(),
        hook_nudge: Arc::clone(nudge),
        binary: std::env::current_exe().expect("this program"),
        drain: Duration::from_secs(5),
        hosts: Vec::new(),
        proxies: Vec::new(),
        tls: None,
    }
}

pub fn request(method: Method, path: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path).header(header::HOST, HOST)
}

pub fn authorized(method: Method, path: &str) -> axum::http::request::Builder {
    request(method, path).header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
}

pub fn empty(builder: axum::http::request::Builder) -> Request<Body> {
    builder.body(Body::empty()).expect("a request")
}
