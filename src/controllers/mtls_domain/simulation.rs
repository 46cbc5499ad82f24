//! Planner against a model of AWS: every state converges to the desired state, every state can be torn down,
//! and the operator never changes resources of another owner. The tests check the model, never the planner's
//! own output.

mod courses;
pub mod world;

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use proptest::prelude::*;

use super::{
    plan::unlimited as plan,
    report::report,
    simulation::world::{
        ADOPTED, AUTHORITY, Bucket, KMS_KEY, NAME, NOBODYS, OTHER, OTHER_NAME, OURS, Stored, TARGET, THEIRS,
        URI, World, alias, api, certificate, desired, domain, empty, now, owner, request, settled,
    },
    teardown::teardown,
};

use crate::{
    api::{
        AdoptionPolicy, AuthorityState, DeletionPolicy, DnsVerification, MtlsDomainStatus, RestDeployment,
        conditions::Reason,
    },
    aws::{
        acm::{self, CertificateKind, CertificateStatus, KeyAlgorithm},
        action::{ApiGatewayAction, S3Action},
        arn::Arn,
        gateway::{
            domains::{Domain, DomainStatus, IpAddressType},
            mappings::Mapping,
        },
        route53::RecordSet,
        tags::{ADOPTED_TAG, DEPLOYED},
    },
    dns::records,
    model::{
        action::Action,
        authorities::{DesiredAuthority, DesiredSource},
        desired::{Desired, DesiredCertificate},
        observed::{Api, CanIssue, Source},
        placement::{DesiredDns, Placement},
        step::{Step, StepPlan, StepState},
    },
    observation::seen,
    pki::{
        authority::{self, AuthorityRequest},
        pem_certificates::parse_pem_bundle,
        truststore::{Bundle, Entry},
    },
};

