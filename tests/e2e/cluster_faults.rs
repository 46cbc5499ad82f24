//! Faults of the Kubernetes API: unreachable for a while, expired watches, conflicts, objects that cannot be
//! read, huge Secrets, deletions that the operator did not see, a restored cluster. The operator waits, or
//! continues with the rest. Trust never shrinks because the operator could not see a resource, and the
//! operator writes nothing to AWS while another process might be the leader.
use http::{Method, StatusCode};
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Namespace, Secret},
};
use kube::{Api, api::ObjectMeta};
use mtls_operator::api::MtlsDomain;
use sandbox::{
    api_proxy::{ApiProxy, ProxyAction, Rule},
    control::Calls,
    operator::grant,
};
use serde_json::json;

use crate::support::{
    aws::truststores::{holds, truststore},
    edge_calls::Caller,
    kubernetes::{
        objects::{
            CERTIFICATE, DOMAIN, api, ask_for_renewal, certificate_spec, change, condition, create, delete,
            domain_spec, generated, get, issued, ready_domain, says, self_signed, taken_out, until,
            with_self_signed,
        },
        secrets::{create_secret, damage, text},
        teams::{GRANT, Team, asking, granting},
    },
    partner_ca::Ca,
    test_env::{TestEnv, through_proxy, through_proxy_with},
    world::{eventually, run, world},
};

