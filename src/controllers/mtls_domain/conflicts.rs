//! Conflicts between objects with the same domain name: the older object has the name, the other one makes no
//! AWS call. Pure.

use kube::ResourceExt;

use crate::api::MtlsDomain;

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

#[cfg(test)]
mod tests {
    use super::*;

    use crate::api::MtlsDomain;

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
}
