//! Conflicts between objects with the same domain name: the older object has the name, the other one makes no
//! AWS call. Pure.

use kube::ResourceExt;

use crate::{
    api::{MtlsDomain, conditions::Reason},
    status::Acceptance,
};

/// Returns the object that has the claim on `me`'s domain name, when that is another object. `own_region` is
/// the operator's own Region, which applies to an object that specifies none.
pub fn winner<'a>(
    me: &MtlsDomain,
    all: impl IntoIterator<Item = &'a MtlsDomain>,
    own_region: &str,
) -> Option<&'a MtlsDomain> {
    let place = |d: &MtlsDomain| {
        d.spec
            .aws
            .as_ref()
            .and_then(|a| a.region.clone())
            .unwrap_or_else(|| own_region.to_owned())
    };
    let age = |d: &MtlsDomain| (d.creation_timestamp(), d.namespace(), d.name_any());
    all.into_iter()
        .filter(|d| d.spec.domain_name == me.spec.domain_name && d.uid() != me.uid() && place(d) == place(me))
        .filter(|d| age(d) < age(me))
        .min_by_key(|d| age(d))
}

/// Returns a refusal of `domain` when an older domain of `all` has its domain name. A domain that the policy
/// certainly denies has no claim on the name.
pub(crate) fn contested<'a>(
    domain: &MtlsDomain,
    all: impl Iterator<Item = &'a MtlsDomain>,
    is_refused: impl Fn(&MtlsDomain) -> bool,
    own_region: &str,
) -> Option<Acceptance> {
    let all = all.filter(|d| d.spec.domain_name == domain.spec.domain_name && !is_refused(d));
    let winner = winner(domain, all, own_region)?;
    // A namespace must not learn which other namespace has the domain name.
    let who = if winner.namespace() == domain.namespace() {
        format!("the older MtlsDomain {}", winner.name_any())
    } else {
        "an older MtlsDomain".into()
    };
    Some(Acceptance::Refused {
        reason: Reason::DomainNameClaimed,
        message: format!("spec.domainName: {who} has {} already", domain.spec.domain_name),
        stalled: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::{
        api::{MtlsDomain, conditions::Reason},
        status::Acceptance,
    };

    fn domain(namespace: &str, created: &str, name: &str) -> MtlsDomain {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "mtls-operator.io/v1alpha1", "kind": "MtlsDomain",
            "metadata": {
                "name": "d", "namespace": namespace, "uid": format!("{namespace}-{created}"),
                "creationTimestamp": created,
            },
            "spec": {"domainName": name},
        }))
        .unwrap()
    }

    #[test]
    fn the_older_object_wins_then_the_first_namespace() {
        let (old, young) = (
            domain("b", "2026-01-01T00:00:00Z", "a.example.com"),
            domain("a", "2026-01-02T00:00:00Z", "a.example.com"),
        );
        let twin = domain("c", "2026-01-01T00:00:00Z", "a.example.com");
        let other = domain("a", "2025-01-01T00:00:00Z", "b.example.com");
        let all = [old.clone(), young.clone(), twin.clone(), other];
        assert_eq!(winner(&old, &all, "eu-west-1"), None);
        assert_eq!(winner(&young, &all, "eu-west-1"), Some(&old));
        assert_eq!(winner(&twin, &all, "eu-west-1"), Some(&old));
    }

    #[test]
    fn objects_in_different_regions_do_not_conflict() {
        let old = domain("b", "2026-01-01T00:00:00Z", "a.example.com");
        let mut young = domain("a", "2026-01-02T00:00:00Z", "a.example.com");
        young.spec.aws = serde_json::from_value(serde_json::json!({"region": "us-east-1"})).unwrap();
        assert_eq!(winner(&young, [&old], "eu-west-1"), None);
        assert_eq!(winner(&young, [&old], "us-east-1"), Some(&old));
    }

    #[test]
    fn the_refusal_of_a_name_discloses_no_other_namespace() {
        let with = |name: &'static str, namespace: &'static str, created: &'static str| {
            let mut d = domain(namespace, created, "a.example.com");
            d.metadata.name = Some(name.to_owned());
            d
        };
        let me = with("me", "shop", "2026-01-02T00:00:00Z");
        let winner = with("older", "shop", "2026-01-01T00:00:00Z");
        let cross_namespace = with("older", "acme", "2026-01-01T00:00:00Z");
        let younger = with("younger", "acme", "2026-01-03T00:00:00Z");
        let told = |all: &[&MtlsDomain], refused: &str| {
            let found = contested(&me, all.iter().copied(), |d| d.name_any() == refused, "eu-west-1");
            found.map(|found| match found {
                Acceptance::Refused {
                    reason: Reason::DomainNameClaimed,
                    message,
                    stalled: false,
                } => message,
                other => panic!("{other:?}"),
            })
        };
        let message = |who: &str| Some(format!("spec.domainName: {who} has a.example.com already"));
        assert_eq!(told(&[&me, &younger], ""), None);
        assert_eq!(
            told(&[&me, &winner, &younger], ""),
            message("the older MtlsDomain older")
        );
        assert_eq!(
            told(&[&me, &cross_namespace], ""),
            message("an older MtlsDomain"),
            "the name of an object in another namespace is not disclosed"
        );
        assert_eq!(
            told(&[&me, &winner], "older"),
            None,
            "an object that the policy denies has no claim"
        );
        assert_eq!(told(&[&me, &winner], "me"), message("the older MtlsDomain older"));
    }
}
