//! A domain that serves already gets mutual TLS in place, and no caller loses access.
use std::path::Path;

use aws_sdk_route53::types::RrType;
use mtls_operator::aws::tags::{ADOPTED_TAG, OWNER_TAG};
use sandbox::prepare;
use serde_json::json;

use crate::support::{
    aws::existing_resources::{self, tags},
    edge_calls::Identity,
    example_manifests,
    kubernetes::secrets::{create_secret, openssl},
    test_env::TestEnv,
    world::{eventually, run, world},
};

/// Private CA and a client certificate under it, made by the commands that a reader of a walk-through types.
pub struct PrivateCa {
    pub ca: String,
    pub client: Identity,
}

impl PrivateCa {
    pub async fn new(common_name: &str) -> PrivateCa {
        let dir = tempfile::tempdir().expect("a folder");
        let subject = format!("/CN={common_name}");
        let lines: [&[&str]; 4] = [
            &["genrsa", "-out", "RootCA.key", "4096"],
            &[
                "req",
                "-new",
                "-x509",
                "-days",
                "3650",
                "-key",
                "RootCA.key",
                "-out",
                "RootCA.pem",
                "-subj",
                &subject,
            ],
            &[
                "req",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-keyout",
                "client.key",
                "-out",
                "client.csr",
                "-subj",
                "/CN=client1",
            ],
            &[
                "x509",
                "-req",
                "-in",
                "client.csr",
                "-CA",
                "RootCA.pem",
                "-CAkey",
                "RootCA.key",
                "-set_serial",
                "01",
                "-out",
                "client.pem",
                "-days",
                "3650",
                "-sha256",
            ],
        ];
        for line in lines {
            openssl(dir.path(), line, "")
                .await
                .expect("openssl does as the walk-through says");
        }
        let read =
            |file: &str| std::fs::read(Path::new(dir.path()).join(file)).expect("openssl has written it");
        PrivateCa {
            ca: String::from_utf8(read("RootCA.pem")).expect("PEM"),
            client: Identity {
                certificate: read("client.pem"),
                key: read("client.key"),
            },
        }
    }

    /// Writes the CA into a Secret without its key, which stays with the CA's owner.
    pub async fn publish(&self, env: &TestEnv, secret: &str) {
        create_secret(env, secret, &[("ca.crt", &self.ca)]).await;
    }
}

