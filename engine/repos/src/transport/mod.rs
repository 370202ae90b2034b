//! How libgit2 reaches servers: by a transport of ours, over the HTTP client of the egress policy or over `ssh`.
//!
//! libgit2 knows one private URL scheme, registered once per process. A URL of it names a [`Session`], which belongs to
//! one operation on one repository and carries its credentials, its policy and its limits; so two repositories never see
//! anything of each other's. An error that libgit2 could only report as a text is kept in the session by its type.
//!
//! libgit2's own transports are not built in: theirs would need another TLS library and know no policy.

pub(crate) mod http;
pub(crate) mod ssh;

use std::{
    collections::HashMap,
    io::{self, Cursor, Read, Write},
    sync::{
        Arc, Mutex, Once,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream, Transport};

use crate::{
    access::Access,
    advert::{self, Advert, AdvertError, LENGTH_DIGITS},
    failure::FetchError,
    origin::Origin,
};

/// How long one operation on a repository may take in all, a large first fetch included.
pub(crate) const MAX_DURATION: Duration = Duration::from_mins(30);
/// How long a server may take to list its refs.
pub(crate) const MAX_LIST_DURATION: Duration = Duration::from_secs(60);
/// Most bytes that one operation takes from a server.
pub(crate) const MAX_RECEIVED_BYTES: u64 = 16 * 1024 * 1024 * 1024;
/// Most bytes of one request: a list of what is wanted and had, or the notes that are pushed.
pub(crate) const MAX_SENT_BYTES: usize = 64 * 1024 * 1024;

const SCHEME: &str = "kickwheel";

/// One operation on one repository.
pub(crate) struct Session {
    /// As configured.
    pub(crate) url: String,
    route: Route,
    deadline: Instant,
    received: AtomicU64,
    failure: Mutex<Option<FetchError>>,
    advert: Mutex<Option<Advert>>,
}

enum Route {
    Http(http::Route),
    Ssh(ssh::Route),
}

/// A service of git's servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GitService {
    /// To fetch.
    UploadPack,
    /// To push.
    ReceivePack,
}

impl GitService {
    pub(crate) fn command(self) -> &'static str {
        match self {
            Self::UploadPack => "git-upload-pack",
            Self::ReceivePack => "git-receive-pack",
        }
    }
}

impl Session {
    /// Prepares an operation; nothing is sent yet.
    pub(crate) fn new(origin: &Origin, url: &str, access: &Access) -> Result<Self, FetchError> {
        let route = match origin {
            Origin::Local(_) => unreachable!("callers open repositories on this machine themselves"),
            Origin::Http(base) => Route::Http(http::Route::new(base, url, access)?),
            Origin::Ssh(origin) => Route::Ssh(ssh::Route::new(origin, url, access)?),
        };
        Ok(Self {
            url: url.to_owned(),
            route,
            deadline: Instant::now() + MAX_DURATION,
            received: AtomicU64::new(0),
            failure: Mutex::default(),
            advert: Mutex::default(),
        })
    }

    /// The refs, without libgit2.
    pub(crate) fn list(&self) -> Result<Advert, FetchError> {
        match &self.route {
            Route::Http(route) => {
                route.list(self, GitService::UploadPack)?;
            }
            Route::Ssh(route) => {
                ssh::Connection::open(route, self, GitService::UploadPack)?.0.hang_up();
            }
        }
        Ok(self.take_advert())
    }

    /// What the server listed when it was last asked.
    pub(crate) fn take_advert(&self) -> Advert {
        self.advert.lock().expect("no holder of this lock panics").take().unwrap_or_default()
    }

    /// What went wrong below libgit2, if anything did.
    pub(crate) fn take_failure(&self) -> Option<FetchError> {
        self.failure.lock().expect("no holder of this lock panics").take()
    }

    /// Keeps the first failure by its type, and gives it the form that libgit2 takes.
    fn fail(&self, error: FetchError) -> io::Error {
        // libgit2 takes messages as C strings.
        let told = io::Error::other(error.to_string().replace('\0', "\u{fffd}"));
        self.failure.lock().expect("no holder of this lock panics").get_or_insert(error);
        told
    }

    /// Counts what came; an error when it is too much or too late.
    fn received(&self, bytes: usize) -> Result<(), FetchError> {
        let total = self.received.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if total > MAX_RECEIVED_BYTES {
            let reason = format!("the server sent more than {MAX_RECEIVED_BYTES} bytes");
            return Err(FetchError::TooLarge { url: self.url.clone(), reason });
        }
        if Instant::now() > self.deadline {
            return Err(FetchError::TimedOut { url: self.url.clone(), limit: MAX_DURATION });
        }
        Ok(())
    }

    /// Looks at how an answer begins: libgit2 does not tell what a server that gives up says.
    fn check_answer(&self, begins: &[u8]) -> Result<(), FetchError> {
        let Some(said) = begins.get(LENGTH_DIGITS..).and_then(|line| line.strip_prefix(b"ERR ")) else { return Ok(()) };
        let reason = String::from_utf8_lossy(said).trim().escape_debug().to_string();
        let url = self.url.clone();
        Err(match reason {
            reason if reason.contains(NOT_OURS) => FetchError::Changed { url, reason },
            reason if says_not_found(&reason) => FetchError::NotFound { url },
            reason => FetchError::Unreachable { url, reason: format!("the server says: {reason}") },
        })
    }

