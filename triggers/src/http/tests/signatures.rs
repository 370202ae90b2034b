//! Who may send: each way to sign, and each way to get it wrong.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac as _};
use serde_json::json;
use sha1::Sha1;
use sha2::Sha256;

use super::{NOW, headers, refused, translate, unverified, with_secret};
use crate::http::{
    Headers, Provider, Secret, SourceConfig, Verification,
    signature::{KeyForm, STANDARD_HEADERS, verify_hub, verify_standard},
};

const PING: &[u8] = b"{\"zen\": \"x\", \"hook_id\": 1}";

fn sha256(secret: &str, body: &[u8]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
    format!("sha256={}", hex::encode(mac.chain_update(body).finalize().into_bytes()))
}

fn sha1(secret: &str, body: &[u8]) -> String {
    let mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).expect("any length");
    format!("sha1={}", hex::encode(mac.chain_update(body).finalize().into_bytes()))
}

fn ping(config: &SourceConfig, pairs: &[(&str, &str)]) -> Result<(), (u16, &'static str, bool)> {
    let result = translate(Provider::Github, config, &headers(pairs), PING);
    if result == Ok(vec![]) { Ok(()) } else { Err(refused(result)) }
}

#[test]
fn githubs_published_example_verifies() {
    let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let secret = Secret::new("It's a Secret to Everybody");
    let given = headers(&[("X-Hub-Signature-256", signature)]);
    assert_eq!(verify_hub("X-Hub-Signature-256", None, &[&secret], &given, b"Hello, World!"), Ok(()));
    assert!(verify_hub("X-Hub-Signature-256", None, &[&secret], &given, b"Hello, World?").is_err());
}

#[test]
fn a_signature_that_is_missing_malformed_or_wrong_is_told_apart() {
    let config = with_secret("s");
    let good = sha256("s", PING);
    let name = "X-Hub-Signature-256";
    assert_eq!(ping(&config, &[(name, &good)]), Ok(()));
    assert_eq!(ping(&config, &[("x-hub-signature-256", &good.to_uppercase().replace("SHA256", "sha256"))]), Ok(()));
    for (value, code) in [
        ("", "signature_missing"),
        ("sha256=", "signature_missing"),
        ("sha256=abc", "signature_malformed"),
        ("sha256=zz", "signature_malformed"),
        (good.trim_start_matches("sha256="), "signature_malformed"),
        (&good[..good.len() - 2], "signature_malformed"),
        (&sha256("t", PING), "signature_wrong"),
        (&sha256("s", b"{}"), "signature_wrong"),
        (&sha256("", PING), "signature_wrong"),
    ] {
        assert_eq!(ping(&config, &[(name, value)]), Err((401, code, false)), "{value}");
    }
    assert_eq!(ping(&config, &[]), Err((401, "signature_missing", false)));
    assert_eq!(ping(&config, &[(name, &good), (name, &good)]), Err((401, "signature_malformed", false)));
    assert_eq!(ping(&unverified(), &[(name, "sha256=wrong")]), Ok(()), "nothing is verified");
}

#[test]
fn a_signature_is_judged_before_the_body_is_read() {
    let answer = refused(translate(Provider::Github, &with_secret("s"), &Headers::default(), b"{ no json"));
    assert_eq!(answer, (401, "signature_missing", false), "what proved nothing is not kept");
}

#[test]
fn the_older_signature_counts_only_where_the_trigger_says_so() {
    let legacy = |legacy_sha1| SourceConfig {
        verification: Verification::Secret { current: Secret::new("s"), previous: None, legacy_sha1 },
        ..unverified()
    };
    let (old, new) = (sha1("s", PING), sha256("s", PING));
    let pair = ("X-Hub-Signature", old.as_str());
    assert_eq!(ping(&legacy(false), &[pair]), Err((401, "signature_missing", false)));
    assert_eq!(ping(&legacy(true), &[pair]), Ok(()));
    assert_eq!(ping(&legacy(true), &[("X-Hub-Signature", &sha1("t", PING))]), Err((401, "signature_wrong", false)));
    assert_eq!(ping(&legacy(true), &[("X-Hub-Signature", &new)]), Err((401, "signature_malformed", false)));
    let both = [pair, ("X-Hub-Signature-256", &sha256("t", PING))];
    assert_eq!(ping(&legacy(true), &both), Err((401, "signature_wrong", false)), "the better one decides");
}

