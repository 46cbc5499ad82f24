//! The API server rejects a Secret that the operator writes: the conditions have its sentence and the remedy,
//! nothing else is written meanwhile, and the work goes on by itself afterwards.
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};

use crate::support::{
    kubernetes::objects::{
        CERTIFICATE, DOMAIN, certificate_spec, condition, create, domain_spec, generated, get, issued, until,
    },
    test_env::TestEnv,
    world::{eventually, run},
};

/// Denies new Secrets in the test's namespace with this sentence, from the return on.
async fn deny(env: &TestEnv, sentence: &str) {
    let name = &env.namespace;
    let policy: ValidatingAdmissionPolicy = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {
                "resourceRules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                    "resources": ["secrets"],
                }],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
            },
            "validations": [{"expression": "false", "reason": "Forbidden", "message": sentence}],
        },
    }))
    .expect("a policy");
    let binding: ValidatingAdmissionPolicyBinding = serde_json::from_value(json!({
        "metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]},
    }))
    .expect("a binding");
    let params = PostParams::default();
    Api::all(env.client.clone())
        .create(&params, &policy)
        .await
        .expect("the policy");
    Api::all(env.client.clone())
        .create(&params, &binding)
        .await
        .expect("the binding");
    let probe = serde_json::from_value(json!({"metadata": {"name": "probe"}})).expect("a Secret");
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    eventually("the policy is in force", async || {
        match env.secrets().create(&dry_run, &probe).await {
            Err(_) => Ok(()),
            Ok(_) => Err("the Secret would be created".to_owned()),
        }
    })
    .await;
}

async fn allow(env: &TestEnv) {
    let (name, params) = (&env.namespace, DeleteParams::default());
    Api::<ValidatingAdmissionPolicyBinding>::all(env.client.clone())
        .delete(name, &params)
        .await
        .expect("the binding");
    Api::<ValidatingAdmissionPolicy>::all(env.client.clone())
        .delete(name, &params)
        .await
        .expect("the policy");
}

/// Checks that the message has these words, and nothing of a Rust structure.
fn assert_says(object: &Value, type_: &str, words: &[&str]) {
    let message = condition(object, type_).expect("there")["message"].to_string();
    for word in words {
        assert!(message.contains(word), "{word}: {message}");
    }
    assert_no_dump(&message);
}

fn assert_no_dump(text: &str) {
    for word in ["Some(", "Status {", "ListMeta"] {
        assert!(!text.contains(word), "{word}: {text}");
    }
}

#[test]
fn a_policy_that_denies_secrets_is_reported_and_nothing_is_written() {
    run(async {
        let env = TestEnv::start("denied").await;
        const QUOTA: &str = "exceeded quota: q, requested: secrets=1, used: secrets=5, limited: secrets=5";
        deny(&env, QUOTA).await;
        create(&env, DOMAIN, "partners", domain_spec(&env, generated())).await;
        let refused = until(
            &env,
            DOMAIN,
            "partners",
            "ResolvedRefs",
            "False",
            "SecretRejected",
        )
        .await;
        assert_says(
            &refused,
            "ResolvedRefs",
            &["partners.ca-ca", "raise the quota", QUOTA],
        );
        until(&env, DOMAIN, "partners", "CertificateIssued", "True", "").await;
        let version = async || get(&env, DOMAIN, "partners").await["metadata"].clone();
        let before = version().await;
        env.reconciles(3).await;
        assert_eq!(version().await, before, "no key is recorded again and again");
        assert!(
            !before["annotations"].to_string().contains("generated"),
            "{before}"
        );
        allow(&env).await;
        until(&env, DOMAIN, "partners", "Ready", "True", "").await;

        deny(&env, "no Secrets without a team").await;
        create(&env, CERTIFICATE, "client1", certificate_spec("client1")).await;
        let refused = until(&env, CERTIFICATE, "client1", "Issued", "False", "SecretRejected").await;
        assert_says(
            &refused,
            "Issued",
            &["client1", "no Secrets without a team", "admission policy"],
        );
        allow(&env).await;
        issued(&env, "client1", 1).await;
        assert_no_dump(&std::fs::read_to_string(env.operator.log()).expect("the log"));
    });
}
