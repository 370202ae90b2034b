//! Who may send: the closed list of providers.

use std::{fmt, str::FromStr};

use super::Refusal;

/// A kind of sender. The trigger's configuration names it; it is never guessed from a request, because several senders
/// also set each other's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // Their names say it.
pub enum Provider {
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
    LakeFs,
    HuggingFace,
    Mlflow,
    CloudEvents,
    StandardWebhooks,
    Generic,
}

impl Provider {
    /// Every one of them.
    pub const ALL: [Self; 18] = [
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
        Self::LakeFs,
        Self::HuggingFace,
        Self::Mlflow,
        Self::CloudEvents,
        Self::StandardWebhooks,
        Self::Generic,
    ];

    /// Those whose requests are understood.
    pub const UNDERSTOOD: [Self; 3] = [Self::Github, Self::CloudEvents, Self::StandardWebhooks];

    /// As in configuration and commands.
    pub fn name(self) -> &'static str {
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
            Self::LakeFs => "lakefs",
            Self::HuggingFace => "huggingface",
            Self::Mlflow => "mlflow",
            Self::CloudEvents => "cloudevents",
            Self::StandardWebhooks => "standard-webhooks",
            Self::Generic => "generic",
        }
    }

    /// The refusal of a request of a provider that is known by name only.
    pub(super) fn not_yet(self) -> Refusal {
        Refusal::new(400, "provider_not_understood", ProviderError::NotUnderstood { provider: self }.to_string())
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a name names no provider whose requests are understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// It is none at all.
    #[error("know the provider {name:?}: there are {}", understood())]
    Unknown {
        /// As given.
        name: String,
    },
    /// It is one, but not of this version.
    #[error("understand requests of {provider} with this version: there are {}", understood())]
    NotUnderstood {
        /// Which one.
        provider: Provider,
    },
}

fn understood() -> String {
    Provider::UNDERSTOOD.map(Provider::name).join(", ")
}

impl FromStr for Provider {
    type Err = ProviderError;

    fn from_str(name: &str) -> Result<Self, ProviderError> {
        let found = Self::ALL.into_iter().find(|provider| provider.name() == name);
        let provider = found.ok_or_else(|| ProviderError::Unknown { name: name.to_owned() })?;
        if Self::UNDERSTOOD.contains(&provider) { Ok(provider) } else { Err(ProviderError::NotUnderstood { provider }) }
    }
}
