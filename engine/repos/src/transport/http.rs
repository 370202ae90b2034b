//! Git's smart HTTP protocol, one request per question, through the client of the egress policy.
//!
//! The first question, the list of refs, may be redirected; later ones go where it ended, as `git` does it. Credentials
//! go only to the scheme, host and port that were configured.

use std::{
    io::{self, Cursor, Read, Write},
    sync::{Arc, Mutex},
    time::Instant,
};

use kickwheel_egress::{
    BlockingClient, Failure,
    policy::shown,
    reqwest::{Method, StatusCode, blocking, header},
};
use url::Url;

use super::{GitService, MAX_LIST_DURATION, MAX_SENT_BYTES, Session};
use crate::{
    access::{Access, Credentials},
    advert::MAX_ADVERT_BYTES,
    failure::FetchError,
};

/// How to ask one repository.
pub(crate) struct Route {
    client: BlockingClient,
    configured: Url,
    credentials: Option<Credentials>,
    /// Where the repository turned out to be.
    base: Mutex<Url>,
    idle_timeout: std::time::Duration,
}

/// Some servers take no client for git that does not say it is one.
const USER_AGENT: &str = concat!("git/2.0 (kickwheel ", env!("CARGO_PKG_VERSION"), ")");
const INFO_REFS: &str = "/info/refs";

impl Route {
    pub(super) fn new(base: &Url, url: &str, access: &Access) -> Result<Self, FetchError> {
        let refused = |reason: String| Err(FetchError::Credentials { url: url.to_owned(), reason });
        match &access.credentials {
            Some(Credentials::DeployKey { .. }) => {
                return refused("a deploy key is for ssh; give a user and password, or a token".into());
            }
            // A password in the clear is read by everybody on the way; whoever lists a host vouches for the way there.
            Some(known @ (Credentials::Basic { .. } | Credentials::Bearer { .. })) if base.scheme() == "http" => {
                let listed = base.host().is_some_and(|host| access.egress.policy().lists(&host));
                if !listed {
                    return refused(format!(
                        "{} would travel unencrypted; use https, or add {} to {} if the way there is safe",
                        known.words(),
                        base.host_str().unwrap_or_default(),
                        kickwheel_egress::SETTING
                    ));
                }
            }
            Some(Credentials::Basic { .. } | Credentials::Bearer { .. }) | None => {}
        }
        let idle_timeout = access.egress.settings().idle_timeout;
        let client = access.egress.blocking().map_err(|failure| FetchError::of(failure, url, idle_timeout))?;
        let mut base = base.clone();
        let path = base.path().trim_end_matches('/').to_owned();
        base.set_path(&path);
        Ok(Self {
            client,
            configured: base.clone(),
            credentials: access.credentials.clone(),
            base: Mutex::new(base),
            idle_timeout,
        })
    }

    /// Lists the refs; the advertisement is kept in the session too.
    pub(super) fn list(&self, session: &Session, service: GitService) -> Result<Vec<u8>, FetchError> {
        let asked = at(&self.configured, INFO_REFS, Some(service));
        let request = self.request(session, Method::GET, &asked)?;
        let response = self.client.send(request).map_err(|failure| self.failed(failure, session))?;
        let ended = response.url().clone();
        self.check(session, &response, &format!("application/x-{}-advertisement", service.command()))?;
        if ended != asked {
            let base = ended.path().strip_suffix(INFO_REFS).map(str::to_owned);
            let base = base.ok_or_else(|| FetchError::Redirected {
                url: session.url.clone(),
                to: shown(&ended),
                reason: "that is no repository of git's smart protocol; configure the URL that is meant".into(),
            })?;
            let mut found = ended;
            found.set_query(None);
            found.set_path(&base);
            *self.base.lock().expect("no holder of this lock panics") = found;
        }
        let listed = self.read_listed(session, response)?;
        session.keep_advert(&listed, true)?;
        Ok(listed)
    }

    fn read_listed(&self, session: &Session, mut response: blocking::Response) -> Result<Vec<u8>, FetchError> {
        let deadline = Instant::now() + MAX_LIST_DURATION;
        let (mut listed, mut buf) = (Vec::new(), vec![0; 64 * 1024]);
        loop {
            let read = response.read(&mut buf).map_err(|error| self.broken(&error, session))?;
            if read == 0 {
                return Ok(listed);
            }
            listed.extend_from_slice(&buf[..read]);
            session.received(read)?;
            if listed.len() > MAX_ADVERT_BYTES {
                let reason = format!("its list of refs is larger than {MAX_ADVERT_BYTES} bytes");
                return Err(FetchError::TooLarge { url: session.url.clone(), reason });
            }
            if Instant::now() > deadline {
                return Err(FetchError::TimedOut { url: session.url.clone(), limit: MAX_LIST_DURATION });
            }
        }
    }

    /// A request with the credentials, if they may go there.
    fn request(&self, session: &Session, method: Method, url: &Url) -> Result<blocking::RequestBuilder, FetchError> {
        let request = self.client.request(method, url.as_str()).map_err(|failure| self.failed(failure, session))?;
        let request = request.header(header::USER_AGENT, USER_AGENT);
        if url.origin() != self.configured.origin() {
            return Ok(request);
        }
        Ok(match &self.credentials {
            Some(Credentials::Basic { user, password }) => request.basic_auth(user, Some(password)),
            Some(Credentials::Bearer { token }) => request.bearer_auth(token),
            Some(Credentials::DeployKey { .. }) | None => request,
        })
    }

