//! How each sender proves who it is, and how a request that does not is refused.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Sha256, Sha512};

use super::{NOW, headers, refused, translate, unverified, with_secret};
use crate::http::{Headers, Provider, Secret, SourceConfig, Verification};

/// A body that means nothing to whoever it is sent to, so that only the proof is judged.
fn idle(provider: Provider) -> &'static [u8] {
    match provider {
        Provider::Jira => br#"{"webhookEvent": "sprint_started"}"#,
        Provider::Azure => b"[]",
        _ => b"{}",
    }
}

fn judge(provider: Provider, given: &Headers) -> Result<(), &'static str> {
    let result = translate(provider, &with_secret("s3cret"), given, idle(provider));
    if result.is_ok() {
        return Ok(());
    }
    let (status, code, kept) = refused(result);
    assert_eq!((status, kept), (401, false), "what proved nothing is not kept");
    Err(code)
}

fn hex_of(body: &[u8], secret: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
    hex::encode(mac.chain_update(body).finalize().into_bytes())
}

/// Those that show the secret, or a token made with it.
const SHOWING: [Provider; 7] = [
    Provider::Jira,
    Provider::S3,
    Provider::Minio,
    Provider::Gcs,
    Provider::Azure,
    Provider::LakeFs,
    Provider::HuggingFace,
];

#[test]
fn a_shown_secret_proves_a_sender_that_signs_nothing() {
    let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
    for provider in SHOWING {
        let with = |pairs: &[(&str, &str)]| judge(provider, &headers(pairs));
        assert_eq!(with(&[("X-Webhook-Secret", "s3cret")]), Ok(()), "{provider}");
        assert_eq!(with(&[("Authorization", "Bearer s3cret")]), Ok(()), "{provider}");
        assert_eq!(with(&[("authorization", "bearer  s3cret")]), Ok(()), "{provider}");
        assert_eq!(with(&[("Authorization", &basic("jira:s3cret"))]), Ok(()), "{provider}");
        assert_eq!(with(&[]), Err("signature_missing"), "{provider}");
        assert_eq!(with(&[("X-Webhook-Secret", "")]), Err("signature_missing"), "{provider}");
        assert_eq!(with(&[("Authorization", "")]), Err("signature_missing"), "{provider}");
        assert_eq!(with(&[("X-Webhook-Secret", "other")]), Err("signature_wrong"), "{provider}");
        assert_eq!(with(&[("Authorization", "Bearer other")]), Err("signature_wrong"), "{provider}");
        assert_eq!(with(&[("Authorization", &basic("s3cret:x"))]), Err("signature_wrong"), "{provider}");
        assert_eq!(with(&[("Authorization", "Basic ?")]), Err("signature_malformed"), "{provider}");
        assert_eq!(with(&[("Authorization", "Digest x")]), Err("signature_malformed"), "{provider}");
        let twice = [("X-Webhook-Secret", "s3cret"), ("x-webhook-secret", "s3cret")];
        assert_eq!(with(&twice), Err("signature_malformed"), "{provider}");
        let both = [("Authorization", "Bearer other"), ("X-Webhook-Secret", "s3cret")];
        assert_eq!(with(&both), Err("signature_wrong"), "{provider}: nobody gets another try");
    }
}

#[test]
fn the_secret_may_be_in_the_url() {
    for provider in SHOWING {
        let with = |query: &str| judge(provider, &Headers::default().with_query(Some(query)));
        assert_eq!(with("secret=s3cret"), Ok(()), "{provider}");
        assert_eq!(with("a=1&token=s3%63ret"), Ok(()), "{provider}: as a URL has it");
        assert_eq!(with("secret=other"), Err("signature_wrong"), "{provider}");
        assert_eq!(with("secret="), Err("signature_missing"), "{provider}");
        assert_eq!(with("a=s3cret"), Err("signature_missing"), "{provider}");
        assert_eq!(with("secret=other&secret=s3cret"), Err("signature_malformed"), "{provider}");
    }
    let shown = format!("{:?}", headers(&[("x-webhook-secret", "hunter2")]).with_query(Some("secret=hunter2")));
    assert!(!shown.contains("hunter2"), "{shown}");
}

