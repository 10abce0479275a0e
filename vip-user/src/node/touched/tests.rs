use super::*;
use std::collections::BTreeSet;

fn message(kind: u16, ifindex: u32) -> Vec<u8> {
    let mut bytes = vec![0; 32];
    bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
    bytes[20..24].copy_from_slice(&ifindex.to_ne_bytes());
    bytes
}

fn taken(messages: &[Vec<u8>]) -> Interfaces {
    let mut found = Interfaces::default();
    for message in messages {
        found.take(message);
    }
    found
}

#[test]
fn messages_name_their_interface() {
    let (newlink, newaddr, delfilter, newroute) = (16, 20, 45, 24);
    let found = taken(&[message(newlink, 7), message(newaddr, 8), message(delfilter, 9)]);
    assert_eq!(found, Interfaces { some: BTreeSet::from([7, 8, 9]), all: false });
    assert_eq!(taken(&[message(newroute, 7), vec![0; 3]]), Interfaces::default());
}

/// With ten thousand VIPs a thousand lifetimes are raised every second.
#[test]
fn what_this_process_has_added_is_no_news() {
    let (newaddr, deladdr, newroute, delroute) = (20, 21, 24, 25);
    let address = |kind, ifindex, prefix: u8, ip: &[u8]| {
        let mut bytes = message(kind, ifindex);
        bytes[17] = prefix;
        bytes[24..26].copy_from_slice(&(4 + ip.len() as u16).to_ne_bytes());
        bytes[26..28].copy_from_slice(&1_u16.to_ne_bytes());
        bytes.truncate(28);
        [bytes, ip.to_vec()].concat()
    };
    let (v4, v6) = ([192, 0, 2, 10], [0x20; 16]);
    let touched = Touched::default();
    for ip in [Ip::v4(v4), Ip::v6(v6)] {
        touched.owns(HostAddr { ip, ifindex: 1 }, true);
    }
    // As the kernel orders them: the table, then the destination.
    let route = |kind, table: u8, ip: &[u8]| {
        let mut bytes = message(kind, u32::from_ne_bytes([table, 0, 0, 0]));
        bytes.truncate(28);
        bytes.extend([8, 0, 15, 0, table, 0, 0, 0]);
        bytes.extend((4 + ip.len() as u16).to_ne_bytes());
        bytes.extend([1, 0]);
        [bytes, ip.to_vec()].concat()
    };
    let own = [address(newaddr, 1, 32, &v4), address(newaddr, 1, 128, &v6), route(newroute, 255, &v4)];
    for own in &own {
        assert!(touched.is_no_news(own), "{own:?}");
    }
    for news in [
        address(newaddr, 2, 32, &v4),
        address(newaddr, 1, 24, &v4),
        address(newaddr, 1, 32, &[192, 0, 2, 11]),
        address(deladdr, 1, 32, &v4),
        message(newaddr, 1),
        route(newroute, 254, &v4),
        route(delroute, 255, &v4),
        Vec::new(),
    ] {
        assert!(!touched.is_no_news(&news), "{news:?}");
    }
    touched.owns(HostAddr { ip: Ip::v4(v4), ifindex: 1 }, false);
    assert!(!touched.is_no_news(&own[0]) && touched.is_no_news(&address(deladdr, 1, 32, &v4)));
    assert!(touched.is_no_news(&route(delroute, 255, &v4)));
    assert!(!touched.is_no_news(&route(delroute, 255, &v6)));
}

#[test]
fn with_too_many_interfaces_or_a_lost_message_all_are_looked_at() {
    let many: Vec<_> = (1..2_000).map(|ifindex| message(16, ifindex)).collect();
    let found = taken(&many);
    assert!(found.all && found.some.len() <= MAX_TOUCHED);
    let overrun = 4;
    assert!(taken(&[message(overrun, 0)]).contains(5));
}

/// However much happens before the loop looks, it is asked only once. A change after the look has begun
/// asks again.
#[test]
fn a_look_is_asked_for_once() {
    let touched = Touched::default();
    assert!(touched.ask() && !touched.ask());
    touched.lock().touched.take(&message(16, 7));
    let look = touched.begin();
    assert!(look.interfaces().contains(7) && !look.interfaces().contains(8));
    assert!(touched.ask());
    look.done();
    // If a look is cut off, the next one looks at everything.
    let look = touched.begin();
    assert!(!look.interfaces().contains(7));
    drop(look);
    assert!(touched.begin().interfaces().contains(8));
}
