//! The packet rules, on the host and through the loaded programs: same verdict, same bytes, same
//! counters. The kernel half needs root.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

use proptest::prelude::*;
use vip_common::{counter::Counter, egress::egress, env::Verdict};
use vip_tests::{
    kernel_run::{KernelRun, Ran},
    packets::{
        Case, claims, fences,
        host::{Hook, HostEnv, HostFrame, run},
        ifaces, questions, vips,
    },
};

fn on_host(hook: Hook, cases: Vec<Case>) {
    for case in cases {
        let (verdict, after, counted) = run(hook, &case.frame);
        assert_eq!(verdict, case.verdict, "{}", case.name);
        assert_eq!(counted, case.counted, "{}", case.name);
        assert_eq!(after, case.after.unwrap_or(case.frame), "{}", case.name);
    }
}

fn kernel() -> KernelRun {
    let mut kernel = KernelRun::new().expect("the programs load");
    for (ip, vip) in vips() {
        kernel.set_vip(ip, vip).unwrap();
    }
    for (slot, fence) in fences() {
        kernel.set_fence(slot, fence).unwrap();
    }
    for (port, iface) in ifaces() {
        kernel.set_iface(port, iface).unwrap();
    }
    kernel
}

/// What the kernel's program of a hook does: verdict, frame, what was counted.
fn in_kernel(kernel: &mut KernelRun, program: &str, frame: &[u8]) -> (Verdict, Vec<u8>, Vec<Counter>) {
    let before = kernel.counters().unwrap();
    let (verdict, ran) = if program == "xvip_xdp" {
        let ran = kernel.xdp(program, frame, 1).unwrap();
        (
            match ran.action {
                1 => Verdict::Drop,
                2 => Verdict::Pass,
                3 => Verdict::Reply,
                n => panic!("XDP action {n}"),
            },
            ran,
        )
    } else {
        let ran: Ran = kernel.tc(program, frame, 1).unwrap();
        (
            match ran.action.cast_signed() {
                2 => Verdict::Drop,
                -1 => Verdict::Pass,
                7 => Verdict::Reply,
                n => panic!("TC action {n}"),
            },
            ran,
        )
    };
    let after = kernel.counters().unwrap();
    let counted = Counter::ALL.iter().zip(before.iter().zip(after));
    let counted =
        counted.flat_map(|(counter, (before, after))| vec![*counter; (after - before) as usize]);
    (verdict, ran.frame, counted.collect())
}

fn host_equals_kernel(program: &str, hook: Hook, cases: Vec<Case>) {
    let mut kernel = kernel();
    for case in cases {
        let (verdict, after, counted) = in_kernel(&mut kernel, program, &case.frame);
        let expected = run(hook, &case.frame);
        assert_eq!(verdict, expected.0, "{}", case.name);
        assert_eq!(counted, expected.2, "{}", case.name);
        assert_eq!(after, expected.1, "{}", case.name);
    }
}

/// `BPF_PROG_TEST_RUN` refuses socket buffers without a whole IP header (EINVAL, seen on 6.18); the
/// stack would have dropped such a frame before TC.
fn tc_takes(frame: &[u8]) -> bool {
    let least = match frame.get(12..14) {
        Some([0x86, 0xdd]) => 54,
        Some([0x08, 0x00]) => 34,
        _ => 15,
    };
    frame.len() >= least
}

#[test]
fn questions_on_the_host() {
    on_host(Hook::Ingress, questions::cases());
}

#[test]
fn claims_on_the_host() {
    on_host(Hook::Egress, claims::cases());
}

#[test]
fn a_claim_that_cannot_be_read_is_stopped() {
    for case in claims::cases().into_iter().filter(|case| case.verdict == Verdict::Drop) {
        let mut frame = HostFrame::new(&case.frame);
        frame.in_pieces = true;
        assert_eq!(egress(&mut frame, &HostEnv::default()), Verdict::Drop, "{}", case.name);
    }
}

#[test]
fn questions_in_the_kernel_at_xdp() {
    host_equals_kernel("xvip_xdp", Hook::Ingress, questions::cases());
}

#[test]
fn questions_in_the_kernel_at_tc() {
    let cases = questions::cases().into_iter().filter(|case| tc_takes(&case.frame)).collect();
    host_equals_kernel("xvip_ingress", Hook::Ingress, cases);
}

#[test]
fn claims_in_the_kernel() {
    let cases = claims::cases().into_iter().filter(|case| tc_takes(&case.frame)).collect();
    host_equals_kernel("xvip_egress", Hook::Egress, cases);
}

/// A fixture with some bytes changed and perhaps cut.
fn mutated(cases: Vec<Case>) -> impl Strategy<Value = Vec<u8>> {
    let frames: Vec<Vec<u8>> = cases.into_iter().map(|case| case.frame).collect();
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (prop::sample::select(frames), changes, any::<prop::sample::Index>(), any::<bool>()).prop_map(
        |(mut frame, changes, cut, whole)| {
            for (at, byte) in changes {
                let at = at.index(frame.len());
                frame[at] = byte;
            }
            if !whole {
                frame.truncate(15 + cut.index(frame.len().max(16) - 14));
            }
            frame
        },
    )
}

#[test]
fn host_equals_kernel_on_mutated_frames() {
    let mut kernel = kernel();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let strategy = (mutated(questions::cases()), mutated(claims::cases()));
    let kernel = std::cell::RefCell::new(&mut kernel);
    runner
        .run(&strategy, |(question, claim)| {
            let kernel = &mut **kernel.borrow_mut();
            prop_assert_eq!(in_kernel(kernel, "xvip_xdp", &question), run(Hook::Ingress, &question));
            if tc_takes(&claim) {
                prop_assert_eq!(in_kernel(kernel, "xvip_egress", &claim), run(Hook::Egress, &claim));
            }
            Ok(())
        })
        .unwrap();
}
