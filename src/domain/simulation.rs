//! The planner against a model of AWS: from any state it ends in the desired one, any state can be torn down, and nothing of anybody
//! else is ever touched. What is checked is the model, never the planner's own word.
use std::{collections::BTreeMap, sync::LazyLock};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::{
    desired::{AuthorityWish, CertificateWish, DEFAULT_LEAF, Desired, Home, SourceWish, sha256},
    observed::{Api, Key, Observed, Published, Remains, Source},
    plan::{Action, OWNER_TAG, PENDING_TAG, Step, Verdict, plan},
    records,
    teardown::teardown,
};
use crate::{
    api::{AuthorityState, DefaultEndpoint, MappedApi, UnlistedMappings, conditions::Reason},
    aws::{
        acm::{self, CertificateKind, CertificateStatus, KeyAlgorithm, Validation, ValidationStatus},
        gateway::{self, Domain, DomainStatus, IpAddressType, Mapping, Protocol, Stage, Truststore},
        probe,
        route53::{self, Alias, Change, RecordSet, Zone},
        s3,
    },
    pki::{
        authority::{self, AuthorityRequest},
        certificate::{Certificate, parse_pem_bundle},
        keys::KeyKind,
        truststore::{Bundle, Entry},
    },
};

const NAME: &str = "api.example.com";
const OURS: &str = "cluster/ns/partners";
const THEIRS: &str = "other/ns/partners";

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

