//! The one rule: may this host answer for an address, on this interface, now?

use crate::{
    abi::{Iface, Vip},
    counter::Counter,
    env::{Env, Fences, Verdict},
};

/// This host's standing for one VIP on one interface at this instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may answer and announce.
    Owner,
    /// The VIP is managed here, but this host must not answer for it or announce it.
    Silent(Silence),
    /// The VIP is not managed on this interface or VLAN: there the address belongs to another
    /// tenant.
    Elsewhere,
}

/// Why a host must not answer for a managed VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// The fence is not raised, or the entry is silent.
    NotHeld,
    /// The fence has run out.
    Expired,
    /// The entry was published under another tenure than that of the fence.
    StaleGeneration,
    /// The VIP is only guarded on this interface.
    WrongInterface,
    /// The interface is down.
    InterfaceDown,
}

impl Silence {
    /// The counter of a question that is dropped for this reason.
    #[inline(always)]
    pub const fn question(self) -> Counter {
        match self {
            Self::NotHeld => Counter::QuestionNotHeld,
            Self::Expired => Counter::QuestionExpired,
            Self::StaleGeneration => Counter::QuestionStale,
            Self::WrongInterface => Counter::QuestionWrongInterface,
            Self::InterfaceDown => Counter::QuestionInterfaceDown,
        }
    }

    /// The counter of a claim that is stopped for this reason.
    #[inline(always)]
    pub const fn claim(self) -> Counter {
        match self {
            Self::NotHeld => Counter::ClaimNotHeld,
            Self::Expired => Counter::ClaimExpired,
            Self::StaleGeneration => Counter::ClaimStale,
            Self::WrongInterface => Counter::ClaimWrongInterface,
            Self::InterfaceDown => Counter::ClaimInterfaceDown,
        }
    }
}

/// Decides the standing. The clock is read last, and only if the result depends on it, because that
/// is the most expensive step.
#[inline(always)]
pub fn standing<F: Fences>(fences: &F, vip: &Vip, iface: &Iface) -> Standing {
    if !vip.guarded_on(iface.bit) && !vip.answers_on(iface.bit) {
        return Standing::Elsewhere;
    }
    if !vip.answers_on(iface.bit) {
        return Standing::Silent(Silence::WrongInterface);
    }
    if iface.up == 0 {
        return Standing::Silent(Silence::InterfaceDown);
    }
    match silence(fences, vip) {
        Some(why) => Standing::Silent(why),
        None => Standing::Owner,
    }
}

/// Why this host does not hold a VIP, whatever the interface; `None` if it holds it.
#[inline(always)]
pub fn silence<F: Fences>(fences: &F, vip: &Vip) -> Option<Silence> {
    let Some(fence) = fences.fence(vip.slot) else {
        return Some(Silence::NotHeld);
    };
    if fence.deadline_ns == 0 || vip.generation == 0 {
        return Some(Silence::NotHeld);
    }
    if fence.generation != vip.generation {
        return Some(Silence::StaleGeneration);
    }
    if fences.now() >= fence.deadline_ns {
        return Some(Silence::Expired);
    }
    None
}

/// Counts the reason and drops the frame.
#[inline(always)]
pub(crate) fn reject<E: Env>(env: &E, reason: Counter) -> Verdict {
    env.count(reason);
    Verdict::Drop
}