fn token(head: &Value, claims: &Value, secret: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(head), part(claims));
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
    let signature = mac.chain_update(&signed).finalize().into_bytes();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn a_token_of_a_dynamic_webhook_is_verified_by_its_one_method() {
    let head = json!({"alg": "HS256", "typ": "JWT"});
    let now = NOW.0 / 1000;
    let with =
        |scheme: &str, token: &str| judge(Provider::Jira, &headers(&[("Authorization", &format!("{scheme} {token}"))]));
    let fresh = json!({"iss": "client", "iat": now, "exp": now + 180});
    assert_eq!(with("Bearer", &token(&head, &fresh, "s3cret")), Ok(()));
    assert_eq!(with("JWT", &token(&head, &fresh, "s3cret")), Ok(()));
    assert_eq!(with("Bearer", &token(&head, &json!({"iss": "client"}), "s3cret")), Ok(()), "one that does not expire");
    assert_eq!(with("Bearer", &token(&head, &fresh, "other")), Err("signature_wrong"));
    let none = token(&json!({"alg": "none"}), &fresh, "s3cret");
    assert_eq!(with("Bearer", &none), Err("signature_malformed"));
    assert_eq!(with("Bearer", &format!("{}.", none.rsplit_once('.').expect("parts").0)), Err("signature_malformed"));
    assert_eq!(with("Bearer", &token(&json!({"alg": "HS512"}), &fresh, "s3cret")), Err("signature_malformed"));
    assert_eq!(with("Bearer", &token(&head, &json!({"exp": now - 90}), "s3cret")), Err("signature_expired"));
    assert_eq!(with("Bearer", &token(&head, &json!({"exp": now - 30}), "s3cret")), Ok(()), "clocks differ a little");
    assert_eq!(with("Bearer", &token(&head, &json!({"nbf": now + 90}), "s3cret")), Err("signature_expired"));
    assert_eq!(with("Bearer", &token(&head, &json!({"exp": "soon"}), "s3cret")), Err("signature_malformed"));
    assert_eq!(with("Bearer", &token(&head, &json!([]), "s3cret")), Err("signature_malformed"));
    assert_eq!(with("Bearer", "a.b.c"), Err("signature_malformed"));
    let swapped = token(&head, &fresh, "s3cret");
    let parts: Vec<&str> = swapped.split('.').collect();
    let forged = URL_SAFE_NO_PAD.encode(json!({"iss": "other"}).to_string());
    assert_eq!(with("Bearer", &format!("{}.{forged}.{}", parts[0], parts[2])), Err("signature_wrong"));
}

#[test]
fn a_websub_signature_names_its_method() {
    for provider in [Provider::Jira, Provider::BitbucketCloud, Provider::BitbucketDc] {
        let body = idle(provider);
        let with = |value: &str| judge(provider, &headers(&[("X-Hub-Signature", value)]));
        let sha512 = Hmac::<Sha512>::new_from_slice(b"s3cret").expect("any length").chain_update(body);
        assert_eq!(with(&format!("sha256={}", hex_of(body, "s3cret"))), Ok(()), "{provider}");
        assert_eq!(with(&format!("sha512={}", hex::encode(sha512.finalize().into_bytes()))), Ok(()), "{provider}");
        assert_eq!(with(&format!("sha256={}", hex_of(body, "other"))), Err("signature_wrong"), "{provider}");
        for value in ["md5=00", "sha256=zz", "sha256", &hex_of(body, "s3cret")] {
            assert_eq!(with(value), Err("signature_malformed"), "{provider} {value}");
        }
        for value in ["", "sha256="] {
            assert_eq!(with(value), Err("signature_missing"), "{provider} {value}");
        }
        let mac = Hmac::<Sha1>::new_from_slice(b"s3cret").expect("any length").chain_update(body);
        let sha1 = format!("sha1={}", hex::encode(mac.finalize().into_bytes()));
        assert_eq!(with(&sha1), Err("signature_malformed"), "{provider}: only where it is taken");
        let current = Secret::new("s3cret");
        let verification = Verification::Secret { current, previous: None, legacy_sha1: true };
        let config = SourceConfig { verification, ..unverified() };
        let taken = translate(provider, &config, &headers(&[("X-Hub-Signature", &sha1)]), body);
        assert_eq!(taken, Ok(vec![]), "{provider}");
    }
    let both = [("X-Hub-Signature", "sha256=00"), ("X-Webhook-Secret", "s3cret")];
    assert_eq!(judge(Provider::Jira, &headers(&both)), Err("signature_malformed"), "who signs is judged by that");
}

