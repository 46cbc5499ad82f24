//! The operator as it is installed: by the chart, with the rights that it prints, behind a proxy, with a
//! replica.
mod helm_chart;
mod iam;
mod proxy;
mod replicas;
