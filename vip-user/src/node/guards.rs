//! The programs on the interfaces of this host, and what is known of them. Looking at the interfaces
//! takes the kernel's lock on all interfaces (RTNL) many times, and other processes can hold it for
//! seconds. So a separate thread looks, and the loop continues to renew. The loop waits only for the
//! first look.

use super::{
    attach::Inspected,
    dataplane::HostError,
    interfaces::{Attached, Bits, LeftOver, Turns},
    netlink::Netlink,
    pins::Pins,
    programs::Programs,
    settings::Settings,
    trouble::Trouble,
};
use crate::{
    clock,
    model::{changes::BLIND_FOR, desired::Links, hooks::Hooks, selection::Selection, time::BootNs},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    panic,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{runtime::Handle, task::JoinHandle, time::timeout};
use vip_common::abi::{HostAddr, Iface, Port};

/// How long the loop waits for a look at the interfaces. A look that takes longer asks for another when
/// it ends.
const LOOK_WAIT: Duration = Duration::from_millis(20);

/// Attaches programs, and checks whether they are still in place.
pub(super) struct Guards {
    pub(super) programs: Programs,
    pub(super) netlink: Netlink,
    pub(super) selection: Selection,
    /// The programs of each interface, with its name, by index.
    pub(super) attached: BTreeMap<u32, (String, Attached)>,
    pub(super) bits: Bits,
    pub(super) links: Links,
    pub(super) attach: Hooks,
    pub(super) problems: BTreeMap<Trouble, String>,
    /// The directories of other versions. The first look at the interfaces replaces their programs.
    pub(super) retiring: Vec<Pins>,
    /// What the last look has left to the next one.
    pub(super) left_over: BTreeSet<LeftOver>,
    /// Interfaces whose programs must be checked or put back.
    pub(super) suspects: BTreeSet<u32>,
    pub(super) turns: Turns,
    /// A running query of links, which may wait for the kernel.
    pub(super) inspecting: Option<JoinHandle<Vec<Inspected>>>,
    pub(super) looked: bool,
    /// Since when the interfaces could not be looked at.
    pub(super) blind_since: Option<BootNs>,
}

/// What the loop has put on the host when a look begins.
#[derive(Debug, Default)]
pub(super) struct InPlace {
    /// Entries of the interface map.
    pub(super) ifaces: BTreeMap<Port, Iface>,
    /// The addresses that xvip has added.
    pub(super) owned: BTreeSet<HostAddr>,
    /// Interfaces on which the loop may put addresses during the look.
    pub(super) in_use: BTreeSet<u32>,
}

impl Guards {
    pub(super) fn new(
        settings: &Settings,
        programs: Programs,
        netlink: Netlink,
        retiring: Vec<Pins>,
    ) -> Self {
        Self {
            programs,
            netlink,
            selection: settings.selection.clone(),
            attached: BTreeMap::new(),
            bits: Bits::default(),
            links: Links::default(),
            attach: settings.attach.clone(),
            problems: BTreeMap::new(),
            retiring,
            left_over: BTreeSet::new(),
            suspects: BTreeSet::new(),
            turns: Turns::default(),
            inspecting: None,
            looked: false,
            blind_since: None,
        }
    }

    /// Notes all problems of the kind that `is_one` knows. Only changes are logged.
    pub(super) fn tell(
        &mut self,
        what: &str,
        is_one: fn(&Trouble) -> bool,
        found: BTreeMap<Trouble, String>,
    ) {
        self.problems.retain(|known, _| !is_one(known) || found.contains_key(known));
        for (subject, why) in found {
            if self.problems.get(&subject) != Some(&why) {
                tracing::warn!(%subject, %why, "{what}");
                self.problems.insert(subject, why);
            }
        }
    }
}

type Ended = (Box<Guards>, Result<Links, HostError>);

/// Where the programs are at the moment: with the loop, or with a look.
pub(super) enum Watch {
    /// No look is under way.
    Idle(Box<Guards>),
    /// A look is under way.
    Looking(Looking),
    /// Only used while the value moves from one state to another.
    Moving,
}

/// A look that is under way.
pub(super) struct Looking {
    task: JoinHandle<Ended>,
    since: BootNs,
    /// Whether the loop has stopped waiting. The end of the look then asks for another.
    unheard: Arc<AtomicBool>,
}

impl Watch {
    /// Begins a look, unless one is under way.
    pub(super) fn begin(&mut self, in_place: InPlace) {
        *self = match std::mem::replace(self, Self::Moving) {
            Self::Idle(mut guards) => {
                let (runtime, touched) = (Handle::current(), guards.netlink.touched.clone());
                let (since, unheard) = (clock::boot(), Arc::new(AtomicBool::new(false)));
                let told = Arc::clone(&unheard);
                let task = tokio::task::spawn_blocking(move || {
                    let looked = runtime.block_on(guards.look_or_keep(&in_place));
                    if told.load(Ordering::Acquire) {
                        touched.again();
                    }
                    (guards, looked)
                });
                Self::Looking(Looking { task, since, unheard })
            }
            other => other,
        };
    }

    /// Waits a short time for the look that is under way. Returns its result if it has ended.
    pub(super) async fn ended(&mut self) -> Option<Result<Links, HostError>> {
        let Self::Looking(Looking { task, unheard, .. }) = self else { return None };
        let Ok(ended) = timeout(LOOK_WAIT, &mut *task).await else {
            // If the look ends at this moment, the next inspection finds it.
            unheard.store(true, Ordering::Release);
            return None;
        };
        let (guards, looked) = ended.unwrap_or_else(|error| panic::resume_unwind(error.into_panic()));
        *self = Self::Idle(guards);
        Some(looked)
    }

    /// When the present look began, if one is under way.
    pub(super) fn since(&self) -> Option<BootNs> {
        if let Self::Looking(looking) = self { Some(looking.since) } else { None }
    }

    /// The programs, unless a look is under way.
    pub(super) fn guards(&mut self) -> Option<&mut Guards> {
        if let Self::Idle(guards) = self { Some(guards) } else { None }
    }

    /// Whether a look has ended without its result being taken, or takes so long that nothing is known
    /// any more.
    pub(super) fn has_news(&self) -> bool {
        let Self::Looking(looking) = self else { return false };
        looking.task.is_finished() || looking.since.until(clock::boot()) >= BLIND_FOR
    }
}
