//! Who may send: the closed list of providers.

use std::{fmt, str::FromStr};

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
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a name names no provider.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("know the provider {name:?}: there are {}", Provider::ALL.map(Provider::name).join(", "))]
pub struct ProviderError {
    /// As given.
    pub name: String,
}

impl FromStr for Provider {
    type Err = ProviderError;

    fn from_str(name: &str) -> Result<Self, ProviderError> {
        let found = Self::ALL.into_iter().find(|provider| provider.name() == name);
        found.ok_or_else(|| ProviderError { name: name.to_owned() })
    }
}
