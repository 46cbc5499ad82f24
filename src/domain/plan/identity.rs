//! The step IdentityPropagated: every integration of every mapped API passes on who called, under the headers of the spec, and nothing of it
//! stays where the spec does not want it any more. What we set is marked on the API by one tag per header ([`HEADER_TAG`]) before it is set, and
//! the tag goes after it; a header that somebody else set is left as it is. Where a change takes a deployment to become effective, a second
//! tag ([`PENDING_IDENTITY_TAG`]) remembers which deployments do not have it yet, so that anybody's next deployment counts.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, Judged, Step, Verdict, custom_domain, references::unsupported};
use crate::{
    api::{RestDeployment, conditions::Reason},
    aws::gateway::{Integration, Place, Protocol, Stage},
    domain::{
        desired::{Desired, Home},
        observed::{Api, Observed, Seen},
    },
};

/// On an API, before the name of a header that we set there; the value is the owner's mark.
pub const HEADER_TAG: &str = "mtls-operator.io/header.";
/// On an API between a change of its headers and its deployment: the ids of the deployments that the mapped stages had before.
pub const PENDING_IDENTITY_TAG: &str = "mtls-operator.io/pending-identity";
/// The longest value of a tag. Source: API Gateway Developer Guide, "Tag restrictions".
const LONGEST_TAG: usize = 256;
/// How often headers of one API are put back before somebody has to find out who takes them away.
pub const MOST_REPAIRS: u32 = 3;

/// A header in place: the API, the integration and the header's name.
pub type InPlace = BTreeSet<(String, Place, String)>;

/// `None`: nothing is asked for, and nothing is left to take away.
pub(super) fn identity(d: &Desired, o: &Observed) -> Option<Judged> {
    let mut all: Vec<Judged> = Vec::new();
    for (id, api) in &o.apis {
        let mapped = d.mappings.values().any(|m| m.id == *id);
        let none = BTreeMap::new();
        let wanted = if mapped { &d.identity } else { &none };
        match api {
            Err(why) if !wanted.is_empty() => all.push(Verdict::unknown(why).into()),
            Ok(Some(api)) if unsupported(&api.api).is_none() => {
                let repairs = o.repairs.get(id).copied().unwrap_or_default();
                all.extend(of_api(&d.home, api, wanted, d.rest_deployment, repairs));
            }
            _ if !wanted.is_empty() => all.push(Verdict::Behind(Step::ResolvedRefs).into()),
            _ => {}
        }
    }
    if all.is_empty() {
        let nothing = "no API is mapped";
        return (!d.identity.is_empty()).then(|| Verdict::done(Reason::Programmed, nothing).into());
    }
    if custom_domain::is_barred(d, o) {
        return Some(Verdict::Behind(Step::DomainProgrammed).into());
    }
    let worst = |v: &Verdict| match v {
        Verdict::Blocked(..) => 0,
        Verdict::Unknown(_) => 1,
        Verdict::Act(_) => 2,
        Verdict::Wait(..) | Verdict::Behind(_) => 3,
        Verdict::Done(..) => 4,
    };
    let (verdicts, actions): (Vec<_>, Vec<_>) = all.into_iter().map(|j| (j.verdict, j.actions)).unzip();
    let verdict = verdicts.into_iter().min_by_key(worst)?;
    Some(Judged { verdict, actions: actions.concat() })
}

/// What takes our headers out of an API again that is to have none, and our marks off; `None`: there are none, or the API is gone.
pub fn removal(home: &Home, api: &Seen<Option<Api>>, rest_deployment: RestDeployment) -> Option<Judged> {
    match api {
        Err(why) => Some(Verdict::unknown(why).into()),
        Ok(None) => None,
        Ok(Some(api)) => of_api(home, api, &BTreeMap::new(), rest_deployment, 0),
    }
}

/// What takes our marks off an API whose headers stay as they are.
pub fn unmarking(home: &Home, api: &Api) -> Option<Action> {
    let mut keys: Vec<_> = ours(home, api).map(|name| format!("{HEADER_TAG}{name}")).collect();
    if keys.is_empty() {
        return None;
    }
    keys.extend(api.api.tags.get(PENDING_IDENTITY_TAG).map(|_| PENDING_IDENTITY_TAG.to_owned()));
    Some(Action::UntagApi { arn: api.api.arn.clone(), keys })
}

