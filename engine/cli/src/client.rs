//! Speaks to the server's API, finds the server, and turns whatever goes wrong into words that say what to do.

use std::{fs, path::Path, time::Duration};

use kickwheel_schemas::api::{Page, Problem};
use reqwest::{Method, Response, StatusCode, Url, header};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    args::Global,
    exit::{Exit, Failure},
    places,
};

/// Time to connect to a server that is on this machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a whole answer; long polls are the longest.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);
/// Rows asked for at a time.
const PAGE_ROWS: usize = 1000;

/// An answer: the server's own JSON for `--json`, and what it means.
#[derive(Clone, Debug)]
pub struct Fetched<T> {
    /// As it came.
    pub raw: String,
    /// As it was read.
    pub value: T,
}

/// A connection to one server.
#[derive(Clone, Debug)]
pub struct Client {
    base: Url,
    token: Option<String>,
    http: reqwest::Client,
}

impl Client {
    /// The server that the options name, else the one that runs on the data folder. Nothing is sent yet.
    pub fn find(global: &Global) -> Result<Self, Failure> {
        let data = places::data_folder(global)?;
        let text = match &global.server {
            Some(url) => url.clone(),
            None => fs::read_to_string(places::endpoint_file(&data)).map_err(|_| {
                Failure::new(
                    Exit::Unreachable,
                    "no_server",
                    format!("no server runs on the data folder {}", data.display()),
                )
                .help(format!(
                    "start one with `kickwheel serve --data {}`, or name another with --server URL or --data DIR",
                    data.display()
                ))
            })?,
        };
        let base = Url::parse(text.trim()).ok().filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host());
        let base = base.ok_or_else(|| {
            Failure::usage(format!("{:?} is no URL of a server", text.trim()))
                .help("write it like http://127.0.0.1:7070")
        })?;
        let token_file = global.token_file.clone().unwrap_or_else(|| places::token_file(&data));
        let token = match fs::read_to_string(&token_file) {
            Ok(token) => token.trim().to_owned(),
            Err(e) => {
                return Err(Failure::new(
                    Exit::Unreachable,
                    "no_token",
                    format!("cannot read the server's token from {}: {e}", token_file.display()),
                )
                .help("name the file with --token-file; `kickwheel serve` prints where it is"));
            }
        };
        Self::new(base, Some(token), global.ca_file.as_deref())
    }

    /// A client of the server at `base`. Without a token only `/health` answers. `authority` may sign certificates beside
    /// those that the system trusts.
    pub fn new(base: Url, token: Option<String>, authority: Option<&Path>) -> Result<Self, Failure> {
        // Fails when it is done already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder();
        for certificate in authority.map(certificates).transpose()?.into_iter().flatten() {
            builder = builder.add_root_certificate(certificate);
        }
        // No proxy and no redirects: the token goes to the named server and nowhere else.
        let http = builder
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("kickwheel/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| Failure::new(Exit::Unreachable, "client", format!("cannot set up an HTTP client: {e}")))?;
        Ok(Self { base, token, http })
    }

    /// `GET` below `/api/v1`.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<Fetched<T>, Failure> {
        let request = self.request(Method::GET, path).query(query).timeout(ANSWER_TIMEOUT);
        self.read(self.send(request).await?).await
    }

    /// `POST` below `/api/v1`.
    pub async fn post<T: DeserializeOwned>(&self, path: &[&str], body: &impl Serialize) -> Result<Fetched<T>, Failure> {
        let request = self.request(Method::POST, path).json(body).timeout(ANSWER_TIMEOUT);
        self.read(self.send(request).await?).await
    }

    /// `POST` whose answer says nothing but that it was taken.
    pub async fn post_nothing(&self, path: &[&str], body: &impl Serialize) -> Result<(), Failure> {
        self.send(self.request(Method::POST, path).json(body).timeout(ANSWER_TIMEOUT)).await.map(drop)
    }

    /// `PUT` below `/api/v1`.
    pub async fn put<T: DeserializeOwned>(&self, path: &[&str], body: &impl Serialize) -> Result<Fetched<T>, Failure> {
        let request = self.request(Method::PUT, path).json(body).timeout(ANSWER_TIMEOUT);
        self.read(self.send(request).await?).await
    }

    /// `DELETE` below `/api/v1`, which says what became of it.
    pub async fn delete_told<T: DeserializeOwned>(&self, path: &[&str]) -> Result<Fetched<T>, Failure> {
        let request = self.request(Method::DELETE, path).timeout(ANSWER_TIMEOUT);
        self.read(self.send(request).await?).await
    }

    /// `DELETE` below `/api/v1`.
    pub async fn delete(&self, path: &[&str]) -> Result<(), Failure> {
        self.send(self.request(Method::DELETE, path).timeout(ANSWER_TIMEOUT)).await.map(drop)
    }

    /// `GET` of bytes of any length, as they come.
    pub async fn stream(&self, path: &[&str], query: &[(&str, String)]) -> Result<Response, Failure> {
        self.send(self.request(Method::GET, path).query(query)).await
    }

    /// Rows of a listing, at most `limit`, over as many pages as that takes.
    pub async fn list<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, String)],
        limit: usize,
    ) -> Result<Fetched<Page<T>>, Failure> {
        let mut items: Vec<Value> = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let mut query = query.to_vec();
            query.push(("limit", (limit - items.len()).clamp(1, PAGE_ROWS).to_string()));
            query.extend(next.take().map(|cursor| ("cursor", cursor)));
            let page: Page<Value> = self.get(path, &query).await?.value;
            let empty = page.items.is_empty();
            items.extend(page.items);
            next = page.next;
            if empty || next.is_none() || items.len() >= limit {
                break;
            }
        }
        items.truncate(limit);
        let page = Page { items, next };
        let value = serde_json::to_value(&page).expect("a page of JSON is JSON");
        let raw = value.to_string();
        Ok(Fetched { raw, value: serde_json::from_value(value).map_err(|e| self.foreign(&e.to_string()))? })
    }

    fn request(&self, method: Method, path: &[&str]) -> reqwest::RequestBuilder {
        let mut url = self.base.clone();
        url.path_segments_mut().expect("an http URL has a path").pop_if_empty().extend(["api", "v1"]).extend(path);
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let content_type = response.headers().get(header::CONTENT_TYPE);
        let json = content_type.is_some_and(|v| v.as_bytes().starts_with(b"application/problem+json"));
        let body = response.bytes().await.map_err(|e| self.unreachable(&e))?;
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) if json => Err(self.problem(status, problem)),
            Ok(_) | Err(_) => Err(self.foreign(&format!("it answered {status} without a `Problem`"))),
        }
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<Fetched<T>, Failure> {
        let raw = response.text().await.map_err(|e| self.unreachable(&e))?;
        match serde_json::from_str(&raw) {
            Ok(value) => Ok(Fetched { raw, value }),
            Err(e) => Err(self.foreign(&e.to_string())),
        }
    }

    fn problem(&self, status: StatusCode, problem: Problem) -> Failure {
        let exit = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::Unreachable,
            StatusCode::NOT_FOUND => Exit::NotFound,
            StatusCode::UNPROCESSABLE_ENTITY => Exit::Failed,
            _ => Exit::Refused,
        };
        let failure = Failure::new(exit, &problem.code, problem.detail);
        match status {
            StatusCode::UNAUTHORIZED => {
                Failure::new(exit, &problem.code, format!("the server at {} does not take this token", self.base))
                    .help("name the token file of this server with --token-file, or its data folder with --data")
            }
            StatusCode::SERVICE_UNAVAILABLE => failure.help("`kickwheel doctor` says why; then try again"),
            _ => failure,
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let cause = root_cause(error);
        // rustls says so in its own words, and has no other mark that reqwest lets through.
        let help = if cause.contains("certificate") || cause.contains("CaUsedAsEndEntity") {
            "it runs, and its certificate is not for this name or of no authority that is known here: give the name that it \
             is for with --server https://NAME:PORT, the authority's certificate with --ca-file FILE, and the token with \
             --token-file FILE"
        } else {
            "is it running? `kickwheel serve` starts one; --server names another"
        };
        let message = format!("no answer from the server at {}: {cause}", self.base);
        Failure::new(Exit::Unreachable, "unreachable", message).help(help)
    }

    fn foreign(&self, why: &str) -> Failure {
        Failure::new(
            Exit::Unreachable,
            "foreign_answer",
            format!("{} does not answer like a kickwheel server of this version: {why}", self.base),
        )
        .help("check --server, and that server and command line are of the same version")
    }
}

