//! How the engine is: for probes, for people, for Prometheus.

use std::{fmt::Write as _, sync::atomic::Ordering};

use kickwheel_pool::Pool;
use kickwheel_schemas::api::{Check, Health, RepoView};
use kickwheel_store::{Health as StoreHealth, Member};

use super::Engine;
use crate::shared::WatchTrouble;

/// Below this much free space in the data folder `doctor` warns, in bytes.
const LOW_SPACE_BYTES: u64 = 1 << 30;

impl Engine {
    /// Quick: from memory, answers also while the database is away.
    pub async fn health(&self) -> Health {
        let shared = &self.shared;
        let draining = shared.draining.load(Ordering::Relaxed);
        let database = self.check_database();
        let leases = self.check_leases();
        let ok = |c: &Check| c.state != "failed";
        let state = if draining {
            "draining"
        } else if ok(&database) && ok(&leases) {
            "ok"
        } else {
            "paused"
        };
        let mut checks = vec![database, leases];
        checks.extend(self.check_datasets());
        Health { state: state.to_owned(), version: env!("CARGO_PKG_VERSION").to_owned(), checks }
    }

    /// Thorough.
    pub async fn doctor(&self) -> Health {
        let mut health = self.health().await;
        health.checks.push(self.check_space());
        health.checks.extend(self.check_pools().await);
        health.checks.extend(self.check_bus().await);
        health.checks.push(self.check_events().await);
        health.checks.extend(self.check_workflows());
        health.checks.extend(self.check_set_aside());
        health.checks.push(self.check_spool());
        health.checks.extend(self.check_repos().await);
        health
    }

    fn check_database(&self) -> Check {
        let kind = match self.shared.store.member() {
            Member::Sqlite => "SQLite",
            Member::Postgres => "Postgres",
        };
        match self.shared.store.health() {
            StoreHealth::Ok => check("database", "ok", format!("{kind} takes writes"), None),
            StoreHealth::Paused { reason, since } => check(
                "database",
                "failed",
                format!("{kind} takes no writes since {}: {reason}", since.to_rfc3339()),
                Some("make room on the disk, or bring the database back; the engine carries on by itself".to_owned()),
            ),
        }
    }

    fn check_leases(&self) -> Check {
        let held = self.shared.leases.read().expect("no holder of this lock panics").len();
        let shards = self.shared.store.shards() as usize;
        if held == shards {
            return check("leases", "ok", format!("all {shards} shards are ours"), None);
        }
        check(
            "leases",
            "failed",
            format!("{held} of {shards} shards are ours"),
            Some("another engine uses this database, or it could not be reached in time; see the log".to_owned()),
        )
    }

    fn check_space(&self) -> Check {
        let path = self.shared.folder.path("");
        match rustix::fs::statvfs(&path) {
            Ok(stat) => {
                let free = stat.f_bavail.saturating_mul(stat.f_frsize);
                let message = format!("{} MiB are free in {}", free >> 20, path.display());
                if free < LOW_SPACE_BYTES {
                    check("space", "warning", message, Some("make room: without any, the engine pauses".to_owned()))
                } else {
                    check("space", "ok", message, None)
                }
            }
            Err(e) => check("space", "warning", format!("{}: {e}", path.display()), None),
        }
    }

    async fn check_pools(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        for place in self.shared.pools.all() {
            let (id, capacity) = (format!("pool {}", place.name), place.pool.capacity());
            checks.push(match place.pool.occupied().await {
                Ok(used) => {
                    let (used, all) = (used.cpu_milli as f64 / 1000.0, capacity.cpu_milli as f64 / 1000.0);
                    check(&id, "ok", format!("{used} of {all} cpu in use"), None)
                }
                Err(e) => {
                    let help = match place.pool {
                        Pool::Local(_) => "see agent.log in the pool's folder",
                        Pool::Docker(_) => "start the Docker Engine, or see `--docker`; what runs there is found again",
                    };
                    check(&id, "failed", e.to_string(), Some(help.to_owned()))
                }
            });
        }
        checks
    }

    async fn check_events(&self) -> Check {
        match self.shared.store.counts().await {
            Ok(counts) if counts.quarantined > 0 => check(
                "events",
                "warning",
                format!("{} are in quarantine, {} wait", counts.quarantined, counts.undecided),
                Some("`kickwheel events ls` shows why".to_owned()),
            ),
            Ok(counts) => check("events", "ok", format!("{} wait to be decided", counts.undecided), None),
            Err(e) => check("events", "failed", e.to_string(), None),
        }
    }

    fn check_workflows(&self) -> Vec<Check> {
        let registry = self.shared.registry();
        let broken = registry.entries.iter().filter(|e| e.plan.is_none());
        broken
            .map(|e| {
                let first = e.first_mistake().map_or_else(String::new, |d| format!(":{}: {}", d.line, d.message));
                check(
                    &format!("workflow {}", e.name),
                    "warning",
                    format!("{}{first}", e.origin.file()),
                    Some("`kickwheel workflows ls` shows all mistakes; the other workflows go on".to_owned()),
                )
            })
            .collect()
    }