#[test]
fn the_family_of_gitea_signs_with_bare_digits_or_none_at_all() {
    let good = hex_of(b"{}", "s3cret");
    let hub = format!("sha256={good}");
    for (provider, own) in [
        (Provider::Gitea, "X-Gitea-Signature"),
        (Provider::Forgejo, "X-Forgejo-Signature"),
        (Provider::Gogs, "X-Gogs-Signature"),
    ] {
        let with = |pairs: &[(&str, &str)]| judge(provider, &headers(pairs));
        assert_eq!(with(&[(own, &good)]), Ok(()), "{provider}");
        assert_eq!(with(&[("X-Hub-Signature-256", &hub)]), Ok(()), "{provider}");
        assert_eq!(with(&[(own, ""), ("X-Hub-Signature-256", "sha256=")]), Err("signature_missing"), "{provider}");
        assert_eq!(
            with(&[(own, ""), ("X-Hub-Signature-256", &hub)]),
            Err("signature_missing"),
            "{provider}: its own decides"
        );
        assert_eq!(with(&[(own, &hub)]), Err("signature_malformed"), "{provider}");
        assert_eq!(with(&[(own, &hex_of(b"{}", "x"))]), Err("signature_wrong"), "{provider}");
        assert_eq!(with(&[]), Err("signature_missing"), "{provider}");
    }
    assert_eq!(judge(Provider::Forgejo, &headers(&[("X-Gitea-Signature", &good)])), Ok(()), "an older Forgejo");
}

#[test]
fn gitlab_never_falls_back_to_the_token() {
    let secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let key: Vec<u8> = (0..32).collect();
    let now = (NOW.0 / 1000).to_string();
    let mac = Hmac::<Sha256>::new_from_slice(&key).expect("any length").chain_update(format!("m.{now}.{{}}"));
    let good = format!("v1,AAAA v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    let with = |secret: &str, pairs: &[(&str, &str)]| {
        let result = translate(Provider::Gitlab, &with_secret(secret), &headers(pairs), b"{}");
        result.map(|events| events.len()).map_err(|no| (no.status, no.code))
    };
    let signed = |signature: &str, token: &str| {
        let pairs = [
            ("webhook-id", "m"),
            ("webhook-timestamp", now.as_str()),
            ("webhook-signature", signature),
            ("X-Gitlab-Token", token),
        ];
        with(secret, &pairs)
    };
    assert_eq!(signed(&good, "whatever"), Ok(0));
    assert_eq!(signed("v1,AAAA", secret), Err((401, "signature_wrong")), "the token is right");
    assert_eq!(signed("", secret), Err((401, "signature_missing")), "the token is right");
    assert_eq!(with("s3cret", &[("X-Gitlab-Token", "s3cret")]), Ok(0));
    assert_eq!(with("s3cret", &[("X-Gitlab-Token", "s3cret ")]), Ok(0), "blanks around a header are none of it");
    assert_eq!(with("s3cret", &[("X-Gitlab-Token", "other")]), Err((401, "signature_wrong")));
    assert_eq!(with("s3cret", &[]), Err((401, "signature_missing")));
}

#[test]
fn mlflow_signs_with_the_secret_as_it_is() {
    let now = (NOW.0 / 1000).to_string();
    let mac = Hmac::<Sha256>::new_from_slice(b"s3cret").expect("any length").chain_update(format!("d.{now}.{{}}"));
    let good = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    let with = |signature: &str, time: &str| {
        let pairs = [("X-MLflow-Delivery-Id", "d"), ("X-MLflow-Timestamp", time), ("X-MLflow-Signature", signature)];
        judge(Provider::Mlflow, &headers(&pairs))
    };
    assert_eq!(with(&good, &now), Ok(()));
    assert_eq!(with("v1,AAAA", &now), Err("signature_wrong"));
    assert_eq!(with(&good, "1"), Err("signature_expired"));
    assert_eq!(judge(Provider::Mlflow, &headers(&[("X-Webhook-Secret", "s3cret")])), Err("signature_missing"));
}
