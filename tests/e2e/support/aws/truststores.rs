//! Truststores as the custom domains pin them.
use crate::support::test_env::TestEnv;

/// Truststore that the domain of this environment pins: its version, and the object's text of exactly that
/// version.
pub async fn truststore(env: &TestEnv) -> (String, String) {
    truststore_of(env, &env.host()).await
}

/// Truststore of the domain of that name, as [`truststore`] returns it.
pub async fn truststore_of(env: &TestEnv, host: &str) -> (String, String) {
    let sdk = env.account.sdk();
    let domain = aws_sdk_apigatewayv2::Client::new(&sdk)
        .get_domain_name()
        .domain_name(host)
        .send()
        .await
        .expect("the domain");
    let used = domain.mutual_tls_authentication.expect("mutual TLS is on");
    let (uri, version) = (
        used.truststore_uri.expect("a URI"),
        used.truststore_version.expect("a version is pinned"),
    );
    let (bucket, key) = uri
        .strip_prefix("s3://")
        .and_then(|path| path.split_once('/'))
        .expect("an S3 URI");
    let object = aws_sdk_s3::Client::new(&sdk)
        .get_object()
        .bucket(bucket)
        .key(key)
        .version_id(&version)
        .send()
        .await
        .expect("the version");
    let bytes = object
        .body
        .collect()
        .await
        .expect("the object's content")
        .into_bytes();
    (version, String::from_utf8(bytes.to_vec()).expect("PEM is text"))
}

/// True when `pem` stands in a truststore, however its lines are broken.
pub fn holds(truststore: &str, pem: &str) -> bool {
    let flat = |text: &str| text.split_whitespace().collect::<String>();
    flat(truststore).contains(&flat(pem))
}