/// Walk-through (b): a private CA, an HTTP API with a Lambda, mutual TLS switched on later on a domain that
/// serves traffic.
#[test]
fn a_domain_that_serves_gets_mutual_tls_in_place() {
    run(async {
        let env = TestEnv::start("takeover").await;
        let (host, execute_api) = (env.host(), env.prepared.execute_api_host.clone());
        let ca = PrivateCa::new("Walk-through CA").await;
        ca.publish(&env, "root-ca").await;
        let arn = existing_resources::serving(&env, None).await;
        existing_resources::map(&env, "kept").await;
        let records = env.records().await;
        assert_eq!(
            env.call(&host, "/", None).await.status,
            200,
            "before: every caller gets in"
        );
        assert_eq!(env.call(&execute_api, "/", None).await.status, 200);

        // Without permission the operator touches nothing.
        let mark = env.mark().await;
        let file = "takeover-private-ca.yaml";
        example_manifests::apply(
            &env,
            file,
            &[("adoptionPolicy: Unowned", "adoptionPolicy: Never")],
        )
        .await;
        let refused = env
            .condition("partners", "DomainProgrammed", |c| c.reason == "ForeignOwner")
            .await;
        assert!(refused.message.contains("adoptionPolicy"), "{}", refused.message);
        env.reconciles(2).await;
        assert_eq!(env.writes(mark).await, [""; 0]);
        assert_eq!(env.call(&host, "/", None).await.status, 200);

        let mark = env.mark().await;
        example_manifests::apply(&env, file, &[]).await;
        env.ready("partners").await;
        assert_eq!(
            env.call(&host, "/", None).await.status,
            0,
            "no certificate: no answer"
        );
        assert_eq!(env.call(&host, "/", Some(&ca.client)).await.status, 200);
        let other = PrivateCa::new("Another CA").await;
        assert_eq!(env.call(&host, "/", Some(&other.client)).await.status, 403);
        let closed = env.call(&execute_api, "/", None).await;
        assert_eq!(
            (closed.status, closed.body.contains("Not Found")),
            (404, true),
            "{}",
            closed.body
        );

        // The operator updated the domain once in place, and touched nothing else of it.
        assert_eq!(
            env.writes(mark).await,
            ["PutObject", "TagResource", "UpdateDomainName", "UpdateApi"]
        );
        let config = env
            .gateway_domain()
            .await
            .domain_name_configurations
            .unwrap()
            .remove(0);
        assert_eq!(
            config.certificate_arn,
            Some(arn.clone()),
            "the domain keeps its certificate"
        );
        assert_eq!(env.records().await, records, "its record was right");
        assert_eq!(env.mapped().await.len(), 2);
        let mappings = env
            .condition("partners", "MappingsProgrammed", |c| c.status == "True")
            .await;
        assert!(mappings.message.contains("\"kept\""), "{}", mappings.message);
        let owned = [
            (ADOPTED_TAG.to_owned(), "true".to_owned()),
            (OWNER_TAG.to_owned(), env.owner("partners")),
        ];
        assert_eq!(tags(&env).await, owned);

        // The deletion of the MtlsDomain leaves the domain as it serves now.
        let mark = env.mark().await;
        env.delete_domain("partners").await;
        assert_eq!(env.writes(mark).await, ["UntagResource"]);
        assert_eq!(tags(&env).await, []);
        assert_eq!(env.call(&host, "/", None).await.status, 0);
        assert_eq!(env.call(&host, "/", Some(&ca.client)).await.status, 200);
        assert_eq!((env.records().await, env.mapped().await.len()), (records, 2));
    });
}

/// The domain's truststore is in a bucket of another account, which lets API Gateway's caller read it by
/// then.
#[test]
fn a_truststore_of_another_account_is_taken_over_once_the_operator_may_read_it() {
    run(async {
        let env = TestEnv::start("abroad").await;
        let theirs = world().aws.new_account();
        let s3 = aws_sdk_s3::Client::new(&theirs.sdk());
        let (bucket, key) = (format!("abroad-{}", theirs.id), "truststore.pem");
        prepare::versioned_bucket(&theirs, &bucket).await.unwrap();
        let old = PrivateCa::new("Old CA").await;
        old.publish(&env, "old-ca").await;
        let put = s3.put_object().bucket(&bucket).key(key);
        let put = put.body(old.ca.clone().into_bytes().into());
        let version = put.send().await.unwrap().version_id.unwrap();
        let allow = async || {
            let policy = json!({"Version": "2012-10-17", "Statement": [{
                "Effect": "Allow", "Principal": {"AWS": format!("arn:aws:iam::{}:root", env.account.id)},
                "Action": ["s3:GetObject", "s3:GetObjectVersion"],
                "Resource": format!("arn:aws:s3:::{bucket}/*"),
            }]});
            let put = s3.put_bucket_policy().bucket(&bucket).policy(policy.to_string());
            put.send().await.unwrap();
        };
        allow().await;
        existing_resources::serving(&env, Some((&format!("s3://{bucket}/{key}"), &version))).await;
        s3.delete_bucket_policy().bucket(&bucket).send().await.unwrap();

        let authorities = json!([{"name": "old-ca", "secretRef": {"name": "old-ca"}}]);
        let spec = json!({"adoptionPolicy": "Unowned", "trust": {"authorities": authorities}});
        env.create_domain("d", spec).await;
        let refused = env
            .condition("d", "TruststorePublished", |c| c.reason == "PermissionDenied")
            .await;
        for part in [format!("s3://{bucket}/{key}").as_str(), "s3:GetObjectVersion"] {
            assert!(refused.message.contains(part), "{}", refused.message);
        }
        assert_eq!(tags(&env).await, []);
        allow().await;
        env.ready("d").await;
        assert_eq!(env.call(&env.host(), "/", Some(&old.client)).await.status, 200);
    });
}

