//! Tests of `observe`.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    api::conditions::Reason,
    aws::{
        acm,
        errors::{Error, Kind},
        fake,
        gateway::apis::Protocol,
        route53::Zone,
        tags::{DEPLOYED, OWNER_TAG, PENDING_TAG},
    },
    controllers::mtls_domain::simulation::world,
    dataplane::api_gateway::{
        front::front,
        observe::{is_said_to_be_closed, mappings, may_be_marked, most_open},
    },
    dns::observe::{best_zone, given_zone, in_sync, unambiguous},
    model::{
        desired::{Desired, DesiredCertificate},
        observed::ZoneChoice,
        placement::{Placement, TruststoreObject},
    },
    observation::{
        read_cache::{AwsReader, SessionCache},
        seen::{Unseen, unseen},
    },
    probe::https,
    runtime::workers::Workers,
    server_certificate::observe::{named_arns, validation_names},
    telemetry::metrics::Metrics,
    trust::observe::{Parsing, Versions, bucket, versions},
};

fn zone(id: &str, name: &str, private: bool) -> Zone {
    Zone {
        id: id.into(),
        name: name.into(),
        private,
    }
}

#[test]
fn the_longest_public_zone_on_label_boundaries_is_chosen() {
    let zones = [
        zone("Z1", "example.com", false),
        zone("Z2", "api.example.com", false),
        zone("Z3", "mtls.api.example.com", true),
        zone("Z4", "ample.com", false),
    ];
    let found = |n: usize| ZoneChoice::Found(zones[n].clone());
    assert_eq!(best_zone("mtls.api.example.com", &zones), found(1));
    assert_eq!(best_zone("myapi.example.com", &zones), found(0));
    assert_eq!(best_zone("example.com", &zones), found(0));
    assert_eq!(best_zone("example.org", &zones), ZoneChoice::Missing);
    let twins = [zone("Z2", "example.com", false), zone("Z1", "example.com", false)];
    assert_eq!(
        best_zone("a.example.com", &twins),
        ZoneChoice::Ambiguous(vec!["Z1".into(), "Z2".into()])
    );
}

#[test]
fn the_zone_of_the_spec_is_the_only_one_for_the_domain_name() {
    let placement = placement();
    let all = [zone("Z1", "example.com", false), zone("Z2", "example.org", false)];
    let of = |name: &str, given: Option<&Zone>| given_zone(&placement, name, given, &all);
    let (api, private, other) = (
        zone("Z3", "api.example.com", false),
        zone("Z4", "api.example.com", true),
        zone("Z5", "example.net", false),
    );
    assert_eq!(of("api.example.com", Some(&api)), ZoneChoice::Found(api.clone()));
    for (what, given) in [
        ("gone", None),
        ("private", Some(&private)),
        ("a zone of another name", Some(&other)),
    ] {
        assert_eq!(of("api.example.com", given), ZoneChoice::Missing, "{what}");
        assert_eq!(
            of("www.example.org", given),
            ZoneChoice::Found(all[1].clone()),
            "{what}"
        );
    }
    assert_eq!(
        of("www.example.org", Some(&api)),
        ZoneChoice::Found(all[1].clone())
    );
}

#[test]
fn the_deletion_of_a_domain_with_two_possible_zones_waits_for_the_spec() {
    let placement = placement();
    let with = |name: &str, choice| BTreeMap::from([(name.to_owned(), choice)]);
    let two = || ZoneChoice::Ambiguous(vec!["Z1".into(), "Z2".into()]);
    assert_eq!(
        unambiguous(&placement, with("api.example.com", two()))
            .unwrap_err()
            .reason,
        Reason::HostedZoneNotFound
    );
    for zones in [
        with("www.example.org", two()),
        with("api.example.com", ZoneChoice::Missing),
        with(
            "api.example.com",
            ZoneChoice::Found(zone("Z1", "example.com", false)),
        ),
    ] {
        assert_eq!(unambiguous(&placement, zones.clone()), Ok(zones));
    }
}

fn placement() -> Placement {
    world::desired().placement
}

fn error(kind: Kind, operation: &'static str) -> Error {
    Error {
        kind,
        operation,
        code: None,
        message: "m".into(),
        source: None,
    }
}

