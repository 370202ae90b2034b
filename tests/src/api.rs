//! The engine's HTTP API as a foreign program would use it: JSON in, JSON out, the token of the data folder.

use std::{sync::LazyLock, time::Duration};

use serde_json::Value;

/// One request.
const PATIENCE: Duration = Duration::from_secs(30);

/// Shared by everything in a test process that must wait for the network.
static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads can be made")
});

static HTTP: LazyLock<reqwest::Client> = LazyLock::new(|| {
    // reqwest comes without cryptography of its own.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().expect("the settings are valid")
});

/// For requests that are not the API's.
pub fn http() -> &'static reqwest::Client {
    &HTTP
}

/// Runs a future to its end from plain code.
pub fn block_on<F: Future>(future: F) -> F::Output {
    RUNTIME.block_on(future)
}

/// Where and as whom to ask. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Api {
    /// `http://127.0.0.1:port`.
    pub url: String,
    /// Opens the door.
    pub token: String,
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body; a text when it is no JSON.
    pub body: Value,
    /// When to ask again, if it says so.
    pub retry_after: Option<String>,
}

impl Answer {
    /// The body of a good answer; a test that gets another one ends here.
    pub fn good(self) -> Value {
        assert!((200..300).contains(&self.status), "refused: {self:?}");
        self.body
    }

    /// The stable code of a refusal.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

impl Api {
    /// `GET /api/v1/<path>`.
    pub fn try_get(&self, path: &str) -> Result<Answer, String> {
        self.send(HTTP.get(format!("{}/api/v1/{path}", self.url)).bearer_auth(&self.token))
    }

    /// The same, which must be answered well.
    pub fn get(&self, path: &str) -> Value {
        self.try_get(path).unwrap_or_else(|e| panic!("GET {path}: {e}")).good()
    }

    /// `POST /api/v1/<path>`.
    pub fn try_post(&self, path: &str, body: &Value) -> Result<Answer, String> {
        self.send(HTTP.post(format!("{}/api/v1/{path}", self.url)).bearer_auth(&self.token).json(body))
    }

    /// The same, which must be answered well.
    pub fn post(&self, path: &str, body: &Value) -> Value {
        self.try_post(path, body).unwrap_or_else(|e| panic!("POST {path}: {e}")).good()
    }

    /// `DELETE /api/v1/<path>`, which must be answered well.
    pub fn delete(&self, path: &str) -> Value {
        let request = HTTP.delete(format!("{}/api/v1/{path}", self.url)).bearer_auth(&self.token);
        self.send(request).unwrap_or_else(|e| panic!("DELETE {path}: {e}")).good()
    }

    /// A request with headers of its own and without the token.
    pub fn bare(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = HTTP.get(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request).unwrap_or_else(|e| panic!("GET {path}: {e}"))
    }

    /// `POST <path>` as a foreign sender does it: any path, headers of its own, and without the token.
    pub fn send_raw(&self, path: &str, headers: &[(&str, &str)], body: String) -> Result<Answer, String> {
        let request = HTTP.post(format!("{}{path}", self.url)).body(body);
        self.send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)))
    }

    fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer, String> {
        block_on(async {
            let response = request.send().await.map_err(|e| e.to_string())?;
            let status = response.status().as_u16();
            let retry_after = response.headers().get("retry-after").and_then(|v| v.to_str().ok()).map(str::to_owned);
            let text = response.text().await.map_err(|e| e.to_string())?;
            let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
            Ok(Answer { status, body, retry_after })
        })
    }
}
