//! Records of a domain: in Route 53, in the right zone and account, or made by hand at a registrar.
mod handover;
mod records_by_hand;
mod route_53_records;
mod zones;
