//! Programs for `cargo xtask bench` only; the shipped object contains none of them. `BPF_PROG_TEST_RUN`
//! does not reset the frame between repeats, so an answered question must be restored before each. The
//! cost of that is measured alone and subtracted.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(missing_docs, reason = "the program macros drop doc comments")]

mod frame;
mod maps;

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    btf_maps::Array,
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use frame::XdpFrame;
use maps::{Kernel, alone, drops_on_loss};
use vip_common::{env::Verdict, ingress::ingress, layer3::is_traffic};

/// The question, as 16-bit words: an ARP request (60 bytes) or an NS (86 bytes).
#[btf_map]
static QUESTION: Array<[u16; 43], 1> = Array::new();

#[inline(never)]
fn restore(ctx: *mut xdp_md) {
    let mut frame = XdpFrame { ctx };
    let Some(question) = QUESTION.get(0) else { return };
    if let Some(words) = frame.at::<[u16; 43]>(0) {
        *words = *question;
    } else if let Some(words) = frame.at::<[u16; 30]>(0) {
        words.copy_from_slice(&question[..30]);
    }
}

/// Only restores the question.
#[xdp(frags)]
pub fn bench_restore(ctx: XdpContext) -> u32 {
    restore(ctx.ctx);
    xdp_action::XDP_PASS
}

/// Restores the question and drops it: the cost of restoring where frames are live.
#[xdp(frags)]
pub fn bench_restore_drop(ctx: XdpContext) -> u32 {
    restore(ctx.ctx);
    xdp_action::XDP_DROP
}

/// Only drops.
#[xdp(frags)]
pub fn bench_drop(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// Restores the question and decides about it.
#[xdp(frags)]
pub fn bench_answer(ctx: XdpContext) -> u32 {
    restore(ctx.ctx);
    answer(&ctx)
}

/// Decides about a frame that is not changed.
#[xdp(frags)]
pub fn bench_decide(ctx: XdpContext) -> u32 {
    answer(&ctx)
}

#[inline(always)]
fn answer(ctx: &XdpContext) -> u32 {
    let traffic = is_traffic(&XdpFrame { ctx: ctx.ctx });
    if traffic && !drops_on_loss() {
        return xdp_action::XDP_PASS;
    }
    alone(xdp_action::XDP_PASS, || decide(ctx.ctx))
}

#[inline(never)]
fn decide(ctx: *mut xdp_md) -> u32 {
    // SAFETY: the kernel hands the program a valid xdp_md.
    let env = Kernel::<false> { ifindex: unsafe { (*ctx).ingress_ifindex } };
    match ingress(&mut XdpFrame { ctx }, &env) {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Drop => xdp_action::XDP_DROP,
        Verdict::Reply => xdp_action::XDP_TX,
    }
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
