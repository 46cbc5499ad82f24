//! Expired certificates leave the truststore, certificates that AWS rejects stay out, and it is never
//! emptied.
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    aws::truststores::{holds, truststore},
    edge_calls::Caller,
    kubernetes::{
        objects::{DOMAIN, change, condition, create, domain_spec, says, until, until_object},
        secrets::openssl,
    },
    partner_ca::Ca,
    test_env::TestEnv,
    world::eventually,
};

fn warnings(object: &Value) -> String {
    object["status"]["truststore"]["warnings"].to_string()
}

async fn calls_are(env: &TestEnv, caller: &Caller, status: &str) {
    eventually("the edge's answer", async || match caller.calls(env).await {
        seen if seen == status => Ok(()),
        seen => Err(seen),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_authority_leaves_and_the_others_stay() {
    let env = TestEnv::start("expires").await;
    let own = Ca::new("Own CA");
    let trust = |more: &[Value]| {
        let mut authorities = vec![json!({"name": "own", "pem": own.pem})];
        authorities.extend_from_slice(more);
        json!({"authorities": authorities})
    };
    create(&env, DOMAIN, "partners", domain_spec(&env, trust(&[]))).await;
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;

    let short = Ca::valid("Short CA", Duration::ZERO, Duration::from_secs(25));
    let short_entry = json!({"name": "short", "pem": short.pem});
    change(
        &env,
        DOMAIN,
        "partners",
        json!({"trust": trust(std::slice::from_ref(&short_entry))}),
    )
    .await;
    let object = until_object(&env, DOMAIN, "partners", "the authority is trusted", |object| {
        object["status"]["truststore"]["authorities"]
            .to_string()
            .contains("CN=Short CA")
    })
    .await;
    assert!(
        warnings(&object).contains("authority short: CN=Short CA expires at"),
        "{}",
        warnings(&object)
    );

    // No user changes anything, and AWS sends no event.
    let object = until_object(&env, DOMAIN, "partners", "the authority has left", |object| {
        !object["status"]["truststore"]["authorities"]
            .to_string()
            .contains("CN=Short CA")
    })
    .await;
    assert!(
        warnings(&object).contains("authority short: CN=Short CA expired at"),
        "{}",
        warnings(&object)
    );
    assert!(!holds(&truststore(&env).await.1, &short.pem));
    assert_eq!(own.leaf("caller").calls(&env).await, "200");
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn truststore_warnings_of_aws_are_in_the_status() {
    let env = TestEnv::start("warned").await;
    let own = Ca::new("Own CA");
    let year = Duration::from_secs(365 * 24 * 3600);
    let early = Ca::valid("Early CA", year, year * 2);
    let trust =
        json!({"authorities": [{"name": "own", "pem": own.pem}, {"name": "early", "pem": early.pem}]});
    create(&env, DOMAIN, "partners", domain_spec(&env, trust)).await;
    let object = until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    let (told, sdk) = (
        warnings(&object),
        env.gateway_domain().await.mutual_tls_authentication.unwrap(),
    );
    let theirs = &sdk.truststore_warnings()[0];
    assert!(told.contains(theirs), "{told}");
    assert!(
        told.contains("authority early: CN=Early CA is not valid before"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_certificate_that_aws_would_reject_is_named_and_kept_out() {
    let env = TestEnv::start("lint").await;
    let own = Ca::new("Own CA");
    let dir = tempfile::tempdir().expect("a folder");
    let made = async |name: &str, args: &str| {
        let line = format!("req -x509 -nodes -keyout {name}.key -subj /CN={name} {args}");
        openssl(dir.path(), &line.split_whitespace().collect::<Vec<_>>(), "")
            .await
            .expect("openssl makes it")
    };
    let ec = "-newkey ec -pkeyopt ec_paramgen_curve";
    let weak = made("weak", "-newkey rsa:1024 -days 365").await;
    let sha1 = made("sha1", "-newkey rsa:2048 -days 365 -sha1").await;
    let edwards = made("edwards", "-newkey ed25519 -days 365").await;
    let small = made("small", &format!("{ec}:secp224r1 -days 365")).await;
    let large = made("large", &format!("{ec}:P-521 -days 365")).await;
    let soon = made("soon", &format!("{ec}:P-256 -days 29")).await;
    let leaf = own.leaf("leaf").crt;
    let twin = Ca::new("Own CA");
    let mut authorities = vec![json!({"name": "own", "pem": own.pem})];
    let pasted = [
        ("weak", &weak),
        ("sha1", &sha1),
        ("edwards", &edwards),
        ("small", &small),
        ("large", &large),
        ("soon", &soon),
        ("leaf", &leaf),
        ("twin", &twin.pem),
    ];
    authorities.extend(pasted.iter().map(|(name, pem)| json!({"name": name, "pem": pem})));
    create(
        &env,
        DOMAIN,
        "partners",
        domain_spec(&env, json!({"authorities": authorities})),
    )
    .await;
    let object = until(&env, DOMAIN, "partners", "BypassClosed", "True", "").await;
    let (_, text) = truststore(&env).await;
    for (name, pem) in pasted {
        assert_eq!(
            holds(&text, pem),
            ["large", "soon"].contains(&name),
            "{name}: {text}"
        );
    }
    let refused = condition(&object, "ResolvedRefs").expect("the condition is there")["message"].to_string();
    for told in [
        "authority weak: CN=weak has an RSA key of 1024 bits: use",
        "authority sha1: CN=sha1 is signed with SHA-1: have it signed",
        "authority edwards: CN=edwards has an Ed25519 key that API Gateway does not support: use",
        "authority small: CN=small has a kind of key that API Gateway does not support: use",
        "authority leaf: CN=leaf is neither an authority (CA:TRUE) nor self-signed: give the certificate of \
         its issuer, CN=Own CA",
        "authority twin: CN=Own CA is the subject of another certificate",
    ] {
        assert!(refused.contains(told), "{told}: {refused}");
    }
    for told in [
        "authority large: CN=large has a P-521 key",
        "authority soon: CN=soon expires at",
    ] {
        assert!(warnings(&object).contains(told), "{told}: {}", warnings(&object));
    }
    assert_eq!(
        own.leaf("caller").calls(&env).await,
        "200",
        "the valid certificate serves"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truststore_without_certificates_waits_and_is_never_emptied() {
    let env = TestEnv::start("no-trust").await;
    create(
        &env,
        DOMAIN,
        "partners",
        domain_spec(&env, json!({"authorities": []})),
    )
    .await;
    let object = until(
        &env,
        DOMAIN,
        "partners",
        "TruststorePublished",
        "Unknown",
        "WaitingForAuthority",
    )
    .await;
    assert_ne!(says(&object, "Ready"), "False", "never False at birth");
    until(&env, DOMAIN, "partners", "CertificateIssued", "True", "").await;
    env.reconciles(2).await;
    // Half a minute is enough for the first self-signed certificate.
    let object = until(&env, DOMAIN, "partners", "Accepted", "False", "InvalidSpec").await;
    assert!(
        condition(&object, "Ready").expect("Ready")["message"]
            .to_string()
            .contains("there is no authority to trust")
    );
    assert_eq!(env.gateway_domains().await, [""; 0]);

    let [acme, other] = ["Acme CA", "Other CA"].map(Ca::new);
    let acme_entry = |state: &str| json!({"name": "acme", "state": state, "pem": acme.pem});
    let trust = |authorities: &[Value]| json!({"trust": {"authorities": authorities}});
    change(&env, DOMAIN, "partners", trust(&[acme_entry("Active")])).await;
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    let (before, caller) = (truststore(&env).await, acme.leaf("caller"));
    let mark = env.mark().await;
    for authorities in [vec![], vec![acme_entry("Distrusted")]] {
        change(&env, DOMAIN, "partners", trust(&authorities)).await;
        let object = until(
            &env,
            DOMAIN,
            "partners",
            "TruststorePublished",
            "False",
            "NoValidCACertificate",
        )
        .await;
        assert_eq!(says(&object, "Ready"), "False");
        env.reconciles(2).await;
        assert_eq!(truststore(&env).await, before);
        assert_eq!(caller.calls(&env).await, "200");
    }
    assert_eq!(env.writes(mark).await, [""; 0]);

    // Once there is another certificate, the distrusted one goes.
    let both = [
        acme_entry("Distrusted"),
        json!({"name": "other", "pem": other.pem}),
    ];
    change(&env, DOMAIN, "partners", trust(&both)).await;
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    calls_are(&env, &caller, "403").await;
    assert_eq!(other.leaf("caller").calls(&env).await, "200");
}