#[test]
fn a_failed_read_has_its_reason_and_message() {
    for (kind, operation, reason, message) in [
        (
            Kind::Denied,
            "acm:ListCertificates",
            Reason::PermissionDenied,
            "allow it in its IAM policy",
        ),
        (
            Kind::Throttled,
            "acm:ListCertificates",
            Reason::Throttled,
            "throttled",
        ),
        (
            Kind::Transient,
            "acm:ListCertificates",
            Reason::Unreachable,
            "acm:ListCertificates: m",
        ),
        (
            Kind::NotFound,
            "route53:ListResourceRecordSets",
            Reason::Unreachable,
            "route53:ListResourceRecordSets: m",
        ),
        (
            Kind::Conflict,
            "route53:ListResourceRecordSets",
            Reason::Unreachable,
            ": m",
        ),
        (
            Kind::Invalid,
            "s3:HeadBucket",
            Reason::AwsRejected,
            "s3:HeadBucket: m",
        ),
    ] {
        let found = unseen(&error(kind, operation));
        assert_eq!(found.reason, reason, "{kind:?}");
        assert!(
            found.message.contains(message)
                && (reason == Reason::Throttled || !found.message.contains("trying again")),
            "{}",
            found.message
        );
    }
}

#[test]
fn the_certificates_of_an_owned_or_adoptable_domain_are_read() {
    let (d, o) = world::settled();
    let mut adopting = d.clone();
    adopting.adoption = crate::api::AdoptionPolicy::Unowned;
    let mut existing = d.clone();
    existing.certificate = DesiredCertificate::Existing {
        arn: "a".into(),
        ownership_arn: Some("b".into()),
    };
    let domain = o.domain.clone();
    let arn = domain.as_ref().unwrap().as_ref().unwrap().certificate_arn.clone();
    let with = |tags: &[(&str, &str)]| {
        let mut domain = domain.clone().unwrap().unwrap();
        domain.tags = tags
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        domain.ownership_certificate_arn = Some("o".into());
        Ok(Some(domain))
    };
    let not_owned = [(OWNER_TAG, "other/ns/partners")];
    for (what, d, domain, expected) in [
        ("owned", &d, domain.clone(), vec![arn.as_str()]),
        ("without an owner", &d, with(&[]), vec![]),
        (
            "without an owner, to be taken over",
            &adopting,
            with(&[]),
            vec![arn.as_str(), "o"],
        ),
        ("another owner's", &adopting, with(&not_owned), vec![]),
        ("not there", &d, Ok(None), vec![]),
        ("named by the spec", &existing, Ok(None), vec!["a", "b"]),
        (
            "named by the spec, beside those in use",
            &existing,
            domain.clone(),
            vec!["a", arn.as_str(), "b"],
        ),
    ] {
        let expected: BTreeSet<_> = expected.into_iter().map(str::to_owned).collect();
        assert_eq!(
            named_arns(d, &front(&d.placement, &domain))
                .into_iter()
                .map(str::to_owned)
                .collect::<BTreeSet<_>>(),
            expected,
            "{what}"
        );
    }
}

#[test]
fn only_validation_records_of_owned_certificates_are_read() {
    let (d, o) = world::settled();
    let (zones, mut certificates) = (o.zones.unwrap(), o.certificates.unwrap());
    let ids = |certificates: &[acm::Certificate]| validation_names(&d.placement, &zones, certificates).len();
    assert_eq!(ids(&certificates), 1);
    assert!(
        validation_names(&d.placement, &BTreeMap::new(), &certificates).is_empty(),
        "no zone"
    );
    certificates[0].tags.clear();
    assert_eq!(ids(&certificates), 0);
}

fn api(change: impl FnOnce(&mut crate::aws::gateway::apis::Api)) -> crate::aws::gateway::apis::Api {
    let mut api = crate::aws::gateway::apis::Api {
        id: "a1".into(),
        arn: "arn".into(),
        protocol: Protocol::Http,
        private: false,
        endpoint_closed: true,
        tags: BTreeMap::new(),
    };
    change(&mut api);
    api
}

#[test]
fn a_default_endpoint_is_probed_once_its_closing_is_deployed() {
    let tag = |value: &'static str| {
        move |api: &mut crate::aws::gateway::apis::Api| {
            drop(api.tags.insert(PENDING_TAG.into(), value.into()))
        }
    };
    for (what, api, expected) in [
        ("closed", api(|_| {}), true),
        ("open", api(|api| api.endpoint_closed = false), false),
        (
            "closed, not yet in effect",
            api(tag("cluster/ns/partners")),
            false,
        ),
        ("closed and deployed", api(tag(DEPLOYED)), true),
    ] {
        assert_eq!(is_said_to_be_closed(&api), expected, "{what}");
    }
}