/// Whether a mapping to it has to stay, because headers of ours have to be taken out of it first.
pub(super) fn holds(home: &Home, api: &Seen<Option<Api>>) -> bool {
    match api {
        Err(_) => true,
        Ok(api) => api.as_ref().is_some_and(|api| ours(home, api).next().is_some()),
    }
}

/// The headers that are ours and in place.
pub fn in_place(d: &Desired, o: &Observed) -> InPlace {
    let apis = o.apis.iter().filter_map(|(id, api)| Some((id, api.as_ref().ok()?.as_ref()?)));
    let headers = apis.flat_map(|(id, api)| {
        let ours: BTreeSet<_> = ours(&d.home, api).collect();
        let headers = d.identity.iter().filter(move |(name, _)| ours.contains(name.as_str()));
        headers.flat_map(move |(name, source)| {
            let there =
                covered(api).filter(move |i| value(api, i, name) == Some(&expression(api.api.protocol, source)));
            there.map(move |i| (id.clone(), i.at.clone(), name.clone()))
        })
    });
    headers.collect()
}

/// The names of the headers that we marked as ours.
fn ours<'a>(home: &'a Home, api: &'a Api) -> impl Iterator<Item = &'a str> {
    marks(api).filter(|(_, owner)| **owner == home.owner).map(|(name, _)| name)
}

fn marks(api: &Api) -> impl Iterator<Item = (&str, &String)> {
    api.api.tags.iter().filter_map(|(key, owner)| Some((key.strip_prefix(HEADER_TAG)?, owner)))
}

/// Whether one of our tags is on it.
pub fn is_marked(tags: &BTreeMap<String, String>) -> bool {
    tags.keys().any(|key| key.starts_with(HEADER_TAG) || key == PENDING_IDENTITY_TAG)
}