    /// Judges an answer by its head.
    fn check(&self, session: &Session, response: &blocking::Response, expected: &str) -> Result<(), FetchError> {
        let (url, status) = (session.url.clone(), response.status());
        let elsewhere = response.url().origin() != self.configured.origin();
        if status.is_success() {
            let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
            if kind == expected {
                return Ok(());
            }
            if elsewhere || response.url().path() != at(&self.configured, INFO_REFS, None).path() {
                return Err(FetchError::Redirected {
                    url,
                    to: shown(response.url()),
                    reason: "that is no repository of git's smart protocol; configure the URL that is meant".into(),
                });
            }
            return Err(FetchError::Unsupported {
                url,
                reason: format!(
                    "it answers with {kind:?}, not with git's smart protocol; check that it is a repository's URL"
                ),
            });
        }
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if elsewhere && self.credentials.is_some() => {
                Err(FetchError::Redirected {
                    url,
                    to: shown(response.url()),
                    reason: "credentials do not go to another host; configure that URL if it is meant".into(),
                })
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let reason = match &self.credentials {
                    Some(known) => format!("the server refuses {} ({status}); renew the secret", known.words()),
                    None => format!("the server wants to know who asks ({status}); configure credentials"),
                };
                Err(FetchError::Credentials { url, reason })
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => Err(FetchError::NotFound { url }),
            status if status.is_redirection() => Err(FetchError::Redirected {
                url,
                to: "nowhere".into(),
                reason: format!("it answers {status} without saying where to; check the URL"),
            }),
            status => Err(FetchError::Unreachable { url, reason: format!("the server answers {status}") }),
        }
    }

    fn failed(&self, failure: Failure, session: &Session) -> FetchError {
        FetchError::of(failure, &session.url, self.idle_timeout)
    }

    /// A body that broke off.
    fn broken(&self, error: &io::Error, session: &Session) -> FetchError {
        let failure = match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(error) => Failure::of(error, &session.url),
            None => Failure::Unreachable { url: session.url.clone(), reason: error.to_string() },
        };
        self.failed(failure, session)
    }
}

fn at(base: &Url, path: &str, service: Option<GitService>) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    url.set_query(service.map(|service| format!("service={}", service.command())).as_deref());
    url
}

/// One question and its answer: what is written until the first read is the question.
pub(super) struct Exchange {
    session: Arc<Session>,
    service: GitService,
    question: Vec<u8>,
    answer: Option<Answer>,
}

/// An answer, whose beginning was looked at.
type Answer = io::Chain<Cursor<Vec<u8>>, blocking::Response>;

/// How much of an answer is looked at: enough for a sentence of the server's.
const LOOKED_AT_BYTES: usize = 1024;

impl Exchange {
    pub(super) fn new(session: Arc<Session>, service: GitService) -> Self {
        Self { session, service, question: Vec::new(), answer: None }
    }

    fn route(&self) -> &Route {
        match &self.session.route {
            super::Route::Http(route) => route,
            super::Route::Ssh(_) => unreachable!("an exchange is made for http sessions only"),
        }
    }

    fn ask(&mut self) -> Result<Answer, FetchError> {
        let question = std::mem::take(&mut self.question);
        let (route, command) = (self.route(), self.service.command());
        let base = route.base.lock().expect("no holder of this lock panics").clone();
        let request = route
            .request(&self.session, Method::POST, &at(&base, &format!("/{command}"), None))?
            .header(header::CONTENT_TYPE, format!("application/x-{command}-request"))
            .header(header::ACCEPT, format!("application/x-{command}-result"))
            .body(question);
        let mut response = route.client.send(request).map_err(|failure| route.failed(failure, &self.session))?;
        route.check(&self.session, &response, &format!("application/x-{command}-result"))?;
        let mut begins = Vec::with_capacity(LOOKED_AT_BYTES);
        let looked = (&mut response).take(LOOKED_AT_BYTES as u64).read_to_end(&mut begins);
        looked.map_err(|error| route.broken(&error, &self.session))?;
        self.session.check_answer(&begins)?;
        Ok(Cursor::new(begins).chain(response))
    }
}

impl Read for Exchange {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut answer = match self.answer.take() {
            Some(answer) => answer,
            None => self.ask().map_err(|error| self.session.fail(error))?,
        };
        let read = answer.read(buf).map_err(|error| self.session.fail(self.route().broken(&error, &self.session)))?;
        self.session.received(read).map_err(|error| self.session.fail(error))?;
        self.answer = Some(answer);
        Ok(read)
    }
}

impl Write for Exchange {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.question.len() + bytes.len() > MAX_SENT_BYTES {
            let reason = format!("a request of more than {MAX_SENT_BYTES} bytes would be needed");
            return Err(self.session.fail(FetchError::TooLarge { url: self.session.url.clone(), reason }));
        }
        self.question.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
