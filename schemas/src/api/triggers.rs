//! Triggers as they are configured: one type per kind, the closed set of them, and what the API says about them.
//!
//! A stored trigger's `config` is a [`TriggerConfig`] as JSON. Limits that can be judged from the document alone are judged
//! by [`TriggerConfig::check`]; whether a schedule can be read, a repository is bound or a secret exists is the engine's
//! to say. No configuration ever holds a secret's value: it names secrets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// Largest request that a webhook trigger takes when nothing is said, in bytes.
pub const DEFAULT_MAX_BYTES: u64 = 5 * 1024 * 1024;
/// Largest limit that can be set: GitHub sends nothing above it.
pub const LARGEST_MAX_BYTES: u64 = 25 * 1024 * 1024;
/// Requests that a webhook trigger takes per minute when nothing is said.
pub const DEFAULT_RATE_PER_MINUTE: u32 = 6_000;
/// Highest rate that can be set.
pub const LARGEST_RATE_PER_MINUTE: u32 = 6_000_000;
/// Secrets that may sign for one trigger: two while one takes the other's place.
pub const MAX_SIGNING_SECRETS: usize = 2;
/// Longest name of a topic, as Kafka has it.
const MAX_TOPIC_BYTES: usize = 249;

/// What a trigger is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum TriggerConfig {
    /// Webhooks of GitHub.
    Github(ForgeTrigger),
    /// Webhooks and system hooks of GitLab.
    Gitlab(ForgeTrigger),
    /// Webhooks of Gitea.
    Gitea(ForgeTrigger),
    /// Webhooks of Forgejo.
    Forgejo(ForgeTrigger),
    /// Webhooks of Gogs.
    Gogs(ForgeTrigger),
    /// Webhooks of Bitbucket Cloud.
    BitbucketCloud(ForgeTrigger),
    /// Webhooks of Bitbucket Data Center.
    BitbucketDc(ForgeTrigger),
    /// Webhooks of Jira, its Automation and its post-functions.
    Jira(JiraTrigger),
    /// Notifications of S3, through SNS, SQS or EventBridge, or as they are.
    S3(DatasetTrigger),
    /// Notifications of MinIO.
    Minio(DatasetTrigger),
    /// Notifications of Google Cloud Storage.
    Gcs(DatasetTrigger),
    /// Azure Blob Storage's events, by Event Grid.
    Azure(DatasetTrigger),
    /// Webhooks of lakeFS's actions.
    Lakefs(DatasetTrigger),
    /// Webhooks of the Hugging Face Hub.
    Huggingface(DatasetTrigger),
    /// Webhooks of MLflow's model registry.
    Mlflow(WebhookLimits),
    /// CloudEvents over HTTP.
    Cloudevents(WebhookLimits),
    /// Webhooks signed as Standard Webhooks says, with any JSON in them.
    StandardWebhooks(WebhookLimits),
    /// A topic of somebody else's.
    Kafka(KafkaTrigger),
    /// A schedule that is no workflow's own.
    Cron(CronTriggerConfig),
}

/// The kinds of triggers: a member for each of [`TriggerConfig`]'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)] // Their names say it.
pub enum TriggerKind {
    Github,
    Gitlab,
    Gitea,
    Forgejo,
    Gogs,
    BitbucketCloud,
    BitbucketDc,
    Jira,
    S3,
    Minio,
    Gcs,
    Azure,
    Lakefs,
    Huggingface,
    Mlflow,
    Cloudevents,
    StandardWebhooks,
    Kafka,
    Cron,
}