#[test]
fn the_most_open_answer_of_all_stages_counts() {
    use https::ProbeResult::{Answered, Refused, Unreachable};
    let unreachable = || Unreachable("m".into());
    assert_eq!(most_open(vec![]), None);
    assert_eq!(
        most_open(vec![Refused(404), unreachable(), Answered(200)]),
        Some(Answered(200))
    );
    assert_eq!(most_open(vec![Refused(404), unreachable()]), Some(unreachable()));
    assert_eq!(most_open(vec![Refused(404)]), Some(Refused(404)));
}

#[test]
fn an_unmapped_api_is_read_in_full_only_with_the_ownership_tags() {
    let placement = placement();
    assert!(!may_be_marked(&placement, &Ok(Some(api(|_| {})))) && !may_be_marked(&placement, &Ok(None)));
    assert!(may_be_marked(
        &placement,
        &Err(Unseen {
            reason: Reason::Unreachable,
            message: "m".into()
        })
    ));
}

fn xml(text: &str) -> fake::Answer {
    (200, vec![], text.to_owned())
}

#[tokio::test]
async fn a_change_unknown_to_route_53_is_in_sync() {
    let status = |word: &str| {
        format!(
            "<GetChangeResponse><ChangeInfo><Id>C1</Id><Status>{word}</Status><SubmittedAt>2026-01-01T00:00:00Z</SubmittedAt></ChangeInfo></GetChangeResponse>"
        )
    };
    let of = async |answer: fake::Answer, change| {
        in_sync(&fake::answering(vec![("/change/", answer)]), change).await
    };
    assert_eq!(of(xml(&status("INSYNC")), Some("C1")).await, Ok(true));
    assert_eq!(of(xml(&status("PENDING")), Some("C1")).await, Ok(false));
    assert_eq!(of((404, vec![], String::new()), Some("C1")).await, Ok(true));
    assert!(of((500, vec![], String::new()), Some("C1")).await.is_err());
    assert_eq!(
        of((500, vec![], String::new()), None).await,
        Ok(true),
        "no change is pending"
    );
}

#[tokio::test]
async fn mappings_are_read_only_for_an_owned_domain() {
    let (d, o) = world::settled();
    let items = r#"{"items": [{"apiId": "a1", "apiMappingId": "m1", "stage": "s"}]}"#;
    let (session, kept) = (
        fake::answering(vec![("/apimappings", xml(items))]),
        SessionCache::default(),
    );
    let reader = AwsReader::live(&session, &kept);
    let ours = o.domain.unwrap().unwrap();
    let mut not_owned = ours.clone();
    not_owned.tags.clear();
    let read = async |domain| {
        mappings(&d.placement, &reader, &domain)
            .await
            .map(|all| all.len())
    };
    assert_eq!(read(Ok(Some(ours))).await, Ok(1));
    assert_eq!(read(Ok(Some(not_owned))).await, Ok(0));
    assert_eq!(read(Ok(None)).await, Ok(0));
    let why = Unseen {
        reason: Reason::Unreachable,
        message: "m".into(),
    };
    assert_eq!(read(Err(why.clone())).await, Err(why));
}

#[tokio::test]
async fn only_versions_with_the_ownership_tag_are_owned() {
    let listed = "<ListVersionsResult><Version><Key>partners.pem</Key><VersionId>ours</VersionId></Version>\
    <Version><Key>partners.pem</Key><VersionId>theirs</VersionId></Version>\
    <Version><Key>partners.pem</Key><VersionId>nobodys</VersionId></Version>\
    <DeleteMarker><Key>partners.pem</Key><VersionId>marker</VersionId></DeleteMarker></ListVersionsResult>";
    let body = |owner: Option<&'static str>| {
        (
            200,
            owner
                .map(|owner| ("x-amz-meta-owner", owner))
                .into_iter()
                .collect(),
            String::new(),
        )
    };
    let answers = |region: &'static str| {
        let ours = body(Some("cluster/ns/partners"));
        vec![
            (
                "?versioning",
                xml("<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"),
            ),
            (
                "HEAD",
                (200, vec![("x-amz-bucket-region", region)], String::new()),
            ),
            ("versions", xml(listed)),
            ("versionId=ours", ours.clone()),
            ("versionId=theirs", body(Some("other/ns/partners"))),
            ("versionId=nobodys", body(None)),
            ("versionId=marker", ours),
        ]
    };
    let read = async |placement: &Placement, region| {
        let (session, kept) = (fake::answering(answers(region)), SessionCache::default());
        versions(placement, &AwsReader::live(&session, &kept)).await
    };
    let placement = placement();
    assert_eq!(read(&placement, "eu-west-1").await, Ok(vec!["ours".to_owned()]));
    assert_eq!(
        read(&placement, "us-east-1").await,
        Ok(vec![]),
        "the operator never stores anything there"
    );
    assert_eq!(
        read(
            &Placement {
                truststore: None,
                ..placement
            },
            "eu-west-1"
        )
        .await,
        Ok(vec![])
    );
}

