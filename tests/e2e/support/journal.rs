//! The journal of AWS calls, and kills of the operator in the middle of a call.
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, api::DeleteParams};
use sandbox::control::{Call, Calls, Control};

use super::{
    test_env::TestEnv,
    world::{eventually, world},
};

impl TestEnv {
    pub fn control(&self) -> &'static Control {
        world().aws.control()
    }

    /// Number of the last AWS call so far.
    pub async fn mark(&self) -> u64 {
        let none = Calls {
            account: "none",
            ..Calls::default()
        };
        self.control().calls(&none).await.expect("the journal").last
    }

    /// Writes of this account after `mark`: the operation, then for Route 53 the changes, as in
    /// `ChangeResourceRecordSets CREATE A mtls.example.com`.
    pub async fn writes(&self, mark: u64) -> Vec<String> {
        let which = Calls {
            account: &self.account.id,
            since: mark,
            writes: true,
            ..Calls::default()
        };
        let journal = self.control().calls(&which).await.expect("the journal");
        let line = |c: sandbox::control::Call| {
            // The caller chooses whether names end with a dot.
            let changes = c
                .detail
                .iter()
                .map(|change| format!(" {}", change.trim_end_matches('.')));
            changes.fold(c.operation, |line, change| line + &change)
        };
        journal.calls.into_iter().map(line).collect()
    }

    /// Waits until the operator has made `count` whole reconciles from now on. Each reconcile reads the
    /// domain: by its name, or in the list of all when it expects no change; and by its name again if the
    /// list shows one.
    pub async fn reconciles(&self, count: usize) {
        let mark = self.mark().await;
        eventually(&format!("{count} more reconciles"), async || {
            let which = Calls {
                account: &self.account.id,
                since: mark,
                service: "apigatewayv2",
                ..Calls::default()
            };
            let calls = self
                .control()
                .calls(&which)
                .await
                .map_err(|e| e.to_string())?
                .calls;
            let seen = calls
                .iter()
                .filter(|c| ["GetDomainName", "GetDomainNames"].contains(&c.operation.as_str()));
            let seen = seen.count();
            // The first reconcile may have begun before the mark, the last may be under way, and one may have
            // read the domain twice.
            if seen >= count + 3 {
                Ok(())
            } else {
                Err(format!("{seen} reads of the domain"))
            }
        })
        .await
    }

    /// Waits until the fault rule holds a call.
    pub async fn holds(&self, rule: u64, what: &str) {
        eventually(&format!("{what}: the call"), async || {
            let faults = self.control().faults().await.map_err(|e| e.to_string())?;
            let state = faults
                .into_iter()
                .find(|f| f.id == rule)
                .ok_or("the rule is gone")?;
            if state.held > 0 {
                Ok(())
            } else {
                Err(format!("{state:?}"))
            }
        })
        .await;
    }

    /// Waits until the fault rule holds a call, kills the operator in the middle of it, and starts it again.
    pub async fn kill_at(&mut self, rule: u64, what: &str) {
        self.holds(rule, what).await;
        self.operator.kill();
        self.control().remove_fault(rule).await.unwrap();
        self.operator.restart().unwrap();
    }

    /// Deletes the Lease of an operator that was killed, so that the next operator need not wait until it
    /// runs out.
    pub async fn end_lease(&self) {
        let leases = Api::<Lease>::namespaced(self.client.clone(), &self.namespace);
        let _ = leases.delete("mtls-operator", &DeleteParams::default()).await; // none yet is fine
    }
}

/// The emulator's control API, with connections of this test's own runtime.
pub fn control() -> Control {
    Control::new(world().aws.endpoint())
}

pub async fn last_call() -> u64 {
    control()
        .calls(&Calls {
            account: "none",
            ..Calls::default()
        })
        .await
        .expect("the journal")
        .last
}

pub async fn writes_since(env: &TestEnv, since: u64) -> Vec<Call> {
    control()
        .calls(&Calls {
            account: &env.account.id,
            since,
            writes: true,
            ..Calls::default()
        })
        .await
        .expect("the journal")
        .calls
}