impl TriggerKind {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::Github,
        Self::Gitlab,
        Self::Gitea,
        Self::Forgejo,
        Self::Gogs,
        Self::BitbucketCloud,
        Self::BitbucketDc,
        Self::Jira,
        Self::S3,
        Self::Minio,
        Self::Gcs,
        Self::Azure,
        Self::Lakefs,
        Self::Huggingface,
        Self::Mlflow,
        Self::Cloudevents,
        Self::StandardWebhooks,
        Self::Kafka,
        Self::Cron,
    ];

    /// As it is stored and typed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Github => "github",
            Self::Gitlab => "gitlab",
            Self::Gitea => "gitea",
            Self::Forgejo => "forgejo",
            Self::Gogs => "gogs",
            Self::BitbucketCloud => "bitbucket-cloud",
            Self::BitbucketDc => "bitbucket-dc",
            Self::Jira => "jira",
            Self::S3 => "s3",
            Self::Minio => "minio",
            Self::Gcs => "gcs",
            Self::Azure => "azure",
            Self::Lakefs => "lakefs",
            Self::Huggingface => "huggingface",
            Self::Mlflow => "mlflow",
            Self::Cloudevents => "cloudevents",
            Self::StandardWebhooks => "standard-webhooks",
            Self::Kafka => "kafka",
            Self::Cron => "cron",
        }
    }

    /// What a trigger of this kind may be told beside who may send and how much.
    pub fn subject(self) -> TriggerSubject {
        match self {
            Self::Github
            | Self::Gitlab
            | Self::Gitea
            | Self::Forgejo
            | Self::Gogs
            | Self::BitbucketCloud
            | Self::BitbucketDc => TriggerSubject::Repo,
            Self::Jira => TriggerSubject::Site,
            Self::S3 | Self::Minio | Self::Gcs | Self::Azure | Self::Lakefs | Self::Huggingface => {
                TriggerSubject::Dataset
            }
            Self::Mlflow | Self::Cloudevents | Self::StandardWebhooks => TriggerSubject::Sender,
            Self::Kafka => TriggerSubject::Topic,
            Self::Cron => TriggerSubject::Schedule,
        }
    }
}

/// What a trigger is about, which says what it may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TriggerSubject {
    /// A bound repository: its webhooks.
    Repo,
    /// A Jira site: its webhooks.
    Site,
    /// A dataset, or the bucket's own name: webhooks.
    Dataset,
    /// Whatever the sender says: webhooks.
    Sender,
    /// A topic that is read.
    Topic,
    /// A schedule.
    Schedule,
}

/// Who may send to a webhook trigger, and how much.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookLimits {
    /// Names of secrets, any one of which may have signed a request: the one in use first, then the one before it.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// Takes requests that nobody signed. Only without `secrets`, and only because somebody said so.
    #[serde(default)]
    pub unsigned: bool,
    /// Largest body, in bytes.
    #[serde(default = "default_max_bytes")]
    pub max_bytes: u64,
    /// Requests per minute; a tenth of them may come at once.
    #[serde(default = "default_rate")]
    pub rate_per_minute: u32,
}

impl Default for WebhookLimits {
    fn default() -> Self {
        Self {
            secrets: Vec::new(),
            unsigned: false,
            max_bytes: DEFAULT_MAX_BYTES,
            rate_per_minute: DEFAULT_RATE_PER_MINUTE,
        }
    }
}

fn default_max_bytes() -> u64 {
    DEFAULT_MAX_BYTES
}

fn default_rate() -> u32 {
    DEFAULT_RATE_PER_MINUTE
}

/// A trigger for the webhooks of a forge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ForgeTrigger {
    /// The bound repository whose webhook this is: its URL is the events' source, whatever a payload claims.
    pub repo: String,
    /// Who may send, and how much.
    #[serde(flatten)]
    pub limits: WebhookLimits,
}

/// A `jira` trigger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JiraTrigger {
    /// The site's URL, which becomes the events' source; none: the one that a payload links to.
    #[serde(default)]
    pub site: Option<String>,
    /// Our own account there: what it does is not told, so that nobody answers himself.
    #[serde(default)]
    pub account: Option<String>,
    /// Who may send, and how much.
    #[serde(flatten)]
    pub limits: WebhookLimits,
}

/// A trigger for what a dataset's keeper tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DatasetTrigger {
    /// The dataset that it is about; none: the sender's own names, of a bucket or a repository.
    #[serde(default)]
    pub dataset: Option<String>,
    /// Who may send, and how much.
    #[serde(flatten)]
    pub limits: WebhookLimits,
}

