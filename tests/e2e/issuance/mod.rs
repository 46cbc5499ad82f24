//! ClientCertificates: the Secret that programs mount, from the first leaf through renewals to the deletion.
mod interop;
mod keys_and_keystores;
mod pace;
mod renewal;
mod secret_content;
mod secret_loss;
mod self_signed;
