//! A certificate of another namespace needs a grant, is bounded by it, and stops with it.
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use sandbox::{operator::grant_namespaces, process::free_port};
use serde_json::{Value, json};

use crate::support::{
    aws::truststores::{holds, truststore},
    edge_calls::Caller,
    kubernetes::{
        objects::{
            CERTIFICATE, DOMAIN, change, condition, create, delete, ready_domain, says, until, until_object,
        },
        recorder::{event, events_about},
        secrets::text,
        teams::{GRANT, Team, asking, granting},
    },
    test_env::TestEnv,
    world::{eventually, run, world},
};

async fn grant_says(env: &TestEnv, name: &str, certificates: u64) -> Value {
    until_object(env, GRANT, name, &format!("{certificates} certificates"), |o| {
        o["status"]["certificates"] == certificates && says(o, "Ready") == "True"
    })
    .await
}

const NO_GRANT: &str = "there is no such MtlsDomain, or no ClientGrant beside it";

#[test]
fn a_certificate_comes_with_its_grant_is_bounded_by_it_and_stops_with_it() {
    run(async {
        let env = TestEnv::start_among("grants", &["acme"], &[]).await;
        ready_domain(&env).await;
        let acme = Team::admin(&env, &env.beside("acme"));
        acme.request("client", asking(&env, "acme-1", json!({}))).await;
        acme.refused("client", NO_GRANT).await;
        assert!(acme.secrets().get_opt("client").await.unwrap().is_none());

        let end = "2026-12-31T00:00:00Z";
        let bounds = json!({"notAfter": end, "maxDuration": "8760h", "maxCertificates": 1});
        create(&env, GRANT, "acme", granting(&acme.namespace, bounds)).await;
        let object = acme.ready("client").await;
        let told = condition(&object, "Accepted").unwrap()["message"].to_string();
        assert!(told.contains("by the ClientGrant acme"), "{told}");
        assert_eq!(object["status"]["notAfter"], end, "never longer than its grant");
        let secret = acme.secrets().get("client").await.unwrap();
        let caller = Caller::of(&secret);
        assert_eq!(caller.calls(&env).await, "200");
        let grant = grant_says(&env, "acme", 1).await;
        until_object(&env, GRANT, "acme", "the latest expiry", |o| {
            o["status"]["latestExpiry"] == end
        })
        .await;
        assert_eq!(condition(&grant, "ResolvedRefs").unwrap()["status"], "True");

        // The grant has one place, and the older certificate has it.
        acme.request("second", asking(&env, "acme-2", json!({}))).await;
        acme.refused("second", "have all slots of the ClientGrant acme")
            .await;
        // Another grant covers the second certificate, and the first one once its own grant is gone.
        create(
            &env,
            GRANT,
            "more",
            granting(&acme.namespace, json!({"commonNames": ["acme-2"]})),
        )
        .await;
        acme.ready("second").await;
        change(&env, GRANT, "more", json!({"commonNames": ["acme-1", "acme-2"]})).await;
        delete(&env, GRANT, "acme").await;
        acme.until("client", "goes over", |o| {
            condition(o, "Accepted")
                .is_some_and(|c| c["message"].to_string().contains("by the ClientGrant more"))
        })
        .await;
        grant_says(&env, "more", 2).await;

        // The grant is narrowed: the operator renews no certificate outside of it, and says so. Issued
        // certificates stay.
        change(&env, GRANT, "more", json!({"commonNames": ["acme-2"]})).await;
        acme.refused(
            "client",
            "spec.subject.commonName: outside of the ClientGrant more",
        )
        .await;
        let before = acme.secrets().get("client").await.unwrap();
        acme.patch(
            "client",
            json!({"metadata": {"annotations": {"mtls-operator.io/renew": "now"}}}),
        )
        .await;
        acme.patch(
            "second",
            json!({"metadata": {"annotations": {"mtls-operator.io/renew": "now"}}}),
        )
        .await;
        acme.until("second", "renewed", |o| o["status"]["revision"] == 2)
            .await;
        acme.refused("client", "ClientGrant more").await;
        let after = acme.secrets().get("client").await.unwrap();
        assert_eq!(
            text(&before, "tls.crt"),
            text(&after, "tls.crt"),
            "nothing is renewed"
        );
        assert_eq!(
            caller.calls(&env).await,
            "200",
            "the end of a grant does not revoke"
        );

        // The grant expires: no event says so, but the operator knows the time.
        let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3);
        change(
            &env,
            GRANT,
            "more",
            json!({"notAfter": soon.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()}),
        )
        .await;
        acme.refused("second", "since it is over").await;
        grant_says(&env, "more", 0).await;

        // The grant's status says when its domain does not exist.
        create(
            &env,
            GRANT,
            "lost",
            granting(&acme.namespace, json!({"domainRef": {"name": "nowhere"}})),
        )
        .await;
        until(&env, GRANT, "lost", "Ready", "False", "RefNotFound").await;
    });
}

