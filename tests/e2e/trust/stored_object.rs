//! The truststore object is versioned, encrypted as the spec says, and moves with all recorded trust.
use std::time::Duration;

use sandbox::control::Calls;
use serde_json::{Value, json};

use crate::support::{
    aws::{
        buckets::to_be_made,
        truststores::{holds, truststore},
    },
    edge_calls::Caller,
    kubernetes::{
        objects::{CERTIFICATE, DOMAIN, certificate_spec, create, domain_spec},
        secrets::create_secret,
    },
    partner_ca::Ca,
    test_env::TestEnv,
    world::{eventually, run},
};

#[test]
fn no_truststore_is_pinned_until_a_new_bucket_gives_versions() {
    run(async {
        let env = TestEnv::start("young").await;
        env.control()
            .set_knobs(&env.account.id, &[("versioning_delay", 3600.0)])
            .await
            .unwrap();
        let (bucket, spec) = to_be_made(&env, "young");
        env.create_domain("d", spec).await;
        let published = env
            .condition("d", "TruststorePublished", |c| c.reason == "Unreachable")
            .await;
        assert!(published.message.contains(&bucket), "{}", published.message);
        eventually("the operator tries again", async || {
            let puts = Calls {
                account: &env.account.id,
                operation: "PutObject",
                ..Calls::default()
            };
            let puts = env
                .control()
                .calls(&puts)
                .await
                .map_err(|e| e.to_string())?
                .calls
                .len();
            if puts > 2 {
                Ok(())
            } else {
                Err(format!("{puts} times"))
            }
        })
        .await;
        assert_eq!(env.gateway_domains().await, [""; 0]);

        env.control()
            .advance(&env.account.id, Duration::from_secs(3600))
            .await
            .unwrap();
        env.ready("d").await;
        let pinned = env
            .gateway_domain()
            .await
            .mutual_tls_authentication
            .unwrap()
            .truststore_version
            .unwrap();
        assert!(!pinned.is_empty() && pinned != "null", "{pinned}");
        // An object without a version carries the ownership tag as well, and is deleted with the rest.
        env.delete_domain("d").await;
        let left = env
            .s3()
            .list_object_versions()
            .bucket(&bucket)
            .send()
            .await
            .unwrap();
        assert_eq!(left.versions().len(), 0, "{left:?}");
    });
}

#[test]
fn a_changed_kms_key_stores_the_same_truststore_again() {
    run(async {
        let env = TestEnv::start("kms").await;
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        let (mut version, text) = truststore(&env).await;
        let arn = |key: &str| format!("arn:aws:kms:{}:{}:{key}", env.account.region, env.account.id);
        let object = format!("{}.pem", env.owner("d"));
        for (wanted, found) in [
            (json!(arn("key/one")), Some("key/one")),
            (json!(arn("key/two")), Some("key/two")),
            (json!(arn("alias/three")), Some("key/")),
            (Value::Null, None),
        ] {
            let mark = env.mark().await;
            env.change("d", json!({"truststore": {"kmsKeyArn": wanted}}))
                .await;
            env.ready("d").await;
            env.reconciles(2).await;
            assert_eq!(
                env.writes(mark).await,
                ["PutObject", "UpdateDomainName"],
                "{wanted}"
            );
            let (now, same) = truststore(&env).await;
            assert_ne!(now, version);
            assert_eq!(same, text);
            let head = env
                .s3()
                .head_object()
                .bucket(&env.prepared.bucket)
                .key(&object)
                .version_id(&now);
            let key = head.send().await.unwrap().ssekms_key_id;
            assert_eq!(key.is_some(), found.is_some(), "{key:?}");
            assert!(
                key.unwrap_or_default()
                    .starts_with(&found.map(arn).unwrap_or_default())
            );
            version = now;
        }
    });
}

