//! Recording of the world, with the operator of this very build: every example and walk-through, and shapes
//! that stricter rules will question. Everything is valid for decades, so that nothing falls due while the
//! record is in use.
use std::{path::Path, time::Duration};

use aws_sdk_acm::types::{CertificateStatus, KeyAlgorithm, ValidationMethod};
use aws_sdk_apigatewayv2::types::{
    DomainNameConfiguration, EndpointType, MutualTlsAuthenticationInput, SecurityPolicy,
};
use aws_sdk_route53::types::{
    AliasTarget, Change, ChangeAction, ChangeBatch, ResourceRecord, ResourceRecordSet, RrType,
};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams},
};
use sandbox::{
    aws::Account,
    control::{Calls, CertificateState},
    prepare::{
        authorizer_function, hosted_zone, http_api, http_proxy_api, rest_api, rest_proxy_api,
        versioned_bucket,
    },
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    fixture::Recorded,
    stage::{ACCOUNT, BUCKET, Caller, Identity, Stage, eventually, full_name, of_kind},
};

/// Validity of authorities and of leaves, in hours and for openssl: long, and before 2050 for leaves.
const AUTHORITY_LIFE: &str = "350400h";
const LEAF_LIFE: &str = "175200h";
const AUTHORITY_DAYS: &str = "14600";
const LEAF_DAYS: &str = "7300";
/// End of the validity of ACM's certificates: 2100-01-01.
const NOT_AFTER: f64 = 4_102_444_800.0;
/// Time without a write after which the world is at rest: the operator delays some reports by two minutes.
const REST: Duration = Duration::from_secs(150);

const ZONE: &str = "example.com";
const REGISTRARS_ZONE: &str = "registrar.example";

/// Extensions of an intermediate CA and of a leaf, as in most openssl recipes.
const CA: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid";
const LEAF: &str = "basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\nkeyUsage=digitalSignature";

/// Namespaces of the record.
pub const NAMESPACES: [&str; 31] = [
    "client-certificates",
    "client-grant",
    "client-grant-acme",
    "cross-signed",
    "distrusted",
    "eku",
    "existing-truststore",
    "extra-in-ca-crt",
    "former-authority",
    "gitops",
    "gitops-acme",
    "identity-authorizer",
    "identity-rest-api",
    "issuing-secret",
    "key-usage",
    "observed",
    "options",
    "pasted",
    "path-length",
    "private-ca",
    "quickstart",
    "renewed",
    "rest-api",
    "selector",
    "self-signed",
    "self-signed-granted",
    "self-signed-granted-tenant",
    "self-signed-openssl-req",
    "suspended",
    "two-generated",
    "unlisted-mapping",
];

/// Makes the world, records it and takes it down. The CRDs are installed.
pub async fn record(stage: &Stage) -> Recorded {
    let namespaces = NAMESPACES.map(str::to_owned).to_vec();
    for namespace in &namespaces {
        stage
            .world
            .kubernetes
            .namespace(namespace)
            .await
            .expect("a namespace");
    }
    let zone_id = hosted_zone(&stage.account, ZONE).await.expect("a zone");
    let registrars_zone_id = hosted_zone(&stage.registrar, REGISTRARS_ZONE)
        .await
        .expect("a zone");
    versioned_bucket(&stage.account, BUCKET).await.expect("a bucket");
    stage.grant(&namespaces).await;
    let mut operator = stage.operator(&namespaces).await;
    operator.restart().expect("the operator starts");

    let maker = Maker {
        stage,
        zone_id,
        registrars_zone_id,
    };
    let mut callers = maker.everything().await;
    maker.prolong_server_certificates(&namespaces).await;
    maker.place("suspended").suspend().await;
    // The next process may not know all that the last process knew and wrote by.
    operator.stop().await.expect("the operator stops");
    operator.restart().expect("the operator starts");
    maker.until_at_rest(&namespaces).await;
    // The edge decides whom it accepts, and not this test.
    for caller in &mut callers {
        let seen = stage
            .call(&caller.host, &caller.path, Some(&caller.identity))
            .await;
        assert!(
            caller.status == 0 || caller.status == seen,
            "{}: {seen}",
            caller.name
        );
        caller.status = seen;
        println!("recorded caller {} {seen}", caller.name);
    }
    operator.stop().await.expect("the operator stops");
    callers.sort_by(|a, b| a.name.cmp(&b.name));
    let objects = stage
        .objects(&namespaces)
        .await
        .into_iter()
        .map(without_version)
        .collect();
    Recorded {
        objects,
        aws: stage.dump().await,
        callers,
    }
}

/// Removes the resourceVersion, which belongs to the API server that the object comes from.
fn without_version(mut object: Value) -> Value {
    object["metadata"]
        .as_object_mut()
        .expect("metadata")
        .remove("resourceVersion");
    object
}

struct Maker<'s> {
    stage: &'s Stage,
    zone_id: String,
    registrars_zone_id: String,
}

/// Content of one namespace.
struct Place<'m> {
    maker: &'m Maker<'m>,
    namespace: &'m str,
    host: String,
    dir: TempDir,
}

