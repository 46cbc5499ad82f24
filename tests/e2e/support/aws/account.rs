//! Resources in the AWS account of an environment, as AWS lists them.
use aws_config::{SdkConfig, retry::RetryConfig};
use aws_sdk_acm::types::{Filters, KeyAlgorithm};
use aws_sdk_apigatewayv2::operation::get_domain_name::GetDomainNameOutput;
use aws_sdk_route53::types::{Change, ChangeAction, ChangeBatch, ResourceRecordSet, RrType};

use crate::support::test_env::TestEnv;

impl TestEnv {
    /// Configuration of the test's own clients. Their calls are repeated, unlike those of the sandbox: the
    /// emulator closes a connection that was idle for 75 seconds, and a call may be on its way by then.
    fn sdk(&self) -> SdkConfig {
        let sdk = self.account.sdk().into_builder();
        sdk.retry_config(RetryConfig::standard()).build()
    }

    pub fn gateway(&self) -> aws_sdk_apigatewayv2::Client {
        aws_sdk_apigatewayv2::Client::new(&self.sdk())
    }

    pub fn route53(&self) -> aws_sdk_route53::Client {
        aws_sdk_route53::Client::new(&self.sdk())
    }

    pub fn acm(&self) -> aws_sdk_acm::Client {
        aws_sdk_acm::Client::new(&self.sdk())
    }

    pub fn s3(&self) -> aws_sdk_s3::Client {
        aws_sdk_s3::Client::new(&self.sdk())
    }

    /// Custom domain with the name of [`TestEnv::host`].
    pub async fn gateway_domain(&self) -> GetDomainNameOutput {
        self.gateway()
            .get_domain_name()
            .domain_name(self.host())
            .send()
            .await
            .expect("the custom domain")
    }

    /// Names of all custom domains of the account.
    pub async fn gateway_domains(&self) -> Vec<String> {
        let all = self
            .gateway()
            .get_domain_names()
            .send()
            .await
            .expect("GetDomainNames");
        all.items()
            .iter()
            .filter_map(|d| d.domain_name().map(str::to_owned))
            .collect()
    }

    /// Mappings of the custom domain, sorted: path, API, stage.
    pub async fn mapped(&self) -> Vec<(String, String, String)> {
        let all = self
            .gateway()
            .get_api_mappings()
            .domain_name(self.host())
            .send()
            .await
            .expect("GetApiMappings");
        let text = |t: Option<&str>| t.unwrap_or_default().trim_start_matches("(none)").to_owned();
        let mut mapped: Vec<_> = all
            .items()
            .iter()
            .map(|m| (text(m.api_mapping_key()), text(m.api_id()), text(m.stage())))
            .collect();
        mapped.sort();
        mapped
    }

    pub async fn mapping_id(&self, path: &str) -> String {
        let all = self
            .gateway()
            .get_api_mappings()
            .domain_name(self.host())
            .send()
            .await
            .expect("GetApiMappings");
        let found = all
            .items()
            .iter()
            .find(|m| m.api_mapping_key().unwrap_or_default() == path);
        found
            .and_then(|m| m.api_mapping_id())
            .expect("the mapping is there")
            .to_owned()
    }

    /// True when the default endpoint of the prepared API is closed.
    pub async fn endpoint_closed(&self) -> bool {
        let api = self
            .gateway()
            .get_api()
            .api_id(&self.prepared.api_id)
            .send()
            .await
            .expect("GetApi");
        api.disable_execute_api_endpoint().unwrap_or_default()
    }

    /// Record sets of the zone but its own NS and SOA.
    pub async fn records(&self) -> Vec<ResourceRecordSet> {
        let request = self
            .route53()
            .list_resource_record_sets()
            .hosted_zone_id(&self.prepared.zone_id);
        let all = request
            .send()
            .await
            .expect("ListResourceRecordSets")
            .resource_record_sets;
        all.into_iter()
            .filter(|r| !matches!(r.r#type, RrType::Ns | RrType::Soa))
            .collect()
    }

    /// Record of that type at [`TestEnv::host`].
    pub async fn record(&self, kind: RrType) -> Option<ResourceRecordSet> {
        let name = format!("{}.", self.host());
        self.records()
            .await
            .into_iter()
            .find(|r| r.name == name && r.r#type == kind)
    }

    pub async fn change_record(&self, action: ChangeAction, record: ResourceRecordSet) {
        let change = Change::builder()
            .action(action)
            .resource_record_set(record)
            .build()
            .expect("a change");
        let batch = ChangeBatch::builder().changes(change).build().expect("a batch");
        let request = self
            .route53()
            .change_resource_record_sets()
            .hosted_zone_id(&self.prepared.zone_id);
        request
            .change_batch(batch)
            .send()
            .await
            .expect("the record can be changed");
    }

    /// ARNs of all certificates of the account, sorted.
    pub async fn server_certificates(&self) -> Vec<String> {
        let kinds = [
            KeyAlgorithm::EcPrime256v1,
            KeyAlgorithm::EcSecp384r1,
            KeyAlgorithm::Rsa2048,
            KeyAlgorithm::Rsa4096,
        ];
        let includes = Filters::builder().set_key_types(Some(kinds.to_vec())).build();
        let all = self
            .acm()
            .list_certificates()
            .includes(includes)
            .into_paginator()
            .items()
            .send();
        let all = all
            .collect::<Result<Vec<_>, _>>()
            .await
            .expect("ListCertificates");
        let mut arns: Vec<_> = all.into_iter().filter_map(|c| c.certificate_arn).collect();
        arns.sort();
        arns
    }

    /// Versions of all objects in the bucket, newest first; delete markers do not count.
    pub async fn object_versions(&self) -> Vec<String> {
        let all = self
            .s3()
            .list_object_versions()
            .bucket(&self.prepared.bucket)
            .send()
            .await;
        let all = all.expect("ListObjectVersions");
        all.versions()
            .iter()
            .filter_map(|v| v.version_id().map(str::to_owned))
            .collect()
    }
}
