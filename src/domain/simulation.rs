//! The planner against a model of AWS: from any state it ends in the desired one, any state can be torn down, and nothing of anybody
//! else is ever touched. What is checked is the model, never the planner's own word.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::LazyLock,
};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::{
    desired::{AuthorityWish, CertificateWish, DEFAULT_LEAF, Desired, DnsWish, Home, RequestWish, SourceWish, sha256},
    observed::{self, Api, Key, Observed, Pinned, Published, Remains, Seen, Source, ZoneChoice},
    plan::{ADOPTED_TAG, Action, DEPLOYED, OWNER_TAG, PENDING_TAG, Step, Verdict, plan},
    records,
    report::report,
    teardown::teardown,
};
use crate::{
    api::{
        AdoptionPolicy, AuthorityState, DefaultEndpoint, DeletionPolicy, DnsVerification, MappedApi, MtlsDomainStatus,
        RestDeployment, conditions::Reason,
    },
    aws::{
        acm::{self, CertificateKind, CertificateStatus, KeyAlgorithm, Validation, ValidationStatus},
        gateway::{self, Domain, DomainRequest, DomainStatus, IpAddressType, Mapping, Protocol, Stage, Truststore},
        route53::{self, Alias, Change, RecordSet, Zone},
    },
    outside::{probe, public_dns::PublicName},
    pki::{
        authority::{self, AuthorityRequest},
        certificate::{Certificate, parse_pem_bundle},
        keys::KeyKind,
        truststore::{Bundle, Entry},
    },
};

const NAME: &str = "api.example.com";
const OTHER_NAME: &str = "www.example.org";
/// The zone of each name, by id and name.
const ZONES: [(&str, &str, &str); 3] =
    [(NAME, "Z1", "example.com"), ("*.api.example.com", "Z1", "example.com"), (OTHER_NAME, "Z2", "example.org")];
const OURS: &str = "cluster/ns/partners";
const TARGET: &str = "d-1.execute-api.eu-west-1.amazonaws.com";
const THEIRS: &str = "other/ns/partners";
const URI: &str = "s3://truststores/partners.pem";
const KMS_KEY: &str = "arn:aws:kms:eu-west-1:123456789012:key/1";
/// Ours, taken over.
const ADOPTED: &str = "adopted";
const NOBODYS: &str = "";

pub(super) fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn request() -> AuthorityRequest {
    AuthorityRequest {
        common_name: "Partners".into(),
        organizations: vec![],
        duration: SignedDuration::from_hours(87_600),
        key: KeyKind::EcdsaP256,
    }
}

static AUTHORITY: LazyLock<Vec<Certificate>> =
    LazyLock::new(|| parse_pem_bundle(&authority::generate(&request(), now()).unwrap().certificate_pem).unwrap());

/// What a domain trusted before it was taken over.
static OTHER: LazyLock<Vec<Certificate>> = LazyLock::new(|| {
    let request = AuthorityRequest { common_name: "Other".into(), ..request() };
    parse_pem_bundle(&authority::generate(&request, now()).unwrap().certificate_pem).unwrap()
});

fn tags(owner: &str) -> BTreeMap<String, String> {
    let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    match owner {
        NOBODYS => BTreeMap::new(),
        ADOPTED => [tag(OWNER_TAG, OURS), tag(ADOPTED_TAG, "true")].into(),
        owner => [tag(OWNER_TAG, owner)].into(),
    }
}

fn owner(tags: &BTreeMap<String, String>) -> &str {
    tags.get(OWNER_TAG).map_or(NOBODYS, String::as_str)
}

pub(super) fn desired() -> Desired {
    let home = Home {
        namespace: "ns".into(),
        name: "partners".into(),
        account: "123456789012".into(),
        region: "eu-west-1".into(),
        owner: OURS.into(),
        domain_name: NAME.into(),
        dns: DnsWish::Route53 { zone_id: None, role_arn: None },
        bucket: "truststores".into(),
        key: "partners.pem".into(),
        unlisted_mappings: None,
    };
    Desired {
        home,
        adoption: AdoptionPolicy::Never,
        certificate: CertificateWish::Request {
            request: RequestWish {
                names: vec![NAME.into()],
                key_algorithm: KeyAlgorithm::EcPrime256v1,
                token: "t".into(),
            },
            keep: true,
        },
        create_bucket: false,
        kms_key: None,
        authorities: vec![AuthorityWish {
            name: "partners".into(),
            state: AuthorityState::Active,
            source: SourceWish::Generated { secret: "partners.partners-ca".into(), request: request() },
        }],
        self_signed: vec![],
        longest_leaf: DEFAULT_LEAF,
        overlap: None,
        mappings: [("".to_owned(), "a1"), ("orders".to_owned(), "a2"), ("orders/v2/items".to_owned(), "r1")]
            .map(|(path, id)| (path, MappedApi { id: id.into(), stage: "$default".into() }))
            .into(),
        default_endpoint: DefaultEndpoint::Disable,
        rest_deployment: RestDeployment::Never,
        ip_address_type: IpAddressType::Ipv4,
    }
}

/// A version of a truststore object.
#[derive(Clone, Debug, PartialEq)]
struct Stored {
    uri: String,
    version: String,
    owner: Option<String>,
    body: String,
    kms_key: Option<String>,
}

impl Stored {
    fn is_ours(&self) -> bool {
        self.owner.as_deref() == Some(OURS)
    }
}

/// The bucket of the spec.
#[derive(Clone, Debug, PartialEq)]
struct Bucket {
    owner: Option<String>,
    versioned: bool,
    private: bool,
    encrypted: bool,
    /// Versioning was enabled a moment ago: the next object gets no version.
    fresh: bool,
}

impl Bucket {
    fn is_ours(&self) -> bool {
        self.owner.as_ref().is_some_and(|owner| owner.starts_with("cluster/"))
    }
}

/// A domain that is as it should be.
pub(super) fn settled() -> (Desired, Observed) {
    let (d, mut world) = (desired(), empty());
    world.converge(&d);
    let observed = world.observed();
    (d, observed)
}

/// AWS and the cluster, as far as one domain goes.
#[derive(Clone, Debug)]
pub(super) struct World {
    has_key: bool,
    pub(super) certificates: Vec<acm::Certificate>,
    records: Vec<RecordSet>,
    bucket: Option<Bucket>,
    /// Oldest first.
    versions: Vec<Stored>,
    pub(super) domain: Option<Domain>,
    mappings: Vec<Mapping>,
    apis: BTreeMap<String, Api>,
    /// The APIs whose default endpoint refuses callers.
    refusing: BTreeSet<String>,
    /// A change of a stage makes the flag of its REST API effective.
    touch_publishes: bool,
    /// The default endpoints can be reached from here.
    probes: bool,
    /// Of REST APIs, each of which may publish what is not ours.
    deployments: usize,
    counter: usize,
    clock: Timestamp,
    /// What the spec of the last [`World::converge`] allows.
    adopts: bool,
    creates: bool,
}

