//! Git's protocol over the system's `ssh`, one connection per operation.
//!
//! `ssh` is run with a deploy key and nothing else: no configuration, no agent, no password, no forwarding. The name is
//! resolved and judged here, and `ssh` is given the address that was judged; its host key is still looked up by name. The
//! key lies in a file that only we can read, in a folder of its own, for the time of the connection.

use std::{
    fs::{self, OpenOptions},
    io::{self, Cursor, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use kickwheel_egress::{Egress, Failure};
use tempfile::TempDir;
use url::Host;

use super::{GitService, MAX_DURATION, MAX_LIST_DURATION, NOT_OURS, Session, says_not_found};
use crate::{
    access::{Access, Credentials, KnownHosts},
    advert::{LENGTH_DIGITS, MAX_ADVERT_BYTES, packet_len},
    failure::FetchError,
    origin::SshOrigin,
};

/// How to ask one repository.
pub(crate) struct Route {
    origin: SshOrigin,
    egress: Egress,
    private_key: String,
    known_hosts: KnownHosts,
    accepted_hosts: PathBuf,
    keys: PathBuf,
}

/// Most bytes of what `ssh` says that are kept.
const MAX_WORDS_BYTES: u64 = 16 * 1024;
/// How long the server's side may take to end after it has said all; a push's hooks run then.
const FAREWELL: Duration = Duration::from_secs(10);
const FAREWELL_POLL: Duration = Duration::from_millis(5);

impl Route {
    pub(super) fn new(origin: &SshOrigin, url: &str, access: &Access) -> Result<Self, FetchError> {
        let refused = |reason: &str| FetchError::Credentials { url: url.to_owned(), reason: reason.to_owned() };
        match &access.credentials {
            Some(Credentials::DeployKey { private_key, known_hosts }) => Ok(Self {
                origin: origin.clone(),
                egress: access.egress.clone(),
                private_key: private_key.clone(),
                known_hosts: known_hosts.clone(),
                accepted_hosts: access.accepted_hosts.clone(),
                keys: access.keys.clone(),
            }),
            Some(Credentials::Basic { .. } | Credentials::Bearer { .. }) => {
                Err(refused("ssh takes neither password nor token here; configure a deploy key"))
            }
            None => Err(refused("ssh needs a deploy key; configure one as a secret")),
        }
    }

    /// An address that is allowed and answers.
    fn address(&self, session: &Session) -> Result<IpAddr, FetchError> {
        let limit = self.egress.settings().connect_timeout;
        let failed = |failure: Failure| FetchError::of(failure, &session.url, limit);
        let addresses = self.egress.addresses(&self.origin.host, self.origin.port).map_err(failed)?;
        let mut last = None;
        for address in addresses {
            match TcpStream::connect_timeout(&SocketAddr::new(address, self.origin.port), limit) {
                Ok(_) => return Ok(address),
                Err(error) => last = Some(error),
            }
        }
        let url = session.url.clone();
        Err(match last {
            Some(error) if error.kind() == io::ErrorKind::TimedOut => FetchError::TimedOut { url, limit },
            Some(error) => FetchError::Unreachable { url, reason: error.to_string() },
            None => FetchError::Unreachable { url, reason: "its name leads nowhere".into() },
        })
    }

    /// The name under which `ssh` keeps and looks up the server's key.
    fn alias(&self) -> String {
        let host = match &self.origin.host {
            Host::Domain(name) => name.clone(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        if self.origin.port == 22 { host } else { format!("[{host}]:{}", self.origin.port) }
    }

    fn command(&self, address: IpAddr, folder: &Path, service: GitService) -> io::Result<Command> {
        let key = folder.join("key");
        // `ssh` refuses a key whose last line does not end.
        write_private(&key, format!("{}\n", self.private_key.trim_end()).as_bytes())?;
        let (strict, hosts) = match &self.known_hosts {
            KnownHosts::Listed(lines) => {
                let file = folder.join("known_hosts");
                write_private(&file, format!("{}\n", lines.trim_end()).as_bytes())?;
                ("yes", file)
            }
            KnownHosts::AcceptNew => ("accept-new", self.accepted_hosts.clone()),
        };
        let connect_s = self.egress.settings().connect_timeout.as_secs().max(1);
        let mut command = Command::new("ssh");
        // `ssh` does without a home; PATH and a language are all it needs of the environment.
        command.env_clear().env("LC_ALL", "C");
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command.args(["-F", "none", "-T", "-x", "-a"]);
        let mut option = |name: &str, value: &str| {
            command.arg("-o").arg(format!("{name}={value}"));
        };
        // Read as lists of words; quotes keep a path with blanks together.
        option("IdentityFile", &format!("\"{}\"", unexpanded(&key)));
        option("UserKnownHostsFile", &format!("\"{}\"", unexpanded(&hosts)));
        option("IdentitiesOnly", "yes");
        option("IdentityAgent", "none");
        option("PreferredAuthentications", "publickey");
        option("BatchMode", "yes");
        option("StrictHostKeyChecking", strict);
        option("GlobalKnownHostsFile", "/dev/null");
        option("UpdateHostKeys", "no");
        option("HashKnownHosts", "no");
        option("CheckHostIP", "no");
        option("HostKeyAlias", &self.alias());
        option("HostName", &address.to_string());
        option("ClearAllForwardings", "yes");
        option("PermitLocalCommand", "no");
        option("ControlPath", "none");
        option("ConnectTimeout", &connect_s.to_string());
        // A network that went away is noticed within a minute.
        option("ServerAliveInterval", "15");
        option("ServerAliveCountMax", "4");
        command.arg("-p").arg(self.origin.port.to_string()).arg("-l").arg(&self.origin.user);
        // The word that `ssh` takes for the host; where it connects to is above.
        command.arg("--").arg("repository");
        command.arg(format!("{} {}", service.command(), quoted(&self.origin.path)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }
}

/// One word for the server's shell.
fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', r"'\''").replace('!', r"'\!'"))
}

/// A path in which `ssh` finds nothing to put in the place of a `%`.
fn unexpanded(path: &Path) -> String {
    path.display().to_string().replace('%', "%%")
}

fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(content)
}

/// A running `ssh`. Dropping it ends it.
pub(crate) struct Connection {
    child: Arc<Mutex<Child>>,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    words: Option<thread::JoinHandle<String>>,
    watch: Arc<Watch>,
    /// The folder with the key, deleted with this.
    _folder: TempDir,
}

/// Kills `ssh` when its time is up: a read from a pipe has no time-out of its own.
struct Watch {
    state: Mutex<Watched>,
    changed: Condvar,
}

struct Watched {
    until: Instant,
    over: bool,
    killed: bool,
}

impl Watch {
    fn start(until: Instant, child: &Arc<Mutex<Child>>) -> Arc<Self> {
        let watch = Arc::new(Self {
            state: Mutex::new(Watched { until, over: false, killed: false }),
            changed: Condvar::new(),
        });
        let (watched, child) = (Arc::clone(&watch), Arc::clone(child));
        thread::spawn(move || {
            let mut state = watched.state.lock().expect("no holder of this lock panics");
            while !state.over {
                let now = Instant::now();
                if now >= state.until {
                    state.killed = true;
                    // It may have ended just now, which is as good.
                    let _ = child.lock().expect("no holder of this lock panics").kill();
                    return;
                }
                let wait = state.until - now;
                state = watched.changed.wait_timeout(state, wait).expect("no holder of this lock panics").0;
            }
        });
        watch
    }

    fn set(&self, change: impl FnOnce(&mut Watched)) {
        change(&mut self.state.lock().expect("no holder of this lock panics"));
        self.changed.notify_all();
    }

    fn has_killed(&self) -> bool {
        self.state.lock().expect("no holder of this lock panics").killed
    }
}

impl Connection {
    /// Connects, and reads the list of refs, which is kept in the session too.
    pub(super) fn open(route: &Route, session: &Session, service: GitService) -> Result<(Self, Vec<u8>), FetchError> {
        let address = route.address(session)?;
        let ours = |error: io::Error| FetchError::Mirror { url: session.url.clone(), reason: error.to_string() };
        fs::create_dir_all(&route.keys).map_err(ours)?;
        let folder = tempfile::Builder::new().prefix("ssh-").tempdir_in(&route.keys).map_err(ours)?;
        let mut command = route.command(address, folder.path(), service).map_err(ours)?;
        let mut child = command.spawn().map_err(|error| FetchError::Unsupported {
            url: session.url.clone(),
            reason: format!("the program ssh cannot be run ({error}); install OpenSSH's client"),
        })?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().expect("asked for as a pipe"));
        let stderr = child.stderr.take().expect("asked for as a pipe");
        let child = Arc::new(Mutex::new(child));
        let watch = Watch::start(Instant::now() + MAX_LIST_DURATION, &child);
        let words = Some(thread::spawn(move || read_words(stderr)));
        let mut connection = Self { child, stdin, stdout, words, watch, _folder: folder };
        let listed = match connection.read_listed(session) {
            Ok(listed) => listed,
            Err(Some(error)) => return Err(error),
            Err(None) => return Err(connection.explain(session, MAX_LIST_DURATION)),
        };
        session.keep_advert(&listed, false)?;
        connection.watch.set(|watched| watched.until = session.deadline);
        Ok((connection, listed))
    }

    /// All packets up to the flush; `None` as an error when the connection ended before.
    fn read_listed(&mut self, session: &Session) -> Result<Vec<u8>, Option<FetchError>> {
        let mut listed = Vec::new();
        loop {
            let mut digits = [0; LENGTH_DIGITS];
            self.stdout.read_exact(&mut digits).map_err(|_| None)?;
            listed.extend_from_slice(&digits);
            let len = packet_len(&digits).map_err(|error| {
                Some(FetchError::Unreachable { url: session.url.clone(), reason: error.to_string() })
            })?;
            let start = listed.len();
            listed.resize(start + len - LENGTH_DIGITS, 0);
            self.stdout.read_exact(&mut listed[start..]).map_err(|_| None)?;
            if listed.len() > MAX_ADVERT_BYTES {
                let reason = format!("its list of refs is larger than {MAX_ADVERT_BYTES} bytes");
                return Err(Some(FetchError::TooLarge { url: session.url.clone(), reason }));
            }
            if &digits == b"0000" || listed[start..].starts_with(b"ERR ") {
                return Ok(listed);
            }
        }
    }

    /// Says goodbye before anything was asked for.
    pub(super) fn hang_up(mut self) {
        if let Some(mut stdin) = self.stdin.take() {
            // If the server is gone already, there is nobody to take leave of.
            let _ = stdin.write_all(b"0000");
        }
    }

    /// Why the connection ended, from what `ssh` and the server's git said.
    fn explain(&mut self, session: &Session, limit: Duration) -> FetchError {
        let url = session.url.clone();
        if self.watch.has_killed() {
            return FetchError::TimedOut { url, limit };
        }
        self.finish(false);
        let words = self.words.take().and_then(|words| words.join().ok()).unwrap_or_default();
        let lower = words.to_ascii_lowercase();
        let says = |part: &str| lower.contains(part);
        let said = words.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
        if says("host key verification failed") || says("host identification has changed") {
            return FetchError::Untrusted {
                url,
                reason: format!(
                    "the server's host key is not the one that is known; compare it, then correct the known hosts ({said})"
                ),
            };
        }
        if says("permission denied") || says("invalid format") || says("error in libcrypto") {
            return FetchError::Credentials {
                url,
                reason: format!(
                    "the server refuses the deploy key, or the key cannot be read ({said}); renew the secret"
                ),
            };
        }
        if says(NOT_OURS) {
            return FetchError::Changed { url, reason: said };
        }
        if says_not_found(&words) {
            return FetchError::NotFound { url };
        }
        if says("timed out") {
            return FetchError::TimedOut { url, limit };
        }
        FetchError::Unreachable { url, reason: if said.is_empty() { "the connection ended".into() } else { said } }
    }

    /// Waits for `ssh` to end, for a while if it is to end by itself.
    fn finish(&mut self, at_once: bool) {
        drop(self.stdin.take());
        let until = Instant::now() + if at_once { Duration::ZERO } else { FAREWELL };
        self.watch.set(|watched| watched.until = watched.until.min(until));
        // What still comes is of no interest, but must be taken for the other side to end. The watch ends this.
        let _ = io::copy(&mut self.stdout, &mut io::sink());
        loop {
            let mut child = self.child.lock().expect("no holder of this lock panics");
            if !matches!(child.try_wait(), Ok(None)) {
                break;
            }
            if Instant::now() > until {
                let _ = child.kill();
                let _ = child.wait();
                break;
            }
            drop(child);
            thread::sleep(FAREWELL_POLL);
        }
        self.watch.set(|watched| watched.over = true);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.finish(false);
    }
}

fn read_words(stderr: ChildStderr) -> String {
    let mut stderr = stderr;
    let mut words = Vec::new();
    // What cannot be read is not told; the rest is taken so that the program does not wait for us.
    let _ = (&mut stderr).take(MAX_WORDS_BYTES).read_to_end(&mut words);
    let _ = io::copy(&mut stderr, &mut io::sink());
    String::from_utf8_lossy(&words).into_owned()
}

/// The connection as libgit2 sees it: first the list of refs, which is here already, then the rest.
pub(super) struct Conversation {
    session: Arc<Session>,
    connection: Connection,
    listed: Cursor<Vec<u8>>,
    /// Whether anything came after the list.
    answered: bool,
}

impl Conversation {
    pub(super) fn new(session: Arc<Session>, connection: Connection, listed: Vec<u8>) -> Self {
        Self { session, connection, listed: Cursor::new(listed), answered: false }
    }
}

impl Read for Conversation {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let listed = self.listed.read(buf)?;
        if listed > 0 || buf.is_empty() {
            return Ok(listed);
        }
        let read = self.connection.stdout.read(buf).unwrap_or(0);
        if read == 0 {
            let error = self.connection.explain(&self.session, MAX_DURATION);
            return Err(self.session.fail(error));
        }
        let judged =
            if std::mem::replace(&mut self.answered, true) { Ok(()) } else { self.session.check_answer(&buf[..read]) };
        judged.and_then(|()| self.session.received(read)).map_err(|error| self.session.fail(error))?;
        Ok(read)
    }
}

impl Write for Conversation {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.connection.stdin {
            Some(stdin) => stdin.write(bytes),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.connection.stdin {
            Some(stdin) => stdin.flush(),
            None => Ok(()),
        }
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        // After a failure nothing more is expected of the server, least of all the rest of a large pack.
        let failed = self.session.failure.lock().expect("no holder of this lock panics").is_some();
        if failed {
            self.connection.finish(true);
        }
    }
}
