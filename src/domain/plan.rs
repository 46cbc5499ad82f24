//! Decides: what is desired and what is there in, what to do next out. Pure and total: no I/O, no clock, no failure.
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{
    desired::{AuthorityWish, Desired, Home, SourceWish, sha256},
    observed::{Api, Key, Observed, Published, Seen, Source, Unseen},
    records::{self, RecordPlan},
};
use crate::{
    api::{AuthorityState, DefaultEndpoint, UnlistedMappings, conditions::Reason},
    aws::{
        acm::{self, CertificateStatus},
        gateway::{Domain, DomainRequest, DomainStatus},
        probe,
        route53::{Change, RecordSet},
    },
    pki::{
        compile::{self, CompileInput, Compiled},
        lint::{self, Severity, SourceError},
        truststore::Bundle,
    },
};

/// The tag on certificates and domains, and the metadata key on truststore objects, that says whose they are.
pub const OWNER_TAG: &str = "mtls-operator.io/owner";
/// S3 keeps metadata keys in lower case and without `/`.
pub const OWNER_METADATA: &str = "owner";
/// On an API between a change and the deployment that makes it effective.
pub const PENDING_TAG: &str = "mtls-operator.io/pending-deployment";

/// Each step is a condition type, in the order in which they come true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    ResolvedRefs,
    CertificateIssued,
    TruststorePublished,
    DomainProgrammed,
    MappingsProgrammed,
    DnsProgrammed,
    BypassClosed,
}

impl Step {
    pub const ALL: [Step; 7] = [
        Step::ResolvedRefs,
        Step::CertificateIssued,
        Step::TruststorePublished,
        Step::DomainProgrammed,
        Step::MappingsProgrammed,
        Step::DnsProgrammed,
        Step::BypassClosed,
    ];
}

/// One call to AWS, or one object in Kubernetes. Each can be repeated without harm.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make the key and certificate of a generated authority and keep them in their Secret.
    GenerateAuthority {
        authority: String,
    },
    RequestCertificate(acm::CertificateRequest),
    DeleteCertificate {
        arn: String,
    },
    /// One atomic batch.
    ChangeRecords {
        zone_id: String,
        changes: Vec<Change>,
    },
    PutTruststore {
        bucket: String,
        key: String,
        body: String,
    },
    CreateDomain(DomainRequest),
    /// Always the one full configuration, always in place.
    UpdateDomain(DomainRequest),
    DeleteDomain {
        name: String,
    },
    CreateMapping {
        path: String,
        api_id: String,
        stage: String,
    },
    UpdateMapping {
        id: String,
        path: String,
        api_id: String,
        stage: String,
    },
    DeleteMapping {
        id: String,
        path: String,
    },
    MarkPending {
        api_arn: String,
    },
    CloseEndpoint {
        api_id: String,
    },
    Deploy {
        api_id: String,
        stage: String,
    },
    UnmarkPending {
        api_arn: String,
    },
    DeleteTruststoreVersion {
        bucket: String,
        key: String,
        version: String,
    },
}

/// How a step stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Done(Reason, String),
    /// We are on it now.
    Act(String),
    /// Somebody else is working on it: nothing to do but look again.
    Wait(Reason, String),
    /// What it builds on does not exist yet.
    Behind(Step),
    /// Somebody has to put something right first.
    Blocked(Reason, String),
    /// It could not be looked at.
    Unknown(Unseen),
}

impl Verdict {
    pub fn is_done(&self) -> bool {
        matches!(self, Verdict::Done(..))
    }

    fn done(reason: Reason, message: impl Into<String>) -> Self {
        Verdict::Done(reason, message.into())
    }

    fn wait(reason: Reason, message: impl Into<String>) -> Self {
        Verdict::Wait(reason, message.into())
    }

    fn blocked(reason: Reason, message: impl Into<String>) -> Self {
        Verdict::Blocked(reason, message.into())
    }

    fn unknown(unseen: &Unseen) -> Self {
        Verdict::Unknown(unseen.clone())
    }
}

/// What to do for one step and how it stands. A blocked step may still have something to do for its other parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    pub verdict: Verdict,
    pub actions: Vec<Action>,
}