impl Maker<'_> {
    fn place<'m>(&'m self, namespace: &'m str) -> Place<'m> {
        let dir = tempfile::tempdir().expect("a folder");
        Place {
            maker: self,
            namespace,
            host: format!("{namespace}.{ZONE}"),
            dir,
        }
    }

    /// Callers of the whole world.
    async fn everything(&self) -> Vec<Caller> {
        let mut callers = vec![];
        callers.extend(self.examples().await);
        callers.extend(self.walkthroughs().await);
        callers.extend(self.tenants().await);
        callers.extend(self.questionable().await);
        callers.extend(self.sources().await);
        callers.extend(self.states().await);
        callers
    }

    /// Examples that start from nothing.
    async fn examples(&self) -> Vec<Caller> {
        let mut callers = vec![];
        let place = self.place("quickstart");
        place.apply("quickstart.yaml", &[]).await;
        place.ready().await;
        callers.push(place.caller_of("client1-mtls", "/").await);

        let place = self.place("rest-api");
        rest_api(&self.stage.account, "rest", Some(&place.api_id()))
            .await
            .expect("an API");
        place.apply_only("rest-api.yaml", &[]).await;
        place.ready().await;
        callers.push(place.caller_of("client1-mtls", "/hello").await);

        let place = self.place("identity-rest-api");
        let url = self.stage.echo.url();
        let api = rest_proxy_api(&self.stage.account, "orders", &url)
            .await
            .expect("an API");
        place
            .apply_only("identity-rest-api.yaml", &[("a1b2c3d4e5", &api)])
            .await;
        place.ready().await;
        callers.push(place.caller_of("client1-mtls", "/hello").await);

        let place = self.place("identity-authorizer");
        let api = http_proxy_api(&self.stage.account, "orders", &url, true)
            .await
            .expect("an API");
        authorizer_function(&self.stage.account, "identity")
            .await
            .expect("a function");
        place
            .apply_only("identity-authorizer.yaml", &[("a1b2c3d4e5", &api)])
            .await;
        place.ready().await;
        callers.push(place.caller_of("client1-mtls", "/hello").await);

        let place = self.place("client-certificates");
        place
            .secret("acme-keystore", &[("password", "of-the-keystore")])
            .await;
        let request = "openssl req -new -newkey rsa:2048 -nodes -keyout globex.key -out globex.csr -subj \
                       /O=Globex/CN=globex";
        place.shell(request).await;
        let body = pasted(&place.read("globex.csr"), "    ");
        place
            .apply(
                "client-certificates.yaml",
                &[("<-- the lines of globex.csr", &body)],
            )
            .await;
        place.ready().await;
        callers.push(place.caller_of("acme", "/").await);
        callers.push(place.caller_of("initech", "/").await);
        let certificate = place.secret_text("globex", "tls.crt").await;
        callers.push(place.caller(
            "globex",
            Identity {
                certificate,
                key: place.read("globex.key"),
            },
        ));
        callers
    }

    /// Walk-throughs that start from existing resources, by the commands that a reader types.
    async fn walkthroughs(&self) -> Vec<Caller> {
        let mut callers = vec![];
        for (namespace, commands) in [
            (
                "self-signed",
                &[
                    "openssl req -newkey rsa:2048 -nodes -keyout client.key -out client.csr \
                     -subj /CN=client1",
                    "openssl x509 -signkey client.key -in client.csr -req -days 7300 -out client.crt",
                ][..],
            ),
            (
                "self-signed-openssl-req",
                &[
                    "openssl req -x509 -newkey rsa:2048 -nodes -keyout client.key -out client.crt -subj \
                     /CN=client1 -days 7300",
                ][..],
            ),
        ] {
            let place = Place {
                host: format!("{namespace}.{REGISTRARS_ZONE}"),
                ..self.place(namespace)
            };
            for command in commands {
                place.shell(command).await;
            }
            let body = pasted(&place.read("client.crt"), "          ");
            place
                .apply(
                    "self-signed-external-dns.yaml",
                    &[("<-- the lines of client.crt", &body)],
                )
                .await;
            place.create_listed_records().await;
            place.ready().await;
            callers.push(place.caller("client", place.identity("client.crt", "client.key")));
        }

        for namespace in ["private-ca", "observed", "unlisted-mapping"] {
            let place = self.place(namespace);
            for command in [
                "openssl req -x509 -newkey rsa:2048 -nodes -keyout RootCA.key -out RootCA.pem -subj \
                 '/CN=Example Root CA' -days 14600",
                "openssl req -newkey rsa:2048 -nodes -keyout client.key -out client.csr -subj /CN=client1",
                "printf 'basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth' > client.ext",
                "openssl x509 -req -in client.csr -CA RootCA.pem -CAkey RootCA.key -CAcreateserial -days \
                 7300 -extfile client.ext \
                 -out client.pem",
            ] {
                place.shell(command).await;
            }
            place
                .secret("root-ca", &[("ca.crt", &place.read("RootCA.pem"))])
                .await;
            place.serving(None).await;
            if namespace == "unlisted-mapping" {
                place.map("kept").await;
            }
            let observe = "adoptionPolicy: Unowned\n  managementPolicy: Observe\n #";
            let others = [("adoptionPolicy: Unowned #", observe)];
            place
                .apply(
                    "takeover-private-ca.yaml",
                    if namespace == "observed" { &others } else { &[] },
                )
                .await;
            if namespace == "observed" {
                continue;
            }
            place.ready().await;
            callers.push(place.caller("client", place.identity("client.pem", "client.key")));
        }

        let place = self.place("existing-truststore");
        for (ca, client) in [("RootCA", "old"), ("NewRootCA", "new")] {
            place.authority(ca, &format!("/CN={ca}"), "").await;
            place.issued(client, "/CN=client1", ca, LEAF, LEAF_DAYS).await;
        }
        let s3 = aws_sdk_s3::Client::new(&self.stage.account.sdk());
        versioned_bucket(&self.stage.account, "example-truststores")
            .await
            .expect("a bucket");
        let put = s3
            .put_object()
            .bucket("example-truststores")
            .key("truststore.pem");
        let put = put
            .body(place.read("RootCA.crt").into_bytes().into())
            .send()
            .await
            .expect("PutObject");
        let version = put.version_id.expect("a version");
        for (secret, file) in [("old-ca", "RootCA.crt"), ("new-ca", "NewRootCA.crt")] {
            place.secret(secret, &[("ca.crt", &place.read(file))]).await;
        }
        place
            .serving(Some(("s3://example-truststores/truststore.pem", &version)))
            .await;
        place.apply("takeover-existing-truststore.yaml", &[]).await;
        place.ready().await;
        callers.extend(["old", "new"].map(|name| place.leaf(name)));
        callers
    }

    /// Certificates of other namespaces.
    async fn tenants(&self) -> Vec<Caller> {
        let mut callers = vec![];
        let (platform, partner) = (self.place("gitops"), self.place("gitops-acme"));
        platform.apply("gitops/platform/domain.yaml", &[]).await;
        platform
            .apply_only("gitops/platform/acme.yaml", &[("[acme]", "[gitops-acme]")])
            .await;
        partner
            .apply_only(
                "gitops/partner/client-certificate.yaml",
                &[("namespace: payments", "namespace: gitops")],
            )
            .await;
        platform.ready().await;
        partner.ready().await;
        callers.push(Caller {
            host: platform.host.clone(),
            ..partner.caller_of("acme-orders", "/").await
        });

        let (platform, partner) = (self.place("client-grant"), self.place("client-grant-acme"));
        platform.apply("quickstart.yaml", &[]).await;
        platform
            .apply_only("client-grant.yaml", &[("[acme]", "[client-grant-acme]")])
            .await;
        let spec = json!({
            "domainRef": {"name": "partners", "namespace": "client-grant"},
            "subject": {"commonName": "acme-orders", "organizations": ["Acme"]}, "uris": ["spiffe://example.com/acme/orders"],
        });
        partner.create("ClientCertificate", "orders", spec).await;
        platform.ready().await;
        partner.ready().await;
        callers.push(Caller {
            host: platform.host.clone(),
            ..partner.caller_of("orders", "/").await
        });

        let (platform, partner) = (
            self.place("self-signed-granted"),
            self.place("self-signed-granted-tenant"),
        );
        platform
            .domain(json!([{"name": "partners", "generate": {}}]), json!({}))
            .await;
        let grant = json!({
            "domainRef": {"name": "partners"}, "issuance": "SelfSigned", "commonNames": ["tenant-*"],
            "namespaces": {"names": ["self-signed-granted-tenant"]},
        });
        platform.create("ClientGrant", "tenant", grant).await;
        let spec = json!({
            "domainRef": {"name": "partners", "namespace": "self-signed-granted"},
            "issuance": "SelfSigned", "subject": {"commonName": "tenant-orders"},
        });
        partner.create("ClientCertificate", "orders", spec).await;
        platform.ready().await;
        partner.ready().await;
        callers.push(Caller {
            host: platform.host.clone(),
            ..partner.caller_of("orders", "/").await
        });
        callers
    }

    /// Trust that exists now and that stricter rules may question, each with its callers.
    async fn questionable(&self) -> Vec<Caller> {
        let mut callers = vec![];
        // An issuing CA whose ca.crt holds more than its chain.
        let place = self.place("extra-in-ca-crt");
        place.authority("root", "/CN=Root", "").await;
        place.issued("int", "/CN=Int", "root", CA, AUTHORITY_DAYS).await;
        place.authority("other", "/CN=Another Root", "").await;
        place
            .issued("stranger", "/CN=stranger", "other", LEAF, LEAF_DAYS)
            .await;
        place.issued("caller", "/CN=caller", "int", LEAF, LEAF_DAYS).await;
        let bundle = place.read("root.crt") + &place.read("other.crt");
        let int = [
            ("tls.crt", &*place.read("int.crt")),
            ("tls.key", &place.read("int.key")),
            ("ca.crt", &bundle),
        ];
        place.secret("own", &int).await;
        place
            .domain(json!([{"name": "own", "secretRef": {"name": "own"}}]), json!({}))
            .await;
        place.certificate("client1", json!({})).await;
        place.ready().await;
        callers.extend(["stranger", "caller"].map(|name| place.leaf(name)));
        callers.push(place.caller_of("client1", "/").await);

        // The file that a CA hands out after a cross-signing: issuing CA, new root, the new root signed by
        // the old one, the old root.
        let place = self.place("cross-signed");
        place.authority("old", "/CN=Old Root", "").await;
        place.authority("new", "/CN=New Root", "").await;
        place.write("cross.ext", CA);
        place
            .shell("openssl req -new -key new.key -out new.csr -subj '/CN=New Root'")
            .await;
        let cross = "openssl x509 -req -in new.csr -CA old.crt -CAkey old.key -set_serial 77 -days 18000 \
                     -extfile cross.ext -out cross.crt";
        place.shell(cross).await;
        place
            .issued("issuing", "/CN=Issuing", "new", CA, AUTHORITY_DAYS)
            .await;
        place
            .issued("caller", "/CN=caller", "issuing", LEAF, LEAF_DAYS)
            .await;
        let file = ["issuing.crt", "cross.crt", "new.crt", "old.crt"]
            .map(|file| place.read(file))
            .concat();
        place.config_map("acme-ca", json!({}), &file).await;
        place
            .domain(
                json!([{"name": "acme", "configMapRef": {"name": "acme-ca"}}]),
                json!({}),
            )
            .await;
        place.ready().await;
        callers.push(place.leaf("caller"));

        // Authorities whose own extensions say that no client can be trusted through them.
        for (namespace, root, extensions) in [
            (
                "path-length",
                "basicConstraints=critical,CA:TRUE,pathlen:0\nsubjectKeyIdentifier=hash",
                CA.to_owned(),
            ),
            ("eku", "", format!("{CA}\nextendedKeyUsage=serverAuth")),
            (
                "key-usage",
                "",
                CA.replace("keyCertSign,cRLSign", "digitalSignature"),
            ),
        ] {
            let place = self.place(namespace);
            place.authority("root", "/CN=Root", root).await;
            place
                .issued("int", "/CN=Int", "root", &extensions, AUTHORITY_DAYS)
                .await;
            place.issued("caller", "/CN=caller", "int", LEAF, LEAF_DAYS).await;
            place
                .secret(
                    "acme",
                    &[("ca.crt", &(place.read("int.crt") + &place.read("root.crt")))],
                )
                .await;
            place
                .domain(
                    json!([{"name": "acme", "secretRef": {"name": "acme"}}]),
                    json!({}),
                )
                .await;
            place.ready().await;
            callers.push(Caller {
                status: 0,
                ..place.leaf("caller")
            });
        }

        // Two CAs; an entry distrusts one of them.
        let place = self.place("distrusted");
        for name in ["compromised", "fine"] {
            place.authority(name, &format!("/CN={name}"), "").await;
        }
        place
            .issued("thief", "/CN=thief", "compromised", LEAF, LEAF_DAYS)
            .await;
        place
            .issued("caller", "/CN=caller", "fine", LEAF, LEAF_DAYS)
            .await;
        let both = place.read("compromised.crt") + &place.read("fine.crt");
        place.config_map("trusted", json!({}), &both).await;
        place
            .config_map("revoked", json!({}), &place.read("compromised.crt"))
            .await;
        let mut authorities = json!([
            {"name": "partners", "generate": {}},
            {"name": "all", "configMapRef": {"name": "trusted"}},
        ]);
        place.domain(authorities.clone(), json!({})).await;
        place.certificate("client1", json!({})).await;
        place.ready().await;
        let out = json!({"name": "out", "state": "Distrusted", "configMapRef": {"name": "revoked"}});
        authorities.as_array_mut().expect("a list").push(out);
        place.domain(authorities, json!({})).await;
        place.ready().await;
        callers.push(Caller {
            status: 403,
            ..place.leaf("thief")
        });
        callers.push(place.leaf("caller"));
        callers.push(place.caller_of("client1", "/").await);
        callers
    }

    /// Sources of authorities that no example has.
    async fn sources(&self) -> Vec<Caller> {
        let mut callers = vec![];
        let place = self.place("issuing-secret");
        place.authority("root", "/O=Acme/CN=Root", "").await;
        place
            .issued("int", "/O=Acme/CN=Issuing", "root", CA, AUTHORITY_DAYS)
            .await;
        let int = ["int.crt", "int.key", "root.crt"].map(|file| place.read(file));
        place
            .secret(
                "own",
                &[("tls.crt", &int[0]), ("tls.key", &int[1]), ("ca.crt", &int[2])],
            )
            .await;
        place
            .domain(json!([{"name": "own", "secretRef": {"name": "own"}}]), json!({}))
            .await;
        place
            .certificate(
                "client1",
                json!({"dnsNames": ["client1.acme.example"], "emailAddresses": ["a@acme.example"]}),
            )
            .await;
        place.ready().await;
        callers.push(place.caller_of("client1", "/").await);

        let place = self.place("pasted");
        for name in ["first", "second", "third"] {
            place.authority(name, &format!("/CN={name}"), "").await;
            place
                .issued(&format!("of-{name}"), "/CN=caller", name, LEAF, LEAF_DAYS)
                .await;
        }
        let pem = format!(
            "Bag Attributes\n  friendlyName: first\n{}\n\n{}",
            place.read("first.crt"),
            place.read("second.crt")
        );
        place
            .config_map("third", json!({}), &place.read("third.crt").replace('\n', "\r\n"))
            .await;
        let authorities =
            json!([{"name": "pasted", "pem": pem}, {"name": "third", "configMapRef": {"name": "third"}}]);
        place.domain(authorities, json!({})).await;
        place.ready().await;
        callers.extend(["of-first", "of-second", "of-third"].map(|name| place.leaf(name)));

        let place = self.place("selector");
        for name in ["acme", "zeta"] {
            place.authority(name, &format!("/CN={name}"), "").await;
            place
                .issued(&format!("of-{name}"), "/CN=caller", name, LEAF, LEAF_DAYS)
                .await;
        }
        let labels = json!({"trusted": "yes"});
        place
            .config_map("acme.example", labels.clone(), &place.read("acme.crt"))
            .await;
        place
            .config_map("zeta", labels, &(expired_authority() + &place.read("zeta.crt")))
            .await;
        place
            .config_map("unlabelled", json!({}), &place.read("acme.crt"))
            .await;
        let authorities = json!([
            {"name": "partners", "generate": {}},
            {"name": "partner-cas", "configMapSelector": {"matchLabels": {"trusted": "yes"}}},
        ]);
        place.domain(authorities, json!({})).await;
        place.certificate("client1", json!({})).await;
        place.ready().await;
        callers.extend(["of-acme", "of-zeta"].map(|name| place.leaf(name)));
        callers.push(place.caller_of("client1", "/").await);
        callers
    }

    /// Objects in the middle or at the end of a transition.
    async fn states(&self) -> Vec<Caller> {
        let mut callers = vec![];
        // The second authority has taken over, and a certificate of the first one is still in use.
        let place = self.place("two-generated");
        let generated =
            |name: &str| json!({"name": name, "generate": {"commonName": format!("Partners {name}")}});
        place.domain(json!([generated("first")]), json!({})).await;
        place.certificate("client1", json!({})).await;
        place.ready().await;
        callers.push(Caller {
            name: "two-generated/client1 before".into(),
            ..place.caller_of("client1", "/").await
        });
        let trust = json!({"trust": {"issuingAuthority": "second"}});
        place
            .domain(json!([generated("first"), generated("second")]), trust)
            .await;
        place.until_revision("client1", 2).await;
        place.ready().await;
        callers.push(place.caller_of("client1", "/").await);

        // The same, and the first one has left the list.
        let place = self.place("former-authority");
        place.authority("own", "/CN=Former", "").await;
        let own = ["own.crt", "own.key"].map(|file| place.read(file));
        place
            .secret("own", &[("tls.crt", &own[0]), ("tls.key", &own[1])])
            .await;
        let former = json!({"name": "former", "secretRef": {"name": "own"}});
        place.domain(json!([former]), json!({})).await;
        place.certificate("client1", json!({})).await;
        place.ready().await;
        callers.push(Caller {
            name: "former-authority/client1 before".into(),
            ..place.caller_of("client1", "/").await
        });
        let trust = json!({"trust": {"issuingAuthority": "next"}});
        place
            .domain(json!([former, generated("next")]), trust.clone())
            .await;
        place.until_revision("client1", 2).await;
        place.domain(json!([generated("next")]), trust).await;
        place.ready().await;
        callers.push(place.caller_of("client1", "/").await);

        // Renewed certificates, each with a predecessor that is still accepted.
        let place = self.place("renewed");
        let overlap = json!({"trust": {"overlap": LEAF_LIFE}});
        place
            .domain(json!([{"name": "partners", "generate": {}}]), overlap)
            .await;
        place.certificate("client1", json!({})).await;
        place
            .certificate("itself", json!({"issuance": "SelfSigned"}))
            .await;
        place.ready().await;
        for name in ["client1", "itself"] {
            callers.push(Caller {
                name: format!("renewed/{name} before"),
                ..place.caller_of(name, "/").await
            });
            let patch = json!({"metadata": {"annotations": {"mtls-operator.io/renew": "once"}}});
            let api = place.api("mtls-operator.io/v1alpha1", "ClientCertificate");
            api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
                .await
                .expect("an annotation");
            place.until_revision(name, 2).await;
        }
        place.ready().await;
        for name in ["client1", "itself"] {
            callers.push(place.caller_of(name, "/").await);
        }

        let place = self.place("suspended");
        place.authority("acme", "/CN=Acme", "").await;
        place
            .issued("caller", "/CN=caller", "acme", LEAF, LEAF_DAYS)
            .await;
        place.config_map("acme", json!({}), &place.read("acme.crt")).await;
        place
            .domain(
                json!([{"name": "acme", "configMapRef": {"name": "acme"}}]),
                json!({}),
            )
            .await;
        place.ready().await;
        callers.push(place.leaf("caller"));

        // Options that all differ from their defaults.
        let place = self.place("options");
        let other = http_api(&self.stage.account, "other", Some("optionsother"))
            .await
            .expect("an API");
        let more = json!({
            "serverCertificate": {
                "request": {
                    "keyAlgorithm": "EC_secp384r1", "subjectAlternativeNames": ["alt.options.example.com"],
                },
            },
            "truststore": {
                "bucket": "made-for-options", "key": "of/options.pem", "bucketCreation": "IfMissing",
            },
            "mappings": [
                {"path": "", "api": {"id": place.api_id(), "stage": "$default"}},
                {"path": "orders/v2", "api": {"id": other, "stage": "$default"}},
            ],
            "defaultEndpoint": "Keep", "ipAddressType": "DualStack", "deletionPolicy": "Retain",
            "clients": {"maxDuration": LEAF_LIFE}, "aws": {"region": "eu-west-1", "accountId": ACCOUNT},
            "dns": {"route53": {"hostedZoneId": self.zone_id}},
        });
        let authorities = json!([{
            "name": "partners",
            "generate": {"organizations": ["Acme"], "privateKey": {"algorithm": "RSA", "size": 2048}},
        }]);
        place.domain(authorities, more).await;
        place
            .certificate(
                "client1",
                json!({"privateKey": {"algorithm": "ECDSA", "size": 384, "encoding": "PKCS1"}}),
            )
            .await;
        place.ready().await;
        callers.push(place.caller_of("client1", "/orders/v2/1").await);
        callers
    }

    /// Prolongs the server certificates: they are valid for half a year, and a record is used for longer.
    /// Waits until every status says so.
    async fn prolong_server_certificates(&self, namespaces: &[String]) {
        let kinds = [
            KeyAlgorithm::EcPrime256v1,
            KeyAlgorithm::EcSecp384r1,
            KeyAlgorithm::Rsa2048,
        ];
        let includes = aws_sdk_acm::types::Filters::builder()
            .set_key_types(Some(kinds.to_vec()))
            .build();
        let acm = aws_sdk_acm::Client::new(&self.stage.account.sdk());
        let all = acm
            .list_certificates()
            .includes(includes)
            .into_paginator()
            .items()
            .send();
        for certificate in all
            .collect::<Result<Vec<_>, _>>()
            .await
            .expect("ListCertificates")
        {
            let arn = certificate.certificate_arn().expect("an ARN");
            let state = CertificateState {
                arn,
                not_after: Some(NOT_AFTER),
                ..CertificateState::default()
            };
            assert_eq!(
                self.stage
                    .control()
                    .set_certificate(&state)
                    .await
                    .expect("the certificate is changed"),
                1
            );
        }
        eventually("every server certificate is valid for long", async || {
            let objects = self.stage.objects(namespaces).await;
            let short = of_kind(&objects, "MtlsDomain").find(|domain| {
                let until = domain
                    .pointer("/status/certificate/notAfter")
                    .and_then(Value::as_str);
                until.is_some_and(|until| !until.starts_with("2100"))
            });
            short.map_or(Ok(()), |domain| Err(full_name(domain)))
        })
        .await;
    }

    /// Waits until nothing has been written for a while.
    async fn until_at_rest(&self, namespaces: &[String]) {
        loop {
            let (mark, before) = (self.stage.last_call().await, self.stage.objects(namespaces).await);
            tokio::time::sleep(REST).await;
            let writes = Calls {
                account: ACCOUNT,
                since: mark,
                writes: true,
                ..Calls::default()
            };
            let writes = self
                .stage
                .control()
                .calls(&writes)
                .await
                .expect("the journal")
                .calls;
            if writes.is_empty() && self.stage.objects(namespaces).await == before {
                return;
            }
        }
    }
}