prop_compose! {
    /// Any mixture of resources of an unfinished reconcile, changes by other writers, and resources of other
    /// owners.
    fn any_world()(
        has_key in any::<bool>(),
        recorded in prop::bool::weighted(0.8),
        certificates in proptest::collection::vec((any::<bool>(), 0..5u8, any::<bool>(), 0..240i64), 0..4),
        domain_of in prop_oneof![
            Just(None),
            Just(Some(OURS)),
            Just(Some(ADOPTED)),
            Just(Some(NOBODYS)),
            Just(Some(THEIRS)),
        ],
        without_mutual_tls in prop::bool::weighted(0.3),
        updating in any::<bool>(),
        dual_stack in any::<bool>(),
        bucket in 0..9u8,
        versions in proptest::collection::vec(
            (
                prop_oneof![Just(Some(OURS)), Just(Some(OURS)), Just(None), Just(Some(THEIRS))],
                prop_oneof![Just(0u8), Just(1), Just(2), Just(2)],
                any::<bool>(),
                any::<bool>(),
            ),
            0..4,
        ),
        pin in any::<prop::sample::Index>(),
        mappings in proptest::collection::btree_map(
            "(|orders|orders/v2/items|old)",
            ("(a[12]|r1)", "(\\$default|prod)"),
            0..4,
        ),
        apis in proptest::collection::vec(
            (
                any::<bool>(),
                any::<bool>(),
                prop_oneof![Just(None), Just(Some(OURS)), Just(Some(THEIRS)), Just(Some(DEPLOYED))],
                any::<bool>(),
            ),
            3,
        ),
        touch_publishes in any::<bool>(),
        probes in any::<bool>(),
        record in 0..4u8,
        tagged in prop_oneof![Just(None), Just(Some(OURS)), Just(Some(THEIRS))],
    ) -> World {
        let mut w = empty();
        (w.has_key, w.recorded) = (has_key, recorded);
        for (i, (ours, status, fits, hours)) in certificates.into_iter().enumerate() {
            let status = [
                CertificateStatus::Issued,
                CertificateStatus::PendingValidation,
                CertificateStatus::ValidationTimedOut,
                CertificateStatus::Failed,
                CertificateStatus::Expired,
            ][status as usize]
                .clone();
            let names = if fits { vec![NAME.to_owned()] } else { several_names() };
            let (arn, owner) = (format!("arn:{i}"), if ours { OURS } else { THEIRS });
            let c = certificate(&arn, owner, status, &names, KeyAlgorithm::EcPrime256v1);
            let created_at = Some(now() - SignedDuration::from_hours(hours));
            w.certificates.push(acm::Certificate { created_at, ..c });
        }
        let entry = Entry {
            authority: "partners".into(),
            certificate: AUTHORITY[0].clone(),
            max_leaf: None,
            keep_until: None,
        };
        let other = Entry { authority: String::new(), certificate: OTHER[0].clone(), ..entry.clone() };
        let entries = |owner: Option<&str>, content| match content {
            0 => vec![],
            1 => vec![entry.clone()],
            // An owned object holds the certificates that the spec lists, or that it records for a reason.
            _ if owner == Some(OURS) => vec![entry.clone()],
            _ => vec![entry.clone(), other.clone()],
        };
        // A truststore that moves in some cases; and an empty desired bucket that is missing, unfinished, or
        // owned by another.
        w.versions = versions.into_iter().enumerate().map(|(i, (owner, content, moved, encrypted))| Stored {
            uri: if moved || bucket < 3 { "s3://elsewhere/partners.pem".into() } else { URI.into() },
            version: format!("v{i}"),
            owner: owner.map(Into::into),
            body: Bundle { entries: entries(owner, content), ..Bundle::default() }.render(),
            kms_key: encrypted.then(|| KMS_KEY.into()),
            encryption: None,
            tags: BTreeSet::new(),
        }).collect();
        match bucket {
            0 => w.bucket = None,
            1 | 2 => {
                let owner = (bucket == 1).then(|| "cluster/ns/other".into());
                let (versioned, private, kms_key, fresh) = (false, dual_stack, None, false);
                w.bucket = Some(Bucket { owner, versioned, private, kms_key, tags: BTreeMap::new(), fresh });
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
            let used = match w.versions.len() {
                0 => None,
                all => Some(&w.versions[pin.index(all)]),
            };
            let mut g = domain(owner_of, &arn, used.map_or("v-gone", |s| &s.version));
            if let Some(s) = used { g.truststore.as_mut().unwrap().uri = s.uri.clone(); }
            if without_mutual_tls && owner_of != OURS { g.truststore = None; }
            if updating { g.status = DomainStatus::Updating; }
            if dual_stack { g.ip_address_type = IpAddressType::Dualstack; }
            w.domain = Some(g);
            let mapping = |(i, (path, (api_id, stage))): (usize, (String, (String, String)))| {
                Mapping { id: format!("m{i}"), path, api_id, stage }
            };
            w.mappings = mappings.into_iter().enumerate().map(mapping).collect();
        }
        for (id, (closed, auto_deploy, tag, refusing)) in ["a1", "a2", "r1"].into_iter().zip(apis) {
            w.apis.insert(id.into(), api(id, closed, auto_deploy, tag));
            // A set flag that was never made effective occurs on REST APIs only: other APIs need a deployment
            // by another user. A deployed flag is effective.
            if refusing || closed && (id.starts_with('a') || tag == Some(DEPLOYED)) {
                w.refusing.insert(id.into());
            }
        }
        (w.touch_publishes, w.probes) = (touch_publishes, probes);
        match record {
            1 => w.records.push(alias(TARGET)),
            2 => w.records.push(alias("somewhere.else.example.net")),
            3 => {
                let (kind, ttl, values) = ("CNAME".into(), Some(60), vec!["x.example.net".into()]);
                w.records.push(RecordSet { kind, ttl, values, alias: None, ..alias("") });
            }
            _ => {}
        }
        if let Some(owner) = tagged {
            let placement = Placement { owner: owner.into(), ..desired().placement };
            w.records.push(records::ownership_record(&placement));
        }
        w
    }
}

fn several_names() -> Vec<String> {
    ["*.api.example.com", NAME, OTHER_NAME].map(str::to_owned).into()
}

/// Returns two certificates of another owner; the first needs the second.
fn existing() -> [acm::Certificate; 2] {
    ["arn:imported", "arn:public"].map(|arn| {
        let kind = if arn == "arn:public" {
            CertificateKind::Requested
        } else {
            CertificateKind::Imported
        };
        let c = certificate(
            arn,
            "",
            CertificateStatus::Issued,
            &[NAME.to_owned()],
            KeyAlgorithm::Rsa2048,
        );
        acm::Certificate {
            kind,
            tags: BTreeMap::new(),
            ..c
        }
    })
}

prop_compose! {
    /// Any desired certificate and truststore.
    fn any_desired()(
        kind in 0..4u8,
        unowned in any::<bool>(),
        create_bucket in any::<bool>(),
        encrypted in any::<bool>(),
    ) -> Desired {
        let mut d = Desired { create_bucket, kms_key: encrypted.then(|| KMS_KEY.into()), ..desired() };
        if unowned { d.adoption = AdoptionPolicy::Unowned; }
        let DesiredCertificate::Request { request, .. } = &mut d.certificate else {
            unreachable!("as above")
        };
        let proof = (kind == 3).then(|| "arn:public".into());
        match kind {
            0 => {}
            1 => request.names = several_names(),
            2 => {
                d.certificate =
                    DesiredCertificate::Existing { arn: "arn:public".into(), ownership_arn: proof }
            }
            _ => {
                d.certificate =
                    DesiredCertificate::Existing { arn: "arn:imported".into(), ownership_arn: proof }
            }
        }
        d
    }
}

/// Returns how many owned certificates may be left when the domain shows this certificate; `None` when the
/// domain may not show it.
fn as_desired(d: &Desired, g: &Domain, used: &acm::Certificate) -> Option<usize> {
    match &d.certificate {
        // A domain that was taken over keeps its certificate.
        DesiredCertificate::Request { keep: true, .. }
            if g.tags.contains_key(ADOPTED_TAG) && owner(&used.tags) != OURS =>
        {
            Some(0)
        }
        DesiredCertificate::Request { request, .. } => {
            (owner(&used.tags) == OURS && used.names == request.names).then_some(1)
        }
        DesiredCertificate::Existing { arn, ownership_arn } => (used.arn == arn.as_str()
            && g.ownership_certificate_arn.as_deref() == ownership_arn.as_ref().map(Arn::as_str))
        .then_some(0),
    }
}

proptest! {
    #[test]
    fn every_state_converges_or_reports_the_obstacle(
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
            w.killed_reconcile(&d, after);
        }
        w.converge(&d);
        // The operator did not change a domain without an ownership tag at the end.
        let nobodys = w.domain.as_ref().is_some_and(|g| owner(&g.tags) == NOBODYS);
        let left = if nobodys { &[THEIRS, NOBODYS][..] } else { &[THEIRS] };
        prop_assert_eq!(w.not_owned(left), start.not_owned(left), "a change of another owner's resources");
        // A deployment for the endpoint, and another for each process that died before it could record its
        // deployment.
        let most = if may_deploy { 1 + killed } else { 0 };
        prop_assert!(w.deployments <= most, "{} deployments", w.deployments);
        let end = plan(&d, &w.observed(), w.clock);
        prop_assert_eq!(end.actions().count(), 0, "no stable state: {:?}", end.steps);
        let reason = |step: &StepPlan| match step {
            StepPlan::Pending(StepState::Blocked(reason, _), _) => Some(*reason),
            _ => None,
        };
        let blocked: Vec<_> = end.steps.values().filter_map(reason).collect();
        if blocked.is_empty() {
            // The planner's own output is no proof: check the model.
            let g = w.domain.as_ref().expect("the domain is there");
            prop_assert_eq!(&g.status, &DomainStatus::Available);
            prop_assert_eq!(g.ip_address_type, IpAddressType::Ipv4);
            let used = w.certificates.iter().find(|c| c.arn == g.certificate_arn);
            let used = used.expect("the certificate exists");
            prop_assert_eq!(&used.status, &CertificateStatus::Issued);
            let left = w.certificates.iter().filter(|c| owner(&c.tags) == OURS).count();
            prop_assert_eq!(as_desired(&d, g, used), Some(left), "{:?}", w.certificates);
            let pinned = w.pinned().expect("the version is there");
            let found = (pinned.uri.as_str(), pinned.is_ours(), &pinned.kms_key);
            prop_assert_eq!(found, (URI, true, &d.kms_key));
            prop_assert!(Bundle::parse(&pinned.body).unwrap().find(&AUTHORITY[0]).is_some());
            let is_set_up =
                |b: &Bucket| b.versioned && (!b.is_ours() || (b.private && b.kms_key == d.kms_key));
            prop_assert!(w.bucket.as_ref().is_some_and(is_set_up));
            // Mappings that the spec does not list stay on a domain that was taken over.
            let is_adopted = g.tags.contains_key(ADOPTED_TAG);
            let listed = |m: &&Mapping| !is_adopted || d.mappings.contains_key(&m.path);
            let mapped = w.mappings.iter().filter(listed).map(|m| (m.path.as_str(), m.api_id.as_str()));
            let expected = [("", "a1"), ("orders", "a2"), ("orders/v2/items", "r1")];
            prop_assert_eq!(mapped.collect::<BTreeMap<_, _>>(), BTreeMap::from(expected));
            let leads = |r: &RecordSet| r.alias.as_ref().is_some_and(|a| a.target == g.target);
            prop_assert!(w.records.iter().any(|r| r.kind == "A" && leads(r)));
            let is_closed = |a: &Api| a.api.endpoint_closed && a.api.tags.is_empty();
            prop_assert!(w.apis.values().all(is_closed), "{:?}", w.apis);
            if w.probes {
                prop_assert_eq!(w.refusing.len(), 3, "an endpoint still answers");
            }
        } else {
            // Obstacles: a key without a record; on a domain from before, its trusted certificates and its
            // own certificate.
            if blocked.contains(&Reason::SecretNotOwned) {
                prop_assert!(start.has_key && !start.recorded && !start.trusts_authority());
                let before = |s: &&Stored| start.versions.iter().any(|old| old.version == s.version);
                let stored = w.versions.iter().filter(|s| !before(s));
                let mut stored = stored.map(|s| Bundle::parse(&s.body).unwrap());
                prop_assert!(stored.all(|bundle| bundle.find(&AUTHORITY[0]).is_none()), "trust in the key");
                return Ok(());
            }
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
                prop_assert!(!may_deploy && !w.refusing.contains("r1"), "no deployment is missing");
            } else if !blocked.contains(&Reason::AuthorityKeyLost) {
                let is_in_the_way = |g: &Domain| match owner(&g.tags) {
                    THEIRS => true,
                    NOBODYS => !adopts,
                    _ => false,
                };
                let in_the_way = start.domain.as_ref().is_some_and(is_in_the_way)
                    || start.latest().is_some_and(|s| !s.is_ours())
                    || start.bucket.as_ref().is_none_or(|b| !b.versioned)
                    || start.records.iter().any(|r| r.name == NAME || r.kind == "TXT");
                prop_assert!(in_the_way, "no resource of another owner: {blocked:?}");
            }
        }
    }

    #[test]
    fn every_start_can_be_torn_down(
        d in any_desired(),
        start in any_world(),
        half_built in any::<bool>(),
        policy in prop_oneof![
            Just(None),
            Just(Some(DeletionPolicy::Delete)),
            Just(Some(DeletionPolicy::Retain)),
        ],
    ) {
        let mut w = start.clone();
        if half_built {
            w.converge(&d);
        }
        let built = w.clone();
        let closed = w.apis.values().filter(|a| a.api.endpoint_closed).count();
        let listed: Vec<_> = d.mappings.keys().cloned().collect();
        for _ in 0..10 {
            let step_plan = teardown(&d.placement, policy, RestDeployment::Never, &listed, &w.leftovers());
            for action in step_plan.into_actions() {
                w.perform(action);
            }
            w.time_passes();
        }
        let end = teardown(&d.placement, policy, RestDeployment::Never, &listed, &w.leftovers());
        let others = built.mappings.iter().any(|m| m.path == "old");
        if matches!(end, StepPlan::Pending(StepState::Blocked(Reason::ForeignOwner, _), _)) && others {
            return Ok(()); // another owner's mapping on a domain that was taken over and is being deleted
        }
        prop_assert!(matches!(end, StepPlan::Done(..)), "{end:?}");
        let left = w.domain.as_ref().map_or(NOBODYS, |g| owner(&g.tags)).to_owned();
        prop_assert_ne!(&left, OURS);
        prop_assert!(w.certificates.iter().all(|c| owner(&c.tags) != OURS));
        prop_assert!(!w.records.contains(&records::ownership_record(&d.placement)));
        let still = w.apis.values().filter(|a| a.api.endpoint_closed).count();
        prop_assert_eq!(still, closed, "a disabled endpoint was enabled");
        let was = built.domain.as_ref().map(|g| match g.tags.contains_key(ADOPTED_TAG) {
            true => ADOPTED,
            false => owner(&g.tags),
        });
        let (before, after) = (built.domain.as_ref(), w.domain.as_ref());
        match (was, policy) {
            (Some(OURS), None | Some(DeletionPolicy::Delete))
            | (Some(ADOPTED), Some(DeletionPolicy::Delete)) => prop_assert!(after.is_none()),
            (None, _) => prop_assert!(after.is_none()),
            _ => {
                // The domain stays, and works as before: with its certificate, its truststore, its mappings
                // and its records.
                let (before, after) = (before.expect("there"), after.expect("it stays"));
                let used = |g: &Domain| (g.certificate_arn.clone(), g.truststore.clone());
                prop_assert_eq!(used(after), used(before));
                prop_assert_eq!(&w.mappings, &built.mappings);
                let has_certificate = |w: &World| w.has_certificate(&after.certificate_arn);
                prop_assert_eq!(has_certificate(&w), has_certificate(&built));
                let pinned = after.truststore.as_ref().and_then(|t| t.version.as_ref());
                let has = |w: &World| w.versions.iter().any(|s| Some(&s.version) == pinned);
                prop_assert_eq!(has(&w), has(&built));
                if matches!(was, Some(OURS | ADOPTED)) {
                    let served = |w: &World| {
                        w.records.iter().filter(|r| r.kind != "TXT").cloned().collect::<Vec<_>>()
                    };
                    prop_assert_eq!(served(&w), served(&built));
                }
            }
        }
        if after.is_none() && policy != Some(DeletionPolicy::Retain) {
            prop_assert!(w.versions.iter().all(|s| s.uri != URI || !s.is_ours()));
        }
    }

    /// A user who creates the listed records gets a working domain; without the records, the present endpoint
    /// stays enabled.
    #[test]
    fn external_dns_changes_no_records(start in any_world(), follows in any::<bool>()) {
        let (mut d, mut w) = (desired(), start.clone());
        d.placement.dns = DesiredDns::External { verify: DnsVerification::PublicDNS };
        let mut status = MtlsDomainStatus::default();
        for _ in 0..25 {
            let o = w.observed_from_outside();
            let plan = plan(&d, &o, w.clock);
            let found = o.public.clone().unwrap().unwrap_or_default();
            let has_address = !found.addresses.is_empty() && found.addresses == found.target;
            let leads = has_address || found.cnames.contains(&TARGET.to_owned());
            for (_, action) in plan.actions() {
                prop_assert!(!matches!(action, Action::Route53(_)), "{action:?}");
                let closes = matches!(action, Action::ApiGateway(ApiGatewayAction::CloseEndpoint { .. }));
                prop_assert!(leads || !closes, "the only endpoint in use was disabled");
                w.perform(action.clone());
            }
            status = report(&status, 1, &d.placement, &plan, &o, &BTreeMap::new(), w.clock);
            if follows {
                w.create_by_hand(&status);
            }
            w.time_passes();
        }
        // The operator repeats a request without validation from time to time, so that the state is stable
        // only while the clock stands still.
        for _ in 0..3 {
            for (_, action) in plan(&d, &w.observed_from_outside(), w.clock).actions() {
                prop_assert!(!matches!(action, Action::Route53(_)), "{action:?}");
                w.perform(action.clone());
            }
        }
        let o = w.observed_from_outside();
        let end = plan(&d, &o, w.clock);
        prop_assert_eq!(end.actions().count(), 0, "no stable state: {:?}", end.steps);
        if follows && !end.steps.values().any(|j| matches!(j, StepPlan::Pending(StepState::Blocked(..), _))) {
            prop_assert!(end.steps.values().all(|j| j.is_done()), "{:?}", end.steps);
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

    /// No step of a correction, in any broken state, removes a valid authority from the truststore.
    #[test]
    fn no_step_shrinks_the_trust(start in any_world()) {
        let (d, mut w) = (desired(), start);
        w.converge(&d);
        let trusted = |w: &World| {
            w.observed().pinned.unwrap().is_some_and(|p| p.bundle.find(&AUTHORITY[0]).is_some())
        };
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
            let refs = &end.steps[&Step::ResolvedRefs];
            let lost = Reason::AuthorityKeyLost;
            let is_lost = matches!(refs, StepPlan::Pending(StepState::Blocked(why, _), _) if *why == lost);
            prop_assert!(is_lost, "{:?}", end.steps);
        }
    }
}

