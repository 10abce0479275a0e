use super::*;
use rtnetlink::{packet_route::link::LinkMessage, sys::AsyncSocket as _};
use std::os::fd::AsRawFd as _;

thread_local! {
    static OPENED: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// Opens a first connection that hears nothing: a filter on its socket drops every answer, as an
/// overrun does.
fn deaf_at_first() -> io::Result<Opened> {
    let deaf = OPENED.replace(OPENED.get() + 1) == 0;
    connect(move |connection| {
        if deaf {
            hear_nothing(connection.socket_mut().socket_ref().as_raw_fd());
        }
    })
}

fn hear_nothing(socket: i32) {
    let mut ret_0 = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 };
    let filter = libc::sock_fprog { len: 1, filter: &raw mut ret_0 };
    // SAFETY: the program and its length are right, and the kernel copies it.
    let attached = unsafe {
        libc::setsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as u32,
        )
    };
    assert_eq!(attached, 0);
}

async fn links(requests: &Requests) -> Result<usize> {
    let message = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let listed = requests.dump("list interfaces", message, Some);
    let listed = tokio::time::timeout(Duration::from_mins(1), listed).await;
    listed.expect("a request has a deadline").map(|links| links.len())
}

#[tokio::test]
async fn a_lost_answer_is_an_error_that_names_the_request() {
    let requests = Requests::open_with(deaf_at_first).unwrap();
    assert_eq!(requests.trouble(), None);
    let error = links(&requests).await.unwrap_err();
    assert!(matches!(error, NetlinkError::TimedOut { .. }), "{error:?}");
    let wanted = "cannot list interfaces: the kernel did not answer within 250 ms";
    assert_eq!(error.to_string(), wanted);
    assert_eq!(requests.trouble().as_deref(), Some(wanted));
    // The next request has a connection that hears.
    assert!(links(&requests).await.unwrap() > 0);
}

/// An answer that breaks off must not count as complete, because the missing part would seem to be
/// gone.
#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error() {
    let requests = Requests::open_with(deaf_at_first).unwrap();
    let ends = async {
        tokio::task::yield_now().await;
        requests.state.lock().unwrap().alive.given_up.notify_one();
    };
    let (listed, ()) = tokio::join!(links(&requests), ends);
    assert!(matches!(listed, Err(NetlinkError::Ended { .. })), "{listed:?}");
    assert!(links(&requests).await.unwrap() > 0);
}

#[tokio::test]
async fn a_connection_that_has_ended_is_opened_again() {
    let requests = Requests::open().unwrap();
    let alive = requests.state.lock().unwrap().alive.clone();
    alive.given_up.notify_one();
    while !alive.ended.load(Ordering::Acquire) {
        tokio::task::yield_now().await;
    }
    assert!(links(&requests).await.unwrap() > 0);
    assert_eq!(requests.trouble().as_deref(), Some("the netlink connection has ended"));
}
