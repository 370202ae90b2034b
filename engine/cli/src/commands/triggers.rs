//! `triggers`: where events come from, apart from bound repositories and watched datasets.

use std::collections::BTreeMap;

use kickwheel_schemas::api::{
    AddTrigger, CronTriggerConfig, DatasetTrigger, ForgeTrigger, JiraTrigger, KafkaTrigger, Page, TriggerConfig,
    TriggerKind, TriggerSubject, TriggerView, WebhookLimits,
};

use super::{Session, translate};
use crate::{
    args::{NewTrigger, Triggers},
    exit::{Exit, Failure, Outcome},
    output::{listing, say},
};

/// `triggers …`.
pub async fn triggers(session: &Session, triggers: Triggers) -> Outcome {
    let client = || session.client();
    match triggers {
        Triggers::Translate(request) => translate::translate(&request),
        Triggers::Add(new) => {
            let add = AddTrigger { name: new.name.clone(), config: config(*new)? };
            let added = client()?.post::<TriggerView>(&["triggers"], &add).await?;
            say(if session.look.json { added.raw } else { render(&added.value) })?;
            Ok(Exit::Ok)
        }
        Triggers::Ls => {
            let page = client()?.get::<Page<TriggerView>>(&["triggers"], &[]).await?;
            let rows = page.value.items.iter().map(|trigger| {
                let requests: Vec<String> = trigger.requests.iter().map(|(what, n)| format!("{n} {what}")).collect();
                vec![
                    trigger.id.clone(),
                    trigger.state.clone(),
                    trigger.kind.clone(),
                    trigger.url.clone().unwrap_or_default(),
                    requests.join(", "),
                ]
            });
            let headings = ["TRIGGER", "STATE", "KIND", "URL", "REQUESTS"];
            let none = "no triggers; `kickwheel triggers add NAME --kind KIND` makes one";
            listing(session.look, &page.raw, &headings, rows.collect(), none)
        }
        Triggers::Get { name } => {
            let trigger = client()?.get::<TriggerView>(&["triggers", &name], &[]).await?;
            say(if session.look.json { trigger.raw } else { render(&trigger.value) })?;
            Ok(Exit::Ok)
        }
        Triggers::Rm { name } => {
            client()?.delete(&["triggers", &name]).await?;
            if !session.look.json {
                say(format!("{name} is gone; nothing comes in through it"))?;
            }
            Ok(Exit::Ok)
        }
        Triggers::Pause { names } => switch(session, &names, "pause").await,
        Triggers::Resume { names } => switch(session, &names, "resume").await,
    }
}

async fn switch(session: &Session, names: &[String], what: &str) -> Outcome {
    let client = session.client()?;
    for name in names {
        let view = client.post::<TriggerView>(&["triggers", name, what], &serde_json::json!({})).await?;
        say(if session.look.json { view.raw } else { format!("{name} is {}", view.value.state) })?;
    }
    Ok(Exit::Ok)
}

fn render(view: &TriggerView) -> String {
    let mut lines = vec![format!("{} is {} ({})", view.id, view.state, view.kind)];
    lines.extend(view.url.iter().map(|url| format!("url  {url}")));
    lines.extend(view.steps.iter().enumerate().map(|(n, step)| format!("{:>3}. {step}", n + 1)));
    lines.join("\n")
}

