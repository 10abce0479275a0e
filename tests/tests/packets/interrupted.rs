//! Programs that interrupt each other on one CPU, as they may with PREEMPT_RT since Linux 6.18.

use super::{in_kernel, kernel, tc_takes};
use aya::{
    TestRun as _,
    programs::{TestRunOptions, Xdp},
};
use std::{thread, time::Duration};
use vip_common::{counter::Counter, env::Verdict};
use vip_tests::{
    kernel_run::has_multi_buffer_xdp,
    packets::{
        host::{Hook, run},
        questions,
    },
};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

/// The data of the interrupted program stay unchanged. The frame goes to the stack, whose answer
/// goes through the guard.
#[test]
fn a_program_that_interrupts_another_touches_nothing_and_decides_nothing() {
    let with_users = |users| {
        let mut words = [0x5a5a_5a5a_5a5a_5a5a_u64; 9];
        words[8] = users;
        words
    };
    let mut kernel = kernel(false);
    let xdp: &[&str] = if has_multi_buffer_xdp().unwrap() { &["xvip_xdp"] } else { &[] };
    for program in xdp.iter().chain(&["xvip_ingress"]) {
        let cases = || questions::cases().into_iter().filter(|case| tc_takes(&case.frame));
        kernel.set_scratch(with_users(1)).unwrap();
        for case in cases() {
            let (verdict, after, counted) = in_kernel(&mut kernel, program, &case.frame);
            assert_eq!(verdict, Verdict::Pass, "{program}, {}", case.name);
            assert_eq!((after, counted), (case.frame, vec![]), "{program}, {}", case.name);
            let left = kernel.scratch().unwrap();
            let same = left.iter().all(|words| *words == with_users(1));
            assert!(same, "{program}, {}: {left:x?}", case.name);
        }
        // The other program has ended.
        kernel.set_scratch(with_users(0)).unwrap();
        for case in cases() {
            let expected = run(Hook::Ingress, &case.frame);
            assert_eq!(in_kernel(&mut kernel, program, &case.frame), expected, "{}", case.name);
            let left = kernel.scratch().unwrap();
            assert!(left.iter().all(|words| words[8] == 0), "{program}, {}: {left:x?}", case.name);
        }
        let used = kernel.scratch().unwrap();
        assert!(used.iter().any(|words| *words != with_users(0)), "{program} never used it");
    }
}

/// The verdict on a question.
fn asked(xdp: &Xdp, question: &[u8]) -> u32 {
    let mut out = vec![0; 4096];
    let options = TestRunOptions {
        data_in: Some(question),
        data_out: Some(&mut out),
        ..TestRunOptions::default()
    };
    xdp.test_run(options).unwrap().return_value
}

/// Moves this thread to the first CPU. A priority above 0 lets it interrupt others there.
fn run_on_first_cpu(priority: i32) -> bool {
    // SAFETY: all-zero is valid for both, and the pointers are to live values.
    unsafe {
        let mut cpus: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut cpus);
        assert_eq!(libc::sched_setaffinity(0, size_of_val(&cpus), &raw const cpus), 0);
        let mut parameter: libc::sched_param = std::mem::zeroed();
        parameter.sched_priority = priority;
        priority == 0 || libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameter) == 0
    }
}

/// One thread asks for a VIP that is not held. Another thread keeps interrupting it and asks for a
/// held one. Without the rule, the first thread gets an answer in a few rounds, from the entry of
/// the other's key. On kernels without PREEMPT_RT a test run cannot be interrupted, so this shows
/// nothing.
#[test]
fn a_question_for_a_vip_that_is_not_held_is_never_answered_with_another_ones_entry() {
    const ROUNDS: u32 = 10_000;
    if !has_multi_buffer_xdp().unwrap() {
        return;
    }
    let arp = |case: &vip_tests::packets::Case| case.frame.get(12..14) == Some(&[8, 6]);
    let find = |wanted: Counter| {
        let mut cases = questions::cases().into_iter().filter(arp);
        cases.find(|case| case.counted == [wanted]).unwrap().frame
    };
    let (held, not_held) = (find(Counter::ArpAnswered), find(Counter::QuestionNotHeld));
    let kernel = kernel(false);
    let xdp = kernel.answering_xdp().unwrap();
    assert_eq!((asked(xdp, &held), asked(xdp, &not_held)), (XDP_TX, XDP_DROP));

    let version = std::fs::read_to_string("/proc/sys/kernel/version").unwrap();
    let is_real_time = version.contains("PREEMPT_RT");
    let (answered, interrupted) = thread::scope(|scope| {
        let urgent = scope.spawn(|| {
            let urgent = run_on_first_cpu(10);
            assert!(urgent || !is_real_time, "a thread of this kernel may not interrupt another");
            let mut verdicts = [0_u32; 5];
            for _ in 0..ROUNDS {
                thread::sleep(Duration::from_micros(50));
                verdicts[asked(xdp, &held) as usize] += 1;
            }
            verdicts
        });
        let not_held = &not_held;
        let patient = scope.spawn(move || {
            run_on_first_cpu(0);
            let mut verdicts = [0_u32; 5];
            while !urgent.is_finished() {
                verdicts[asked(xdp, not_held) as usize] += 1;
            }
            (verdicts, urgent.join().unwrap())
        });
        patient.join().unwrap()
    });
    println!("not held: {answered:?}, held: {interrupted:?} (aborted, drop, pass, tx, redirect)");
    let sum = |verdicts: [u32; 5], of: &[u32]| of.iter().map(|n| verdicts[*n as usize]).sum::<u32>();
    assert_eq!(sum(answered, &[XDP_DROP, XDP_PASS]), answered.iter().sum::<u32>(), "{answered:?}");
    assert_eq!(sum(interrupted, &[XDP_TX, XDP_PASS]), ROUNDS, "{interrupted:?}");
    assert!(sum(interrupted, &[XDP_TX]) > 0 && sum(answered, &[XDP_DROP]) > 0);
}
