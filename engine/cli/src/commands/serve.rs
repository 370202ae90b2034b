//! `serve`: engine, triggers and API in one process, until a signal says otherwise.
//!
//! The order matters: the socket is bound before the engine starts, so that links to runs have the right port and a taken
//! port is told at once; the `endpoint` file is written last, so that whoever finds it finds a server that answers.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use kickwheel_runtime::{Config, EgressSettings, Engine, OtherUser, StartError};
use kickwheel_server::{BindError, Exposure, ServerConfig, Tls, TlsFiles};
use kickwheel_triggers::Triggers;
use serde_json::json;

use super::Session;
use crate::{
    args::{OnOff, Serve},
    exit::{Exit, Failure, Outcome},
    output::{Look, say},
    places, runner_binary,
    signals::Signals,
};

/// The whole life of a server.
pub async fn serve(session: &Session, args: Serve) -> Outcome {
    let mut signals = Signals::catch()?;
    let data = places::data_folder(&session.global)?;
    places::make_private_folder(&data)?;
    let token = places::secret(&places::token_file(&data))?;
    let runner = runner_binary::find(&data)?;
    let tls = tls(&args)?;
    let exposure = Exposure {
        secured: tls.is_some() || !args.trusted_proxy.is_empty(),
        host_processes_as_us: args.host_processes == OnOff::On && args.job_user.is_none(),
    };
    let not_listening = |e: BindError| Failure::new(Exit::Refused, "listen", format!("cannot {e}"));
    let listener = kickwheel_server::bind(&args.listen, exposure).await.map_err(not_listening)?;
    let address = listener.local_addr().map_err(|e| Failure::new(Exit::Refused, "listen", e.to_string()))?;
    let url = format!("{}://{}", if tls.is_some() { "https" } else { "http" }, reachable(address));
    let public = args.public_url.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned());
    let engine = tokio::select! {
        engine = Engine::start(Config {
            data: data.clone(),
            database: args.database.clone(),
            runner,
            local_cpu_milli: args.cpu,
            docker: args.docker.clone(),
            bus: args.bus.clone(),
            base_url: public.clone().unwrap_or_else(|| url.clone()),
            base_url_lasts: public.is_some(),
            lease: args.lease,
            pure_batching: !args.no_pure_batching,
            secrets_key: places::secrets_key(args.secrets_key_file.as_deref()),
            host_processes: args.host_processes == OnOff::On,
            job_user: job_user(&args, &data),
            egress: egress(&args)?,
            poll_grace: args.poll_grace,
        }) => engine.map_err(not_started)?,
        () = signals.next() => return Ok(Exit::Interrupted),
    };
    if let Err(refused) = kickwheel_server::check_tokens(&engine, address).await {
        engine.shutdown(args.drain).await;
        return Err(not_listening(refused));
    }
    let triggers = Triggers::start(&engine);
    // In the background: the first plugin step should not wait for a compiler, but neither should the start.
    let warm = engine.clone();
    tokio::spawn(async move { warm.warm_up().await });
    let config = ServerConfig {
        token,
        hook_nudge: triggers.nudger(),
        binary: std::env::current_exe()
            .map_err(|e| Failure::new(Exit::Refused, "program", format!("cannot tell where this program is: {e}")))?,
        // The other half is the engine's: recording what is under way matters more than a slow reader.
        drain: args.drain / 2,
        hosts: names(&args),
        proxies: args.trusted_proxy.clone(),
        tls,
    };
    let endpoint = Endpoint::write(&data, &url)?;
    announce(session.look, public.as_deref().unwrap_or(&url), &data, args.database.as_deref())?;

    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(kickwheel_server::serve(engine.clone(), listener, config, async {
        // A dropped sender means the same as a sent word: stop.
        let _ = stopped.await;
    }));
    signals.next().await;
    tracing::info!(drain = ?args.drain, "asked to stop: taking nothing new, letting what is under way be recorded");
    let began = Instant::now();
    let _ = stop.send(());
    let drained = async {
        let served = server.await;
        let left = || args.drain.saturating_sub(began.elapsed());
        engine.shutdown(left()).await;
        if tokio::time::timeout(left(), triggers.join()).await.is_err() {
            tracing::warn!("a trigger did not end in time; what it had not handed over is found at the next start");
        }
        served
    };
    let served = tokio::select! {
        served = drained => served,
        () = signals.next() => {
            tracing::warn!("asked again: ending at once; what is recorded is recovered at the next start");
            return Ok(Exit::Interrupted);
        }
    };
    drop(endpoint);
    match served {
        Ok(Ok(())) => Ok(Exit::Ok),
        Ok(Err(e)) => Err(Failure::new(Exit::Refused, "serve", format!("cannot serve: {e}"))),
        Err(e) => Err(Failure::new(Exit::Refused, "serve", format!("the server ended by itself: {e}"))),
    }
}

