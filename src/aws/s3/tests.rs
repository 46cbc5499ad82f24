//! Tests of `s3`.

use super::*;

use crate::aws::{
    errors::Kind,
    fake::{self, Answer},
};

fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Answer {
    (status, headers.to_vec(), body.to_owned())
}

fn s3(answers: Vec<(&'static str, Answer)>) -> S3 {
    fake::answering(answers).s3
}

#[tokio::test]
async fn an_object_without_a_version_has_none_and_one_that_is_gone_is_none() {
    let head = |version| s3(vec![("HEAD", answer(200, &[("x-amz-version-id", version)], ""))]);
    assert_eq!(head("v1").head("b", "k").await.unwrap().unwrap().version, "v1");
    assert_eq!(head("null").head("b", "k").await.unwrap().unwrap().version, "");
    assert_eq!(s3(vec![]).head("b", "k").await.unwrap(), None);
    assert!(
        s3(vec![("HEAD", answer(403, &[], ""))])
            .head("b", "k")
            .await
            .is_err()
    );
    let code = |status, code: &str| {
        s3(vec![(
            "GET",
            answer(status, &[], &format!("<Error><Code>{code}</Code></Error>")),
        )])
    };
    for (status, text, expected) in [
        (404, "NoSuchKey", true),
        (405, "MethodNotAllowed", true),
        (403, "AccessDenied", false),
    ] {
        let read = code(status, text).get("b", "k", "v").await;
        assert_eq!(matches!(read, Ok(None)), expected, "{text}: {read:?}");
    }
}

#[tokio::test]
async fn a_truststore_that_got_no_version_is_not_stored() {
    let put = |headers: &[(&'static str, &'static str)]| s3(vec![("PUT", answer(200, headers, ""))]);
    let store = async |s3: S3| {
        s3.put("b", "k", vec![], &Settings::default())
            .await
            .map_err(|e| e.kind)
    };
    assert_eq!(store(put(&[("x-amz-version-id", "v1")])).await, Ok("v1".into()));
    assert_eq!(
        store(put(&[("x-amz-version-id", "null")])).await,
        Err(Kind::Transient)
    );
    assert_eq!(store(put(&[])).await, Err(Kind::Transient));
}

#[tokio::test]
async fn a_bucket_is_known_with_its_region_and_its_versioning() {
    let versioning = |word: &str| {
        answer(
            200,
            &[],
            &format!("<VersioningConfiguration><Status>{word}</Status></VersioningConfiguration>"),
        )
    };
    let of = async |head: Answer, word: &str| {
        s3(vec![("?versioning", versioning(word)), ("HEAD", head)])
            .bucket("b")
            .await
    };
    let here = answer(200, &[("x-amz-bucket-region", "eu-west-1")], "");
    let found = |region: &str, versioned| {
        Some(Bucket {
            region: region.into(),
            versioned,
        })
    };
    assert_eq!(
        of(here.clone(), "Enabled").await.unwrap(),
        found("eu-west-1", true)
    );
    assert_eq!(of(here, "Suspended").await.unwrap(), found("eu-west-1", false));
    let elsewhere = answer(301, &[("x-amz-bucket-region", "us-east-1")], "");
    assert_eq!(of(elsewhere, "Enabled").await.unwrap(), found("us-east-1", true));
    assert_eq!(of(answer(404, &[], ""), "Enabled").await.unwrap(), None);
    let strange = answer(403, &[("x-amz-bucket-region", "us-east-1")], "");
    assert_eq!(
        of(strange, "Enabled").await.unwrap_err().kind,
        Kind::Denied,
        "another account's"
    );
}

/// The answer to a HEAD request has no body, so no error code.
#[tokio::test]
async fn a_refused_head_request_has_the_reason_that_another_call_has() {
    let lasting = "no, with an explicit deny in a resource control policy";
    for (status, code, message, kind, operation) in [
        (
            403,
            "RequestTimeTooSkewed",
            "m",
            Kind::Credentials,
            "s3:GetBucketVersioning",
        ),
        (
            400,
            "ExpiredToken",
            "m",
            Kind::Credentials,
            "s3:GetBucketVersioning",
        ),
        (
            403,
            "AccessDenied",
            lasting,
            Kind::Denied,
            "s3:GetBucketVersioning",
        ),
        (
            403,
            "AccessDenied",
            "Access Denied",
            Kind::Denied,
            "s3:HeadBucket",
        ),
        (500, "InternalError", "m", Kind::Transient, "s3:HeadBucket"),
    ] {
        let body = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
        let answers = vec![
            ("HEAD", answer(status, &[], "")),
            ("GET", answer(status, &[], &body)),
        ];
        let error = s3(answers).bucket("b").await.unwrap_err();
        assert_eq!(
            (error.kind, error.operation),
            (kind, operation),
            "{code} {message}"
        );
    }
}

#[tokio::test]
async fn public_access_is_blocked_when_all_four_settings_say_so() {
    let all = [
        "BlockPublicAcls",
        "IgnorePublicAcls",
        "BlockPublicPolicy",
        "RestrictPublicBuckets",
    ];
    let of = async |missing: Option<&str>| {
        let set = |name: &&str| format!("<{name}>{}</{name}>", Some(*name) != missing);
        let body = format!(
            "<PublicAccessBlockConfiguration>{}</PublicAccessBlockConfiguration>",
            all.iter().map(set).collect::<String>()
        );
        s3(vec![("publicAccessBlock", answer(200, &[], &body))])
            .public_access_is_blocked("b")
            .await
            .unwrap()
    };
    assert!(of(None).await);
    for name in all {
        assert!(!of(Some(name)).await, "{name}");
    }
}