/// A `kafka` trigger: records of a topic become events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaTrigger {
    /// `host:port`, several parted by commas; none: the brokers of the engine's own bus.
    #[serde(default)]
    pub brokers: Option<String>,
    /// The topic.
    pub topic: String,
    /// Where reading begins the first time.
    #[serde(default)]
    pub from: KafkaStart,
    /// The type of the event that a record becomes which is no CloudEvent; none: such a record goes into quarantine.
    /// Never one of ours: those are made by presets, not by a setting.
    #[serde(default)]
    pub record_type: Option<String>,
    /// Properties for librdkafka that are no secrets, such as `security.protocol`.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
    /// Properties for librdkafka whose values are secrets, such as `sasl.password`: to the secret's name.
    #[serde(default)]
    pub secret_properties: BTreeMap<String, String>,
}

/// Where reading of a topic begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KafkaStart {
    /// With the oldest record that is there.
    Earliest,
    /// With what comes after the trigger was made.
    #[default]
    Latest,
}

/// A `cron` trigger: each tick is an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CronTriggerConfig {
    /// Five fields, six with seconds in front, or `@daily` and its like.
    pub schedule: String,
    /// IANA name of the zone.
    #[serde(default = "default_zone")]
    pub timezone: String,
    /// What becomes of ticks that were not fired in time.
    #[serde(default)]
    pub missed: MissedTicks,
    /// How late a tick may be, in milliseconds; none: as late as you like.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
}

fn default_zone() -> String {
    "UTC".to_owned()
}

/// What becomes of ticks that were not fired in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MissedTicks {
    /// One, which says how many were missed.
    #[default]
    Latest,
    /// Each, oldest first.
    All,
    /// None of them.
    None,
}

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TriggerConfigError(pub String);

impl TriggerConfig {
    /// Its kind.
    pub fn kind(&self) -> TriggerKind {
        match self {
            Self::Github(_) => TriggerKind::Github,
            Self::Gitlab(_) => TriggerKind::Gitlab,
            Self::Gitea(_) => TriggerKind::Gitea,
            Self::Forgejo(_) => TriggerKind::Forgejo,
            Self::Gogs(_) => TriggerKind::Gogs,
            Self::BitbucketCloud(_) => TriggerKind::BitbucketCloud,
            Self::BitbucketDc(_) => TriggerKind::BitbucketDc,
            Self::Jira(_) => TriggerKind::Jira,
            Self::S3(_) => TriggerKind::S3,
            Self::Minio(_) => TriggerKind::Minio,
            Self::Gcs(_) => TriggerKind::Gcs,
            Self::Azure(_) => TriggerKind::Azure,
            Self::Lakefs(_) => TriggerKind::Lakefs,
            Self::Huggingface(_) => TriggerKind::Huggingface,
            Self::Mlflow(_) => TriggerKind::Mlflow,
            Self::Cloudevents(_) => TriggerKind::Cloudevents,
            Self::StandardWebhooks(_) => TriggerKind::StandardWebhooks,
            Self::Kafka(_) => TriggerKind::Kafka,
            Self::Cron(_) => TriggerKind::Cron,
        }
    }

