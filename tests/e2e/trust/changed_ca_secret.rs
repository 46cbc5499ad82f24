//! A CA Secret that gets another key keeps the leaves under the old key valid.
use kube::{ResourceExt, api::ListParams};
use serde_json::{Value, json};

use crate::support::{
    aws::truststores::{holds, truststore},
    edge_calls::Caller,
    kubernetes::{
        objects::{CERTIFICATE, DOMAIN, certificate_spec, change, create, domain_spec, until, until_object},
        secrets::{create_secret, damage, sound},
    },
    leaves::{LEAVES, all_answered, comment, leaves, living_leaves, pinned, secret_authority, with_leaves},
    partner_ca::Ca,
    test_env::TestEnv,
};

#[tokio::test(flavor = "multi_thread")]
async fn another_key_and_subject_replace_the_authority_and_its_leaves_stay_valid() {
    let [old, new] = ["Old CA", "New CA"].map(Ca::new);
    let (env, before) = with_leaves("rotated", &old).await;
    let counted = |subject: &'static str, n| move |object: &Value| living_leaves(object, subject) == Some(n);
    until_object(
        &env,
        DOMAIN,
        "partners",
        "50 leaves are counted",
        counted("CN=Old CA", LEAVES as u64),
    )
    .await;

    let mark = env.mark().await;
    damage(&env, "own-ca", &[("tls.crt", &new.pem), ("tls.key", &new.key)]).await;
    let after = leaves(&env, |ca| holds(ca, &new.pem)).await;
    let (_, both) = truststore(&env).await;
    assert!(comment(&both, "CN=Old CA").contains("  keep-until: "), "{both}");
    assert!(!comment(&both, "CN=New CA").contains("keep-until"), "{both}");
    all_answered(&env, &before).await;
    all_answered(&env, &after).await;
    let object = until_object(
        &env,
        DOMAIN,
        "partners",
        "the leaves are counted",
        counted("CN=New CA", LEAVES as u64),
    )
    .await;
    assert_eq!(
        living_leaves(&object, "CN=Old CA"),
        Some(LEAVES as u64),
        "superseded ones live as well"
    );
    env.reconciles(2).await;
    assert_eq!(
        env.writes(mark).await,
        ["PutObject", "UpdateDomainName"],
        "one change for all"
    );

    // The old authority leaves when it is due, which a user may bring forward.
    change(&env, DOMAIN, "partners", json!({"trust": {"overlap": "1s"}})).await;
    let text = pinned(&env, "is without the old one", |text| !holds(text, &old.pem)).await;
    assert!(holds(&text, &new.pem));
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    assert_eq!(before[0].calls(&env).await, "403");
    all_answered(&env, &after).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_certificate_is_issued_with_the_key_that_the_secret_has_now() {
    let [first, second, third] = ["First CA", "Second CA", "Third CA"].map(Ca::new);
    let env = TestEnv::start("reread").await;
    create_secret(
        &env,
        "own-ca",
        &[("tls.crt", &first.pem), ("tls.key", &first.key)],
    )
    .await;
    let trust = json!({"authorities": [secret_authority("own", "own-ca")]});
    create(&env, DOMAIN, "partners", domain_spec(&env, trust)).await;
    // Each issuance reads the key, and the operator keeps it for later ones; then the Secret holds another
    // key.
    for (name, ca) in [("c1", &first), ("c2", &second), ("c3", &third)] {
        damage(&env, "own-ca", &[("tls.crt", &ca.pem), ("tls.key", &ca.key)]).await;
        create(&env, CERTIFICATE, name, certificate_spec(name)).await;
        for caller in leaves(&env, |issuer| holds(issuer, &ca.pem)).await {
            assert_eq!(caller.calls(&env).await, "200");
        }
        let names = env
            .certificates()
            .list(&ListParams::default())
            .await
            .expect("the certificates");
        for name in names.iter().map(ResourceExt::name_any) {
            let secret = env.secrets().get(&name).await.expect("the Secret");
            sound(&secret)
                .await
                .expect("signed by the very key whose certificate is in ca.crt");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_under_the_same_subject_is_refused_and_the_leaves_stay_valid() {
    let [old, twin, other] = ["Own CA", "Own CA", "Other CA"].map(Ca::new);
    let (env, before) = with_leaves("reused", &old).await;
    let mark = env.mark().await;
    damage(&env, "own-ca", &[("tls.crt", &twin.pem), ("tls.key", &twin.key)]).await;
    until(
        &env,
        DOMAIN,
        "partners",
        "ResolvedRefs",
        "False",
        "AuthoritySubjectReused",
    )
    .await;
    create(&env, CERTIFICATE, "late", certificate_spec("late")).await;
    until(
        &env,
        CERTIFICATE,
        "late",
        "Issued",
        "Unknown",
        "WaitingForDomainTrust",
    )
    .await;
    env.reconciles(2).await;
    assert!(
        env.secrets().get_opt("late").await.expect("an answer").is_none(),
        "nothing is issued"
    );
    assert_eq!(
        env.writes(mark).await,
        ["PutObject", "UpdateDomainName"],
        "until when the old one stays is written down"
    );
    let (_, text) = truststore(&env).await;
    assert!(
        comment(&text, "CN=Own CA").contains("  keep-until: ") && !holds(&text, &twin.pem),
        "{text}"
    );
    all_answered(&env, &before).await;
    assert_eq!(twin.leaf("caller").calls(&env).await, "403");
    assert_eq!(
        Caller::of(&env.secrets().get("c0").await.expect("the Secret")).crt,
        before[0].crt,
        "the leaf is kept"
    );

    damage(
        &env,
        "own-ca",
        &[("tls.crt", &other.pem), ("tls.key", &other.key)],
    )
    .await;
    let after = leaves(&env, |ca| holds(ca, &other.pem)).await;
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    all_answered(&env, &before).await;
    all_answered(&env, &after).await;
}
