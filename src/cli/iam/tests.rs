//! Tests of the printed policy for each manifest, of the completeness of the table, and of its copy in
//! docs/iam.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::{
    api::MtlsDomain,
    cli::iam::{
        IamPolicy,
        document::{Statement, policy},
        print,
        rights::{Feature, RIGHTS, Resource, needed},
        usage::{Known, Principal, Usage},
    },
};

fn domain(spec: Value) -> MtlsDomain {
    let mut object = json!({
        "apiVersion": "mtls-operator.io/v1alpha1", "kind": "MtlsDomain",
        "metadata": {"name": "partners", "namespace": "payments"},
        "spec": {
            "domainName": "mtls.example.com",
            "mappings": [{"path": "", "api": {"id": "a1", "stage": "prod"}}],
        },
    });
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    serde_json::from_value(object).unwrap()
}

fn known() -> Known {
    Known {
        account: Some("123456789012".into()),
        region: Some("eu-west-1".into()),
        bucket: Some("truststores-{account}-{region}".into()),
        zones: vec![],
        tags: false,
    }
}

fn statements(specs: &[Value], principal: &Principal) -> BTreeMap<String, Statement> {
    let usages: Vec<_> = specs
        .iter()
        .map(|spec| Usage::of(&domain(spec.clone()), &known()))
        .collect();
    policy(&usages, principal)
        .statement
        .into_iter()
        .map(|s| (s.sid.clone(), s))
        .collect()
}

fn allows(statements: &BTreeMap<String, Statement>, action: &str) -> BTreeSet<String> {
    statements
        .values()
        .filter(|s| s.action.contains(action))
        .flat_map(|s| s.resource.clone())
        .collect()
}

/// Returns the text of every file in src/aws.
fn sources(folder: &Path) -> String {
    let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| {
            if path.is_dir() {
                sources(&path)
            } else {
                std::fs::read_to_string(path).unwrap()
            }
        })
        .collect()
}

#[test]
fn every_call_has_its_rights() {
    let text = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/aws"));
    let services = ["acm", "apigateway", "kms", "lambda", "route53", "s3", "sts"];
    let is_operation = |word: &&str| {
        let parts = word.split_once(':');
        parts.is_some_and(|(service, name)| {
            services.contains(&service)
                && name.starts_with(|c: char| c.is_ascii_uppercase())
                && name.bytes().all(|b| b.is_ascii_alphanumeric())
        })
    };
    // Calls are passed to `CallContext::call`, or named by a constant for it; on one line or on several.
    let text = text.replace(char::is_whitespace, "");
    let calls = text
        .split("context.call(\"")
        .skip(1)
        .chain(text.split(":&str=\"").skip(1));
    let called: BTreeSet<_> = calls
        .filter_map(|rest| rest.split('"').next())
        .filter(is_operation)
        .collect();
    assert!(called.len() > 40, "{called:?}");
    let listed: BTreeSet<_> = RIGHTS
        .iter()
        .flat_map(|right| right.operations)
        .copied()
        .collect();
    let forgotten: Vec<_> = called
        .iter()
        .filter(|call| **call != "sts:GetCallerIdentity" && !listed.contains(*call))
        .collect();
    assert!(
        forgotten.is_empty(),
        "add the features and resources of {forgotten:?} to src/cli/iam/rights.rs"
    );
    let never: Vec<_> = listed.difference(&called).collect();
    assert!(never.is_empty(), "no code calls {never:?}");
}