    /// What it is about, with who may send to it.
    fn parts(&self) -> Parts<'_> {
        match self {
            Self::Github(forge)
            | Self::Gitlab(forge)
            | Self::Gitea(forge)
            | Self::Forgejo(forge)
            | Self::Gogs(forge)
            | Self::BitbucketCloud(forge)
            | Self::BitbucketDc(forge) => Parts::Repo(forge),
            Self::Jira(jira) => Parts::Site(jira),
            Self::S3(dataset)
            | Self::Minio(dataset)
            | Self::Gcs(dataset)
            | Self::Azure(dataset)
            | Self::Lakefs(dataset)
            | Self::Huggingface(dataset) => Parts::Dataset(dataset),
            Self::Mlflow(limits) | Self::Cloudevents(limits) | Self::StandardWebhooks(limits) => Parts::Sender(limits),
            Self::Kafka(kafka) => Parts::Topic(kafka),
            Self::Cron(cron) => Parts::Schedule(cron),
        }
    }

    /// The bound repository that it is about.
    pub fn repo(&self) -> Option<&str> {
        match self.parts() {
            Parts::Repo(forge) => Some(&forge.repo),
            Parts::Site(_) | Parts::Dataset(_) | Parts::Sender(_) | Parts::Topic(_) | Parts::Schedule(_) => None,
        }
    }

    /// The dataset that it is about.
    pub fn dataset(&self) -> Option<&str> {
        match self.parts() {
            Parts::Dataset(dataset) => dataset.dataset.as_deref(),
            Parts::Repo(_) | Parts::Site(_) | Parts::Sender(_) | Parts::Topic(_) | Parts::Schedule(_) => None,
        }
    }

    /// Who may send to it, and how much; none for those that nobody sends to.
    pub fn limits(&self) -> Option<&WebhookLimits> {
        match self.parts() {
            Parts::Repo(forge) => Some(&forge.limits),
            Parts::Site(jira) => Some(&jira.limits),
            Parts::Dataset(dataset) => Some(&dataset.limits),
            Parts::Sender(limits) => Some(limits),
            Parts::Topic(_) | Parts::Schedule(_) => None,
        }
    }

    /// Names of all secrets that it needs.
    pub fn secrets(&self) -> Vec<&str> {
        let signing = self.limits().into_iter().flat_map(|limits| limits.secrets.iter());
        let properties = match self.parts() {
            Parts::Topic(kafka) => Some(kafka.secret_properties.values()),
            Parts::Repo(_) | Parts::Site(_) | Parts::Dataset(_) | Parts::Sender(_) | Parts::Schedule(_) => None,
        };
        signing.chain(properties.into_iter().flatten()).map(String::as_str).collect()
    }

    /// What can be said from the document alone.
    pub fn check(&self) -> Result<(), TriggerConfigError> {
        if let Some(limits) = self.limits() {
            limits.check()?;
        }
        match self.parts() {
            Parts::Repo(forge) if forge.repo.is_empty() => refuse(format!(
                "a {} trigger needs the name of a bound repository: give --repo NAME",
                self.kind().as_str()
            )),
            Parts::Site(jira) => jira.check(),
            Parts::Dataset(dataset) if dataset.dataset.as_deref().is_some_and(|name| name.trim().is_empty()) => {
                refuse("the name of the dataset is empty; give --dataset NAME, or leave it away")
            }
            Parts::Topic(kafka) => kafka.check(),
            Parts::Schedule(cron) if cron.schedule.trim().is_empty() => {
                refuse("a cron trigger needs a schedule: give --schedule \"0 3 * * *\"")
            }
            Parts::Repo(_) | Parts::Dataset(_) | Parts::Sender(_) | Parts::Schedule(_) => Ok(()),
        }
    }
}