/// Makes everything valid for decades, so that nothing falls due.
fn for_decades(mut object: Value) -> Value {
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    let Some(spec) = object.get_mut("spec") else {
        return object;
    };
    match kind.as_str() {
        "ClientCertificate" => spec["duration"] = LEAF_LIFE.into(),
        "ClientGrant" if !spec["maxDuration"].is_null() => spec["maxDuration"] = LEAF_LIFE.into(),
        "MtlsDomain" => {
            for authority in spec["trust"]["authorities"].as_array_mut().into_iter().flatten() {
                if authority["generate"].is_object() {
                    authority["generate"]["duration"] = AUTHORITY_LIFE.into();
                }
            }
            for pointer in ["/trust/overlap", "/clients/maxDuration"] {
                if let Some(duration) = spec.pointer_mut(pointer) {
                    *duration = LEAF_LIFE.into();
                }
            }
        }
        _ => {}
    }
    object
}

/// Lines between BEGIN and END, as a user pastes them in the place of a hint with this indentation.
fn pasted(pem: &str, blanks: &str) -> String {
    let lines: Vec<_> = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    lines.join(&format!("\n{blanks}"))
}

fn expired_authority() -> String {
    let mut params = rcgen::CertificateParams::new(vec![]).expect("no names");
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "Long Gone");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    (params.not_before, params.not_after) =
        (rcgen::date_time_ymd(2015, 1, 1), rcgen::date_time_ymd(2020, 1, 1));
    params
        .self_signed(&rcgen::KeyPair::generate().expect("a key"))
        .expect("a certificate")
        .pem()
}

