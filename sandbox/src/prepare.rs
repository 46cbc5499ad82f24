//! AWS resources that a user of the operator already has: a hosted zone, a versioned bucket, a working API.

use std::error::Error as StdError;
use std::io::{self, Cursor, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_apigateway::operation::put_integration::builders::PutIntegrationFluentBuilder;
use aws_sdk_apigateway::types::{
    EndpointConfiguration, EndpointType, IntegrationType as RestIntegrationType,
};
use aws_sdk_apigatewayv2::operation::create_integration::builders::CreateIntegrationFluentBuilder;
use aws_sdk_apigatewayv2::types::{IntegrationType, ProtocolType};
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{FunctionCode, Runtime};
use aws_sdk_s3::types::{
    BucketLocationConstraint, BucketVersioningStatus, CreateBucketConfiguration, VersioningConfiguration,
};
use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

use crate::aws::Account;

/// Source of the function behind the API, in Python.
const FUNCTION: &str = include_str!("../aws/functions/hello.py");
const FUNCTION_NAME: &str = "hello";

/// Failure to create a resource.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0} failed")]
    Call(&'static str, #[source] Box<dyn StdError + Send + Sync>),
    #[error("{0} answered without {1}")]
    Answer(&'static str, &'static str),
    #[error("cannot pack the function")]
    Pack(#[from] zip::result::ZipError),
    #[error("cannot pack the function")]
    Write(#[from] io::Error),
}

/// Resources to create.
#[derive(Clone, Debug)]
pub struct Preparation {
    /// Name of the public hosted zone, without the final dot.
    pub zone: String,
    /// Name of the bucket; S3 has one set of bucket names for all accounts.
    pub bucket: String,
    /// Id of the API, for manifests that are written beforehand; unset for an id that AWS chooses.
    pub api_id: Option<String>,
}

impl Preparation {
    /// Returns names derived from the account, so that tests that share an emulator do not meet.
    #[must_use]
    pub fn of_its_own(account: &Account) -> Self {
        let id = &account.id;
        Self {
            zone: format!("z{id}.example.com"),
            bucket: format!("truststores-{id}"),
            api_id: None,
        }
    }
}

/// Created resources.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Zone id without `/hostedzone/`.
    pub zone_id: String,
    pub zone: String,
    pub bucket: String,
    pub api_id: String,
    /// Host of the API's default endpoint, which answers.
    pub execute_api_host: String,
}

/// Creates the resources, in the account's Region.
///
/// # Errors
/// Any [`Error`], also when a resource exists already.
pub async fn prepare(account: &Account, what: &Preparation) -> Result<Prepared, Error> {
    let zone_id = hosted_zone(account, &what.zone).await?;
    versioned_bucket(account, &what.bucket).await?;
    let api_id = http_api(account, "hello", what.api_id.as_deref()).await?;
    let execute_api_host = format!("{api_id}.execute-api.{}.amazonaws.com", account.region);
    Ok(Prepared {
        zone_id,
        zone: what.zone.clone(),
        bucket: what.bucket.clone(),
        api_id,
        execute_api_host,
    })
}

/// Creates a public hosted zone; returns its id.
///
/// # Errors
/// Any [`Error`].
pub async fn hosted_zone(account: &Account, name: &str) -> Result<String, Error> {
    let once = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_nanos());
    let call = "CreateHostedZone";
    let route53 = aws_sdk_route53::Client::new(&account.sdk());
    let request = route53
        .create_hosted_zone()
        .name(name)
        .caller_reference(once.to_string());
    let zone = request
        .send()
        .await
        .map_err(failed(call))?
        .hosted_zone
        .ok_or(Error::Answer(call, "a zone"))?;
    Ok(zone.id.trim_start_matches("/hostedzone/").to_owned())
}

/// Creates a bucket with versioning.
///
/// # Errors
/// Any [`Error`].
pub async fn versioned_bucket(account: &Account, name: &str) -> Result<(), Error> {
    let s3 = aws_sdk_s3::Client::new(&account.sdk());
    let mut request = s3.create_bucket().bucket(name);
    // us-east-1 is the default location of a bucket, and S3 rejects its name.
    if account.region != "us-east-1" {
        let place = BucketLocationConstraint::from(account.region.as_str());
        request = request.create_bucket_configuration(
            CreateBucketConfiguration::builder()
                .location_constraint(place)
                .build(),
        );
    }
    request.send().await.map_err(failed("CreateBucket"))?;
    let enabled = VersioningConfiguration::builder()
        .status(BucketVersioningStatus::Enabled)
        .build();
    let request = s3
        .put_bucket_versioning()
        .bucket(name)
        .versioning_configuration(enabled);
    request.send().await.map_err(failed("PutBucketVersioning"))?;
    Ok(())
}

/// Creates an HTTP API whose every route leads to the "Hello World!" function, served by the stage
/// `$default`; returns its id.
///
/// # Errors
/// Any [`Error`].
pub async fn http_api(account: &Account, name: &str, id: Option<&str>) -> Result<String, Error> {
    let function = function(account).await?;
    let gateway = aws_sdk_apigatewayv2::Client::new(&account.sdk());
    let api_id = new_http_api(&gateway, name, id).await?;
    let request = gateway
        .create_integration()
        .api_id(&api_id)
        .integration_type(IntegrationType::AwsProxy)
        .integration_uri(function)
        .payload_format_version("2.0");
    route(&gateway, &api_id, "$default", request).await?;
    stage(&gateway, &api_id, true).await?;
    Ok(api_id)
}

/// Creates an HTTP API whose every route leads to the HTTP server at `backend` (`http://...`), served by the
/// stage `$default`; returns its id. Unless the stage deploys automatically, the API is deployed once.
///
/// # Errors
/// Any [`Error`].
pub async fn http_proxy_api(
    account: &Account,
    name: &str,
    backend: &str,
    auto_deploy: bool,
) -> Result<String, Error> {
    let gateway = aws_sdk_apigatewayv2::Client::new(&account.sdk());
    let api_id = new_http_api(&gateway, name, None).await?;
    add_http_route(account, &api_id, "$default", backend).await?;
    stage(&gateway, &api_id, auto_deploy).await?;
    if !auto_deploy {
        let request = gateway.create_deployment().api_id(&api_id).stage_name("$default");
        request.send().await.map_err(failed("CreateDeployment"))?;
    }
    Ok(api_id)
}

/// Adds a route to an HTTP API, with an integration of its own to the HTTP server at `backend`; returns the
/// id of the integration.
///
/// # Errors
/// Any [`Error`].
pub async fn add_http_route(
    account: &Account,
    api_id: &str,
    key: &str,
    backend: &str,
) -> Result<String, Error> {
    let gateway = aws_sdk_apigatewayv2::Client::new(&account.sdk());
    let request = gateway
        .create_integration()
        .api_id(api_id)
        .integration_type(IntegrationType::HttpProxy)
        .integration_method("ANY")
        .integration_uri(backend)
        .payload_format_version("1.0");
    route(&gateway, api_id, key, request).await
}

async fn new_http_api(
    gateway: &aws_sdk_apigatewayv2::Client,
    name: &str,
    id: Option<&str>,
) -> Result<String, Error> {
    let call = "CreateApi";
    let mut request = gateway.create_api().name(name).protocol_type(ProtocolType::Http);
    if let Some(id) = id {
        request = request.tags("awsdouble:id", id);
    }
    request
        .send()
        .await
        .map_err(failed(call))?
        .api_id
        .ok_or(Error::Answer(call, "an id"))
}

/// Creates the integration, and a route that leads to it; returns the id of the integration.
async fn route(
    gateway: &aws_sdk_apigatewayv2::Client,
    api_id: &str,
    key: &str,
    integration: CreateIntegrationFluentBuilder,
) -> Result<String, Error> {
    let call = "CreateIntegration";
    let made = integration.send().await.map_err(failed(call))?;
    let integration = made.integration_id.ok_or(Error::Answer(call, "an id"))?;
    let target = format!("integrations/{integration}");
    let request = gateway
        .create_route()
        .api_id(api_id)
        .route_key(key)
        .target(target);
    request.send().await.map_err(failed("CreateRoute"))?;
    Ok(integration)
}

async fn stage(gateway: &aws_sdk_apigatewayv2::Client, api_id: &str, auto_deploy: bool) -> Result<(), Error> {
    let request = gateway
        .create_stage()
        .api_id(api_id)
        .stage_name("$default")
        .auto_deploy(auto_deploy);
    request.send().await.map_err(failed("CreateStage"))?;
    Ok(())
}

/// Creates a REST API with one proxy resource, `/{proxy+}`, for the "Hello World!" function, deployed to the
/// stage `prod`; returns its id.
///
/// # Errors
/// Any [`Error`].
pub async fn rest_api(account: &Account, name: &str, id: Option<&str>) -> Result<String, Error> {
    let function = function(account).await?;
    let api = new_rest_api(account, name, id).await?;
    let resource = api.resource("{proxy+}").await?;
    api.method(&resource, "ANY").await?;
    let region = &account.region;
    let uri = format!("arn:aws:apigateway:{region}:lambda:path/2015-03-31/functions/{function}/invocations");
    let request = api.integration(&resource, "ANY", RestIntegrationType::AwsProxy);
    let request = request.integration_http_method("POST").uri(uri);
    request.send().await.map_err(failed("PutIntegration"))?;
    deploy_rest(account, &api.id).await?;
    Ok(api.id)
}

/// Creates a REST API with one proxy resource, `/{proxy+}`, for the HTTP server at `backend` (`http://...`),
/// deployed to the stage `prod`; returns its id.
///
/// # Errors
/// Any [`Error`].
pub async fn rest_proxy_api(account: &Account, name: &str, backend: &str) -> Result<String, Error> {
    let api = new_rest_api(account, name, None).await?;
    let resource = api.resource("{proxy+}").await?;
    let request = api
        .gateway
        .put_method()
        .rest_api_id(&api.id)
        .resource_id(&resource)
        .http_method("ANY");
    let request = request
        .authorization_type("NONE")
        .request_parameters("method.request.path.proxy", true);
    request.send().await.map_err(failed("PutMethod"))?;
    let request = api.integration(&resource, "ANY", RestIntegrationType::HttpProxy);
    let request = request
        .integration_http_method("ANY")
        .uri(format!("{backend}/{{proxy}}"))
        .request_parameters("integration.request.path.proxy", "method.request.path.proxy");
    request.send().await.map_err(failed("PutIntegration"))?;
    deploy_rest(account, &api.id).await?;
    Ok(api.id)
}

/// Creates a REST API with the resource `/orders`, deployed to the stage `prod`; returns its id. GET passes
/// everything on to the HTTP server at `backend`, POST only the mapped parameters, and API Gateway answers
/// OPTIONS itself, as for CORS.
///
/// # Errors
/// Any [`Error`].
pub async fn rest_orders_api(account: &Account, name: &str, backend: &str) -> Result<String, Error> {
    let api = new_rest_api(account, name, None).await?;
    api.orders(&api.resource("orders").await?, backend).await?;
    deploy_rest(account, &api.id).await?;
    Ok(api.id)
}

/// Adds a resource to a REST API, at its root, with the methods of `/orders` in [`rest_orders_api`]; returns
/// its id. Not deployed.
///
/// # Errors
/// Any [`Error`].
pub async fn add_rest_resource(
    account: &Account,
    api_id: &str,
    part: &str,
    backend: &str,
) -> Result<String, Error> {
    let gateway = aws_sdk_apigateway::Client::new(&account.sdk());
    let call = "GetResources";
    let found = gateway
        .get_resources()
        .rest_api_id(api_id)
        .send()
        .await
        .map_err(failed(call))?;
    let root = found
        .items
        .into_iter()
        .flatten()
        .find(|item| item.path.as_deref() == Some("/"));
    let root = root
        .and_then(|item| item.id)
        .ok_or(Error::Answer(call, "a root"))?;
    let api = RestApi {
        gateway,
        id: api_id.to_owned(),
        root,
    };
    let resource = api.resource(part).await?;
    api.orders(&resource, backend).await?;
    Ok(resource)
}

/// Deploys a REST API to the stage `prod`.
///
/// # Errors
/// Any [`Error`].
pub async fn deploy_rest(account: &Account, api_id: &str) -> Result<(), Error> {
    let gateway = aws_sdk_apigateway::Client::new(&account.sdk());
    let request = gateway.create_deployment().rest_api_id(api_id).stage_name("prod");
    request.send().await.map_err(failed("CreateDeployment"))?;
    Ok(())
}

struct RestApi {
    gateway: aws_sdk_apigateway::Client,
    id: String,
    root: String,
}

async fn new_rest_api(account: &Account, name: &str, id: Option<&str>) -> Result<RestApi, Error> {
    let gateway = aws_sdk_apigateway::Client::new(&account.sdk());
    let call = "CreateRestApi";
    let regional = EndpointConfiguration::builder()
        .types(EndpointType::Regional)
        .build();
    let mut request = gateway
        .create_rest_api()
        .name(name)
        .endpoint_configuration(regional);
    if let Some(id) = id {
        request = request.tags("awsdouble:id", id);
    }
    let made = request.send().await.map_err(failed(call))?;
    let id = made.id.ok_or(Error::Answer(call, "an id"))?;
    let root = made.root_resource_id.ok_or(Error::Answer(call, "a root"))?;
    Ok(RestApi { gateway, id, root })
}

impl RestApi {
    /// Creates a resource at the root; returns its id.
    async fn resource(&self, part: &str) -> Result<String, Error> {
        let call = "CreateResource";
        let request = self
            .gateway
            .create_resource()
            .rest_api_id(&self.id)
            .parent_id(&self.root)
            .path_part(part);
        request
            .send()
            .await
            .map_err(failed(call))?
            .id
            .ok_or(Error::Answer(call, "an id"))
    }

    async fn method(&self, resource: &str, method: &str) -> Result<(), Error> {
        let request = self
            .gateway
            .put_method()
            .rest_api_id(&self.id)
            .resource_id(resource)
            .http_method(method);
        request
            .authorization_type("NONE")
            .send()
            .await
            .map_err(failed("PutMethod"))?;
        Ok(())
    }

    fn integration(
        &self,
        resource: &str,
        method: &str,
        kind: RestIntegrationType,
    ) -> PutIntegrationFluentBuilder {
        self.gateway
            .put_integration()
            .rest_api_id(&self.id)
            .resource_id(resource)
            .http_method(method)
            .r#type(kind)
    }

    /// Creates the methods of `/orders` in [`rest_orders_api`].
    async fn orders(&self, resource: &str, backend: &str) -> Result<(), Error> {
        let methods = [
            ("GET", RestIntegrationType::HttpProxy),
            ("POST", RestIntegrationType::Http),
            ("OPTIONS", RestIntegrationType::Mock),
        ];
        for (method, kind) in methods {
            self.method(resource, method).await?;
            let mut request = self.integration(resource, method, kind.clone());
            request = match kind {
                RestIntegrationType::Mock => {
                    request.request_templates("application/json", r#"{"statusCode": 200}"#)
                }
                _ => request
                    .integration_http_method(method)
                    .uri(format!("{backend}/orders")),
            };
            request.send().await.map_err(failed("PutIntegration"))?;
            if kind == RestIntegrationType::HttpProxy {
                continue; // its answers are passed back unchanged
            }
            let request = self
                .gateway
                .put_method_response()
                .rest_api_id(&self.id)
                .resource_id(resource);
            let request = request.http_method(method).status_code("200");
            request.send().await.map_err(failed("PutMethodResponse"))?;
            let request = self
                .gateway
                .put_integration_response()
                .rest_api_id(&self.id)
                .resource_id(resource);
            let request = request.http_method(method).status_code("200");
            request.send().await.map_err(failed("PutIntegrationResponse"))?;
        }
        Ok(())
    }
}

/// Creates the Lambda authorizer of `examples/authorizer`, without a permission for any caller; returns its
/// ARN. The emulator has to run Node.js.
///
/// # Errors
/// Any [`Error`].
pub async fn authorizer_function(account: &Account, name: &str) -> Result<String, Error> {
    const AUTHORIZER: &str = include_str!("../../examples/authorizer/index.mjs");
    let code = packed("index.mjs", AUTHORIZER)?;
    function_of(account, name, Runtime::Nodejs22x, "index.handler", code).await
}

/// Returns the ARN of the function "Hello World!", and creates it when it does not exist.
async fn function(account: &Account) -> Result<String, Error> {
    function_of(
        account,
        FUNCTION_NAME,
        Runtime::Python312,
        "hello.lambda_handler",
        packed("hello.py", FUNCTION)?,
    )
    .await
}

async fn function_of(
    account: &Account,
    name: &str,
    runtime: Runtime,
    handler: &str,
    code: Vec<u8>,
) -> Result<String, Error> {
    let lambda = aws_sdk_lambda::Client::new(&account.sdk());
    match lambda
        .get_function_configuration()
        .function_name(name)
        .send()
        .await
    {
        Ok(found) => {
            return found
                .function_arn
                .ok_or(Error::Answer("GetFunctionConfiguration", "an ARN"));
        }
        Err(error)
            if error
                .as_service_error()
                .is_some_and(|e| e.is_resource_not_found_exception()) => {}
        Err(error) => return Err(failed("GetFunctionConfiguration")(error)),
    }
    let call = "CreateFunction";
    let request = lambda
        .create_function()
        .function_name(name)
        .runtime(runtime)
        .role(format!("arn:aws:iam::{}:role/hello", account.id))
        .handler(handler)
        .code(FunctionCode::builder().zip_file(Blob::new(code)).build());
    request
        .send()
        .await
        .map_err(failed(call))?
        .function_arn
        .ok_or(Error::Answer(call, "an ARN"))
}

fn packed(file: &str, text: &str) -> Result<Vec<u8>, Error> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    archive.start_file(
        file,
        SimpleFileOptions::default().compression_method(CompressionMethod::Stored),
    )?;
    archive.write_all(text.as_bytes())?;
    Ok(archive.finish()?.into_inner())
}

fn failed<E: StdError + Send + Sync + 'static>(call: &'static str) -> impl FnOnce(E) -> Error {
    move |source| Error::Call(call, Box::new(source))
}
