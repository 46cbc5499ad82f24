//! Tests of `records`.

use super::*;

use crate::{
    aws::{
        gateway::domains::IpAddressType,
        route53::{Change, RecordSet, Zone},
    },
    model::{
        front::DnsTarget,
        placement::{DesiredDns, Placement},
    },
};

const NAME: &str = "mtls.example.com";

const TARGET: &str = "d-1.execute-api.eu-west-1.amazonaws.com";

fn placement() -> Placement {
    Placement {
        namespace: "ns".into(),
        name: "partners".into(),
        account: "123456789012".into(),
        region: "eu-west-1".into(),
        owner: "cluster/ns/partners".into(),
        domain_name: NAME.into(),
        dns: DesiredDns::Route53 {
            zone_id: None,
            role_arn: None,
        },
        truststore: None,
        unlisted_mappings: None,
        tags: std::collections::BTreeMap::new(),
    }
}

fn dns_target(name: &str) -> DnsTarget {
    DnsTarget {
        name: name.into(),
        hosted_zone_id: "ZAPI".into(),
    }
}

fn to(kind: &str, target: &str) -> RecordSet {
    alias(NAME, kind, &dns_target(target))
}

fn values(name: &str, kind: &str, value: &str) -> RecordSet {
    let (ttl, values) = (Some(60), vec![value.to_owned()]);
    RecordSet {
        name: name.into(),
        kind: kind.into(),
        ttl,
        values,
        alias: None,
        routed: false,
    }
}

#[test]
fn only_owned_or_absent_records_are_changed() {
    use IpAddressType::{Dualstack, Ipv4};
    let ours = ownership_record(&placement());
    let theirs = ownership_record(&Placement {
        owner: "other/ns/partners".into(),
        ..placement()
    });
    let (a, aaaa) = (to("A", TARGET), to("AAAA", TARGET));
    let elsewhere = to("A", "d-2.execute-api.eu-west-1.amazonaws.com");
    let cname = |target: &str| values(NAME, "CNAME", target);
    let routed = |r: RecordSet| RecordSet { routed: true, ..r };
    let registry = |name: &str| {
        values(
            name,
            "TXT",
            "\"heritage=external-dns,external-dns/owner=x,external-dns/resource=ingress/shop/web\"",
        )
    };
    let here = values(NAME, "TXT", "\"v=spf1 -all\"");
    // Existing records, and either the changes that follow or a part of the message.
    for (there, ip, expected) in [
        (vec![], Ipv4, Ok("CREATE A, CREATE TXT")),
        (vec![here.clone()], Ipv4, Ok("CREATE A, CREATE TXT")),
        (vec![], Dualstack, Ok("CREATE A, CREATE AAAA, CREATE TXT")),
        // Owned records.
        (vec![ours.clone()], Ipv4, Ok("CREATE A")),
        (vec![ours.clone(), a.clone()], Ipv4, Ok("")),
        (vec![ours.clone(), a.clone()], Dualstack, Ok("CREATE AAAA")),
        (
            vec![ours.clone(), a.clone(), aaaa.clone()],
            Ipv4,
            Ok("DELETE AAAA"),
        ),
        (vec![ours.clone(), elsewhere.clone()], Ipv4, Ok("UPSERT A")),
        (
            vec![ours.clone(), values(NAME, "A", "192.0.2.1")],
            Ipv4,
            Ok("UPSERT A"),
        ),
        (
            vec![ours.clone(), cname("x.example.net")],
            Ipv4,
            Ok("DELETE CNAME, CREATE A"),
        ),
        (
            vec![ours.clone(), routed(elsewhere.clone())],
            Ipv4,
            Err("routing policy"),
        ),
        // Correct records that are not owned.
        (vec![a.clone()], Ipv4, Ok("")),
        (vec![a.clone(), aaaa.clone()], Dualstack, Ok("")),
        (vec![a.clone(), aaaa], Ipv4, Ok("")),
        (vec![cname(&format!("{TARGET}."))], Dualstack, Ok("")),
        (vec![a.clone()], Dualstack, Err("no AAAA mtls.example.com beside")),
        (vec![routed(a.clone())], Ipv4, Err("routing policy")),
        // Incorrect records that are not owned.
        (
            vec![elsewhere.clone()],
            Ipv4,
            Err("A mtls.example.com (an alias to d-2."),
        ),
        (
            vec![values(NAME, "A", "192.0.2.1")],
            Ipv4,
            Err("A mtls.example.com (192.0.2.1), which carries no ownership record"),
        ),
        (
            vec![cname("x.example.net")],
            Ipv4,
            Err("CNAME mtls.example.com (x.example.net), which carries no ownership record"),
        ),
        (
            vec![elsewhere.clone(), registry(NAME)],
            Ipv4,
            Err("which external-dns made for ingress/shop/web"),
        ),
        (
            vec![elsewhere.clone(), registry("a-mtls.example.com")],
            Ipv4,
            Err("external-dns made for ingress/shop/web"),
        ),
        (
            vec![elsewhere.clone(), registry("cname-mtls.example.com")],
            Ipv4,
            Err("external-dns made for"),
        ),
        (
            vec![elsewhere, here],
            Ipv4,
            Err("carries no ownership record of this operator"),
        ),
        (
            vec![theirs.clone()],
            Ipv4,
            Err("the ownership record of another owner, TXT _mtls-operator.mtls.example.com"),
        ),
        (
            vec![theirs, a],
            Ipv4,
            Err("the ownership record of another owner"),
        ),
        (
            vec![values(NAME, "NS", "ns1.example.net.")],
            Ipv4,
            Err("NS mtls.example.com (ns1.example.net.): that name is"),
        ),
    ] {
        let zone = Zone {
            id: "Z1".into(),
            name: "example.com".into(),
            private: false,
        };
        let planned = match plan(&placement(), &zone, &dns_target(TARGET), ip, &there) {
            RecordPlan::Right { owned } => {
                assert_eq!(owned, there.contains(&ours), "{there:?}");
                Ok(String::new())
            }
            RecordPlan::NotOwned(what) => Err(what),
            RecordPlan::Change { changes, first } => {
                assert_eq!(first, !there.contains(&ours), "{there:?}");
                let shown = |c: &Change| format!("{:?} {}", c.action, c.record.kind);
                let shown: Vec<_> = changes.iter().map(shown).collect();
                Ok(shown
                    .join(", ")
                    .replace("Create", "CREATE")
                    .replace("Upsert", "UPSERT")
                    .replace("Delete", "DELETE"))
            }
        };
        match (&planned, expected) {
            (Ok(changes), Ok(expected)) => assert_eq!(changes, expected, "{there:?}"),
            (Err(what), Err(part)) => assert!(what.contains(part), "{there:?}: {what}"),
            _ => panic!("{there:?}: {planned:?} instead of {expected:?}"),
        }
        let gone = removal(&placement(), &there);
        assert!(
            gone.iter().all(|c| there.contains(&c.record) && !c.record.routed),
            "exactly what was read"
        );
        assert_eq!(gone.is_empty(), !there.contains(&ours), "{there:?}");
    }
}

#[test]
fn the_apex_of_a_zone_has_name_servers_of_its_own() {
    let zone = Zone {
        id: "Z1".into(),
        name: NAME.into(),
        private: false,
    };
    let there = [values(NAME, "NS", "ns1.example.net.")];
    let planned = plan(
        &placement(),
        &zone,
        &dns_target(TARGET),
        IpAddressType::Ipv4,
        &there,
    );
    assert!(
        matches!(planned, RecordPlan::Change { first: true, .. }),
        "{planned:?}"
    );
}