impl Judged {
    fn act(what: impl Into<String>, actions: Vec<Action>) -> Self {
        Judged { verdict: Verdict::Act(what.into()), actions }
    }
}

impl From<Verdict> for Judged {
    fn from(verdict: Verdict) -> Self {
        Judged { verdict, actions: Vec::new() }
    }
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub steps: BTreeMap<Step, Judged>,
    /// The certificate that the domain shall have, if there is one.
    pub certificate: Option<acm::Certificate>,
    /// The truststore as it shall be, when enough could be seen to say so.
    pub truststore: Option<Compiled>,
}

impl Plan {
    pub fn actions(&self) -> impl Iterator<Item = (Step, &Action)> {
        self.steps.iter().flat_map(|(step, judged)| judged.actions.iter().map(|a| (*step, a)))
    }
}

/// What to do next so that what is there becomes what is desired.
pub fn plan(d: &Desired, o: &Observed, now: Timestamp) -> Plan {
    let truststore = compile(d, o, now);
    let certificate = chosen(d, o).cloned();
    let mut steps = BTreeMap::new();
    let refs = resolved_refs(d, o, truststore.as_ref());
    let publish = publish(d, o, &refs, truststore.as_ref());
    let certificates = certificates(d, o);
    let domain = domain(d, o, certificate.as_ref(), &certificates.verdict, &publish.verdict);
    let mappings = mappings(d, o);
    let dns = dns(d, o, &mappings.verdict);
    let bypass = bypass(d, o, &dns.verdict);
    for (step, judged) in Step::ALL.into_iter().zip([refs, certificates, publish, domain, mappings, dns, bypass]) {
        steps.insert(step, judged);
    }
    Plan { steps, certificate, truststore }
}

// ---- references

fn resolved_refs(d: &Desired, o: &Observed, compiled: Option<&Compiled>) -> Judged {
    let mut actions = Vec::new();
    let mut problems = Vec::new();
    let mut unseen = None;
    for wish in &d.authorities {
        match (o.authorities.get(&wish.name), &wish.source) {
            (Some(Source::Unseen(why)), _) => unseen = Some(why),
            (Some(Source::Read { key: Key::Misfit, .. }), _) if wish.issues() => problems.push((
                Reason::InvalidCACertificateRef,
                format!("authority {}: the private key does not belong to its certificate", wish.name),
            )),
            (Some(Source::Read { .. }), _) => {}
            (_, SourceWish::Generated { .. }) if wish.state == AuthorityState::Distrusted => {}
            (None | Some(Source::Missing(_)), SourceWish::Generated { .. }) => match known(o) {
                Err(why) => unseen = Some(why),
                Ok(known) if known.contains(&wish.name) => problems.push((
                    Reason::AuthorityKeyLost,
                    format!(
                        "authority {}: its Secret is gone while its certificate is trusted. Restore the Secret from a backup, or add an \
                         authority under another name and make that the issuing one",
                        wish.name
                    ),
                )),
                Ok(_) => actions.push(Action::GenerateAuthority { authority: wish.name.clone() }),
            },
            (None, _) => problems.push((Reason::RefNotFound, format!("authority {}: its source is not there", wish.name))),
            (Some(Source::Missing(what)), _) => problems.push((Reason::RefNotFound, format!("authority {}: {what}", wish.name))),
        }
    }
    for finding in compiled.iter().flat_map(|c| &c.findings).filter(|f| f.severity == Severity::Refused) {
        let reason = match finding.reason {
            lint::Reason::SubjectReused => Reason::AuthoritySubjectReused,
            lint::Reason::SourceMissing => continue, // said above, with the object's name
            _ => Reason::InvalidCACertificateRef,
        };
        problems.push((reason, format!("authority {}: {}", finding.authority, finding.message)));
    }
    for (path, mapped) in &d.mappings {
        match o.apis.get(&mapped.id) {
            None | Some(Ok(None)) => problems.push((
                Reason::ApiNotFound,
                format!(
                    "mapping {path:?}: there is no HTTP API {} in {} of account {} (REST APIs are not supported yet)",
                    mapped.id, d.home.region, d.home.account
                ),
            )),
            Some(Ok(Some(api))) if api.stages.get(&mapped.stage).is_none_or(Option::is_none) => problems.push((
                Reason::StageNotFound,
                format!("mapping {path:?}: the API {} has no stage {}", mapped.id, mapped.stage),
            )),
            Some(Ok(Some(_))) => {}
            Some(Err(why)) => unseen = Some(why),
        }
    }
    let verdict = match (problems.split_first(), unseen, actions.is_empty()) {
        (Some(((reason, first), rest)), ..) => {
            Verdict::blocked(*reason, rest.iter().fold(first.clone(), |all, (_, next)| format!("{all}; {next}")))
        }
        (None, Some(why), _) => Verdict::unknown(why),
        (None, None, false) => Verdict::Act("generating the authority's key and certificate".into()),
        (None, None, true) => Verdict::done(Reason::ResolvedRefs, "everything the spec refers to is there"),
    };
    Judged { verdict, actions }
}

