//! Collects what has changed on the host since the last look.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;
use vip_common::abi::{HostAddr, Ip};

/// Message types: `NLMSG_OVERRUN`, `RTM_NEWLINK`, `RTM_NEWADDR`, and the first types after those of
/// addresses and after those of neighbours and rules.
const OVERRUN: u16 = 4;
const LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const DEL_ADDRESS: u16 = 21;
const ROUTE: u16 = 24;
const NEW_ROUTE: u16 = ROUTE;
const DEL_ROUTE: u16 = 25;
const RTA_DST: u16 = 1;
/// The table of what this host takes in (`RT_TABLE_LOCAL`).
const LOCAL_TABLE: u8 = 255;
const QDISC: u16 = 36;
/// How many changed interfaces are remembered. If there are more, all are looked at.
const MAX_TOUCHED: usize = 1_024;

/// The changes since the last look, shared by the reader of messages and the look.
#[derive(Clone, Debug, Default)]
pub struct Touched(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    again: Notify,
}

#[derive(Debug, Default)]
struct State {
    touched: Interfaces,
    /// Addresses that this process has added. With ten thousand VIPs it raises a thousand lifetimes
    /// every second, and the kernel reports each of them.
    own: BTreeSet<HostAddr>,
    /// Addresses that this process has removed.
    removed: BTreeSet<HostAddr>,
    /// Whether a look was asked for, and the loop has not received the request yet.
    asked: bool,
    /// Whether any message came since the last look began. For routes nothing else is kept.
    changed: bool,
    trouble: Option<String>,
}

/// Interfaces for which a message of the kernel came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    some: BTreeSet<u32>,
    all: bool,
}

impl Interfaces {
    /// Whether an interface is one of them.
    pub fn contains(&self, ifindex: u32) -> bool {
        self.all || self.some.contains(&ifindex)
    }

    /// Reads the head of a message. Messages of links, addresses, queueing disciplines and filters have
    /// the interface's index at the same place (`ifinfomsg`, `ifaddrmsg`, `tcmsg`).
    fn take(&mut self, message: &[u8]) {
        let Some(kind) = message.get(4..6).and_then(|bytes| bytes.try_into().ok()) else { return };
        let ifindex = message.get(20..24).and_then(|bytes| bytes.try_into().ok());
        match (u16::from_ne_bytes(kind), ifindex) {
            (OVERRUN, _) => self.all = true,
            (LINK..ROUTE | QDISC.., Some(_)) if self.some.len() >= MAX_TOUCHED => self.all = true,
            (LINK..ROUTE | QDISC.., Some(bytes)) => drop(self.some.insert(u32::from_ne_bytes(bytes))),
            _ => {}
        }
    }
}

/// The address of a message of this type, if it is an address without a subnet, as VIPs are. The head
/// holds `ifaddrmsg` and the first attribute, which is `IFA_ADDRESS` or `IFA_LOCAL`.
fn address(message: &[u8], kind: u16) -> Option<HostAddr> {
    let word = |at: usize| Some(u16::from_ne_bytes(message.get(at..at + 2)?.try_into().ok()?));
    let ifindex = u32::from_ne_bytes(message.get(20..24)?.try_into().ok()?);
    let is_address = word(4)? == kind && matches!(word(26)?, 1 | 2);
    let ip = match (message.get(17)?, word(24)?) {
        (32, 8) => Ip::v4(message.get(28..32)?.try_into().ok()?),
        (128, 20) => Ip::v6(message.get(28..44)?.try_into().ok()?),
        _ => return None,
    };
    is_address.then_some(HostAddr { ip, ifindex })
}

