//! The step ResolvedRefs: every object that the spec names exists and is usable, and the operator generates
//! authorities.

use std::collections::BTreeSet;

use crate::{
    api::{AuthorityState, conditions::Reason},
    dataplane::api_gateway::apis::unsupported,
    model::{
        action::Action,
        authorities::DesiredSource,
        desired::Desired,
        observed::{Api, Key, Observed, Source},
        step::{StepPlan, StepState},
    },
    observation::seen::Unseen,
    pki::{
        compile::Compiled,
        lint::{self, Severity},
    },
    status::text::{MOST_TOLD, listed},
    trust::{
        generated_authority::{self, Ownership},
        truststore::told,
    },
};

pub(crate) fn resolved_refs(d: &Desired, o: &Observed, compiled: Option<&Compiled>) -> StepPlan {
    let mut actions = Vec::new();
    let mut problems = Vec::new();
    let mut unseen = None;
    for wanted in &d.authorities {
        match generated_authority::ownership(d, o, wanted) {
            // The operator ignores the Secret's contents, so that there is no problem to correct.
            _ if wanted.state == AuthorityState::Distrusted => {}
            Ownership::Ours => {}
            Ownership::Unknown(why) => {
                unseen = Some(why);
                continue;
            }
            Ownership::NotOurs(why) => {
                let secret = wanted.source.secret().map_or("", String::as_str);
                problems.push((
                    Reason::SecretNotOwned,
                    format!(
                        "authority {}: the operator did not create the Secret {secret}: {why}. It is not \
                         trusted, and issues nothing. Delete it (the operator then creates its own, unless \
                         one was lost: restore that), or use it on purpose, with secretRef in an authority \
                         of another name",
                        wanted.name
                    ),
                ));
                continue;
            }
        }
        match (o.authorities.get(&wanted.name), &wanted.source) {
            (Some(Source::Unseen(why)), _) => unseen = Some(why),
            (
                Some(Source::Read {
                    key: Key::Mismatch, ..
                }),
                _,
            ) if wanted.issues() => problems.push((
                Reason::InvalidCACertificateRef,
                format!(
                    "authority {}: the private key does not belong to its certificate",
                    wanted.name
                ),
            )),
            // The operator generated both, and the certificate issues nothing without its key.
            (Some(Source::Read { key: Key::Absent, .. }), DesiredSource::Generated { secret, .. })
                if wanted.state == AuthorityState::Active =>
            {
                problems.push((
                    Reason::AuthorityKeyLost,
                    format!(
                        "authority {}: the Secret {secret} has no private key any more. Restore it from a \
                         backup, or add an authority under another name and set issuingAuthority to it",
                        wanted.name
                    ),
                ))
            }
            (Some(Source::Read { .. } | Source::NotOwned(_)), _) => {}
            // A finding reports the missing source, unless the truststore records what the entry distrusts.
            (_, _) if wanted.state == AuthorityState::Distrusted => {
                if compiled.is_none() {
                    unseen = unseen.or(known(d, o).err()).or(o.domain.as_ref().err());
                }
            }
            (Some(Source::Several(all)), _) => {
                let missing = all.values().filter_map(|found| match found {
                    Source::Missing(what) => {
                        Some((Reason::RefNotFound, format!("authority {}: {what}", wanted.name)))
                    }
                    _ => None,
                });
                problems.extend(missing);
            }
            (None | Some(Source::Missing(_)), DesiredSource::Generated { .. }) => match known(d, o) {
                Err(why) => unseen = Some(why),
                Ok(known) if known.contains(wanted.name.as_str()) => problems.push((
                    Reason::AuthorityKeyLost,
                    format!(
                        "authority {}: its Secret no longer exists while its certificate is trusted. Restore \
                         the Secret from a backup, or add an authority under another name and set \
                         issuingAuthority to it",
                        wanted.name
                    ),
                )),
                Ok(_) => {
                    let recorded = o.recorded.get(&wanted.name).cloned();
                    actions.push(Action::GenerateAuthority {
                        authority: wanted.name.clone(),
                        recorded,
                    });
                }
            },
            (None, _) => problems.push((
                Reason::RefNotFound,
                format!("authority {}: its source does not exist", wanted.name),
            )),
            (Some(Source::Missing(what)), _) => {
                problems.push((Reason::RefNotFound, format!("authority {}: {what}", wanted.name)))
            }
        }
    }
    for finding in compiled
        .iter()
        .flat_map(|c| &c.findings)
        .filter(|f| f.severity == Severity::Refused)
    {
        let reason = match finding.reason {
            lint::Reason::SubjectReused => Reason::AuthoritySubjectReused,
            // The code above, or the condition of the truststore, reports these problems.
            lint::Reason::SourceMissing | lint::Reason::WouldBeEmpty => continue,
            lint::Reason::DistrustUnread => match missing(o, &finding.authority) {
                Some(what) => {
                    problems.push((Reason::RefNotFound, format!("{} ({what})", told(finding))));
                    continue;
                }
                None => Reason::InvalidCACertificateRef,
            },
            _ => Reason::InvalidCACertificateRef,
        };
        problems.push((reason, told(finding)));
    }
    for (path, mapped) in &d.mappings {
        match o.apis.get(&mapped.id) {
            None | Some(Ok(None)) => problems.push((
                Reason::ApiNotFound,
                format!(
                    "mapping {path:?}: there is no HTTP or REST API {} in {} of account {}",
                    mapped.id, d.placement.region, d.placement.account
                ),
            )),
            Some(Ok(Some(Api { api, .. }))) if let Some(why) = unsupported(api) => {
                problems.push((
                    Reason::ApiNotSupported,
                    format!("mapping {path:?}: the API {} {why}", mapped.id),
                ));
            }
            Some(Ok(Some(api))) if api.stages.get(&mapped.stage).is_none_or(Option::is_none) => problems
                .push((
                    Reason::StageNotFound,
                    format!(
                        "mapping {path:?}: the API {} has no stage {}",
                        mapped.id, mapped.stage
                    ),
                )),
            Some(Ok(Some(_))) => {}
            Some(Err(why)) => unseen = Some(why),
        }
    }
    let state = match (problems.first(), unseen, actions.is_empty()) {
        (Some((reason, _)), ..) => StepState::blocked(
            *reason,
            listed(problems.iter().map(|(_, problem)| problem.as_str()), MOST_TOLD),
        ),
        (None, Some(why), _) => StepState::unknown(why),
        (None, None, false) => StepState::InProgress("generating the authority's key and certificate".into()),
        (None, None, true) => StepState::done(Reason::ResolvedRefs, "everything the spec refers to is there"),
    };
    StepPlan { state, actions }
}