impl Place<'_> {
    fn stage(&self) -> &Stage {
        self.maker.stage
    }

    /// Id of the API of this namespace.
    fn api_id(&self) -> String {
        self.namespace.replace('-', "")
    }

    async fn make_api(&self) -> String {
        let id = self.api_id();
        let gateway = aws_sdk_apigatewayv2::Client::new(&self.stage().account.sdk());
        if gateway.get_api().api_id(&id).send().await.is_err() {
            http_api(&self.stage().account, "hello", Some(&id))
                .await
                .expect("an API");
        }
        id
    }

    // ---- Kubernetes

    fn api(&self, version: &str, kind: &str) -> Api<DynamicObject> {
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Api::namespaced_with(self.stage().client.clone(), self.namespace, &resource)
    }

    async fn put(&self, object: Value) {
        let object = for_decades(object);
        let text = |field: &Value| field.as_str().expect("a text").to_owned();
        let api = self.api(&text(&object["apiVersion"]), &text(&object["kind"]));
        let apply = PatchParams::apply("user").force();
        let name = text(&object["metadata"]["name"]);
        api.patch(&name, &apply, &Patch::Apply(&object))
            .await
            .unwrap_or_else(|e| panic!("{}: {e}", self.namespace));
    }

    /// Applies every object of an example, with the host and an API of this namespace, and with `others`
    /// replaced.
    async fn apply(&self, example: &str, others: &[(&str, &str)]) {
        self.make_api().await;
        self.apply_only(example, others).await;
    }

    /// Applies an example whose API is made otherwise.
    async fn apply_only(&self, example: &str, others: &[(&str, &str)]) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("examples")
            .join(example);
        let mut text = std::fs::read_to_string(path).expect("the example is there");
        for (theirs, ours) in others {
            assert!(text.contains(theirs), "{example} says nothing of {theirs}");
            text = text.replace(theirs, ours);
        }
        text = text
            .replace("mtls.example.com", &self.host)
            .replace("a1b2c3d4e5", &self.api_id());
        for object in serde_saphyr::from_multiple::<Value>(&text).expect("the example is YAML") {
            self.put(object).await;
        }
    }

    async fn create(&self, kind: &str, name: &str, spec: Value) {
        let (version, metadata) = ("mtls-operator.io/v1alpha1", json!({"name": name}));
        self.put(json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}))
            .await;
    }

    /// Creates the MtlsDomain `partners` with these authorities; of `more`, `trust` is merged.
    async fn domain(&self, authorities: Value, more: Value) {
        let mut spec = json!({
            "domainName": self.host, "trust": {"authorities": authorities},
            "mappings": [{"path": "", "api": {"id": self.make_api().await, "stage": "$default"}}],
        });
        for (field, value) in more.as_object().expect("an object") {
            match (field.as_str(), value.as_object()) {
                ("trust", Some(trust)) => {
                    trust
                        .iter()
                        .for_each(|(field, value)| spec["trust"][field] = value.clone());
                }
                _ => spec[field] = value.clone(),
            }
        }
        self.create("MtlsDomain", "partners", spec).await;
    }

    /// Creates a ClientCertificate of `partners`.
    async fn certificate(&self, name: &str, more: Value) {
        let mut spec = json!({"domainRef": {"name": "partners"}, "subject": {"commonName": name}});
        more.as_object()
            .expect("an object")
            .iter()
            .for_each(|(field, value)| spec[field] = value.clone());
        self.create("ClientCertificate", name, spec).await;
    }

    async fn secret(&self, name: &str, values: &[(&str, &str)]) {
        let values: serde_json::Map<_, _> =
            values.iter().map(|(k, v)| ((*k).to_owned(), json!(*v))).collect();
        self.put(
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}),
        )
        .await;
    }

    async fn config_map(&self, name: &str, labels: Value, certificates: &str) {
        let (metadata, data) = (
            json!({"name": name, "labels": labels}),
            json!({"ca.crt": certificates}),
        );
        self.put(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}))
            .await;
    }

    async fn secret_text(&self, name: &str, key: &str) -> String {
        let secret = self.api("v1", "Secret").get(name).await.expect("the Secret");
        let value = secret.data["data"][key]
            .as_str()
            .unwrap_or_else(|| panic!("no {key} in {name}"));
        let bytes: k8s_openapi::ByteString = serde_json::from_value(json!(value)).expect("base64");
        String::from_utf8(bytes.0).expect("PEM")
    }

    /// Waits until every object of this namespace is Ready, and known to be with its current spec.
    async fn ready(&self) {
        eventually(
            &format!("everything in {} is Ready", self.namespace),
            async || {
                let objects = self.stage().objects(&[self.namespace.to_owned()]).await;
                for object in objects
                    .iter()
                    .filter(|o| !o["spec"]["domainName"].is_null() || !o["spec"]["domainRef"].is_null())
                {
                    let generation = &object["metadata"]["generation"];
                    let all = object["status"]["conditions"].as_array();
                    let is_ready = |c: &Value| {
                        c["type"] == "Ready"
                            && c["status"] == "True"
                            && &c["observedGeneration"] == generation
                    };
                    if !all.is_some_and(|all| all.iter().any(is_ready)) {
                        return Err(format!("{}: {}", full_name(object), object["status"]));
                    }
                }
                Ok(())
            },
        )
        .await
    }

    async fn suspend(&self) {
        let api = self.api("mtls-operator.io/v1alpha1", "MtlsDomain");
        let patch = Patch::Merge(json!({"spec": {"suspend": true}}));
        api.patch("partners", &PatchParams::default(), &patch)
            .await
            .expect("suspended");
    }

    async fn until_revision(&self, name: &str, revision: i64) {
        eventually(
            &format!("revision {revision} of {}/{name}", self.namespace),
            async || {
                let object = self
                    .api("mtls-operator.io/v1alpha1", "ClientCertificate")
                    .get(name)
                    .await;
                let status = object.map_err(|e| e.to_string())?.data["status"].clone();
                if status["revision"] == revision {
                    Ok(())
                } else {
                    Err(status.to_string())
                }
            },
        )
        .await
    }

    // ---- AWS

    fn acm(&self) -> aws_sdk_acm::Client {
        aws_sdk_acm::Client::new(&self.stage().account.sdk())
    }

    /// Creates at the registrar each record that the status lists, as soon as it lists it, until the domain
    /// is Ready.
    async fn create_listed_records(&self) {
        for wanted in ["_", &self.host] {
            let record = eventually(&format!("a record of {} is listed", self.namespace), async || {
                let domain = self
                    .api("mtls-operator.io/v1alpha1", "MtlsDomain")
                    .get("partners")
                    .await;
                let listed = domain.map_err(|e| e.to_string())?.data["status"]["dns"]["records"].clone();
                let all = listed.as_array().cloned().unwrap_or_default();
                let found = all
                    .into_iter()
                    .find(|r| r["name"].as_str().is_some_and(|name| name.starts_with(wanted)));
                found.ok_or_else(|| listed.to_string())
            })
            .await;
            let text = |field: &str| record[field].as_str().expect("a text").to_owned();
            let set = plain(&text("name"), RrType::from(text("type").as_str()), &text("value"));
            change(&self.stage().registrar, &self.maker.registrars_zone_id, set).await;
        }
    }

    /// Creates by hand a custom domain that serves the API of this namespace, with its certificate and
    /// record.
    async fn serving(&self, truststore: Option<(&str, &str)>) {
        self.make_api().await;
        let zone = &self.maker.zone_id;
        let request = self
            .acm()
            .request_certificate()
            .domain_name(&self.host)
            .validation_method(ValidationMethod::Dns);
        let arn = request
            .send()
            .await
            .expect("RequestCertificate")
            .certificate_arn
            .expect("an ARN");
        let described = async || {
            let answer = self
                .acm()
                .describe_certificate()
                .certificate_arn(&arn)
                .send()
                .await;
            answer
                .expect("DescribeCertificate")
                .certificate
                .expect("a certificate")
        };
        let proof = described().await.domain_validation_options()[0]
            .resource_record()
            .expect("a record")
            .clone();
        change(
            &self.stage().account,
            zone,
            plain(proof.name(), RrType::Cname, proof.value()),
        )
        .await;
        eventually("their certificate", async || match described().await.status {
            Some(CertificateStatus::Issued) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        let config = DomainNameConfiguration::builder()
            .certificate_arn(arn)
            .endpoint_type(EndpointType::Regional)
            .security_policy(SecurityPolicy::Tls12)
            .build();
        let gateway = aws_sdk_apigatewayv2::Client::new(&self.stage().account.sdk());
        let mut create = gateway
            .create_domain_name()
            .domain_name(&self.host)
            .domain_name_configurations(config);
        if let Some((uri, version)) = truststore {
            let trust = MutualTlsAuthenticationInput::builder()
                .truststore_uri(uri)
                .truststore_version(version);
            create = create.mutual_tls_authentication(trust.build());
        }
        let made = create
            .send()
            .await
            .expect("CreateDomainName")
            .domain_name_configurations
            .expect("one")
            .remove(0);
        self.map("").await;
        let target = AliasTarget::builder()
            .dns_name(made.api_gateway_domain_name.expect("a target"))
            .hosted_zone_id(made.hosted_zone_id.expect("a zone"))
            .evaluate_target_health(false);
        let set = ResourceRecordSet::builder()
            .name(format!("{}.", self.host))
            .r#type(RrType::A);
        let set = set
            .alias_target(target.build().expect("a target"))
            .build()
            .expect("a record");
        change(&self.stage().account, zone, set).await;
    }

    async fn map(&self, path: &str) {
        let gateway = aws_sdk_apigatewayv2::Client::new(&self.stage().account.sdk());
        let request = gateway
            .create_api_mapping()
            .domain_name(&self.host)
            .api_id(self.api_id())
            .stage("$default");
        request
            .api_mapping_key(path)
            .send()
            .await
            .expect("CreateApiMapping");
    }

    // ---- certificates and callers

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).expect("openssl has written it")
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).expect("a file");
    }

    async fn shell(&self, line: &str) {
        let run = Command::new("sh")
            .args(["-c", line])
            .current_dir(self.dir.path())
            .output();
        let out = run.await.expect("a shell is there");
        assert!(
            out.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    }

    /// Creates a self-signed CA `<name>.crt`, `<name>.key`; without `extensions`, with those of openssl's own
    /// configuration.
    async fn authority(&self, name: &str, subject: &str, extensions: &str) {
        self.request(name, subject, extensions).await;
        let sign = match extensions {
            "" => format!("req -x509 -key {name}.key -subj '{subject}'"),
            _ => format!("x509 -req -in {name}.csr -signkey {name}.key -extfile {name}.ext"),
        };
        self.shell(&format!("openssl {sign} -days {AUTHORITY_DAYS} -out {name}.crt"))
            .await;
    }

    /// Creates `<name>.crt` and `<name>.key`, issued by `<issuer>`.
    async fn issued(&self, name: &str, subject: &str, issuer: &str, extensions: &str, days: &str) {
        self.request(name, subject, extensions).await;
        let by = format!("-CA {issuer}.crt -CAkey {issuer}.key -CAcreateserial");
        let sign =
            format!("openssl x509 -req -in {name}.csr {by} -extfile {name}.ext -days {days} -out {name}.crt");
        self.shell(&sign).await;
    }

    async fn request(&self, name: &str, subject: &str, extensions: &str) {
        self.write(&format!("{name}.ext"), extensions);
        let key = format!("-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key");
        self.shell(&format!(
            "openssl req -new {key} -out {name}.csr -subj '{subject}'"
        ))
        .await;
    }

    fn identity(&self, certificate: &str, key: &str) -> Identity {
        Identity {
            certificate: self.read(certificate),
            key: self.read(key),
        }
    }

    fn caller(&self, name: &str, identity: Identity) -> Caller {
        let (name, host) = (format!("{}/{name}", self.namespace), self.host.clone());
        Caller {
            name,
            host,
            path: "/".into(),
            identity,
            status: 200,
        }
    }

    /// Caller with the files that [`Place::issued`] made.
    fn leaf(&self, name: &str) -> Caller {
        self.caller(
            name,
            self.identity(&format!("{name}.crt"), &format!("{name}.key")),
        )
    }

    /// Caller with the current content of the Secret.
    async fn caller_of(&self, secret: &str, path: &str) -> Caller {
        let (certificate, key) = (
            self.secret_text(secret, "tls.crt").await,
            self.secret_text(secret, "tls.key").await,
        );
        Caller {
            path: path.into(),
            ..self.caller(secret, Identity { certificate, key })
        }
    }
}

fn plain(name: &str, kind: RrType, value: &str) -> ResourceRecordSet {
    let value = ResourceRecord::builder().value(value).build().expect("a value");
    ResourceRecordSet::builder()
        .name(name)
        .r#type(kind)
        .ttl(60)
        .resource_records(value)
        .build()
        .expect("a record")
}

async fn change(account: &Account, zone_id: &str, set: ResourceRecordSet) {
    let change = Change::builder()
        .action(ChangeAction::Upsert)
        .resource_record_set(set)
        .build()
        .expect("a change");
    let batch = ChangeBatch::builder().changes(change).build().expect("a batch");
    let route53 = aws_sdk_route53::Client::new(&account.sdk());
    route53
        .change_resource_record_sets()
        .hosted_zone_id(zone_id)
        .change_batch(batch)
        .send()
        .await
        .expect("a record");
}
