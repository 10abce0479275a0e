//! The programs that run in the kernel. They fetch bytes and return verdicts; `vip-common` makes every
//! decision.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(missing_docs, reason = "the program macros drop doc comments")]

mod frame;
mod maps;
mod skb;
mod tc;

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::bpf_ktime_get_boot_ns,
    macros::xdp,
    programs::XdpContext,
};
use aya_log_ebpf::debug;
use frame::XdpFrame;
use maps::{Kernel, alone, drops_on_loss};
use vip_common::{env::Verdict, ingress::ingress, layer3::is_traffic};

/// Answers, drops or passes arriving frames, in the driver (or in generic mode).
#[xdp(frags)]
pub fn xvip_xdp(ctx: XdpContext) -> u32 {
    answer::<false>(&ctx)
}

/// The same with messages. These are separate programs, because the verifier follows speculative
/// execution into messages that are off, and kernels before 6.16 refuse that without CAP_PERFMON.
#[xdp(frags)]
pub fn xvip_xdp_debug(ctx: XdpContext) -> u32 {
    answer::<true>(&ctx)
}

#[inline(always)]
fn answer<const MESSAGES: bool>(ctx: &XdpContext) -> u32 {
    let traffic = is_traffic(&XdpFrame { ctx: ctx.ctx });
    if traffic && !drops_on_loss() {
        return xdp_action::XDP_PASS;
    }
    // The stack may answer a frame that passes, but its answer meets the guard.
    alone(xdp_action::XDP_PASS, || decide::<MESSAGES>(ctx.ctx))
}

/// A separate function, like those in tc.rs: without CAP_PERFMON every word on the stack costs a
/// barrier against speculative stores. Traffic passes before anything is put there.
#[inline(never)]
fn decide<const MESSAGES: bool>(ctx: *mut xdp_md) -> u32 {
    // SAFETY: the kernel hands the program a valid xdp_md.
    let env = Kernel::<false> { ifindex: unsafe { (*ctx).ingress_ifindex } };
    let verdict = ingress(&mut XdpFrame { ctx }, &env);
    if MESSAGES && verdict != Verdict::Pass {
        let reply = verdict == Verdict::Reply;
        debug!(&XdpContext::new(ctx), "xdp on {}: reply {}", env.ifindex, reply as u32);
    }
    match verdict {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Drop => xdp_action::XDP_DROP,
        Verdict::Reply => xdp_action::XDP_TX,
    }
}

/// Writes `bpf_ktime_get_boot_ns` over the first eight bytes of the frame. User space runs it once, by
/// `BPF_PROG_TEST_RUN`, to compare its own `CLOCK_BOOTTIME` with the kernel's (time namespaces).
#[xdp]
pub fn xvip_clock(ctx: XdpContext) -> u32 {
    // SAFETY: the helper reads a clock.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    if let Some(bytes) = (XdpFrame { ctx: ctx.ctx }).at::<[u8; 8]>(0) {
        *bytes = now.to_ne_bytes();
    }
    xdp_action::XDP_PASS
}

/// Passes every frame: `XDP_TX` needs a program at the far end of a veth, and the bench a baseline.
#[xdp(frags)]
pub fn xvip_pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The helpers that the programs call are GPL-only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
