//! Model of AWS and the cluster for one domain: the effect of each call, and AWS's own progress. The model
//! panics where AWS rejects a call, and where a call changes a resource of another owner.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::LazyLock,
};

use jiff::{SignedDuration, Timestamp};

use crate::{
    api::{
        AdoptionPolicy, AuthorityState, DefaultEndpoint, MappedApi, MtlsDomainStatus, RestDeployment,
        durations::DEFAULT_LEAF,
    },
    aws::{
        acm::{self, CertificateKind, CertificateStatus, KeyAlgorithm, Validation, ValidationStatus},
        action::{AcmAction, ApiGatewayAction, Route53Action, S3Action},
        gateway::{
            apis::{self, Protocol, Stage},
            domains::{Domain, DomainRequest, DomainStatus, IpAddressType, MUTUAL_TLS_POLICY, Truststore},
            mappings::Mapping,
        },
        route53::{self, Alias, Change, RecordSet, Zone},
        s3::Encryption,
        tags::{ADOPTED_TAG, DEPLOYED, OWNER_TAG, PENDING_TAG, Tags},
    },
    controllers::mtls_domain::plan::unlimited as plan,
    dataplane::api_gateway::front::front,
    dns::records,
    model::{
        action::Action,
        authorities::{DesiredAuthority, DesiredSource},
        desired::{Desired, DesiredCertificate, DesiredRequest},
        observed::{self, Api, CanIssue, Leftovers, Observed, Pinned, Published, Source, ZoneChoice},
        placement::{DesiredDns, Placement, TruststoreObject},
    },
    observation::seen::Seen,
    pki::{
        authority::{self, AuthorityRequest},
        certificate::Certificate,
        digest::sha256,
        keys::KeyKind,
        pem_certificates::parse_pem_bundle,
        truststore::{Bundle, Entry},
    },
    probe::{https, public_dns::PublicName},
};

pub(crate) const NAME: &str = "api.example.com";
pub(crate) const OTHER_NAME: &str = "www.example.org";
/// Zone of each name, by ID and name.
pub(crate) const ZONES: [(&str, &str, &str); 3] = [
    (NAME, "Z1", "example.com"),
    ("*.api.example.com", "Z1", "example.com"),
    (OTHER_NAME, "Z2", "example.org"),
];
pub(crate) const OURS: &str = "cluster/ns/partners";
pub(crate) const TARGET: &str = "d-1.execute-api.eu-west-1.amazonaws.com";
pub(crate) const THEIRS: &str = "other/ns/partners";
pub(crate) const URI: &str = "s3://truststores/partners.pem";
pub(crate) const KMS_KEY: &str = "arn:aws:kms:eu-west-1:123456789012:key/1";
/// Owned by this MtlsDomain, and taken over.
pub(crate) const ADOPTED: &str = "adopted";
pub(crate) const NOBODYS: &str = "";

pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

pub(crate) fn request() -> AuthorityRequest {
    AuthorityRequest {
        common_name: "Partners".into(),
        organizations: vec![],
        duration: SignedDuration::from_hours(87_600),
        key: KeyKind::EcdsaP256,
    }
}

pub(crate) static AUTHORITY: LazyLock<Vec<Certificate>> = LazyLock::new(|| {
    parse_pem_bundle(&authority::generate(&request(), now()).unwrap().certificate_pem).unwrap()
});

/// Returns the certificate of the domain's generated authority.
pub(crate) fn authority_certificate() -> Certificate {
    AUTHORITY[0].clone()
}

/// Authority that a domain trusted before its takeover.
pub(crate) static OTHER: LazyLock<Vec<Certificate>> = LazyLock::new(|| {
    let request = AuthorityRequest {
        common_name: "Other".into(),
        ..request()
    };
    parse_pem_bundle(&authority::generate(&request, now()).unwrap().certificate_pem).unwrap()
});

pub(crate) fn tags(owner: &str) -> BTreeMap<String, String> {
    let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    match owner {
        NOBODYS => BTreeMap::new(),
        ADOPTED => [tag(OWNER_TAG, OURS), tag(ADOPTED_TAG, "true")].into(),
        owner => [tag(OWNER_TAG, owner)].into(),
    }
}

pub(crate) fn owner(tags: &BTreeMap<String, String>) -> &str {
    tags.get(OWNER_TAG).map_or(NOBODYS, String::as_str)
}

