//! Requests to the kernel over netlink. They have their own connection, so that the messages to all
//! subscribers cannot displace an answer. Each request has a deadline, because the loop that renews
//! waits for it.

use crate::{clock, model::time::BootNs};
use futures::StreamExt as _;
use rtnetlink::{
    Handle,
    packet_core::{
        NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    },
    packet_route::RouteNetlinkMessage,
};
use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// How long a request may take, from sending it to the last answer. This is a small part of the
/// shortest fence (0.8 s).
pub const REQUEST_LIMIT: Duration = Duration::from_millis(250);
/// The same for looks at the interfaces, which have a thread of their own. While many containers come
/// and go, RTNL is taken for longer than [`REQUEST_LIMIT`], and the host must not count as blind.
const LOOK_LIMIT: Duration = Duration::from_secs(2);
/// The same for the command line, where no fence runs out meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first pause before a listing that was interrupted by changes is requested again. Each later
/// pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// How many abandoned connections may still wait for the kernel. With this many, no new one is opened.
const WAITING: usize = 4;
/// How long a replaced connection is reported.
const TOLD_FOR: Duration = Duration::from_mins(1);

/// A netlink request that failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The netlink socket could not be opened.
    #[error("cannot open a netlink socket")]
    Socket(#[source] io::Error),
    /// The kernel refused the request.
    #[error("cannot {what}")]
    Refused {
        /// The operation and its subject.
        what: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The kernel did not answer in time.
    #[error("cannot {what}: the kernel did not answer within {} ms", limit.as_millis())]
    TimedOut {
        /// The operation and its subject.
        what: String,
        /// How long the caller waited.
        limit: Duration,
    },
    /// The connection ended before the answer was complete.
    #[error("cannot {what}: the netlink connection ended before the answer was complete")]
    Ended {
        /// The operation and its subject.
        what: String,
    },
    /// Too many abandoned connections still wait for the kernel.
    #[error("{WAITING} earlier requests still wait for the kernel")]
    Busy,
    /// Changes interrupted every listing, so it may lack entries that were there all the time.
    #[error("cannot {what}: for {} ms changes interrupted each attempt", limit.as_millis())]
    Interrupted {
        /// The operation.
        what: String,
        /// How long it was tried.
        limit: Duration,
    },
}

impl NetlinkError {
    /// Whether the error says only that the host could not be asked, and nothing about its state.
    pub const fn is_blind(&self) -> bool {
        !matches!(self, Self::Socket(_) | Self::Refused { .. })
    }
}

pub(super) type Result<T> = std::result::Result<T, NetlinkError>;

/// A new connection, and the means to end it.
type Opened = (Handle, Arc<Alive>);
type Connection = rtnetlink::proto::Connection<RouteNetlinkMessage>;

/// Opens a connection on its own thread. The kernel works on a request while it is being sent. It may
/// wait there for its lock on all interfaces (RTNL), which other processes can hold for seconds. The
/// sending thread would then miss a deadline.
fn connect(prepare: impl FnOnce(&mut Connection) + Send + 'static) -> io::Result<Opened> {
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let alive = Arc::new(Alive::default());
    let until = alive.clone();
    let drive = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let _inside = runtime.enter();
        let (mut connection, handle, _) = rtnetlink::new_connection()?;
        // These messages distinguish a complete answer from one that was cut off.
        connection.set_forward_done(true);
        connection.set_forward_ack(true);
        prepare(&mut connection);
        let _ = tell.send(handle);
        runtime.block_on(async {
            // Late answers are not read, because the library would log each of them.
            tokio::select! {
                biased;
                () = until.given_up.notified() => {}
                () = connection => {}
            }
            until.ended.store(true, Ordering::Release);
        });
        io::Result::Ok(())
    };
    let thread = std::thread::Builder::new().name("netlink".into()).spawn(drive)?;
    match told.recv() {
        Ok(handle) => Ok((handle, alive)),
        // The thread ended before it could send the handle.
        Err(_) => Err(thread
            .join()
            .ok()
            .and_then(std::result::Result::err)
            .unwrap_or_else(|| io::Error::other("the thread of the connection has ended"))),
    }
}

/// Reads from the kernel on a thread of its own, which may wait for RTNL in a system call: no deadline
/// of the caller can end that. Refused if [`WAITING`] such threads wait already.
pub(super) async fn aside<T, F>(read: impl FnOnce() -> F + Send + 'static) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>>,
{
    let place = Place::take().ok_or(NetlinkError::Busy)?;
    let work = move || {
        let _place = place;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        runtime.map_err(NetlinkError::Socket)?.block_on(read())
    };
    let failed = |error| Err(NetlinkError::Socket(io::Error::other(error)));
    tokio::task::spawn_blocking(work).await.unwrap_or_else(failed)
}

/// The right to one more thread that waits for the kernel.
struct Place;

static PLACES: AtomicUsize = AtomicUsize::new(WAITING);

impl Place {
    fn take() -> Option<Self> {
        let take = |left: usize| left.checked_sub(1);
        PLACES.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).ok().map(|_| Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        PLACES.fetch_add(1, Ordering::AcqRel);
    }
}

/// The state of a connection's thread.
#[derive(Debug, Default)]
struct Alive {
    ended: AtomicBool,
    given_up: Notify,
}

/// A connection for requests. Its clones share it.
#[derive(Clone)]
pub struct Requests {
    open: fn() -> io::Result<Opened>,
    /// The time limit of each request.
    limit: Duration,
    state: Arc<Mutex<State>>,
}

struct State {
    handle: Handle,
    alive: Arc<Alive>,
    /// The number of the present connection. An answer that is missing on an older one says nothing
    /// about this one.
    number: u64,
    broken: bool,
    /// Abandoned connections whose threads have not ended.
    waiting: Vec<Arc<Alive>>,
    /// When and why the last connection was given up.
    replaced: Option<(BootNs, String)>,
}

impl Drop for State {
    fn drop(&mut self) {
        self.alive.given_up.notify_one();
    }
}

impl std::fmt::Debug for Requests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Requests").finish_non_exhaustive()
    }
}

