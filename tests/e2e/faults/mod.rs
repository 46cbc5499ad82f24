//! Faults of AWS, of the Kubernetes API and of the operator itself: the work ends as it does undisturbed.
mod api_server;
mod aws_errors;
mod crash;
mod incomplete_lists;
mod lost_objects;
mod refusals;
mod rejected_secrets;
mod soak;
