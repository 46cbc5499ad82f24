//! Records stay untouched when Route 53 and a registrar take over from each other, and while no resolver
//! answers.
use std::{net::SocketAddr, sync::Arc};

use aws_sdk_route53::types::{ChangeAction, RrType};
use mtls_operator::api::DnsRecord;
use serde_json::json;
use tokio::{net::UdpSocket, task::JoinHandle};

use crate::support::{
    aws::{
        existing_resources::record,
        registrar::{Registrar, entrance, listed, nearly, validation},
    },
    test_env::TestEnv,
    world::{run, world},
};

/// Forwards questions to the DNS server of the world, until it is stopped.
struct Forwarder {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Forwarder {
    async fn start(at: &str) -> Forwarder {
        let socket = Arc::new(UdpSocket::bind(at).await.unwrap());
        let (address, server) = (socket.local_addr().unwrap(), world().dns.address());
        let task = tokio::spawn(async move {
            let mut packet = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut packet).await {
                let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                upstream.send_to(&packet[..length], server).await.unwrap();
                let length = upstream.recv(&mut packet).await.unwrap();
                socket.send_to(&packet[..length], from).await.unwrap();
            }
        });
        Forwarder { address, task }
    }

    async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

#[test]
fn a_resolver_that_does_not_answer_changes_nothing() {
    run(async {
        let resolver = Forwarder::start("127.0.0.1:0").await;
        let at = resolver.address.to_string();
        let env = TestEnv::start_with("resolver", &[("MTLS_OPERATOR_DNS_RESOLVER", &at)]).await;
        let registrar = Registrar::of(&env).await;
        resolver.stop().await;

        let record = nearly(&env, &registrar, json!({"dns": {"external": {}}})).await;
        let unanswered =
            |c: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| c.reason == "Unreachable";
        let named = env.condition("d", "DNSProgrammed", unanswered).await;
        assert_eq!(named.status, "Unknown");
        assert!(named.message.contains(&env.host()), "{}", named.message);
        registrar.create(&record).await;
        env.reconciles(1).await;
        assert!(
            !env.endpoint_closed().await,
            "without an answer the operator does not close the only way in"
        );

        let resolver = Forwarder::start(&at).await;
        env.ready("d").await;
        resolver.stop().await;
        env.condition("d", "DNSProgrammed", unanswered).await;
        env.condition("d", "Ready", |c| c.status == "True").await;
        assert_eq!(entrance(&env, "d", &env.host()).await, record);
        let _resolver = Forwarder::start(&at).await;
        env.condition("d", "DNSProgrammed", |c| c.status == "True").await;
    });
}

#[test]
fn records_handed_over_and_back_are_not_touched() {
    run(async {
        let env = TestEnv::start("handover").await;
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        assert_eq!(listed(&env, "d").await, []);
        let (records, mark) = (env.records().await, env.mark().await);

        env.change("d", json!({"dns": {"external": {}}})).await;
        env.ready("d").await;
        let named = env.condition("d", "DNSProgrammed", |c| c.status == "True").await;
        assert_eq!(
            named.reason, "Verified",
            "the operator's alias still leads callers here"
        );
        assert_eq!(listed(&env, "d").await.len(), 2);
        env.change("d", json!({"dns": {"external": null, "route53": {}}}))
            .await;
        env.ready("d").await;
        let named = env.condition("d", "DNSProgrammed", |c| c.status == "True").await;
        assert_eq!(named.reason, "Programmed");
        assert_eq!(listed(&env, "d").await, []);

        env.change("d", json!({"dns": {"external": {}, "route53": null}}))
            .await;
        env.ready("d").await;
        env.delete_domain("d").await;
        assert_eq!(env.records().await, records);
        let writes = env.writes(mark).await;
        assert!(
            !writes.iter().any(|w| w.contains("ResourceRecordSets")),
            "{writes:?}"
        );
    });
}

#[test]
fn records_made_by_hand_are_accepted_by_a_switch_to_route_53() {
    run(async {
        let env = TestEnv::start("takeback").await;
        env.create_domain("d", json!({"dns": {"external": {}}})).await;
        let create = async |r: &DnsRecord| {
            env.change_record(ChangeAction::Create, record(&r.name, RrType::Cname, &r.value))
                .await
        };
        create(&validation(&env, "d", 1).await[0]).await;
        create(&entrance(&env, "d", &env.host()).await).await;
        env.ready("d").await;
        let (records, mark) = (env.records().await, env.mark().await);
        env.change(
            "d",
            json!({"dns": {"external": null, "route53": {}}, "ipAddressType": "DualStack"}),
        )
        .await;
        env.ready("d").await;
        env.delete_domain("d").await;
        assert_eq!(
            env.records().await,
            records,
            "the operator does not delete the user's records"
        );
        let writes = env.writes(mark).await;
        assert!(
            !writes.iter().any(|w| w.contains("ResourceRecordSets")),
            "{writes:?}"
        );

        // Without a record there, the operator makes its own.
        let theirs = env.record(RrType::Cname).await.unwrap();
        env.change_record(ChangeAction::Delete, theirs).await;
        env.create_domain("e", json!({"dns": {"external": {"verify": "None"}}}))
            .await;
        env.ready("e").await;
        env.change("e", json!({"dns": {"external": null, "route53": {}}}))
            .await;
        env.ready("e").await;
        assert!(env.record(RrType::A).await.unwrap().alias_target.is_some());
        env.delete_domain("e").await;
        assert_eq!(env.records().await.len(), 1, "the validation record");
    });
}