impl Requests {
    /// Opens a connection.
    pub fn open() -> Result<Self> {
        Self::open_with(|| connect(|_| {}))
    }

    /// The same for looks at the interfaces.
    pub fn of_looks() -> Result<Self> {
        Ok(Self { limit: LOOK_LIMIT, ..Self::open()? })
    }

    /// The same for a caller that renews nothing and can wait.
    pub fn patient() -> Result<Self> {
        Ok(Self { limit: PATIENCE, ..Self::open()? })
    }

    fn open_with(open: fn() -> io::Result<Opened>) -> Result<Self> {
        let (handle, alive) = open().map_err(NetlinkError::Socket)?;
        let state =
            State { handle, alive, number: 0, broken: false, waiting: Vec::new(), replaced: None };
        Ok(Self { open, limit: REQUEST_LIMIT, state: Arc::new(Mutex::new(state)) })
    }

    /// Lists what the kernel has and `pick` accepts. A listing that was interrupted by changes is
    /// requested again until its time is over.
    pub async fn dump<T>(
        &self,
        what: &str,
        message: RouteNetlinkMessage,
        mut pick: impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>> {
        let end = tokio::time::Instant::now() + self.limit;
        let mut pause = FIRST_PAUSE;
        loop {
            let flags = NLM_F_REQUEST | NLM_F_DUMP;
            let mut found = Vec::new();
            let take = |message| found.extend(pick(message));
            if self.exchange(what, message.clone(), flags, end, take).await? {
                return Ok(found);
            }
            // If the deadline cut off the next attempt, that would count as a lost answer.
            if tokio::time::Instant::now() + 2 * pause > end {
                return Err(NetlinkError::Interrupted { what: what.into(), limit: self.limit });
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    /// Makes one change. `flags` are added to those that every change has.
    pub async fn change(&self, what: &str, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        let end = tokio::time::Instant::now() + self.limit;
        let flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        self.exchange(what, message, flags, end, |_| {}).await.map(drop)
    }

    /// Why the connection was replaced lately, if it was.
    pub fn trouble(&self) -> Option<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, why) = state.replaced.as_ref()?;
        (at.until(clock::boot()) < TOLD_FOR).then(|| why.clone())
    }

    /// Sends one request and reads its answers. Returns false if changes have interrupted a listing.
    async fn exchange(
        &self,
        what: &str,
        message: RouteNetlinkMessage,
        flags: u16,
        end: tokio::time::Instant,
        mut take: impl FnMut(RouteNetlinkMessage),
    ) -> Result<bool> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        let ended = || NetlinkError::Ended { what: what.into() };
        let (mut handle, number) = self.handle()?;
        let mut answers = handle.request(request).map_err(|_| ended())?;
        let refused = |errno: i32| {
            let source = io::Error::from_raw_os_error(-errno);
            Err(NetlinkError::Refused { what: what.into(), source })
        };
        let answered = async {
            let mut whole = true;
            while let Some(answer) = answers.next().await {
                whole &= answer.header.flags & NLM_F_DUMP_INTR == 0;
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => take(message),
                    NetlinkPayload::Done(done) if done.code < 0 => return refused(done.code),
                    NetlinkPayload::Done(_) => return Ok(whole),
                    NetlinkPayload::Error(error) if error.raw_code() == 0 => return Ok(whole),
                    NetlinkPayload::Error(error) => return refused(error.raw_code()),
                    _ => {}
                }
            }
            Err(ended())
        };
        let outcome = tokio::time::timeout_at(end, answered)
            .await
            .unwrap_or_else(|_| Err(NetlinkError::TimedOut { what: what.into(), limit: self.limit }));
        if let Err(error @ (NetlinkError::TimedOut { .. } | NetlinkError::Ended { .. })) = &outcome {
            self.give_up(number, &error.to_string());
        }
        outcome
    }

    /// The connection with its number. If the last one has ended, a new one is opened.
    fn handle(&self) -> Result<(Handle, u64)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.broken && state.alive.ended.load(Ordering::Acquire) {
            state.give_up("the netlink connection has ended");
        }
        if state.broken {
            state.waiting.retain(|alive| !alive.ended.load(Ordering::Acquire));
            if state.waiting.len() >= WAITING {
                return Err(NetlinkError::Busy);
            }
            (state.handle, state.alive) = (self.open)().map_err(NetlinkError::Socket)?;
            state.broken = false;
            state.number += 1;
        }
        Ok((state.handle.clone(), state.number))
    }

    /// Ends a connection, so that the next request opens another. The old one would wait for ever for a
    /// lost answer.
    fn give_up(&self, number: u64, why: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.number == number && !state.broken {
            state.give_up(why);
        }
    }
}

impl State {
    fn give_up(&mut self, why: &str) {
        self.alive.given_up.notify_one();
        self.waiting.push(self.alive.clone());
        self.broken = true;
        let now = clock::boot();
        let known = self.replaced.replace((now, why.into()));
        if known.is_none_or(|(at, _)| at.until(now) >= TOLD_FOR) {
            tracing::warn!(%why, "the netlink connection is replaced");
        }
    }
}

#[cfg(test)]
mod tests;
