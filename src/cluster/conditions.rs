//! `metav1.Condition` lists: setting one, and what changed between two. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The three values of a condition's `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Truth {
    True,
    False,
    Unknown,
}

impl Truth {
    /// As it is written in `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Truth::True => "True",
            Truth::False => "False",
            Truth::Unknown => "Unknown",
        }
    }
}

/// Sets one condition. `last_transition_time` moves only when `status` does; a condition keeps its place, a new one goes
/// to the end, so that an unchanged world gives the same list byte for byte.
pub fn set(
    conditions: &mut Vec<Condition>,
    generation: i64,
    type_: &str,
    status: Truth,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let old = conditions.iter().position(|c| c.type_ == type_);
    let last_transition_time = match old.map(|i| &conditions[i]) {
        Some(c) if c.status == status.as_str() => c.last_transition_time.clone(),
        // As it comes back from the API server, which keeps seconds only: no difference that is not there.
        _ => Time(
            Timestamp::from_second(now.as_second())
                .expect("a Timestamp's own seconds are in its range"),
        ),
    };
    let new = Condition {
        type_: type_.into(),
        status: status.as_str().into(),
        reason: reason.into(),
        message: message.into(),
        observed_generation: Some(generation),
        last_transition_time,
    };
    match old {
        Some(i) => conditions[i] = new,
        None => conditions.push(new),
    }
}

/// One condition that says something else than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    pub type_: String,
    pub status: String,
    pub reason: String,
    pub message: String,
}

/// The conditions of `new` whose status or reason is not that of `old`, in the order of `new`. A message alone is no
/// transition, nor is a condition that went away.
pub fn transitions(old: &[Condition], new: &[Condition]) -> Vec<Transition> {
    new.iter()
        .filter(|n| {
            !old.iter()
                .any(|o| o.type_ == n.type_ && o.status == n.status && o.reason == n.reason)
        })
        .map(|n| Transition {
            type_: n.type_.clone(),
            status: n.status.clone(),
            reason: n.reason.clone(),
            message: n.message.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn list(entries: &[(&str, Truth, &str)]) -> Vec<Condition> {
        let mut list = Vec::new();
        for (type_, status, reason) in entries {
            set(&mut list, 1, type_, *status, reason, "m", at(1));
        }
        list
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status_and_places_are_kept() {
        let mut conditions = list(&[("A", Truth::Unknown, "R"), ("B", Truth::True, "R")]);

        set(
            &mut conditions,
            2,
            "A",
            Truth::Unknown,
            "Other",
            "other",
            at(5),
        );
        assert_eq!(conditions[0].last_transition_time.0, at(1));
        assert_eq!(
            (
                conditions[0].reason.as_str(),
                conditions[0].message.as_str()
            ),
            ("Other", "other")
        );
        assert_eq!(conditions[0].observed_generation, Some(2));

        set(
            &mut conditions,
            2,
            "A",
            Truth::True,
            "Other",
            "other",
            at(6) + jiff::SignedDuration::from_millis(7),
        );
        assert_eq!(
            conditions[0].last_transition_time.0,
            at(6),
            "seconds, as the API server keeps them"
        );

        set(&mut conditions, 2, "C", Truth::False, "R", "m", at(7));
        assert_eq!(
            conditions
                .iter()
                .map(|c| c.type_.as_str())
                .collect::<Vec<_>>(),
            ["A", "B", "C"]
        );
    }

    #[test]
    fn the_same_again_changes_nothing() {
        let mut conditions = list(&[("A", Truth::False, "R")]);
        let before = conditions.clone();
        set(&mut conditions, 1, "A", Truth::False, "R", "m", at(99));
        assert_eq!(conditions, before);
    }

    #[test]
    fn transitions_are_new_conditions_statuses_and_reasons() {
        use Truth::{False, True};
        let old = list(&[
            ("Same", True, "R"),
            ("Flips", False, "R"),
            ("Why", False, "R"),
            ("Gone", True, "R"),
        ]);
        let mut new = list(&[
            ("Why", False, "Other"),
            ("Same", True, "R"),
            ("Flips", True, "R"),
            ("New", True, "R"),
        ]);
        new[1].message = "said otherwise".into();
        let found = transitions(&old, &new);
        assert_eq!(
            found.iter().map(|t| t.type_.as_str()).collect::<Vec<_>>(),
            ["Why", "Flips", "New"]
        );
        assert_eq!(
            found[0],
            Transition {
                type_: "Why".into(),
                status: "False".into(),
                reason: "Other".into(),
                message: "m".into()
            }
        );
    }
}