#[test]
fn two_secrets_are_valid_while_one_is_replaced() {
    let config = SourceConfig {
        verification: Verification::Secret {
            current: Secret::new("new"),
            previous: Some(Secret::new("old\n")),
            legacy_sha1: false,
        },
        ..unverified()
    };
    for (secret, expected) in [("new", Ok(())), ("old", Ok(())), ("older", Err((401, "signature_wrong", false)))] {
        assert_eq!(ping(&config, &[("X-Hub-Signature-256", &sha256(secret, PING))]), expected, "{secret}");
    }
}

#[test]
fn a_secret_is_never_shown() {
    assert!(!format!("{:?}", with_secret("hunter2")).contains("hunter2"));
}

const KEY: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn standard(id: &str, seconds: i64, body: &[u8]) -> String {
    let key: Vec<u8> = (0..32).collect();
    let mac = Hmac::<Sha256>::new_from_slice(&key).expect("any length").chain_update(format!("{id}.{seconds}."));
    format!("v1,{}", STANDARD.encode(mac.chain_update(body).finalize().into_bytes()))
}

#[test]
fn a_standard_webhook_is_signed_over_id_time_and_body() {
    let body = serde_json::to_vec(&json!({"type": "a.b", "data": 1})).expect("JSON");
    let now = NOW.0 / 1000;
    let send = |secret: &str, id: &str, time: &str, signature: &str| {
        let pairs = [("webhook-id", id), ("webhook-timestamp", time), ("webhook-signature", signature)];
        let result = translate(Provider::StandardWebhooks, &with_secret(secret), &headers(&pairs), &body);
        result.map(|events| events.len()).map_err(|refusal| refusal.code)
    };
    let good = standard("m1", now, &body);
    let time = now.to_string();
    assert_eq!(send(KEY, "m1", &time, &good), Ok(1));
    assert_eq!(send(&KEY[6..], "m1", &time, &good), Ok(1), "the prefix may be left out");
    assert_eq!(send(KEY, "m1", &time, &format!("v1,AAAA v1a,xx {good}")), Ok(1));
    assert_eq!(send(KEY, "m2", &time, &good), Err("signature_wrong"));
    assert_eq!(send(KEY, "m1", &(now + 1).to_string(), &good), Err("signature_wrong"));
    assert_eq!(send(KEY, "m1", &time, "v1a,AAAA"), Err("signature_malformed"));
    assert_eq!(send(KEY, "m1", &time, "v1,***"), Err("signature_malformed"));
    assert_eq!(send(KEY, "m1", "soon", &good), Err("signature_malformed"));
    assert_eq!(send(KEY, "", &time, &good), Err("signature_missing"));
    assert_eq!(send("not base64!", "m1", &time, &good), Err("secret_unusable"));
    for (offset, expected) in
        [(-300, Ok(1)), (300, Ok(1)), (-301, Err("signature_expired")), (301, Err("signature_expired"))]
    {
        let signature = standard("m1", now + offset, &body);
        assert_eq!(send(KEY, "m1", &(now + offset).to_string(), &signature), expected, "{offset}");
    }
    for extreme in [i64::MAX, i64::MIN] {
        assert_eq!(send(KEY, "m1", &extreme.to_string(), &good), Err("signature_expired"));
    }
}

#[test]
fn some_senders_use_the_secret_as_it_is() {
    let (secret, body) = (Secret::new("plain"), b"{}");
    let mac = Hmac::<Sha256>::new_from_slice(b"plain").expect("any length").chain_update("d1.1767323045.{}");
    let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    let given =
        headers(&[("webhook-id", "d1"), ("webhook-timestamp", "1767323045"), ("webhook-signature", &signature)]);
    let verify = |form| verify_standard(STANDARD_HEADERS, form, &[&secret], &given, body, NOW);
    assert_eq!(verify(KeyForm::Raw), Ok(()));
    assert!(verify(KeyForm::Encoded).is_err());
}