#[test]
fn a_spec_uses_its_features_only() {
    use Feature::*;
    let usual = [RequestedCertificate, Route53, ClosedEndpoint, Deletion];
    let role = json!({"roleArn": "arn:aws:iam::210987654321:role/dns"});
    let cases: [(Value, &[Feature], &[Feature]); 16] = [
        (json!({}), &[], &[]),
        (
            json!({"serverCertificate": {
                "existing": {"arn": "arn:aws:acm:eu-west-1:123456789012:certificate/1"},
            }}),
            &[],
            &[RequestedCertificate],
        ),
        (json!({"dns": {"external": {}}}), &[], &[Route53]),
        (
            json!({"dns": {"route53": {"hostedZoneId": "Z1"}}}),
            &[Route53ZoneId],
            &[Route53],
        ),
        (
            json!({"dns": {"route53": {"hostedZoneId": "Z1"}},
                "serverCertificate": {"request": {"subjectAlternativeNames": ["b.example.org"]}}}),
            &[Route53ZoneId],
            &[],
        ),
        (
            json!({"dns": {"route53": {"assumeRole": role}}}),
            &[AssumedRole],
            &[],
        ),
        (json!({"aws": {"assumeRole": role}}), &[AssumedRole], &[]),
        (json!({"defaultEndpoint": "Keep"}), &[], &[ClosedEndpoint]),
        (
            json!({"identity": {"headers": [{"name": "x-a", "from": {"clientCert": "SubjectDN"}}]}}),
            &[IdentityHeaders],
            &[],
        ),
        (
            json!({"identity": {
                "headers": [],
                "authorizer": {"functionArn": "arn:aws:lambda:eu-west-1:123456789012:function:f"},
            }}),
            &[IdentityHeaders, Authorizer, AuthorizerFunction],
            &[],
        ),
        (
            json!({"identity": {
                "headers": [],
                "authorizer": {"existing": [{"apiId": "a1", "authorizerId": "b1"}]},
            }}),
            &[IdentityHeaders, Authorizer],
            &[],
        ),
        (
            json!({"truststore": {"bucketCreation": "IfMissing"}}),
            &[BucketCreation],
            &[],
        ),
        (
            json!({"truststore": {"kmsKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/1"}}),
            &[KmsKey],
            &[],
        ),
        (json!({"adoptionPolicy": "Unowned"}), &[Adoption, Retention], &[]),
        (
            json!({"adoptionPolicy": "Unowned", "deletionPolicy": "Delete"}),
            &[Adoption],
            &[],
        ),
        (json!({"deletionPolicy": "Retain"}), &[Retention], &[Deletion]),
    ];
    for (spec, more, less) in cases {
        let expected: BTreeSet<_> = usual
            .iter()
            .chain(more)
            .copied()
            .filter(|f| !less.contains(f))
            .collect();
        assert_eq!(
            Usage::of(&domain(spec.clone()), &known()).features,
            expected,
            "{spec}"
        );
    }
}

#[test]
fn resources_are_as_narrow_as_the_manifest_says() {
    let all = statements(&[json!({})], &Principal::Operator);
    let gateway = |path: &str| format!("arn:aws:apigateway:eu-west-1::{path}");
    let expected: [(&str, &[String]); 9] = [
        (
            "s3:PutObject",
            &["arn:aws:s3:::truststores-123456789012-eu-west-1/*/payments/partners.pem".into()],
        ),
        (
            "s3:ListBucket",
            &["arn:aws:s3:::truststores-123456789012-eu-west-1".into()],
        ),
        (
            "acm:DeleteCertificate",
            &["arn:aws:acm:eu-west-1:123456789012:certificate/*".into()],
        ),
        (
            "acm:AddTagsToCertificate",
            &["arn:aws:acm:eu-west-1:123456789012:certificate/*".into()],
        ),
        ("acm:RequestCertificate", &["*".into()]),
        (
            "apigateway:AddCertificateToDomain",
            &[gateway("/domainnames"), gateway("/domainnames/mtls.example.com")],
        ),
        ("apigateway:PUT", &[gateway("/tags/*")]),
        ("kms:Decrypt", &[]),
        ("sts:AssumeRole", &[]),
    ];
    for (action, resources) in expected {
        assert_eq!(
            allows(&all, action),
            resources.iter().cloned().collect(),
            "{action}"
        );
    }
    let patched = [
        "/apis/a1",
        "/apis/a1/stages/*",
        "/domainnames/mtls.example.com",
        "/domainnames/mtls.example.com/apimappings/*",
        "/restapis/a1",
        "/restapis/a1/stages/*",
    ];
    assert_eq!(allows(&all, "apigateway:PATCH"), patched.map(gateway).into());
    assert_eq!(
        json!(all["Records"].condition),
        json!({
            "ForAllValues:StringEquals": {
                "route53:ChangeResourceRecordSetsRecordTypes": ["A", "AAAA", "CNAME", "TXT"],
            },
            "ForAllValues:StringLike": {
                "route53:ChangeResourceRecordSetsNormalizedRecordNames": [
                    "_*.mtls.example.com", "mtls.example.com",
                ],
            },
        })
    );
    let alias = json!({"truststore": {"kmsKeyArn": "arn:aws:kms:eu-west-1:123456789012:alias/truststores"}});
    let key = allows(&statements(&[alias], &Principal::Operator), "kms:Decrypt");
    assert_eq!(
        key,
        ["arn:aws:kms:eu-west-1:123456789012:key/*".to_owned()].into()
    );
}