/// The authorities that have a certificate in the truststore, published or in use.
fn known(o: &Observed) -> Result<BTreeSet<String>, &Unseen> {
    let (published, pinned) = (o.published.as_ref()?, o.pinned.as_ref()?);
    let bundles = published.iter().map(|p| &p.bundle).chain(pinned);
    Ok(bundles.flat_map(|b| b.entries.iter().map(|e| e.authority.clone())).collect())
}

// ---- server certificate

/// Ours, for exactly the names and key that the spec says.
fn fits(d: &Desired, c: &acm::Certificate) -> bool {
    c.names == d.certificate.names && c.key_algorithm == d.certificate.key_algorithm
}

fn owned<'a>(home: &'a Home, o: &'a Observed) -> impl Iterator<Item = &'a acm::Certificate> {
    o.certificates.iter().flatten().filter(|c| c.tags.get(OWNER_TAG) == Some(&home.owner))
}

/// The one that the domain shall have: issued before pending, in use before not, then the oldest.
fn chosen<'a>(d: &'a Desired, o: &'a Observed) -> Option<&'a acm::Certificate> {
    let used = o.domain.as_ref().ok().and_then(Option::as_ref).map(|g| g.certificate_arn.as_str());
    owned(&d.home, o)
        .filter(|c| fits(d, c) && matches!(c.status, CertificateStatus::Issued | CertificateStatus::PendingValidation))
        .min_by_key(|c| {
            (c.status != CertificateStatus::Issued, used != Some(c.arn.as_str()), c.created_at, c.arn.clone())
        })
}

fn certificates(d: &Desired, o: &Observed) -> Judged {
    if let Err(why) = &o.certificates {
        return Verdict::unknown(why).into();
    }
    let Some(certificate) = chosen(d, o) else { return request(d, o) };
    let validation = match &o.validation {
        Ok(found) => validation_records(d, o, certificate, found),
        Err(why) => Err(Verdict::unknown(why)),
    };
    if certificate.status == CertificateStatus::Issued {
        // The record is what the renewal hangs on: put back when somebody removed it, without a fuss.
        let mut actions = validation.unwrap_or_default();
        actions.extend(superseded(d, o, certificate));
        let day = |t: Timestamp| t.strftime("%Y-%m-%d").to_string();
        let not_after = certificate.not_after.map(|t| format!(", valid until {}", day(t))).unwrap_or_default();
        return Judged {
            verdict: Verdict::done(Reason::Issued, format!("{} is ISSUED{not_after}", certificate.arn)),
            actions,
        };
    }
    match validation {
        Err(verdict) => verdict.into(),
        Ok(changes) if !changes.is_empty() => Judged::act("writing the validation record into Route 53", changes),
        Ok(_) if certificate.validation.is_empty() || certificate.validation.iter().any(|v| v.record.is_none()) => {
            Verdict::wait(Reason::WaitingForValidation, "ACM has not named the validation record yet").into()
        }
        Ok(_) => {
            Verdict::wait(Reason::WaitingForValidation, "the validation record is in Route 53; ACM has not issued yet")
                .into()
        }
    }
}

