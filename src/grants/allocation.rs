//! Grant decisions on the certificates of one domain. Each step is taken once per change of what it depends
//! on: the comparison of a certificate's names with a grant, the certificate's fit to all grants, and the
//! slots of all certificates. Reads no store and no clock.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use jiff::Timestamp;
use kube::ResourceExt;

use super::{
    evaluation::{self, Decision, EvaluationContext, Fit, GrantRequest},
    slots::{Outcome, Slots},
};

use crate::{
    api::{ClientCertificate, ClientGrant, object_id::ObjectId},
    runtime::watch::Cached,
};

/// Order of requests, the oldest first; unique for each certificate.
pub type Age = (Option<Timestamp>, ObjectId);

pub fn age(cert: &ClientCertificate) -> Age {
    (cert.creation_timestamp().map(|t| t.0), ObjectId::of(cert))
}

/// Grant in force that the operator can read, and its number: one for each generation of each grant.
pub struct Numbered {
    pub grant: Arc<Cached<ClientGrant>>,
    pub number: u32,
}

impl Numbered {
    fn grant(&self) -> &ClientGrant {
        self.grant.0.as_ref().expect("a grant that the operator can read")
    }
}

/// Facts around the certificates of a domain.
pub struct Basis {
    grants: Vec<Numbered>,
    limits: Vec<Option<u32>>,
    unreadable: bool,
    issuing: Option<String>,
    /// UID and generation of the domain that `issuing` is from.
    domain: Option<(Option<String>, Option<i64>)>,
    /// Period in which the same grants are over.
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Basis {
    /// `unreadable`: there are further grants, which the operator cannot read and which may be for the
    /// domain.
    pub fn new(
        mut grants: Vec<Numbered>,
        unreadable: bool,
        issuing: Option<String>,
        domain: Option<(Option<String>, Option<i64>)>,
        now: Timestamp,
    ) -> Basis {
        grants.sort_by_key(|g| evaluation::preference(g.grant()));
        let ends = || {
            let ends = grants.iter().map(|g| g.grant().spec.not_after.as_ref());
            ends.flatten().map(|end| end.0)
        };
        Basis {
            limits: grants.iter().map(|g| g.grant().spec.max_certificates).collect(),
            since: ends().filter(|end| *end <= now).max(),
            until: ends().filter(|end| now < *end).min(),
            grants,
            unreadable,
            issuing,
            domain,
        }
    }

    pub fn is_of(&self, domain: Option<(Option<&str>, Option<i64>)>, now: Timestamp) -> bool {
        let known = self.domain.as_ref();
        known.map(|(uid, generation)| (uid.as_deref(), *generation)) == domain
            && self.since.is_none_or(|since| since <= now)
            && self.until.is_none_or(|until| now < until)
    }

    fn context(&self, now: Timestamp) -> EvaluationContext<'_> {
        EvaluationContext {
            grants: self.grants.iter().map(Numbered::grant).collect(),
            issuing: self.issuing.as_deref(),
            now,
        }
    }

    fn decision(&self, outcome: Outcome, fit: &Fit) -> Decision {
        evaluation::decision(outcome, fit, |at| self.grants[at].grant())
    }

    /// Returns a hash of the decision, which changes with the generation of the grant that allows it.
    fn announcement(&self, outcome: Outcome, fit: &Fit) -> u64 {
        let number = |at: usize| self.grants[at].number;
        let mut hasher = DefaultHasher::new();
        match outcome {
            Outcome::Allowed(at) => (0, Some(number(at)), None),
            Outcome::Denied(full) => (1, full.map(number), fit.nearest()),
            Outcome::Unknown(full) => (2, full.map(number), fit.nearest()),
        }
        .hash(&mut hasher);
        hasher.finish()
    }

    /// True when the decision depends on no slot.
    fn is_unlimited(&self, fit: &Fit) -> bool {
        fit.admitting().iter().all(|(at, _)| self.limits[*at].is_none())
    }
}

/// Access to what the watches know, for facts that are read at the first need.
pub struct Sources<'a> {
    pub certificate: &'a dyn Fn(&ObjectId) -> Option<Arc<Cached<ClientCertificate>>>,
    pub labels: &'a dyn Fn(&str) -> Option<BTreeMap<String, String>>,
    pub now: Timestamp,
}

/// Certificate that requests something of the domain.
struct Requester {
    uid: Option<String>,
    generation: Option<i64>,
    /// Request of the certificate, once it was read: reading a CSR takes as long as a thousand comparisons.
    /// `Some(None)` when the spec or the CSR cannot be certified.
    request: Option<Option<Box<GrantRequest>>>,
    /// Number of the request's names that a grant does not admit, by the grant's number.
    outside: HashMap<u32, usize>,
    /// `None` after a change of the grants, or of the namespace's labels.
    fit: Option<Fit>,
    outcome: Option<Outcome>,
    /// Hash of the decision that the certificate's reconcile read, or that caused a reconcile, last.
    announced: Option<u64>,
}

