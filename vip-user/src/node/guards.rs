//! The programs on the interfaces of this host, and what is known of them. Looking at the interfaces
//! takes the kernel's lock of all interfaces (RTNL) again and again, and others hold that for seconds.
//! So it is done on a thread of its own, and the loop goes on renewing meanwhile; only the first look
//! is waited for.

use super::{
    attach::Inspected,
    dataplane::HostError,
    interfaces::{Attached, Bits, LeftOver, Turns},
    netlink::Netlink,
    pins::Pins,
    programs::Programs,
    settings::Settings,
};
use crate::{
    clock,
    model::{desired::Links, hooks::Hooks, selection::Selection, time::BootNs},
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

/// The loop waits so long for a look at the interfaces. What takes longer is told when it has ended.
const LOOK_WAIT: Duration = Duration::from_millis(20);
/// A host that could not be looked at for so long may be anything.
pub(super) const BLIND_FOR: Duration = Duration::from_secs(5);

/// Attaches programs, and looks whether they are where they were put.
pub(super) struct Guards {
    pub(super) programs: Programs,
    pub(super) netlink: Netlink,
    pub(super) selection: Selection,
    /// What is on which interface, by name and index.
    pub(super) attached: BTreeMap<u32, (String, Attached)>,
    pub(super) bits: Bits,
    pub(super) links: Links,
    pub(super) attach: Hooks,
    pub(super) problems: BTreeMap<String, String>,
    /// What another version has left: its programs are replaced by the first look at the interfaces.
    pub(super) retiring: Vec<Pins>,
    /// What the last look left for the next one.
    pub(super) left_over: BTreeSet<LeftOver>,
    /// Interfaces whose programs are to be looked at, or put back.
    pub(super) suspects: BTreeSet<u32>,
    pub(super) turns: Turns,
    /// What is being asked about links; it may wait for the kernel.
    pub(super) inspecting: Option<JoinHandle<Vec<Inspected>>>,
    pub(super) looked: bool,
    /// Since then the interfaces could not be looked at.
    pub(super) blind_since: Option<BootNs>,
}

/// What the loop has put on the host, as a look begins.
#[derive(Debug, Default)]
pub(super) struct InPlace {
    /// Entries of the interface map.
    pub(super) ifaces: BTreeMap<Port, Iface>,
    /// Addresses of ours.
    pub(super) owned: BTreeSet<HostAddr>,
    /// Interfaces that the loop may put addresses on while the look is under way.
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

    /// Notes the problems of one kind, whose subjects begin with `kind`; logs what has changed.
    pub(super) fn tell(&mut self, kind: &str, what: &str, found: &BTreeMap<String, String>) {
        let gone =
            |known: &String| known.strip_prefix(kind).is_some_and(|name| !found.contains_key(name));
        self.problems.retain(|known, _| !gone(known));
        for (name, why) in found {
            if self.problems.insert(format!("{kind}{name}"), why.clone()).as_ref() != Some(why) {
                tracing::warn!(%name, %why, "{what}");
            }
        }
    }
}

type Ended = (Box<Guards>, Result<Links, HostError>);

/// Where the programs are at the moment.
pub(super) enum Watch {
    /// Nobody looks.
    Idle(Box<Guards>),
    /// A look is under way.
    Looking(Looking),
    /// For the time of a move.
    Moving,
}

/// A look that is under way.
pub(super) struct Looking {
    task: JoinHandle<Ended>,
    since: BootNs,
    /// Nobody waits for it any more: its end is told.
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

    /// The result of the look that is under way, if it comes in time.
    pub(super) async fn ended(&mut self) -> Option<Result<Links, HostError>> {
        let Self::Looking(Looking { task, unheard, .. }) = self else { return None };
        let Ok(ended) = timeout(LOOK_WAIT, &mut *task).await else {
            // One that ends in this moment is found by the next inspection.
            unheard.store(true, Ordering::Release);
            return None;
        };
        let (guards, looked) = ended.unwrap_or_else(|error| panic::resume_unwind(error.into_panic()));
        *self = Self::Idle(guards);
        Some(looked)
    }

    /// Since when a look is under way.
    pub(super) fn since(&self) -> Option<BootNs> {
        if let Self::Looking(looking) = self { Some(looking.since) } else { None }
    }

    /// The programs, while nobody looks.
    pub(super) fn guards(&mut self) -> Option<&mut Guards> {
        if let Self::Idle(guards) = self { Some(guards) } else { None }
    }

    /// A look has ended and nobody has taken its result, or it takes so long that nothing is known any
    /// more.
    pub(super) fn has_news(&self) -> bool {
        let Self::Looking(looking) = self else { return false };
        looking.task.is_finished() || looking.since.until(clock::boot()) >= BLIND_FOR
    }
}
