//! Rules of the operator's policy come and go: what they no longer allow stops, and nothing is deleted.
use std::{collections::BTreeSet, fs, process::Command};

use jiff::Timestamp;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use mtls_operator::{api::MtlsDomain, aws::tags::OWNER_TAG};
use serde_json::json;

use crate::support::{
    kubernetes::policy_files::{Bounded, file},
    world::{eventually, run},
};

#[test]
fn a_rule_that_is_taken_away_stops_everything_and_deletes_nothing() {
    run(async {
        let bounded = Bounded::start("rules", &[]).await;
        let env = &bounded.env;
        bounded.tag_api().await;
        let mark = env.mark().await;
        env.create_domain("d", json!({})).await;
        bounded.not_permitted("d", "no rule for this namespace").await;
        let never = env.domains().get("d").await.unwrap();
        assert_eq!(
            (never.metadata.finalizers, never.metadata.annotations),
            (None, None)
        );
        env.delete_domain("d").await;
        env.create_domain("d", json!({})).await;
        bounded.not_permitted("d", "no rule for this namespace").await;
        assert_eq!(
            bounded.operations(mark).await,
            BTreeSet::new(),
            "the operator did not call AWS"
        );

        bounded.rules(&json!([bounded.rule(json!({}))]));
        env.ready("d").await;
        env.create_certificate("client", "d").await;
        env.certificate_ready("client").await;
        let client = env.identity("client").await;

        // The rule allows another name only.
        let other = format!("other.{}", env.prepared.zone);
        bounded.rules(&json!([bounded.rule(json!({"domainSuffixes": [other]}))]));
        let told = bounded.not_permitted("d", "spec.domainName").await;
        assert!(told.contains(&env.host()) && !told.contains(&other), "{told}");
        let mapping = env.mapping_id("").await;
        env.gateway()
            .delete_api_mapping()
            .domain_name(env.host())
            .api_mapping_id(mapping)
            .send()
            .await
            .unwrap();
        bounded.meanwhile(&other).await;
        assert_eq!(env.mapped().await, [], "no drift is corrected");
        assert_eq!(env.gateway_domains().await, [env.host()], "nothing is deleted");
        assert_ne!(
            env.call(&env.host(), "/", Some(&client)).await.status,
            0,
            "callers still get in"
        );

        // The operator does not delete either as long as no rule fits the object.
        env.domains().delete("d", &DeleteParams::default()).await.unwrap();
        let told = bounded.not_permitted("d", "mtls-operator.io/abandon: d").await;
        assert!(
            told.contains("nothing is deleted in AWS") && told.contains("for a rule that it fits"),
            "{told}"
        );
        bounded.meanwhile(&other).await;
        assert_eq!(env.gateway_domains().await, [env.host()]);
        assert!(env.record(aws_sdk_route53::types::RrType::A).await.is_some());
        assert_eq!(env.object_versions().await.len(), 1);

        // Deletion does not change APIs: the missing tag does not stop it.
        bounded.untag_api().await;
        bounded.rules(&json!([bounded.rule(json!({}))]));
        env.domain_gone("d").await;
        assert_eq!(
            (env.gateway_domains().await, env.object_versions().await),
            (vec![], vec![])
        );
    });
}

#[test]
fn an_object_that_the_policy_no_longer_allows_can_be_abandoned() {
    run(async {
        let bounded = Bounded::start_waking("abandonunfit").await;
        let env = &bounded.env;
        bounded.tag_api().await;
        bounded.rules(&json!([bounded.rule(json!({}))]));
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        bounded.rules(&json!([]));
        bounded.not_permitted("d", "no rule for this namespace").await;
        env.domains().delete("d", &DeleteParams::default()).await.unwrap();
        bounded.not_permitted("d", "mtls-operator.io/abandon: d").await;
        let mark = env.mark().await;
        let patch = Patch::Merge(json!({"metadata": {"annotations": {"mtls-operator.io/abandon": "d"}}}));
        env.domains()
            .patch("d", &PatchParams::default(), &patch)
            .await
            .unwrap();
        env.domain_gone("d").await;
        assert_eq!(bounded.operations(mark).await, BTreeSet::new());
        assert_eq!(env.gateway_domains().await, [env.host()]);
    });
}

#[test]
fn an_object_that_the_policy_denies_a_name_has_no_claim_on_it() {
    run(async {
        let bounded = Bounded::start("squatter", &["other"]).await;
        let env = &bounded.env;
        bounded.tag_api().await;
        let others: Api<MtlsDomain> = Api::namespaced(env.client.clone(), &env.beside("other"));
        let nothing =
            json!({"name": "other", "namespaces": {"names": [env.beside("other")]}, "domainSuffixes": []});
        bounded.rules(&json!([nothing]));
        // The other namespace is first.
        let squatter = json!({
            "apiVersion": "mtls-operator.io/v1alpha1", "kind": "MtlsDomain", "metadata": {"name": "squatter"},
            "spec": {"domainName": env.host()},
        });
        others
            .create(&Default::default(), &serde_json::from_value(squatter).unwrap())
            .await
            .unwrap();
        let born = eventually("the squatter is refused", async || {
            let MtlsDomain { status, metadata, .. } = others.get("squatter").await.unwrap();
            let conditions = status.unwrap_or_default().conditions;
            let refused = conditions
                .iter()
                .any(|c| c.type_ == "Accepted" && c.reason == "NotPermitted");
            if refused {
                Ok(metadata.creation_timestamp.unwrap().0)
            } else {
                Err(format!("{conditions:?}"))
            }
        })
        .await;
        // The API server keeps creation times in whole seconds.
        eventually("the next second", async || {
            match Timestamp::now().as_second() > born.as_second() {
                true => Ok(()),
                false => Err(born.to_string()),
            }
        })
        .await;
        let own = bounded.rule(json!({}));
        bounded.rules(&json!([nothing, own]));
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        assert_eq!(
            env.gateway_domain().await.tags.unwrap().get(OWNER_TAG),
            Some(&env.owner("d"))
        );

        // Once both may have the name, the older object has the claim.
        let everything = json!({"name": "other", "namespaces": {"names": [env.beside("other")]}});
        bounded.rules(&json!([everything, own]));
        let claimed = env
            .condition("d", "Accepted", |c| c.reason == "DomainNameClaimed")
            .await;
        assert!(!claimed.message.contains("squatter"), "{}", claimed.message);
        bounded.rules(&json!([nothing, own]));
        env.ready("d").await;
    });
}

/// The process names the fault of its file before it does anything else.
#[test]
fn a_malformed_policy_file_ends_the_start() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(file(&dir), "rules:\n- name: a\n  namespaces: {}\n  bucket: [x]\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mtls-operator"));
    let out = command
        .arg("--policy")
        .arg(file(&dir))
        .env("KUBECONFIG", "/nonexistent")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(
        !out.status.success() && said.contains("unknown field") && said.contains("bucket"),
        "{said}"
    );
}
