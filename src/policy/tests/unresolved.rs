//! Tests of a placement that AWS has not confirmed yet.

use super::*;

#[test]
fn an_unresolved_placement_is_never_allowed() {
    let known = [
        access_request("name", Resource::Name("a.example.com".into())),
        access_request("region", Resource::Region("eu-west-1".into())),
        access_request("account", Resource::Account("123456789012".into())),
        access_request("object", object("bkt", "k")),
    ];
    let (unresolved, shop) = (
        access_request("unresolved", Resource::Unresolved),
        Namespace {
            name: "shop",
            labels: None,
        },
    );
    for (rule, fits) in [
        ("adoption: Never", true),
        ("regions: [eu-west-1]", true),
        ("accounts: [\"123456789012\"]", true),
        ("buckets: [{name: bkt}]", true),
        ("domainSuffixes: [example.org]", false),
        ("regions: []", false),
        ("accounts: []", false),
        ("buckets: [{name: other}]", false),
    ] {
        let policy = policy(&format!("rules:\n- name: a\n  namespaces: {{}}\n  {rule}"));
        // Unknown Region, account or bucket: the request for it is missing.
        for left_out in 0..=known.len() {
            let requests: Vec<_> = known
                .iter()
                .enumerate()
                .filter(|(n, _)| *n != left_out)
                .map(|(_, r)| r.clone())
                .chain([unresolved.clone()])
                .collect();
            let all_known = policy.decide(shop, &requests[..requests.len() - 1]);
            match (policy.decide(shop, &requests), all_known) {
                (Decision::Unknown(Missing::Resource), Decision::Allowed) => {}
                (Decision::Denied(said), Decision::Denied(of_known)) => {
                    assert!(!fits, "{rule}");
                    assert_eq!(said, of_known, "a message names only what no rule allows");
                }
                other => panic!("{rule}, without {left_out}: {other:?}"),
            }
        }
    }
    // A rule that may apply does not hide that AWS has to answer first.
    let policy = policy("rules: [{name: a, namespaces: {}}, {name: b, namespaces: {matchLabels: {x: y}}}]");
    let decision = policy.decide(shop, &[unresolved]);
    assert_eq!(decision, Decision::Unknown(Missing::Resource));
}