/// The destination of a message about a route of the local table: `rtmsg`, and `RTA_DST` among the
/// first attributes. `None` for other messages.
fn local_route(message: &[u8], kind: u16) -> Option<Ip> {
    let word = |at: usize| Some(u16::from_ne_bytes(message.get(at..at + 2)?.try_into().ok()?));
    if word(4)? != kind || *message.get(20)? != LOCAL_TABLE {
        return None;
    }
    let mut at = 28;
    loop {
        let (len, attribute) = (usize::from(word(at)?), word(at + 2)?);
        let value = message.get(at + 4..at + len)?;
        match (attribute, value.len()) {
            (RTA_DST, 4) => return Some(Ip::v4(value.try_into().ok()?)),
            (RTA_DST, 16) => return Some(Ip::v6(value.try_into().ok()?)),
            _ => at += len.next_multiple_of(4).max(4),
        }
    }
}

impl Touched {
    /// This process adds an address, or removes it. What the kernel then reports of it is no news.
    pub(super) fn owns(&self, addr: HostAddr, owns: bool) {
        let State { own, removed, .. } = &mut *self.lock();
        let (to, from) = if owns { (own, removed) } else { (removed, own) };
        from.remove(&addr);
        to.insert(addr);
    }

    /// Whether the message with this head asks for no look.
    pub(super) fn is_no_news(&self, message: &[u8]) -> bool {
        // Every address has a route in the local table, and no interface is chosen by it.
        let any = |set: &BTreeSet<HostAddr>, ip| {
            set.range(HostAddr { ip, ifindex: 0 }..=HostAddr { ip, ifindex: u32::MAX }).next().is_some()
        };
        local_route(message, NEW_ROUTE).is_some()
            || local_route(message, DEL_ROUTE).is_some_and(|ip| any(&self.lock().removed, ip))
            || address(message, NEW_ADDRESS).is_some_and(|addr| self.lock().own.contains(&addr))
            || address(message, DEL_ADDRESS).is_some_and(|addr| self.lock().removed.contains(&addr))
    }

    /// Begins a look. Later changes ask for another one.
    pub fn begin(&self) -> Begun<'_> {
        let mut state = self.lock();
        (state.asked, state.changed) = (false, false);
        Begun { interfaces: std::mem::take(&mut state.touched), touched: self, done: false }
    }

    /// Whether something has changed since the last look began.
    pub fn has_changed(&self) -> bool {
        self.lock().changed
    }

    /// Marks all interfaces as changed.
    pub(super) fn all(&self) {
        self.lock().touched.all = true;
    }

    /// Notes that the request for a look has arrived. Later changes ask again.
    pub fn heard(&self) {
        self.lock().asked = false;
    }

    /// Asks for another look.
    pub fn again(&self) {
        self.0.again.notify_one();
    }

    /// What is wrong with the reader of messages, as text.
    pub fn trouble(&self) -> Option<String> {
        self.lock().trouble.clone()
    }

    /// Whether the caller must ask for a look. It must not if one has been asked for already.
    pub(super) fn ask(&self) -> bool {
        !std::mem::replace(&mut self.lock().asked, true)
    }

    /// Notes that a message has come.
    pub(super) fn changed(&self) {
        self.lock().changed = true;
    }

    /// Reads the head of a message.
    pub(super) fn take(&self, message: &[u8]) {
        self.lock().touched.take(message);
    }

    /// Notes that no messages are received any more, and why.
    pub(super) fn lost(&self, trouble: String) {
        self.lock().trouble = Some(trouble);
    }

    /// Notes that messages are received again. Changes in the meantime were not reported, so all
    /// interfaces count as changed.
    pub(super) fn found(&self) {
        let mut state = self.lock();
        state.trouble = None;
        (state.touched.all, state.changed) = (true, true);
    }

    /// Waits until another look is asked for by [`again`](Self::again).
    pub(super) async fn asked_again(&self) {
        self.0.again.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A look that has begun. If it does not complete, the next one looks at everything.
#[derive(Debug)]
pub struct Begun<'a> {
    interfaces: Interfaces,
    touched: &'a Touched,
    done: bool,
}

impl Begun<'_> {
    /// The interfaces that had changed when it began.
    pub const fn interfaces(&self) -> &Interfaces {
        &self.interfaces
    }

    /// Marks the look as complete.
    pub fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.touched.all();
        }
    }
}

#[cfg(test)]
mod tests;