impl Requester {
    fn of(cert: &ClientCertificate) -> Requester {
        Requester {
            uid: cert.uid(),
            generation: cert.metadata.generation,
            request: None,
            outside: HashMap::new(),
            fit: None,
            outcome: None,
            announced: None,
        }
    }

    fn is(&self, cert: &ClientCertificate) -> bool {
        (&self.uid, self.generation) == (&cert.metadata.uid, cert.metadata.generation)
    }

    fn read(&mut self, cert: &ClientCertificate) {
        self.request = Some(evaluation::grant_request(cert).ok().map(Box::new));
    }

    /// Returns the fit; `None` when the spec or the CSR cannot be certified.
    fn fit(&mut self, id: &ObjectId, basis: &Basis, sources: &Sources) -> Option<&Fit> {
        if self.request.is_none() {
            self.read((sources.certificate)(id)?.0.as_ref().ok()?);
        }
        let request = self.request.as_ref()?.as_deref()?;
        if self.fit.is_none() {
            if self.outside.len() > basis.grants.len() {
                let numbers: HashSet<_> = basis.grants.iter().map(|g| g.number).collect();
                self.outside.retain(|number, _| numbers.contains(number));
            }
            let outside = |at: usize| {
                let Numbered { number, .. } = basis.grants[at];
                let grant = || &basis.grants[at].grant().spec;
                let count = || evaluation::names_outside(&request.request, grant()).len();
                *self.outside.entry(number).or_insert_with(count)
            };
            let labels = (sources.labels)(&request.namespace);
            let context = basis.context(sources.now);
            self.fit = Some(Fit::of(request, labels.as_ref(), &context, outside));
        }
        self.fit.as_ref()
    }
}

/// Certificates of one domain that need a grant, and their decisions.
#[derive(Default)]
pub struct Allocation {
    requesters: BTreeMap<Age, Requester>,
    /// `None` after a change of the grants.
    basis: Option<Basis>,
    /// True while each requester's outcome holds.
    is_allocated: bool,
    /// True when [`Allocation::changed`] has not yet compared these outcomes.
    is_new_for_certificates: bool,
    /// The same for [`Allocation::changed_grants`].
    is_new_for_grants: bool,
    /// Hash of the certificates of each grant when [`Allocation::changed_grants`] returned it last.
    told: BTreeMap<String, u64>,
}

impl Allocation {
    /// True when there is nothing to decide, and no grant that a change is to be told of.
    pub fn is_empty(&self) -> bool {
        self.requesters.is_empty() && self.told.is_empty()
    }

    /// Adds the certificate, or takes over its change.
    pub fn put(&mut self, cert: &ClientCertificate) {
        let mut new = Requester::of(cert);
        let age = age(cert);
        match self.requesters.get(&age) {
            Some(known) if known.is(cert) => return,
            known => new.announced = known.and_then(|known| known.announced),
        }
        self.requesters.insert(age, new);
        self.is_allocated = false;
    }

    pub fn remove(&mut self, age: &Age) {
        self.is_allocated &= self.requesters.remove(age).is_none();
    }

    /// Drops what depends on the labels of the certificate's namespace.
    pub fn labels_changed(&mut self, age: &Age) {
        if let Some(requester) = self.requesters.get_mut(age) {
            requester.fit = None;
            self.is_allocated = false;
        }
    }

    /// Drops what depends on the grants.
    pub fn grants_changed(&mut self) {
        self.basis = None;
    }

    pub fn basis(&self) -> Option<&Basis> {
        self.basis.as_ref()
    }

    pub fn set_basis(&mut self, basis: Basis) {
        self.basis = Some(basis);
        self.is_allocated = false;
        self.requesters.values_mut().for_each(|r| r.fit = None);
    }

    /// Decides on a certificate, whether it is [`put`](Self::put) or not. Returns `None` when its spec or CSR
    /// cannot be certified.
    pub fn decide(&mut self, cert: &ClientCertificate, sources: &Sources) -> Option<Decision> {
        let (age, basis) = (age(cert), self.basis.as_ref()?);
        if let Some(requester) = self.requesters.get_mut(&age).filter(|r| r.is(cert)) {
            let fit = requester.fit(&age.1, basis, sources)?;
            if basis.is_unlimited(fit) {
                return Some(basis.decision(Slots::new(&[], basis.unreadable).take(fit), fit));
            }
            self.allocate(sources);
            let (basis, requester) = (self.basis.as_ref()?, self.requesters.get(&age)?);
            return Some(basis.decision(requester.outcome?, requester.fit.as_ref()?));
        }
        let mut other = Requester::of(cert);
        other.read(cert);
        let fit = other.fit(&age.1, basis, sources)?;
        let mut slots = Slots::new(&basis.limits, basis.unreadable);
        if !basis.is_unlimited(fit) {
            for (age, older) in self.requesters.range_mut(..&age) {
                if let Some(fit) = older.fit(&age.1, basis, sources) {
                    slots.take(fit);
                }
            }
        }
        Some(basis.decision(slots.take(fit), fit))
    }