pub(crate) fn desired() -> Desired {
    let truststore = TruststoreObject {
        bucket: "truststores".into(),
        key: "partners.pem".into(),
    };
    let placement = Placement {
        namespace: "ns".into(),
        name: "partners".into(),
        account: "123456789012".into(),
        region: "eu-west-1".into(),
        owner: OURS.into(),
        domain_name: NAME.into(),
        dns: DesiredDns::Route53 {
            zone_id: None,
            role_arn: None,
        },
        truststore: Some(truststore.clone()),
        unlisted_mappings: None,
        tags: Tags::new(),
    };
    Desired {
        placement,
        adoption: AdoptionPolicy::Never,
        certificate: DesiredCertificate::Request {
            request: DesiredRequest {
                names: vec![NAME.into()],
                key_algorithm: Some(KeyAlgorithm::EcPrime256v1),
                token: "t".into(),
            },
            keep: true,
        },
        truststore,
        create_bucket: false,
        kms_key: None,
        encryption: None,
        authorities: vec![DesiredAuthority {
            name: "partners".into(),
            state: AuthorityState::Active,
            source: DesiredSource::Generated {
                secret: "partners.partners-ca".into(),
                request: request(),
            },
        }],
        self_signed: vec![],
        watched: None,
        longest_leaf: DEFAULT_LEAF,
        overlap: None,
        mappings: [
            ("".to_owned(), "a1"),
            ("orders".to_owned(), "a2"),
            ("orders/v2/items".to_owned(), "r1"),
        ]
        .map(|(path, id)| {
            (
                path,
                MappedApi {
                    id: id.into(),
                    stage: "$default".into(),
                },
            )
        })
        .into(),
        identity: BTreeMap::new(),
        authorizer: None,
        default_endpoint: DefaultEndpoint::Disable,
        rest_deployment: RestDeployment::Never,
        ip_address_type: IpAddressType::Ipv4,
    }
}

/// Version of a truststore object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stored {
    pub(crate) uri: String,
    pub(crate) version: String,
    pub(crate) owner: Option<String>,
    pub(crate) body: String,
    pub(crate) kms_key: Option<String>,
    pub(crate) encryption: Option<Encryption>,
    /// Fingerprints of the tags.
    pub(crate) tags: BTreeSet<String>,
}

impl Stored {
    pub(crate) fn is_ours(&self) -> bool {
        self.owner.as_deref() == Some(OURS)
    }
}

/// Bucket of the spec.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bucket {
    pub(crate) owner: Option<String>,
    pub(crate) versioned: bool,
    pub(crate) private: bool,
    /// Default encryption key of the bucket.
    pub(crate) kms_key: Option<String>,
    pub(crate) tags: Tags,
    /// True right after versioning was enabled: the next object gets no version.
    pub(crate) fresh: bool,
}

impl Bucket {
    pub(crate) fn is_ours(&self) -> bool {
        self.owner
            .as_ref()
            .is_some_and(|owner| owner.starts_with("cluster/"))
    }
}

/// Derives the front end again, after a test has changed the custom domain.
pub(crate) fn front_again(o: &mut Observed) {
    o.front = front(&desired().placement, &o.domain);
}

/// Returns a domain in the desired state.
pub(crate) fn settled() -> (Desired, Observed) {
    let (d, mut world) = (desired(), empty());
    world.converge(&d);
    let observed = world.observed();
    (d, observed)
}

/// AWS and the cluster, for one domain.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) has_key: bool,
    /// True when an annotation of the MtlsDomain records the key.
    pub(crate) recorded: bool,
    pub(crate) certificates: Vec<acm::Certificate>,
    pub(crate) records: Vec<RecordSet>,
    pub(crate) bucket: Option<Bucket>,
    /// Versions of truststore objects, the oldest first.
    pub(crate) versions: Vec<Stored>,
    pub(crate) domain: Option<Domain>,
    pub(crate) mappings: Vec<Mapping>,
    pub(crate) apis: BTreeMap<String, Api>,
    /// APIs whose default endpoint rejects callers.
    pub(crate) refusing: BTreeSet<String>,
    /// True when a change of a stage makes the flag of its REST API effective.
    pub(crate) touch_publishes: bool,
    /// True when the operator can reach the default endpoints.
    pub(crate) probes: bool,
    /// Number of deployments of REST APIs. Each may publish pending changes of other users.
    pub(crate) deployments: usize,
    pub(crate) counter: usize,
    pub(crate) clock: Timestamp,
    /// Permission of the spec of the last [`World::converge`].
    pub(crate) adopts: bool,
    pub(crate) creates: bool,
}

