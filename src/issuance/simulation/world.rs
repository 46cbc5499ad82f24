//! Model of the world around one certificate: its Secrets, its issuer, and the truststore of its domain. The
//! model runs the planner as the controller does.

use std::sync::Arc;

use futures::FutureExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    issuance::{
        action::Action,
        desired::{self, Desired},
        execute,
        issuer::Issuer,
        known_key::known_key,
        observed::{Held, Observed, Past},
        pace::record::Pace,
        plan::{Plan, plan},
        self_signed,
    },
    pki::{
        authority::tests::{at, issuer},
        certificate::Certificate,
        inspect::SecretData,
        keys::DesiredKey,
        truststore::{Bundle, Entry},
    },
    trust::active_trust::Trust,
};

pub const DAY: SignedDuration = SignedDuration::from_hours(24);
pub const PROPAGATION: SignedDuration = SignedDuration::from_secs(90);

pub fn spec(change: impl FnOnce(&mut Value)) -> Desired {
    let mut object = json!({
        "apiVersion": "mtls-operator.io/v1alpha1", "kind": "ClientCertificate",
        "metadata": {"name": "client1", "namespace": "ns", "uid": "u"},
        "spec": {"domainRef": {"name": "partners"}, "subject": {"commonName": "client1"}},
    });
    change(&mut object);
    desired::desired(&serde_json::from_value(object).unwrap(), None, None).unwrap()
}

pub fn signing_itself() -> Desired {
    spec(|o| o["spec"]["issuance"] = json!("SelfSigned"))
}

/// Relevant parts of a Secret.
#[derive(Clone)]
pub struct StoredSecret {
    pub data: SecretData,
    pub revision: i64,
    pub renewed: Option<String>,
    /// True when another writer wrote the data.
    pub overwritten: bool,
}

impl StoredSecret {
    pub fn held(&self) -> Held {
        Held {
            data: self.data.clone(),
            ours: true,
            revision: self.revision,
            renewed: self.renewed.clone(),
            keystore_fits: false,
            has_keystore: false,
            writers: self.overwritten.then(|| "other".to_owned()).into_iter().collect(),
            found: Secret::default(),
        }
    }
}

/// Point of a reconcile at which the process dies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Crash {
    No,
    /// Before the write of an issued leaf.
    BeforeWrite,
    /// After the write into the Secret, before the deletion of the staged Secret.
    AfterWrite,
}

pub fn crash() -> impl Strategy<Value = Crash> {
    prop_oneof![Just(Crash::No), Just(Crash::BeforeWrite), Just(Crash::AfterWrite)]
}

pub struct World {
    pub now: Timestamp,
    pub issuer: Issuer,
    pub d: Desired,
    pub secret: Option<StoredSecret>,
    pub next: Option<StoredSecret>,
    pub trust: Option<Trust>,
    /// Contents of the truststore in use.
    pub bundle: Bundle,
    /// Revision in the status.
    pub revision: i64,
    pub issued: usize,
    /// Number of writes of Secrets.
    pub written: usize,
    pub pace: Pace,
    /// Number of certificates that were made, also of those that still wait in the staged Secret.
    pub staged: usize,
    /// Ends of the certificates in the status.
    pub superseded: Vec<Timestamp>,
}

impl World {
    pub fn new(d: Desired) -> World {
        let now = at("2026-11-24T12:00:00Z");
        let issuer = Issuer::SecretKey(Arc::new(issuer("Partners", now)));
        World {
            now,
            issuer,
            d,
            secret: None,
            next: None,
            trust: None,
            bundle: Bundle::default(),
            revision: 0,
            issued: 0,
            written: 0,
            pace: Pace::default(),
            staged: 0,
            superseded: vec![],
        }
    }

    pub fn leaf(&self) -> Option<Certificate> {
        self.secret.as_ref()?.held().leaf()
    }

    pub fn observed(&self) -> Observed {
        Observed {
            domain_gone: false,
            issuer: Ok((!self.d.self_signed).then(|| self.issuer.clone())),
            secret: self.secret.as_ref().map(StoredSecret::held),
            next: self.next.as_ref().map(StoredSecret::held),
            past: Past {
                last_revision: self.revision,
                superseded: self.superseded.clone(),
                pace: self.pace.clone(),
            },
            password: None,
            trust: self.trust.clone(),
        }
    }

    pub fn plan(&self) -> Plan {
        plan(&self.d, &self.observed(), PROPAGATION, self.now)
    }