fn of_api(
    home: &Home,
    api: &Api,
    wanted: &BTreeMap<String, String>,
    rest_deployment: RestDeployment,
    repairs: u32,
) -> Option<Judged> {
    let id = &api.api.id;
    let leaving: Vec<_> = ours(home, api).filter(|name| !wanted.contains_key(*name)).map(str::to_owned).collect();
    let pending = api.api.tags.get(PENDING_IDENTITY_TAG);
    if wanted.is_empty() && leaving.is_empty() {
        // Of whoever was here last; with a header of somebody else's beside it, it is theirs.
        pending.filter(|_| marks(api).next().is_none())?;
        let untag = Action::UntagApi { arn: api.api.arn.clone(), keys: vec![PENDING_IDENTITY_TAG.to_owned()] };
        return Some(Judged::act(format!("headers of {id}"), vec![untag]));
    }
    if let Some(Err(why)) = &api.integrations {
        return Some(Verdict::unknown(why).into());
    }
    let mut tags = BTreeMap::new();
    let (mut foreign, mut missing) = (vec![], vec![]);
    let mut changes: BTreeMap<&Place, (BTreeMap<String, String>, BTreeSet<String>)> = BTreeMap::new();
    for (name, source) in wanted {
        let expression = expression(api.api.protocol, source);
        let mark = marks(api).find(|(marked, _)| marked == name).map(|(_, owner)| owner);
        let wrong: Vec<_> = covered(api).filter(|i| value(api, i, name) != Some(&expression)).collect();
        let is_ours = mark == Some(&home.owner);
        let theirs = wrong.iter().find(|i| !is_ours && (mark.is_some() || sets(i, name)));
        if let Some(there) = theirs {
            foreign.push(format!("{name} at {} of {id}", there.at));
            continue;
        }
        if wrong.is_empty() {
            continue;
        }
        if !is_ours {
            tags.insert(format!("{HEADER_TAG}{name}"), home.owner.clone());
        }
        for integration in wrong {
            missing.push(format!("{name} at {} of {id}", integration.at));
            let (set, remove) = changes.entry(&integration.at).or_default();
            // Under other keys the caller's own would be passed on, too.
            remove.extend(keys(integration, name).filter(|key| **key != parameter(api, name)).cloned());
            set.insert(parameter(api, name), expression.clone());
        }
    }
    for name in &leaving {
        for integration in
            api.integrations.iter().flatten().flatten().filter(|i| value(api, i, name).is_some_and(|v| is_context(v)))
        {
            changes.entry(&integration.at).or_default().1.insert(parameter(api, name));
        }
    }
    if repairs > MOST_REPAIRS && !missing.is_empty() {
        return Some(
            Verdict::blocked(
                Reason::ContestedByOther,
                format!(
                    "something else keeps taking away {}: have what manages that API (CloudFormation, Terraform, ...) set the header itself, or \
                     take it out of spec.identity; until then callers can send it themselves",
                    missing.join(", ")
                ),
            )
            .into(),
        );
    }
    let (by_hand, may_deploy) =
        (by_hand(api), api.api.protocol != Protocol::Rest || rest_deployment == RestDeployment::Allow);
    let mut actions = Vec::new();
    if !changes.is_empty() && !by_hand.is_empty() {
        tags.insert(PENDING_IDENTITY_TAG.to_owned(), deployments(&by_hand));
    }
    let arn = &api.api.arn;
    if !tags.is_empty() {
        actions.push(Action::TagApi { arn: arn.clone(), tags });
    }
    let changed = !changes.is_empty();
    actions.extend(changes.into_iter().map(|(at, (set, remove))| Action::ChangeParameters {
        api_id: id.clone(),
        at: at.clone(),
        set,
        remove,
    }));
    // What is still served without the change: all, once there is one; else those whose deployment is one from before.
    let before: BTreeSet<_> = pending.iter().flat_map(|ids| ids.split(' ')).collect();
    let behind = |stage: &&&Stage| changed || pending.is_some() && before.contains(deployment(stage));
    let undeployed: Vec<_> = by_hand.iter().filter(behind).map(|stage| stage.name.clone()).collect();
    let settled = undeployed.is_empty() || wanted.is_empty() || may_deploy;
    if may_deploy && !undeployed.is_empty() {
        let (protocol, api_id) = (api.api.protocol, id.clone());
        actions.push(Action::Deploy { protocol, api_id, stages: undeployed.clone() });
    }
    let mut done: Vec<_> = leaving.iter().map(|name| format!("{HEADER_TAG}{name}")).collect();
    if settled && (pending.is_some() || changed && !by_hand.is_empty()) {
        done.push(PENDING_IDENTITY_TAG.to_owned());
    }
    if !done.is_empty() {
        actions.push(Action::UntagApi { arn: arn.clone(), keys: done });
    }
    let verdict = if !foreign.is_empty() {
        Verdict::blocked(
            Reason::ForeignOwner,
            format!(
                "somebody else sets {}: it is left as it is. Take it away there, or choose another name in spec.identity",
                foreign.join(", ")
            ),
        )
    } else if !settled {
        Verdict::blocked(
            Reason::WaitingForDeployment,
            format!(
                "the headers of {id} are set, but not served: it takes a deployment to stage {}, which publishes every other pending change of \
                 {id} too. Deploy it, or set spec.restDeployment to Allow",
                undeployed.join(", ")
            ),
        )
    } else if !actions.is_empty() {
        let what = if missing.is_empty() { format!("headers of {id}") } else { missing.join(", ") };
        Verdict::Act(format!("setting {what}"))
    } else {
        Verdict::done(Reason::Programmed, "every integration of the mapped APIs passes the headers on")
    };
    Some(Judged { verdict, actions })
}

/// The integrations that headers can be mapped on.
fn covered(api: &Api) -> impl Iterator<Item = &Integration> {
    api.integrations.iter().flatten().flatten().filter(|integration| integration.takes_headers)
}

/// The request parameter that sets a header whatever the caller sends. `append:` would leave the caller's in front.
fn parameter(api: &Api, name: &str) -> String {
    match api.api.protocol {
        Protocol::Rest => format!("integration.request.header.{name}"),
        Protocol::Http | Protocol::WebSocket => format!("overwrite:header.{name}"),
    }
}

/// The request parameters about a header, however its name is written.
fn keys<'a>(integration: &'a Integration, name: &'a str) -> impl Iterator<Item = &'a String> {
    let about =
        move |key: &str| key.rsplit_once("header.").is_some_and(|(_, header)| header.eq_ignore_ascii_case(name));
    integration.parameters.keys().filter(move |key| about(key))
}

