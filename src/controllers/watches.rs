//! Watches of every kind that a controller depends on. Reads only.

use futures::{StreamExt, future};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::{Client, api::PartialObjectMeta};
use tokio::{runtime::Handle, task::JoinSet};

use crate::{
    api::{ClientCertificate, ClientGrant, MtlsDomain},
    grants::index,
    policy::follow::InForce,
    runtime::watch::{self, Cached, Synced, Watch},
    trust::self_signed::TRUSTED_BY,
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
        let (domains, drive_domains) = Watch::new(client, ns, watch::all_of_it);
        let (certificates, drive_certificates) = Watch::new(client, ns, watch::all_of_it);
        let (grants, drive_grants) = Watch::new(client, ns, watch::all_of_it);
        let (secrets, drive_secrets) = Watch::new(client, ns, |secret: &mut PartialObjectMeta<Secret>| {
            secret.types = None; // the same for each of thousands
            watch::identity_and(TRUSTED_BY, secret);
        });
        // Specs select ConfigMaps by any label.
        let (config_maps, drive_maps) = Watch::new(client, ns, watch::all_of_it);
        let (namespaces, drive_namespaces) = Watch::of_cluster(client, watch::all_of_it);
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
