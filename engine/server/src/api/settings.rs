//! What has to be done at a sender's, in the words of its settings page.
//!
//! Deliberately absent: doing it. Each step is one line, and none holds a secret's value.

use kickwheel_schemas::api::{TriggerConfig, WebhookLimits};

/// The steps after which a sender tells what the trigger is to hear; `url` is the trigger's own.
pub(super) fn steps(config: &TriggerConfig, url: &str) -> Vec<String> {
    match config {
        TriggerConfig::Github(forge) => github(url, &forge.limits),
        TriggerConfig::Gitlab(forge) => gitlab(url, &forge.limits),
        TriggerConfig::Gitea(forge) => family("Gitea", url, &forge.limits),
        TriggerConfig::Forgejo(forge) => family("Forgejo", url, &forge.limits),
        TriggerConfig::Gogs(forge) => family("Gogs", url, &forge.limits),
        TriggerConfig::BitbucketCloud(forge) => bitbucket_cloud(url, &forge.limits),
        TriggerConfig::BitbucketDc(forge) => bitbucket_dc(url, &forge.limits),
        TriggerConfig::Jira(site) => jira(url, &site.limits),
        TriggerConfig::S3(dataset) => s3(url, &dataset.limits),
        TriggerConfig::Minio(dataset) => minio(url, &dataset.limits),
        TriggerConfig::Gcs(dataset) => gcs(url, &dataset.limits),
        TriggerConfig::Azure(dataset) => azure(url, &dataset.limits),
        TriggerConfig::Lakefs(dataset) => lakefs(url, &dataset.limits),
        TriggerConfig::Huggingface(dataset) => huggingface(url, &dataset.limits),
        TriggerConfig::Mlflow(limits) => mlflow(url, limits),
        TriggerConfig::Cloudevents(limits) => cloudevents(url, limits),
        TriggerConfig::StandardWebhooks(limits) => standard_webhooks(url, limits),
        TriggerConfig::Kafka(kafka) => lines([format!(
            "Records of the topic {} of {} become events; `kickwheel doctor` says how far it is read",
            kafka.topic,
            kafka.brokers.as_deref().unwrap_or("the engine's own brokers")
        )]),
        TriggerConfig::Cron(cron) => lines([format!(
            "Each tick of {:?} in {} is an event of the type dev.kickwheel.cron.tick",
            cron.schedule, cron.timezone
        )]),
    }
}

fn github(url: &str, limits: &WebhookLimits) -> Vec<String> {
    lines([
        "On GitHub, open the repository's Settings, then Webhooks, then Add webhook".to_owned(),
        format!("Payload URL: {url}"),
        "Content type: application/json".to_owned(),
        secret("Secret", limits),
        "SSL verification: leave it enabled".to_owned(),
        "Which events: Let me select individual events, then Pushes and Pull requests".to_owned(),
        "Active: ticked; then Add webhook. GitHub sends a ping at once: Recent Deliveries shows 200".to_owned(),
    ])
}

fn gitlab(url: &str, limits: &WebhookLimits) -> Vec<String> {
    lines([
        "On GitLab, open the project's Settings, then Webhooks, then Add new webhook".to_owned(),
        format!("URL: {url}"),
        secret("Signing token (begins with whsec_), or else Secret token", limits),
        "Trigger: Push events, Tag push events, Merge request events".to_owned(),
        "SSL verification: leave it enabled; then Add webhook, and Test".to_owned(),
        "GitLab sends nothing for a push of more refs than its push_event_hooks_limit: polling finds those".to_owned(),
    ])
}

fn bitbucket_cloud(url: &str, limits: &WebhookLimits) -> Vec<String> {
    lines([
        "On Bitbucket, open the repository's Repository settings, then Webhooks, then Add webhook".to_owned(),
        format!("URL: {url}"),
        secret("Secret", limits),
        "Triggers: Repository push; Pull request created, updated, merged, declined".to_owned(),
        "Bitbucket drops payloads over 256 KB without a word: polling finds those pushes".to_owned(),
    ])
}

fn bitbucket_dc(url: &str, limits: &WebhookLimits) -> Vec<String> {
    lines([
        "On Bitbucket Data Center, open the repository's settings, then Webhooks, then Create webhook".to_owned(),
        format!("URL: {url}"),
        secret("Secret", limits),
        "Events: Repository push; Pull request opened, source branch updated, merged, declined, deleted".to_owned(),
    ])
}

fn jira(url: &str, limits: &WebhookLimits) -> Vec<String> {
    lines([
        "Jira Cloud: as an administrator open Settings, System, WebHooks, then Create a WebHook".to_owned(),
        format!("URL: {url}"),
        secret("Secret", limits),
        "Events: Issue created, updated, deleted; Comment created, updated, deleted".to_owned(),
        shown(limits, &format!("Data Center signs nothing: let the URL be {url}?secret=VALUE; VALUE")),
        shown(limits, "Automation: Send web request with the header X-Webhook-Secret"),
        "Automation, web request body: Issue data, or the custom data that docs/triggers.md shows".to_owned(),
    ])
}

