//! The packet rules, on the host and through the loaded programs: same verdict, same bytes, same
//! counters. The kernel half needs root.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

#[path = "packets/interrupted.rs"]
mod interrupted;
#[path = "packets/mutations.rs"]
mod mutations;

use mutations::mutated;
use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestCaseResult, TestRng, TestRunner},
};
use vip_common::{checksum::Sum, counter::Counter, egress::egress, env::Verdict};
use vip_tests::{
    kernel_run::{KernelRun, Ran, has_multi_buffer_xdp},
    packets::{
        Case, claims, fences, holders,
        host::{Hook, HostEnv, HostFrame, run},
        ifaces, questions, strict, vips,
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

fn kernel(drop_on_loss: bool) -> KernelRun {
    let mut kernel = KernelRun::with(drop_on_loss).expect("the programs load");
    for (slot, holder) in holders() {
        kernel.set_holder(slot, holder).unwrap();
    }
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

/// Runs a program in the kernel. Returns the verdict, the frame afterwards, and the raised
/// counters.
fn in_kernel(kernel: &mut KernelRun, program: &str, frame: &[u8]) -> (Verdict, Vec<u8>, Vec<Counter>) {
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
    (verdict, ran.frame, kernel.counted().unwrap())
}

fn host_equals_kernel(program: &str, hook: Hook, cases: Vec<Case>) {
    if program == "xvip_xdp" && !has_multi_buffer_xdp().unwrap() {
        return;
    }
    let mut kernel = kernel(hook == Hook::Strict);
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

/// Debug messages once made the XDP program exceed its stack.
#[test]
fn the_verifier_accepts_every_program() {
    for (name, verdict) in vip_tests::verifier::verdicts(true).unwrap() {
        assert!(verdict.is_ok(), "{name}: {}", verdict.unwrap_err());
    }
}

/// As in the pods of `deploy/`: then the verifier is stricter, against speculative execution.
#[test]
fn the_verifier_accepts_them_with_the_rights_of_the_manifests() {
    let rights = vip_tests::lab::node::rights();
    // In a guest the binary is in another place than on the build machine.
    let here = ["/t/verifier", env!("CARGO_BIN_EXE_xvip-verifier")];
    let verifier = here.into_iter().find(|path| std::path::Path::new(path).exists()).unwrap();
    let output = std::process::Command::new("setpriv").args(rights).arg(verifier).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
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
        for readable in 0..case.frame.len() {
            let mut frame = HostFrame::new(&case.frame);
            frame.readable = readable;
            let verdict = egress(&frame, &HostEnv::default());
            assert_eq!(verdict, Verdict::Drop, "{}, readable up to {readable}", case.name);
        }
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
fn traffic_to_a_vip_that_is_not_held_is_dropped_where_it_is_asked_for() {
    on_host(Hook::Strict, strict::cases());
    host_equals_kernel("xvip_xdp", Hook::Strict, strict::cases());
    let cases = strict::cases().into_iter().filter(|case| tc_takes(&case.frame)).collect();
    host_equals_kernel("xvip_ingress", Hook::Strict, cases);
    // Frames other than traffic to a VIP follow the usual rules.
    host_equals_kernel("xvip_xdp", Hook::Strict, questions::cases());
    for case in strict::cases() {
        assert_eq!(run(Hook::Ingress, &case.frame).0, Verdict::Pass, "{} by default", case.name);
    }
}

#[test]
fn claims_in_the_kernel() {
    let cases = claims::cases().into_iter().filter(|case| tc_takes(&case.frame)).collect();
    host_equals_kernel("xvip_egress", Hook::Egress, cases);
}

/// Runs a property on many inputs. A failure shrinks, and names the seed; `XVIP_SEED` repeats it.
#[expect(clippy::disallowed_methods, reason = "a developer's replay")]
fn holds<S: Strategy>(cases: u32, strategy: &S, property: impl Fn(S::Value) -> TestCaseResult) {
    let given = std::env::var("XVIP_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = given.unwrap_or_else(|| vip_user::clock::boot().0);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    if let Err(error) = TestRunner::new_with_rng(config, rng).run(strategy, property) {
        panic!("XVIP_SEED={seed}: {error}");
    }
}

/// Each program gets a quarter of the frames, and the first one another quarter with
/// `on_loss: drop`. `cargo xtask soak` and guests set another number.
#[test]
#[expect(clippy::disallowed_methods, reason = "set by cargo xtask")]
fn host_equals_kernel_on_mutated_frames() {
    let frames = std::env::var("XVIP_FRAMES").map_or(280_000, |frames| frames.parse().unwrap());
    let (plain, strict) = (kernel(false), kernel(true));
    let (kernel, strict) = (std::cell::RefCell::new(plain), std::cell::RefCell::new(strict));
    let arriving = questions::cases().into_iter().chain(strict::cases()).collect();
    let strategy = (mutated(arriving), mutated(claims::cases()));
    let xdp = has_multi_buffer_xdp().unwrap();
    let played = std::cell::Cell::new(0);
    holds(frames / 4, &strategy, |(question, claim)| {
        played.set(played.get() + 4);
        if played.get() % 10_000_000 == 0 {
            println!("{} of {frames} frames", played.get());
        }
        let kernel = &mut kernel.borrow_mut();
        let strict = &mut strict.borrow_mut();
        if xdp {
            prop_assert_eq!(in_kernel(kernel, "xvip_xdp", &question), run(Hook::Ingress, &question));
            prop_assert_eq!(in_kernel(strict, "xvip_xdp", &question), run(Hook::Strict, &question));
        }
        for (program, hook, frame) in
            [("xvip_ingress", Hook::Ingress, &question), ("xvip_egress", Hook::Egress, &claim)]
        {
            // A frame that TC refuses goes to XDP instead, so that the count stays the same.
            if tc_takes(frame) {
                prop_assert_eq!(in_kernel(kernel, program, frame), run(hook, frame));
            } else if xdp {
                prop_assert_eq!(in_kernel(kernel, "xvip_xdp", frame), run(Hook::Ingress, frame));
            }
        }
        Ok(())
    });
}

/// RFC 1071, literally: a sum of big-endian words, carries added back, complemented.
fn checksum_as_told(bytes: &[u8]) -> u16 {
    let mut sum = 0_u64;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The programs' sum is that of the RFC, and every answered solicitation has a correct one.
#[test]
fn checksums_are_those_of_the_rfc() {
    let words = prop::array::uniform32(any::<u16>());
    holds(20_000, &words, |words| {
        let mut sum = Sum::default();
        sum.add(&words);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let told = !checksum_as_told(&bytes);
        // Zero has two representations in one's complement.
        let ours = sum.fold().to_be();
        prop_assert!(
            ours == told || [ours, told].iter().all(|sum| sum.is_multiple_of(0xffff)),
            "{ours} {told}"
        );
        Ok(())
    });
    let answered = std::cell::Cell::new(0);
    holds(40_000, &mutated(questions::cases()), |question| {
        let (verdict, after, _) = run(Hook::Ingress, &question);
        if verdict == Verdict::Reply && after[12..14] == [0x86, 0xdd] {
            answered.set(answered.get() + 1);
            let (payload, next) = (after.len() - 54, after[20]);
            let mut pseudo = after[22..54].to_vec();
            pseudo.extend([0, 0, (payload >> 8) as u8, payload as u8, 0, 0, 0, next]);
            pseudo.extend(&after[54..]);
            prop_assert_eq!(checksum_as_told(&pseudo), 0, "{:?}", after);
        }
        Ok(())
    });
    assert!(answered.get() > 500, "only {} solicitations were answered", answered.get());
}