/// Whether anybody has set a header there.
fn sets(integration: &Integration, name: &str) -> bool {
    keys(integration, name).next().is_some()
}

/// The value of a header, when it is set as we set it and in no other way beside that.
fn value<'a>(api: &Api, integration: &'a Integration, name: &str) -> Option<&'a String> {
    let mut about = keys(integration, name);
    match (about.next(), about.next()) {
        (Some(key), None) if *key == parameter(api, name) => integration.parameters.get(key),
        _ => None,
    }
}

/// Where the value comes from, as an API of that kind writes it.
fn expression(protocol: Protocol, source: &str) -> String {
    match protocol {
        Protocol::Rest => format!("context.{source}"),
        Protocol::Http | Protocol::WebSocket => format!("$context.{source}"),
    }
}

fn is_context(value: &str) -> bool {
    value.trim_start_matches('$').starts_with("context.identity.clientCert.")
}

/// The mapped stages that serve what was last deployed to them.
fn by_hand(api: &Api) -> Vec<&Stage> {
    api.stages.values().flatten().filter(|stage| !stage.auto_deploy).collect()
}

/// A stage that nothing was deployed to yet is named, too: its first deployment is another.
fn deployment(stage: &Stage) -> &str {
    if stage.deployment_id.is_empty() { "none" } else { &stage.deployment_id }
}