impl World {
    fn id(&mut self, prefix: &str) -> String {
        self.counter += 1;
        format!("{prefix}{}", self.counter)
    }

    fn in_use(&self, arn: &str) -> bool {
        self.domain.iter().any(|g| g.certificate_arn == arn || g.ownership_certificate_arn.as_deref() == Some(arn))
    }

    fn has_certificate(&self, arn: &str) -> bool {
        self.certificates.iter().any(|c| c.arn == arn)
    }

    fn seen_certificates(&self) -> Vec<acm::Certificate> {
        self.certificates.iter().map(|c| acm::Certificate { in_use: self.in_use(&c.arn), ..c.clone() }).collect()
    }

    fn named(&self) -> BTreeMap<String, Seen<Option<acm::Certificate>>> {
        let all = self.seen_certificates();
        all.into_iter().map(|c| (c.arn.clone(), Ok(Some(c)))).collect()
    }

    fn records_at(&self, names: &[&str]) -> Vec<RecordSet> {
        self.records.iter().filter(|r| names.contains(&r.name.as_str())).cloned().collect()
    }

    pub(super) fn observed(&self) -> Observed {
        let source = Source::Read { certificates: Ok(AUTHORITY.clone()), key: Key::Fits };
        let missing = Source::Missing("there is no Secret".into());
        let pinned = self
            .pinned()
            .map(|s| Pinned { owner: s.owner.clone(), bundle: Bundle::parse(&s.body).unwrap_or_default() });
        let apis = self.apis.iter().map(|(id, api)| {
            let settled = api.api.endpoint_closed && api.api.tags.get(PENDING_TAG).is_none_or(|mark| mark == DEPLOYED);
            let answer = match self.refusing.contains(id) {
                _ if !self.probes => probe::Verdict::Unreachable("no way out".into()),
                true => probe::Verdict::Refused(404),
                false => probe::Verdict::Answered(200),
            };
            (id.clone(), Ok(Some(Api { probe: settled.then_some(answer), ..api.clone() })))
        });
        let zones = ZONES.map(|(name, id, zone)| {
            (name.to_owned(), ZoneChoice::Found(Zone { id: id.into(), name: zone.into(), private: false }))
        });
        let cname = |name: &str| (name.to_owned(), self.records_at(&[name]));
        Observed {
            leaves: vec![],
            self_signed: Ok(BTreeMap::new()),
            authorities: [("partners".to_owned(), if self.has_key { source } else { missing })].into(),
            zones: Ok(zones.into()),
            certificates: Ok(self.seen_certificates()),
            named: self.named(),
            validation: Ok(self
                .certificates
                .iter()
                .flat_map(|c| &c.validation)
                .filter_map(|v| v.record.as_ref())
                .map(|(n, _)| cname(n))
                .collect()),
            bucket: Ok(self.bucket.as_ref().map(|b| observed::Bucket {
                region: "eu-west-1".into(),
                versioned: b.versioned,
                owner: b.owner.clone(),
            })),
            published: Ok(self.latest().map(|s| Published {
                version: s.version.clone(),
                owner: s.owner.clone(),
                kms_key: s.kms_key.clone(),
                wished_kms_key: s.kms_key.clone(),
                sha256: sha256(s.body.as_bytes()),
                bundle: Bundle::parse(&s.body).unwrap_or_default(),
            })),
            pinned: Ok(pinned),
            domain: Ok(self.domain.clone()),
            mappings: Ok(self.mappings.clone()),
            apis: apis.collect(),
            records: Ok(self.records_at(&[NAME, &records::marker_name(NAME)])),
            records_in_sync: Ok(true),
            public: Ok(None),
        }
    }

    /// As it is seen where somebody else makes the records: the zone is nobody's that we know, and `records` is what public DNS answers by.
    fn observed_from_outside(&self) -> Observed {
        let at_name = self.records_at(&[NAME]);
        let cname = at_name.iter().filter(|r| r.kind == "CNAME").flat_map(|r| r.values.clone()).collect();
        let address = |name: &str| IpAddr::from([192, 0, 2, name.len() as u8]);
        let aliases = at_name.iter().filter_map(|r| r.alias.as_ref());
        let public = self.domain.as_ref().map(|g| PublicName {
            cnames: cname,
            addresses: aliases.map(|alias| address(&alias.target)).collect(),
            target: [address(&g.target)].into(),
            apex: false,
        });
        let (zones, validation, records) = (Ok(BTreeMap::new()), Ok(BTreeMap::new()), Ok(vec![]));
        Observed { zones, validation, records, public: Ok(public), ..self.observed() }
    }

