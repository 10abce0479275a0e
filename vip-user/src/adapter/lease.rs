//! Finds the Lease. Versions of kube-vip compute its namespace and its name differently, and another
//! choice on another node means another Lease: two owners. So the Leases that may be meant are read.

use std::fmt;

/// A Lease.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Where the Lease may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// The one that the settings mean.
    pub chosen: LeaseName,
    /// Those that other versions of kube-vip would mean.
    pub others: Vec<LeaseName>,
    /// Whether the operator has decided: `vip_leasename` has a namespace, or `xvip_without` names it.
    pub is_decided: bool,
}

/// What was read of a Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// It does not exist.
    Missing,
    /// This user may not read it.
    Forbidden,
    /// It exists.
    Held {
        /// The holder; empty if there is none.
        holder: String,
        /// Whether `renewTime` changed while it was watched.
        fresh: bool,
        /// Whether its holder says that it guards other VIPs than ours.
        of_others: bool,
    },
}

/// What follows from all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The chosen Lease may be used.
    Use {
        /// What an operator should know.
        told: Vec<String>,
        /// What stays a problem while xvip runs.
        problems: Vec<String>,
    },
    /// xvip must not start. Why, and what to set instead.
    Refuse(String),
}

impl fmt::Display for LeaseName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

impl Search {
    /// Whether the maps of this host name the chosen Lease and no other. Then nobody needs to be asked.
    pub fn is_settled(&self, pinned: &[LeaseName]) -> bool {
        !pinned.is_empty() && pinned.iter().all(|lease| *lease == self.chosen)
    }

    /// All Leases that must be read, the chosen one first: also those that this host has used.
    pub fn candidates(&self, pinned: &[LeaseName]) -> Vec<LeaseName> {
        let mut all = vec![self.chosen.clone()];
        for lease in self.others.iter().chain(pinned) {
            if !all.contains(lease) {
                all.push(lease.clone());
            }
        }
        all
    }
}

/// Decides by what was read of each Lease. `pinned` are those that this host has used.
pub fn decide(search: &Search, pinned: &[LeaseName], seen: &[(LeaseName, Sight)]) -> Decision {
    let chosen = &search.chosen;
    let (mut told, mut problems) = (Vec::new(), Vec::new());
    for (lease, sight) in seen.iter().filter(|(lease, _)| lease != chosen) {
        match sight {
            Sight::Missing => {}
            Sight::Forbidden if pinned.contains(lease) => {
                return Decision::Refuse(hidden(chosen, lease));
            }
            Sight::Forbidden => problems.push(format!(
                "the Lease {lease} may not be read: whether another program uses it is not known"
            )),
            Sight::Held { holder, .. } if holder.is_empty() => {}
            Sight::Held { holder, of_others: true, .. } => {
                told.push(format!("the Lease {lease} of {holder} guards other VIPs"));
            }
            Sight::Held { holder, fresh: false, .. } => problems.push(format!(
                "the Lease {lease} names {holder}, who does not renew it: {chosen} is used"
            )),
            Sight::Held { holder, .. } if pinned.contains(lease) => {
                return Decision::Refuse(left_behind(chosen, lease, holder));
            }
            Sight::Held { holder, .. } if search.is_decided => problems.push(format!(
                "the Lease {lease} is renewed by {holder}, and {chosen} is used, as the settings say"
            )),
            Sight::Held { holder, .. } => {
                return Decision::Refuse(renewed_elsewhere(chosen, lease, holder));
            }
        }
    }
    let is_denied = |lease: &LeaseName| seen.contains(&(lease.clone(), Sight::Forbidden));
    let mut readable = seen.iter().map(|(lease, _)| lease).filter(|lease| !is_denied(lease));
    match readable.next() {
        Some(other) if is_denied(chosen) => Decision::Refuse(denied(chosen, other)),
        _ => Decision::Use { told, problems },
    }
}

fn left_behind(chosen: &LeaseName, lease: &LeaseName, holder: &str) -> String {
    format!(
        "this host has used the Lease {lease}, which {holder} still renews, and the settings now mean \
         {chosen}: two Leases would have two owners. Either set vip_leasename={lease}, or stop all \
         nodes that use {lease} first"
    )
}

fn hidden(chosen: &LeaseName, lease: &LeaseName) -> String {
    format!(
        "this host has used the Lease {lease}, which may not be read, and the settings now mean \
         {chosen}: if others still renew {lease}, there would be two owners. Grant the right to read it, \
         or run `xvip cleanup` once no node uses it"
    )
}

fn renewed_elsewhere(chosen: &LeaseName, lease: &LeaseName, holder: &str) -> String {
    format!(
        "the Lease {lease} is renewed by {holder}, and the settings mean {chosen}: if both are for \
         these VIPs, they would have two owners. Either set vip_leasename={lease}, or, if {lease} is \
         for other VIPs, set vip_leasename={chosen}"
    )
}

