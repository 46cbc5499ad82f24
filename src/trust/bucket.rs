//! Bucket of the truststore: an existing bucket, or a bucket that the operator creates where the spec says
//! so, and whose settings it then restores. The operator never changes a bucket that it did not create.

use crate::{
    api::conditions::Reason,
    aws::{
        action::S3Action,
        s3::{AWS_MANAGED_KEY, Encryption},
        tags,
    },
    model::{
        desired::Desired,
        observed::{Made, Observed},
        step::{Actions, StepPlan, StepState},
    },
    observation::seen::{self, Unseen},
};

/// Returns the corrections for a usable bucket; or the step plan for a bucket that cannot hold a truststore.
pub(crate) fn bucket(d: &Desired, o: &Observed) -> Result<Vec<S3Action>, StepPlan> {
    let (bucket, account) = (&d.truststore.bucket, &d.placement.account);
    let blocked = |reason, message| Err(StepState::Blocked(reason, message).into());
    match &o.bucket {
        // S3 returns the same error for a missing permission and for a bucket of another account.
        Err(why) if why.reason == Reason::PermissionDenied => {
            let another = format!("; or name another bucket, if this one is not account {account}'s");
            let message = format!("bucket {bucket}: {}", seen::with_remedy(&why.message, &another));
            Err(StepState::Unknown(Unseen {
                message,
                ..why.clone()
            })
            .into())
        }
        Err(why) => Err(StepState::unknown(why).into()),
        Ok(None) if d.create_bucket => Err(StepPlan::in_progress(
            format!("creating the bucket {bucket}"),
            S3Action::CreateBucket {
                bucket: bucket.clone(),
            },
        )),
        Ok(None) => blocked(
            Reason::BucketNotFound,
            format!(
                "there is no bucket {bucket} in account {account}; create it with versioning, set \
                 spec.truststore.bucketCreation to IfMissing, or name another in spec.truststore.bucket"
            ),
        ),
        Ok(Some(found)) if found.region != d.placement.region => blocked(
            Reason::BucketInOtherRegion,
            format!(
                "bucket {bucket} is in {}; name one in {}, the domain's Region, in spec.truststore.bucket",
                found.region, d.placement.region
            ),
        ),
        Ok(Some(found)) => match &found.made {
            Some(made) if found.versioned => Ok(settings(d, made, true)),
            // The setup is not finished, or another writer has suspended versioning. Versioning comes last,
            // so that the operator stores nothing before the other settings.
            Some(made) => Err(StepPlan::in_progress(
                format!("setting up the bucket {bucket}"),
                Actions::from(S3Action::EnableVersioning {
                    bucket: bucket.clone(),
                })
                .after(settings(d, made, false)),
            )),
            None if found.versioned => Ok(vec![]),
            None => blocked(
                Reason::BucketNotVersioned,
                format!(
                    "bucket {bucket} has no versioning, so no version of the truststore can be pinned; turn \
                     versioning on"
                ),
            ),
        },
    }
}

/// Returns the missing settings, except versioning, of a bucket that the operator created.
fn settings(d: &Desired, made: &Made, versioned: bool) -> Vec<S3Action> {
    let bucket = || d.truststore.bucket.clone();
    // Other MtlsDomains store in the bucket too, each with the key of its own spec. The default key is the
    // key of the MtlsDomain that the bucket was created for.
    let is_for_us = made.owner == d.placement.owner || !versioned;
    let managed = (d.encryption == Some(Encryption::SseKms)).then(|| AWS_MANAGED_KEY.to_owned());
    let kms_key = d.kms_key.clone().or(managed);
    let encrypts = is_for_us && kms_key.is_some() && made.kms_key != kms_key;
    let private = (!made.private).then(|| S3Action::BlockPublicAccess { bucket: bucket() });
    let encrypted = encrypts.then(|| S3Action::EncryptBucket {
        bucket: bucket(),
        kms_key,
    });
    // A bucket in use by several MtlsDomains has the tags of the one that it was created for.
    let missing = tags::missing(&d.placement.tags, &made.tags);
    let tagged = (is_for_us && !missing.is_empty()).then(|| S3Action::TagBucket {
        bucket: bucket(),
        tags: missing,
    });
    [private, encrypted, tagged].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::BTreeMap;

    use crate::{
        controllers::mtls_domain::simulation::world::{desired, empty},
        model::{
            action::Action,
            desired::Desired,
            observed::{Bucket, Made},
            step::StepPlan,
        },
    };

    #[test]
    fn an_owned_bucket_is_corrected_and_no_other_bucket_is_changed() {
        let (ours, neighbour) = (desired().placement.owner, "cluster/ns/neighbour");
        let (one, two) = (Some("arn:one"), Some("arn:two"));
        for (owner, versioned, private, kms_key, wanted, expected) in [
            (Some(&*ours), true, true, None, None, &[][..]),
            (Some(&*ours), true, true, one, one, &[]),
            (Some(&*ours), true, false, None, None, &["block public access"]),
            (Some(&*ours), true, true, None, one, &["encrypt"]),
            (Some(&*ours), true, true, two, one, &["encrypt"]),
            // S3's own key is the minimum.
            (Some(&*ours), true, true, one, None, &[]),
            (Some(&*ours), false, true, None, None, &["enable versioning"]),
            (
                Some(&*ours),
                false,
                false,
                None,
                one,
                &["block public access", "encrypt", "enable versioning"],
            ),
            // Another MtlsDomain of this cluster, which may be deleted, owns the bucket: its default key
            // stays.
            (Some(neighbour), true, false, two, one, &["block public access"]),
            (Some(neighbour), true, true, None, one, &[]),
            (
                Some(neighbour),
                false,
                true,
                None,
                one,
                &["encrypt", "enable versioning"],
            ),
            (None, true, false, None, one, &[]),
            (None, false, false, None, one, &[]),
        ] {
            let text = |t: Option<&str>| t.map(str::to_owned);
            let made = owner.map(|owner| Made {
                owner: owner.to_owned(),
                tags: BTreeMap::new(),
                private,
                kms_key: text(kms_key),
            });
            let mut o = empty().observed();
            o.bucket = Ok(Some(Bucket {
                region: "eu-west-1".into(),
                versioned,
                made: made.clone(),
            }));
            let d = Desired {
                create_bucket: true,
                kms_key: text(wanted),
                ..desired()
            };
            let corrections = |all: Vec<S3Action>| all.into_iter().map(Action::from).collect();
            let actions = bucket(&d, &o).map_or_else(StepPlan::into_actions, corrections);
            let done: Vec<_> = actions.iter().map(ToString::to_string).collect();
            assert_eq!(
                done.len(),
                expected.len(),
                "{made:?} versioned: {versioned}: {done:?}"
            );
            assert!(
                done.iter()
                    .zip(expected)
                    .all(|(done, expected)| done.starts_with(expected)),
                "{made:?}: {done:?}"
            );
        }
    }
}