#[test]
fn an_empty_account_converges_in_few_reconciles() {
    let (d, mut w) = (desired(), empty());
    let mut reconciles = 0;
    while !plan(&d, &w.observed(), w.clock)
        .steps
        .values()
        .all(|j| j.is_done())
    {
        for (_, action) in plan(&d, &w.observed(), w.clock).actions() {
            w.perform(action.clone());
        }
        w.time_passes();
        reconciles += 1;
        assert!(reconciles < 12, "{:?}", plan(&d, &w.observed(), w.clock).steps);
    }
}

/// No partner leaves the truststore because the API server did not respond.
#[test]
fn an_unknown_selection_keeps_its_certificates() {
    let selector = DesiredSource::ConfigMaps {
        labels: BTreeMap::new(),
        key: "ca.crt".into(),
    };
    let mut d = desired();
    d.authorities.push(DesiredAuthority {
        name: "cas".into(),
        state: AuthorityState::Active,
        source: selector,
    });
    let partner = |name: &str| {
        let request = AuthorityRequest {
            common_name: name.into(),
            ..request()
        };
        parse_pem_bundle(&authority::generate(&request, now()).unwrap().certificate_pem)
    };
    let read = |name: &str| {
        (
            name.to_owned(),
            Source::Read {
                certificates: partner(name),
                completing: Ok(vec![]),
                can_issue: CanIssue::No,
            },
        )
    };
    let mut w = empty();
    w.converge(&desired());
    let mut o = w.observed();
    o.authorities
        .insert("cas".into(), Source::Several([read("acme"), read("zeta")].into()));
    let told = plan(&d, &o, now());
    let Some((_, Action::S3(S3Action::PutTruststore { body, .. }))) = told.actions().next() else {
        panic!("{:?}", told.steps)
    };
    w.perform(told.actions().next().unwrap().1.clone());
    let names: Vec<_> = Bundle::parse(body)
        .unwrap()
        .entries
        .into_iter()
        .map(|e| e.authority)
        .collect();
    assert_eq!(names, ["partners", "cas/acme", "cas/zeta"]);

    let mut o = w.observed();
    let unseen = seen::Unseen {
        reason: Reason::Unreachable,
        message: "no answer".into(),
    };
    o.authorities.insert("cas".into(), Source::Unseen(unseen));
    let blind = plan(&d, &o, now());
    assert_eq!(&blind.truststore.unwrap().bundle.render(), body);
    // ... while deleted ConfigMaps leave, and a distrust needs no source.
    o.authorities
        .insert("cas".into(), Source::Several([read("acme")].into()));
    let seen = plan(&d, &o, now());
    assert_eq!(seen.truststore.unwrap().bundle.entries.len(), 2);
    d.authorities[1].state = AuthorityState::Distrusted;
    o.authorities.remove("cas");
    let distrusted = plan(&d, &o, now()).truststore.unwrap();
    assert!(distrusted.distrusts && distrusted.bundle.entries.len() == 1);
}

/// A failed read never counts as a missing resource.
#[test]
fn unknown_state_is_neither_created_nor_deleted() {
    let unseen = || seen::Unseen {
        reason: Reason::Unreachable,
        message: "no answer".into(),
    };
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
        world::front_again(&mut o);
        o.authorities.insert("partners".into(), Source::Unseen(unseen()));
        let plan = plan(&desired(), &o, w.clock);
        blinded.push(plan.actions().map(|(_, a)| a.clone()).collect::<Vec<_>>());
    }
    assert!(blinded.iter().all(Vec::is_empty), "{blinded:#?}");
}

/// Renewals, pauses and the end of trust take hours and days: ten minutes change nothing.
#[test]
fn a_clock_with_ten_minutes_of_error_plans_no_action() {
    let (d, o) = settled();
    for minutes in [-10, 10] {
        let now = now() + SignedDuration::from_mins(minutes);
        let found: Vec<_> = plan(&d, &o, now)
            .actions()
            .map(|(_, action)| action.to_string())
            .collect();
        assert_eq!(found, [""; 0], "{minutes} minutes");
    }
}