const CERTIFICATES: &str = "/clientcertificates?";

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
fn while_the_api_server_is_gone_nothing_is_written_to_aws_that_another_leader_could_write() {
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
fn a_watch_that_expires_is_begun_again_and_misses_nothing() {
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
fn while_no_status_can_be_written_the_work_goes_on_and_nothing_is_made_twice() {
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
fn an_object_that_cannot_be_read_stops_no_other_and_keeps_its_trust() {
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
fn a_secret_of_a_megabyte_is_read_and_one_full_of_rubbish_is_named() {
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

#[test]
fn an_object_deleted_while_the_operator_is_down_is_cleaned_up_later() {
    run(async {
        let mut env = TestEnv::start("unwatched").await;
        with_self_signed(&env).await;
        env.operator.kill();
        env.end_lease().await;
        delete(&env, CERTIFICATE, "self1").await;
        delete(&env, DOMAIN, "partners").await;
        // An object that is gone by the time of its reconcile.
        eventually("the certificate is gone", async || {
            match api(&env, CERTIFICATE)
                .get_opt("self1")
                .await
                .map_err(|e| e.to_string())?
            {
                None => Ok(()),
                Some(_) => Err("there".to_owned()),
            }
        })
        .await;
        env.operator.restart().expect("the operator starts");
        env.domain_gone("partners").await;
        eventually("nothing is left", async || {
            let left = (
                env.gateway_domains().await,
                env.server_certificates().await,
                env.object_versions().await,
            );
            let secrets = env
                .secrets()
                .list(&Default::default())
                .await
                .map_err(|e| e.to_string())?
                .items
                .len();
            if left == (vec![], vec![], vec![]) && secrets == 0 {
                Ok(())
            } else {
                Err(format!("{left:?} {secrets}"))
            }
        })
        .await;
    });
}

#[test]
fn a_deleted_namespace_takes_everything_in_aws_with_it() {
    run(async {
        let env = TestEnv::start_among("nsgone", &["tenant"], &[]).await;
        // Rights that a Role in the namespace gives would be deleted before the objects are.
        grant(&world().kubernetes, &env.namespace, &[])
            .await
            .expect("rights in all namespaces");
        let tenant = env.beside("tenant");
        let domains = Api::<MtlsDomain>::namespaced(env.client.clone(), &tenant);
        let object = json!({
            "apiVersion": "mtls-operator.io/v1alpha1", "kind": DOMAIN, "metadata": {"name": "partners"},
            "spec": domain_spec(&env, generated()),
        });
        let object = serde_json::from_value(object).expect("an MtlsDomain");
        domains
            .create(&Default::default(), &object)
            .await
            .expect("the API server takes it");
        let there = Team::admin(&env, &tenant);
        there.request("client1", certificate_spec("client1")).await;
        there.ready("client1").await;
        eventually("Ready", async || {
            let object = serde_json::to_value(domains.get("partners").await.map_err(|e| e.to_string())?)
                .expect("JSON");
            if says(&object, "Ready") == "True" {
                Ok(())
            } else {
                Err(object["status"].to_string())
            }
        })
        .await;
        let namespaces = Api::<Namespace>::all(env.client.clone());
        namespaces
            .delete(&tenant, &Default::default())
            .await
            .expect("deleted");
        eventually("the namespace is gone", async || {
            match namespaces.get_opt(&tenant).await.map_err(|e| e.to_string())? {
                None => Ok(()),
                Some(left) => Err(serde_json::to_string(&left.status).expect("JSON")),
            }
        })
        .await;
        let left = (
            env.gateway_domains().await,
            env.server_certificates().await,
            env.object_versions().await,
        );
        assert_eq!(left, (vec![], vec![], vec![]));
    });
}

#[test]
fn a_restore_without_secrets_says_that_the_key_is_lost_and_goes_on_serving() {
    run(async {
        let mut env = TestEnv::start("nosecrets").await;
        ready_domain(&env).await;
        create(&env, CERTIFICATE, "client1", certificate_spec("client1")).await;
        let (_, secret) = issued(&env, "client1", 1).await;
        let living = Caller::of(&secret);
        let before = truststore(&env).await;
        env.operator.kill();
        env.end_lease().await;
        let mark = env.mark().await;
        let mut saved = vec![];
        for (kind, name) in [(DOMAIN, "partners"), (CERTIFICATE, "client1")] {
            saved.push((kind, taken_out(&env, kind, name).await));
        }
        let mut backup: Vec<Secret> = vec![];
        for secret in ["partners.ca-ca", "client1"] {
            let mut found = env.secrets().get(secret).await.expect("there");
            let metadata = std::mem::take(&mut found.metadata);
            found.metadata = ObjectMeta {
                name: metadata.name,
                labels: metadata.labels,
                ..Default::default()
            };
            backup.push(found);
            env.secrets()
                .delete(secret, &Default::default())
                .await
                .expect("deleted");
        }
        for (kind, object) in saved {
            api(&env, kind)
                .create(&Default::default(), &object)
                .await
                .expect("restored");
        }
        env.operator.restart().expect("the operator starts");
        until(
            &env,
            DOMAIN,
            "partners",
            "ResolvedRefs",
            "False",
            "AuthorityKeyLost",
        )
        .await;
        until(
            &env,
            CERTIFICATE,
            "client1",
            "Ready",
            "Unknown",
            "WaitingForAuthority",
        )
        .await;
        env.reconciles(2).await;
        assert!(
            env.secrets()
                .get_opt("partners.ca-ca")
                .await
                .expect("an answer")
                .is_none(),
            "none is created again"
        );
        assert_eq!(truststore(&env).await, before);
        assert_eq!(env.writes(mark).await, [""; 0]);
        assert_eq!(living.calls(&env).await, "200", "callers go on being served");
        // The rest of the backup is restored later.
        for secret in &backup {
            env.secrets()
                .create(&Default::default(), secret)
                .await
                .expect("restored");
        }
        until(&env, DOMAIN, "partners", "Ready", "True", "").await;
        until(&env, CERTIFICATE, "client1", "Ready", "True", "").await;
        assert_eq!(truststore(&env).await, before);
        assert_eq!(env.writes(mark).await, [""; 0]);
    });
}

#[test]
fn as_long_as_the_certificates_are_not_listed_nothing_is_taken_out_of_the_truststore() {
    run(async {
        let (mut env, proxy) = through_proxy("unlisted").await;
        with_self_signed(&env).await;
        let before = truststore(&env).await;
        for (what, act) in [
            (
                "fails",
                ProxyAction::Refuse(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
            ),
            (
                "is forbidden",
                ProxyAction::Refuse(StatusCode::FORBIDDEN, "Forbidden"),
            ),
            ("takes its time", ProxyAction::Hold),
        ] {
            env.operator.stop().await.expect("the operator stops");
            let rule = proxy.add(Rule::of(Some(Method::GET), CERTIFICATES, act));
            let mark = env.mark().await;
            env.operator.restart().expect("the operator starts");
            eventually(&format!("the list {what}"), async || {
                match proxy.fared(rule).expect("there") {
                    fared if fared.fired > 1 || fared.held > 0 => Ok(()),
                    fared => Err(format!("{fared:?}")),
                }
            })
            .await;
            // The operator leads by now, and hears of a change.
            led(&env, &proxy).await;
            let nothing = Calls {
                account: &env.account.id,
                since: mark,
                service: "s3",
                ..Calls::default()
            };
            assert!(
                env.control()
                    .calls(&nothing)
                    .await
                    .expect("the journal")
                    .calls
                    .iter()
                    .all(|c| !c.write),
                "{what}"
            );
            proxy.remove(rule);
            env.reconciles(2).await;
            assert_eq!(truststore(&env).await, before, "{what}");
            assert_eq!(env.writes(mark).await, [""; 0], "{what}");
        }
    });
}

/// Waits until the operator has the Lease, and has listed the domains.
async fn led(env: &TestEnv, proxy: &ApiProxy) {
    eventually("the operator leads", async || {
        let leases = Api::<Lease>::namespaced(env.client.clone(), &env.namespace);
        let lease = leases.get("mtls-operator").await.map_err(|e| e.to_string())?;
        let holder = lease
            .spec
            .and_then(|spec| spec.holder_identity)
            .unwrap_or_default();
        let domains = proxy
            .seen()
            .iter()
            .filter(|seen| seen.path.ends_with("/mtlsdomains"))
            .count();
        if !holder.is_empty() && domains > 0 {
            Ok(())
        } else {
            Err(format!("{holder:?}, {domains} lists"))
        }
    })
    .await;
}

#[test]
fn a_namespace_that_is_not_watched_any_more_takes_nothing_out_of_the_truststore() {
    run(async {
        let env = TestEnv::start_among("narrowed", &["acme"], &[]).await;
        let (mut env, _proxy) = through_proxy_with(env).await;
        with_self_signed(&env).await;
        let acme = Team::admin(&env, &env.beside("acme"));
        create(
            &env,
            GRANT,
            "acme",
            granting(&acme.namespace, json!({"issuance": "SelfSigned"})),
        )
        .await;
        acme.request(
            "client",
            asking(&env, "acme-1", json!({"issuance": "SelfSigned"})),
        )
        .await;
        acme.ready("client").await;
        until(&env, DOMAIN, "partners", "Ready", "True", "").await;
        let theirs = text(&acme.secrets().get("client").await.expect("there"), "tls.crt");
        let before = truststore(&env).await;
        assert!(holds(&before.1, &theirs));

        env.operator.stop().await.expect("the operator stops");
        let own = env.namespace.clone();
        env.operator.set_env("MTLS_OPERATOR_WATCH_NAMESPACE", &own);
        let mark = env.mark().await;
        env.operator.restart().expect("the operator starts");
        env.reconciles(2).await;
        assert_eq!(truststore(&env).await, before);
        assert_eq!(env.writes(mark).await, [""; 0]);
        // Trust that is not in doubt keeps changing, and keeps the certificates of the unwatched namespace.
        create(&env, CERTIFICATE, "self2", self_signed("self2")).await;
        until(&env, CERTIFICATE, "self2", "Ready", "True", "").await;
        assert!(holds(&truststore(&env).await.1, &theirs));

        // With the namespace watched again, the certificate leaves as soon as its object does.
        env.operator.stop().await.expect("the operator stops");
        let both = format!("{own},{}", acme.namespace);
        env.operator.set_env("MTLS_OPERATOR_WATCH_NAMESPACE", &both);
        env.operator.restart().expect("the operator starts");
        acme.api(CERTIFICATE)
            .delete("client", &Default::default())
            .await
            .expect("deleted");
        eventually("the certificate is out of the truststore", async || {
            match holds(&truststore(&env).await.1, &theirs) {
                false => Ok(()),
                true => Err("the certificate is trusted".to_owned()),
            }
        })
        .await;
    });
}
