//! Postgres for tests: a database of its own in a running server, and whole clusters that a test may fill, stop and break.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::Signal;
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::{api::block_on, process, wait::until};

/// Names a server in which databases may be made.
pub const SERVER: &str = "KICKWHEEL_TEST_POSTGRES";

/// Why no server can be used, if so.
pub fn no_server() -> Option<String> {
    std::env::var(SERVER)
        .is_err()
        .then(|| format!("{SERVER} names no Postgres server; tests/services/postgres.sh up starts one"))
}

/// A database that goes with this value.
#[derive(Debug)]
pub struct OwnDatabase {
    /// `postgres://…/kw_…`.
    pub url: String,
    name: String,
    server: String,
}

impl OwnDatabase {
    /// A new, empty database in the test server.
    pub fn make() -> Self {
        let server = std::env::var(SERVER).expect("stories on Postgres are told only where there is a server");
        Self::in_server(&server, "")
    }

    /// The same in any server; `how` is the end of the statement.
    pub fn in_server(server: &str, how: &str) -> Self {
        let name = format!("kw_{}", hex::encode(rand::random::<[u8; 6]>()));
        execute(server, &format!("CREATE DATABASE {name} {how}"));
        Self { url: with_database(server, &name), name, server: server.to_owned() }
    }

    /// A copy, for a test that damages it. Nobody may be connected.
    pub fn copy(url: &str) -> Self {
        let server = std::env::var(SERVER).expect("there is a database to copy, so there is a server");
        let name = url.split('?').next().and_then(|u| u.rsplit('/').next()).expect("a URL names its database");
        Self::in_server(&server, &format!("TEMPLATE {name}"))
    }
}

impl Drop for OwnDatabase {
    fn drop(&mut self) {
        execute(&self.server, &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
    }
}

/// The same server, another database.
pub fn with_database(url: &str, name: &str) -> String {
    let (base, query) = url.split_once('?').map_or((url, String::new()), |(b, q)| (b, format!("?{q}")));
    let (server, _) = base.rsplit_once('/').expect("a URL names its database");
    format!("{server}/{name}{query}")
}

/// Runs one statement.
pub fn execute(url: &str, sql: &str) {
    block_on(async {
        let mut connection = PgConnection::connect(url).await.unwrap_or_else(|e| panic!("no server at {url}: {e}"));
        connection.execute(sqlx::AssertSqlSafe(sql)).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        let _ = connection.close().await;
    });
}

/// A whole cluster of its own, which a test may break.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    programs: PathBuf,
    port: u16,
    server: Option<Child>,
}

impl Cluster {
    /// Makes a cluster with small segments of its log in `folder`, which must be empty. None without the programs.
    pub fn make(folder: &Path) -> Option<Self> {
        let programs = programs()?;
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port is free").port();
        run(Command::new("chown").args(["-R", "postgres:"]).arg(folder));
        let data = folder.join("cluster");
        run(as_owner(&programs.join("initdb"))
            .args([
                "--wal-segsize=1",
                "--auth=trust",
                "--username=postgres",
                "--locale=C",
                "--encoding=UTF8",
                "--no-sync",
                "-D",
            ])
            .arg(&data));
        let mut cluster = Self { folder: folder.to_owned(), programs, port, server: None };
        cluster.start();
        Some(cluster)
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Starts the server and waits until it answers.
    pub fn start(&mut self) {
        assert!(self.server.is_none(), "it runs already");
        let log = fs::File::options().create(true).append(true).open(self.log_file()).expect("a log can be written");
        let child = as_owner(&self.programs.join("postgres"))
            .arg("-D")
            .arg(self.folder.join("cluster"))
            .args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .args(["-c", "max_wal_size=16MB", "-c", "min_wal_size=2MB", "-c", "shared_buffers=16MB"])
            // A server that panics stays down until somebody starts it: the test decides when.
            .args(["-c", "restart_after_crash=off"])
            .stdout(log.try_clone().expect("a log can be written"))
            .stderr(log)
            .spawn()
            .expect("the server can be started");
        self.server = Some(child);
        until("the cluster answers", || block_on(PgConnection::connect(&self.url())).ok());
    }

    /// Ends the server as its administrator would, without waiting for clients; fine if it has ended already.
    pub fn stop(&mut self) {
        let Some(mut child) = self.server.take() else { return };
        process::signal(child.id(), Signal::INT);
        until("the cluster has ended", || child.try_wait().expect("it is our child"));
    }

    /// Whether the server has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.server.as_mut().is_none_or(|c| c.try_wait().expect("it is our child").is_some())
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Beside the folder, which may be full.
    fn log_file(&self) -> PathBuf {
        self.folder.with_extension("log")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut child) = self.server.take() {
            process::signal(child.id(), Signal::QUIT);
            let _ = child.wait();
        }
    }
}

/// Where the server's programs are: Debian keeps them out of `PATH`, a folder per version; the newest is taken.
fn programs() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let mut found: Vec<PathBuf> =
        folders.map(|e| e.path().join("bin")).filter(|p| p.join("initdb").is_file()).collect();
    found.sort();
    found.pop()
}

/// The server refuses to run as root.
fn as_owner(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=KILL"]).arg(program);
    command.current_dir("/").stdin(Stdio::null());
    command
}

fn run(command: &mut Command) {
    let output = command.output().expect("the program can be started");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A small file system in memory that goes with this value. None without the right to mount.
#[derive(Debug)]
pub struct SmallDisk {
    /// Where it is mounted.
    pub path: PathBuf,
}

impl SmallDisk {
    /// Mounts one of so many bytes.
    pub fn mount(path: &Path, bytes: u64) -> Option<Self> {
        fs::create_dir_all(path).expect("a folder can be made");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes},mode=0755"), "kickwheel-test"])
            .arg(path)
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|s| s.success()).then(|| Self { path: path.to_owned() })
    }

    /// Fills it to the last byte; remove the returned file to make room again.
    pub fn fill(&self) -> PathBuf {
        use std::io::Write as _;
        let ballast = self.path.join("ballast");
        let mut file = fs::File::options().create(true).append(true).open(&ballast).expect("a file can be made");
        for size in [1 << 16, 1 << 12, 1 << 8, 1] {
            let chunk = vec![b'x'; size];
            while file.write_all(&chunk).is_ok() {}
        }
        ballast
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}
