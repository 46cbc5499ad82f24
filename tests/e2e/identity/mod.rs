//! Identity of callers in the back end: headers and authorizers that no caller can forge, on HTTP and REST
//! APIs.
mod http_authorizer;
mod http_headers;
mod parameters_of_others;
mod rest_authorizer;
mod rest_headers;