/// From what was typed. An option that the kind does not know is a mistake, not noise.
fn config(new: NewTrigger) -> Result<TriggerConfig, Failure> {
    let kind = new.kind;
    let foreign = |given: bool, option: &str| {
        if given { Err(Failure::usage(format!("a {} trigger has no {option}", kind.as_str()))) } else { Ok(()) }
    };
    let subject = kind.subject();
    let webhook = match subject {
        TriggerSubject::Repo | TriggerSubject::Site | TriggerSubject::Dataset | TriggerSubject::Sender => true,
        TriggerSubject::Topic | TriggerSubject::Schedule => false,
    };
    foreign(new.repo.is_some() && subject != TriggerSubject::Repo, "--repo")?;
    foreign(new.dataset.is_some() && subject != TriggerSubject::Dataset, "--dataset")?;
    foreign((new.site.is_some() || new.account.is_some()) && subject != TriggerSubject::Site, "--site or --account")?;
    foreign(!webhook && !new.secrets.is_empty(), "--secret")?;
    foreign(!webhook && new.unsigned, "--unsigned")?;
    foreign(!webhook && new.max_bytes.is_some(), "--max-bytes")?;
    foreign(!webhook && new.rate.is_some(), "--rate")?;
    let cron = new.schedule.is_some() || new.timezone.is_some() || new.missed.is_some() || new.deadline.is_some();
    foreign(kind != TriggerKind::Cron && cron, "--schedule, --timezone, --missed or --deadline")?;
    let kafka = new.topic.is_some() || new.brokers.is_some() || new.from.is_some() || new.record_type.is_some();
    let kafka = kafka || !new.properties.is_empty() || !new.secret_properties.is_empty();
    foreign(kind != TriggerKind::Kafka && kafka, "--topic, --brokers, --from, --record-type or --property")?;
    let needed = |value: Option<String>, option: &str| {
        value.ok_or_else(|| Failure::usage(format!("a {} trigger needs {option}", kind.as_str())))
    };
    let mut limits = WebhookLimits { secrets: new.secrets, unsigned: new.unsigned, ..WebhookLimits::default() };
    limits.max_bytes = new.max_bytes.unwrap_or(limits.max_bytes);
    limits.rate_per_minute = new.rate.unwrap_or(limits.rate_per_minute);
    let forge = |repo: Option<String>, limits: WebhookLimits| -> Result<ForgeTrigger, Failure> {
        Ok(ForgeTrigger { repo: needed(repo, "--repo NAME")?, limits })
    };
    let dataset = |dataset: Option<String>, limits: WebhookLimits| DatasetTrigger { dataset, limits };
    let config = match kind {
        TriggerKind::Github => TriggerConfig::Github(forge(new.repo, limits)?),
        TriggerKind::Gitlab => TriggerConfig::Gitlab(forge(new.repo, limits)?),
        TriggerKind::Gitea => TriggerConfig::Gitea(forge(new.repo, limits)?),
        TriggerKind::Forgejo => TriggerConfig::Forgejo(forge(new.repo, limits)?),
        TriggerKind::Gogs => TriggerConfig::Gogs(forge(new.repo, limits)?),
        TriggerKind::BitbucketCloud => TriggerConfig::BitbucketCloud(forge(new.repo, limits)?),
        TriggerKind::BitbucketDc => TriggerConfig::BitbucketDc(forge(new.repo, limits)?),
        TriggerKind::Jira => TriggerConfig::Jira(JiraTrigger { site: new.site, account: new.account, limits }),
        TriggerKind::S3 => TriggerConfig::S3(dataset(new.dataset, limits)),
        TriggerKind::Minio => TriggerConfig::Minio(dataset(new.dataset, limits)),
        TriggerKind::Gcs => TriggerConfig::Gcs(dataset(new.dataset, limits)),
        TriggerKind::Azure => TriggerConfig::Azure(dataset(new.dataset, limits)),
        TriggerKind::Lakefs => TriggerConfig::Lakefs(dataset(new.dataset, limits)),
        TriggerKind::Huggingface => TriggerConfig::Huggingface(dataset(new.dataset, limits)),
        TriggerKind::Mlflow => TriggerConfig::Mlflow(limits),
        TriggerKind::Cloudevents => TriggerConfig::Cloudevents(limits),
        TriggerKind::StandardWebhooks => TriggerConfig::StandardWebhooks(limits),
        TriggerKind::Kafka => TriggerConfig::Kafka(KafkaTrigger {
            brokers: new.brokers,
            topic: needed(new.topic, "--topic NAME")?,
            from: new.from.unwrap_or_default(),
            record_type: new.record_type,
            properties: pairs(&new.properties)?,
            secret_properties: pairs(&new.secret_properties)?,
        }),
        TriggerKind::Cron => TriggerConfig::Cron(CronTriggerConfig {
            schedule: needed(new.schedule, "--schedule \"0 3 * * *\"")?,
            timezone: new.timezone.unwrap_or_else(|| "UTC".to_owned()),
            missed: new.missed.unwrap_or_default(),
            deadline_ms: new.deadline.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        }),
    };
    config.check().map_err(|e| Failure::usage(e.to_string()))?;
    Ok(config)
}

