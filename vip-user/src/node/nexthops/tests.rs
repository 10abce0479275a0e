use super::*;

fn part(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes
}

fn hop(parts: &[(u16, &[u8])]) -> NextHop {
    let mut message = vec![0; HEADER_LEN];
    message.extend(parts.iter().flat_map(|(kind, value)| part(*kind, value)));
    NextHop::parse(&message).unwrap()
}

#[test]
fn objects_and_groups_are_read() {
    let (one, two, three) = (1u32.to_ne_bytes(), 2u32.to_ne_bytes(), 3u32.to_ne_bytes());
    let oif = 7u32.to_ne_bytes();
    let group: Vec<u8> = [one, [0; 4], two, [0; 4]].concat();
    let v6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let hops = NextHops(
        [
            hop(&[(NHA_ID, &one), (NHA_OIF, &oif), (NHA_GATEWAY, &[192, 0, 2, 1])]),
            hop(&[(NHA_ID, &two), (NHA_OIF, &oif), (NHA_GATEWAY, &v6)]),
            hop(&[(NHA_ID, &three), (NHA_GROUP, &group)]),
        ]
        .map(|hop| (hop.id, hop))
        .into(),
    );
    let v4: IpAddr = [192, 0, 2, 1].into();
    assert_eq!(hops.ways(1), [(7, Some(v4))].into());
    assert_eq!(hops.ways(3), [(7, Some(v4)), (7, Some(v6.into()))].into());
    assert_eq!(hops.ways(9), [].into());
}

#[test]
fn what_is_cut_short_harms_nobody() {
    assert_eq!(NextHop::parse(&[0; 3]).unwrap(), NextHop::default());
    assert!(NextHop::parse(&[0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0, 1]).is_err());
}