fn s3(url: &str, limits: &WebhookLimits) -> Vec<String> {
    lines([
        "S3: bucket, Properties, Amazon EventBridge: On".to_owned(),
        format!("EventBridge: an API destination, POST {url}, and a rule for Object Created and Object Deleted to it"),
        shown(limits, "The API destination's connection: API key with the name X-Webhook-Secret; its value"),
        "Whoever forwards S3's own records, alone or in SNS and SQS envelopes, may POST them here too".to_owned(),
        "An HTTPS subscription of SNS itself is not confirmed by this version".to_owned(),
    ])
}

fn minio(url: &str, limits: &WebhookLimits) -> Vec<String> {
    lines([
        format!("mc admin config set ALIAS notify_webhook:kickwheel endpoint={url} auth_token=VALUE queue_dir=DIR"),
        shown(limits, "VALUE"),
        "mc admin service restart ALIAS".to_owned(),
        "mc event add ALIAS/BUCKET arn:minio:sqs::kickwheel:webhook --event put,delete".to_owned(),
    ])
}

fn gcs(url: &str, limits: &WebhookLimits) -> Vec<String> {
    lines([
        "gcloud storage buckets notifications create gs://BUCKET --topic=TOPIC".to_owned(),
        format!("gcloud pubsub subscriptions create NAME --topic=TOPIC --push-endpoint='{url}?secret=VALUE'"),
        shown(limits, "VALUE"),
    ])
}

fn azure(url: &str, limits: &WebhookLimits) -> Vec<String> {
    lines([
        "In the storage account, open Events, then Event Subscription".to_owned(),
        "Event schema: Event Grid Schema or Cloud Event Schema v1.0; both are read".to_owned(),
        "Event types: Blob Created and Blob Deleted".to_owned(),
        format!("Endpoint type: Web Hook, {url}?secret=VALUE"),
        shown(limits, "VALUE"),
        "Create: Azure asks the URL whether it may send, and is answered".to_owned(),
    ])
}

fn lakefs(url: &str, limits: &WebhookLimits) -> Vec<String> {
    lines([
        "Put a file below _lakefs_actions/ in the repository, with a hook of the type webhook".to_owned(),
        "on: post-commit, post-merge, post-create-branch, post-create-tag; pre-* events mean nothing here".to_owned(),
        format!("properties.url: {url}"),
        shown(limits, "properties.headers.X-Webhook-Secret"),
    ])
}

fn huggingface(url: &str, limits: &WebhookLimits) -> Vec<String> {
    lines([
        "On Hugging Face, open Settings, then Webhooks, then Add a new webhook".to_owned(),
        "Target repositories: the dataset's; Events: Repository update".to_owned(),
        format!("URL: {url}"),
        secret("Secret", limits),
    ])
}

fn mlflow(url: &str, limits: &WebhookLimits) -> Vec<String> {
    lines([
        format!("client.create_webhook(name=\"kickwheel\", url=\"{url}\", events=[...], secret=VALUE)"),
        shown(limits, "VALUE"),
        "Each event keeps MLflow's name, such as org.mlflow.model_version.created".to_owned(),
    ])
}

fn cloudevents(url: &str, limits: &WebhookLimits) -> Vec<String> {
    lines([
        format!("Let the sender POST CloudEvents 1.0 (binary, structured or batched) to {url}"),
        secret("Header `Authorization: Bearer …`, or a Standard Webhooks signature, with", limits),
        "The OPTIONS handshake of the CloudEvents webhook specification is answered".to_owned(),
    ])
}

fn standard_webhooks(url: &str, limits: &WebhookLimits) -> Vec<String> {
    lines([
        format!("Let the sender POST to {url}"),
        secret("Signing secret (`whsec_…`)", limits),
        "Each body becomes one event: `type` and `data` are its own".to_owned(),
    ])
}

/// Where the value of the secret goes that a sender shows instead of signing.
fn shown(limits: &WebhookLimits, where_to: &str) -> String {
    match limits.secrets.first() {
        Some(name) => format!("{where_to}: the value of the secret {name}"),
        None => format!("{where_to}: leave it away"),
    }
}

fn lines<const N: usize>(lines: [String; N]) -> Vec<String> {
    lines.into()
}

/// Gitea and its relatives, whose pages are alike.
fn family(name: &str, url: &str, limits: &WebhookLimits) -> Vec<String> {
    lines([
        format!("On {name}, open the repository's Settings, then Webhooks, then Add Webhook, then {name}"),
        format!("Target URL: {url}"),
        "POST Content Type: application/json".to_owned(),
        secret("Secret", limits),
        "Trigger on: Custom Events, then Push and Pull Request".to_owned(),
        "Active: ticked; then Add Webhook, and Test Delivery".to_owned(),
    ])
}

fn secret(label: &str, limits: &WebhookLimits) -> String {
    match limits.secrets.first() {
        Some(name) => format!("{label}: the value of the secret {name}"),
        None => format!("{label}: leave it empty"),
    }
}