fn pairs(given: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut pairs = BTreeMap::new();
    for text in given {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("{text:?} has no value; write it as name=value")))?;
        if pairs.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(Failure::usage(format!("the property {name:?} is given twice")));
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn check(line: &str, expected: Result<&str, &str>) {
        let words = ["kickwheel", "triggers", "add", "a"].into_iter().chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).unwrap_or_else(|e| panic!("{line}: {e}"));
        let Command::Triggers(Triggers::Add(new)) = cli.command else { panic!("{line}") };
        match (config(*new), expected) {
            (Ok(config), Ok(json)) => {
                assert_eq!(
                    serde_json::to_value(config).expect("JSON"),
                    serde_json::from_str::<serde_json::Value>(json).expect("JSON")
                );
            }
            (Err(failure), Err(part)) => assert!(failure.message.contains(part), "{line}: {failure}"),
            (result, _) => panic!("{line}: {result:?}"),
        }
    }

    #[test]
    fn options_make_the_configuration_of_their_kind_and_of_no_other() {
        check(
            "--kind github --repo churn --secret new --secret old --max-bytes 100 --rate 5/s",
            Ok(r#"{"kind": "github", "repo": "churn", "secrets": ["new", "old"], "unsigned": false, "max_bytes": 100,
                "rate_per_minute": 300}"#),
        );
        check(
            "--kind kafka --topic orders --brokers k:9092 --from earliest --property security.protocol=ssl",
            Ok(r#"{"kind": "kafka", "topic": "orders", "brokers": "k:9092", "from": "earliest", "record_type": null,
                "properties": {"security.protocol": "ssl"}, "secret_properties": {}}"#),
        );
        check(
            "--kind cron --schedule @daily --timezone Europe/Berlin --missed all --deadline 1h",
            Ok(r#"{"kind": "cron", "schedule": "@daily", "timezone": "Europe/Berlin", "missed": "all",
                "deadline_ms": 3600000}"#),
        );
        check(
            "--kind bitbucket-dc --repo churn --unsigned",
            Ok(r#"{"kind": "bitbucket-dc", "repo": "churn", "secrets": [], "unsigned": true, "max_bytes": 5242880,
                "rate_per_minute": 6000}"#),
        );
        check(
            "--kind jira --secret j --site https://x.example --account 5b1",
            Ok(r#"{"kind": "jira", "site": "https://x.example", "account": "5b1", "secrets": ["j"], "unsigned": false,
                "max_bytes": 5242880, "rate_per_minute": 6000}"#),
        );
        check(
            "--kind huggingface --secret h --dataset churn/raw",
            Ok(r#"{"kind": "huggingface", "dataset": "churn/raw", "secrets": ["h"], "unsigned": false,
                "max_bytes": 5242880, "rate_per_minute": 6000}"#),
        );
        check("--kind gitea --unsigned", Err("--repo"));
        check("--kind jira --secret j --dataset x", Err("no --dataset"));
        check("--kind s3 --secret j --site https://x.example", Err("no --site"));
        check("--kind cloudevents", Err("--unsigned"));
        check("--kind cloudevents --unsigned --repo churn", Err("no --repo"));
        check("--kind cron --schedule @daily --secret a", Err("no --secret"));
        check("--kind github --unsigned", Err("--repo"));
        check("--kind kafka", Err("--topic"));
        check("--kind standard-webhooks --secret a --topic b", Err("no --topic"));
    }
}
