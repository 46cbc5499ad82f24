//! Ownership tags in AWS, and the other tags and metadata that the operator writes there.

/// Ownership tag on AWS resources: names the MtlsDomain that owns them.
pub const OWNER_TAG: &str = "mtls-operator.io/owner";
/// Tag on a domain beside the ownership tag: the domain existed before, and was taken over.
pub const ADOPTED_TAG: &str = "mtls-operator.io/adopted";
/// Tag on a certificate beside the ownership tag: the token of the request that ACM answered with it.
pub const REQUEST_TAG: &str = "mtls-operator.io/request";
/// Metadata key of the ownership tag on truststore objects. S3 keeps metadata keys in lower case and without
/// `/`.
pub const OWNER_METADATA: &str = "owner";
/// Metadata key on truststore objects: the KMS key that the spec named when the object was stored.
pub const KMS_KEY_METADATA: &str = "kms-key";
/// Tag on an API between a change and the deployment, or touched stage, that makes the change effective.
pub const PENDING_TAG: &str = "mtls-operator.io/pending-deployment";
/// Value of [`PENDING_TAG`] once a REST API is deployed and until its endpoint is seen refusing callers, so
/// that the operator deploys only once while that takes effect. Until then the value is the ownership tag.
pub const DEPLOYED: &str = "deployed";
