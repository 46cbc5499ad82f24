//! The operator waits while the Kubernetes API fails, or continues with the rest, and writes nothing to AWS
//! while another process might be the leader.
use http::{Method, StatusCode};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use sandbox::{
    api_proxy::{ProxyAction, Rule},
    control::Calls,
};
use serde_json::json;

use crate::support::{
    aws::truststores::{holds, truststore},
    kubernetes::{
        objects::{
            CERTIFICATE, DOMAIN, ask_for_renewal, certificate_spec, change, condition, create, delete,
            domain_spec, generated, get, issued, ready_domain, self_signed, until,
        },
        secrets::{create_secret, damage, text},
    },
    partner_ca::Ca,
    test_env::{TestEnv, through_proxy},
    world::{eventually, run},
};

async fn renew_time(env: &TestEnv) -> f64 {
    let leases = Api::<Lease>::namespaced(env.client.clone(), &env.namespace);
    let lease = leases.get("mtls-operator").await.expect("the Lease");
    let at = lease
        .spec
        .and_then(|spec| spec.renew_time)
        .expect("the Lease was renewed");
    at.0.as_millisecond() as f64 / 1000.0
}

#[test]
fn an_operator_without_an_api_server_writes_nothing_that_another_leader_could_write() {
    run(async {
        let (mut env, proxy) = through_proxy("gone").await;
        ready_domain(&env).await;
        let mark = env.mark().await;
        proxy.down();
        // Another writer keeps deleting the mapping, until the operator ends because it may no longer be the
        // leader.
        eventually("the operator ends", async || {
            let mapped = env
                .gateway()
                .get_api_mappings()
                .domain_name(env.host())
                .send()
                .await
                .expect("mappings");
            for id in mapped.items().iter().filter_map(|m| m.api_mapping_id()) {
                let request = env
                    .gateway()
                    .delete_api_mapping()
                    .domain_name(env.host())
                    .api_mapping_id(id);
                let _ = request.send().await;
            }
            let process = env.operator.process().expect("the operator was started");
            match process.ended().expect("its state") {
                Some(status) if !status.success() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        let last = renew_time(&env).await;
        let which = Calls {
            account: &env.account.id,
            since: mark,
            operation: "CreateApiMapping",
            ..Calls::default()
        };
        let corrections = env.control().calls(&which).await.expect("the journal").calls;
        // Another process takes a Lease that has not been renewed for 12 s. Calls under way end before that.
        for correction in corrections {
            assert!(
                correction.time + correction.duration_ms / 1000.0 < last + 12.0,
                "{correction:?}, last renewed {last}"
            );
        }
        proxy.up();
        env.operator.restart().expect("the operator starts");
        eventually("the mapping is back", async || match env.mapped().await.len() {
            1 => Ok(()),
            count => Err(format!("{count} mappings")),
        })
        .await;
    });
}

#[test]
fn an_expired_watch_is_restarted_and_misses_nothing() {
    run(async {
        let (env, proxy) = through_proxy("expired").await;
        ready_domain(&env).await;
        let gone = ProxyAction::Refuse(StatusCode::GONE, "Expired");
        let rule = proxy.add(Rule {
            times: 12,
            ..Rule::of(Some(Method::GET), "watch=true", gone)
        });
        proxy.cut();
        let partner = Ca::new("partner");
        let spec = get(&env, DOMAIN, "partners").await["spec"].clone();
        let mut authorities = spec["trust"]["authorities"].as_array().expect("a list").clone();
        authorities.push(json!({"name": "partner", "pem": partner.pem}));
        change(
            &env,
            DOMAIN,
            "partners",
            json!({"trust": {"issuingAuthority": "ca", "authorities": authorities}}),
        )
        .await;
        create(&env, CERTIFICATE, "client1", certificate_spec("client1")).await;
        until(&env, CERTIFICATE, "client1", "Ready", "True", "").await;
        until(&env, DOMAIN, "partners", "Ready", "True", "").await;
        assert!(holds(&truststore(&env).await.1, &partner.pem));
        eventually("every refusal was used", async || {
            match proxy.fared(rule).expect("there") {
                fared if fared.fired == 12 => Ok(()),
                fared => Err(format!("{fared:?}")),
            }
        })
        .await;
        delete(&env, CERTIFICATE, "client1").await;
        eventually("a deletion is heard of", async || {
            match env
                .secrets()
                .get_opt("client1")
                .await
                .map_err(|e| e.to_string())?
            {
                None => Ok(()),
                Some(_) => Err("the Secret is there".to_owned()),
            }
        })
        .await;
        env.delete_domain("partners").await;
    });
}

#[test]
fn rejected_status_writes_stop_no_work_and_create_nothing_twice() {
    run(async {
        let (env, proxy) = through_proxy("conflict").await;
        let conflict = ProxyAction::Refuse(StatusCode::CONFLICT, "Conflict");
        let rule = proxy.add(Rule {
            times: 12,
            ..Rule::of(Some(Method::PATCH), "/status?", conflict)
        });
        let mark = env.mark().await;
        create(&env, DOMAIN, "partners", domain_spec(&env, generated())).await;
        eventually("the work goes on", async || {
            let fared = proxy.fared(rule).expect("there");
            let requested = !env.server_certificates().await.is_empty();
            if requested && fared.fired > 2 {
                Ok(())
            } else {
                Err(format!("{fared:?}, requested: {requested}"))
            }
        })
        .await;
        create(&env, CERTIFICATE, "client1", certificate_spec("client1")).await;
        let (_, first) = issued(&env, "client1", 1).await;
        until(&env, DOMAIN, "partners", "Ready", "True", "").await;
        until(&env, CERTIFICATE, "client1", "Ready", "True", "").await;
        let fared = proxy.fared(rule).expect("there");
        assert_eq!(fared.fired, 12, "every conflict was met");
        let (object, last) = issued(&env, "client1", 1).await;
        assert_eq!(
            (object["status"]["revision"].as_i64(), text(&last, "tls.crt")),
            (Some(1), text(&first, "tls.crt"))
        );
        let writes = env.writes(mark).await;
        let mut once = writes.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), writes.len(), "{writes:?}");
    });
}

#[test]
fn an_unreadable_object_stops_no_other_and_keeps_its_trust() {
    run(async {
        let (mut env, proxy) = through_proxy("unreadable").await;
        ready_domain(&env).await;
        create(&env, CERTIFICATE, "self1", self_signed("bad-self1")).await;
        until(&env, CERTIFICATE, "self1", "Ready", "True", "").await;
        env.reconciles(1).await;
        let before = truststore(&env).await;
        // As if the object had been written under another schema.
        let from = "\"subject\":{\"commonName\":\"bad";
        let to = from.replace("{\"commonName\"", "[],\"subjects\":{\"commonName\"");
        let _ = proxy.add(Rule::of(
            Some(Method::GET),
            "/clientcertificates*",
            ProxyAction::Replace(from.into(), to),
        ));
        let _ = proxy.add(Rule::of(
            Some(Method::GET),
            "/mtlsdomains*",
            ProxyAction::Replace(
                "\"domainName\":\"bad.".into(),
                "\"domainName\":7,\"was\":\"bad.".into(),
            ),
        ));
        env.operator.stop().await.expect("the operator stops");
        env.operator.restart().expect("the operator starts");
        create(&env, CERTIFICATE, "bad1", certificate_spec("bad1")).await;
        let mut bad = domain_spec(&env, generated());
        bad["domainName"] = json!(format!("bad.{}", env.prepared.zone));
        create(&env, DOMAIN, "bad", bad).await;
        create(&env, CERTIFICATE, "client1", certificate_spec("client1")).await;
        until(&env, CERTIFICATE, "client1", "Ready", "True", "").await;
        change(&env, DOMAIN, "partners", json!({"ipAddressType": "DualStack"})).await;
        until(&env, DOMAIN, "partners", "Ready", "True", "").await;
        env.reconciles(2).await;
        assert_eq!(
            truststore(&env).await,
            before,
            "an unreadable object keeps its trust"
        );
        for (kind, name) in [(DOMAIN, "bad"), (CERTIFICATE, "bad1")] {
            assert_eq!(
                get(&env, kind, name).await["status"],
                json!({"observedGeneration": -1}),
                "{kind} {name}"
            );
        }
        assert_eq!(env.gateway_domains().await, [env.host()]);
    });
}

#[test]
fn a_secret_of_a_megabyte_is_read_and_a_malformed_one_is_named() {
    run(async {
        let env = TestEnv::start("huge").await;
        let partner = Ca::new("partner");
        // The API server accepts a little over a megabyte in a Secret.
        let filler = "x".repeat(1_000_000);
        create_secret(&env, "big", &[("ca.crt", &partner.pem), ("filler", &filler)]).await;
        let rubbish = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".repeat(16_000);
        create_secret(&env, "rubbish", &[("ca.crt", &rubbish)]).await;
        let trust = json!({"issuingAuthority": "ca", "authorities": [
            {"name": "ca", "generate": {}},
            {"name": "big", "secretRef": {"name": "big"}},
            {"name": "rubbish", "secretRef": {"name": "rubbish"}},
        ]});
        create(&env, DOMAIN, "partners", domain_spec(&env, trust)).await;
        let refs = until(
            &env,
            DOMAIN,
            "partners",
            "ResolvedRefs",
            "False",
            "InvalidCACertificateRef",
        )
        .await;
        let message = condition(&refs, "ResolvedRefs").expect("there")["message"].to_string();
        assert!(
            message.contains("authority rubbish") && message.len() < 4096,
            "{message}"
        );
        until(&env, DOMAIN, "partners", "DomainProgrammed", "True", "").await;
        assert!(holds(&truststore(&env).await.1, &partner.pem));
        damage(&env, "rubbish", &[("ca.crt", &partner.pem)]).await;
        until(&env, DOMAIN, "partners", "Ready", "True", "").await;
        // A Secret that is too large for whole-file mounts is no obstacle for a ClientCertificate either: its
        // own Secret keeps the keys of other writers.
        create(&env, CERTIFICATE, "client1", certificate_spec("client1")).await;
        let (_, secret) = issued(&env, "client1", 1).await;
        damage(&env, "client1", &[("filler", &filler)]).await;
        ask_for_renewal(&env, "client1", "1").await;
        let (_, renewed) = issued(&env, "client1", 2).await;
        assert_ne!(text(&renewed, "tls.crt"), text(&secret, "tls.crt"));
        assert_eq!(text(&renewed, "filler").len(), filler.len());
    });
}