    /// Watched datasets that get no new versions, or not all that lies there. The watcher says so at each look, so that this
    /// clears by itself.
    fn check_datasets(&self) -> Vec<Check> {
        let troubles = self.shared.watch_troubles.lock().expect("no holder of this lock panics");
        let told = |(name, trouble): (&String, &WatchTrouble)| {
            let (message, help) = match trouble {
                WatchTrouble::Stopped(reason) => (
                    format!("it gets no new versions: {reason}"),
                    format!(
                        "put that right, and it goes on by itself; `kickwheel datasets rm {name}` ends the watching"
                    ),
                ),
                WatchTrouble::Partial(reason) => {
                    (reason.clone(), "put the files themselves there, or take these out of the folder".to_owned())
                }
            };
            check(&format!("dataset {name}"), "warning", message, Some(help))
        };
        troubles.iter().map(told).collect()
    }

    fn check_set_aside(&self) -> Vec<Check> {
        let set_aside = self.shared.set_aside.lock().expect("no holder of this lock panics");
        let help = "the other runs go on; a newer binary may understand it, and it is tried again at the next start";
        set_aside
            .iter()
            .map(|(run, reason)| {
                check(&format!("run {run}"), "failed", format!("set aside: {reason}"), Some(help.to_owned()))
            })
            .collect()
    }

    /// Pushes that were set aside, and unfinished files of hooks that died.
    fn check_spool(&self) -> Check {
        let refused = self.shared.folder.path("spool/git/refused");
        let count = std::fs::read_dir(&refused)
            .map(|entries| entries.flatten().filter(|e| e.path().extension().is_some_and(|x| x == "json")).count())
            .unwrap_or(0);
        if count == 0 {
            return check("pushes", "ok", "none was set aside".to_owned(), None);
        }
        check(
            "pushes",
            "warning",
            format!("{count} could not be understood and lie in {}", refused.display()),
            Some(
                "the .reason file beside each says why; move it back to its parent folder to have it read again"
                    .to_owned(),
            ),
        )
    }

    async fn check_repos(&self) -> Vec<Check> {
        let Ok(page) = self.repos().await else { return Vec::new() };
        let told = |r: &RepoView| {
            let id = format!("repository {}", r.id);
            if let Some(reason) = &r.reason {
                let help = "make it readable again; what was pushed meanwhile waits in its lane";
                return check(&id, "warning", reason.clone(), Some(help.to_owned()));
            }
            match (r.hook, r.poll_ms) {
                (true, _) => check(&id, "ok", r.url.clone(), None),
                (false, Some(ms)) => {
                    let every = ms.div_ceil(1000);
                    check(&id, "ok", format!("{}, looked at every {every} s", r.url), None)
                }
                (false, None) => {
                    let message = format!(
                        "{} is not polled and has no hook of ours: without a webhook, pushes are not noticed",
                        r.url
                    );
                    let help = format!("`kickwheel repos add {} --name {} --poll 60s` has it polled", r.url, r.id);
                    check(&id, "warning", message, Some(help))
                }
            }
        };
        page.items.iter().map(told).collect()
    }

    /// Prometheus text.
    pub async fn metrics(&self) -> String {
        let c = &self.shared.counters;
        let counters = [
            ("events_accepted_total", "Events made durable.", &c.events_accepted),
            ("events_duplicate_total", "Events that were seen before.", &c.events_duplicate),
            ("runs_created_total", "Runs created.", &c.runs_created),
            ("runs_ended_total", "Runs ended.", &c.runs_ended),
            ("jobs_started_total", "Attempts handed to a pool.", &c.jobs_started),
            ("plugin_calls_total", "Plugin calls.", &c.plugin_calls),
            ("cache_hits_total", "Tasks taken from the cache.", &c.cache_hits),
            ("write_pauses_total", "Writes that found the database away.", &c.write_pauses),
        ];
        let mut out = String::new();
        for (name, help, counter) in counters {
            let value = counter.load(Ordering::Relaxed);
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "# HELP kickwheel_{name} {help}\n# TYPE kickwheel_{name} counter\nkickwheel_{name} {value}"
            );
        }
        let mut gauge = |name: &str, help: &str, lines: Vec<(String, u64)>| {
            let _ = writeln!(out, "# HELP kickwheel_{name} {help}\n# TYPE kickwheel_{name} gauge");
            for (labels, value) in lines {
                let _ = writeln!(out, "kickwheel_{name}{labels} {value}");
            }
        };
        let up = matches!(self.shared.store.health(), StoreHealth::Ok);
        gauge("database_up", "Whether the database takes writes.", vec![(String::new(), u64::from(up))]);
        gauge(
            "runs_in_memory",
            "Runs held in memory.",
            vec![(String::new(), self.shared.cells.lock().expect("no holder of this lock panics").len() as u64)],
        );
        if let Ok(counts) = self.shared.store.counts().await {
            let live = counts.live_runs.iter().map(|(s, n)| (format!("{{state=\"{s}\"}}"), *n)).collect();
            gauge("runs_live", "Runs that have not ended.", live);
            gauge("events_undecided", "Events that wait to be decided.", vec![(String::new(), counts.undecided)]);
            gauge("events_quarantined", "Events in quarantine.", vec![(String::new(), counts.quarantined)]);
        }
        out
    }
}

pub(super) fn check(id: &str, state: &str, message: String, help: Option<String>) -> Check {
    Check { id: id.to_owned(), state: state.to_owned(), message, help }
}
