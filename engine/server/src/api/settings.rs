//! What has to be done at a sender's, in the words of its settings page.
//!
//! Deliberately absent: doing it. Each step is one line, and none holds a secret's value.

use kickwheel_schemas::api::{TriggerConfig, WebhookLimits};

/// The steps after which a sender tells what the trigger is to hear; `url` is the trigger's own.
pub(super) fn steps(config: &TriggerConfig, url: &str) -> Vec<String> {
    let shown = |limits: &WebhookLimits, where_to: &str| match limits.secrets.first() {
        Some(name) => format!("{where_to}: the value of the secret {name}"),
        None => format!("{where_to}: leave it away"),
    };
    match config {
        TriggerConfig::Github(forge) => lines([
            "On GitHub, open the repository's Settings, then Webhooks, then Add webhook".to_owned(),
            format!("Payload URL: {url}"),
            "Content type: application/json".to_owned(),
            secret("Secret", &forge.limits),
            "SSL verification: leave it enabled".to_owned(),
            "Which events: Let me select individual events, then Pushes and Pull requests".to_owned(),
            "Active: ticked; then Add webhook. GitHub sends a ping at once: Recent Deliveries shows 200".to_owned(),
        ]),
        TriggerConfig::Gitlab(forge) => lines([
            "On GitLab, open the project's Settings, then Webhooks, then Add new webhook".to_owned(),
            format!("URL: {url}"),
            secret("Signing token (begins with whsec_), or else Secret token", &forge.limits),
            "Trigger: Push events, Tag push events, Merge request events".to_owned(),
            "SSL verification: leave it enabled; then Add webhook, and Test".to_owned(),
            "GitLab sends nothing for a push of more refs than its push_event_hooks_limit: polling finds those"
                .to_owned(),
        ]),
        TriggerConfig::Gitea(forge) => family("Gitea", url, &forge.limits),
        TriggerConfig::Forgejo(forge) => family("Forgejo", url, &forge.limits),
        TriggerConfig::Gogs(forge) => family("Gogs", url, &forge.limits),
        TriggerConfig::BitbucketCloud(forge) => lines([
            "On Bitbucket, open the repository's Repository settings, then Webhooks, then Add webhook".to_owned(),
            format!("URL: {url}"),
            secret("Secret", &forge.limits),
            "Triggers: Repository push; Pull request created, updated, merged, declined".to_owned(),
            "Bitbucket drops payloads over 256 KB without a word: polling finds those pushes".to_owned(),
        ]),
        TriggerConfig::BitbucketDc(forge) => lines([
            "On Bitbucket Data Center, open the repository's settings, then Webhooks, then Create webhook".to_owned(),
            format!("URL: {url}"),
            secret("Secret", &forge.limits),
            "Events: Repository push; Pull request opened, source branch updated, merged, declined, deleted".to_owned(),
        ]),
        TriggerConfig::Jira(jira) => lines([
            "Jira Cloud: as an administrator open Settings, System, WebHooks, then Create a WebHook".to_owned(),
            format!("URL: {url}"),
            secret("Secret", &jira.limits),
            "Events: Issue created, updated, deleted; Comment created, updated, deleted".to_owned(),
            shown(&jira.limits, &format!("Data Center signs nothing: let the URL be {url}?secret=VALUE; VALUE")),
            shown(&jira.limits, "Automation: Send web request with the header X-Webhook-Secret"),
            "Automation, web request body: Issue data, or the custom data that docs/triggers.md shows".to_owned(),
        ]),
        TriggerConfig::S3(dataset) => lines([
            "S3 tells an SNS topic, an SQS queue or EventBridge; subscribe this URL to one of them".to_owned(),
            format!("EventBridge API destination, or SNS subscription (HTTPS): {url}"),
            shown(&dataset.limits, "EventBridge connection: API key X-Webhook-Secret; SNS: ?secret= in the URL"),
            "Events: Object Created and Object Deleted, or s3:ObjectCreated:* and s3:ObjectRemoved:*".to_owned(),
            "An SNS subscription is confirmed by hand: open the SubscribeURL that SNS shows or mails".to_owned(),
        ]),
        TriggerConfig::Minio(dataset) => lines([
            format!("mc admin config set ALIAS notify_webhook:kickwheel endpoint={url} auth_token=VALUE queue_dir=DIR"),
            shown(&dataset.limits, "VALUE"),
            "mc admin service restart ALIAS".to_owned(),
            "mc event add ALIAS/BUCKET arn:minio:sqs::kickwheel:webhook --event put,delete".to_owned(),
        ]),
        TriggerConfig::Gcs(dataset) => lines([
            "gcloud storage buckets notifications create gs://BUCKET --topic=TOPIC".to_owned(),
            format!("gcloud pubsub subscriptions create NAME --topic=TOPIC --push-endpoint='{url}?secret=VALUE'"),
            shown(&dataset.limits, "VALUE"),
        ]),
        TriggerConfig::Azure(dataset) => lines([
            "In the storage account, open Events, then Event Subscription".to_owned(),
            "Event schema: Event Grid Schema or Cloud Event Schema v1.0; both are read".to_owned(),
            "Event types: Blob Created and Blob Deleted".to_owned(),
            format!("Endpoint type: Web Hook, {url}?secret=VALUE"),
            shown(&dataset.limits, "VALUE"),
            "Create: Azure asks the URL whether it may send, and is answered".to_owned(),
        ]),
        TriggerConfig::Lakefs(dataset) => lines([
            "Put a file below _lakefs_actions/ in the repository, with a hook of the type webhook".to_owned(),
            "on: post-commit, post-merge, post-create-branch, post-create-tag; pre-* events mean nothing here"
                .to_owned(),
            format!("properties.url: {url}"),
            shown(&dataset.limits, "properties.headers.X-Webhook-Secret"),
        ]),
        TriggerConfig::Huggingface(dataset) => lines([
            "On Hugging Face, open Settings, then Webhooks, then Add a new webhook".to_owned(),
            "Target repositories: the dataset's; Events: Repository update".to_owned(),
            format!("URL: {url}"),
            secret("Secret", &dataset.limits),
        ]),
        TriggerConfig::Mlflow(limits) => lines([
            format!("client.create_webhook(name=\"kickwheel\", url=\"{url}\", events=[...], secret=VALUE)"),
            shown(limits, "VALUE"),
            "Each event keeps MLflow's name, such as org.mlflow.model_version.created".to_owned(),
        ]),
        TriggerConfig::Cloudevents(limits) => lines([
            format!("Let the sender POST CloudEvents 1.0 (binary, structured or batched) to {url}"),
            secret("Header `Authorization: Bearer …`, or a Standard Webhooks signature, with", limits),
            "The OPTIONS handshake of the CloudEvents webhook specification is answered".to_owned(),
        ]),
        TriggerConfig::StandardWebhooks(limits) => lines([
            format!("Let the sender POST to {url}"),
            secret("Signing secret (`whsec_…`)", limits),
            "Each body becomes one event: `type` and `data` are its own".to_owned(),
        ]),
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