fn denied(chosen: &LeaseName, other: &LeaseName) -> String {
    format!(
        "the Lease {chosen} may not be read, and {other} may: either set vip_leasename={other}, or \
         let this user read and write {chosen}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(text: &str) -> LeaseName {
        let (namespace, name) = text.split_once('/').unwrap();
        LeaseName { namespace: namespace.into(), name: name.into() }
    }

    fn held(holder: &str, fresh: bool) -> Sight {
        Sight::Held { holder: holder.into(), fresh, of_others: false }
    }

    const CHOSEN: &str = "kube-system/plndr-cp-lock";

    fn search(is_decided: bool) -> Search {
        Search { chosen: lease(CHOSEN), others: vec![lease("a/b"), lease("c/d")], is_decided }
    }

    fn decided(is_decided: bool, pinned: &[&str], seen: &[(&str, Sight)]) -> Decision {
        let seen: Vec<_> = seen.iter().map(|(name, sight)| (lease(name), sight.clone())).collect();
        let pinned: Vec<_> = pinned.iter().map(|name| lease(name)).collect();
        decide(&search(is_decided), &pinned, &seen)
    }

    fn decision(seen: &[(&str, Sight)]) -> Decision {
        decided(false, &[], seen)
    }

    fn refusal(decision: Decision) -> String {
        match decision {
            Decision::Refuse(why) => why,
            Decision::Use { problems, .. } => panic!("it runs: {problems:?}"),
        }
    }

    fn problems(decision: Decision) -> Vec<String> {
        match decision {
            Decision::Use { problems, .. } => problems,
            Decision::Refuse(why) => panic!("{why}"),
        }
    }

    #[test]
    fn the_chosen_lease_is_used_if_no_other_has_a_holder() {
        let usual = Decision::Use { told: vec![], problems: vec![] };
        assert_eq!(decision(&[]), usual);
        for own in [Sight::Missing, held("", false), held("node1", true), held("node1", false)] {
            assert_eq!(decision(&[(CHOSEN, own), ("kube-vip/x", Sight::Missing)]), usual);
        }
        assert_eq!(decision(&[("kube-vip/x", held("", true))]), usual);
    }

    #[test]
    fn a_fresh_holder_elsewhere_is_refused_unless_the_operator_has_decided() {
        for own in [Sight::Missing, held("", false), held("node1", true)] {
            let seen = [(CHOSEN, own), ("kube-vip/plndr-cp-lock", held("node2", true))];
            let why = refusal(decision(&seen));
            for choice in ["vip_leasename=kube-vip/plndr-cp-lock", &format!("vip_leasename={CHOSEN}")] {
                assert!(why.contains(choice), "{why}");
            }
            let kept = problems(decided(true, &[], &seen));
            assert!(kept[0].contains("kube-vip/plndr-cp-lock is renewed by node2"), "{kept:?}");
        }
    }

    #[test]
    fn a_lease_that_this_host_has_used_and_others_renew_is_refused_whatever_is_decided() {
        for is_decided in [false, true] {
            let seen = [(CHOSEN, Sight::Missing), ("a/b", held("node2", true))];
            let why = refusal(decided(is_decided, &["a/b"], &seen));
            assert!(
                why.contains("this host has used the Lease a/b, which node2 still renews"),
                "{why}"
            );
        }
    }

    #[test]
    fn a_stale_holder_elsewhere_and_what_may_not_be_read_stay_problems() {
        for own in [Sight::Missing, held("node1", true), held("node1", false)] {
            let kept = problems(decision(&[(CHOSEN, own), ("a/b", held("node2", false))]));
            assert!(kept[0].contains("a/b names node2"), "{kept:?}");
        }
        let kept = problems(decision(&[("a/b", Sight::Forbidden)]));
        assert!(kept[0].contains("may not be read"), "{kept:?}");
    }

    #[test]
    fn a_lease_that_this_host_has_used_and_may_not_read_is_refused() {
        for is_decided in [false, true] {
            let seen = [(CHOSEN, Sight::Missing), ("a/b", Sight::Forbidden)];
            let why = refusal(decided(is_decided, &["a/b"], &seen));
            assert!(why.contains("this host has used the Lease a/b, which may not be read"), "{why}");
        }
    }

    #[test]
    fn a_chosen_lease_that_may_not_be_read_names_the_one_that_may() {
        let why = refusal(decision(&[
            (CHOSEN, Sight::Forbidden),
            ("a/b", Sight::Forbidden),
            ("c/d", Sight::Missing),
        ]));
        assert!(why.contains(CHOSEN) && why.contains("set vip_leasename=c/d"), "{why}");
    }

    #[test]
    fn a_lease_that_guards_other_vips_does_not_count() {
        let other = Sight::Held { holder: "node2".into(), fresh: true, of_others: true };
        let told = vec!["the Lease a/b of node2 guards other VIPs".to_owned()];
        let wanted = Decision::Use { told, problems: vec![] };
        assert_eq!(decision(&[(CHOSEN, held("node1", true)), ("a/b", other)]), wanted);
    }

    #[test]
    fn only_the_chosen_lease_in_the_maps_settles_it_and_others_are_read_too() {
        let search = search(false);
        let all = |names: &[&str]| names.iter().map(|name| lease(name)).collect::<Vec<_>>();
        assert!(search.is_settled(&all(&[CHOSEN])));
        for pinned in [&[][..], &["a/b"], &["x/y"], &[CHOSEN, "a/b"]] {
            assert!(!search.is_settled(&all(pinned)), "{pinned:?}");
        }
        assert_eq!(search.candidates(&[]), all(&[CHOSEN, "a/b", "c/d"]));
        let pinned = all(&["c/d", "x/y", CHOSEN]);
        assert_eq!(search.candidates(&pinned), all(&[CHOSEN, "a/b", "c/d", "x/y"]));
    }
}
