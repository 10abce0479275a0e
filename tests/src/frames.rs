//! Builders of all frames in the tests.

/// Ethernet broadcast.
pub const BROADCAST: [u8; 6] = [0xff; 6];

/// An Ethernet header and its payload.
pub fn ethernet(dst: [u8; 6], src: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&dst[..], &src, &ethertype.to_be_bytes(), payload].concat();
    if frame.len() < 60 {
        frame.resize(60, 0);
    }
    frame
}

/// An ARP message for IPv4 over Ethernet.
pub fn arp(op: u16, sha: [u8; 6], spa: [u8; 4], tha: [u8; 6], tpa: [u8; 4]) -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4][..], &op.to_be_bytes(), &sha, &spa, &tha, &tpa].concat()
}

/// A broadcast ARP request.
pub fn arp_request(mac: [u8; 6], ip: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    ethernet(BROADCAST, mac, 0x0806, &arp(1, mac, ip, [0; 6], target))
}

/// An ARP reply.
pub fn arp_reply(to: [u8; 6], mac: [u8; 6], ip: [u8; 4], to_ip: [u8; 4]) -> Vec<u8> {
    ethernet(to, mac, 0x0806, &arp(2, mac, ip, to, to_ip))
}

/// An IPv6 packet with an ICMPv6 message whose checksum is filled in.
pub fn icmp6(src: [u8; 16], dst: [u8; 16], hop_limit: u8, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    message[2..4].copy_from_slice(&[0, 0]);
    let sum = checksum(
        &[&src[..], &dst, &(message.len() as u32).to_be_bytes(), &[0, 0, 0, 58], &message].concat(),
    );
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let length = (message.len() as u16).to_be_bytes();
    [&[0x60, 0, 0, 0][..], &length, &[58, hop_limit], &src, &dst, &message].concat()
}

/// A neighbour discovery message with a target and options.
pub fn neighbour(kind: u8, flags: u8, target: [u8; 16], options: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0, flags, 0, 0, 0][..], &target, options].concat()
}

/// A link-layer address option: 1 source, 2 target.
pub fn link_option(kind: u8, mac: [u8; 6]) -> Vec<u8> {
    [&[kind, 1][..], &mac].concat()
}

/// The solicited-node group of an address.
pub fn group_of(ip: [u8; 16]) -> [u8; 16] {
    [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, ip[13], ip[14], ip[15]]
}

/// The Ethernet address of that group.
pub fn group_mac(ip: [u8; 16]) -> [u8; 6] {
    [0x33, 0x33, 0xff, ip[13], ip[14], ip[15]]
}

/// A multicast neighbour solicitation with the source link-layer option.
pub fn solicitation(mac: [u8; 6], ip: [u8; 16], target: [u8; 16]) -> Vec<u8> {
    let message = neighbour(135, 0, target, &link_option(1, mac));
    ethernet(group_mac(target), mac, 0x86dd, &icmp6(ip, group_of(target), 255, &message))
}

/// A neighbour advertisement.
pub fn advertisement(
    (to, to_ip): ([u8; 6], [u8; 16]),
    mac: [u8; 6],
    target: [u8; 16],
    flags: u8,
) -> Vec<u8> {
    let message = neighbour(136, flags, target, &link_option(2, mac));
    ethernet(to, mac, 0x86dd, &icmp6(target, to_ip, 255, &message))
}

/// Inserts VLAN tags after the Ethernet addresses, the outermost first.
pub fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let tags: Vec<u8> = tags
        .iter()
        .flat_map(|(ethertype, vid)| [ethertype.to_be_bytes(), vid.to_be_bytes()].concat())
        .collect();
    [&frame[..12], &tags, &frame[12..]].concat()
}

/// The internet checksum, in its simplest form.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Offset of the network header behind any VLAN tags; `None` if it is of another EtherType.
pub fn network_header(frame: &[u8], ethertype: u16) -> Option<usize> {
    let found = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let mut at = 12;
    while matches!(found(at)?, 0x8100 | 0x88a8) {
        at += 4;
    }
    (found(at)? == ethertype).then_some(at + 2)
}

/// Writes the correct checksum into an ICMPv6 message, if the frame is long enough.
pub fn mend(frame: &mut [u8]) {
    let Some(packet) = network_header(frame, 0x86dd).and_then(|at| frame.get_mut(at..)) else { return };
    if packet.len() < 44 || packet[6] != 58 {
        return;
    }
    let length = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
    let end = (40 + length).min(packet.len()).max(44);
    packet[42..44].copy_from_slice(&[0, 0]);
    let pseudo = [&packet[8..40], &(length as u32).to_be_bytes(), &[0, 0, 0, 58]].concat();
    let sum = checksum(&[&pseudo, &packet[40..end]].concat());
    packet[42..44].copy_from_slice(&sum.to_be_bytes());
}