/// Returns the missing part of an authority's source, or of one of its objects (`<authority>/<object>`).
fn missing<'o>(o: &'o Observed, authority: &str) -> Option<&'o str> {
    let found = match authority.split_once('/') {
        None => o.authorities.get(authority),
        Some((authority, object)) => match o.authorities.get(authority)? {
            Source::Several(all) => all.get(object),
            _ => None,
        },
    };
    match found? {
        Source::Missing(what) => Some(what),
        _ => None,
    }
}

/// Returns the authorities with a certificate in the truststore that the operator published, or that the
/// domain uses.
fn known<'o>(d: &Desired, o: &'o Observed) -> Result<BTreeSet<&'o str>, &'o Unseen> {
    o.published.as_ref()?;
    o.pinned.as_ref()?;
    Ok(generated_authority::trusted(d, o)
        .into_iter()
        .map(|entry| entry.authority.as_str())
        .collect())
}

#[cfg(test)]
mod tests {

    use crate::{
        api::{AuthorityState, conditions::Reason},
        controllers::mtls_domain::{
            plan::plan,
            simulation::world::{self, empty, now, settled},
        },
        model::{
            action::Action,
            authorities::{DesiredAuthority, DesiredSource},
            desired::Desired,
            observed::{Key, Observed, Source},
            step::{self, StepState},
        },
        observation::seen::Unseen,
        pki::{
            authority::{self, AuthorityRequest, tests::request},
            certificate::{Certificate, parse_pem_bundle},
        },
    };

