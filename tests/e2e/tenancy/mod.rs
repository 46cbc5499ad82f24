//! Users of one namespace, who get what grants and the policy allow them and cannot harm the operator, AWS or
//! each other.
mod attacks;
mod certificates_of_others;
mod domains_of_others;
mod fairness;
mod grants;
mod planted_anchors;
mod planted_authorities;
mod policy_bounds;
mod policy_resources;
mod policy_rules;
