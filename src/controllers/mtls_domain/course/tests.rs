//! Table tests of the course.

use super::*;

use std::{cell::Cell, sync::Arc};

use kube::core::DeserializeGuard;
use serde_json::{Value, json};

use crate::{
    aws::fake::{ACCOUNT, REGION},
    controllers::mtls_domain::{
        clients::clients_of,
        controller::tests::stage::{deleted, domain},
    },
    policy::file,
};

/// Facts of a test: the rest is the same in all tests.
#[derive(Default)]
struct Case<'a> {
    policy: Option<&'a str>,
    labels: Option<&'a str>,
    truststore_bucket: Option<&'a str>,
    session: Option<Result<Located, Blind>>,
    others: Vec<MtlsDomain>,
    /// Finding about the claim of the other domains; the default is that they were served.
    claim: Claim,
}

/// Claim of the other domains, by their own last reconciles.
#[derive(Clone, Copy, Debug, Default)]
enum Claim {
    #[default]
    Valid,
    Lost,
    NotReconciled,
}

impl Case<'_> {
    /// Returns the name of the course, or its reason, and the number of calls for other domains and for
    /// certificates.
    fn course(&self, domain: &MtlsDomain) -> (String, usize) {
        let policy = self.policy.map(|text| file::parse(text).unwrap());
        let calls = Cell::new(0);
        let course = course(&Facts {
            domain,
            cluster_id: "c",
            truststore_bucket: self.truststore_bucket,
            aws_tags: &BTreeMap::new(),
            policy: policy.as_ref(),
            labels: &|_| {
                self.labels
                    .map(|team| [("team".to_owned(), team.to_owned())].into())
            },
            session: self.session.as_ref(),
            all: &|| {
                calls.set(calls.get() + 1);
                let all = self.others.iter().chain([domain]);
                all.map(|d| Arc::new(DeserializeGuard(Ok(d.clone())))).collect()
            },
            claim: &|_| match self.claim {
                Claim::Valid => Some(true),
                Claim::Lost => Some(false),
                Claim::NotReconciled => None,
            },
            clients: &|| {
                calls.set(calls.get() + 1);
                clients_of(domain, &[], &[], &[], None, &|_| None)
            },
        });
        let refusal = |what: &str, acceptance: Acceptance| match acceptance {
            Acceptance::Refused { reason, stalled, .. } => format!("{what} {reason:?} {stalled}"),
            other => panic!("{other:?}"),
        };
        let name = match course {
            Course::Refuse(refused) => refusal("Refuse", refused),
            Course::Moved(moved) => refusal("Moved", moved),
            Course::Unclear(unseen) => format!("Unclear {:?}", unseen.reason),
            Course::Delete(placement) => format!("Delete {}", placement.location()),
            Course::Serve(desired) => format!("Serve {}", desired.placement.location()),
            other => format!("{other:?}").split('(').next().unwrap().to_owned(),
        };
        (name, calls.get())
    }
}

fn here() -> Option<Result<Located, Blind>> {
    Some(Ok(Located {
        account: ACCOUNT.into(),
        region: REGION.into(),
        own_region: REGION.into(),
    }))
}

#[test]
fn metadata_and_spec_decide_before_everything_else() {
    let observe = |o: &mut Value| o["spec"]["managementPolicy"] = json!("Observe");
    let suspend = |o: &mut Value| o["spec"]["suspend"] = json!(true);
    let abandon = |o: &mut Value| o["metadata"]["annotations"] = json!({finalizer::ABANDON: "partners"});
    let gone = |o: &mut Value| o["metadata"]["finalizers"] = json!([]);
    for (what, object, expected) in [
        ("new", domain(|_| {}), "OpenSession"),
        ("observed", domain(observe), "OpenSession"),
        ("abandoned", domain(abandon), "OpenSession"),
        ("suspended", domain(suspend), "Suspend"),
        ("deleted", deleted(|_| {}), "OpenSession"),
        (
            "deleted without the operator's finalizer",
            deleted(gone),
            "Forget",
        ),
        ("deleted and abandoned", deleted(abandon), "Abandon"),
        ("deleted and suspended", deleted(suspend), "Suspend"),
        ("deleted and observed", deleted(observe), "Leave"),
        (
            "deleted, abandoned and suspended",
            deleted(|o| (abandon(o), suspend(o)).0),
            "Abandon",
        ),
        (
            "deleted, observed and suspended",
            deleted(|o| (observe(o), suspend(o)).0),
            "Suspend",
        ),
        (
            "deleted and observed, without the operator's finalizer",
            deleted(|o| (observe(o), gone(o)).0),
            "Forget",
        ),
    ] {
        let found = Case::default().course(&object);
        assert_eq!(found, (expected.to_owned(), 0), "{what}");
        if expected != "OpenSession" {
            // No policy and no answer of AWS changes these.
            let case = Case {
                policy: Some("rules: []"),
                session: here(),
                ..Case::default()
            };
            assert_eq!(case.course(&object), found, "{what}");
        }
    }
}