/// Zones are looked up before the request, so that no certificate is left that can never be issued.
fn request(d: &Desired, o: &Observed) -> Judged {
    match &o.zone {
        Err(why) => return Verdict::unknown(why).into(),
        Ok(None) => return no_zone(d).into(),
        Ok(Some(zone)) => {
            if let Some(outside) = d.certificate.names.iter().find(|n| !records::is_inside(n, &zone.name)) {
                return Verdict::blocked(
                    Reason::HostedZoneNotFound,
                    format!(
                        "spec.serverCertificate.request.subjectAlternativeNames: {outside} is not inside the hosted zone {}; names of other \
                         zones are not supported yet",
                        zone.name
                    ),
                )
                .into();
            }
        }
    }
    if let Some(failed) = owned(&d.home, o).find(|c| fits(d, c) && c.status == CertificateStatus::Failed) {
        let why = failed.failure.as_deref().unwrap_or("no reason given");
        return Verdict::blocked(
            Reason::CertificateFailed,
            format!("ACM could not issue {}: {why}. Put that right, then delete the failed certificate in ACM: a new one is requested", failed.arn),
        )
        .into();
    }
    Judged::act(
        format!("requesting a certificate for {}", d.home.domain_name),
        vec![Action::RequestCertificate(acm::CertificateRequest {
            domain_name: d.home.domain_name.clone(),
            names: d.certificate.names.clone(),
            key_algorithm: d.certificate.key_algorithm.clone(),
            idempotency_token: d.certificate.token.clone(),
            tags: [(OWNER_TAG.to_owned(), d.home.owner.clone())].into(),
        })],
    )
}

fn no_zone(d: &Desired) -> Verdict {
    let message = match &d.home.zone_id {
        Some(id) => format!(
            "spec.dns.route53.hostedZoneId: there is no public hosted zone {id} that {} belongs into",
            d.home.domain_name
        ),
        None => format!(
            "no public hosted zone in account {} is a parent of {}; create one, or set spec.dns.route53.hostedZoneId",
            d.home.account, d.home.domain_name
        ),
    };
    Verdict::blocked(Reason::HostedZoneNotFound, message)
}

/// What it takes for the validation records of `certificate` to be there.
fn validation_records(
    d: &Desired,
    o: &Observed,
    certificate: &acm::Certificate,
    found: &BTreeMap<String, Vec<RecordSet>>,
) -> Result<Vec<Action>, Verdict> {
    let zone = match &o.zone {
        Err(why) => return Err(Verdict::unknown(why)),
        Ok(None) => return Err(no_zone(d)),
        Ok(Some(zone)) => zone,
    };
    let wanted: BTreeSet<_> = certificate.validation.iter().filter_map(|v| v.record.clone()).collect();
    let changes: Vec<_> = wanted
        .into_iter()
        .filter_map(|(name, value)| {
            records::validation_change(&name, &value, found.get(&name).map_or(&[], Vec::as_slice))
        })
        .collect();
    Ok(if changes.is_empty() { vec![] } else { vec![Action::ChangeRecords { zone_id: zone.id.clone(), changes }] })
}

/// Certificates of ours that nothing needs any more.
fn superseded<'a>(d: &'a Desired, o: &'a Observed, kept: &'a acm::Certificate) -> impl Iterator<Item = Action> + 'a {
    let used = match &o.domain {
        Ok(domain) => Some(domain.as_ref().map(|g| g.certificate_arn.as_str()).unwrap_or_default()),
        Err(_) => None, // not known which one is in use: none may go
    };
    owned(&d.home, o)
        .filter(move |c| c.arn != kept.arn && !c.in_use && used.is_some_and(|used| used != c.arn))
        .map(|c| Action::DeleteCertificate { arn: c.arn.clone() })
}

// ---- truststore

