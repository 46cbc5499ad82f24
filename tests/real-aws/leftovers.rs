//! Leftovers of this run and of others in the account, by the prefix of their names, and their removal. The
//! order is that of dependence: a domain before its certificate. The suite repeats a removal that AWS refuses
//! until AWS accepts it.
use aws_sdk_acm::types::{Filters, KeyAlgorithm};
use aws_sdk_route53::types::{Change, ChangeAction, ChangeBatch, ResourceRecordSet};

use crate::account::{ALL_RUNS, Account};

#[derive(Clone, Debug, PartialEq)]
pub enum Leftover {
    Domain(String),
    RestApi(String),
    HttpApi(String),
    Record(Box<ResourceRecordSet>),
    Certificate(String),
    Bucket(String),
}

/// Leftovers, in the order in which they can be removed.
pub async fn find(account: &Account) -> Vec<Leftover> {
    let is_ours = |name: Option<&str>| name.is_some_and(|name| name.starts_with(ALL_RUNS));
    let mut all = vec![];
    let gateway = aws_sdk_apigatewayv2::Client::new(&account.sdk);
    let mut token = None;
    loop {
        let page = gateway
            .get_domain_names()
            .set_next_token(token)
            .send()
            .await
            .expect("GetDomainNames");
        all.extend(
            page.items()
                .iter()
                .filter_map(|d| d.domain_name())
                .filter(|n| is_ours(Some(n)))
                .map(|n| Leftover::Domain(n.into())),
        );
        token = page.next_token.filter(|t| !t.is_empty());
        if token.is_none() {
            break;
        }
    }
    let mut token = None;
    loop {
        let page = gateway
            .get_apis()
            .set_next_token(token)
            .send()
            .await
            .expect("GetApis");
        let ours = page.items().iter().filter(|api| is_ours(api.name()));
        all.extend(ours.filter_map(|api| Some(Leftover::HttpApi(api.api_id()?.into()))));
        token = page.next_token.filter(|t| !t.is_empty());
        if token.is_none() {
            break;
        }
    }
    let rest = aws_sdk_apigateway::Client::new(&account.sdk);
    let mut pages = rest.get_rest_apis().into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page.expect("GetRestApis");
        let ours = page.items().iter().filter(|api| is_ours(api.name()));
        all.extend(ours.filter_map(|api| Some(Leftover::RestApi(api.id()?.into()))));
    }
    all.extend(
        records(account)
            .await
            .into_iter()
            .map(|record| Leftover::Record(Box::new(record))),
    );
    let acm = aws_sdk_acm::Client::new(&account.sdk);
    let kinds = [
        KeyAlgorithm::EcPrime256v1,
        KeyAlgorithm::EcSecp384r1,
        KeyAlgorithm::Rsa2048,
    ];
    let includes = Filters::builder().set_key_types(Some(kinds.to_vec())).build();
    let mut pages = acm.list_certificates().includes(includes).into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page.expect("ListCertificates");
        let ours = page
            .certificate_summary_list()
            .iter()
            .filter(|c| is_ours(c.domain_name()));
        all.extend(ours.filter_map(|c| Some(Leftover::Certificate(c.certificate_arn()?.into()))));
    }
    let buckets = aws_sdk_s3::Client::new(&account.sdk)
        .list_buckets()
        .send()
        .await
        .expect("ListBuckets")
        .buckets;
    let ours = buckets
        .into_iter()
        .flatten()
        .filter_map(|b| b.name)
        .filter(|name| is_ours(Some(name)));
    all.extend(ours.map(Leftover::Bucket));
    all
}

/// Records of the zone whose name has a part with the prefix of the runs.
async fn records(account: &Account) -> Vec<ResourceRecordSet> {
    let route53 = aws_sdk_route53::Client::new(&account.sdk);
    let (mut found, mut name, mut kind) = (vec![], None, None);
    loop {
        let request = route53
            .list_resource_record_sets()
            .hosted_zone_id(&account.zone_id);
        let request = request.set_start_record_name(name).set_start_record_type(kind);
        let page = request.send().await.expect("ListResourceRecordSets");
        let is_ours = |r: &ResourceRecordSet| r.name.split('.').any(|part| part.starts_with(ALL_RUNS));
        found.extend(page.resource_record_sets.into_iter().filter(is_ours));
        if !page.is_truncated {
            return found;
        }
        (name, kind) = (page.next_record_name, page.next_record_type);
    }
}

pub async fn remove(account: &Account) {
    for one in find(account).await {
        println!("removing {one:?}");
        account
            .eventually(&format!("the end of {one:?}"), async || {
                remove_one(account, &one).await
            })
            .await;
    }
}

/// Removes one leftover. AWS refuses for a while: it allows one DeleteDomainName and one DeleteRestApi in
/// 30 s, and a certificate is in use for up to an hour after its domain.
async fn remove_one(account: &Account, one: &Leftover) -> Result<(), String> {
    let gateway = aws_sdk_apigatewayv2::Client::new(&account.sdk);
    match one {
        Leftover::Domain(name) => done(gateway.delete_domain_name().domain_name(name).send().await),
        Leftover::HttpApi(id) => done(gateway.delete_api().api_id(id).send().await),
        Leftover::RestApi(id) => done(
            aws_sdk_apigateway::Client::new(&account.sdk)
                .delete_rest_api()
                .rest_api_id(id)
                .send()
                .await,
        ),
        Leftover::Record(record) => {
            let change = Change::builder()
                .action(ChangeAction::Delete)
                .resource_record_set(*record.clone());
            let batch = ChangeBatch::builder()
                .changes(change.build().expect("complete"))
                .build()
                .expect("complete");
            let request = aws_sdk_route53::Client::new(&account.sdk).change_resource_record_sets();
            done(
                request
                    .hosted_zone_id(&account.zone_id)
                    .change_batch(batch)
                    .send()
                    .await,
            )
        }
        Leftover::Certificate(arn) => done(
            aws_sdk_acm::Client::new(&account.sdk)
                .delete_certificate()
                .certificate_arn(arn)
                .send()
                .await,
        ),
        Leftover::Bucket(name) => bucket(account, name).await,
    }
}

/// Deletes a bucket with all versions of all its objects.
async fn bucket(account: &Account, name: &str) -> Result<(), String> {
    let s3 = aws_sdk_s3::Client::new(&account.sdk);
    let all = s3
        .list_object_versions()
        .bucket(name)
        .send()
        .await
        .map_err(|e| format!("{e:?}"))?;
    let versions = all.versions().iter().map(|v| (v.key(), v.version_id()));
    let marks = all.delete_markers().iter().map(|m| (m.key(), m.version_id()));
    for (key, version) in versions.chain(marks) {
        let request = s3.delete_object().bucket(name).key(key.unwrap_or_default());
        done(request.set_version_id(version.map(str::to_owned)).send().await)?;
    }
    done(s3.delete_bucket().bucket(name).send().await)
}

fn done<T, E: std::fmt::Debug>(result: Result<T, E>) -> Result<(), String> {
    result.map(|_| ()).map_err(|error| format!("{error:?}"))
}
