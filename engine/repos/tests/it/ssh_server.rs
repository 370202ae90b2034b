//! A real `sshd` on loopback, with keys of its own: one process per connection, as under inetd.

use std::{
    env, fs,
    net::{TcpListener, TcpStream},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

/// Stops when it is dropped.
pub struct SshServer {
    dir: PathBuf,
    port: u16,
    stopped: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

/// Where `sshd` is. Missing: the test fails where everything is required, and is left out, loudly, elsewhere.
fn sshd() -> Option<PathBuf> {
    let known = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd"].map(PathBuf::from);
    let found = known.into_iter().find(|path| path.exists());
    if found.is_none() {
        assert!(env::var("REQUIRE_ALL").as_deref() != Ok("1"), "sshd is missing: install openssh-server");
        println!("SKIPPED: sshd is missing; install openssh-server to test mirrors over ssh");
    }
    found
}

impl SshServer {
    /// Keeps its keys in `dir`; whoever has the key of [`SshServer::key`] may log in.
    pub fn start(dir: &Path) -> Option<Self> {
        let sshd = sshd()?;
        fs::create_dir_all(dir).expect("a folder");
        make_key(&dir.join("host"));
        make_key(&dir.join("deploy"));
        // Where its unprivileged half lives; only a server that runs as root has one.
        let _ = fs::create_dir_all("/run/sshd");
        let config = format!(
            "HostKey {dir}/host\nAuthorizedKeysFile {dir}/deploy.pub\nPidFile none\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
             MaxStartups 100\n",
            dir = dir.display()
        );
        fs::write(dir.join("sshd_config"), config).expect("a file");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let stopped = Arc::new(AtomicBool::new(false));
        let (over, folder) = (Arc::clone(&stopped), dir.to_owned());
        let acceptor = thread::spawn(move || {
            let mut children = Vec::new();
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let back = OwnedFd::from(stream.try_clone().expect("a second handle"));
                let log = fs::File::options().create(true).append(true).open(folder.join("log")).expect("a file");
                let child = Command::new(&sshd)
                    .args(["-i", "-e", "-f"])
                    .arg(folder.join("sshd_config"))
                    .stdin(Stdio::from(OwnedFd::from(stream)))
                    .stdout(Stdio::from(back))
                    .stderr(Stdio::from(log))
                    .spawn();
                children.push(child.expect("sshd runs"));
            }
            for mut child in children {
                // Most have ended with their connection.
                let _ = child.kill();
                let _ = child.wait();
            }
        });
        Some(Self { dir: dir.to_owned(), port, stopped, acceptor: Some(acceptor) })
    }

    /// The URL of a repository, by the name or address of this machine that is given.
    pub fn url(&self, host: &str, path: &Path) -> String {
        let user = Command::new("id").arg("-un").output().expect("id is installed").stdout;
        format!("ssh://{}@{host}:{}{}", String::from_utf8_lossy(&user).trim(), self.port, path.display())
    }

    /// The private key that is let in.
    pub fn key(&self) -> String {
        fs::read_to_string(self.dir.join("deploy")).expect("made")
    }

    /// A line for a `known_hosts` file.
    pub fn known_host(&self, host: &str) -> String {
        let key = fs::read_to_string(self.dir.join("host.pub")).expect("made");
        format!("[{host}]:{} {key}", self.port)
    }

    /// Gives the server another identity.
    pub fn change_host_key(&self) {
        for file in ["host", "host.pub"] {
            fs::remove_file(self.dir.join(file)).expect("made");
        }
        make_key(&self.dir.join("host"));
    }
}

impl Drop for SshServer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread, which then sees that it is over.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().expect("the server does not panic");
        }
        if thread::panicking() {
            eprintln!("sshd said:\n{}", fs::read_to_string(self.dir.join("log")).unwrap_or_default());
        }
    }
}

/// A key pair without passphrase at `path` and `path.pub`.
pub fn make_key(path: &Path) {
    let made =
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(path).status();
    assert!(made.expect("ssh-keygen is installed").success());
}
