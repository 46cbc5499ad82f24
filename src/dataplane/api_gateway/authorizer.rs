//! Changes of one API so that a Lambda authorizer authorizes every caller: the authorizer, API Gateway's
//! permission to call its function, and the routes and methods with the authorizer. The name of an owned
//! authorizer consists of the ownership tag and the function. Another function needs another authorizer, and
//! the old authorizer stays until no deployed route uses it. The operator does not change routes with another
//! authorization.

use std::collections::BTreeMap;

use crate::{
    api::conditions::Reason,
    aws::{
        action::{ApiGatewayAction, LambdaAction},
        arn::Arn,
        gateway::{
            authorizers::{Authorization, Authorizer},
            integrations::Place,
        },
    },
    model::{
        action::Action,
        desired::DesiredAuthorizer,
        observed::{Api, Authorizers},
        placement::Placement,
    },
    pki::digest::short_hash,
};

/// Changes of one API, in the order of their fields.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Tags to set before all other changes.
    pub tags: BTreeMap<String, String>,
    /// Actions that take effect at once.
    pub first: Vec<Action>,
    /// Actions that take effect with the next deployment, where the API needs one.
    pub routes: Vec<Action>,
    /// Actions for the time when no deployed route uses the old authorizer any more.
    pub last: Vec<Action>,
    pub untag: Vec<String>,
    /// Routes and authorizers whose callers are not authorized yet.
    pub missing: Vec<String>,
    /// Routes with another authorization.
    pub others: Vec<String>,
    /// Reason why the operator cannot use the authorizer.
    pub problem: Option<(Reason, String)>,
}

/// Returns the changes from the observed authorizers to the desired authorizer.
pub(crate) fn changes(
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
                     get-authorizers --rest-api-id {id}) lists its authorizers"
                );
                c.problem = Some((Reason::RefNotFound, has_none));
            }
            chosen
        }
        Some(DesiredAuthorizer::Function(_)) if tag.is_some_and(|owner| *owner != placement.owner) => {
            let taken = format!(
                "another MtlsDomain has an authorizer on the API {id}: remove spec.identity.authorizer from \
                 one of the two, or name the present authorizer under existing"
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
                let authorize = ApiGatewayAction::Authorize {
                    api_id: id.clone(),
                    at: route.at.clone(),
                    authorizer: authorizer.cloned(),
                };
                c.routes.push(authorize.into());
            }
        }
    }
    for leaving in ours
        .iter()
        .filter(|a| chosen.is_none_or(|chosen| chosen.id != a.id))
    {
        let permitted = there.permitted.contains(&leaving.id);
        if let Some(function) = leaving.function.clone().filter(|_| permitted) {
            let statement = statement(placement, &leaving.id);
            c.last
                .push(LambdaAction::ForbidFunction { function, statement }.into());
        }
        let (protocol, api_id) = (api.api.protocol, id.clone());
        let delete = ApiGatewayAction::DeleteAuthorizer {
            protocol,
            api_id,
            id: leaving.id.clone(),
        };
        c.last.push(delete.into());
    }
    if tag == Some(&placement.owner) && !matches!(wanted, Some(DesiredAuthorizer::Function(_))) {
        c.untag.push(AUTHORIZER_TAG.to_owned());
    }
    c
}

/// Returns the actions that create or restore the authorizer of a function, and permit the call of the
/// function. The authorizer needs both before a route uses it.
fn bring_about(
    placement: &Placement,
    api: &Api,
    there: &Authorizers,
    function: &Arn,
    chosen: Option<&Authorizer>,
) -> Vec<Action> {
    let (protocol, api_id, function) = (api.api.protocol, api.api.id.clone(), function.clone());
    let Some(chosen) = chosen else {
        let create = ApiGatewayAction::CreateAuthorizer {
            protocol,
            api_id,
            name: name(placement, &function),
            function,
        };
        return vec![create.into()];
    };
    let mut actions = Vec::new();
    if !chosen.as_made || chosen.function.as_ref() != Some(&function) {
        let (id, function, api_id) = (chosen.id.clone(), function.clone(), api_id.clone());
        let restore = ApiGatewayAction::RestoreAuthorizer {
            protocol,
            api_id,
            id,
            function,
        };
        actions.push(restore.into());
    }
    if !there.permitted.contains(&chosen.id) {
        let source = format!(
            "arn:{}:execute-api:{}:{}:{api_id}/authorizers/{}",
            function.partition(),
            placement.region,
            placement.account,
            chosen.id
        );
        let permit = LambdaAction::PermitFunction {
            function,
            statement: statement(placement, &chosen.id),
            source,
        };
        actions.push(permit.into());
    }
    actions
}

/// True for an authorizer that the operator created for this MtlsDomain.
pub fn is_ours(placement: &Placement, authorizer: &Authorizer) -> bool {
    authorizer.name.starts_with(&prefix(placement))
}

/// Returns the ID of the statement in the function's policy that permits API Gateway to call the function for
/// an owned authorizer.
pub fn statement(placement: &Placement, authorizer_id: &str) -> String {
    format!("{}{authorizer_id}", prefix(placement))
}

pub(crate) fn name(placement: &Placement, function: &Arn) -> String {
    format!("{}{}", prefix(placement), &short_hash(function.as_str())[..12])
}

fn prefix(placement: &Placement) -> String {
    format!("mtls-operator-{}-", &short_hash(&placement.owner)[..12])
}

/// True for the preflight request of a browser, which carries no credentials. Source: Fetch standard,
/// "CORS-preflight request".
fn is_preflight(at: &Place) -> bool {
    match at {
        Place::Route { key, .. } => key.starts_with("OPTIONS "),
        Place::Method { method, .. } => method == "OPTIONS",
        Place::Integration(_) => false,
    }
}

/// Tag of an API before the operator creates an authorizer there; its value is the owner.
pub const AUTHORIZER_TAG: &str = "mtls-operator.io/authorizer";

#[cfg(test)]
pub(crate) mod tests;