/// Whose host processes are.
fn job_user(args: &Serve, data: &Path) -> Option<OtherUser> {
    let folder = args.job_folder.clone().unwrap_or_else(|| places::job_folder(data));
    args.job_user.clone().map(|name| OtherUser { name, folder })
}

/// What may be asked of other machines.
fn egress(args: &Serve) -> Result<EgressSettings, Failure> {
    let mut authorities = Vec::new();
    for file in &args.egress_authority {
        let pem = fs::read(file).map_err(|e| {
            Failure::usage(format!("cannot read the authorities in {}: {e}", file.display()))
                .help("--egress-authority names a file with certificates as PEM")
        })?;
        authorities.push(pem);
    }
    let allow = args.egress_allow.iter().map(|entry| entry.trim().to_owned()).filter(|e| !e.is_empty()).collect();
    Ok(EgressSettings { allow, authorities, proxy: args.egress_proxy.clone(), ..EgressSettings::default() })
}

/// An engine that did not start, as a failure of the command.
pub fn not_started(error: StartError) -> Failure {
    let code = match &error {
        StartError::Locked { .. } => "data_folder_locked",
        StartError::Part { .. } => "start",
    };
    Failure::new(Exit::Refused, code, format!("cannot {error}"))
}

/// The certificate, if this server speaks TLS itself.
fn tls(args: &Serve) -> Result<Option<Arc<Tls>>, Failure> {
    let (Some(certificate), Some(key)) = (args.tls_cert.clone(), args.tls_key.clone()) else { return Ok(None) };
    let failed = |e| {
        Failure::new(Exit::Refused, "tls", format!("cannot {e}")).help("give PEM files with --tls-cert and --tls-key")
    };
    Tls::load(TlsFiles { certificate, key }).map(Some).map_err(failed)
}

/// Names that the operator gave this server.
fn names(args: &Serve) -> Vec<String> {
    let public = args.public_url.as_ref().and_then(|url| url.host_str()).map(str::to_owned);
    args.hosts.iter().cloned().chain(public).collect()
}

/// An address by which a program on this machine gets there.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let loopback = if address.is_ipv4() { IpAddr::from(Ipv4Addr::LOCALHOST) } else { Ipv6Addr::LOCALHOST.into() };
        address.set_ip(loopback);
    }
    address
}

fn announce(look: Look, url: &str, data: &Path, database: Option<&str>) -> Result<(), Failure> {
    let token_file = places::token_file(data);
    let database = database.map_or_else(|| format!("sqlite:{}", data.join("kickwheel.db").display()), without_password);
    if look.json {
        return say(json!({
            "url": url,
            "data": data,
            "database": database,
            "token_file": token_file,
            "pid": std::process::id(),
        })
        .to_string());
    }
    say(format!(
        "kickwheel {} turns\n  url       {url}\n  data      {}\n  database  {database}\n  token     {}",
        env!("CARGO_PKG_VERSION"),
        data.display(),
        token_file.display()
    ))
}

/// A database's URL that may be shown.
fn without_password(url: &str) -> String {
    let Ok(mut parsed) = reqwest::Url::parse(url) else {
        return "(a URL that cannot be read)".to_owned();
    };
    if parsed.password().is_some() && parsed.set_password(Some("***")).is_err() {
        return format!("{}://…", parsed.scheme());
    }
    // Passwords may also be given as a parameter.
    parsed.set_query(None);
    parsed.to_string()
}

/// The file by which the command line finds this server; gone when this is dropped.
struct Endpoint {
    file: PathBuf,
    url: String,
}

impl Endpoint {
    fn write(data: &Path, url: &str) -> Result<Self, Failure> {
        let file = places::endpoint_file(data);
        places::replace(&file, &format!("{url}\n"))
            .map_err(|e| Failure::new(Exit::Refused, "endpoint", format!("cannot write {}: {e}", file.display())))?;
        Ok(Self { file, url: url.to_owned() })
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // Another server may have taken over meanwhile; its file stays.
        if fs::read_to_string(&self.file).is_ok_and(|text| text.trim() == self.url) {
            let _ = fs::remove_file(&self.file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_databases_password_is_never_shown() {
        assert_eq!(without_password("postgres://me:secret@db:5432/kw"), "postgres://me:***@db:5432/kw");
        assert!(!without_password("postgres://db/kw?password=secret").contains("secret"));
        assert!(!without_password("me:secret@db").contains("secret@db/"));
        assert_eq!(without_password("postgres://db/kw"), "postgres://db/kw");
    }

    #[test]
    fn the_endpoint_file_is_removed_unless_another_server_wrote_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = places::endpoint_file(folder.path());
        drop(Endpoint::write(folder.path(), "http://127.0.0.1:1").expect("written"));
        assert!(!file.exists());
        let first = Endpoint::write(folder.path(), "http://127.0.0.1:1").expect("written");
        places::replace(&file, "http://127.0.0.1:2\n").expect("taken over");
        drop(first);
        assert!(file.exists());
    }
}