/// The shapes that configurations have.
enum Parts<'c> {
    Repo(&'c ForgeTrigger),
    Site(&'c JiraTrigger),
    Dataset(&'c DatasetTrigger),
    Sender(&'c WebhookLimits),
    Topic(&'c KafkaTrigger),
    Schedule(&'c CronTriggerConfig),
}

impl JiraTrigger {
    fn check(&self) -> Result<(), TriggerConfigError> {
        let url = |site: &str| {
            let host = site.strip_prefix("https://").or_else(|| site.strip_prefix("http://")).unwrap_or_default();
            !host.is_empty() && !host.starts_with('/') && !site.ends_with('/')
        };
        match &self.site {
            Some(site) if !url(site) => refuse(format!(
                "{site:?} is no site; give it as in https://example.atlassian.net, without a slash after it"
            )),
            Some(_) | None => Ok(()),
        }
    }
}

fn refuse(message: impl Into<String>) -> Result<(), TriggerConfigError> {
    Err(TriggerConfigError(message.into()))
}

impl WebhookLimits {
    fn check(&self) -> Result<(), TriggerConfigError> {
        if self.secrets.is_empty() && !self.unsigned {
            return refuse(
                "without a secret anybody who finds the URL could start runs: name one with --secret NAME (`kickwheel \
                 secrets set NAME` keeps it), or say --unsigned if that is what you want",
            );
        }
        if !self.secrets.is_empty() && self.unsigned {
            return refuse("a trigger either has secrets or is unsigned, not both");
        }
        if self.secrets.len() > MAX_SIGNING_SECRETS {
            return refuse(format!("{} secrets are too many; at most {MAX_SIGNING_SECRETS}", self.secrets.len()));
        }
        if !(1..=LARGEST_MAX_BYTES).contains(&self.max_bytes) {
            return refuse(format!("a limit of {} bytes is not within 1..={LARGEST_MAX_BYTES}", self.max_bytes));
        }
        if !(1..=LARGEST_RATE_PER_MINUTE).contains(&self.rate_per_minute) {
            return refuse(format!(
                "a rate of {} per minute is not within 1..={LARGEST_RATE_PER_MINUTE}",
                self.rate_per_minute
            ));
        }
        Ok(())
    }
}

impl KafkaTrigger {
    fn check(&self) -> Result<(), TriggerConfigError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if self.topic.is_empty() || self.topic.len() > MAX_TOPIC_BYTES || !self.topic.chars().all(fits) {
            return refuse(format!("{:?} is no name of a topic; give --topic NAME", self.topic));
        }
        if self.brokers.as_deref().is_some_and(|b| b.trim().is_empty()) {
            return refuse("the list of brokers is empty; give --brokers HOST:PORT, or leave it away");
        }
        if self.record_type.as_deref().is_some_and(|ty| ty.is_empty() || ty.starts_with("dev.kickwheel.")) {
            return refuse(
                "records cannot be given a type of Kickwheel's own: take one below a name of yours, such as \
                 com.example.thing",
            );
        }
        if self.brokers.is_none() && !(self.properties.is_empty() && self.secret_properties.is_empty()) {
            return refuse("properties are for a Kafka of the trigger's own; give its --brokers HOST:PORT too");
        }
        let names = self.properties.keys().chain(self.secret_properties.keys());
        if let Some(name) = names.into_iter().find(|name| !is_known_property(name)) {
            return refuse(format!(
                "the property {name:?} cannot be set for a trigger: who may make one must not reach files or programs of \
                 this machine, nor change what nothing is lost by; there are {}",
                KNOWN_PROPERTIES.join(", ")
            ));
        }
        if let Some(name) = self.properties.keys().find(|name| is_secret_property(name)) {
            return refuse(format!(
                "the property {name:?} is a secret, and would be stored readably: keep it with `kickwheel secrets set \
                 NAME` and give --secret-property {name}=NAME"
            ));
        }
        Ok(())
    }
}

/// Properties of librdkafka that a trigger may set: where and as whom to connect, and how patiently. Closed, since others
/// load libraries (`plugin.library.paths`), run programs or read files of this machine.
const KNOWN_PROPERTIES: [&str; 25] = [
    "broker.address.family",
    "client.dns.lookup",
    "client.rack",
    "connections.max.idle.ms",
    "enable.ssl.certificate.verification",
    "fetch.error.backoff.ms",
    "fetch.wait.max.ms",
    "metadata.max.age.ms",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "socket.keepalive.enable",
    "socket.nagle.disable",
    "socket.timeout.ms",
    "ssl.ca.pem",
    "ssl.certificate.pem",
    "ssl.cipher.suites",
    "ssl.curves.list",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.password",
    "ssl.key.pem",
];

fn is_known_property(name: &str) -> bool {
    KNOWN_PROPERTIES.contains(&name)
}

/// Whether a property of librdkafka holds a secret.
fn is_secret_property(name: &str) -> bool {
    ["password", "secret", "key.pem", "sasl.jaas", "oauthbearer.config"].iter().any(|part| name.contains(part))
}

/// Makes a trigger, or changes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddTrigger {
    /// Its name: for webhooks the last part of the URL.
    pub name: String,
    /// What it is.
    pub config: TriggerConfig,
}

/// A trigger with what became of what it was sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TriggerView {
    /// Its name.
    pub id: String,
    /// `active`, `paused`, or `broken` when this version cannot read its configuration.
    pub state: String,
    /// Its kind.
    pub kind: String,
    /// The project.
    pub project: String,
    /// Where it is sent to; webhooks only.
    pub url: Option<String>,
    /// What it is, as it is stored: a [`TriggerConfig`].
    pub config: Value,
    /// When it was made.
    pub created_at: String,
    /// Requests since the server's start, by what became of them: `accepted`, `nothing`, or the code of a refusal.
    pub requests: BTreeMap<String, u64>,
    /// What to do at the sender's, and what to beware of; one step per line.
    pub steps: Vec<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: serde_json::Value) -> TriggerConfig {
        serde_json::from_value(value).expect("it has the right shape")
    }

    #[test]
    fn a_configuration_reads_as_it_was_written_and_defaults_are_filled_in() {
        let github = read(json!({"kind": "github", "repo": "churn", "secrets": ["hook"]}));
        assert_eq!(github.limits().map(|l| l.max_bytes), Some(DEFAULT_MAX_BYTES));
        assert_eq!(github.secrets(), ["hook"]);
        let written = serde_json::to_value(&github).expect("string keys");
        assert_eq!(written["kind"], github.kind().as_str());
        assert_eq!(read(written), github);
        let cron = read(json!({"kind": "cron", "schedule": "@daily"}));
        let TriggerConfig::Cron(cron) = cron else { panic!("a cron trigger") };
        assert_eq!((cron.timezone.as_str(), cron.missed), ("UTC", MissedTicks::Latest));
    }

    #[test]
    fn every_kind_is_named_as_in_the_document() {
        for kind in TriggerKind::ALL {
            assert_eq!(serde_json::to_value(kind).expect("a word"), kind.as_str());
        }
    }

    #[test]
    fn an_unknown_setting_or_kind_is_refused() {
        for wrong in [
            json!({"kind": "generic", "unsigned": true}),
            json!({"kind": "cron", "schedule": "@daily", "zone": "UTC"}),
            json!({"kind": "cloudevents", "secret": "x"}),
            json!({"kind": "gitbucket"}),
        ] {
            assert!(serde_json::from_value::<TriggerConfig>(wrong.clone()).is_err(), "{wrong}");
        }
    }

    fn check(value: serde_json::Value, mistake: Option<&str>) {
        match (read(value.clone()).check(), mistake) {
            (Ok(()), None) => {}
            (Err(e), Some(part)) if e.0.contains(part) => {}
            (result, _) => panic!("{value}: {result:?}, expected {mistake:?}"),
        }
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        check(json!({"kind": "cloudevents"}), Some("--unsigned"));
        check(json!({"kind": "cloudevents", "unsigned": true}), None);
        check(json!({"kind": "cloudevents", "unsigned": true, "secrets": ["a"]}), Some("not both"));
        check(json!({"kind": "cloudevents", "secrets": ["a", "b", "c"]}), Some("too many"));
        check(json!({"kind": "cloudevents", "secrets": ["a"], "max_bytes": 0}), Some("0 bytes"));
        check(json!({"kind": "cloudevents", "secrets": ["a"], "rate_per_minute": 0}), Some("rate"));
        check(json!({"kind": "github", "repo": "", "unsigned": true}), Some("--repo"));
        check(json!({"kind": "gitea", "repo": "", "unsigned": true}), Some("a gitea trigger"));
        check(json!({"kind": "jira", "secrets": ["a"]}), None);
        check(json!({"kind": "jira", "secrets": ["a"], "site": "https://x.example", "account": "5b1"}), None);
        check(json!({"kind": "jira", "secrets": ["a"], "site": "x.example"}), Some("is no site"));
        check(json!({"kind": "s3", "secrets": ["a"], "dataset": " "}), Some("--dataset"));
        check(json!({"kind": "minio", "dataset": "raw"}), Some("--unsigned"));
        check(json!({"kind": "kafka", "topic": "orders"}), None);
        check(json!({"kind": "kafka", "topic": "or ders"}), Some("topic"));
        check(json!({"kind": "kafka", "topic": "a", "record_type": "dev.kickwheel.git.x"}), Some("of yours"));
        let own = |name: &str| json!({"kind": "kafka", "topic": "a", "brokers": "b:1", "properties": {name: "x"}});
        check(own("sasl.password"), Some("--secret-property"));
        check(own("security.protocol"), None);
        for name in ["plugin.library.paths", "ssl.ca.location", "sasl.kerberos.kinit.cmd", "nosuch", "group.id"] {
            check(own(name), Some("cannot be set for a trigger"));
        }
        check(json!({"kind": "kafka", "topic": "a", "properties": {"client.rack": "x"}}), Some("--brokers"));
        check(json!({"kind": "cron", "schedule": " "}), Some("--schedule"));
    }
}
