//! `repos` and `projects`.

use std::path::Path;

use kickwheel_schemas::api::{AddRepo, Page, ProjectView, RepoView};

use super::Session;
use crate::{
    args::{Projects, Repos},
    exit::{Exit, Failure, Outcome},
    output::{listing, say},
};

/// `repos …`.
pub async fn repos(session: &Session, repos: Repos) -> Outcome {
    let client = session.client()?;
    match repos {
        Repos::Add { url, name, secret, username, known_hosts, accept_new_host_key, poll } => {
            let add = AddRepo {
                url: located(&url)?,
                name,
                secret,
                username,
                known_hosts: known_hosts.as_deref().map(read).transpose()?,
                accept_new_host_key,
                poll_ms: poll,
            };
            let added = client.post::<RepoView>(&["repos"], &add).await?;
            if session.look.json {
                say(added.raw)?;
            } else {
                let (hook, polled) = (added.value.hook, polled(&added.value));
                let how = if hook { "; its post-receive hook tells us about pushes".to_owned() } else { polled };
                say(format!("{} is bound as {}{how}", added.value.url, added.value.id))?;
                if let Some(reason) = &added.value.reason {
                    eprintln!("but: {reason}");
                }
            }
            Ok(Exit::Ok)
        }
        Repos::Ls => {
            let page = client.get::<Page<RepoView>>(&["repos"], &[]).await?;
            let rows = page.value.items.iter().map(|repo| {
                vec![
                    repo.id.clone(),
                    repo.state.clone(),
                    repo.url.clone(),
                    repo.default_branch.clone().unwrap_or_default(),
                    if repo.hook { "installed" } else { "" }.to_owned(),
                    repo.poll_ms.map_or_else(|| "off".to_owned(), every),
                    repo.reason.clone().unwrap_or_default(),
                ]
            });
            let headings = ["NAME", "STATE", "URL", "BRANCH", "HOOK", "POLL", "REASON"];
            let none = "no repositories; `kickwheel repos add URL|PATH --name NAME` binds one";
            listing(session.look, &page.raw, &headings, rows.collect(), none)
        }
        Repos::Rm { name } => {
            client.delete(&["repos", &name]).await?;
            if !session.look.json {
                say(format!("{name} is bound no longer"))?;
            }
            Ok(Exit::Ok)
        }
    }
}

/// `projects …`.
pub async fn projects(session: &Session, projects: Projects) -> Outcome {
    match projects {
        Projects::Ls => {
            let page = session.client()?.get::<Page<ProjectView>>(&["projects"], &[]).await?;
            let rows = page.value.items.iter().map(|p| vec![p.id.clone(), p.state.clone()]).collect();
            listing(session.look, &page.raw, &["PROJECT", "STATE"], rows, "no projects")
        }
    }
}

/// How we learn of pushes that nobody tells of.
fn polled(repo: &RepoView) -> String {
    match repo.poll_ms {
        Some(ms) => format!("; it is looked at every {}", every(ms)),
        None => "; it is not looked at, so only a webhook tells us about pushes".to_owned(),
    }
}

/// An interval as it is typed.
fn every(ms: u64) -> String {
    match ms {
        ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
        ms => format!("{ms}ms"),
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|e| Failure::usage(format!("cannot read {}: {e}", file.display())))
}

/// A path becomes absolute, as the server runs in another folder; a URL stays as it is.
fn located(url: &str) -> Result<String, Failure> {
    let path = Path::new(url);
    if !path.exists() {
        // `host:path` and `scheme://…` are Git's other forms; a word without either can only be a path that is missing.
        if url.contains(':') {
            return Ok(url.to_owned());
        }
        return Err(Failure::usage(format!("there is no repository at {url}"))
            .help("give the path of a local repository, or a URL such as https://host/team/repo.git"));
    }
    let absolute = path.canonicalize().map_err(|e| Failure::usage(format!("cannot find {url}: {e}")))?;
    absolute
        .to_str()
        .map(str::to_owned)
        .ok_or_else(|| Failure::usage(format!("the path {} is not UTF-8", absolute.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_stay_and_paths_become_absolute() {
        for url in ["https://host/a.git", "git@host:a.git", "ssh://host/a"] {
            assert_eq!(located(url).as_deref(), Ok(url));
        }
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_str().expect("UTF-8");
        let real = folder.path().canonicalize().expect("it exists");
        assert_eq!(located(path).as_deref(), Ok(real.to_str().expect("UTF-8")));
        assert!(located("no-such-folder").is_err());
    }
}
