//! Conflicts between objects with the same domain name: the older object that may be served has the name, the
//! other one makes no AWS call. Pure.

use kube::ResourceExt;

use crate::{
    api::{MtlsDomain, conditions::Reason},
    runtime::finalizer,
    status::Acceptance,
};

/// Returns the object that has the claim on `me`'s domain name, when that is another object: the oldest one
/// without those that have no claim. `own_region` is the operator's own Region, which applies to an object that
/// specifies none.
pub(crate) fn winner<'a>(
    me: &MtlsDomain,
    all: impl IntoIterator<Item = &'a MtlsDomain>,
    has_no_claim: impl Fn(&MtlsDomain) -> bool,
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
        .filter(|d| age(d) < age(me) && !has_no_claim(d))
        .min_by_key(|d| age(d))
}

/// False for an object that will not be served as it is, and has no custom domain: a suspended one that was
/// not served before, and a deleted one that the operator has released. A suspended object with a custom
/// domain, by the operator's status, keeps the name.
pub(crate) fn may_hold_its_name(domain: &MtlsDomain) -> bool {
    let has_custom_domain = || {
        let status = domain.status.as_ref();
        status.is_some_and(|status| status.target_domain_name.is_some())
    };
    let is_released = domain.metadata.deletion_timestamp.is_some() && !finalizer::is_held(domain);
    !is_released && (!domain.spec.suspend || has_custom_domain())
}

/// Returns the refusal of `domain`, whose domain name `winner` has the claim on.
pub(crate) fn refusal(domain: &MtlsDomain, winner: &MtlsDomain) -> Acceptance {
    // A namespace must not learn which other namespace has the domain name.
    let who = if winner.namespace() == domain.namespace() {
        format!("the older MtlsDomain {}", winner.name_any())
    } else {
        "an older MtlsDomain".into()
    };
    Acceptance::Refused {
        reason: Reason::DomainNameClaimed,
        message: format!("spec.domainName: {who} has {} already", domain.spec.domain_name),
        stalled: false,
    }
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
        let winner = |me, without: &str| {
            let has_no_claim = |d: &MtlsDomain| d.namespace().as_deref() == Some(without);
            super::winner(me, &all, has_no_claim, "eu-west-1")
        };
        assert_eq!(winner(&old, ""), None);
        assert_eq!(winner(&young, ""), Some(&old));
        assert_eq!(winner(&twin, ""), Some(&old));
        assert_eq!(winner(&young, "b"), Some(&twin), "the oldest one has no claim");
        assert_eq!(winner(&twin, "b"), None);
        assert_eq!(winner(&young, "a"), Some(&old), "its own claim does not count");
    }

    #[test]
    fn objects_in_different_regions_do_not_conflict() {
        let old = domain("b", "2026-01-01T00:00:00Z", "a.example.com");
        let mut young = domain("a", "2026-01-02T00:00:00Z", "a.example.com");
        young.spec.aws = serde_json::from_value(serde_json::json!({"region": "us-east-1"})).unwrap();
        assert_eq!(winner(&young, [&old], |_| false, "eu-west-1"), None);
        assert_eq!(winner(&young, [&old], |_| false, "us-east-1"), Some(&old));
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
        let told = |winner: &MtlsDomain| match refusal(&me, winner) {
            Acceptance::Refused {
                reason: Reason::DomainNameClaimed,
                message,
                stalled: false,
            } => message,
            other => panic!("{other:?}"),
        };
        let message = |who: &str| format!("spec.domainName: {who} has a.example.com already");
        assert_eq!(told(&winner), message("the older MtlsDomain older"));
        assert_eq!(
            told(&cross_namespace),
            message("an older MtlsDomain"),
            "the name of an object in another namespace is not disclosed"
        );
    }

    #[test]
    fn an_object_that_is_not_served_as_it_is_holds_its_name_only_with_a_custom_domain() {
        let held = &["mtls-operator.io/cleanup"][..];
        let others = &["other/one"][..];
        for (what, suspended, deleted, finalizers, has_custom_domain, expected) in [
            ("new", false, false, &[][..], false, true),
            ("served", false, false, held, true, true),
            ("suspended before it was served", true, false, &[], false, false),
            (
                "suspended, with a finalizer that anyone can write",
                true,
                false,
                held,
                false,
                false,
            ),
            ("suspended while it was served", true, false, held, true, true),
            ("being deleted", false, true, held, true, true),
            ("being deleted, with little left", false, true, held, false, true),
            (
                "deleted, and kept by the finalizer of another",
                false,
                true,
                others,
                true,
                false,
            ),
            ("deleted and suspended", true, true, held, true, true),
            (
                "deleted and suspended before it was served",
                true,
                true,
                held,
                false,
                false,
            ),
        ] {
            let mut d = domain("shop", "2026-01-01T00:00:00Z", "a.example.com");
            d.spec.suspend = suspended;
            d.metadata.finalizers = Some(finalizers.iter().map(|&f| f.into()).collect());
            if deleted {
                d.metadata.deletion_timestamp = d.metadata.creation_timestamp.clone();
            }
            if has_custom_domain {
                d.status.get_or_insert_default().target_domain_name = Some("d-1.example.net".into());
            }
            assert_eq!(may_hold_its_name(&d), expected, "{what}");
        }
    }
}