/// The memory of what was trusted: what is published, completed by what is in use.
fn compile(d: &Desired, o: &Observed, now: Timestamp) -> Option<Compiled> {
    let (published, pinned) = (o.published.as_ref().ok()?, o.pinned.as_ref().ok()?);
    let ours = published.as_ref().filter(|p| p.owner.as_ref() == Some(&d.home.owner)).map(|p| &p.bundle);
    let previous = merged(ours, pinned.as_ref());
    let sources: Vec<_> = d.authorities.iter().map(|wish| source(wish, o, d)).collect();
    Some(compile::compile(&CompileInput { sources: &sources, previous: previous.as_ref(), overlap: d.overlap, now }))
}

/// What is published says what is remembered of a certificate; what is in use must not be forgotten, even if somebody removed the
/// version that followed it.
fn merged(published: Option<&Bundle>, pinned: Option<&Bundle>) -> Option<Bundle> {
    let mut all = published.or(pinned)?.clone();
    for entry in pinned.iter().flat_map(|b| &b.entries) {
        if all.find(&entry.certificate).is_none() {
            all.entries.push(entry.clone());
        }
    }
    Some(all)
}

fn source(wish: &AuthorityWish, o: &Observed, d: &Desired) -> compile::Source {
    let (certificates, key) = match o.authorities.get(&wish.name) {
        Some(Source::Read { certificates, key }) => (certificates.clone().map_err(SourceError::Unreadable), *key),
        _ => (Err(SourceError::Missing), Key::Absent),
    };
    // A Secret whose key is gone may still have living leaves: that it could issue is remembered in the bundle.
    let issues = key == Key::Fits && wish.issues();
    compile::Source {
        authority: wish.name.clone(),
        state: match wish.state {
            AuthorityState::Active => compile::State::Active,
            AuthorityState::Distrusted => compile::State::Distrusted,
        },
        issues,
        longest_leaf: issues.then_some(d.longest_leaf),
        certificates,
    }
}

fn publish(d: &Desired, o: &Observed, refs: &Judged, compiled: Option<&Compiled>) -> Judged {
    let (bucket, key) = (&d.home.bucket, &d.home.key);
    match &o.bucket {
        Err(why) => return Verdict::unknown(why).into(),
        Ok(None) => {
            return Verdict::blocked(
                Reason::BucketNotFound,
                format!("there is no bucket {bucket} in account {}; create it with versioning, or name another in spec.truststore.bucket", d.home.account),
            )
            .into();
        }
        Ok(Some(found)) if !found.versioned => {
            return Verdict::blocked(
                Reason::BucketNotVersioned,
                format!("bucket {bucket} has no versioning, so no version of the truststore can be pinned; turn versioning on"),
            )
            .into();
        }
        Ok(Some(_)) => {}
    }
    let published = match (&o.published, &o.pinned) {
        (Err(why), _) | (_, Err(why)) => return Verdict::unknown(why).into(),
        (Ok(published), Ok(_)) => published.as_ref(),
    };
    if let Some(other) = published.and_then(|p| p.owner.as_ref()).filter(|o| **o != d.home.owner) {
        return Verdict::blocked(
            Reason::ForeignOwner,
            format!("s3://{bucket}/{key} belongs to {other}; name another key in spec.truststore.key"),
        )
        .into();
    }
    let Some(compiled) = compiled else { return Verdict::Behind(Step::ResolvedRefs).into() };
    if !refs.actions.is_empty() {
        return Verdict::Behind(Step::ResolvedRefs).into();
    }
    if compiled.bundle.entries.is_empty() {
        return Verdict::wait(Reason::WaitingForAuthority, "no authority has a certificate to trust yet").into();
    }
    let body = compiled.bundle.render();
    match published {
        Some(p) if is_published(d, p, &body) => {
            let warnings = compiled.findings.iter().filter(|f| f.severity != Severity::Refused).count();
            let more =
                if warnings == 0 { String::new() } else { format!("; {warnings} warnings in status.truststore") };
            Verdict::done(Reason::Published, format!("s3://{bucket}/{key} version {}{more}", p.version)).into()
        }
        _ => Judged::act(
            format!("uploading s3://{bucket}/{key}"),
            vec![Action::PutTruststore { bucket: bucket.clone(), key: key.clone(), body }],
        ),
    }
}

