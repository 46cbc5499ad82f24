//! Tests of specs against rules.

mod unresolved;

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::policy::{AccessRequest, Decision, Missing, Namespace, Policy, Resource, Rule, file::parse};

fn policy(rules: &str) -> Policy {
    parse(rules).unwrap()
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn access_request(part: &str, resource: Resource) -> AccessRequest {
    AccessRequest {
        part: part.into(),
        resource,
    }
}

fn allowed(rule: &str, resource: Resource) -> Decision {
    let policy = policy(&format!("rules:\n- name: a\n  namespaces: {{}}\n  {rule}"));
    policy.decide(
        Namespace {
            name: "shop",
            labels: None,
        },
        &[access_request("it", resource)],
    )
}

fn object(bucket: &str, key: &str) -> Resource {
    Resource::Object {
        bucket: bucket.into(),
        key: key.into(),
    }
}

fn api(pairs: &[(&str, &str)]) -> Resource {
    Resource::Api(Some(labels(pairs)))
}

#[test]
fn one_part_against_one_rule() {
    let name = |name: &str| Resource::Name(name.into());
    let (role, key) = (
        "arn:aws:iam::123456789012:role/a",
        "arn:aws:kms:eu-west-1:123456789012:key/a",
    );
    let function =
        |name: &str| Resource::Function(format!("arn:aws:lambda:eu-west-1:123456789012:function:{name}"));
    let functions = "functions: [\"arn:aws:lambda:eu-west-1:123456789012:function:pay-*\", \
                     \"arn:aws:lambda:eu-west-1:123456789012:function:one\"]";
    let cert = "arn:aws:acm:eu-west-1:123456789012:certificate/a";
    let bucket = "buckets: [{name: bkt, prefix: \"x/{namespace}/\"}, {name: all}]";
    let tag = "apis: {tag: {key: team, value: \"{namespace}\"}}";
    for (rule, resource, fits) in [
        // A spec always has these resources: a missing list bounds nothing, an empty list allows nothing.
        ("domainSuffixes: [example.com]", name("example.com"), true),
        ("domainSuffixes: [example.com]", name("a.b.example.com"), true),
        ("domainSuffixes: [example.com]", name("*.example.com"), true),
        ("domainSuffixes: [example.com]", name("myexample.com"), false),
        (
            "domainSuffixes: [example.com]",
            name("example.com.evil.org"),
            false,
        ),
        ("domainSuffixes: [a.example.com]", name("*.example.com"), false),
        ("domainSuffixes: [a.example.com]", name("example.com"), false),
        (
            "domainSuffixes: [\"{namespace}.example.com\"]",
            name("a.shop.example.com"),
            true,
        ),
        (
            "domainSuffixes: [\"{namespace}.example.com\"]",
            name("a.other.example.com"),
            false,
        ),
        ("domainSuffixes: []", name("example.com"), false),
        ("adoption: Never", name("example.com"), true),
        ("hostedZoneIds: [Z1]", Resource::Zone(Some("Z1".into())), true),
        ("hostedZoneIds: [Z1]", Resource::Zone(Some("Z2".into())), false),
        ("hostedZoneIds: []", Resource::Zone(Some("Z1".into())), false),
        ("adoption: Never", Resource::Zone(None), true),
        ("regions: [eu-west-1]", Resource::Region("eu-west-1".into()), true),
        (
            "regions: [eu-west-1]",
            Resource::Region("eu-west-11".into()),
            false,
        ),
        (
            "accounts: [\"123456789012\"]",
            Resource::Account("123456789012".into()),
            true,
        ),
        (
            "accounts: [\"123456789012\"]",
            Resource::Account("210987654321".into()),
            false,
        ),
        (bucket, object("bkt", "x/shop/d.pem"), true),
        (bucket, object("bkt", "x/shopping/d.pem"), false),
        (bucket, object("bkt", "x/other/d.pem"), false),
        (bucket, object("bkt", "x/shop/../other/d.pem"), false),
        (bucket, object("bkt", "x/shop"), false),
        (bucket, object("all", "whatever"), true),
        (bucket, object("other", "x/shop/d.pem"), false),
        ("buckets: []", object("all", "whatever"), false),
        ("adoption: Never", object("all", "whatever"), true),
        (tag, api(&[("team", "shop"), ("other", "x")]), true),
        (tag, api(&[("team", "shopping")]), false),
        (tag, api(&[("other", "shop")]), false),
        (tag, api(&[]), false),
        ("adoption: Never", api(&[]), true),
        ("adoption: Never", Resource::Api(None), true),
        // A spec can do without these resources: a missing list allows nothing.
        ("adoption: Never", Resource::Role(role.into()), false),
        (
            "roles: [{arn: \"arn:aws:iam::123456789012:role/a\"}]",
            Resource::Role(role.into()),
            true,
        ),
        (
            "roles: [{arn: \"arn:aws:iam::123456789012:role/ab\"}]",
            Resource::Role(role.into()),
            false,
        ),
        ("adoption: Never", Resource::KmsKey(key.into()), false),
        (
            "kmsKeys: [\"arn:aws:kms:eu-west-1:123456789012:key/a\"]",
            Resource::KmsKey(key.into()),
            true,
        ),
        (
            "kmsKeys: [\"arn:aws:kms:eu-west-1:210987654321:*\"]",
            Resource::KmsKey(key.into()),
            false,
        ),
        ("adoption: Never", Resource::Certificate(cert.into()), false),
        (
            "certificates: [\"arn:aws:acm:eu-west-1:123456789012:*\"]",
            Resource::Certificate(cert.into()),
            true,
        ),
        (functions, function("pay-auth"), true),
        (functions, function("one"), true),
        (functions, function("one-more"), false),
        (functions, function("other"), false),
        ("adoption: Never", function("one"), false),
        ("adoption: Never", Resource::TagKey("team".into()), false),
        ("tags: [cost, team]", Resource::TagKey("team".into()), true),
        ("tags: [cost, team]", Resource::TagKey("Team".into()), false),
        ("tags: [cost, team]", Resource::TagKey("teams".into()), false),
        ("adoption: Never", Resource::Adoption, false),
        ("adoption: Unowned", Resource::Adoption, true),
    ] {
        let said = allowed(rule, resource.clone());
        assert_eq!(
            matches!(said, Decision::Allowed),
            fits,
            "{rule}: {resource:?}: {said:?}"
        );
        assert!(!matches!(said, Decision::Unknown(_)), "{rule}: {resource:?}");
    }
    for (rule, resource) in [
        ("hostedZoneIds: [Z1]", Resource::Zone(None)),
        (tag, Resource::Api(None)),
    ] {
        assert_eq!(allowed(rule, resource), Decision::Unknown(Missing::Resource));
    }
}

const TWO: &str = "
rules:
- name: names
  namespaces: {names: [shop]}
  domainSuffixes: [shop.example.com]
  regions: [eu-west-1]
- name: other-names
  namespaces: {names: [shop]}
  domainSuffixes: [pay.example.com]
  regions: [us-east-1]
  hostedZoneIds: [Z1]
- name: not-ours
  namespaces: {names: [secret]}
  domainSuffixes: [secret.example.com]
";

#[test]
fn a_spec_fits_one_rule_as_a_whole_and_a_message_reveals_no_other_rule() {
    let policy = policy(TWO);
    let shop = Namespace {
        name: "shop",
        labels: None,
    };
    let spec = |name: &str, region: &str| {
        [
            access_request(&format!("spec.domainName: {name}"), Resource::Name(name.into())),
            access_request(
                &format!("spec.aws.region: {region}"),
                Resource::Region(region.into()),
            ),
        ]
    };
    let decision = |name, region| policy.decide(shop, &spec(name, region));
    assert_eq!(decision("a.shop.example.com", "eu-west-1"), Decision::Allowed);
    assert_eq!(decision("a.pay.example.com", "us-east-1"), Decision::Allowed);
    let denials = |name, region| match decision(name, region) {
        Decision::Denied(said) => {
            for secret in ["shop.example", "pay.example", "secret", "names", "Z1"] {
                assert!(!said.replace(name, "").contains(secret), "{said}");
            }
            said
        }
        other => panic!("{other:?}"),
    };
    // The message names a part that no rule allows, and no other part.
    let said = denials("a.secret.example.com", "us-east-1");
    assert!(
        said.starts_with("spec.domainName: a.secret.example.com: does not fit"),
        "{said}"
    );
    let said = denials("a.example.com", "eu-north-1");
    assert!(
        said.starts_with("spec.domainName: a.example.com; spec.aws.region: eu-north-1: does not"),
        "{said}"
    );
    // Some rule allows each part, but no rule allows both.
    let said = denials("a.shop.example.com", "us-east-1");
    assert!(
        said.starts_with("spec.aws.region: us-east-1: does not fit the operator's policy together with"),
        "{said}"
    );

    let without_rule = policy.decide(
        Namespace {
            name: "x",
            labels: None,
        },
        &[],
    );
    assert!(
        matches!(&without_rule, Decision::Denied(said) if said.contains("no rule for this namespace")),
        "{without_rule:?}"
    );
    // An unknown zone does not hide a part that fits no rule.
    let zone = access_request("zone", Resource::Zone(None));
    let with_zone = |name, region| {
        policy.decide(
            shop,
            &[&spec(name, region)[..], std::slice::from_ref(&zone)].concat(),
        )
    };
    assert_eq!(with_zone("a.shop.example.com", "eu-west-1"), Decision::Allowed);
    assert_eq!(
        with_zone("a.pay.example.com", "us-east-1"),
        Decision::Unknown(Missing::Resource)
    );
    assert!(matches!(
        with_zone("a.example.com", "us-east-1"),
        Decision::Denied(_)
    ));
}

#[test]
fn namespaces_by_name_and_by_label() {
    let selects = |selector: &str, labels: Option<&BTreeMap<String, String>>| {
        let policy = policy(&format!("rules: [{{name: a, namespaces: {selector}}}]"));
        policy.decide(Namespace { name: "shop", labels }, &[])
    };
    let (ours, theirs) = (
        labels(&[("team", "shop"), ("x", "y")]),
        labels(&[("team", "pay")]),
    );
    for selector in ["{}", "{names: [shop, other]}", "{matchLabels: {}}"] {
        assert_eq!(selects(selector, Some(&theirs)), Decision::Allowed, "{selector}");
    }
    assert_eq!(selects("{}", None), Decision::Allowed);
    assert_eq!(
        selects("{matchLabels: {team: shop}}", Some(&ours)),
        Decision::Allowed
    );
    assert_eq!(
        selects("{matchLabels: {team: shop}}", None),
        Decision::Unknown(Missing::Labels)
    );
    for (selector, labels) in [
        ("{names: [other]}", &ours),
        ("{names: []}", &ours),
        ("{matchLabels: {team: shop}}", &theirs),
        ("{matchLabels: {team: shop, more: x}}", &ours),
        ("{matchLabels: {team: shop}, names: [other]}", &ours),
    ] {
        assert!(
            matches!(selects(selector, Some(labels)), Decision::Denied(_)),
            "{selector}"
        );
    }
    assert!(matches!(
        selects("{matchLabels: {team: shop}, names: [other]}", None),
        Decision::Denied(_)
    ));
}

#[test]
fn a_message_lists_ten_parts_and_counts_the_rest() {
    let policy = policy("rules: [{name: a, namespaces: {}, domainSuffixes: []}]");
    let all: Vec<_> = (0..99)
        .map(|n| access_request(&format!("name {n}"), Resource::Name(format!("n{n}.example.com"))))
        .collect();
    let Decision::Denied(said) = policy.decide(
        Namespace {
            name: "a",
            labels: None,
        },
        &all,
    ) else {
        panic!()
    };
    assert!(said.contains("name 9; and 89 more"), "{said}");
}

#[test]
fn the_external_id_is_the_roles_own() {
    let policy = policy(
        "rules: [{name: a, namespaces: {}, roles: [\
         {arn: \"arn:aws:iam::123456789012:role/a\", externalId: x}, \
         {arn: \"arn:aws:iam::123456789012:role/b\"}]}]",
    );
    assert_eq!(policy.external_id("arn:aws:iam::123456789012:role/a"), Some("x"));
    assert_eq!(policy.external_id("arn:aws:iam::123456789012:role/b"), None);
}

fn some_name() -> impl Strategy<Value = String> {
    prop::collection::vec("[ab]{1,2}", 1..4).prop_map(|labels| labels.join("."))
}

fn some_rule() -> impl Strategy<Value = (Option<Vec<String>>, Option<Vec<String>>)> {
    let list = |one| prop::option::of(prop::collection::vec(one, 0..3));
    (list(some_name().boxed()), list("(Z1|Z2|Z3)".boxed()))
}

proptest! {
    /// A larger spec never fits where a smaller spec does not. An unknown zone makes the decision Unknown
    /// unless known facts decide. A further rule never removes a permission.
    #[test]
    fn fitting_is_monotone(
        rules in prop::collection::vec(some_rule(), 0..4),
        names in prop::collection::vec(some_name(), 0..3),
        zone in prop::option::of("(Z1|Z2|Z3)"),
    ) {
        let rules: Vec<Rule> = rules.into_iter().enumerate().map(|(n, (suffixes, zones))| {
            let mut rule = policy("rules: [{name: x, namespaces: {}}]").rules.remove(0);
            rule.name = n.to_string();
            rule.domain_suffixes = suffixes;
            rule.hosted_zone_ids = zones;
            rule
        }).collect();
        let namespace = Namespace { name: "n", labels: None };
        let of_name = |name: &String| access_request(name, Resource::Name(name.clone()));
        let mut requests: Vec<_> = names.iter().map(of_name).collect();
        requests.push(access_request("zone", Resource::Zone(zone.clone())));
        let whole = Policy { rules: rules.clone() };
        let decision = whole.decide(namespace, &requests);

        // Computes the decision as the documentation words it.
        let allows = |rule: &Rule| {
            let below = |name: &String, suffix: &String| {
                let [name, suffix] = [name, suffix].map(|text| text.split('.').collect::<Vec<_>>());
                name.ends_with(&suffix)
            };
            let (suffixes, zones) = (&rule.domain_suffixes, &rule.hosted_zone_ids);
            let fits = |name: &String| {
                suffixes.as_ref().is_none_or(|all| all.iter().any(|suffix| below(name, suffix)))
            };
            names.iter().all(fits)
                && zone.as_ref().is_none_or(|zone| zones.as_ref().is_none_or(|all| all.contains(zone)))
        };
        let certain = |rule: &&Rule| allows(rule) && (zone.is_some() || rule.hosted_zone_ids.is_none());
        let by_hand = match (rules.iter().any(|r| certain(&r)), rules.iter().any(allows)) {
            (true, _) => "Allowed",
            (false, true) => "Unknown",
            (false, false) => "Denied",
        };
        prop_assert!(format!("{decision:?}").starts_with(by_hand), "{decision:?}, by hand {by_hand}");
        for n in 0..requests.len() {
            let less = whole.decide(namespace, &requests[..n]);
            prop_assert!(decision != Decision::Allowed || less == Decision::Allowed);
        }
        for n in 0..rules.len() {
            let fewer = Policy { rules: rules[..n].to_vec() }.decide(namespace, &requests);
            prop_assert!(fewer != Decision::Allowed || decision == Decision::Allowed);
        }
    }
}
