//! Conflicts between self-signed certificates of one domain with the same subject, which API Gateway accepts
//! only once: the older object wins. Pure.

use kube::ResourceExt;

use crate::api::{ClientCertificate, Issuance};

/// Returns the object that wins the conflict about `me`'s subject; `None` when `me` wins.
pub fn winner<'a>(
    me: &ClientCertificate,
    all: impl IntoIterator<Item = &'a ClientCertificate>,
) -> Option<&'a ClientCertificate> {
    let age = |c: &ClientCertificate| (c.creation_timestamp(), c.namespace(), c.name_any());
    all.into_iter()
        .filter(|c| wants_the_same(me, c) && age(c) < age(me))
        .min_by_key(|c| age(c))
}

/// True when the other certificate requests the same subject in the truststore of the same domain.
pub fn wants_the_same(me: &ClientCertificate, other: &ClientCertificate) -> bool {
    other.spec.issuance == Issuance::SelfSigned
        && other.metadata.deletion_timestamp.is_none()
        && other.domain_id() == me.domain_id()
        && other.uid() != me.uid()
        && subject(other) == subject(me)
}

/// Returns the subject as API Gateway and every TLS library compare names: without case and repeated spaces.
fn subject(cert: &ClientCertificate) -> Vec<Vec<String>> {
    let Some(s) = &cert.spec.subject else {
        return vec![];
    };
    let common_name = [s.common_name.clone()];
    let parts: [&[String]; 6] = [
        &common_name,
        &s.organizations,
        &s.organizational_units,
        &s.countries,
        &s.localities,
        &s.provinces,
    ];
    let words = |text: &String| {
        text.split_whitespace()
            .map(str::to_lowercase)
            .collect::<Vec<_>>()
            .join(" ")
    };
    parts
        .into_iter()
        .map(|part| part.iter().map(words).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    use kube::ResourceExt;

    use crate::api::ClientCertificate;

    fn certificate(
        name: &str,
        created: &str,
        common_name: &str,
        domain: &str,
        issuance: &str,
    ) -> ClientCertificate {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "mtls-operator.io/v1alpha1", "kind": "ClientCertificate",
            "metadata": {"name": name, "namespace": "ns", "uid": name, "creationTimestamp": created},
            "spec": {
                "domainRef": {"name": domain}, "issuance": issuance, "subject": {"commonName": common_name}
            },
        }))
        .unwrap()
    }

    #[test]
    fn the_older_certificate_wins_the_conflict() {
        let (one, two) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let mut gone = certificate("gone", one, "fourth", "d", "SelfSigned");
        gone.metadata.deletion_timestamp = gone.metadata.creation_timestamp.clone();
        let all = [
            certificate("b", one, "Client  1", "d", "SelfSigned"),
            certificate("a", two, "client 1", "d", "SelfSigned"),
            certificate("c", two, "client 1", "other", "SelfSigned"),
            certificate("d", one, "client 2", "d", "SelfSigned"),
            certificate("e", one, "client 3", "d", "Authority"),
            certificate("f", two, "client 3", "d", "SelfSigned"),
            gone,
            certificate("g", two, "fourth", "d", "SelfSigned"),
        ];
        let refused: Vec<_> = all
            .iter()
            .filter(|c| winner(c, &all).is_some())
            .map(|c| c.name_any())
            .collect();
        assert_eq!(refused, ["a"]);
    }
}