impl World {
    pub(crate) fn id(&mut self, prefix: &str) -> String {
        self.counter += 1;
        format!("{prefix}{}", self.counter)
    }

    pub(crate) fn in_use(&self, arn: &str) -> bool {
        self.domain
            .iter()
            .any(|g| g.certificate_arn == arn || g.ownership_certificate_arn.as_deref() == Some(arn))
    }

    pub(crate) fn has_certificate(&self, arn: &str) -> bool {
        self.certificates.iter().any(|c| c.arn == arn)
    }

    pub(crate) fn seen_certificates(&self) -> Vec<acm::Certificate> {
        self.certificates
            .iter()
            .map(|c| acm::Certificate {
                in_use: self.in_use(&c.arn),
                ..c.clone()
            })
            .collect()
    }

    pub(crate) fn named(&self) -> BTreeMap<String, Seen<Option<acm::Certificate>>> {
        let all = self.seen_certificates();
        all.into_iter().map(|c| (c.arn.clone(), Ok(Some(c)))).collect()
    }

    pub(crate) fn records_at(&self, names: &[&str]) -> Vec<RecordSet> {
        self.records
            .iter()
            .filter(|r| names.contains(&r.name.as_str()))
            .cloned()
            .collect()
    }

    pub(crate) fn observed(&self) -> Observed {
        let source = Source::Read {
            certificates: Ok(AUTHORITY.clone()),
            completing: Ok(vec![]),
            can_issue: CanIssue::Yes,
        };
        let missing = Source::Missing("there is no Secret".into());
        let pinned = self.pinned().map(|s| Pinned {
            owner: s.owner.clone(),
            bundle: Bundle::parse(&s.body).unwrap_or_default().into(),
        });
        let apis = self.apis.iter().map(|(id, api)| {
            let settled =
                api.api.endpoint_closed && api.api.tags.get(PENDING_TAG).is_none_or(|tag| tag == DEPLOYED);
            let answer = match self.refusing.contains(id) {
                _ if !self.probes => https::ProbeResult::Unreachable("no way out".into()),
                true => https::ProbeResult::Refused(404),
                false => https::ProbeResult::Answered(200),
            };
            (
                id.clone(),
                Ok(Some(Api {
                    probe: settled.then_some(answer),
                    ..api.clone()
                })),
            )
        });
        let zones = ZONES.map(|(name, id, zone)| {
            (
                name.to_owned(),
                ZoneChoice::Found(Zone {
                    id: id.into(),
                    name: zone.into(),
                    private: false,
                }),
            )
        });
        let cname = |name: &str| (name.to_owned(), self.records_at(&[name]));
        Observed {
            leaves: vec![],
            recorded: self
                .recorded
                .then(|| ("partners".to_owned(), AUTHORITY[0].spki_sha256.clone()))
                .into_iter()
                .collect(),
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
                made: b
                    .owner
                    .clone()
                    .filter(|_| b.is_ours())
                    .map(|owner| observed::Made {
                        owner,
                        tags: b.tags.clone(),
                        private: b.private,
                        kms_key: b.kms_key.clone(),
                    }),
            })),
            published: Ok(self.latest().map(|s| Published {
                version: s.version.clone(),
                owner: s.owner.clone(),
                kms_key: s.kms_key.clone(),
                desired_kms_key: s.kms_key.clone(),
                encryption: s.encryption.map(|e| e.as_str().to_owned()),
                tags: s.tags.clone(),
                sha256: sha256(s.body.as_bytes()),
                bundle: Bundle::parse(&s.body).unwrap_or_default().into(),
            })),
            pinned: Ok(pinned),
            domain: Ok(self.domain.clone()),
            front: front(&desired().placement, &Ok(self.domain.clone())),
            mappings: Ok(self.mappings.clone()),
            apis: apis.collect(),
            records: Ok(self.records_at(&[NAME, &records::ownership_record_name(NAME)])),
            records_in_sync: Ok(true),
            public: Ok(None),
            corrections: BTreeMap::new(),
        }
    }

    /// Returns the observed state with external DNS: the account has no zone of the name, and public DNS
    /// answers from `records`.
    pub(crate) fn observed_from_outside(&self) -> Observed {
        let at_name = self.records_at(&[NAME]);
        let cname = at_name
            .iter()
            .filter(|r| r.kind == "CNAME")
            .flat_map(|r| r.values.clone())
            .collect();
        let address = |name: &str| IpAddr::from([192, 0, 2, name.len() as u8]);
        let aliases = at_name.iter().filter_map(|r| r.alias.as_ref());
        let public = self.domain.as_ref().map(|g| PublicName {
            cnames: cname,
            addresses: aliases.map(|alias| address(&alias.target)).collect(),
            target: [address(&g.target)].into(),
            apex: false,
        });
        let (zones, validation, records) = (Ok(BTreeMap::new()), Ok(BTreeMap::new()), Ok(vec![]));
        Observed {
            zones,
            validation,
            records,
            public: Ok(public),
            ..self.observed()
        }
    }

    /// Creates the records that the status lists, as a user does, and replaces existing records.
    pub(crate) fn create_by_hand(&mut self, status: &MtlsDomainStatus) {
        for wanted in status.dns.iter().flat_map(|dns| &dns.records) {
            self.records.retain(|r| r.name != wanted.name);
            let (name, kind, values) = (
                wanted.name.clone(),
                wanted.r#type.clone(),
                vec![wanted.value.clone()],
            );
            self.records.push(RecordSet {
                name,
                kind,
                ttl: Some(60),
                values,
                alias: None,
                routed: false,
            });
        }
    }

    pub(crate) fn leftovers(&self) -> Leftovers {
        Leftovers {
            zone_id: Some("Z1".into()),
            records: Ok(self.records_at(&[NAME, &records::ownership_record_name(NAME)])),
            domain: Ok(self.domain.clone()),
            mappings: Ok(self.mappings.clone()),
            apis: BTreeMap::new(),
            certificates: Ok(self.seen_certificates()),
            versions: Ok(self
                .versions
                .iter()
                .filter(|s| s.uri == URI && s.is_ours())
                .map(|s| s.version.clone())
                .collect()),
        }
    }

    /// Returns the latest version of the object that the spec names.
    pub(crate) fn latest(&self) -> Option<&Stored> {
        self.versions.iter().rfind(|s| s.uri == URI)
    }

    pub(crate) fn stored(&self, uri: &str, version: &str) -> Option<&Stored> {
        self.versions
            .iter()
            .find(|s| s.uri == uri && s.version == version)
    }

    /// Returns the version that the domain uses, at any place.
    pub(crate) fn pinned(&self) -> Option<&Stored> {
        let used = self.domain.as_ref()?.truststore.as_ref()?;
        self.stored(&used.uri, used.version.as_ref()?)
    }

    /// Returns the bucket; panics unless the operator created it.
    pub(crate) fn bucket_of_ours(&mut self) -> &mut Bucket {
        let bucket = self.bucket.as_mut().expect("there");
        assert!(bucket.is_ours(), "a change of another owner's bucket");
        bucket
    }

    /// Applies a call as AWS does. Panics where AWS rejects the call, and where the call changes a resource
    /// of another owner.
    pub(crate) fn perform(&mut self, action: Action) {
        match action {
            Action::GenerateAuthority { .. } => {
                assert!(
                    !self.has_key && !self.trusts_authority(),
                    "a second key for a trusted certificate"
                );
                (self.has_key, self.recorded) = (true, true);
            }
            Action::Acm(action) => self.perform_acm(action),
            Action::ApiGateway(action) => self.perform_api_gateway(action),
            Action::Lambda(action) => unreachable!("no headers in this model: {action}"),
            Action::Route53(action) => self.perform_route53(action),
            Action::S3(action) => self.perform_s3(action),
        }
    }

    fn perform_acm(&mut self, action: AcmAction) {
        match action {
            AcmAction::RequestCertificate(r) => {
                let (arn, pending) = (self.id("arn:"), CertificateStatus::PendingValidation);
                let c = certificate(&arn, OURS, pending, &r.names, r.key_algorithm);
                assert_eq!(owner(&r.tags), OURS);
                self.certificates.push(acm::Certificate {
                    created_at: Some(self.clock),
                    tags: r.tags,
                    ..c
                });
            }
            AcmAction::DeleteCertificate { arn } => {
                assert!(!self.in_use(&arn), "ResourceInUseException");
                let i = self
                    .certificates
                    .iter()
                    .position(|c| c.arn == arn)
                    .expect("there");
                assert_eq!(owner(&self.certificates.remove(i).tags), OURS);
            }
            AcmAction::TagCertificate { arn, tags } => {
                let c = self
                    .certificates
                    .iter_mut()
                    .find(|c| c.arn == arn)
                    .expect("there");
                assert_eq!(owner(&c.tags), OURS);
                c.tags.extend(tags);
            }
            AcmAction::ReleaseCertificate { arn, keys } => {
                let c = self
                    .certificates
                    .iter_mut()
                    .find(|c| c.arn == arn)
                    .expect("there");
                assert_eq!(owner(&c.tags), OURS);
                c.tags.retain(|key, _| !keys.contains(key));
                assert_eq!(c.tags, BTreeMap::new());
            }
        }
    }

    fn perform_api_gateway(&mut self, action: ApiGatewayAction) {
        match action {
            ApiGatewayAction::CreateDomain(r) => {
                assert!(self.domain.is_none(), "exists already");
                self.check_request(&r);
                let mut g = domain(OURS, &r.certificate_arn, &r.truststore_version);
                (g.truststore.as_mut().unwrap().uri, g.status) = (r.truststore_uri, DomainStatus::Updating);
                g.ownership_certificate_arn = r.ownership_certificate_arn;
                self.domain = Some(g);
            }
            ApiGatewayAction::UpdateDomain(r) => {
                self.check_request(&r);
                self.check_nobody_loses(&r);
                let g = self.domain.as_mut().expect("there");
                assert_eq!((owner(&g.tags), &g.status), (OURS, &DomainStatus::Available));
                (g.certificate_arn, g.ownership_certificate_arn) =
                    (r.certificate_arn, r.ownership_certificate_arn);
                g.truststore = Some(Truststore {
                    uri: r.truststore_uri,
                    version: Some(r.truststore_version),
                    warnings: vec![],
                });
                (g.ip_address_type, g.status) = (r.ip_address_type, DomainStatus::Updating);
            }
            ApiGatewayAction::RestoreSecurityPolicy { .. } => {
                let g = self.domain.as_mut().expect("there");
                assert_eq!((owner(&g.tags), &g.status), (OURS, &DomainStatus::Available));
                (g.security_policy, g.status) = (MUTUAL_TLS_POLICY.into(), DomainStatus::Updating);
            }
            ApiGatewayAction::AdoptDomain { .. } => {
                let g = self.domain.as_mut().expect("there");
                assert_eq!(owner(&g.tags), NOBODYS, "a takeover of another owner's domain");
                g.tags.extend(tags(ADOPTED));
            }
            ApiGatewayAction::TagDomain { .. } => {
                let g = self.domain.as_mut().expect("there");
                assert_eq!(
                    owner(&g.tags),
                    NOBODYS,
                    "the ownership tag on another owner's domain"
                );
                g.tags.insert(OWNER_TAG.into(), OURS.into());
            }
            ApiGatewayAction::AddDomainTags { tags, .. } => {
                let g = self.domain.as_mut().expect("there");
                assert_eq!(owner(&g.tags), OURS);
                g.tags.extend(tags);
            }
            ApiGatewayAction::ReleaseDomain { .. } => {
                let g = self.domain.as_mut().expect("there");
                assert_eq!(owner(&g.tags), OURS);
                g.tags.clear();
            }
            ApiGatewayAction::DeleteDomain { .. } => {
                assert_eq!(owner(&self.domain.take().expect("there").tags), OURS);
                self.mappings.clear();
            }
            ApiGatewayAction::CreateMapping { path, api_id, stage } => {
                self.check_mapping(&api_id);
                assert!(
                    self.mappings.iter().all(|m| m.path != path),
                    "ApiMapping key already exists"
                );
                let id = self.id("m");
                self.mappings.push(Mapping {
                    id,
                    path,
                    api_id,
                    stage,
                });
            }
            ApiGatewayAction::UpdateMapping {
                id,
                path,
                api_id,
                stage,
            } => {
                self.check_mapping(&api_id);
                let there = self.mappings.iter_mut().find(|m| m.id == id).expect("there");
                *there = Mapping {
                    id,
                    path,
                    api_id,
                    stage,
                };
            }
            ApiGatewayAction::DeleteMapping { id, .. } => {
                let i = self.mappings.iter().position(|m| m.id == id).expect("there");
                self.mappings.remove(i);
            }
            ApiGatewayAction::TagPending { api_arn } => {
                drop(self.api(&api_arn).tags.insert(PENDING_TAG.into(), OURS.into()))
            }
            ApiGatewayAction::UntagPending { api_arn } => drop(self.api(&api_arn).tags.remove(PENDING_TAG)),
            ApiGatewayAction::TagDeployed { api_arn } => {
                drop(
                    self.api(&api_arn)
                        .tags
                        .insert(PENDING_TAG.into(), DEPLOYED.into()),
                );
            }
            ApiGatewayAction::CloseEndpoint { api_id, protocol } => {
                assert_eq!(protocol, self.api(&api_id).protocol);
                self.api(&api_id).endpoint_closed = true;
                let by_itself = |s: &Stage| s.auto_deploy;
                if self.apis[&api_id].stages.values().flatten().any(by_itself) {
                    self.publish(&api_id);
                }
            }
            ApiGatewayAction::Deploy {
                api_id,
                protocol,
                stages,
            } => {
                assert_eq!(protocol, self.api(&api_id).protocol);
                self.deployments += usize::from(protocol == Protocol::Rest);
                stages.iter().for_each(|stage| self.change_stage(&api_id, stage));
                self.publish(&api_id);
            }
            ApiGatewayAction::TouchStage {
                api_id,
                stage,
                tracing,
            } => {
                let there = self.apis[&api_id].stages[&stage]
                    .clone()
                    .expect("the stage is there");
                assert_eq!(
                    (self.api(&api_id).protocol, tracing),
                    (Protocol::Rest, there.tracing)
                );
                self.change_stage(&api_id, &stage);
                if self.touch_publishes {
                    self.publish(&api_id);
                }
            }
            ApiGatewayAction::TagApi { .. }
            | ApiGatewayAction::UntagApi { .. }
            | ApiGatewayAction::ChangeParameters { .. }
            | ApiGatewayAction::CreateAuthorizer { .. }
            | ApiGatewayAction::RestoreAuthorizer { .. }
            | ApiGatewayAction::DeleteAuthorizer { .. }
            | ApiGatewayAction::Authorize { .. } => {
                unreachable!("no headers in this model: see the model in plan/identity/tests.rs")
            }
        }
    }

    fn perform_route53(&mut self, action: Route53Action) {
        match action {
            Route53Action::ChangeRecords { zone_id, changes } => {
                let (.., zone) = ZONES
                    .into_iter()
                    .find(|(_, id, _)| *id == zone_id)
                    .expect("the zone is there");
                for change in changes {
                    assert!(
                        records::is_inside(&change.record.name, zone),
                        "InvalidChangeBatch: not in the zone"
                    );
                    self.change(change);
                }
            }
        }
    }

    fn perform_s3(&mut self, action: S3Action) {
        match action {
            S3Action::CreateBucket { .. } => {
                assert!(self.bucket.is_none() && self.creates);
                let owner = Some(OURS.into());
                self.bucket = Some(Bucket {
                    owner,
                    versioned: false,
                    private: false,
                    kms_key: None,
                    tags: Tags::new(),
                    fresh: false,
                });
            }
            S3Action::TagBucket { tags, .. } => self.bucket_of_ours().tags.extend(tags),
            S3Action::BlockPublicAccess { .. } => self.bucket_of_ours().private = true,
            S3Action::EncryptBucket { kms_key, .. } => self.bucket_of_ours().kms_key = kms_key,
            S3Action::EnableVersioning { .. } => {
                let bucket = self.bucket_of_ours();
                assert!(bucket.private, "versioning before the other settings");
                (bucket.versioned, bucket.fresh) = (true, true);
            }
            S3Action::PutTruststore {
                body,
                kms_key,
                encryption,
                tags,
                tags_recorded,
                ..
            } => {
                assert_eq!(tags.is_empty(), tags_recorded.is_none());
                let drifted = self.domain.as_ref().is_some_and(|g| {
                    owner(&g.tags) == OURS && g.truststore.as_ref().is_some_and(|t| t.uri == URI)
                });
                let is_free = |s: &Stored| match &s.owner {
                    Some(owner) => owner == OURS,
                    None => drifted || self.adopts,
                };
                assert!(
                    self.latest().is_none_or(is_free),
                    "a version over another owner's object"
                );
                let id = self.id("v");
                let bucket = self.bucket.as_mut().expect("NoSuchBucket");
                let version = if std::mem::take(&mut bucket.fresh) {
                    String::new()
                } else {
                    id
                };
                self.versions.retain(|s| !s.version.is_empty());
                self.versions.push(Stored {
                    uri: URI.into(),
                    version,
                    owner: Some(OURS.into()),
                    body,
                    encryption: encryption.filter(|_| kms_key.is_none()),
                    kms_key,
                    tags: tags_recorded
                        .iter()
                        .flat_map(|all| all.split(','))
                        .map(str::to_owned)
                        .collect(),
                });
            }
            S3Action::DeleteTruststoreVersion { version, .. } => {
                assert!(
                    self.domain.is_none() || owner(&self.domain.as_ref().unwrap().tags) != OURS,
                    "still pinned"
                );
                let i = self
                    .versions
                    .iter()
                    .position(|s| s.version == version)
                    .expect("there");
                assert!(self.versions.remove(i).is_ours());
            }
        }
    }

    pub(crate) fn api(&mut self, id: &str) -> &mut apis::Api {
        &mut self.apis.get_mut(id).expect("there").api
    }

    pub(crate) fn change_stage(&mut self, id: &str, name: &str) {
        let stage = self
            .apis
            .get_mut(id)
            .and_then(|api| api.stages.get_mut(name)?.as_mut());
        stage.expect("the stage is there").updated_at = Some(self.clock);
    }

    /// Makes the flag of the API effective.
    pub(crate) fn publish(&mut self, id: &str) {
        match self.api(id).endpoint_closed {
            true => self.refusing.insert(id.to_owned()),
            false => self.refusing.remove(id),
        };
    }

    pub(crate) fn trusts_authority(&self) -> bool {
        let o = self.observed();
        let is_ours = |owner: &Option<String>| owner.as_deref() == Some(OURS);
        let used = self.domain.as_ref().is_some_and(|g| owner(&g.tags) == OURS);
        let published = o
            .published
            .unwrap()
            .filter(|p| is_ours(&p.owner))
            .map(|p| p.bundle);
        let pinned = o
            .pinned
            .unwrap()
            .filter(|p| used || is_ours(&p.owner))
            .map(|p| p.bundle);
        [published, pinned]
            .iter()
            .flatten()
            .any(|b| b.entries.iter().any(|e| e.authority == "partners"))
    }

    pub(crate) fn check_request(&self, r: &DomainRequest) {
        let issued = |arn: &str| {
            let c = self
                .certificates
                .iter()
                .find(|c| c.arn == arn)
                .expect("the certificate is there");
            assert_eq!(c.status, CertificateStatus::Issued);
            c.kind
        };
        let proof = r.ownership_certificate_arn.as_deref().map(issued);
        assert!(
            issued(&r.certificate_arn) == CertificateKind::Requested
                || proof == Some(CertificateKind::Requested)
        );
        assert!(
            self.stored(&r.truststore_uri, &r.truststore_version).is_some(),
            "Invalid truststore URI/versionId specified"
        );
        assert!(!r.truststore_version.is_empty(), "no pinned version");
    }

    /// Panics when an adopted domain would lose a certificate that it trusted before its takeover.
    pub(crate) fn check_nobody_loses(&self, r: &DomainRequest) {
        let adopted = self
            .domain
            .as_ref()
            .expect("there")
            .tags
            .contains_key(ADOPTED_TAG);
        if let Some(before) = self.pinned().filter(|before| adopted && !before.is_ours()) {
            let after = self
                .stored(&r.truststore_uri, &r.truststore_version)
                .expect("there");
            let after = Bundle::parse(&after.body).unwrap();
            let lost = |e: &Entry| after.find(&e.certificate).is_none();
            assert!(
                !Bundle::parse(&before.body).unwrap().entries.iter().any(lost),
                "a caller lost access by a takeover"
            );
        }
    }

    pub(crate) fn check_mapping(&self, api: &str) {
        assert!(self.domain.as_ref().is_some_and(|g| owner(&g.tags) == OURS) && self.apis.contains_key(api));
    }

    pub(crate) fn change(&mut self, Change { action, record }: Change) {
        let i = self
            .records
            .iter()
            .position(|r| r.name == record.name && r.kind == record.kind);
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
                assert_eq!(
                    self.records.remove(i),
                    record,
                    "InvalidChangeBatch: the values do not match"
                );
            }
        }
    }

    /// Applies AWS's own progress.
    pub(crate) fn time_passes(&mut self) {
        self.clock += SignedDuration::from_hours(12);
        let records = self.records.clone();
        for c in self
            .certificates
            .iter_mut()
            .filter(|c| c.status == CertificateStatus::PendingValidation)
        {
            let there = |v: &Validation| {
                v.record.as_ref().is_some_and(|(n, value)| {
                    records
                        .iter()
                        .any(|r| r.name == *n && r.values == [value.clone()])
                })
            };
            if c.validation.iter().all(there) {
                c.status = CertificateStatus::Issued;
            } else if c
                .created_at
                .is_some_and(|at| self.clock >= at + SignedDuration::from_hours(72))
            {
                c.status = CertificateStatus::ValidationTimedOut;
            }
            for v in c.validation.iter_mut().filter(|v| v.record.is_none()) {
                v.record = Some(validation_record(&v.domain));
            }
        }
        if let Some(g) = self
            .domain
            .as_mut()
            .filter(|g| g.status == DomainStatus::Updating)
        {
            g.status = DomainStatus::Available;
        }
    }

    /// Returns all resources with another owner, or without owner. `of_domain`: owners whose domain counts.
    pub(crate) fn not_owned(&self, of_domain: &[&str]) -> String {
        let tag = |tags: &BTreeMap<String, String>| owner(tags) != OURS;
        let domain = self
            .domain
            .as_ref()
            .filter(|g| of_domain.contains(&owner(&g.tags)));
        let domain = domain.map(|g| {
            (
                &g.certificate_arn,
                &g.truststore,
                g.ip_address_type,
                &self.mappings,
            )
        });
        let certificates: Vec<_> = self
            .certificates
            .iter()
            .filter(|c| tag(&c.tags))
            .map(|c| &c.arn)
            .collect();
        let versions: Vec<_> = self.versions.iter().filter(|s| !s.is_ours()).collect();
        let bucket = self.bucket.as_ref().filter(|b| !b.is_ours());
        format!("{domain:?} {certificates:?} {versions:?} {bucket:?}")
    }

    pub(crate) fn converge(&mut self, d: &Desired) {
        (self.adopts, self.creates) = (d.adoption == AdoptionPolicy::Unowned, d.create_bucket);
        for _ in 0..25 {
            let plan = plan(d, &self.observed(), self.clock);
            for (_, action) in plan.actions() {
                self.perform(action.clone());
            }
            self.time_passes();
        }
    }

    /// Reconciles in a process that dies after so many actions.
    pub(crate) fn killed_reconcile(&mut self, d: &Desired, after: usize) {
        (self.adopts, self.creates) = (d.adoption == AdoptionPolicy::Unowned, d.create_bucket);
        let plan = plan(d, &self.observed(), self.clock);
        for (_, action) in plan.actions().take(after) {
            self.perform(action.clone());
        }
        self.time_passes();
    }
}

