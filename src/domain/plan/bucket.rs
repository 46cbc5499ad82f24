//! The bucket that the truststore goes into: found as it must be, or made where the spec says so. Never changed when somebody else made it.

use super::{Action, Judged, Verdict};
use crate::{
    api::conditions::Reason,
    domain::{
        desired::Desired,
        observed::{Observed, Unseen},
    },
};

/// What keeps the bucket from taking a truststore, and what we do about that.
pub(super) fn bucket(d: &Desired, o: &Observed) -> Result<(), Judged> {
    let (bucket, account) = (&d.home.bucket, &d.home.account);
    let blocked = |reason, message| Err(Verdict::Blocked(reason, message).into());
    match &o.bucket {
        // S3 says no more than "no", also of a bucket that another account has.
        Err(why) if why.reason == Reason::PermissionDenied => {
            let message = format!(
                "bucket {bucket}: {}; or name another bucket, if this one is not account {account}'s",
                why.message
            );
            Err(Verdict::Unknown(Unseen { message, ..why.clone() }).into())
        }
        Err(why) => Err(Verdict::unknown(why).into()),
        Ok(None) if d.create_bucket => Err(Judged::act(
            format!("creating the bucket {bucket}"),
            vec![Action::CreateBucket { bucket: bucket.clone() }],
        )),
        Ok(None) => blocked(
            Reason::BucketNotFound,
            format!(
                "there is no bucket {bucket} in account {account}; create it with versioning, set spec.truststore.bucketCreation to \
                 IfMissing, or name another in spec.truststore.bucket"
            ),
        ),
        Ok(Some(found)) if found.region != d.home.region => blocked(
            Reason::BucketInOtherRegion,
            format!(
                "bucket {bucket} is in {}; name one in {}, the domain's Region, in spec.truststore.bucket",
                found.region, d.home.region
            ),
        ),
        Ok(Some(found)) if found.versioned => Ok(()),
        // It is one that the operator made, and not finished. Versioning comes last: with it nobody looks at the rest again.
        Ok(Some(found)) if found.owner.as_ref().is_some_and(|owner| d.home.is_of_this_cluster(owner)) => {
            let (bucket, kms_key) = (bucket.clone(), d.kms_key.clone());
            Err(Judged::act(
                format!("setting up the bucket {bucket}"),
                vec![
                    Action::BlockPublicAccess { bucket: bucket.clone() },
                    Action::EncryptBucket { bucket: bucket.clone(), kms_key },
                    Action::EnableVersioning { bucket },
                ],
            ))
        }
        Ok(Some(_)) => blocked(
            Reason::BucketNotVersioned,
            format!(
                "bucket {bucket} has no versioning, so no version of the truststore can be pinned; turn versioning on"
            ),
        ),
    }
}