fn is_published(d: &Desired, p: &Published, body: &str) -> bool {
    p.owner.as_ref() == Some(&d.home.owner) && p.sha256 == sha256(body.as_bytes())
}

// ---- domain

fn domain(
    d: &Desired,
    o: &Observed,
    certificate: Option<&acm::Certificate>,
    issued: &Verdict,
    published: &Verdict,
) -> Judged {
    let existing = match &o.domain {
        Err(why) => return Verdict::unknown(why).into(),
        Ok(existing) => existing.as_ref(),
    };
    let version =
        o.published.as_ref().ok().and_then(Option::as_ref).filter(|_| published.is_done()).map(|p| &p.version);
    let arn = certificate.filter(|_| issued.is_done()).map(|c| &c.arn);
    let wished = |arn: &str, version: &str| DomainRequest {
        name: d.home.domain_name.clone(),
        certificate_arn: arn.to_owned(),
        ownership_certificate_arn: None,
        truststore_uri: d.home.truststore_uri(),
        truststore_version: version.to_owned(),
        ip_address_type: d.ip_address_type,
    };
    let Some(g) = existing else {
        return match (arn, version) {
            (Some(arn), Some(version)) => Judged::act(
                format!("creating the custom domain {}", d.home.domain_name),
                vec![Action::CreateDomain(wished(arn, version))],
            ),
            (None, _) => Verdict::Behind(Step::CertificateIssued).into(),
            (_, None) => Verdict::Behind(Step::TruststorePublished).into(),
        };
    };
    if let Some(refused) = foreign(&d.home, g) {
        return refused.into();
    }
    match &g.status {
        DomainStatus::Available => {}
        DomainStatus::Updating => {
            return Verdict::wait(Reason::WaitingForDomain, format!("API Gateway is updating {}", g.name)).into();
        }
        status => {
            let why = g.status_message.as_deref().unwrap_or("no message");
            return Verdict::blocked(Reason::DomainRejected, format!("{} is {}: {why}", g.name, status.as_str()))
                .into();
        }
    }
    // What it has serves for an update of the rest, as long as API Gateway takes it.
    let is_issued = |c: &&acm::Certificate| c.arn == g.certificate_arn && c.status == CertificateStatus::Issued;
    let in_use = o.certificates.iter().flatten().find(is_issued).map(|c| &c.arn);
    let pinned = g.truststore.as_ref().filter(|t| t.uri == d.home.truststore_uri()).and_then(|t| t.version.as_ref());
    let readable = pinned.filter(|_| matches!(o.pinned, Ok(Some(_))));
    let (Some(wanted_arn), Some(wanted_version)) = (arn.or(in_use), version.or(readable)) else {
        return Verdict::Behind(Step::TruststorePublished).into();
    };
    let as_wished =
        g.certificate_arn == *wanted_arn && pinned == Some(wanted_version) && g.ip_address_type == d.ip_address_type;
    if !as_wished {
        return Judged::act(
            format!("updating the custom domain {}", g.name),
            vec![Action::UpdateDomain(wished(wanted_arn, wanted_version))],
        );
    }
    match (arn, version) {
        (None, _) => Verdict::Behind(Step::CertificateIssued).into(),
        (_, None) => Verdict::Behind(Step::TruststorePublished).into(),
        _ => Verdict::done(
            Reason::Programmed,
            format!("{} is AVAILABLE with this certificate and truststore version", g.name),
        )
        .into(),
    }
}

/// Why a domain of that name is none of ours.
fn foreign(home: &Home, g: &Domain) -> Option<Verdict> {
    match g.tags.get(OWNER_TAG) {
        Some(owner) if *owner == home.owner => None,
        owner => Some(Verdict::blocked(
            Reason::ForeignOwner,
            format!(
                "the custom domain {} exists already and {}; it is left alone",
                g.name,
                owner.map_or("carries no owner's mark (taking over is not supported yet)".into(), |o| format!(
                    "belongs to {o}"
                ))
            ),
        )),
    }
}