/// Walk-through (c): a versioned bucket that holds an older truststore, and a domain that uses it.
#[test]
fn no_caller_loses_access_by_a_takeover() {
    run(async {
        let env = TestEnv::start("narrowing").await;
        let host = env.host();
        let (old, new) = (PrivateCa::new("Old CA").await, PrivateCa::new("New CA").await);
        old.publish(&env, "old-ca").await;
        new.publish(&env, "new-ca").await;
        let (bucket, key) = (env.prepared.bucket.clone(), "truststore.pem");
        // As an editor of Windows saves a file: the byte order mark stands before the first BEGIN.
        let put = env
            .s3()
            .put_object()
            .bucket(&bucket)
            .key(key)
            .body(format!("\u{feff}{}", old.ca).into_bytes().into());
        let version = put.send().await.unwrap().version_id.unwrap();
        existing_resources::serving(&env, Some((&format!("s3://{bucket}/{key}"), &version))).await;
        assert_eq!(env.call(&host, "/", Some(&old.client)).await.status, 200);

        let mark = env.mark().await;
        let file = "takeover-existing-truststore.yaml";
        let in_bucket = ("example-truststores", bucket.as_str());
        let without_old = ("      - name: old-ca\n        secretRef: {name: old-ca}\n", "");
        example_manifests::apply(&env, file, &[in_bucket, without_old]).await;
        let refused = env
            .condition("partners", "DomainProgrammed", |c| c.reason == "TrustInUse")
            .await;
        assert_eq!(refused.status, "False");
        assert!(refused.message.contains("CN=Old CA"), "{}", refused.message);
        env.reconciles(2).await;
        assert!(
            env.writes(mark).await.iter().all(|w| w == "PutObject"),
            "{:?}",
            env.writes(mark).await
        );
        assert_eq!(env.call(&host, "/", Some(&old.client)).await.status, 200);
        assert_eq!(tags(&env).await, []);

        example_manifests::apply(&env, file, &[in_bucket]).await;
        env.ready("partners").await;
        for client in [&old.client, &new.client] {
            assert_eq!(env.call(&host, "/", Some(client)).await.status, 200);
        }
        let stranger = PrivateCa::new("Stranger").await;
        let answer = env.call(&host, "/", Some(&stranger.client)).await;
        assert_eq!(
            (answer.status, answer.body.contains("Forbidden")),
            (403, true),
            "{}",
            answer.body
        );
        assert!(
            env.object_versions().await.contains(&version),
            "the older version is still there"
        );

        // Once the operator owns the domain, the spec alone decides the trust.
        example_manifests::apply(&env, file, &[in_bucket, without_old]).await;
        env.ready("partners").await;
        eventually("the old CA is out", async || {
            match env.call(&host, "/", Some(&old.client)).await.status {
                403 => Ok(()),
                other => Err(other.to_string()),
            }
        })
        .await;
        let writes = env.writes(mark).await;
        assert!(
            !writes
                .iter()
                .any(|w| w == "CreateDomainName" || w == "DeleteDomainName"),
            "{writes:?}"
        );
    });
}

#[test]
fn a_taken_over_domain_is_deleted_when_the_spec_says_so() {
    run(async {
        let env = TestEnv::start("adopteddelete").await;
        existing_resources::serving(&env, None).await;
        let theirs = env.server_certificates().await;
        env.create_domain(
            "d",
            json!({"adoptionPolicy": "Unowned", "deletionPolicy": "Delete"}),
        )
        .await;
        env.ready("d").await;
        env.delete_domain("d").await;
        assert_eq!(env.gateway_domains().await, [""; 0]);
        assert_eq!(env.object_versions().await, [""; 0]);
        assert_eq!(
            env.server_certificates().await,
            theirs,
            "the operator does not delete the user's certificate"
        );
        assert!(
            env.record(RrType::A).await.is_some(),
            "the operator does not delete the user's record"
        );
    });
}