#[tokio::test]
async fn the_settings_of_a_bucket_are_read_only_when_the_operator_created_it() {
    let answers = |owner: &str, region: &'static str| {
        vec![
            (
                "?versioning",
                xml("<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>"),
            ),
            (
                "?tagging",
                xml(&format!(
                    "<Tagging><TagSet><Tag><Key>{OWNER_TAG}</Key><Value>{owner}</Value></Tag></TagSet></Tagging>"
                )),
            ),
            (
                "HEAD",
                (200, vec![("x-amz-bucket-region", region)], String::new()),
            ),
        ]
    };
    let read = async |creates, owner: &str, region| {
        let (session, kept) = (fake::answering(answers(owner, region)), SessionCache::default());
        let d = Desired {
            create_bucket: creates,
            ..crate::controllers::mtls_domain::simulation::world::desired()
        };
        let found = bucket(&d, &AwsReader::live(&session, &kept))
            .await
            .unwrap()
            .unwrap();
        assert!(!found.versioned);
        found.made.map(|made| made.owner)
    };
    let ours = "cluster/ns/another";
    assert_eq!(
        read(true, ours, "eu-west-1").await.as_deref(),
        Some(ours),
        "also created for another MtlsDomain of the cluster"
    );
    assert_eq!(
        read(false, ours, "eu-west-1").await,
        None,
        "the spec does not allow the operator to create a bucket"
    );
    assert_eq!(read(true, ours, "us-east-1").await, None);
    assert_eq!(
        read(true, "other/ns/partners", "eu-west-1").await,
        None,
        "another cluster's"
    );
}

#[tokio::test]
async fn a_version_is_read_once_and_an_object_without_a_version_each_time() {
    let content = (200, vec![("x-amz-meta-owner", "o")], "x".to_owned());
    let there = fake::answering(vec![("GET", content)]);
    let gone = fake::answering(vec![]);
    let (versions, workers) = (Versions::default(), Workers::start(&Metrics::new().0).unwrap());
    let parsing = Parsing {
        workers: &workers,
        namespace: "ns",
        versions: &versions,
    };
    assert!(parsing.read("b", "k", &there, "v1").await.unwrap().is_some());
    assert!(
        parsing.read("b", "k", &gone, "v1").await.unwrap().is_some(),
        "a version never changes"
    );
    assert!(parsing.read("b", "k", &gone, "v2").await.unwrap().is_none());
    assert!(parsing.read("b", "k", &there, "").await.unwrap().is_some());
    assert!(parsing.read("b", "k", &gone, "").await.unwrap().is_none());
    let domain = |uri: &str, version: &str| {
        let mut domain = world::settled().1.domain.unwrap().unwrap();
        let used = domain.truststore.as_mut().unwrap();
        (used.uri, used.version) = (uri.into(), Some(version.into()));
        Ok(Some(domain))
    };
    let ours = TruststoreObject {
        bucket: "b".into(),
        key: "k".into(),
    };
    versions.keep(&ours, &Ok(None), &domain("s3://b/k", "v1"));
    assert!(
        parsing.read("b", "k", &gone, "v1").await.unwrap().is_some(),
        "the version is in use"
    );
    versions.keep(
        &ours,
        &Ok(None),
        &Err(Unseen {
            reason: Reason::Unreachable,
            message: "m".into(),
        }),
    );
    assert!(
        parsing.read("b", "k", &gone, "v1").await.unwrap().is_some(),
        "an unknown state keeps the versions"
    );
    versions.keep(&ours, &Ok(None), &domain("s3://b/elsewhere", "v1"));
    assert!(
        parsing.read("b", "k", &gone, "v1").await.unwrap().is_none(),
        "another object's version of that name keeps nothing"
    );
}