#[test]
fn a_region_that_does_not_exist_is_refused_before_aws_is_asked() {
    let there = |o: &mut Value| o["spec"]["aws"] = json!({"region": "moon-east-1"});
    let known = |o: &mut Value| o["spec"]["aws"] = json!({"region": "eusc-de-east-1"});
    for (object, expected) in [
        (domain(there), "Refuse InvalidSpec true"),
        (deleted(there), "OpenSession"),
        (domain(known), "OpenSession"),
    ] {
        assert_eq!(Case::default().course(&object), (expected.to_owned(), 0));
    }
    // The namespace of a domain that the policy denies learns no more.
    let denied = Case {
        policy: Some("rules: []"),
        ..Case::default()
    };
    assert_eq!(denied.course(&domain(there)).0, "Refuse NotPermitted false");
}

#[test]
fn the_policy_may_refuse_before_aws_answers_and_admits_only_afterwards() {
    let everything = "rules: [{name: a, namespaces: {}}]";
    let by_label = "rules: [{name: a, namespaces: {matchLabels: {team: a}}}]";
    let by_name = "rules: [{name: a, namespaces: {}, domainSuffixes: [example.org]}]";
    let by_region = "rules: [{name: a, namespaces: {}, regions: [us-east-1]}]";
    let by_account = "rules: [{name: a, namespaces: {}, accounts: []}]";
    let by_bucket = "rules: [{name: a, namespaces: {}, buckets: [{name: other}]}]";
    let serve = "Serve 123456789012/eu-west-1";
    let refuse = "Refuse NotPermitted false";
    for (policy, labels, before, after) in [
        (None, None, "OpenSession", serve),
        (Some(everything), None, "OpenSession", serve),
        (Some(by_label), Some("a"), "OpenSession", serve),
        (Some(by_label), Some("b"), refuse, refuse),
        (Some(by_label), None, "Unclear Unreachable", "Unclear Unreachable"),
        (Some(by_name), None, refuse, refuse),
        (Some(by_bucket), None, refuse, refuse),
        // Not known before AWS answers: neither admitted nor refused.
        (Some(by_region), None, "OpenSession", refuse),
        (Some(by_account), None, "OpenSession", refuse),
    ] {
        let mut case = Case {
            policy,
            labels,
            ..Case::default()
        };
        assert_eq!(case.course(&domain(|_| {})).0, before, "{policy:?} {labels:?}");
        case.session = here();
        assert_eq!(case.course(&domain(|_| {})).0, after, "{policy:?} {labels:?}");
        let deleted = case.course(&deleted(|_| {})).0;
        assert_eq!(deleted, after.replace("Serve", "Delete"), "{policy:?} {labels:?}");
    }
    let blind = Blind::WithoutCredentials(Unseen {
        reason: Reason::CredentialsMissing,
        message: "m".into(),
    });
    let case = Case {
        session: Some(Err(blind)),
        ..Case::default()
    };
    assert_eq!(case.course(&domain(|_| {})), ("Retry".to_owned(), 0));
}

#[test]
fn resources_in_another_account_or_region_are_neither_changed_nor_deleted() {
    let at = |place: &'static str| {
        move |o: &mut Value| o["metadata"]["annotations"] = json!({finalizer::PLACEMENT: place})
    };
    let (serve, delete) = ("Serve 123456789012/eu-west-1", "Delete 123456789012/eu-west-1");
    let moved = "Moved HomeChanged true";
    for (what, object, expected) in [
        ("nothing is created yet", domain(|_| {}), serve),
        ("here", domain(at("123456789012/eu-west-1")), serve),
        ("another account", domain(at("999999999999/eu-west-1")), moved),
        ("another Region", domain(at("123456789012/us-east-1")), moved),
        ("deleted", deleted(|_| {}), delete),
        ("deleted here", deleted(at("123456789012/eu-west-1")), delete),
        (
            "deleted, and in another Region",
            deleted(at("123456789012/us-east-1")),
            moved,
        ),
    ] {
        let case = Case {
            session: here(),
            ..Case::default()
        };
        assert_eq!(case.course(&object).0, expected, "{what}");
    }
}