fn desired() -> Desired {
    let home = Home {
        namespace: "ns".into(),
        name: "partners".into(),
        account: "123456789012".into(),
        region: "eu-west-1".into(),
        owner: OURS.into(),
        domain_name: NAME.into(),
        zone_id: None,
        bucket: "truststores".into(),
        key: "partners.pem".into(),
        unlisted_mappings: UnlistedMappings::Delete,
    };
    Desired {
        home,
        certificate: CertificateWish {
            names: vec![NAME.into()],
            key_algorithm: KeyAlgorithm::EcPrime256v1,
            token: "t".into(),
        },
        authorities: vec![AuthorityWish {
            name: "partners".into(),
            state: AuthorityState::Active,
            source: SourceWish::Generated { secret: "partners.partners-ca".into(), request: request() },
        }],
        self_signed: vec![],
        longest_leaf: DEFAULT_LEAF,
        overlap: None,
        mappings: [("".to_owned(), "a1"), ("orders".to_owned(), "a2")]
            .map(|(path, id)| (path, MappedApi { id: id.into(), stage: "$default".into() }))
            .into(),
        default_endpoint: DefaultEndpoint::Disable,
        ip_address_type: IpAddressType::Ipv4,
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
struct World {
    has_key: bool,
    certificates: Vec<acm::Certificate>,
    records: Vec<RecordSet>,
    /// Version, owner, body.
    versions: Vec<(String, Option<String>, String)>,
    domain: Option<Domain>,
    mappings: Vec<Mapping>,
    apis: BTreeMap<String, Api>,
    counter: usize,
}

impl World {
    fn id(&mut self, prefix: &str) -> String {
        self.counter += 1;
        format!("{prefix}{}", self.counter)
    }

    fn in_use(&self, arn: &str) -> bool {
        self.domain.as_ref().is_some_and(|g| g.certificate_arn == arn)
    }

    fn seen_certificates(&self) -> Vec<acm::Certificate> {
        self.certificates.iter().map(|c| acm::Certificate { in_use: self.in_use(&c.arn), ..c.clone() }).collect()
    }

    fn records_at(&self, names: &[&str]) -> Vec<RecordSet> {
        self.records.iter().filter(|r| names.contains(&r.name.as_str())).cloned().collect()
    }

    fn observed(&self) -> Observed {
        let source = Source::Read { certificates: Ok(AUTHORITY.clone()), key: Key::Fits };
        let missing = Source::Missing("there is no Secret".into());
        let body = |version: &str| {
            self.versions.iter().find(|(v, ..)| v == version).map(|(.., body)| Bundle::parse(body).unwrap_or_default())
        };
        let pinned = self
            .domain
            .as_ref()
            .filter(|g| g.tags.get(OWNER_TAG).is_some_and(|o| o == OURS))
            .and_then(|g| g.truststore.as_ref());
        let apis = self.apis.iter().map(|(id, api)| {
            let settled = api.api.endpoint_closed && !api.api.tags.contains_key(PENDING_TAG);
            (id.clone(), Ok(Some(Api { probe: settled.then_some(probe::Verdict::Refused(404)), ..api.clone() })))
        });
        let cname = |name: &str| (name.to_owned(), self.records_at(&[name]));
        Observed {
            self_signed: Ok(BTreeMap::new()),
            authorities: [("partners".to_owned(), if self.has_key { source } else { missing })].into(),
            zone: Ok(Some(Zone { id: "Z1".into(), name: "example.com".into(), private: false })),
            certificates: Ok(self.seen_certificates()),
            validation: Ok(self
                .certificates
                .iter()
                .flat_map(|c| &c.validation)
                .filter_map(|v| v.record.as_ref())
                .map(|(n, _)| cname(n))
                .collect()),
            bucket: Ok(Some(s3::Bucket { region: "eu-west-1".into(), versioned: true })),
            published: Ok(self.versions.last().map(|(version, owner, body)| Published {
                version: version.clone(),
                owner: owner.clone(),
                sha256: sha256(body.as_bytes()),
                bundle: Bundle::parse(body).unwrap_or_default(),
            })),
            pinned: Ok(pinned.and_then(|t| body(t.version.as_deref().unwrap_or_default()))),
            domain: Ok(self.domain.clone()),
            mappings: Ok(self.mappings.clone()),
            apis: apis.collect(),
            records: Ok(self.records_at(&[NAME, &records::marker_name(NAME)])),
            records_in_sync: Ok(true),
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
                .filter(|(_, owner, _)| owner.as_deref() == Some(OURS))
                .map(|(v, ..)| v.clone())
                .collect()),
        }
    }

    /// What AWS does to a call; it panics where AWS would refuse, and where anything of somebody else would be changed.
    fn perform(&mut self, action: Action) {
        match action {
            Action::GenerateAuthority { .. } => {
                assert!(
                    !self.has_key && !self.trusts_authority(),
                    "a key was made anew while its certificate is trusted"
                );
                self.has_key = true;
            }
            Action::RequestCertificate(r) => {
                let arn = self.id("arn:");
                self.certificates.push(certificate(
                    &arn,
                    OURS,
                    CertificateStatus::PendingValidation,
                    &r.names,
                    r.key_algorithm,
                ));
            }
            Action::DeleteCertificate { arn } => {
                assert!(!self.in_use(&arn), "ResourceInUseException");
                let i = self.certificates.iter().position(|c| c.arn == arn).expect("there");
                assert_eq!(self.certificates.remove(i).tags[OWNER_TAG], OURS);
            }
            Action::ChangeRecords { changes, .. } => changes.into_iter().for_each(|c| self.change(c)),
            Action::PutTruststore { body, .. } => {
                let (version, last) = (self.id("v"), self.versions.last().and_then(|(_, owner, _)| owner.clone()));
                assert!(last.is_none_or(|o| o == OURS), "somebody else's object was overwritten");
                self.versions.push((version, Some(OURS.into()), body));
            }
            Action::CreateDomain(r) => {
                assert!(self.domain.is_none(), "exists already");
                self.check_request(&r.certificate_arn, &r.truststore_version);
                let mut g = domain(OURS, &r.certificate_arn, &r.truststore_version);
                (g.truststore.as_mut().unwrap().uri, g.status) = (r.truststore_uri, DomainStatus::Updating);
                self.domain = Some(g);
            }
            Action::UpdateDomain(r) => {
                self.check_request(&r.certificate_arn, &r.truststore_version);
                let g = self.domain.as_mut().expect("there");
                assert_eq!((g.tags[OWNER_TAG].as_str(), &g.status), (OURS, &DomainStatus::Available));
                g.certificate_arn = r.certificate_arn;
                g.truststore =
                    Some(Truststore { uri: r.truststore_uri, version: Some(r.truststore_version), warnings: vec![] });
                (g.ip_address_type, g.status) = (r.ip_address_type, DomainStatus::Updating);
            }
            Action::DeleteDomain { .. } => {
                assert_eq!(self.domain.take().expect("there").tags[OWNER_TAG], OURS);
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
            Action::CloseEndpoint { api_id } => self.api(&api_id).endpoint_closed = true,
            Action::Deploy { .. } => {}
            Action::DeleteTruststoreVersion { version, .. } => {
                assert!(self.domain.is_none() || self.domain.as_ref().unwrap().tags[OWNER_TAG] != OURS, "still pinned");
                let i = self.versions.iter().position(|(v, ..)| *v == version).expect("there");
                assert_eq!(self.versions.remove(i).1.as_deref(), Some(OURS));
            }
        }
    }

    fn api(&mut self, id: &str) -> &mut gateway::Api {
        &mut self.apis.get_mut(id).expect("there").api
    }

    fn trusts_authority(&self) -> bool {
        let o = self.observed();
        let bundles = [o.published.unwrap().map(|p| p.bundle), o.pinned.unwrap()];
        bundles.iter().flatten().any(|b| b.entries.iter().any(|e| e.authority == "partners"))
    }

    fn check_request(&self, arn: &str, version: &str) {
        let c = self.certificates.iter().find(|c| c.arn == arn).expect("the certificate is there");
        assert_eq!(c.status, CertificateStatus::Issued);
        assert!(self.versions.iter().any(|(v, ..)| v == version), "Invalid truststore URI/versionId specified");
    }

    fn check_mapping(&self, api: &str) {
        assert!(self.domain.as_ref().is_some_and(|g| g.tags[OWNER_TAG] == OURS) && self.apis.contains_key(api));
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
        let records = self.records.clone();
        for c in self.certificates.iter_mut().filter(|c| c.status == CertificateStatus::PendingValidation) {
            let there = |v: &Validation| {
                v.record
                    .as_ref()
                    .is_some_and(|(n, value)| records.iter().any(|r| r.name == *n && r.values == [value.clone()]))
            };
            if c.validation.iter().all(there) {
                c.status = CertificateStatus::Issued;
            }
            for v in c.validation.iter_mut().filter(|v| v.record.is_none()) {
                v.record = Some((format!("_x.{}", v.domain), "_y.acm-validations.aws".into()));
            }
        }
        if let Some(g) = self.domain.as_mut().filter(|g| g.status == DomainStatus::Updating) {
            g.status = DomainStatus::Available;
        }
    }

    /// Everything in it that carries somebody else's mark, or none.
    fn foreign(&self) -> String {
        let tag = |tags: &BTreeMap<String, String>| tags.get(OWNER_TAG).is_none_or(|o| o != OURS);
        let domain = self.domain.as_ref().filter(|g| tag(&g.tags));
        let domain = domain.map(|g| (&g.certificate_arn, &g.truststore, g.ip_address_type, &self.mappings));
        let certificates: Vec<_> = self.certificates.iter().filter(|c| tag(&c.tags)).map(|c| &c.arn).collect();
        let versions: Vec<_> = self.versions.iter().filter(|(_, owner, _)| owner.as_deref() != Some(OURS)).collect();
        format!("{domain:?} {certificates:?} {versions:?}")
    }

    fn converge(&mut self, d: &Desired) {
        for _ in 0..25 {
            let plan = plan(d, &self.observed(), now());
            for (_, action) in plan.actions() {
                self.perform(action.clone());
            }
            self.time_passes();
        }
    }
}

fn certificate(
    arn: &str,
    owner: &str,
    status: CertificateStatus,
    names: &[String],
    key_algorithm: KeyAlgorithm,
) -> acm::Certificate {
    let issued = status == CertificateStatus::Issued;
    let record = issued.then(|| (format!("_x.{NAME}"), "_y.acm-validations.aws".to_owned()));
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
        validation: names
            .iter()
            .map(|n| Validation { domain: n.clone(), record: record.clone(), status: ValidationStatus::Pending })
            .collect(),
        tags: [(OWNER_TAG.to_owned(), owner.to_owned())].into(),
    }
}

fn domain(owner: &str, arn: &str, version: &str) -> Domain {
    Domain {
        name: NAME.into(),
        arn: "arn:domain".into(),
        certificate_arn: arn.into(),
        ownership_certificate_arn: None,
        truststore: Some(Truststore {
            uri: "s3://truststores/partners.pem".into(),
            version: Some(version.into()),
            warnings: vec![],
        }),
        status: DomainStatus::Available,
        status_message: None,
        target: "d-1.execute-api.eu-west-1.amazonaws.com".into(),
        hosted_zone_id: "ZAPI".into(),
        ip_address_type: IpAddressType::Ipv4,
        endpoint_type: "REGIONAL".into(),
        security_policy: "TLS_1_2".into(),
        routing_mode: "API_MAPPING_ONLY".into(),
        tags: [(OWNER_TAG.to_owned(), owner.to_owned())].into(),
    }
}

fn api(id: &str, closed: bool, auto_deploy: bool, pending: bool) -> Api {
    let tags = if pending { [(PENDING_TAG.to_owned(), OURS.to_owned())].into() } else { BTreeMap::new() };
    Api {
        // The arn of the model is the id, so that both find the API.
        api: gateway::Api { id: id.into(), arn: id.into(), protocol: Protocol::Http, endpoint_closed: closed, tags },
        stages: [("$default".to_owned(), Some(Stage { name: "$default".into(), auto_deploy }))].into(),
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

fn empty() -> World {
    World {
        has_key: false,
        certificates: vec![],
        records: vec![],
        versions: vec![],
        domain: None,
        mappings: vec![],
        apis: ["a1", "a2"].map(|id| (id.to_owned(), api(id, false, id == "a1", false))).into(),
        counter: 100,
    }
}

prop_compose! {
    /// Any mixture of what we may have left half done, what somebody changed, and what belongs to somebody else.
    fn any_world()(
        has_key in any::<bool>(),
        certificates in proptest::collection::vec((any::<bool>(), 0..4u8, any::<bool>()), 0..4),
        domain_of in prop_oneof![Just(None), Just(Some(OURS)), Just(Some(OURS)), Just(Some(THEIRS))],
        updating in any::<bool>(),
        dual_stack in any::<bool>(),
        versions in proptest::collection::vec((prop_oneof![Just(Some(OURS)), Just(Some(OURS)), Just(None), Just(Some(THEIRS))], any::<bool>()), 0..3),
        pin in any::<prop::sample::Index>(),
        mappings in proptest::collection::btree_map("(|orders|old)", ("a[12]", "(\\$default|prod)"), 0..3),
        apis in proptest::collection::vec((any::<bool>(), any::<bool>(), any::<bool>()), 2),
        record in 0..4u8,
        marked in prop_oneof![Just(None), Just(Some(OURS)), Just(Some(THEIRS))],
    ) -> World {
        let mut w = empty();
        w.has_key = has_key;
        for (i, (ours, status, fits)) in certificates.into_iter().enumerate() {
            let status = [CertificateStatus::Issued, CertificateStatus::PendingValidation, CertificateStatus::ValidationTimedOut, CertificateStatus::Expired][status as usize].clone();
            let names = if fits { vec![NAME.to_owned()] } else { vec![NAME.to_owned(), "x.example.com".to_owned()] };
            w.certificates.push(certificate(&format!("arn:{i}"), if ours { OURS } else { THEIRS }, status, &names, KeyAlgorithm::EcPrime256v1));
        }
        let entry = Entry { authority: "partners".into(), certificate: AUTHORITY[0].clone(), max_leaf: None, keep_until: None };
        let bundle = |trusted: bool| if trusted { Bundle { entries: vec![entry.clone()] }.render() } else { String::new() };
        w.versions = versions.into_iter().enumerate().map(|(i, (owner, trusted))| (format!("v{i}"), owner.map(Into::into), bundle(trusted))).collect();
        if let Some(owner) = domain_of {
            let arn = w.certificates.iter().find(|c| c.tags[OWNER_TAG] == owner).map_or("arn:gone".to_owned(), |c| c.arn.clone());
            let version = if w.versions.is_empty() { "v-gone".to_owned() } else { w.versions[pin.index(w.versions.len())].0.clone() };
            let mut g = domain(owner, &arn, &version);
            if updating { g.status = DomainStatus::Updating; }
            if dual_stack { g.ip_address_type = IpAddressType::Dualstack; }
            w.domain = Some(g);
            w.mappings = mappings.into_iter().enumerate().map(|(i, (path, (api_id, stage)))| Mapping { id: format!("m{i}"), path, api_id, stage }).collect();
        }
        for (id, (closed, auto_deploy, pending)) in ["a1", "a2"].into_iter().zip(apis) {
            w.apis.insert(id.into(), api(id, closed, auto_deploy, pending));
        }
        match record {
            1 => w.records.push(alias("d-1.execute-api.eu-west-1.amazonaws.com")),
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

proptest! {
    #[test]
    fn every_start_ends_in_the_desired_state_or_names_what_is_in_the_way(start in any_world()) {
        let (d, mut w) = (desired(), start.clone());
        w.converge(&d);
        prop_assert_eq!(w.foreign(), start.foreign(), "somebody else's things were touched");
        let end = plan(&d, &w.observed(), now());
        prop_assert_eq!(end.actions().count(), 0, "it never comes to rest: {:?}", end.steps);
        let blocked: Vec<_> = end.steps.values().filter_map(|j| match &j.verdict { Verdict::Blocked(reason, _) => Some(*reason), _ => None }).collect();
        if blocked.is_empty() {
            // The planner's own word is not proof: look at the model.
            let g = w.domain.expect("the domain is there");
            prop_assert_eq!(&g.status, &DomainStatus::Available);
            prop_assert_eq!(g.ip_address_type, IpAddressType::Ipv4);
            let used = w.certificates.iter().find(|c| c.arn == g.certificate_arn).expect("its certificate is there");
            prop_assert_eq!((&used.status, used.names.len()), (&CertificateStatus::Issued, 1));
            let pinned = g.truststore.and_then(|t| t.version).expect("pinned");
            let (_, owner, body) = w.versions.iter().find(|(v, ..)| *v == pinned).expect("the version is there").clone();
            prop_assert_eq!(owner.as_deref(), Some(OURS));
            prop_assert!(Bundle::parse(&body).unwrap().find(&AUTHORITY[0]).is_some());
            let mapped: BTreeMap<_, _> = w.mappings.iter().map(|m| (m.path.as_str(), m.api_id.as_str())).collect();
            prop_assert_eq!(mapped, BTreeMap::from([("", "a1"), ("orders", "a2")]));
            prop_assert!(w.records.iter().any(|r| r.kind == "A" && r.alias.as_ref().is_some_and(|a| a.target == g.target)));
            prop_assert!(w.apis.values().all(|a| a.api.endpoint_closed && a.api.tags.is_empty()));
            prop_assert_eq!(w.certificates.iter().filter(|c| c.tags[OWNER_TAG] == OURS).count(), 1, "superseded certificates are left");
        } else {
            let known = [Reason::ForeignOwner, Reason::AuthorityKeyLost];
            prop_assert!(blocked.iter().all(|r| known.contains(r)), "{blocked:?}");
            if !blocked.contains(&Reason::AuthorityKeyLost) {
                let in_the_way = start.domain.as_ref().is_some_and(|g| g.tags[OWNER_TAG] == THEIRS)
                    || start.versions.last().is_some_and(|(_, owner, _)| owner.as_deref() == Some(THEIRS))
                    || start.records.iter().any(|r| r.name == NAME || r.kind == "TXT");
                prop_assert!(in_the_way, "nothing foreign was there: {blocked:?}");
            }
        }
    }

    #[test]
    fn every_start_can_be_torn_down(start in any_world(), half_built in any::<bool>()) {
        let (d, mut w) = (desired(), start.clone());
        if half_built {
            w.converge(&d);
        }
        let closed = w.apis.values().filter(|a| a.api.endpoint_closed).count();
        for _ in 0..10 {
            let judged = teardown(&d.home, &[String::new(), "orders".into()], &w.remains());
            for action in judged.actions {
                w.perform(action);
            }
            w.time_passes();
        }
        let end = teardown(&d.home, &[String::new(), "orders".into()], &w.remains());
        prop_assert!(end.verdict.is_done() && end.actions.is_empty(), "{end:?}");
        prop_assert_eq!(w.foreign(), start.foreign());
        prop_assert!(w.domain.is_none_or(|g| g.tags[OWNER_TAG] != OURS));
        prop_assert!(w.certificates.iter().all(|c| c.tags[OWNER_TAG] != OURS));
        prop_assert!(w.versions.iter().all(|(_, owner, _)| owner.as_deref() != Some(OURS)));
        prop_assert!(!w.records.contains(&records::marker(&d.home)));
        prop_assert_eq!(w.apis.values().filter(|a| a.api.endpoint_closed).count(), closed, "a closed endpoint was opened");
    }

    /// No step of any repair, whatever is broken, takes a living authority out of the truststore.
    #[test]
    fn trust_never_shrinks_on_the_way(start in any_world()) {
        let (d, mut w) = (desired(), start);
        w.converge(&d);
        let trusted = |w: &World| w.observed().pinned.unwrap().is_some_and(|b| b.find(&AUTHORITY[0]).is_some());
        if trusted(&w) {
            w.has_key = false; // the Secret is lost
            for _ in 0..5 {
                for (_, action) in plan(&d, &w.observed(), now()).actions() {
                    w.perform(action.clone());
                }
                w.time_passes();
                prop_assert!(trusted(&w));
            }
            let end = plan(&d, &w.observed(), now());
            prop_assert!(matches!(end.steps[&Step::ResolvedRefs].verdict, Verdict::Blocked(Reason::AuthorityKeyLost, _)), "{:?}", end.steps);
        }
    }
}

#[test]
fn from_nothing_it_takes_few_looks() {
    let (d, mut w) = (desired(), empty());
    let mut looks = 0;
    while !plan(&d, &w.observed(), now()).steps.values().all(|j| j.verdict.is_done()) {
        for (_, action) in plan(&d, &w.observed(), now()).actions() {
            w.perform(action.clone());
        }
        w.time_passes();
        looks += 1;
        assert!(looks < 12, "{:?}", plan(&d, &w.observed(), now()).steps);
    }
}

/// A reading that failed is never taken for "nothing there".
#[test]
fn what_cannot_be_seen_is_neither_made_nor_deleted() {
    let unseen = || super::observed::Unseen { reason: Reason::Unreachable, message: "no answer".into() };
    let mut w = empty();
    w.converge(&desired());
    let whole = w.observed();
    assert_eq!(plan(&desired(), &whole, now()).actions().count(), 0);
    let mut blinded = vec![];
    for blind in 0..9 {
        let mut o = whole.clone();
        match blind {
            0 => o.zone = Err(unseen()),
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
        let plan = plan(&desired(), &o, now());
        blinded.push(plan.actions().map(|(_, a)| a.clone()).collect::<Vec<_>>());
    }
    assert!(blinded.iter().all(Vec::is_empty), "{blinded:#?}");
}
