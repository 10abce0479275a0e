//! Random frames: fixtures with changed bytes, added options, or a cut end.

use proptest::{
    prelude::*,
    sample::{Index, select},
};
use vip_common::env::Verdict;
use vip_tests::{
    frames::{mend, network_header},
    packets::Case,
};

/// Offset of the payload length in an IPv6 packet.
const PAYLOAD_LEN: usize = 4;

/// A fixture with some changed bytes, and perhaps more options or a cut end. Half of the frames get
/// a correct checksum. Most rules for neighbour discovery come after that check, and a frame with
/// only a changed byte never passes it.
pub fn mutated(cases: Vec<Case>) -> impl Strategy<Value = Vec<u8>> {
    // Many fixtures simply pass, and say little about the programs.
    let (passed, decided): (Vec<Case>, Vec<Case>) =
        cases.into_iter().partition(|case| case.verdict == Verdict::Pass);
    let frames = prop_oneof![1 => select(passed), 3 => select(decided)];
    let changes = prop::collection::vec((any::<Index>(), any::<u8>()), 0..4);
    let options = prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(option(), 1..5)];
    let cut = (any::<Index>(), prop::bool::weighted(0.75));
    (frames, options, changes, cut, any::<bool>()).prop_map(
        |(case, options, changes, (cut, whole), mended)| {
            let mut frame = case.frame;
            append(&mut frame, &options.concat());
            for (at, byte) in changes {
                let at = at.index(frame.len());
                frame[at] = byte;
            }
            if !whole {
                frame.truncate(15 + cut.index(frame.len().max(16) - 14));
            }
            if mended {
                mend(&mut frame);
            }
            frame
        },
    )
}

/// The bytes of a neighbour discovery option, mostly with a correct length.
fn option() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![Just(1), Just(2), Just(14), any::<u8>()];
    let units = prop_oneof![8 => 1..4_u8, 1 => any::<u8>()];
    (kind, units, prop::collection::vec(any::<u8>(), 8..33)).prop_map(|(kind, units, mut bytes)| {
        bytes.truncate(bytes.len() / 8 * 8);
        if (1..4).contains(&units) {
            bytes.resize(usize::from(units) * 8, 2);
        }
        bytes[..2].copy_from_slice(&[kind, units]);
        bytes
    })
}

/// Appends to the payload of an IPv6 packet. Other frames only become longer.
fn append(frame: &mut Vec<u8>, bytes: &[u8]) {
    frame.extend_from_slice(bytes);
    let Some(at) = network_header(frame, 0x86dd).map(|at| at + PAYLOAD_LEN) else { return };
    if let Some(length) = frame.get_mut(at..at + 2) {
        let longer = u16::from_be_bytes([length[0], length[1]]).wrapping_add(bytes.len() as u16);
        length.copy_from_slice(&longer.to_be_bytes());
    }
}