/// As many as the tag holds; the rest, more than twenty stages with a deployment of its own each, counts as deployed.
fn deployments(stages: &[&Stage]) -> String {
    let ids: BTreeSet<_> = stages.iter().map(|stage| deployment(stage)).collect();
    let mut all = String::new();
    for id in ids {
        if all.len() + id.len() < LONGEST_TAG {
            all += if all.is_empty() { "" } else { " " };
            all += id;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{aws::gateway, domain::simulation::desired};

    const OURS: &str = "cluster/ns/partners";
    const SUBJECT: &str = "identity.clientCert.subjectDN";

    fn integration(id: &str, parameters: &[(&str, &str)]) -> Integration {
        let parameters = parameters.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Integration { at: Place::Integration(id.into()), parameters, takes_headers: true }
    }

    fn api(protocol: Protocol, auto_deploy: bool, integrations: Vec<Integration>, tags: &[(&str, &str)]) -> Api {
        let stage = Stage {
            name: "prod".into(),
            auto_deploy,
            description: String::new(),
            deployment_id: "d1".into(),
            updated_at: None,
        };
        Api {
            api: gateway::Api {
                id: "a1".into(),
                arn: "arn:a1".into(),
                protocol,
                private: false,
                endpoint_closed: true,
                tags: tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            },
            stages: [("prod".to_owned(), Some(stage))].into(),
            probe: None,
            integrations: Some(Ok(integrations)),
        }
    }

    fn wanted(names: &[&str]) -> BTreeMap<String, String> {
        names.iter().map(|name| ((*name).to_owned(), SUBJECT.to_owned())).collect()
    }

    fn judge(api: &Api, names: &[&str], may: RestDeployment, repairs: u32) -> Option<Judged> {
        of_api(&desired().home, api, &wanted(names), may, repairs)
    }

    fn words(judged: &Option<Judged>) -> String {
        let Some(Judged { verdict, actions }) = judged else { return "nothing".into() };
        let verdict = match verdict {
            Verdict::Done(..) => "Done".into(),
            Verdict::Act(_) => "Act".into(),
            Verdict::Blocked(reason, _) => reason.to_string(),
            other => format!("{other:?}"),
        };
        let actions = actions.iter().map(|action| format!(" | {action}"));
        actions.fold(verdict, |all, action| all + &action)
    }

    const MARK: (&str, &str) = ("mtls-operator.io/header.x-sub", OURS);

    #[test]
    fn a_header_is_marked_first_and_set_on_every_integration() {
        let both =
            || vec![integration("i1", &[]), integration("i2", &[("overwrite:header.x-other", "$context.stage")])];
        let http = api(Protocol::Http, true, both(), &[]);
        assert_eq!(
            words(&judge(&http, &["x-sub"], RestDeployment::Never, 0)),
            "Act | mark arn:a1 with mtls-operator.io/header.x-sub \
             | change integration i1 of a1: overwrite:header.x-sub=$context.identity.clientCert.subjectDN \
             | change integration i2 of a1: overwrite:header.x-sub=$context.identity.clientCert.subjectDN"
        );
        // Where that is not enough, the pending mark comes first, too, and goes with the deployment.
        let by_hand = api(Protocol::Http, false, vec![integration("i1", &[])], &[]);
        assert_eq!(
            words(&judge(&by_hand, &["x-sub"], RestDeployment::Never, 0)),
            "Act | mark arn:a1 with mtls-operator.io/header.x-sub, mtls-operator.io/pending-identity \
             | change integration i1 of a1: overwrite:header.x-sub=$context.identity.clientCert.subjectDN \
             | deploy a1 to prod | take mtls-operator.io/pending-identity off arn:a1"
        );
    }

    #[test]
    fn a_rest_api_is_deployed_only_if_allowed_and_anybodys_deployment_counts() {
        let set = [("integration.request.header.x-sub", "context.identity.clientCert.subjectDN")];
        let waiting = api(Protocol::Rest, false, vec![integration("i1", &set)], &[MARK, (PENDING_IDENTITY_TAG, "d1")]);
        assert_eq!(words(&judge(&waiting, &["x-sub"], RestDeployment::Never, 0)), "WaitingForDeployment");
        assert_eq!(
            words(&judge(&waiting, &["x-sub"], RestDeployment::Allow, 0)),
            "Act | deploy a1 to prod | take mtls-operator.io/pending-identity off arn:a1"
        );
        let deployed = api(Protocol::Rest, false, vec![integration("i1", &set)], &[MARK, (PENDING_IDENTITY_TAG, "d0")]);
        assert_eq!(
            words(&judge(&deployed, &["x-sub"], RestDeployment::Never, 0)),
            "Act | take mtls-operator.io/pending-identity off arn:a1"
        );
    }

    #[test]
    fn what_others_set_stays_and_is_named() {
        for (parameters, tags, expected) in [
            (("overwrite:header.x-sub", "$context.stage"), vec![], "ForeignOwner"),
            (("overwrite:header.X-Sub", "$context.stage"), vec![], "ForeignOwner"),
            (("append:header.x-sub", "$context.stage"), vec![], "ForeignOwner"),
            (
                ("overwrite:header.x-sub", "$context.stage"),
                vec![("mtls-operator.io/header.x-sub", "c/ns/other")],
                "ForeignOwner",
            ),
            // The same from somebody else is as good.
            (("overwrite:header.x-sub", "$context.identity.clientCert.subjectDN"), vec![], "Done"),
        ] {
            let api = api(Protocol::Http, true, vec![integration("i1", &[parameters])], &tags);
            assert_eq!(words(&judge(&api, &["x-sub"], RestDeployment::Never, 0)), expected, "{parameters:?} {tags:?}");
            assert_eq!(words(&judge(&api, &[], RestDeployment::Never, 0)), "nothing", "{parameters:?} {tags:?}");
        }
    }

    #[test]
    fn what_is_taken_away_again_and_again_is_put_back_three_times() {
        let api = api(Protocol::Http, true, vec![integration("i1", &[])], &[MARK]);
        assert!(words(&judge(&api, &["x-sub"], RestDeployment::Never, MOST_REPAIRS)).starts_with("Act"));
        assert_eq!(words(&judge(&api, &["x-sub"], RestDeployment::Never, MOST_REPAIRS + 1)), "ContestedByOther");
    }

    /// What AWS does to an API.
    fn perform(api: &mut Api, action: Action) {
        let Some(Ok(integrations)) = &mut api.integrations else { panic!("they were read") };
        match action {
            Action::TagApi { tags, .. } => api.api.tags.extend(tags),
            Action::UntagApi { keys, .. } => api.api.tags.retain(|key, _| !keys.contains(key)),
            Action::ChangeParameters { at, set, remove, .. } => {
                let there = integrations.iter_mut().find(|i| i.at == at).expect("it is there");
                there.parameters.retain(|key, _| !remove.contains(key));
                there.parameters.extend(set);
            }
            Action::Deploy { stages, .. } => {
                for stage in stages {
                    let stage = api.stages.get_mut(&stage).and_then(Option::as_mut).expect("it is there");
                    stage.deployment_id += "+";
                }
            }
            other => panic!("{other}"),
        }
    }

    proptest! {
        /// Whatever was there, it ends with the wanted headers on every integration, or says whose is in the way; and what is not ours is as it
        /// was, also after everything of ours was taken away again, from wherever it was stopped.
        #[test]
        fn headers_come_and_go_and_others_stay(
            rest in any::<bool>(),
            auto_deploy in any::<bool>(),
            allow in any::<bool>(),
            names in proptest::sample::subsequence(vec!["x-a", "x-b", "x-c"], 0..=3),
            there in proptest::collection::vec(proptest::collection::btree_map("x-[abcd]", 0..3u8, 0..4), 0..3),
            marked in proptest::sample::subsequence(vec!["x-a", "x-b", "x-c", "x-d"], 0..=4),
            stopped_after in 0..12usize,
        ) {
            let (protocol, may) = (if rest { Protocol::Rest } else { Protocol::Http }, if allow { RestDeployment::Allow } else { RestDeployment::Never });
            let prefix = if rest { "integration.request.header." } else { "overwrite:header." };
            // Of us is only what we marked.
            let value = |name: &str, kind: u8| match kind {
                0 if marked.contains(&name) => expression(protocol, SUBJECT),
                1 => "'static'".to_owned(),
                _ => "method.request.header.other".to_owned(),
            };
            let integrations = there.iter().enumerate().map(|(i, headers)| {
                let parameters = headers.iter().map(|(name, kind)| (format!("{prefix}{name}"), value(name, *kind))).collect();
                Integration { at: Place::Integration(format!("i{i}")), parameters, takes_headers: true }
            });
            let mut api = api(protocol, auto_deploy && !rest, integrations.collect(), &[]);
            api.api.tags.extend(marked.iter().map(|name| (format!("{HEADER_TAG}{name}"), OURS.to_owned())));
            let foreign = |api: &Api| -> Vec<_> {
                let all = api.integrations.iter().flatten().flatten();
                all.flat_map(|i| i.parameters.iter().filter(|(key, value)| {
                    let name = key.rsplit_once('.').expect("a header").1;
                    !is_context(value) && !marked.contains(&name)
                }).map(|(k, v)| (i.at.clone(), k.clone(), v.clone())).collect::<Vec<_>>()).collect()
            };
            let before = foreign(&api);
            let mut budget = stopped_after;
            for _ in 0..4 {
                for action in judge(&api, &names, may, 0).map(|j| j.actions).unwrap_or_default() {
                    if budget > 0 {
                        perform(&mut api, action);
                        budget -= 1;
                    }
                }
            }
            prop_assert_eq!(foreign(&api), before.clone());
            for _ in 0..4 {
                for action in judge(&api, &names, may, 0).map(|j| j.actions).unwrap_or_default() {
                    perform(&mut api, action);
                }
            }
            let end = judge(&api, &names, may, 0);
            prop_assert!(end.as_ref().is_none_or(|j| j.actions.is_empty()), "{}", words(&end));
            match end.map(|j| j.verdict) {
                None => prop_assert!(names.is_empty()),
                Some(Verdict::Done(..)) => {
                    for integration in covered(&api) {
                        prop_assert!(names.iter().all(|name| value_of(&api, integration, name)), "{api:?}");
                    }
                }
                Some(Verdict::Blocked(Reason::ForeignOwner, _)) => prop_assert!(!before.is_empty()),
                Some(Verdict::Blocked(Reason::WaitingForDeployment, _)) => prop_assert!(rest && !allow),
                other => prop_assert!(false, "{other:?}"),
            }
            prop_assert_eq!(foreign(&api), before.clone());
            for _ in 0..4 {
                for action in judge(&api, &[], may, 0).map(|j| j.actions).unwrap_or_default() {
                    perform(&mut api, action);
                }
            }
            prop_assert!(!is_marked(&api.api.tags), "{:?}", api.api.tags);
            prop_assert!(covered(&api).all(|i| i.parameters.values().all(|value| !is_context(value))));
            prop_assert_eq!(foreign(&api), before);
        }
    }

    fn value_of(api: &Api, integration: &Integration, name: &str) -> bool {
        value(api, integration, name) == Some(&expression(api.api.protocol, SUBJECT))
    }
}