    fn made(common_name: &str) -> Certificate {
        let request = AuthorityRequest {
            common_name: common_name.into(),
            ..request(common_name)
        };
        parse_pem_bundle(&authority::generate(&request, now()).unwrap().certificate_pem)
            .unwrap()
            .remove(0)
    }

    fn read(certificates: &[&Certificate], key: Key) -> Source {
        Source::Read {
            certificates: Ok(certificates.iter().map(|c| (*c).clone()).collect()),
            completing: Ok(vec![]),
            key,
        }
    }

    /// Returns the reason why ResolvedRefs is blocked, its message, and the number of actions.
    fn resolved(d: &Desired, o: &Observed) -> (Option<Reason>, String, usize) {
        let plan = plan(d, o, now());
        let actions = plan.steps[&step::Step::ResolvedRefs].actions.len();
        match &plan.steps[&step::Step::ResolvedRefs].state {
            StepState::Blocked(reason, message) => (Some(*reason), message.clone(), actions),
            _ => (None, String::new(), actions),
        }
    }

    fn trusts(d: &Desired, o: &Observed, certificate: &Certificate) -> bool {
        let compiled = plan(d, o, now()).truststore.expect("a compiled truststore");
        compiled.bundle.find(certificate).is_some()
    }

    /// Adds a second generated authority, `next`, with these contents of its Secret.
    fn with_next(found: Source) -> (Desired, Observed) {
        let (mut d, mut o) = settled();
        d.authorities.push(DesiredAuthority {
            name: "next".into(),
            state: AuthorityState::Active,
            source: DesiredSource::Generated {
                secret: "partners.next-ca".into(),
                request: request("Partners 2027"),
            },
        });
        o.authorities.insert("next".into(), found);
        (d, o)
    }

    #[test]
    fn a_planted_secret_is_reported_and_neither_trusted_nor_used_to_issue() {
        let (own, twin, mallory) = (made("Partners 2027"), made("Partners 2027"), made("Mallory"));
        let missing = Source::Missing("there is no Secret partners.next-ca in this namespace".into());
        let (d, o) = with_next(missing);
        assert_eq!(
            resolved(&d, &o),
            (None, String::new(), 1),
            "the operator generates it"
        );

        let (d, mut o) = with_next(read(&[&own, &own], Key::Matches));
        o.recorded.insert("next".into(), own.spki_sha256.clone());
        assert_eq!(resolved(&d, &o), (None, String::new(), 0));
        assert!(trusts(&d, &o, &own));

        let unlabelled = Source::NotOwned("it lacks the label x=y".into());
        for (what, found, planted) in [
            (
                "another subject",
                read(&[&mallory, &mallory], Key::Matches),
                &mallory,
            ),
            ("without a key", read(&[&mallory], Key::Absent), &mallory),
            ("the right subject", read(&[&twin, &twin], Key::Matches), &twin),
            (
                "with the owned certificate",
                read(&[&own, &mallory], Key::Matches),
                &mallory,
            ),
            ("without labels", unlabelled, &mallory),
        ] {
            let (d, mut o) = with_next(found);
            o.recorded.insert("next".into(), own.spki_sha256.clone());
            let (reason, message, actions) = resolved(&d, &o);
            assert_eq!((reason, actions), (Some(Reason::SecretNotOwned), 0), "{what}");
            for word in ["authority next", "partners.next-ca", "Delete it", "secretRef"] {
                assert!(message.contains(word), "{what}: {message}");
            }
            assert!(!trusts(&d, &o, planted), "{what}");
            let refused = plan(&d, &o, now()).truststore.unwrap().refused_issuers;
            assert_eq!(
                refused, [""; 0],
                "{what}: nothing issues with it, so that nothing is rejected"
            );
        }
    }