    /// Publishes the desired truststore of the domain and puts it into use.
    pub fn domain_reconciles(&mut self) {
        let entry = |authority: &str, certificate: Certificate, max_leaf| Entry {
            authority: authority.to_owned(),
            certificate,
            max_leaf,
            keep_until: None,
        };
        let now = self.now;
        self.bundle.entries.retain(|e| now < e.certificate.not_after);
        let own = [&self.secret, &self.next]
            .into_iter()
            .flatten()
            .filter_map(|kept| kept.held().leaf());
        let mut wanted: Vec<_> = own
            .filter(|leaf| leaf.self_signed)
            .map(|leaf| entry(&self.d.entry, leaf, None))
            .collect();
        wanted.push(entry(
            "partners",
            self.issuer.chain().authority().clone(),
            Some(DAY * 90),
        ));
        for wanted in wanted {
            let taken = |e: &Entry| e.certificate.subject_key == wanted.certificate.subject_key;
            if !self.bundle.entries.iter().any(taken) {
                self.bundle.entries.push(wanted);
            }
        }
        self.trust = Some(Trust::of(&self.bundle, self.trust.as_ref(), now));
    }

    /// Reconciles the certificate. `crash`: point at which the process dies.
    pub fn reconcile(&mut self, crash: Crash) -> Plan {
        let plan = self.plan();
        let d = self.d.clone();
        let known = known_key(&d, &self.observed());
        let issued = self.issued;
        let made = plan.cause.filter(|_| crash == Crash::No);
        let writes = !matches!(plan.action, None | Some(Action::Complete));
        self.written += usize::from(writes);
        match &plan.action {
            Some(Action::Issue(_)) => {
                if let (Issuer::Deferred(_), DesiredKey::Made { .. }) = (&self.issuer, &d.key) {
                    let staged = self.next.as_ref().and_then(|next| next.data.tls_key.clone());
                    assert!(known.is_some() && known == staged, "a crash would lose the key");
                }
                let revision = self.observed().revision() + 1;
                let asked = execute::ask(&d.request, &d.key, known, &self.issuer, revision, self.now);
                let answer = asked.now_or_never().unwrap().unwrap();
                if let Some((_, data)) = answer.filter(|_| crash != Crash::BeforeWrite) {
                    self.hand_out(StoredSecret {
                        data,
                        revision,
                        renewed: d.renew.clone(),
                        overwritten: false,
                    });
                    if crash == Crash::No {
                        self.next = None;
                    }
                }
            }
            Some(Action::Stage { revision }) => {
                let data = match d.self_signed {
                    true => {
                        let request = self_signed::request(&d, *revision);
                        execute::sign_itself(&request, &d.key, known, self.now).unwrap().1
                    }
                    false => execute::staged_key(&d.key, known).unwrap(),
                };
                self.next = Some(StoredSecret {
                    data,
                    revision: *revision,
                    renewed: d.renew.clone(),
                    overwritten: false,
                });
            }
            Some(Action::Swap) => {
                let next = self.next.clone().unwrap();
                let since = self.trust.as_ref().unwrap().since(&next.held().leaf().unwrap());
                assert!(
                    since.unwrap() + PROPAGATION <= self.now,
                    "in the Secret before every server trusts it"
                );
                self.hand_out(next);
                if crash == Crash::No {
                    self.next = None;
                }
            }
            Some(Action::Unstage) => self.next = None,
            Some(Action::Complete) | None => {}
        }
        let is_made = match &plan.action {
            Some(Action::Issue(_)) => self.issued > issued,
            Some(Action::Stage { .. }) => d.self_signed,
            _ => false,
        };
        if let Some(cause) = made.filter(|_| is_made) {
            self.pace.issued(cause, self.now);
            self.staged += 1;
        }
        if crash == Crash::No
            && let Some(kept) = &self.secret
        {
            self.revision = kept.revision;
        }
        plan
    }

    pub fn hand_out(&mut self, kept: StoredSecret) {
        self.secret = Some(kept);
        self.issued += 1;
    }

    /// Reconciles until no action is left, as the controllers would. Waits only while the plan has a time for
    /// the next reconcile.
    pub fn settles(&mut self) {
        for _ in 0..20 {
            self.domain_reconciles();
            let plan = self.reconcile(Crash::No);
            if plan.action == Some(Action::Complete) {
                self.serves();
                return;
            }
            self.now = plan
                .requeue_at
                .filter(|again| self.now < *again)
                .unwrap_or(self.now);
        }
        panic!("not settled: {:?}", self.plan());
    }

    pub fn serves(&self) {
        let leaf = self.leaf().expect("a leaf");
        assert!(leaf.not_before <= self.now && self.now < leaf.not_after);
        assert!(self.trust.as_ref().unwrap().accepts(&leaf));
        assert_eq!(leaf.dns_names, self.d.request.dns_names);
    }
}
