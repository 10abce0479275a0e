//! What has changed on the host since it was last looked at.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Kinds of messages: `NLMSG_OVERRUN`, `RTM_NEWLINK`, and behind those of addresses and of neighbours
/// and rules.
const OVERRUN: u16 = 4;
const LINK: u16 = 16;
const ROUTE: u16 = 24;
const QDISC: u16 = 36;
/// Interfaces that are remembered one by one; with more, all are looked at.
const MAX_TOUCHED: usize = 1_024;

/// What has changed since the last look, shared between the reader and the one who looks.
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
    /// A look was asked for and has not begun.
    asked: bool,
    /// Something was told since the last look began; of routes nothing else is kept.
    changed: bool,
    trouble: Option<String>,
}

/// Interfaces of which the kernel has told something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    some: BTreeSet<u32>,
    all: bool,
}

impl Interfaces {
    /// Whether an interface is among them.
    pub fn contains(&self, ifindex: u32) -> bool {
        self.all || self.some.contains(&ifindex)
    }

    /// Takes in the head of a message. Those of links, addresses, queueing disciplines and filters have
    /// the index of the interface at the same place (`ifinfomsg`, `ifaddrmsg`, `tcmsg`).
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

impl Touched {
    /// Begins a look: what changes from now on asks for another.
    pub fn begin(&self) -> Begun<'_> {
        let mut state = self.lock();
        (state.asked, state.changed) = (false, false);
        Begun { interfaces: std::mem::take(&mut state.touched), touched: self, done: false }
    }

    /// Whether something has changed since the last look began.
    pub fn has_changed(&self) -> bool {
        self.lock().changed
    }

    /// Everything is to be looked at.
    pub(super) fn all(&self) {
        self.lock().touched.all = true;
    }

    /// The question for a look has arrived: what changes from now on asks again.
    pub fn heard(&self) {
        self.lock().asked = false;
    }

    /// Asks for another look.
    pub fn again(&self) {
        self.0.again.notify_one();
    }

    /// What is wrong with the reader, in words.
    pub fn trouble(&self) -> Option<String> {
        self.lock().trouble.clone()
    }

    /// Whether a look must be asked for; not while one is asked for already.
    pub(super) fn ask(&self) -> bool {
        !std::mem::replace(&mut self.lock().asked, true)
    }

    /// Something was told.
    pub(super) fn changed(&self) {
        self.lock().changed = true;
    }

    /// Takes in the head of a message.
    pub(super) fn take(&self, message: &[u8]) {
        self.lock().touched.take(message);
    }

    /// Nothing is heard any more; in words, why.
    pub(super) fn lost(&self, trouble: String) {
        self.lock().trouble = Some(trouble);
    }

    /// Changes are heard again. What has changed meanwhile was not told.
    pub(super) fn found(&self) {
        let mut state = self.lock();
        state.trouble = None;
        (state.touched.all, state.changed) = (true, true);
    }

    /// Waits until another look is [asked](Self::again) for.
    pub(super) async fn asked_again(&self) {
        self.0.again.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A look that has begun. Where it does not come to its end, the next one looks at everything.
#[derive(Debug)]
pub struct Begun<'a> {
    interfaces: Interfaces,
    touched: &'a Touched,
    done: bool,
}

impl Begun<'_> {
    /// What has changed before.
    pub const fn interfaces(&self) -> &Interfaces {
        &self.interfaces
    }

    /// Ends it.
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