fn certificates(file: &Path) -> Result<Vec<reqwest::Certificate>, Failure> {
    let unusable = |e: &dyn std::fmt::Display| {
        Failure::usage(format!("cannot use {} as the file of an authority: {e}", file.display()))
            .help("give a PEM file with --ca-file")
    };
    let bytes = fs::read(file).map_err(|e| unusable(&e))?;
    reqwest::Certificate::from_pem_bundle(&bytes).map_err(|e| unusable(&e))
}

/// The innermost error: `connection refused` says more than `error sending request`.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(base: &str) -> Client {
        Client::new(Url::parse(base).expect("a URL"), None, None).expect("a client")
    }

    fn check(base: &str, path: &[&str], url: &str) {
        let request = client(base).request(Method::GET, path).build().expect("a request");
        assert_eq!(request.url().as_str(), url);
    }

    #[test]
    fn names_travel_as_one_segment() {
        check("http://h:1", &["datasets", "churn/raw"], "http://h:1/api/v1/datasets/churn%2Fraw");
        check("http://h:1/base/", &["runs"], "http://h:1/base/api/v1/runs");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        drop(listener);
        let failure =
            client(&format!("http://{address}")).get::<Value>(&["runs"], &[]).await.expect_err("nobody is there");
        assert_eq!(failure.exit, Exit::Unreachable);
        assert!(failure.message.contains(&address.to_string()), "{failure}");
        assert!(failure.help.is_some_and(|h| h.contains("kickwheel serve")));
    }

    #[test]
    fn without_endpoint_file_the_data_folder_and_the_command_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let global = Global { data: Some(folder.path().to_owned()), ..Global::default() };
        let failure = Client::find(&global).expect_err("no server");
        assert_eq!((failure.exit, failure.code.as_str()), (Exit::Unreachable, "no_server"));
        assert!(failure.message.contains(&folder.path().display().to_string()));
    }
}
