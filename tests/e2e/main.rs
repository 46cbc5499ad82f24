//! End-to-end tests through the real API server and the AWS emulator. Each test has a namespace, an account
//! and an operator of its own, and checks AWS, Kubernetes and the journal of AWS calls afterwards.
//! `cargo test --test e2e -- trust::` runs one area.

mod dns; // Records in Route 53, or made by hand at a registrar.
mod drift; // Changes behind the operator's back, row by row.
mod faults; // Faults of AWS, of the Kubernetes API and of the operator.
mod gitops; // Objects as Argo CD, Flux and kstatus see them.
mod identity; // Headers and authorizers that tell a back end who called.
mod installation; // The chart, the printed IAM policy, a proxy, two replicas.
mod issuance; // ClientCertificates and their Secrets.
mod lifecycle; // One MtlsDomain from its creation to its deletion.
mod mappings; // API mappings, default endpoints, other ways to a mapped API.
mod observability; // Metrics, Events, probes, named causes, the doctor.
mod quota; // AWS's quotas, rates and cached reads.
mod server_certificate; // The server certificate in ACM.
mod support; // No tests: the local world, environments and helpers.
mod takeover; // Resources that the operator did not create.
mod tenancy; // Grants, the policy, and attacks by tenants.
mod trust; // The truststore: sources, rotation, expiry, distrust, storage.