    #[test]
    fn a_missing_key_is_lost_with_or_without_a_record() {
        let (d, mut o) = settled();
        o.authorities
            .insert("partners".into(), Source::Missing("no Secret".into()));
        assert_eq!(resolved(&d, &o).0, Some(Reason::AuthorityKeyLost));
        o.recorded.clear();
        assert_eq!(resolved(&d, &o).0, Some(Reason::AuthorityKeyLost));
        // Another certificate in the Secret does not replace the lost key.
        let twin = made("Partners");
        o.authorities
            .insert("partners".into(), read(&[&twin, &twin], Key::Matches));
        assert_eq!(resolved(&d, &o).0, Some(Reason::SecretNotOwned));
        let (_, own) = settled();
        o.authorities = own.authorities;
        assert_eq!(resolved(&d, &o).0, None, "restored, and in the truststore");
        let Some(Source::Read {
            certificates: Ok(certificates),
            ..
        }) = o.authorities.get("partners")
        else {
            panic!()
        };
        let own = certificates[0].clone();
        o.authorities
            .insert("partners".into(), read(&[&own], Key::Absent));
        assert_eq!(
            resolved(&d, &o).0,
            Some(Reason::AuthorityKeyLost),
            "owned, without its key"
        );
        // The truststore never held the authority: the operator generates a recorded authority without a
        // Secret again.
        let mut o = empty().observed();
        o.recorded.insert("partners".into(), own.spki_sha256.clone());
        let again = plan(&d, &o, now());
        let again: Vec<_> = again.actions().map(|(_, action)| action).collect();
        let expected = Action::GenerateAuthority {
            authority: "partners".into(),
            recorded: Some(own.spki_sha256),
        };
        assert!(again.contains(&&expected), "{again:?}");
    }

    #[test]
    fn an_unknown_truststore_decides_no_ownership() {
        let (d, mut o) = settled();
        o.recorded.clear();
        let unseen = || Unseen {
            reason: Reason::Unreachable,
            message: "no answer".into(),
        };
        o.published = Err(unseen());
        let plan = plan(&d, &o, now());
        assert_eq!(
            plan.steps[&step::Step::ResolvedRefs].state,
            StepState::Done(
                Reason::ResolvedRefs,
                "everything the spec refers to is there".into()
            ),
            "the truststore in use decides"
        );
        let empty = world::empty().observed();
        o.pinned = empty.pinned;
        let state = crate::controllers::mtls_domain::plan::plan(&d, &o, now()).steps
            [&step::Step::ResolvedRefs]
            .state
            .clone();
        assert_eq!(state, StepState::Unknown(unseen()));
    }

    #[test]
    fn distrust_removes_the_certificates_of_the_entry_with_any_planted_secret() {
        let (mut d, mut o) = settled();
        let Some(Source::Read {
            certificates: Ok(own),
            ..
        }) = o.authorities.get("partners").cloned()
        else {
            panic!()
        };
        let other = made("Other");
        d.authorities.push(DesiredAuthority {
            name: "other".into(),
            state: AuthorityState::Active,
            source: DesiredSource::Pem(String::new()),
        });
        o.authorities.insert("other".into(), read(&[&other], Key::Absent));
        assert!(trusts(&d, &o, &own[0]) && trusts(&d, &o, &other));
        d.authorities[0].state = AuthorityState::Distrusted;
        let unlabelled = Source::NotOwned("it lacks the label x=y".into());
        for (what, found) in [
            ("its own", read(&[&own[0], &own[0]], Key::Matches)),
            (
                "a trusted certificate of another authority",
                read(&[&other, &other], Key::Matches),
            ),
            ("the same without a key", read(&[&other], Key::Absent)),
            ("the same with its own", read(&[&own[0], &other], Key::Matches)),
            ("without labels", unlabelled),
            ("none", Source::Missing("no Secret".into())),
        ] {
            o.authorities.insert("partners".into(), found);
            assert!(!trusts(&d, &o, &own[0]), "{what}: the certificate stays trusted");
            assert!(
                trusts(&d, &o, &other),
                "{what}: another authority loses its trust"
            );
            assert_eq!(resolved(&d, &o).0, None, "{what}");
        }
    }
}