    /// Returns every certificate with its decision, the oldest first.
    pub fn all(&mut self, sources: &Sources) -> Vec<(ObjectId, Decision)> {
        self.allocated(sources)
            .map(|(basis, age, outcome, fit)| (age.1.clone(), basis.decision(outcome, fit)))
            .collect()
    }

    /// Returns the certificates that the grant allows.
    pub fn covered(&mut self, grant: &str, sources: &Sources) -> Vec<ObjectId> {
        let is_by_it = |basis: &Basis, outcome| match outcome {
            Outcome::Allowed(at) => basis.grants[at].grant().metadata.name.as_deref() == Some(grant),
            _ => false,
        };
        self.allocated(sources)
            .filter(|(basis, _, outcome, _)| is_by_it(basis, *outcome))
            .map(|(_, age, ..)| age.1.clone())
            .collect()
    }

    /// Decides on a certificate for its own reconcile, so that [`changed`](Self::changed) returns the
    /// certificate only when it is to be reconciled again.
    pub fn announce(&mut self, cert: &ClientCertificate, sources: &Sources) -> Option<Decision> {
        let decision = self.decide(cert, sources)?;
        let basis = self.basis.as_ref()?;
        if let Some(requester) = self.requesters.get_mut(&age(cert)).filter(|r| r.is(cert)) {
            let (outcome, fit) = (requester.outcome, requester.fit.as_ref()?);
            let alone = || Slots::new(&[], basis.unreadable).take(fit);
            let outcome = if basis.is_unlimited(fit) {
                alone()
            } else {
                outcome?
            };
            requester.announced = Some(basis.announcement(outcome, fit));
        }
        Some(decision)
    }

    /// Returns the certificates whose decision differs from the one at their last reconcile, or at the last
    /// call.
    pub fn changed(&mut self, sources: &Sources) -> Vec<ObjectId> {
        self.allocate(sources);
        let Some(basis) = self
            .basis
            .as_ref()
            .filter(|_| std::mem::take(&mut self.is_new_for_certificates))
        else {
            return vec![];
        };
        let mut changed = Vec::new();
        for (age, requester) in &mut self.requesters {
            if let Some((outcome, fit)) = requester.outcome.zip(requester.fit.as_ref()) {
                let announced = Some(basis.announcement(outcome, fit));
                if std::mem::replace(&mut requester.announced, announced) != announced {
                    changed.push(age.1.clone());
                }
            }
        }
        changed
    }

    /// Returns the names of the grants that allow other certificates than at the last call.
    pub fn changed_grants(&mut self, sources: &Sources) -> BTreeSet<String> {
        self.allocate(sources);
        let Some(basis) = self
            .basis
            .as_ref()
            .filter(|_| std::mem::take(&mut self.is_new_for_grants))
        else {
            return BTreeSet::new();
        };
        let mut members = vec![None; basis.grants.len()];
        for (age, requester) in &self.requesters {
            if let Some(Outcome::Allowed(at)) = requester.outcome {
                age.hash(members[at].get_or_insert_with(DefaultHasher::new));
            }
        }
        let names = basis.grants.iter().map(|g| g.grant().name_any()).zip(members);
        let now: BTreeMap<_, _> = names
            .filter_map(|(name, members)| Some((name, members?.finish())))
            .collect();
        let before = std::mem::replace(&mut self.told, now);
        let differs = |name: &&String| before.get(*name) != self.told.get(*name);
        let names = before.keys().chain(self.told.keys());
        names.filter(differs).cloned().collect()
    }

    /// Allocates, and returns each certificate that can be certified, the oldest first.
    fn allocated(&mut self, sources: &Sources) -> impl Iterator<Item = (&Basis, &Age, Outcome, &Fit)> {
        self.allocate(sources);
        self.basis.iter().flat_map(|basis| {
            let each = self.requesters.iter();
            each.filter_map(move |(age, r)| Some((basis, age, r.outcome?, r.fit.as_ref()?)))
        })
    }

    fn allocate(&mut self, sources: &Sources) {
        let Some(basis) = self.basis.as_ref().filter(|_| !self.is_allocated) else {
            return;
        };
        let mut slots = Slots::new(&basis.limits, basis.unreadable);
        for (age, requester) in &mut self.requesters {
            requester.outcome = requester.fit(&age.1, basis, sources).map(|fit| slots.take(fit));
        }
        self.is_allocated = true;
        (self.is_new_for_certificates, self.is_new_for_grants) = (true, true);
    }
}