    /// Somebody who creates what the status lists, in place of whatever is there.
    fn create_by_hand(&mut self, status: &MtlsDomainStatus) {
        for wanted in status.dns.iter().flat_map(|dns| &dns.records) {
            self.records.retain(|r| r.name != wanted.name);
            let (name, kind, values) = (wanted.name.clone(), wanted.r#type.clone(), vec![wanted.value.clone()]);
            self.records.push(RecordSet { name, kind, ttl: Some(60), values, alias: None, routed: false });
        }
    }

    fn remains(&self) -> Remains {
        Remains {
            zone_id: Some("Z1".into()),
            records: Ok(self.records_at(&[NAME, &records::marker_name(NAME)])),
            domain: Ok(self.domain.clone()),
            mappings: Ok(self.mappings.clone()),
            certificates: Ok(self.seen_certificates()),
            versions: Ok(self
                .versions
                .iter()
                .filter(|s| s.uri == URI && s.is_ours())
                .map(|s| s.version.clone())
                .collect()),
        }
    }

    /// The latest version of the object that the spec names.
    fn latest(&self) -> Option<&Stored> {
        self.versions.iter().rfind(|s| s.uri == URI)
    }

    fn stored(&self, uri: &str, version: &str) -> Option<&Stored> {
        self.versions.iter().find(|s| s.uri == uri && s.version == version)
    }

    /// The version that the domain uses, wherever it is.
    fn pinned(&self) -> Option<&Stored> {
        let used = self.domain.as_ref()?.truststore.as_ref()?;
        self.stored(&used.uri, used.version.as_ref()?)
    }

    /// The bucket, which nobody changes who did not make it.
    fn bucket_of_ours(&mut self) -> &mut Bucket {
        let bucket = self.bucket.as_mut().expect("there");
        assert!(bucket.is_ours(), "somebody else's bucket was changed");
        bucket
    }

    /// What AWS does to a call; it panics where AWS would refuse, and where anything of somebody else would be changed.
    pub(super) fn perform(&mut self, action: Action) {
        match action {
            Action::GenerateAuthority { .. } => {
                assert!(
                    !self.has_key && !self.trusts_authority(),
                    "a key was made anew while its certificate is trusted"
                );
                self.has_key = true;
            }
            Action::RequestCertificate(r) => {
                let (arn, pending) = (self.id("arn:"), CertificateStatus::PendingValidation);
                let c = certificate(&arn, OURS, pending, &r.names, r.key_algorithm);
                self.certificates.push(acm::Certificate { created_at: Some(self.clock), ..c });
            }
            Action::DeleteCertificate { arn } => {
                assert!(!self.in_use(&arn), "ResourceInUseException");
                let i = self.certificates.iter().position(|c| c.arn == arn).expect("there");
                assert_eq!(owner(&self.certificates.remove(i).tags), OURS);
            }
            Action::ChangeRecords { zone_id, changes } => {
                let (.., zone) = ZONES.into_iter().find(|(_, id, _)| *id == zone_id).expect("the zone is there");
                for change in changes {
                    assert!(records::is_inside(&change.record.name, zone), "InvalidChangeBatch: not in the zone");
                    self.change(change);
                }
            }
            Action::CreateBucket { .. } => {
                assert!(self.bucket.is_none() && self.creates);
                let owner = Some(OURS.into());
                self.bucket = Some(Bucket { owner, versioned: false, private: false, encrypted: false, fresh: false });
            }
            Action::BlockPublicAccess { .. } => self.bucket_of_ours().private = true,
            Action::EncryptBucket { .. } => self.bucket_of_ours().encrypted = true,
            Action::EnableVersioning { .. } => {
                let bucket = self.bucket_of_ours();
                assert!(bucket.private && bucket.encrypted, "versioning comes last");
                (bucket.versioned, bucket.fresh) = (true, true);
            }
            Action::PutTruststore { body, kms_key, .. } => {
                let drifted = self
                    .domain
                    .as_ref()
                    .is_some_and(|g| owner(&g.tags) == OURS && g.truststore.as_ref().is_some_and(|t| t.uri == URI));
                let is_free = |s: &Stored| match &s.owner {
                    Some(owner) => owner == OURS,
                    None => drifted || self.adopts,
                };
                assert!(self.latest().is_none_or(is_free), "somebody else's object was overwritten");
                let id = self.id("v");
                let bucket = self.bucket.as_mut().expect("NoSuchBucket");
                let version = if std::mem::take(&mut bucket.fresh) { String::new() } else { id };
                self.versions.retain(|s| !s.version.is_empty());
                self.versions.push(Stored { uri: URI.into(), version, owner: Some(OURS.into()), body, kms_key });
            }
            Action::CreateDomain(r) => {
                assert!(self.domain.is_none(), "exists already");
                self.check_request(&r);
                let mut g = domain(OURS, &r.certificate_arn, &r.truststore_version);
                (g.truststore.as_mut().unwrap().uri, g.status) = (r.truststore_uri, DomainStatus::Updating);
                g.ownership_certificate_arn = r.ownership_certificate_arn;
                self.domain = Some(g);
            }
            Action::UpdateDomain(r) => {
                self.check_request(&r);
                self.check_nobody_loses(&r);
                let g = self.domain.as_mut().expect("there");
                assert_eq!((owner(&g.tags), &g.status), (OURS, &DomainStatus::Available));
                (g.certificate_arn, g.ownership_certificate_arn) = (r.certificate_arn, r.ownership_certificate_arn);
                g.truststore =
                    Some(Truststore { uri: r.truststore_uri, version: Some(r.truststore_version), warnings: vec![] });
                (g.ip_address_type, g.status) = (r.ip_address_type, DomainStatus::Updating);
            }
            Action::AdoptDomain { .. } => {
                let g = self.domain.as_mut().expect("there");
                assert_eq!(owner(&g.tags), NOBODYS, "somebody else's domain was taken over");
                g.tags.extend(tags(ADOPTED));
            }
            Action::ReleaseDomain { .. } => {
                let g = self.domain.as_mut().expect("there");
                assert_eq!(owner(&g.tags), OURS);
                g.tags.clear();
            }
            Action::ReleaseCertificate { arn } => {
                let c = self.certificates.iter_mut().find(|c| c.arn == arn).expect("there");
                assert_eq!(owner(&c.tags), OURS);
                c.tags.clear();
            }
            Action::DeleteDomain { .. } => {
                assert_eq!(owner(&self.domain.take().expect("there").tags), OURS);
                self.mappings.clear();
            }
            Action::CreateMapping { path, api_id, stage } => {
                self.check_mapping(&api_id);
                assert!(self.mappings.iter().all(|m| m.path != path), "ApiMapping key already exists");
                let id = self.id("m");
                self.mappings.push(Mapping { id, path, api_id, stage });
            }
            Action::UpdateMapping { id, path, api_id, stage } => {
                self.check_mapping(&api_id);
                let there = self.mappings.iter_mut().find(|m| m.id == id).expect("there");
                *there = Mapping { id, path, api_id, stage };
            }
            Action::DeleteMapping { id, .. } => {
                let i = self.mappings.iter().position(|m| m.id == id).expect("there");
                self.mappings.remove(i);
            }
            Action::MarkPending { api_arn } => drop(self.api(&api_arn).tags.insert(PENDING_TAG.into(), OURS.into())),
            Action::UnmarkPending { api_arn } => drop(self.api(&api_arn).tags.remove(PENDING_TAG)),
            Action::MarkDeployed { api_arn } => {
                drop(self.api(&api_arn).tags.insert(PENDING_TAG.into(), DEPLOYED.into()));
            }
            Action::CloseEndpoint { api_id, protocol } => {
                assert_eq!(protocol, self.api(&api_id).protocol);
                self.api(&api_id).endpoint_closed = true;
                let by_itself = |s: &Stage| s.auto_deploy;
                if self.apis[&api_id].stages.values().flatten().any(by_itself) {
                    self.publish(&api_id);
                }
            }
            Action::Deploy { api_id, protocol, stages } => {
                assert_eq!(protocol, self.api(&api_id).protocol);
                self.deployments += usize::from(protocol == Protocol::Rest);
                stages.iter().for_each(|stage| self.change_stage(&api_id, stage));
                self.publish(&api_id);
            }
            Action::TouchStage { api_id, stage, description } => {
                let there = self.apis[&api_id].stages[&stage].clone().expect("the stage is there");
                assert_eq!((self.api(&api_id).protocol, description), (Protocol::Rest, there.description));
                self.change_stage(&api_id, &stage);
                if self.touch_publishes {
                    self.publish(&api_id);
                }
            }
            Action::DeleteTruststoreVersion { version, .. } => {
                assert!(self.domain.is_none() || owner(&self.domain.as_ref().unwrap().tags) != OURS, "still pinned");
                let i = self.versions.iter().position(|s| s.version == version).expect("there");
                assert!(self.versions.remove(i).is_ours());
            }
        }
    }

    fn api(&mut self, id: &str) -> &mut gateway::Api {
        &mut self.apis.get_mut(id).expect("there").api
    }

    fn change_stage(&mut self, id: &str, name: &str) {
        let stage = self.apis.get_mut(id).and_then(|api| api.stages.get_mut(name)?.as_mut());
        stage.expect("the stage is there").updated_at = Some(self.clock);
    }

    /// The flag of the API becomes effective.
    fn publish(&mut self, id: &str) {
        match self.api(id).endpoint_closed {
            true => self.refusing.insert(id.to_owned()),
            false => self.refusing.remove(id),
        };
    }

    fn trusts_authority(&self) -> bool {
        let o = self.observed();
        let is_ours = |owner: &Option<String>| owner.as_deref() == Some(OURS);
        let used = self.domain.as_ref().is_some_and(|g| owner(&g.tags) == OURS);
        let published = o.published.unwrap().filter(|p| is_ours(&p.owner)).map(|p| p.bundle);
        let pinned = o.pinned.unwrap().filter(|p| used || is_ours(&p.owner)).map(|p| p.bundle);
        [published, pinned].iter().flatten().any(|b| b.entries.iter().any(|e| e.authority == "partners"))
    }

    fn check_request(&self, r: &DomainRequest) {
        let issued = |arn: &str| {
            let c = self.certificates.iter().find(|c| c.arn == arn).expect("the certificate is there");
            assert_eq!(c.status, CertificateStatus::Issued);
            c.kind
        };
        let proof = r.ownership_certificate_arn.as_deref().map(issued);
        assert!(issued(&r.certificate_arn) == CertificateKind::Requested || proof == Some(CertificateKind::Requested));
        assert!(
            self.stored(&r.truststore_uri, &r.truststore_version).is_some(),
            "Invalid truststore URI/versionId specified"
        );
        assert!(!r.truststore_version.is_empty(), "nothing is pinned");
    }

    /// What a domain trusted before it was taken over it trusts afterwards.
    fn check_nobody_loses(&self, r: &DomainRequest) {
        let adopted = self.domain.as_ref().expect("there").tags.contains_key(ADOPTED_TAG);
        if let Some(before) = self.pinned().filter(|before| adopted && !before.is_ours()) {
            let after = self.stored(&r.truststore_uri, &r.truststore_version).expect("there");
            let after = Bundle::parse(&after.body).unwrap();
            let lost = |e: &Entry| after.find(&e.certificate).is_none();
            assert!(
                !Bundle::parse(&before.body).unwrap().entries.iter().any(lost),
                "somebody lost access by a take-over"
            );
        }
    }

    fn check_mapping(&self, api: &str) {
        assert!(self.domain.as_ref().is_some_and(|g| owner(&g.tags) == OURS) && self.apis.contains_key(api));
    }

    fn change(&mut self, Change { action, record }: Change) {
        let i = self.records.iter().position(|r| r.name == record.name && r.kind == record.kind);
        match action {
            route53::Action::Create => {
                assert_eq!(i, None, "InvalidChangeBatch: exists already");
                self.records.push(record);
            }
            route53::Action::Upsert => match i {
                Some(i) => self.records[i] = record,
                None => self.records.push(record),
            },
            route53::Action::Delete => {
                let i = i.expect("InvalidChangeBatch: not there");
                assert_eq!(self.records.remove(i), record, "InvalidChangeBatch: the values do not match");
            }
        }
    }

    /// What AWS goes on with by itself.
    fn time_passes(&mut self) {
        self.clock += SignedDuration::from_hours(12);
        let records = self.records.clone();
        for c in self.certificates.iter_mut().filter(|c| c.status == CertificateStatus::PendingValidation) {
            let there = |v: &Validation| {
                v.record
                    .as_ref()
                    .is_some_and(|(n, value)| records.iter().any(|r| r.name == *n && r.values == [value.clone()]))
            };
            if c.validation.iter().all(there) {
                c.status = CertificateStatus::Issued;
            } else if c.created_at.is_some_and(|at| self.clock >= at + SignedDuration::from_hours(72)) {
                c.status = CertificateStatus::ValidationTimedOut;
            }
            for v in c.validation.iter_mut().filter(|v| v.record.is_none()) {
                v.record = Some(validation_record(&v.domain));
            }
        }
        if let Some(g) = self.domain.as_mut().filter(|g| g.status == DomainStatus::Updating) {
            g.status = DomainStatus::Available;
        }
    }

    /// Everything in it that carries somebody else's mark, or none; `of_domain`: the owners whose domain counts.
    fn foreign(&self, of_domain: &[&str]) -> String {
        let tag = |tags: &BTreeMap<String, String>| owner(tags) != OURS;
        let domain = self.domain.as_ref().filter(|g| of_domain.contains(&owner(&g.tags)));
        let domain = domain.map(|g| (&g.certificate_arn, &g.truststore, g.ip_address_type, &self.mappings));
        let certificates: Vec<_> = self.certificates.iter().filter(|c| tag(&c.tags)).map(|c| &c.arn).collect();
        let versions: Vec<_> = self.versions.iter().filter(|s| !s.is_ours()).collect();
        let bucket = self.bucket.as_ref().filter(|b| !b.is_ours());
        format!("{domain:?} {certificates:?} {versions:?} {bucket:?}")
    }

    pub(super) fn converge(&mut self, d: &Desired) {
        (self.adopts, self.creates) = (d.adoption == AdoptionPolicy::Unowned, d.create_bucket);
        for _ in 0..25 {
            let plan = plan(d, &self.observed(), self.clock);
            for (_, action) in plan.actions() {
                self.perform(action.clone());
            }
            self.time_passes();
        }
    }

    /// A look whose process is killed after so many actions.
    fn killed_look(&mut self, d: &Desired, after: usize) {
        (self.adopts, self.creates) = (d.adoption == AdoptionPolicy::Unowned, d.create_bucket);
        let plan = plan(d, &self.observed(), self.clock);
        for (_, action) in plan.actions().take(after) {
            self.perform(action.clone());
        }
        self.time_passes();
    }
}

pub(super) fn certificate(
    arn: &str,
    owner: &str,
    status: CertificateStatus,
    names: &[String],
    key_algorithm: KeyAlgorithm,
) -> acm::Certificate {
    let issued = status == CertificateStatus::Issued;
    acm::Certificate {
        arn: arn.into(),
        domain_name: NAME.into(),
        names: names.to_vec(),
        status,
        key_algorithm,
        kind: CertificateKind::Requested,
        not_after: None,
        created_at: None,
        in_use: false,
        failure: None,
        renewal: None,
        validation: names
            .iter()
            .map(|n| Validation {
                domain: n.clone(),
                record: issued.then(|| validation_record(n)),
                status: ValidationStatus::Pending,
            })
            .collect(),
        tags: tags(owner),
    }
}

fn validation_record(name: &str) -> (String, String) {
    (format!("_x.{}", name.trim_start_matches("*.")), "_y.acm-validations.aws".to_owned())
}

pub(super) fn domain(owner: &str, arn: &str, version: &str) -> Domain {
    Domain {
        name: NAME.into(),
        arn: "arn:domain".into(),
        certificate_arn: arn.into(),
        ownership_certificate_arn: None,
        truststore: Some(Truststore { uri: URI.into(), version: Some(version.into()), warnings: vec![] }),
        status: DomainStatus::Available,
        status_message: None,
        target: TARGET.into(),
        hosted_zone_id: "ZAPI".into(),
        ip_address_type: IpAddressType::Ipv4,
        endpoint_type: "REGIONAL".into(),
        security_policy: "TLS_1_2".into(),
        routing_mode: "API_MAPPING_ONLY".into(),
        tags: tags(owner),
    }
}

/// REST when the id begins with r. It was deployed an hour ago.
fn api(id: &str, closed: bool, auto_deploy: bool, mark: Option<&str>) -> Api {
    let protocol = if id.starts_with('r') { Protocol::Rest } else { Protocol::Http };
    let stage = Stage {
        name: "$default".into(),
        auto_deploy: auto_deploy && protocol == Protocol::Http,
        description: "theirs".into(),
        updated_at: Some(now() - SignedDuration::from_hours(1)),
    };
    Api {
        api: gateway::Api {
            id: id.into(),
            arn: id.into(), // so that both find the API
            protocol,
            private: false,
            endpoint_closed: closed,
            tags: mark.map(|mark| (PENDING_TAG.to_owned(), mark.to_owned())).into_iter().collect(),
        },
        stages: [("$default".to_owned(), Some(stage))].into(),
        probe: None,
    }
}

fn alias(target: &str) -> RecordSet {
    RecordSet {
        name: NAME.into(),
        kind: "A".into(),
        ttl: None,
        values: vec![],
        alias: Some(Alias { target: target.into(), hosted_zone_id: "ZAPI".into(), evaluate_target_health: false }),
        routed: false,
    }
}

pub(super) fn empty() -> World {
    World {
        has_key: false,
        certificates: vec![],
        records: vec![],
        bucket: Some(Bucket { owner: None, versioned: true, private: true, encrypted: true, fresh: false }),
        versions: vec![],
        domain: None,
        mappings: vec![],
        apis: ["a1", "a2", "r1"].map(|id| (id.to_owned(), api(id, false, id == "a1", None))).into(),
        refusing: BTreeSet::new(),
        touch_publishes: true,
        probes: true,
        deployments: 0,
        adopts: false,
        creates: false,
        counter: 100,
        clock: now(),
    }
}

prop_compose! {
    /// Any mixture of what we may have left half done, what somebody changed, and what belongs to somebody else.
    fn any_world()(
        has_key in any::<bool>(),
        certificates in proptest::collection::vec((any::<bool>(), 0..5u8, any::<bool>(), 0..240i64), 0..4),
        domain_of in prop_oneof![Just(None), Just(Some(OURS)), Just(Some(ADOPTED)), Just(Some(NOBODYS)), Just(Some(THEIRS))],
        without_mutual_tls in prop::bool::weighted(0.3),
        updating in any::<bool>(),
        dual_stack in any::<bool>(),
        bucket in 0..9u8,
        versions in proptest::collection::vec((prop_oneof![Just(Some(OURS)), Just(Some(OURS)), Just(None), Just(Some(THEIRS))], prop_oneof![Just(0u8), Just(1), Just(2), Just(2)], any::<bool>(), any::<bool>()), 0..4),
        pin in any::<prop::sample::Index>(),
        mappings in proptest::collection::btree_map("(|orders|orders/v2/items|old)", ("(a[12]|r1)", "(\\$default|prod)"), 0..4),
        apis in proptest::collection::vec((any::<bool>(), any::<bool>(), prop_oneof![Just(None), Just(Some(OURS)), Just(Some(THEIRS)), Just(Some(DEPLOYED))], any::<bool>()), 3),
        touch_publishes in any::<bool>(),
        probes in any::<bool>(),
        record in 0..4u8,
        marked in prop_oneof![Just(None), Just(Some(OURS)), Just(Some(THEIRS))],
    ) -> World {
        let mut w = empty();
        w.has_key = has_key;
        for (i, (ours, status, fits, hours)) in certificates.into_iter().enumerate() {
            let status = [CertificateStatus::Issued, CertificateStatus::PendingValidation, CertificateStatus::ValidationTimedOut, CertificateStatus::Failed, CertificateStatus::Expired][status as usize].clone();
            let names = if fits { vec![NAME.to_owned()] } else { several_names() };
            let c = certificate(&format!("arn:{i}"), if ours { OURS } else { THEIRS }, status, &names, KeyAlgorithm::EcPrime256v1);
            w.certificates.push(acm::Certificate { created_at: Some(now() - SignedDuration::from_hours(hours)), ..c });
        }
        let entry = Entry { authority: "partners".into(), certificate: AUTHORITY[0].clone(), max_leaf: None, keep_until: None };
        let other = Entry { authority: String::new(), certificate: OTHER[0].clone(), ..entry.clone() };
        let entries = |owner: Option<&str>, content| match content {
            0 => vec![],
            1 => vec![entry.clone()],
            // Ours holds what the spec lists, or what it remembers for a reason.
            _ if owner == Some(OURS) => vec![entry.clone()],
            _ => vec![entry.clone(), other.clone()],
        };
        // A truststore that moves, now and then; and an empty bucket where it shall be that is missing, unfinished, or not ours to finish.
        w.versions = versions.into_iter().enumerate().map(|(i, (owner, content, moved, encrypted))| Stored {
            uri: if moved || bucket < 3 { "s3://elsewhere/partners.pem".into() } else { URI.into() },
            version: format!("v{i}"),
            owner: owner.map(Into::into),
            body: Bundle { entries: entries(owner, content) }.render(),
            kms_key: encrypted.then(|| KMS_KEY.into()),
        }).collect();
        match bucket {
            0 => w.bucket = None,
            1 | 2 => {
                let owner = (bucket == 1).then(|| "cluster/ns/other".into());
                w.bucket = Some(Bucket { owner, versioned: false, private: dual_stack, encrypted: false, fresh: false });
            }
            _ => {}
        }
        if let Some(owner_of) = domain_of {
            let fits = |c: &&acm::Certificate| match owner_of {
                ADOPTED => true,
                NOBODYS => owner(&c.tags) == THEIRS,
                owner_of => owner(&c.tags) == owner_of,
            };
            let arn = w.certificates.iter().find(fits).map_or("arn:gone".to_owned(), |c| c.arn.clone());
            let used = if w.versions.is_empty() { None } else { Some(&w.versions[pin.index(w.versions.len())]) };
            let mut g = domain(owner_of, &arn, used.map_or("v-gone", |s| &s.version));
            if let Some(s) = used { g.truststore.as_mut().unwrap().uri = s.uri.clone(); }
            if without_mutual_tls && owner_of != OURS { g.truststore = None; }
            if updating { g.status = DomainStatus::Updating; }
            if dual_stack { g.ip_address_type = IpAddressType::Dualstack; }
            w.domain = Some(g);
            w.mappings = mappings.into_iter().enumerate().map(|(i, (path, (api_id, stage)))| Mapping { id: format!("m{i}"), path, api_id, stage }).collect();
        }
        for (id, (closed, auto_deploy, mark, refusing)) in ["a1", "a2", "r1"].into_iter().zip(apis) {
            w.apis.insert(id.into(), api(id, closed, auto_deploy, mark));
            // A flag that is set and was never made effective is a REST API's to have: of others somebody else has to deploy it. And one
            // that was deployed is effective.
            if refusing || closed && (id.starts_with('a') || mark == Some(DEPLOYED)) {
                w.refusing.insert(id.into());
            }
        }
        (w.touch_publishes, w.probes) = (touch_publishes, probes);
        match record {
            1 => w.records.push(alias(TARGET)),
            2 => w.records.push(alias("somewhere.else.example.net")),
            3 => w.records.push(RecordSet { kind: "CNAME".into(), ttl: Some(60), values: vec!["x.example.net".into()], alias: None, ..alias("") }),
            _ => {}
        }
        if let Some(owner) = marked {
            w.records.push(records::marker(&Home { owner: owner.into(), ..desired().home }));
        }
        w
    }
}

fn several_names() -> Vec<String> {
    ["*.api.example.com", NAME, OTHER_NAME].map(str::to_owned).into()
}

/// Two that somebody else has, one of which needs the other.
fn existing() -> [acm::Certificate; 2] {
    ["arn:imported", "arn:public"].map(|arn| {
        let kind = if arn == "arn:public" { CertificateKind::Requested } else { CertificateKind::Imported };
        let c = certificate(arn, "", CertificateStatus::Issued, &[NAME.to_owned()], KeyAlgorithm::Rsa2048);
        acm::Certificate { kind, tags: BTreeMap::new(), ..c }
    })
}

prop_compose! {
    /// Every kind of wish for a certificate and a truststore.
    fn any_desired()(kind in 0..4u8, unowned in any::<bool>(), create_bucket in any::<bool>(), encrypted in any::<bool>()) -> Desired {
        let mut d = Desired { create_bucket, kms_key: encrypted.then(|| KMS_KEY.into()), ..desired() };
        if unowned { d.adoption = AdoptionPolicy::Unowned; }
        let CertificateWish::Request { request, .. } = &mut d.certificate else { unreachable!("as above") };
        let proof = (kind == 3).then(|| "arn:public".to_owned());
        match kind {
            0 => {}
            1 => request.names = several_names(),
            2 => d.certificate = CertificateWish::Existing { arn: "arn:public".into(), ownership_arn: proof },
            _ => d.certificate = CertificateWish::Existing { arn: "arn:imported".into(), ownership_arn: proof },
        }
        d
    }
}

/// Whether the domain may show this certificate, and how many of ours may be left with it.
fn as_wished(d: &Desired, g: &Domain, used: &acm::Certificate) -> Option<usize> {
    match &d.certificate {
        // A domain that was taken over keeps what it came with.
        CertificateWish::Request { keep: true, .. }
            if g.tags.contains_key(ADOPTED_TAG) && owner(&used.tags) != OURS =>
        {
            Some(0)
        }
        CertificateWish::Request { request, .. } => {
            (owner(&used.tags) == OURS && used.names == request.names).then_some(1)
        }
        CertificateWish::Existing { arn, ownership_arn } => {
            (used.arn == *arn && g.ownership_certificate_arn == *ownership_arn).then_some(0)
        }
    }
}

proptest! {
    #[test]
    fn every_start_ends_in_the_desired_state_or_names_what_is_in_the_way(
        mut start in any_world(),
        mut d in any_desired(),
        may_deploy in any::<bool>(),
        kills in proptest::collection::vec(0..6usize, 0..4),
    ) {
        start.certificates.extend(existing());
        let mut w = start.clone();
        let adopts = d.adoption == AdoptionPolicy::Unowned;
        if may_deploy { d.rest_deployment = RestDeployment::Allow; }
        let killed = kills.len();
        for after in kills {
            w.killed_look(&d, after);
        }
        w.converge(&d);
        // A domain that carries no mark at the end was left alone.
        let nobodys = w.domain.as_ref().is_some_and(|g| owner(&g.tags) == NOBODYS);
        let left = if nobodys { &[THEIRS, NOBODYS][..] } else { &[THEIRS] };
        prop_assert_eq!(w.foreign(left), start.foreign(left), "somebody else's things were touched");
        // One for the endpoint, and one more for each process that died before it could write down that it had deployed.
        prop_assert!(w.deployments <= if may_deploy { 1 + killed } else { 0 }, "{} deployments", w.deployments);
        let end = plan(&d, &w.observed(), w.clock);
        prop_assert_eq!(end.actions().count(), 0, "it never comes to rest: {:?}", end.steps);
        let blocked: Vec<_> = end.steps.values().filter_map(|j| match &j.verdict { Verdict::Blocked(reason, _) => Some(*reason), _ => None }).collect();
        if blocked.is_empty() {
            // The planner's own word is not proof: look at the model.
            let g = w.domain.as_ref().expect("the domain is there");
            prop_assert_eq!(&g.status, &DomainStatus::Available);
            prop_assert_eq!(g.ip_address_type, IpAddressType::Ipv4);
            let used = w.certificates.iter().find(|c| c.arn == g.certificate_arn).expect("its certificate is there");
            prop_assert_eq!(&used.status, &CertificateStatus::Issued);
            let left = w.certificates.iter().filter(|c| owner(&c.tags) == OURS).count();
            prop_assert_eq!(as_wished(&d, g, used), Some(left), "{:?}", w.certificates);
            let pinned = w.pinned().expect("the version is there");
            prop_assert_eq!((pinned.uri.as_str(), pinned.is_ours(), &pinned.kms_key), (URI, true, &d.kms_key));
            prop_assert!(Bundle::parse(&pinned.body).unwrap().find(&AUTHORITY[0]).is_some());
            prop_assert!(w.bucket.as_ref().is_some_and(|b| b.versioned && (!b.is_ours() || (b.private && b.encrypted))));
            // What the spec does not list stays on a domain that was taken over.
            let listed = |m: &&Mapping| !g.tags.contains_key(ADOPTED_TAG) || d.mappings.contains_key(&m.path);
            let mapped: BTreeMap<_, _> = w.mappings.iter().filter(listed).map(|m| (m.path.as_str(), m.api_id.as_str())).collect();
            prop_assert_eq!(mapped, BTreeMap::from([("", "a1"), ("orders", "a2"), ("orders/v2/items", "r1")]));
            prop_assert!(w.records.iter().any(|r| r.kind == "A" && r.alias.as_ref().is_some_and(|a| a.target == g.target)));
            prop_assert!(w.apis.values().all(|a| a.api.endpoint_closed && a.api.tags.is_empty()), "{:?}", w.apis);
            if w.probes {
                prop_assert_eq!(w.refusing.len(), 3, "an endpoint still answers");
            }
        } else {
            // Of a domain that was there before: what it trusts, and the certificate that it came with.
            let of_takeover = [Reason::TrustInUse, Reason::RefNotFound, Reason::CertificateFailed];
            let known = [
                &[Reason::ForeignOwner, Reason::AuthorityKeyLost, Reason::NoValidCACertificate][..],
                &[Reason::BucketNotFound, Reason::BucketNotVersioned, Reason::WaitingForDeployment],
                &of_takeover,
            ]
            .concat();
            prop_assert!(blocked.iter().all(|r| known.contains(r)), "{blocked:?}");
            if blocked.iter().any(|r| of_takeover.contains(r)) {
                let g = start.domain.as_ref().expect("a domain was there");
                prop_assert!(owner(&g.tags) == NOBODYS || g.tags.contains_key(ADOPTED_TAG));
                prop_assert!(g.truststore.is_some() || !blocked.contains(&Reason::TrustInUse));
            } else if blocked.contains(&Reason::WaitingForDeployment) {
                prop_assert!(!may_deploy && !w.refusing.contains("r1"), "nothing waits for a deployment");
            } else if !blocked.contains(&Reason::AuthorityKeyLost) {
                let in_the_way = start.domain.as_ref().is_some_and(|g| owner(&g.tags) == THEIRS || (owner(&g.tags) == NOBODYS && !adopts))
                    || start.latest().is_some_and(|s| !s.is_ours())
                    || start.bucket.as_ref().is_none_or(|b| !b.versioned)
                    || start.records.iter().any(|r| r.name == NAME || r.kind == "TXT");
                prop_assert!(in_the_way, "nothing foreign was there: {blocked:?}");
            }
        }
    }

    #[test]
    fn every_start_can_be_torn_down(
        d in any_desired(),
        start in any_world(),
        half_built in any::<bool>(),
        policy in prop_oneof![Just(None), Just(Some(DeletionPolicy::Delete)), Just(Some(DeletionPolicy::Retain))],
    ) {
        let mut w = start.clone();
        if half_built {
            w.converge(&d);
        }
        let built = w.clone();
        let closed = w.apis.values().filter(|a| a.api.endpoint_closed).count();
        let listed: Vec<_> = d.mappings.keys().cloned().collect();
        for _ in 0..10 {
            let judged = teardown(&d.home, policy, &listed, &w.remains());
            for action in judged.actions {
                w.perform(action);
            }
            w.time_passes();
        }
        let end = teardown(&d.home, policy, &listed, &w.remains());
        let others = built.mappings.iter().any(|m| m.path == "old");
        if matches!(end.verdict, Verdict::Blocked(Reason::ForeignOwner, _)) && others {
            return Ok(()); // somebody's mapping on a domain that was taken over and is to be deleted
        }
        prop_assert!(end.verdict.is_done() && end.actions.is_empty(), "{end:?}");
        let left = w.domain.as_ref().map_or(NOBODYS, |g| owner(&g.tags)).to_owned();
        prop_assert_ne!(&left, OURS);
        prop_assert!(w.certificates.iter().all(|c| owner(&c.tags) != OURS));
        prop_assert!(!w.records.contains(&records::marker(&d.home)));
        prop_assert_eq!(w.apis.values().filter(|a| a.api.endpoint_closed).count(), closed, "a closed endpoint was opened");
        let was = built.domain.as_ref().map(|g| if g.tags.contains_key(ADOPTED_TAG) { ADOPTED } else { owner(&g.tags) });
        let (before, after) = (built.domain.as_ref(), w.domain.as_ref());
        match (was, policy) {
            (Some(OURS), None | Some(DeletionPolicy::Delete)) | (Some(ADOPTED), Some(DeletionPolicy::Delete)) => prop_assert!(after.is_none()),
            (None, _) => prop_assert!(after.is_none()),
            _ => {
                // It stays, and works as before: with its certificate, its truststore, its mappings and its records.
                let (before, after) = (before.expect("there"), after.expect("it stays"));
                prop_assert_eq!((&after.certificate_arn, &after.truststore), (&before.certificate_arn, &before.truststore));
                prop_assert_eq!(&w.mappings, &built.mappings);
                prop_assert_eq!(w.has_certificate(&after.certificate_arn), built.has_certificate(&after.certificate_arn));
                let pinned = after.truststore.as_ref().and_then(|t| t.version.as_ref());
                let has = |w: &World| w.versions.iter().any(|s| Some(&s.version) == pinned);
                prop_assert_eq!(has(&w), has(&built));
                if matches!(was, Some(OURS | ADOPTED)) {
                    let served = |w: &World| w.records.iter().filter(|r| r.kind != "TXT").cloned().collect::<Vec<_>>();
                    prop_assert_eq!(served(&w), served(&built));
                }
            }
        }
        if after.is_none() && policy != Some(DeletionPolicy::Retain) {
            prop_assert!(w.versions.iter().all(|s| s.uri != URI || !s.is_ours()));
        }
    }

    /// Whoever follows the status gets a domain that works; who does not keeps the way in that there is.
    #[test]
    fn where_somebody_else_makes_the_records_we_make_none(start in any_world(), follows in any::<bool>()) {
        let (mut d, mut w) = (desired(), start.clone());
        d.home.dns = DnsWish::External { verify: DnsVerification::PublicDNS };
        let mut status = MtlsDomainStatus::default();
        for _ in 0..25 {
            let o = w.observed_from_outside();
            let plan = plan(&d, &o, w.clock);
            let found = o.public.clone().unwrap().unwrap_or_default();
            let leads = found.cnames.contains(&TARGET.to_owned()) || (!found.addresses.is_empty() && found.addresses == found.target);
            for (_, action) in plan.actions() {
                prop_assert!(!matches!(action, Action::ChangeRecords { .. }), "{action:?}");
                prop_assert!(leads || !matches!(action, Action::CloseEndpoint { .. }), "the only way in was closed");
                w.perform(action.clone());
            }
            status = report(&status, 1, &d.home, &plan, &o, &BTreeMap::new(), w.clock);
            if follows {
                w.create_by_hand(&status);
            }
            w.time_passes();
        }
        let o = w.observed_from_outside();
        let end = plan(&d, &o, w.clock);
        prop_assert_eq!(end.actions().count(), 0, "it never comes to rest: {:?}", end.steps);
        if follows && !end.steps.values().any(|j| matches!(j.verdict, Verdict::Blocked(..))) {
            prop_assert!(end.steps.values().all(|j| j.verdict.is_done()), "{:?}", end.steps);
            prop_assert!(w.apis.values().all(|a| a.api.endpoint_closed && a.api.tags.is_empty()));
        }
        if !follows {
            prop_assert_eq!(&w.records, &start.records);
        }
        let listed = status.dns.map(|dns| dns.records).unwrap_or_default();
        let points = listed.iter().filter(|r| r.name == NAME).map(|r| r.value.as_str()).collect::<Vec<_>>();
        let ours = w.domain.as_ref().is_some_and(|g| owner(&g.tags) == OURS);
        prop_assert_eq!(points, if ours { vec![TARGET] } else { vec![] });
    }

    /// No step of any repair, whatever is broken, takes a living authority out of the truststore.
    #[test]
    fn trust_never_shrinks_on_the_way(start in any_world()) {
        let (d, mut w) = (desired(), start);
        w.converge(&d);
        let trusted = |w: &World| w.observed().pinned.unwrap().is_some_and(|p| p.bundle.find(&AUTHORITY[0]).is_some());
        let ours = |w: &World| w.domain.as_ref().is_some_and(|g| owner(&g.tags) == OURS);
        if trusted(&w) && ours(&w) {
            w.has_key = false; // the Secret is lost
            for _ in 0..5 {
                for (_, action) in plan(&d, &w.observed(), w.clock).actions() {
                    w.perform(action.clone());
                }
                w.time_passes();
                prop_assert!(trusted(&w));
            }
            let end = plan(&d, &w.observed(), w.clock);
            prop_assert!(matches!(end.steps[&Step::ResolvedRefs].verdict, Verdict::Blocked(Reason::AuthorityKeyLost, _)), "{:?}", end.steps);
        }
    }
}

#[test]
fn from_nothing_it_takes_few_looks() {
    let (d, mut w) = (desired(), empty());
    let mut looks = 0;
    while !plan(&d, &w.observed(), w.clock).steps.values().all(|j| j.verdict.is_done()) {
        for (_, action) in plan(&d, &w.observed(), w.clock).actions() {
            w.perform(action.clone());
        }
        w.time_passes();
        looks += 1;
        assert!(looks < 12, "{:?}", plan(&d, &w.observed(), w.clock).steps);
    }
}

/// Nobody leaves the truststore because the API server did not answer.
#[test]
fn a_selection_that_cannot_be_seen_keeps_what_it_had() {
    let selector = SourceWish::ConfigMaps { labels: BTreeMap::new(), key: "ca.crt".into() };
    let mut d = desired();
    d.authorities.push(AuthorityWish { name: "cas".into(), state: AuthorityState::Active, source: selector });
    let partner = |name: &str| {
        let request = AuthorityRequest { common_name: name.into(), ..request() };
        parse_pem_bundle(&authority::generate(&request, now()).unwrap().certificate_pem)
    };
    let read = |name: &str| (name.to_owned(), Source::Read { certificates: partner(name), key: Key::Absent });
    let mut w = empty();
    w.converge(&desired());
    let mut o = w.observed();
    o.authorities.insert("cas".into(), Source::Several([read("acme"), read("zeta")].into()));
    let told = plan(&d, &o, now());
    let Some((_, Action::PutTruststore { body, .. })) = told.actions().next() else { panic!("{:?}", told.steps) };
    w.perform(told.actions().next().unwrap().1.clone());
    let names: Vec<_> = Bundle::parse(body).unwrap().entries.into_iter().map(|e| e.authority).collect();
    assert_eq!(names, ["partners", "cas/acme", "cas/zeta"]);

    let mut o = w.observed();
    let unseen = super::observed::Unseen { reason: Reason::Unreachable, message: "no answer".into() };
    o.authorities.insert("cas".into(), Source::Unseen(unseen));
    let blind = plan(&d, &o, now());
    assert_eq!(&blind.truststore.unwrap().bundle.render(), body);
    // ... while those that are seen to be gone leave, and Distrusted asks nobody.
    o.authorities.insert("cas".into(), Source::Several([read("acme")].into()));
    let seen = plan(&d, &o, now());
    assert_eq!(seen.truststore.unwrap().bundle.entries.len(), 2);
    d.authorities[1].state = AuthorityState::Distrusted;
    o.authorities.remove("cas");
    let distrusted = plan(&d, &o, now()).truststore.unwrap();
    assert!(distrusted.distrusts && distrusted.bundle.entries.len() == 1);
}

/// A reading that failed is never taken for "nothing there".
#[test]
fn what_cannot_be_seen_is_neither_made_nor_deleted() {
    let unseen = || super::observed::Unseen { reason: Reason::Unreachable, message: "no answer".into() };
    let mut w = empty();
    w.converge(&desired());
    let whole = w.observed();
    assert_eq!(plan(&desired(), &whole, w.clock).actions().count(), 0);
    let mut blinded = vec![];
    for blind in 0..9 {
        let mut o = whole.clone();
        match blind {
            0 => o.zones = Err(unseen()),
            1 => o.certificates = Err(unseen()),
            2 => o.validation = Err(unseen()),
            3 => o.bucket = Err(unseen()),
            4 => o.published = Err(unseen()),
            5 => o.pinned = Err(unseen()),
            6 => o.domain = Err(unseen()),
            7 => o.mappings = Err(unseen()),
            _ => o.records = Err(unseen()),
        }
        o.authorities.insert("partners".into(), Source::Unseen(unseen()));
        let plan = plan(&desired(), &o, w.clock);
        blinded.push(plan.actions().map(|(_, a)| a.clone()).collect::<Vec<_>>());
    }
    assert!(blinded.iter().all(Vec::is_empty), "{blinded:#?}");
}