async fn label(env: &TestEnv, namespace: &str, value: Option<&str>) {
    let namespaces = Api::<Namespace>::all(env.client.clone());
    let patch = Patch::Merge(json!({"metadata": {"labels": {"partner": value}}}));
    namespaces
        .patch(namespace, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

#[test]
fn self_signed_certificates_leave_the_truststore_with_the_label_of_their_namespace() {
    run(async {
        let env = TestEnv::start_among(
            "grantlabels",
            &["acme"],
            &[("MTLS_OPERATOR_DRIFT_INTERVAL", "1h")],
        )
        .await;
        grant_namespaces(&world().kubernetes, &env.namespace)
            .await
            .unwrap();
        ready_domain(&env).await;
        let acme = Team::admin(&env, &env.beside("acme"));
        let by_label = json!({"issuance": "SelfSigned", "namespaces": {"matchLabels": {"partner": "yes"}}});
        create(&env, GRANT, "acme", granting("", by_label)).await;
        acme.request(
            "client",
            asking(&env, "acme-1", json!({"issuance": "SelfSigned"})),
        )
        .await;
        acme.refused("client", NO_GRANT).await;
        let matches_no_namespace = |o: &Value| {
            let ready = condition(o, "Ready");
            ready.is_some_and(|c| {
                c["message"]
                    .as_str()
                    .is_some_and(|m| m.contains("no namespace of the cluster"))
            })
        };
        until_object(&env, GRANT, "acme", "without a namespace", matches_no_namespace).await;
        label(&env, &acme.namespace, Some("yes")).await;
        acme.ready("client").await;
        until_object(&env, GRANT, "acme", "with a namespace", |o| {
            !matches_no_namespace(o)
        })
        .await;
        let caller = Caller::of(&acme.secrets().get("client").await.unwrap());
        assert_eq!(caller.calls(&env).await, "200");
        assert!(holds(&truststore(&env).await.1, &caller.crt));

        label(&env, &acme.namespace, None).await;
        acme.refused("client", NO_GRANT).await;
        eventually("the certificate is no longer accepted", async || {
            match caller.calls(&env).await.as_str() {
                "403" => Ok(()),
                other => Err(other.to_owned()),
            }
        })
        .await;
        assert!(
            acme.secrets().get_opt("client").await.unwrap().is_some(),
            "the Secret stays"
        );
        until(&env, DOMAIN, "partners", "Ready", "True", "").await;
        assert_eq!(
            acme.api(CERTIFICATE).get("client").await.unwrap().name_any(),
            "client"
        );
    });
}

#[test]
fn without_labels_a_tenant_learns_nothing_of_grants_and_the_grant_says_why() {
    run(async {
        let env = TestEnv::start_among("nolabels", &["acme"], &[]).await;
        ready_domain(&env).await;
        let acme = Team::admin(&env, &env.beside("acme"));
        let by_label =
            json!({"namespaces": {"matchLabels": {"partner": "yes"}}, "commonNames": ["secretcorp-*"]});
        create(&env, GRANT, "vip", granting("", by_label)).await;
        let told = until_object(&env, GRANT, "vip", "without labels", |o| {
            condition(o, "ResolvedRefs").is_some_and(|c| c["reason"] == "Unreachable")
        })
        .await;
        let told = condition(&told, "ResolvedRefs").unwrap()["message"].to_string();
        assert!(
            told.contains("spec.namespaces.matchLabels") && told.contains("rbac.namespaceLabels"),
            "{told}"
        );

        let nowhere = json!({"domainRef": {"name": "nowhere", "namespace": env.namespace}});
        let mut answers = Vec::new();
        for (name, common_name, more) in [
            ("admitted", "secretcorp-1", json!({})),
            ("other", "othercorp-1", json!({})),
            ("nowhere", "secretcorp-1", nowhere),
        ] {
            acme.request(name, asking(&env, common_name, more)).await;
            let told = acme.refused(name, NO_GRANT).await;
            let object = acme.api(CERTIFICATE).get(name).await.unwrap();
            let mut conditions = object.data["status"]["conditions"].clone();
            for condition in conditions.as_array_mut().unwrap() {
                condition.as_object_mut().unwrap().remove("lastTransitionTime");
            }
            answers.push((told, conditions));
        }
        assert_eq!(answers[0], answers[1], "the names that a grant for others admits");
        assert_eq!(answers[0], answers[2], "the domain");

        // With the permission the grant works, without a restart.
        grant_namespaces(&world().kubernetes, &env.namespace)
            .await
            .unwrap();
        grant_says(&env, "vip", 0).await;
        label(&env, &acme.namespace, Some("yes")).await;
        acme.ready("admitted").await;
        acme.refused("other", "outside of the ClientGrant vip").await;
        grant_says(&env, "vip", 1).await;
    });
}

/// Returns the number of reconciles of ClientCertificates so far.
async fn reconciles(listen: &str) -> u64 {
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let answer = http
        .get(format!("http://{listen}/metrics"))
        .send()
        .await
        .expect("metrics");
    let text = answer.text().await.expect("metrics");
    let series = text.lines().filter(|line| {
        line.starts_with(r#"controller_runtime_reconcile_total{controller="clientcertificate""#)
    });
    series
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().expect("a number"))
        .sum()
}

#[test]
fn an_edit_of_a_grant_reconciles_the_certificates_that_it_concerns_and_no_others() {
    run(async {
        // reqwest brings no crypto provider: the first caller installs it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listen = format!("127.0.0.1:{}", free_port().expect("a port"));
        let env = TestEnv::start_among(
            "wakes",
            &["acme", "zeta"],
            &[
                ("MTLS_OPERATOR_LISTEN", &listen),
                ("MTLS_OPERATOR_DRIFT_INTERVAL", "1h"),
            ],
        )
        .await;
        ready_domain(&env).await;
        let (acme, zeta) = (
            Team::admin(&env, &env.beside("acme")),
            Team::admin(&env, &env.beside("zeta")),
        );
        let slots = json!({"maxCertificates": 50});
        create(&env, GRANT, "acme", granting(&acme.namespace, slots)).await;
        let names = json!({"commonNames": ["zeta-*"]});
        create(&env, GRANT, "zeta", granting(&zeta.namespace, names.clone())).await;
        for n in 0..30 {
            acme.request(&format!("c{n}"), asking(&env, &format!("acme-{n}"), json!({})))
                .await;
        }
        for n in 0..2 {
            zeta.request(&format!("c{n}"), asking(&env, &format!("zeta-{n}"), json!({})))
                .await;
        }
        for n in 0..30 {
            acme.ready(&format!("c{n}")).await;
        }
        zeta.ready("c0").await;
        zeta.ready("c1").await;
        grant_says(&env, "acme", 30).await;
        grant_says(&env, "zeta", 2).await;

        let before = reconciles(&listen).await;
        for _ in 0..3 {
            change(&env, GRANT, "zeta", json!({"commonNames": ["zeta-0"]})).await;
            zeta.refused("c1", "spec.subject.commonName: outside of the ClientGrant zeta")
                .await;
            grant_says(&env, "zeta", 1).await;
            change(&env, GRANT, "zeta", names.clone()).await;
            zeta.ready("c1").await;
            grant_says(&env, "zeta", 2).await;
        }
        let those = reconciles(&listen).await - before;
        // Two certificates and six edits; a status write may cause another reconcile.
        assert!((6..60).contains(&those), "{those} reconciles");
        grant_says(&env, "acme", 30).await;
    });
}

#[test]
fn a_grant_without_its_domain_says_so_once_and_again_when_the_domain_is_there() {
    run(async {
        let env = TestEnv::start("grantevents").await;
        let unready = |o: &Value| condition(o, "Ready").is_some_and(|c| c["reason"] == "RefNotFound");
        create(&env, GRANT, "early", granting("acme", json!({}))).await;
        until_object(&env, GRANT, "early", "no domain", unready).await;
        let note = event(&env, "early", "RefNotFound").await;
        assert!(note.contains("no MtlsDomain partners"), "{note}");
        // A change without an effect causes no second Event.
        change(&env, GRANT, "early", json!({"maxCertificates": 3})).await;
        until_object(&env, GRANT, "early", "reconciled again", |o| {
            o["status"]["observedGeneration"] == 2
        })
        .await;
        assert_eq!(events_about(&env, "early").await, ["RefNotFound"]);

        ready_domain(&env).await;
        grant_says(&env, "early", 0).await;
        event(&env, "early", "Ready").await;
        create(&env, GRANT, "late", granting("acme", json!({}))).await;
        grant_says(&env, "late", 0).await;
        let mut told = events_about(&env, "early").await;
        told.sort();
        assert_eq!(told, ["Ready", "RefNotFound"]);
        assert_eq!(events_about(&env, "late").await, [""; 0], "no problem, no Event");
    });
}
