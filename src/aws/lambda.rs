//! Lambda: the callers that a function's policy allows. The operator neither reads nor changes functions
//! themselves.

use std::collections::BTreeSet;

use aws_config::SdkConfig;
use aws_sdk_lambda::Client;
use serde::Deserialize;

use super::{
    call_guard::CallContext,
    errors::{Error, Kind},
};

#[derive(Debug, Clone)]
pub struct Lambda {
    client: Client,
    context: CallContext,
}

/// Policy of a function, with the fields that the operator reads. Source: Lambda API reference, GetPolicy.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Policy {
    statement: Vec<Statement>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Statement {
    sid: Option<String>,
}

impl Lambda {
    pub(crate) fn new(config: &SdkConfig, context: &CallContext) -> Lambda {
        Lambda {
            client: Client::new(config),
            context: context.clone(),
        }
    }

    /// Returns the ids of the statements in the policy of a function, version or alias, as its ARN says.
    /// Empty when it has no policy and when there is no such function: Lambda answers both alike.
    pub async fn statements(&self, function: &str) -> Result<BTreeSet<String>, Error> {
        const GET: &str = "lambda:GetPolicy";
        let text = match self
            .context
            .call(GET, self.client.get_policy().function_name(function).send())
            .await
        {
            Ok(answer) => answer.policy.unwrap_or_default(),
            Err(e) if e.kind == Kind::NotFound => return Ok(BTreeSet::new()),
            Err(e) => return Err(e),
        };
        let policy: Policy = serde_json::from_str(&text).map_err(|e| {
            Error::ours(
                Kind::Transient,
                GET,
                format!("the policy of {function} cannot be read: {e}"),
            )
        })?;
        Ok(policy
            .statement
            .into_iter()
            .filter_map(|statement| statement.sid)
            .collect())
    }

    /// Allows API Gateway to invoke a function for `source`, an ARN of API Gateway. [`Kind::Conflict`] when
    /// there is a statement with this id.
    pub async fn permit(&self, function: &str, statement: &str, source: &str) -> Result<(), Error> {
        let send = self
            .client
            .add_permission()
            .function_name(function)
            .statement_id(statement)
            .action("lambda:InvokeFunction")
            .principal("apigateway.amazonaws.com")
            .source_arn(source);
        self.context.call("lambda:AddPermission", send.send()).await?;
        Ok(())
    }

    /// Removes a statement.
    pub async fn forbid(&self, function: &str, statement: &str) -> Result<(), Error> {
        let send = self
            .client
            .remove_permission()
            .function_name(function)
            .statement_id(statement);
        self.context.call("lambda:RemovePermission", send.send()).await?;
        Ok(())
    }
}