#[test]
fn the_permissions_of_one_domain_do_not_cover_another() {
    let kept = json!({
        "domainName": "kept.example.com", "deletionPolicy": "Retain",
        "truststore": {"bucket": "kept", "key": "k"},
    });
    let seen = json!({
        "domainName": "seen.example.com", "managementPolicy": "Observe",
        "truststore": {"bucket": "seen"},
    });
    let all = statements(&[json!({}), kept, seen], &Principal::Operator);
    let deleted = allows(&all, "apigateway:DELETE");
    assert!(
        deleted.contains("arn:aws:apigateway:eu-west-1::/domainnames/mtls.example.com"),
        "{deleted:?}"
    );
    assert!(
        !deleted.contains("arn:aws:apigateway:eu-west-1::/domainnames/kept.example.com"),
        "{deleted:?}"
    );
    assert!(allows(&all, "s3:PutObject").contains("arn:aws:s3:::kept/k"));
    assert!(!allows(&all, "s3:DeleteObjectVersion").contains("arn:aws:s3:::kept/k"));
    let seen = |arn: &String| arn.contains("seen");
    assert!(allows(&all, "s3:GetObjectVersion").iter().any(seen));
    let writes = all
        .values()
        .filter(|s| s.resource.iter().any(seen))
        .flat_map(|s| &s.action);
    let reads: BTreeSet<_> = writes.copied().collect();
    assert_eq!(
        reads,
        [
            "s3:GetBucketVersioning",
            "s3:GetObject",
            "s3:GetObjectVersion",
            "s3:ListBucket",
            "s3:ListBucketVersions"
        ]
        .into()
    );
}

#[test]
fn each_role_gets_only_its_own_actions() {
    let (place, dns) = (
        "arn:aws:iam::210987654321:role/place",
        "arn:aws:iam::222222222222:role/dns",
    );
    let spec = json!({
        "aws": {"assumeRole": {"roleArn": place}},
        "dns": {"route53": {"assumeRole": {"roleArn": dns}}},
    });
    let of = |principal| statements(std::slice::from_ref(&spec), &principal);
    let own = of(Principal::Operator);
    assert_eq!(own.keys().collect::<Vec<_>>(), ["Role"]);
    assert_eq!(
        allows(&own, "sts:AssumeRole"),
        [place.to_owned(), dns.to_owned()].into()
    );
    let services = |all: &BTreeMap<String, Statement>| -> BTreeSet<&str> {
        all.values()
            .flat_map(|s| &s.action)
            .map(|action| action.split(':').next().unwrap())
            .collect()
    };
    assert_eq!(services(&of(Principal::Role(dns.into()))), ["route53"].into());
    let main = of(Principal::Role(place.into()));
    assert_eq!(services(&main), ["acm", "apigateway", "iam", "s3"].into());
    let in_its_account = ["arn:aws:acm:eu-west-1:210987654321:certificate/*".to_owned()].into();
    assert_eq!(allows(&main, "acm:DeleteCertificate"), in_its_account);
}

#[test]
fn sids_are_unique_and_iam_takes_them() {
    let kept = json!({"domainName": "kept.example.com", "deletionPolicy": "Retain"});
    let usages = [json!({}), kept].map(|spec| Usage::of(&domain(spec), &known()));
    let policy = policy(&usages, &Principal::Operator);
    let sids: BTreeSet<_> = policy.statement.iter().map(|s| &s.sid).collect();
    assert_eq!(sids.len(), policy.statement.len());
    assert!(
        sids.iter()
            .all(|sid| sid.bytes().all(|b| b.is_ascii_alphanumeric())),
        "{sids:?}"
    );
}

