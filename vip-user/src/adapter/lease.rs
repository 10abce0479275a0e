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
    /// The chosen Lease may be used. What an operator should know.
    Use(Vec<String>),
    /// xvip must not start. Why, and what to set instead.
    Refuse(String),
}

impl fmt::Display for LeaseName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

impl Search {
    /// The Lease that an earlier process of this host has used, if the maps still name one of those
    /// that may be meant. The settings win if they are among them.
    pub fn pinned<'a>(&'a self, named: &[LeaseName]) -> Option<&'a LeaseName> {
        let all = std::iter::once(&self.chosen).chain(&self.others);
        all.into_iter().find(|lease| named.contains(lease))
    }
}

/// Decides by what was read of each Lease, the chosen one among them.
pub fn decide(chosen: &LeaseName, seen: &[(LeaseName, Sight)]) -> Decision {
    let mut told = Vec::new();
    let mut holders: Vec<(&LeaseName, &str, bool)> = Vec::new();
    for (lease, sight) in seen {
        match sight {
            Sight::Forbidden => told.push(format!(
                "the Lease {lease} may not be read: whether another kube-vip uses it is not known"
            )),
            Sight::Held { of_others: true, holder, .. } if lease != chosen => {
                told.push(format!("the Lease {lease} of {holder} guards other VIPs"));
            }
            Sight::Held { holder, fresh, .. } if !holder.is_empty() => {
                holders.push((lease, holder, *fresh));
            }
            Sight::Missing | Sight::Held { .. } => {}
        }
    }
    if let Some((lease, holder, _)) =
        holders.iter().find(|(lease, _, fresh)| *fresh && *lease != chosen)
    {
        return Decision::Refuse(format!(
            "the Lease {lease} is renewed by {holder}, and these settings mean {chosen}: two Leases would \
             have two owners; set vip_leasename={lease}"
        ));
    }
    if holders.len() > 1 {
        let each = holders.iter().map(|(lease, holder, _)| format!("{lease} by {holder}"));
        return Decision::Refuse(format!(
            "several Leases have a holder: {}. Stop the kube-vip that does not renew its own, and empty \
             holderIdentity of that Lease; or set vip_leasename=NAMESPACE/NAME",
            each.collect::<Vec<_>>().join(", ")
        ));
    }
    if let Some((lease, holder, _)) = holders.iter().find(|(lease, ..)| *lease != chosen) {
        told.push(format!("the Lease {lease} names {holder}, who does not renew it: it is not used"));
    }
    Decision::Use(told)
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

    fn decision(seen: &[(&str, Sight)]) -> Decision {
        let seen: Vec<_> = seen.iter().map(|(name, sight)| (lease(name), sight.clone())).collect();
        decide(&lease(CHOSEN), &seen)
    }

    fn refusal(seen: &[(&str, Sight)]) -> String {
        match decision(seen) {
            Decision::Refuse(why) => why,
            Decision::Use(told) => panic!("it runs: {told:?}"),
        }
    }

    #[test]
    fn the_chosen_lease_is_used_if_no_other_has_a_holder() {
        assert_eq!(decision(&[]), Decision::Use(vec![]));
        let others = ("kube-vip/plndr-cp-lock", Sight::Missing);
        for own in [Sight::Missing, held("", false), held("node1", true), held("node1", false)] {
            assert_eq!(decision(&[(CHOSEN, own), others.clone()]), Decision::Use(vec![]));
        }
        assert_eq!(decision(&[("kube-vip/x", held("", true))]), Decision::Use(vec![]));
    }

    #[test]
    fn a_fresh_holder_elsewhere_is_never_passed_over() {
        for own in [Sight::Missing, held("", false), held("node1", true)] {
            let why = refusal(&[(CHOSEN, own), ("kube-vip/plndr-cp-lock", held("node2", true))]);
            assert!(why.contains("set vip_leasename=kube-vip/plndr-cp-lock"), "{why}");
        }
    }

    #[test]
    fn two_holders_are_refused_though_one_is_stale() {
        let why = refusal(&[(CHOSEN, held("node1", true)), ("a/b", held("node2", false))]);
        assert!(why.contains("kube-system/plndr-cp-lock by node1, a/b by node2"), "{why}");
    }

    #[test]
    fn a_stale_holder_elsewhere_and_what_may_not_be_read_are_told() {
        let Decision::Use(told) = decision(&[(CHOSEN, Sight::Missing), ("a/b", held("node2", false))])
        else {
            panic!()
        };
        assert!(told[0].contains("a/b names node2"), "{told:?}");
        let Decision::Use(told) = decision(&[("a/b", Sight::Forbidden)]) else { panic!() };
        assert!(told[0].contains("may not be read"), "{told:?}");
    }

    #[test]
    fn a_lease_that_guards_other_vips_does_not_count() {
        let other = Sight::Held { holder: "node2".into(), fresh: true, of_others: true };
        let Decision::Use(told) = decision(&[(CHOSEN, held("node1", true)), ("a/b", other)]) else {
            panic!()
        };
        assert_eq!(told, ["the Lease a/b of node2 guards other VIPs"]);
    }

    #[test]
    fn a_pinned_lease_wins_and_the_settings_win_among_the_pinned() {
        let search = Search { chosen: lease(CHOSEN), others: vec![lease("a/b"), lease("c/d")] };
        assert_eq!(search.pinned(&[]), None);
        assert_eq!(search.pinned(&[lease("x/y")]), None);
        assert_eq!(search.pinned(&[lease("x/y"), lease("c/d")]), Some(&lease("c/d")));
        assert_eq!(search.pinned(&[lease("a/b"), lease(CHOSEN)]), Some(&lease(CHOSEN)));
    }
}