#[test]
fn an_older_claim_is_checked_before_the_spec_unless_the_policy_denies_it() {
    let other = |namespace: &'static str, created: &'static str| {
        domain(|o| {
            o["metadata"]["uid"] = json!("other");
            o["metadata"]["namespace"] = json!(namespace);
            o["metadata"]["creationTimestamp"] = json!(created);
        })
    };
    let (older, younger) = ("2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z");
    let own_only = "rules: [{name: a, namespaces: {names: [shop]}}]";
    let unclear =
        "rules: [{name: a, namespaces: {names: [shop]}}, {name: b, namespaces: {matchLabels: {x: y}}}]";
    let wrong = |o: &mut Value| o["spec"]["truststore"] = json!({});
    let claimed = "Refuse DomainNameClaimed false";
    let serve = "Serve 123456789012/eu-west-1";
    for (what, object, others, policy, expected, calls) in [
        ("alone", domain(|_| {}), vec![], None, serve, 2),
        (
            "younger",
            domain(|_| {}),
            vec![other("acme", younger)],
            None,
            serve,
            2,
        ),
        (
            "older",
            domain(|_| {}),
            vec![other("acme", older)],
            None,
            claimed,
            1,
        ),
        (
            "older and denied",
            domain(|_| {}),
            vec![other("acme", older)],
            Some(own_only),
            serve,
            2,
        ),
        (
            "older, and the policy's answer is not known",
            domain(|_| {}),
            vec![other("acme", older)],
            Some(unclear),
            claimed,
            1,
        ),
        (
            "older, and the spec is invalid",
            domain(wrong),
            vec![other("acme", older)],
            None,
            claimed,
            1,
        ),
        (
            "the spec is invalid",
            domain(wrong),
            vec![],
            None,
            "Refuse InvalidSpec true",
            2,
        ),
        (
            "deleted",
            deleted(|_| {}),
            vec![other("acme", older)],
            None,
            "Delete 123456789012/eu-west-1",
            0,
        ),
    ] {
        let case = Case {
            policy,
            others,
            session: here(),
            ..Case::default()
        };
        assert_eq!(case.course(&object), (expected.to_owned(), calls), "{what}");
    }
}