/// Returns the table of docs/iam.md.
fn reference() -> String {
    let anything = Usage::of_features(Feature::all(), &Known::default());
    let always = needed(&BTreeSet::new(), false);
    let row = |head: String, what: BTreeSet<(&'static str, Resource)>| {
        let mut on = BTreeMap::<Resource, Vec<&str>>::new();
        what.into_iter()
            .for_each(|(action, resource)| on.entry(resource).or_default().push(action));
        let cell = |(resource, actions): (Resource, Vec<&str>)| {
            let on = anything
                .arns(resource)
                .join("`, `")
                .replace("arn:aws:apigateway:*::", "");
            format!("`{}` on `{on}`", actions.join("`, `"))
        };
        format!(
            "| {head} | {} |\n",
            on.into_iter().map(cell).collect::<Vec<_>>().join("<br>")
        )
    };
    let features = Feature::value_variants().iter().map(|feature| {
        let value = feature.to_possible_value().unwrap();
        let more = needed(&[*feature].into(), false)
            .difference(&always)
            .copied()
            .collect();
        row(
            format!("`{}`: {}", value.get_name(), value.get_help().unwrap()),
            more,
        )
    });
    let rows: String = [row("always".into(), always.clone())]
        .into_iter()
        .chain(features)
        .collect();
    format!("| | actions, and on what |\n|---|---|\n{rows}")
}

#[test]
fn the_page_contains_the_table() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/iam.md")).unwrap();
    let table = reference();
    assert!(page.contains(&table), "put this into docs/iam.md:\n\n{table}");
}

#[test]
fn a_region_that_does_not_exist_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("d.yaml");
    let with = |region: &str| {
        let object = domain(json!({"aws": {"region": region}}));
        std::fs::write(&file, serde_json::to_string(&object).unwrap()).unwrap();
        let of_file = print(IamPolicy {
            manifests: vec![file.clone()],
            ..arguments(None)
        });
        let of_flag = print(arguments(Some(region)));
        [of_file, of_flag].map(|printed| printed.map_err(|error| format!("{error:#}")))
    };
    let [of_file, of_flag] = with("moon-east-1").map(Result::unwrap_err);
    assert!(
        of_file.contains("spec.aws.region: no known partition"),
        "{of_file}"
    );
    assert!(of_flag.starts_with("--region: no known partition"), "{of_flag}");
    for printed in with("eusc-de-east-1") {
        let (text, _) = printed.unwrap();
        assert!(
            text.contains("arn:aws-eusc:") && !text.contains("arn:aws:"),
            "{text}"
        );
    }
}

fn arguments(region: Option<&str>) -> IamPolicy {
    IamPolicy {
        manifests: vec![],
        account: Some("123456789012".into()),
        region: region.map(str::to_owned),
        bucket: None,
        zone: vec![],
        feature: vec![],
        aws_tags: vec![],
        role: None,
    }
}

/// The rights for tags are in the policy only where the spec or the operator's flag demands tags.
#[test]
fn tags_need_rights_only_where_they_are_demanded() {
    let of = |spec: Value, flag: bool| -> BTreeSet<&'static str> {
        let known = Known {
            tags: flag,
            ..known()
        };
        let usage = Usage::of(&domain(spec), &known);
        let all = policy(&[usage], &Principal::Operator).statement;
        let actions = all.into_iter().flat_map(|statement| statement.action);
        actions.filter(|action| action.contains("Tagging")).collect()
    };
    let tags = json!({"tags": {"team": "payments"}});
    let made = json!({"bucketCreation": "IfMissing"});
    for (spec, flag, expected) in [
        (json!({}), false, &[][..]),
        (json!({"truststore": made}), false, &["s3:GetBucketTagging"]),
        (json!({"aws": tags}), false, &["s3:PutObjectTagging"]),
        (json!({}), true, &["s3:PutObjectTagging"]),
        (
            json!({"aws": tags, "truststore": made}),
            false,
            &[
                "s3:GetBucketTagging",
                "s3:PutBucketTagging",
                "s3:PutObjectTagging",
            ],
        ),
    ] {
        let expected: BTreeSet<_> = expected.iter().copied().collect();
        assert_eq!(of(spec.clone(), flag), expected, "{spec} {flag}");
    }
}