    /// Reads an advertisement and keeps it.
    fn keep_advert(&self, bytes: &[u8], announced: bool) -> Result<(), FetchError> {
        let url = self.url.clone();
        let read = advert::parse(bytes, announced).map_err(|error| match error {
            AdvertError::Malformed(_) => FetchError::Unreachable { url, reason: error.to_string() },
            AdvertError::ObjectFormat(_) | AdvertError::Shallow => {
                FetchError::Unsupported { url, reason: error.to_string() }
            }
            AdvertError::TooManyRefs => FetchError::TooLarge { url, reason: error.to_string() },
            AdvertError::Refused(reason) if says_not_found(&reason) => FetchError::NotFound { url },
            AdvertError::Refused(_) => FetchError::Credentials { url, reason: error.to_string() },
        })?;
        *self.advert.lock().expect("no holder of this lock panics") = Some(read);
        Ok(())
    }
}

/// A server's words for an object that it does not hand out.
pub(crate) const NOT_OURS: &str = "not our ref";

/// Whether a server's or ssh's words mean that there is no such repository. Servers have no code for it.
pub(crate) fn says_not_found(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    ["not found", "does not appear to be a git repository", "does not exist", "no such"]
        .iter()
        .any(|w| words.contains(w))
}

/// A session that libgit2 can find by its URL, until this is dropped.
pub(crate) struct Registered {
    id: u64,
    pub(crate) session: Arc<Session>,
}

static SESSIONS: Mutex<Option<HashMap<u64, Arc<Session>>>> = Mutex::new(None);
static NEXT: AtomicU64 = AtomicU64::new(1);

impl Registered {
    pub(crate) fn new(session: Session) -> Self {
        register();
        let (id, session) = (NEXT.fetch_add(1, Ordering::Relaxed), Arc::new(session));
        let mut sessions = SESSIONS.lock().expect("no holder of this lock panics");
        sessions.get_or_insert_default().insert(id, Arc::clone(&session));
        Self { id, session }
    }

    /// For libgit2 only.
    pub(crate) fn url(&self) -> String {
        format!("{SCHEME}://{}/", self.id)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(sessions) = SESSIONS.lock().expect("no holder of this lock panics").as_mut() {
            sessions.remove(&self.id);
        }
    }
}

fn find(url: &str) -> Option<Arc<Session>> {
    let id = url.strip_prefix(SCHEME)?.strip_prefix("://")?.trim_end_matches('/').parse().ok()?;
    SESSIONS.lock().expect("no holder of this lock panics").as_ref()?.get(&id).cloned()
}

/// Makes the scheme known to libgit2, once per process.
#[allow(unsafe_code)]
fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let made = |remote: &git2::Remote<'_>| {
            let session = remote.url().ok().and_then(find).ok_or_else(|| git2::Error::from_str("no such session"))?;
            // Over ssh one connection carries the whole conversation; over http each question stands alone.
            let stateless = match session.route {
                Route::Http(_) => true,
                Route::Ssh(_) => false,
            };
            Transport::smart(remote, stateless, Subtransport { session })
        };
        // SAFETY: libgit2's list of transports must not be changed while another thread creates one. `Once` makes this
        // the only change, and nothing in this process creates a transport but this crate, which passes here first.
        let result = unsafe { git2::transport::register(SCHEME, made) };
        result.expect("the scheme is registered once, and has no transport of its own");
    });
}

struct Subtransport {
    session: Arc<Session>,
}

impl SmartSubtransport for Subtransport {
    fn action(&self, _url: &str, action: Service) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        let session = Arc::clone(&self.session);
        let (service, lists) = match action {
            Service::UploadPackLs => (GitService::UploadPack, true),
            Service::UploadPack => (GitService::UploadPack, false),
            Service::ReceivePackLs => (GitService::ReceivePack, true),
            Service::ReceivePack => (GitService::ReceivePack, false),
        };
        let failed = |error: FetchError| git2::Error::from_str(&self.session.fail(error).to_string());
        match (&self.session.route, lists) {
            (Route::Http(route), true) => {
                let listed = route.list(&self.session, service).map_err(failed)?;
                Ok(Box::new(Listed(Cursor::new(listed))))
            }
            (Route::Http(_), false) => Ok(Box::new(http::Exchange::new(session, service))),
            (Route::Ssh(route), true) => {
                let (connection, listed) = ssh::Connection::open(route, &session, service).map_err(failed)?;
                Ok(Box::new(ssh::Conversation::new(session, connection, listed)))
            }
            // Not asked for: libgit2 goes on with the stream that listed the refs.
            (Route::Ssh(_), false) => Err(git2::Error::from_str("the connection is gone")),
        }
    }

    fn close(&self) -> Result<(), git2::Error> {
        Ok(())
    }
}

/// An advertisement that is there already.
struct Listed(Cursor<Vec<u8>>);

impl Read for Listed {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Listed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::other("a list of refs takes no input"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