pub(crate) fn certificate(
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

pub(crate) fn validation_record(name: &str) -> (String, String) {
    (
        format!("_x.{}", name.trim_start_matches("*.")),
        "_y.acm-validations.aws".to_owned(),
    )
}

pub(crate) fn domain(owner: &str, arn: &str, version: &str) -> Domain {
    Domain {
        name: NAME.into(),
        arn: "arn:domain".into(),
        certificate_arn: arn.into(),
        ownership_certificate_arn: None,
        truststore: Some(Truststore {
            uri: URI.into(),
            version: Some(version.into()),
            warnings: vec![],
        }),
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

/// Returns an API; a REST API when the ID begins with r. Its deployment is an hour old.
pub(crate) fn api(id: &str, closed: bool, auto_deploy: bool, tag: Option<&str>) -> Api {
    let protocol = if id.starts_with('r') {
        Protocol::Rest
    } else {
        Protocol::Http
    };
    let stage = Stage {
        name: "$default".into(),
        auto_deploy: auto_deploy && protocol == Protocol::Http,
        tracing: true,
        deployment_id: "d1".into(),
        updated_at: Some(now() - SignedDuration::from_hours(1)),
    };
    Api {
        api: apis::Api {
            id: id.into(),
            arn: id.into(), // so that both identify the API
            protocol,
            private: false,
            endpoint_closed: closed,
            tags: tag
                .map(|tag| (PENDING_TAG.to_owned(), tag.to_owned()))
                .into_iter()
                .collect(),
        },
        stages: [("$default".to_owned(), Some(stage))].into(),
        probe: None,
        integrations: None,
        authorizers: None,
    }
}

pub(crate) fn alias(target: &str) -> RecordSet {
    RecordSet {
        name: NAME.into(),
        kind: "A".into(),
        ttl: None,
        values: vec![],
        alias: Some(Alias {
            target: target.into(),
            hosted_zone_id: "ZAPI".into(),
            evaluate_target_health: false,
        }),
        routed: false,
    }
}

pub(crate) fn empty() -> World {
    World {
        has_key: false,
        recorded: false,
        certificates: vec![],
        records: vec![],
        bucket: Some(Bucket {
            owner: None,
            versioned: true,
            private: true,
            kms_key: None,
            tags: Tags::new(),
            fresh: false,
        }),
        versions: vec![],
        domain: None,
        mappings: vec![],
        apis: ["a1", "a2", "r1"]
            .map(|id| (id.to_owned(), api(id, false, id == "a1", None)))
            .into(),
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
