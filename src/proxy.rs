//! HTTP proxies that the environment names (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`), and the calls that
//! never use one. Probes (`probe`) use no proxy: they see a domain as its callers do.

use std::fmt;

use aws_smithy_http_client::{
    Connector,
    proxy::{ProxyConfig, ProxyError},
    tls::{Provider, TlsContext, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::{
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
        SharedHttpConnector,
    },
    orchestrator::HttpRequest,
    runtime_components::RuntimeComponents,
};
use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use kube::config::{Config, InferConfigError};

/// Destinations that are always called directly: the instance metadata, the credentials of ECS and of EKS Pod
/// Identity, and this machine. Behind a proxy these addresses belong to another machine, with other
/// credentials or none.
const NEVER: [&str; 7] = [
    "169.254.169.254",
    "169.254.170.2",
    "169.254.170.23",
    "fd00:ec2::/32",
    "127.0.0.0/8",
    "::1",
    "localhost",
];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    // The message leaves out the value, which may hold a password.
    #[error("{0} is not the address of a proxy: write http://HOST:PORT or https://HOST:PORT")]
    Address(&'static str),
    #[error("no Kubernetes configuration")]
    Kubernetes(#[from] InferConfigError),
}

/// Returns an entry of `NO_PROXY` without its port: the operator calls a host at one port only, and the
/// matcher knows no ports.
fn without_port(entry: &str) -> &str {
    if let Some((address, _)) = entry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    let is_port = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match entry.split_once(':') {
        Some((host, port)) if is_port(port) => host,
        _ => entry,
    }
}

/// Proxies by the scheme of the call. Its Debug output has no passwords.
#[derive(Clone, Default)]
pub struct Proxies {
    https: Option<Uri>,
    http: Option<Uri>,
    /// Destinations without a proxy: `NO_PROXY` and [`NEVER`].
    direct: String,
}

impl Proxies {
    /// Reads the proxies from this process's environment: each variable in upper case, else in lower case.
    ///
    /// # Errors
    /// Returns [`Error::Address`] for a variable that is not the address of a proxy.
    pub fn from_env() -> Result<Proxies, Error> {
        Proxies::read(|name| std::env::var(name).ok())
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Proxies, Error> {
        let value = |name: &str| {
            let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
            set(name).or_else(|| set(&name.to_ascii_lowercase()))
        };
        let proxy = |name: &'static str| {
            value(name)
                .map(|v| address(&v).ok_or(Error::Address(name)))
                .transpose()
        };
        let theirs = value("NO_PROXY").unwrap_or_default();
        let theirs = theirs
            .split([',', ' '])
            .filter(|entry| !entry.is_empty())
            .map(without_port);
        // Many users write "*.example.com" for ".example.com".
        let theirs = theirs.map(|entry| {
            entry
                .strip_prefix('*')
                .filter(|rest| rest.starts_with('.'))
                .unwrap_or(entry)
        });
        let direct = theirs.chain(NEVER).collect::<Vec<_>>().join(",");
        Ok(Proxies {
            https: proxy("HTTPS_PROXY")?,
            http: proxy("HTTP_PROXY")?,
            direct,
        })
    }

    /// HOST:PORT of the proxy that HTTPS calls go through.
    pub fn shown(&self) -> Option<String> {
        self.https.as_ref().map(host_and_port)
    }

    /// HTTP client for the AWS SDK: one TLS stack, and these proxies.
    pub fn http_client(&self, tls: TlsContext) -> SharedHttpClient {
        let with = |proxy: Result<ProxyConfig, ProxyError>| {
            let proxy = proxy
                .expect("its scheme and host have been checked")
                .no_proxy(&self.direct);
            client(proxy, tls.clone())
        };
        match (self.https.clone(), self.http.clone()) {
            (None, None) => client(ProxyConfig::disabled(), tls),
            (Some(https), None) => with(ProxyConfig::https(https)),
            (None, Some(http)) => with(ProxyConfig::http(http)),
            (Some(https), Some(http)) if https == http => with(ProxyConfig::all(https)),
            // The SDK's configuration takes one proxy.
            (Some(https), Some(http)) => SharedHttpClient::new(ByScheme {
                https: with(ProxyConfig::https(https)),
                http: with(ProxyConfig::http(http)),
            }),
        }
    }

    /// Returns the configuration of the Kubernetes client: from the kubeconfig, with the proxy that kubectl
    /// would choose, else from the Pod, without a proxy.
    ///
    /// # Errors
    /// Returns [`Error::Kubernetes`] when there is no configuration.
    pub async fn kubernetes_config(&self) -> Result<Config, Error> {
        let mut config = Config::infer().await?;
        config.proxy_url = config
            .proxy_url
            .take()
            .and_then(|found| self.to_api_server(&config.cluster_url, found));
        Ok(config)
    }

    /// Returns the proxy between a kubeconfig's `server` and this process. `found`: kube's choice, from the
    /// kubeconfig's `proxy-url` or the environment. kube matches `NO_PROXY` against the address of the proxy,
    /// not of the server.
    fn to_api_server(&self, server: &Uri, found: Uri) -> Option<Uri> {
        match &self.https {
            Some(environment) if environment.authority() == found.authority() => {
                let matcher = Matcher::builder()
                    .https(environment.to_string())
                    .no(self.direct.clone())
                    .build();
                matcher.intercept(server).map(|_| environment.clone())
            }
            _ => Some(found),
        }
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (https, http) = (self.shown(), self.http.as_ref().map(host_and_port));
        f.debug_struct("Proxies")
            .field("https", &https)
            .field("http", &http)
            .field("direct", &self.direct)
            .finish()
    }
}

/// Parses the address of a proxy. The default scheme is http, as in curl.
fn address(text: &str) -> Option<Uri> {
    let text = text.trim();
    let text = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let uri: Uri = text.parse().ok()?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    (is_http && uri.host().is_some_and(|host| !host.is_empty())).then_some(uri)
}

fn host_and_port(uri: &Uri) -> String {
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") {
        443
    } else {
        80
    });
    format!("{}:{port}", uri.host().unwrap_or_default())
}

fn client(proxy: ProxyConfig, tls: TlsContext) -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder().proxy_config(proxy.clone());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        connector
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(tls.clone())
            .build()
    })
}

/// Two clients, or two connectors: each for the calls of one scheme.
#[derive(Debug)]
struct ByScheme<T> {
    https: T,
    http: T,
}

impl HttpClient for ByScheme<SharedHttpClient> {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let [https, http] =
            [&self.https, &self.http].map(|client| client.http_connector(settings, components));
        SharedHttpConnector::new(ByScheme { https, http })
    }
}

impl HttpConnector for ByScheme<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        if request.uri().starts_with("https:") {
            self.https.call(request)
        } else {
            self.http.call(request)
        }
    }
}

#[cfg(test)]
mod tests;