/// The domain, when it is there and ours.
fn ours<'a>(home: &Home, domain: &'a Seen<Option<Domain>>) -> Result<&'a Domain, Verdict> {
    match domain {
        Err(why) => Err(Verdict::unknown(why)),
        Ok(Some(g)) if foreign(home, g).is_none() => Ok(g),
        Ok(_) => Err(Verdict::Behind(Step::DomainProgrammed)),
    }
}

// ---- API mappings

fn mappings(d: &Desired, o: &Observed) -> Judged {
    if let Err(verdict) = ours(&d.home, &o.domain) {
        return verdict.into();
    }
    let there = match &o.mappings {
        Err(why) => return Verdict::unknown(why).into(),
        Ok(there) => there,
    };
    let (mut actions, mut missing, mut unseen) = (vec![], vec![], None);
    let unlisted: Vec<_> = there.iter().filter(|m| !d.mappings.contains_key(&m.path)).collect();
    if d.home.unlisted_mappings == UnlistedMappings::Delete {
        actions.extend(unlisted.iter().map(|m| Action::DeleteMapping { id: m.id.clone(), path: m.path.clone() }));
    }
    for (path, mapped) in &d.mappings {
        let existing = there.iter().find(|m| m.path == *path);
        if existing.is_some_and(|m| m.api_id == mapped.id && m.stage == mapped.stage) {
            continue;
        }
        match o.apis.get(&mapped.id) {
            Some(Err(why)) => unseen = Some(why),
            Some(Ok(Some(api))) if api.stages.get(&mapped.stage).is_some_and(Option::is_some) => {
                let (path, api_id, stage) = (path.clone(), mapped.id.clone(), mapped.stage.clone());
                actions.push(match existing {
                    None => Action::CreateMapping { path, api_id, stage },
                    Some(m) => Action::UpdateMapping { id: m.id.clone(), path, api_id, stage },
                });
            }
            _ => missing.push(format!("{path:?}")),
        }
    }
    let verdict = if !missing.is_empty() {
        Verdict::blocked(
            Reason::RefNotFound,
            format!("the API or stage of mapping {} is not there", missing.join(", ")),
        )
    } else if let Some(why) = unseen {
        Verdict::unknown(why)
    } else if !actions.is_empty() {
        Verdict::Act(format!("writing the API mappings of {}", d.home.domain_name))
    } else if !unlisted.is_empty() {
        let kept: Vec<_> = unlisted.iter().map(|m| format!("{:?}", m.path)).collect();
        Verdict::done(Reason::Programmed, format!("all mappings are there; kept unlisted: {}", kept.join(", ")))
    } else {
        Verdict::done(Reason::Programmed, "all mappings are there, and no others")
    };
    Judged { verdict, actions }
}

// ---- DNS

fn dns(d: &Desired, o: &Observed, mapped: &Verdict) -> Judged {
    let g = match ours(&d.home, &o.domain) {
        Err(verdict) => return verdict.into(),
        Ok(g) => g,
    };
    let (zone, there) = match (&o.zone, &o.records) {
        (Err(why), _) | (_, Err(why)) => return Verdict::unknown(why).into(),
        (Ok(None), _) => return no_zone(d).into(),
        (Ok(Some(zone)), Ok(there)) => (zone, there),
    };
    match records::plan(&d.home, g, d.ip_address_type, there) {
        RecordPlan::Right => match &o.records_in_sync {
            Err(why) => Verdict::unknown(why).into(),
            Ok(false) => Verdict::wait(Reason::WaitingForDNS, "Route 53 is spreading the change").into(),
            Ok(true) => {
                Verdict::done(Reason::Programmed, format!("{} points at {}", d.home.domain_name, g.target)).into()
            }
        },
        RecordPlan::Foreign(what) => Verdict::blocked(
            Reason::ForeignOwner,
            format!(
                "the hosted zone {} has {what}, which carries no mark of ours; delete it to let the operator write {}",
                zone.name, d.home.domain_name
            ),
        )
        .into(),
        // A first record sends callers here: not before there is something that answers.
        RecordPlan::Change { first: true, .. } if g.status != DomainStatus::Available => {
            Verdict::Behind(Step::DomainProgrammed).into()
        }
        RecordPlan::Change { first: true, .. } if matches!(mapped, Verdict::Act(_)) => {
            Verdict::Behind(Step::MappingsProgrammed).into()
        }
        RecordPlan::Change { changes, .. } => Judged::act(
            format!("pointing {} at {}", d.home.domain_name, g.target),
            vec![Action::ChangeRecords { zone_id: zone.id.clone(), changes }],
        ),
    }
}

