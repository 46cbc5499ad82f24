//! What it takes on one API that a Lambda authorizer is asked about every caller: the authorizer, API
//! Gateway's right to call its function, and the routes and methods that it stands on. An authorizer of ours
//! is known by its name, which is made of the ownership tag and the function: another function is another
//! authorizer, and the old one stays until nothing that is served asks it. Routes that somebody else
//! authorizes are left as they are.

use std::collections::BTreeMap;

use super::{Action, identity::AUTHORIZER_TAG};
use crate::{
    api::conditions::Reason,
    aws::{
        gateway::{Authorization, Authorizer, Place},
        session,
    },
    domain::{
        desired::{DesiredAuthorizer, Placement, short_hash},
        observed::{Api, Authorizers},
    },
};

/// The changes of one API, in the order of their fields.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Before anything else.
    pub tags: BTreeMap<String, String>,
    /// Effective at once.
    pub first: Vec<Action>,
    /// Effective with the next deployment, where it takes one.
    pub routes: Vec<Action>,
    /// Once nothing that is served asks it any more.
    pub last: Vec<Action>,
    pub untag: Vec<String>,
    /// What callers pass that the authorizer does not see yet.
    pub missing: Vec<String>,
    /// Routes that are somebody else's to authorize.
    pub others: Vec<String>,
    /// Why none can be put there.
    pub problem: Option<(Reason, String)>,
}

/// What changes, from what is there.
pub(super) fn changes(
    placement: &Placement,
    api: &Api,
    there: &Authorizers,
    wanted: Option<&DesiredAuthorizer>,
) -> Changes {
    let mut c = Changes::default();
    let (id, tag) = (&api.api.id, api.api.tags.get(AUTHORIZER_TAG));
    let ours: Vec<_> = there.all.iter().filter(|a| is_ours(placement, a)).collect();
    let chosen = match wanted {
        None => None,
        Some(DesiredAuthorizer::Existing(all)) => {
            let chosen = all
                .get(id)
                .and_then(|wanted| there.all.iter().find(|a| a.id == *wanted));
            if let (Some(wanted), None) = (all.get(id), chosen) {
                let has_none = format!(
                    "spec.identity.authorizer.existing: the API {id} has no authorizer {wanted}: \
                     aws apigatewayv2 get-authorizers --api-id {id} (of a REST API: aws apigateway \
                     get-authorizers --rest-api-id {id}) shows those it has"
                );
                c.problem = Some((Reason::RefNotFound, has_none));
            }
            chosen
        }
        Some(DesiredAuthorizer::Function(_)) if tag.is_some_and(|owner| *owner != placement.owner) => {
            let taken = format!(
                "another MtlsDomain has put its authorizer on the API {id}: take spec.identity.authorizer \
                 out of one of the two, or name \
                 the one that is there under existing"
            );
            return Changes {
                problem: Some((Reason::ForeignOwner, taken)),
                ..c
            };
        }
        Some(DesiredAuthorizer::Function(function)) => {
            if tag.is_none() {
                c.tags.insert(AUTHORIZER_TAG.to_owned(), placement.owner.clone());
            }
            let name = name(placement, function);
            let chosen = ours.iter().find(|a| a.name == name).copied();
            c.first
                .extend(bring_about(placement, api, there, function, chosen));
            if chosen.is_none() {
                c.missing.push(format!("the authorizer of {id}"));
                return c;
            }
            chosen
        }
    };
    for route in there.routes.iter().filter(|route| !is_preflight(&route.at)) {
        let authorizer = chosen.map(|a| &a.id);
        let is_free = match &route.authorization {
            Authorization::None => true,
            Authorization::Authorizer(asked) if authorizer == Some(asked) => continue,
            Authorization::Authorizer(asked) => ours.iter().any(|a| a.id == *asked),
            Authorization::Other => false,
        };
        match (is_free, authorizer, &route.authorization) {
            (false, Some(_), _) => c.others.push(format!("{} of {id}", route.at)),
            (false, None, _) | (true, None, Authorization::None) => {}
            (true, ..) => {
                if chosen.is_some() {
                    c.missing.push(format!("the authorizer on {} of {id}", route.at));
                }
                c.routes.push(Action::Authorize {
                    api_id: id.clone(),
                    at: route.at.clone(),
                    authorizer: authorizer.cloned(),
                });
            }
        }
    }
    for leaving in ours
        .iter()
        .filter(|a| chosen.is_none_or(|chosen| chosen.id != a.id))
    {
        if there.permitted.contains(&leaving.id) {
            let (function, statement) = (leaving.function.clone(), statement(placement, &leaving.id));
            c.last.push(Action::ForbidFunction { function, statement });
        }
        let (protocol, api_id) = (api.api.protocol, id.clone());
        c.last.push(Action::DeleteAuthorizer {
            protocol,
            api_id,
            id: leaving.id.clone(),
        });
    }
    if tag == Some(&placement.owner) && !matches!(wanted, Some(DesiredAuthorizer::Function(_))) {
        c.untag.push(AUTHORIZER_TAG.to_owned());
    }
    c
}

/// The authorizer for a function, as it is to be, and the right to call it: before a route asks it.
fn bring_about(
    placement: &Placement,
    api: &Api,
    there: &Authorizers,
    function: &str,
    chosen: Option<&Authorizer>,
) -> Vec<Action> {
    let (protocol, api_id, function) = (api.api.protocol, api.api.id.clone(), function.to_owned());
    let Some(chosen) = chosen else {
        return vec![Action::CreateAuthorizer {
            protocol,
            api_id,
            name: name(placement, &function),
            function,
        }];
    };
    let mut actions = Vec::new();
    if !chosen.as_made || chosen.function != function {
        let (id, function, api_id) = (chosen.id.clone(), function.clone(), api_id.clone());
        actions.push(Action::RestoreAuthorizer {
            protocol,
            api_id,
            id,
            function,
        });
    }
    if !there.permitted.contains(&chosen.id) {
        let source = format!(
            "arn:{}:execute-api:{}:{}:{api_id}/authorizers/{}",
            session::partition_of(&function),
            placement.region,
            placement.account,
            chosen.id
        );
        actions.push(Action::PermitFunction {
            function,
            statement: statement(placement, &chosen.id),
            source,
        });
    }
    actions
}

/// Whether it is an authorizer that was made for this MtlsDomain.
pub fn is_ours(placement: &Placement, authorizer: &Authorizer) -> bool {
    authorizer.name.starts_with(&prefix(placement))
}

/// The id of the statement in the policy of its function that lets API Gateway ask an authorizer of ours.
pub fn statement(placement: &Placement, authorizer_id: &str) -> String {
    format!("{}{authorizer_id}", prefix(placement))
}

fn name(placement: &Placement, function: &str) -> String {
    format!("{}{}", prefix(placement), &short_hash(function)[..12])
}

fn prefix(placement: &Placement) -> String {
    format!("mtls-operator-{}-", &short_hash(&placement.owner)[..12])
}

/// A browser asks before it may send anything that says who it is. Source: Fetch standard, "CORS-preflight
/// request".
fn is_preflight(at: &Place) -> bool {
    match at {
        Place::Route { key, .. } => key.starts_with("OPTIONS "),
        Place::Method { method, .. } => method == "OPTIONS",
        Place::Integration(_) => false,
    }
}

#[cfg(test)]
mod tests;
