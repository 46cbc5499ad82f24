//! Watches of every kind that a controller depends on. Reads only.

use std::collections::BTreeSet;

use futures::{StreamExt, future};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::{Client, Resource, api::PartialObjectMeta};
use tokio::{runtime::Handle, task::JoinSet};

use crate::{
    api::{ClientCertificate, ClientGrant, MtlsDomain},
    grants::index,
    issuance::desired::RENEW,
    policy::follow::InForce,
    runtime::{
        finalizer, trim,
        watch::{Cached, Synced, Watch},
    },
    telemetry::cache_metrics::Caches,
    trust::{generated_authority, self_signed::TRUSTED_BY},
};

/// Watches, shared by all controllers.
pub struct Watches {
    pub domains: Watch<Cached<MtlsDomain>>,
    pub certificates: Watch<Cached<ClientCertificate>>,
    pub grants: Watch<Cached<ClientGrant>>,
    pub secrets: Watch<PartialObjectMeta<Secret>>,
    pub config_maps: Watch<PartialObjectMeta<ConfigMap>>,
    /// Empty until a policy or a grant selects namespaces by label: the watch needs a permission that Roles
    /// cannot grant.
    pub namespaces: Watch<PartialObjectMeta<Namespace>>,
    /// One for each watch that a reconcile has to wait for.
    pub synced: Vec<Synced>,
}

impl Watches {
    /// Starts the watches of these namespaces, of all if there are none, as tasks of `background` on `runtime`,
    /// whose client `client` is.
    pub fn start(
        client: &Client,
        ns: &[String],
        policy: &InForce,
        background: &mut JoinSet<()>,
        runtime: &Handle,
    ) -> Watches {
        let (domains, drive_domains) = Watch::new(client, ns, trim_domain);
        let (certificates, drive_certificates) = Watch::new(client, ns, trim_certificate);
        let (grants, drive_grants) = Watch::new(client, ns, |grant| trim::own_kind(grant, |_| false));
        let (secrets, drive_secrets) = Watch::new(client, ns, |secret: &mut PartialObjectMeta<Secret>| {
            secret.types = None; // the same for each of thousands
            trim::identity_and(TRUSTED_BY, secret);
        });
        // Specs select ConfigMaps and Namespaces by any label.
        let (config_maps, drive_maps) = Watch::new(client, ns, trim_labelled::<ConfigMap>);
        let (namespaces, drive_namespaces) = Watch::of_cluster(client, trim_labelled::<Namespace>);
        let mut watches = Watches {
            synced: Vec::new(),
            domains,
            certificates,
            grants,
            secrets,
            config_maps,
            namespaces,
        };
        watches.synced = vec![
            watches.domains.synced(),
            watches.certificates.synced(),
            watches.secrets.synced(),
            watches.config_maps.synced(),
            watches.grants.synced(),
        ];
        if policy.borrow().as_ref().is_some_and(|p| p.needs_labels()) {
            watches.synced.push(watches.namespaces.synced());
        }
        let by_label = watches
            .grants
            .subscribe()
            .filter(|g| future::ready(index::needs_labels(g)));
        let drive_namespaces = when_labels_are_needed(policy.clone(), by_label.boxed(), drive_namespaces);
        background.spawn_on(drive_namespaces, runtime);
        for drive in [
            drive_domains,
            drive_certificates,
            drive_secrets,
            drive_maps,
            drive_grants,
        ] {
            background.spawn_on(drive, runtime);
        }
        watches
    }

    /// Returns the metric of the caches' sizes.
    pub fn sizes(&self) -> Caches {
        Caches::default()
            .with(self.domains.store())
            .with(self.certificates.store())
            .with(self.grants.store())
            .with_metadata(self.secrets.store())
            .with_metadata(self.config_maps.store())
            .with_metadata(self.namespaces.store())
    }
}

/// Keeps the annotations that decide something: placement, release, and the records of the generated keys of
/// its authorities.
fn trim_domain(domain: &mut Cached<MtlsDomain>) {
    let authorities = domain.0.iter().flat_map(|d| &d.spec.trust.authorities);
    let records: BTreeSet<_> = authorities
        .map(|a| generated_authority::annotation(&a.name))
        .collect();
    trim::own_kind(domain, |name| {
        [finalizer::PLACEMENT, finalizer::ABANDON].contains(&name) || records.contains(name)
    });
}

fn trim_certificate(certificate: &mut Cached<ClientCertificate>) {
    trim::own_kind(certificate, |name| name == RENEW);
}

fn trim_labelled<K: Resource<DynamicType = ()>>(object: &mut PartialObjectMeta<K>) {
    object.types = None;
    trim::identity_and_labels(object);
}

/// Drives the watch of namespaces from the moment on that the policy or a grant selects them by label.
async fn when_labels_are_needed<T>(
    mut policy: InForce,
    mut by_label: impl futures::Stream<Item = T> + Unpin,
    drive: impl Future<Output = ()>,
) {
    tokio::select! {
        Ok(_) = policy.wait_for(|p| p.as_ref().is_some_and(|p| p.needs_labels())) => {}
        Some(_) = by_label.next() => {}
        else => return,
    }
    // The subscription has served its purpose, and unread events accumulate.
    drop(by_label);
    drive.await;
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::json;

    #[test]
    fn a_domain_keeps_the_annotations_that_decide_something() {
        let mut domain: Cached<MtlsDomain> = serde_json::from_value(json!({
            "apiVersion": "mtls-operator.io/v1alpha1", "kind": "MtlsDomain",
            "metadata": {
                "name": "partners", "namespace": "platform", "labels": {"app": "x"},
                "annotations": {
                    "x": "y".repeat(1000), "mtls-operator.io/home": "1/eu-west-1",
                    "mtls-operator.io/abandon": "partners", "mtls-operator.io/generated.main": "ab",
                    "mtls-operator.io/generated.other": "ab", "mtls-operator.io/renew": "now",
                },
            },
            "spec": {
                "domainName": "mtls.example.com",
                "trust": {"authorities": [{"name": "main", "generate": {}}], "issuingAuthority": "main"},
                "mappings": [{"path": "", "api": {"id": "a1b2c3d4e5", "stage": "prod"}}],
            },
        }))
        .unwrap();
        trim_domain(&mut domain);
        assert!(domain.0.is_ok(), "{domain:?}");
        let kept = json!({
            "name": "partners", "namespace": "platform",
            "annotations": {
                "mtls-operator.io/home": "1/eu-west-1", "mtls-operator.io/abandon": "partners",
                "mtls-operator.io/generated.main": "ab",
            },
        });
        assert_eq!(serde_json::to_value(domain.meta()).unwrap(), kept);
    }

    #[test]
    fn a_certificate_keeps_the_request_to_renew() {
        let mut invalid: Cached<ClientCertificate> = serde_json::from_value(json!({
            "apiVersion": "mtls-operator.io/v1alpha1", "kind": "ClientCertificate",
            "metadata": {"name": "c", "annotations": {"x": "y", "mtls-operator.io/renew": "now"}},
            "spec": "broken",
        }))
        .unwrap();
        trim_certificate(&mut invalid);
        assert!(invalid.0.is_err());
        let kept = json!({"name": "c", "annotations": {"mtls-operator.io/renew": "now"}});
        assert_eq!(serde_json::to_value(invalid.meta()).unwrap(), kept);
    }
}