// ---- default endpoint

fn bypass(d: &Desired, o: &Observed, dns: &Verdict) -> Judged {
    if d.default_endpoint == DefaultEndpoint::Keep {
        return Verdict::blocked(
            Reason::KeptOpen,
            "spec.defaultEndpoint is Keep: callers without a certificate can use the execute-api endpoint",
        )
        .into();
    }
    let (mut actions, mut verdicts) = (vec![], vec![]);
    let ids: BTreeSet<_> = d.mappings.values().map(|m| &m.id).collect();
    for id in ids {
        match o.apis.get(id) {
            Some(Err(why)) => verdicts.push(Verdict::unknown(why)),
            Some(Ok(Some(api))) => {
                let judged = endpoint(api, dns);
                actions.extend(judged.actions);
                verdicts.push(judged.verdict);
            }
            None | Some(Ok(None)) => verdicts.push(Verdict::Behind(Step::ResolvedRefs)),
        }
    }
    // The worst of them speaks for the step.
    let worst = |v: &Verdict| match v {
        Verdict::Blocked(..) => 0,
        Verdict::Unknown(_) => 1,
        Verdict::Act(_) => 2,
        Verdict::Wait(..) => 3,
        Verdict::Behind(_) => 4,
        Verdict::Done(Reason::NotVerified, _) => 5,
        Verdict::Done(..) => 6,
    };
    let verdict =
        verdicts.into_iter().min_by_key(worst).unwrap_or_else(|| Verdict::done(Reason::Closed, "no API is mapped"));
    Judged { verdict, actions }
}

fn endpoint(api: &Api, dns: &Verdict) -> Judged {
    let id = &api.api.id;
    // Stages that serve what was last deployed see no change before the next deployment.
    let by_hand: Vec<_> =
        api.stages.iter().filter(|(_, s)| s.as_ref().is_some_and(|s| !s.auto_deploy)).map(|(name, _)| name).collect();
    let deploy = || {
        let deployments = by_hand.iter().map(|stage| Action::Deploy { api_id: id.clone(), stage: (*stage).clone() });
        deployments.chain([Action::UnmarkPending { api_arn: api.api.arn.clone() }])
    };
    if !api.api.endpoint_closed {
        if !dns.is_done() {
            return Verdict::Behind(Step::DnsProgrammed).into();
        }
        let mut actions = vec![];
        if !by_hand.is_empty() {
            actions.push(Action::MarkPending { api_arn: api.api.arn.clone() });
        }
        actions.push(Action::CloseEndpoint { api_id: id.clone() });
        if !by_hand.is_empty() {
            actions.extend(deploy());
        }
        return Judged::act(format!("closing the execute-api endpoint of {id}"), actions);
    }
    if api.api.tags.contains_key(PENDING_TAG) {
        return Judged::act(
            format!("deploying {id}, so that its closed endpoint becomes effective"),
            deploy().collect(),
        );
    }
    match &api.probe {
        Some(probe::Verdict::Refused(_)) => {
            Verdict::done(Reason::Closed, "every mapped API refuses callers on its execute-api endpoint")
        }
        Some(probe::Verdict::Answered(status)) => Verdict::wait(
            Reason::StillAnswering,
            format!("the execute-api endpoint of {id} is set to be closed, but still answers with status {status}"),
        ),
        Some(probe::Verdict::Unreachable(why)) => Verdict::done(
            Reason::NotVerified,
            format!("the execute-api endpoint of {id} is set to be closed; not verified: {why}"),
        ),
        None => Verdict::done(
            Reason::NotVerified,
            format!("the execute-api endpoint of {id} is set to be closed; not verified"),
        ),
    }
    .into()
}