#[test]
fn an_unowned_truststore_is_replaced_only_when_the_spec_allows_it() {
    run(async {
        let env = TestEnv::start("older").await;
        let (bucket, key) = (env.prepared.bucket.clone(), "truststore.pem");
        let older = Ca::new("Older CA").pem;
        let request = env
            .s3()
            .put_object()
            .bucket(&bucket)
            .key(key)
            .body(older.into_bytes().into());
        let old = request.send().await.unwrap().version_id.unwrap();
        let mark = env.mark().await;
        env.create_domain("d", json!({"truststore": {"bucket": bucket, "key": key}}))
            .await;
        let published = env
            .condition("d", "TruststorePublished", |c| c.reason == "ForeignOwner")
            .await;
        assert_eq!(published.status, "False");
        for part in [key, "spec.truststore.key", "spec.adoptionPolicy"] {
            assert!(published.message.contains(part), "{}", published.message);
        }
        env.reconciles(2).await;
        assert!(!env.writes(mark).await.iter().any(|w| w.contains("Object")));
        assert_eq!(env.object_versions().await, std::slice::from_ref(&old));

        env.change("d", json!({"adoptionPolicy": "Unowned"})).await;
        env.ready("d").await;
        let versions = env.object_versions().await;
        assert_eq!((versions.len(), &versions[1]), (2, &old));
        assert_eq!(truststore(&env).await.0, versions[0]);
        env.delete_domain("d").await;
        assert_eq!(
            env.object_versions().await,
            [old],
            "the earlier version is the latest again"
        );
    });
}

#[test]
fn a_moved_truststore_keeps_its_recorded_trust_and_revives_none() {
    run(async {
        let env = TestEnv::start("moves").await;
        let [old, lost] = ["Old CA", "Lost CA"].map(Ca::new);
        create_secret(&env, "old-ca", &[("tls.crt", &old.pem), ("tls.key", &old.key)]).await;
        create_secret(&env, "lost-ca", &[("tls.crt", &lost.pem), ("tls.key", &lost.key)]).await;
        let entry = json!({"name": "old", "secretRef": {"name": "old-ca"}});
        let lost_entry =
            |state: &str| json!({"name": "lost", "state": state, "secretRef": {"name": "lost-ca"}});
        let trust = |more: Vec<Value>| {
            let mut authorities = vec![json!({"name": "new", "generate": {}})];
            authorities.extend(more);
            json!({"issuingAuthority": "new", "authorities": authorities})
        };
        let mut issued_by_old = trust(vec![entry, lost_entry("Active")]);
        issued_by_old["issuingAuthority"] = json!("old");
        create(&env, DOMAIN, "partners", domain_spec(&env, issued_by_old)).await;
        create(&env, CERTIFICATE, "client1", certificate_spec("client1")).await;
        env.ready("partners").await;
        env.certificate_ready("client1").await;
        let living = Caller::of(&env.secrets().get("client1").await.unwrap());
        // The authority leaves the spec while a leaf under it is valid.
        env.change("partners", json!({"trust": trust(vec![lost_entry("Active")])}))
            .await;
        env.ready("partners").await;
        let keep_until = |text: &str| {
            let line = text
                .lines()
                .find(|l| l.contains("keep-until: "))
                .map(str::to_owned);
            line.unwrap_or_else(|| panic!("the truststore records nothing: {text}"))
        };
        let (_, before) = truststore(&env).await;
        let recorded = keep_until(&before);

        // The truststore then moves, twice.
        let first = json!({"truststore": {"bucket": env.prepared.bucket, "key": "first.pem"}});
        let second = json!({"truststore": {"bucket": env.prepared.bucket, "key": "second.pem"}});
        let old_place = env.object_versions().await;
        for place in [&first, &second] {
            env.change("partners", place.clone()).await;
            env.ready("partners").await;
            let (_, text) = truststore(&env).await;
            assert_eq!(keep_until(&text), recorded);
            assert_eq!(living.calls(&env).await, "200");
        }
        let everything = env.object_versions().await;
        assert!(
            old_place.iter().all(|v| everything.contains(v)),
            "the object at the old place stays"
        );

        // The object at the first place still holds certificates that are no longer trusted. A move back to
        // that place does not make them trusted again.
        env.change(
            "partners",
            json!({"trust": trust(vec![lost_entry("Distrusted")])}),
        )
        .await;
        env.ready("partners").await;
        env.change("partners", json!({"trust": trust(vec![])})).await;
        env.ready("partners").await;
        env.change("partners", first).await;
        env.ready("partners").await;
        let (_, text) = truststore(&env).await;
        assert_eq!(keep_until(&text), recorded);
        assert!(!holds(&text, &lost.pem), "{text}");
    });
}