#[test]
fn only_a_domain_that_may_be_served_has_a_claim_on_its_domain_name() {
    let older = |change: &dyn Fn(&mut Value)| {
        domain(|o| {
            o["metadata"]["uid"] = json!("other");
            o["metadata"]["namespace"] = json!("acme");
            o["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
            change(o);
        })
    };
    // Everything for the namespace of the younger domain, and this for that of the older one.
    let bounded = |acme: &str| {
        format!(
            "rules: [{{name: a, namespaces: {{names: [shop]}}}}, \
             {{name: b, namespaces: {{names: [acme]}}{acme}}}]"
        )
    };
    let role = "arn:aws:iam::123456789012:role/acme";
    let with_role = |o: &mut Value| o["spec"]["aws"] = json!({"assumeRole": {"roleArn": role}});
    let roles = format!(", roles: [{{arn: \"{role}\"}}]");
    let suspend = |o: &mut Value| o["spec"]["suspend"] = json!(true);
    let served = |o: &mut Value| o["status"] = json!({"targetDomainName": "d-1.example.net"});
    let delete = |o: &mut Value, finalizer: &str| {
        o["metadata"]["deletionTimestamp"] = json!("2026-01-03T00:00:00Z");
        o["metadata"]["finalizers"] = json!([finalizer]);
    };
    let at = |o: &mut Value, placement: &str| {
        o["metadata"]["annotations"] = json!({finalizer::PLACEMENT: placement})
    };
    let serve = "Serve 123456789012/eu-west-1";
    let claimed = "Refuse DomainNameClaimed false";
    type Change<'a> = &'a dyn Fn(&mut Value);
    let rows: [(&str, Change, &str, Claim, &str); 28] = [
        ("permitted", &|_| {}, "", Claim::Valid, claimed),
        (
            "not reconciled yet",
            &|_| {},
            "",
            Claim::NotReconciled,
            "AwaitOlder",
        ),
        ("refused by its own reconcile", &|_| {}, "", Claim::Lost, serve),
        (
            "the name is denied",
            &|_| {},
            ", domainSuffixes: []",
            Claim::Valid,
            serve,
        ),
        // Known once AWS has reported account and Region, which are the same for both domains.
        (
            "the Region is denied",
            &|_| {},
            ", regions: [us-east-1]",
            Claim::Valid,
            serve,
        ),
        (
            "the account is denied",
            &|_| {},
            ", accounts: []",
            Claim::Valid,
            serve,
        ),
        (
            "the default bucket is denied",
            &|o| o["spec"]["truststore"] = json!({}),
            ", buckets: [{name: truststores, prefix: acme/}]",
            Claim::Valid,
            serve,
        ),
        (
            "the default bucket is permitted",
            &|o| o["spec"]["truststore"] = json!({}),
            ", buckets: [{name: truststores, prefix: c/acme/}]",
            Claim::Valid,
            claimed,
        ),
        (
            "denied, and not reconciled yet",
            &|_| {},
            ", regions: [us-east-1]",
            Claim::NotReconciled,
            serve,
        ),
        (
            "denied and suspended",
            &suspend,
            ", regions: [us-east-1]",
            Claim::Valid,
            serve,
        ),
        // Another role may lead to another account: its own reconcile decides.
        ("another role", &with_role, &roles, Claim::Valid, claimed),
        ("another role that is denied", &with_role, "", Claim::Valid, serve),
        (
            "another role, and only AWS knows its account",
            &with_role,
            &format!("{roles}, accounts: []"),
            Claim::Valid,
            claimed,
        ),
        (
            "another role, and its own reconcile has found its account",
            &with_role,
            &format!("{roles}, accounts: []"),
            Claim::Lost,
            serve,
        ),
        (
            "another role, not reconciled yet",
            &with_role,
            &roles,
            Claim::NotReconciled,
            "AwaitOlder",
        ),
        (
            "here",
            &|o| at(o, "123456789012/eu-west-1"),
            "",
            Claim::Valid,
            claimed,
        ),
        (
            "in another Region",
            &|o| at(o, "123456789012/us-east-1"),
            "",
            Claim::Valid,
            serve,
        ),
        (
            "in another account",
            &|o| at(o, "999999999999/eu-west-1"),
            "",
            Claim::Valid,
            serve,
        ),
        (
            "for another account",
            &|o| o["spec"]["aws"] = json!({"accountId": "999999999999"}),
            "",
            Claim::Valid,
            serve,
        ),
        (
            "invalid",
            &|o| {
                o["spec"]["identity"] =
                    json!({"headers": [], "authorizer": {"existing": [{"apiId": "b", "authorizerId": "c"}]}})
            },
            "",
            Claim::Valid,
            serve,
        ),
        (
            "suspended before it was served",
            &suspend,
            "",
            Claim::Valid,
            serve,
        ),
        (
            "suspended while it was served",
            &|o| (suspend(o), served(o)).0,
            "",
            Claim::Valid,
            claimed,
        ),
        (
            "suspended while it was served, then denied",
            &|o| (suspend(o), served(o)).0,
            ", accounts: []",
            Claim::Valid,
            serve,
        ),
        (
            "being deleted",
            &|o| delete(o, finalizer::FINALIZER),
            "",
            Claim::Valid,
            claimed,
        ),
        (
            "deleted and released",
            &|o| delete(o, "other/one"),
            "",
            Claim::Valid,
            serve,
        ),
        (
            "its deletion is denied",
            &|o| delete(o, finalizer::FINALIZER),
            ", accounts: []",
            Claim::Valid,
            serve,
        ),
        (
            "being deleted, and not reconciled yet",
            &|o| delete(o, finalizer::FINALIZER),
            "",
            Claim::NotReconciled,
            "AwaitOlder",
        ),
        (
            "observed",
            &|o| o["spec"]["managementPolicy"] = json!("Observe"),
            "",
            Claim::Valid,
            claimed,
        ),
    ];
    for (what, change, acme, claim, expected) in rows {
        let case = Case {
            policy: Some(&bounded(acme)),
            truststore_bucket: Some("truststores"),
            session: here(),
            others: vec![older(change)],
            claim,
            ..Case::default()
        };
        assert_eq!(case.course(&domain(|_| {})).0, expected, "{what}");
        let deletion = case.course(&deleted(|_| {})).0;
        assert_eq!(
            deletion,
            serve.replace("Serve", "Delete"),
            "{what}: a deletion waits for no claim"
        );
    }
}
