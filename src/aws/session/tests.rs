//! Tests of `session`.

use super::*;

use crate::aws::{errors::ASSUME_ROLE, fake};

#[test]
fn the_host_of_an_api_is_in_the_region_of_the_session() {
    let session = fake::answering(vec![]);
    for (region, host) in [
        ("eu-west-1", "a1.execute-api.eu-west-1.amazonaws.com"),
        ("cn-north-1", "a1.execute-api.cn-north-1.amazonaws.com.cn"),
        ("us-gov-west-1", "a1.execute-api.us-gov-west-1.amazonaws.com"),
        ("eusc-de-east-1", "a1.execute-api.eusc-de-east-1.amazonaws.eu"),
    ] {
        assert_eq!(session.in_region(region).execute_api_host("a1"), host);
    }
}

#[tokio::test]
async fn a_role_for_route_53_is_assumed_for_route_53_alone() {
    let sessions = Sessions::of(fake::answering(vec![]));
    let role = RoleToAssume {
        arn: "arn:aws:iam::999999999999:role/r".into(),
        external_id: None,
    };
    let plain = sessions.get(&Access::default()).await.unwrap();
    assert_eq!(
        (plain.account.as_str(), plain.region.as_str()),
        (fake::ACCOUNT, fake::REGION)
    );
    let there = sessions
        .get(&Access {
            region: Some("us-east-1".into()),
            ..Access::default()
        })
        .await
        .unwrap();
    assert_eq!(there.region, "us-east-1");
    let zone = sessions
        .get(&Access {
            route53_role: Some(role.clone()),
            ..Access::default()
        })
        .await
        .unwrap();
    assert_eq!(zone.account, fake::ACCOUNT, "whatever STS says of the role");
    let refused = zone.route53.zones().await.unwrap_err();
    assert_eq!(refused.operation, ASSUME_ROLE);
    assert!(zone.acm.listed().await.is_err_and(|e| e.operation != ASSUME_ROLE));
    assert!(
        sessions
            .get(&Access {
                role: Some(role),
                ..Access::default()
            })
            .await
            .is_err(),
        "a refusal is not kept"
    );
}
