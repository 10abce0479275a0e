//! The programs at TC: the guard, and answers on interfaces without native XDP.

use crate::{
    maps::{Kernel, alone, drops_on_loss},
    skb::SkbFrame,
};
use aya_ebpf::{
    EbpfContext as _,
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::bpf_redirect,
    macros::classifier,
    programs::TcContext,
};
use aya_log_ebpf::debug;
use vip_common::{abi, egress::egress, env::Verdict, ingress::ingress, layer3::is_traffic};

/// Makes the same decision at TC ingress, for interfaces without native XDP. The answer leaves through
/// the egress guard of the same interface.
#[classifier]
pub fn xvip_ingress(ctx: TcContext) -> i32 {
    // On the stack, as in the guard: this program does not have the scratch space yet.
    let frame = SkbFrame::<true> { skb: ctx.as_ptr().cast() };
    if is_traffic(&frame) && !drops_on_loss() {
        return TC_ACT_UNSPEC;
    }
    alone(TC_ACT_UNSPEC, || decide_at_tc(frame.skb))
}

#[inline(never)]
fn decide_at_tc(skb: *mut __sk_buff) -> i32 {
    let mut frame = SkbFrame::<false> { skb };
    let env = Kernel::<false> { ifindex: frame.ifindex() };
    match ingress(&mut frame, &env) {
        Verdict::Pass => TC_ACT_UNSPEC,
        Verdict::Drop => TC_ACT_SHOT,
        // SAFETY: the kernel hands the program a valid __sk_buff; the helper takes plain numbers.
        Verdict::Reply => unsafe {
            (*skb).priority = abi::TC_PRIO_CONTROL;
            bpf_redirect(env.ifindex, 0) as i32
        },
    }
}

/// Stops claims without a live fence. It returns `TC_ACT_UNSPEC`, which equals `TCX_NEXT`, for all
/// other frames, so that later programs on the interface still run.
#[classifier]
pub fn xvip_egress(ctx: TcContext) -> i32 {
    guard::<false>(&ctx)
}

/// The same with messages.
#[classifier]
pub fn xvip_egress_debug(ctx: TcContext) -> i32 {
    guard::<true>(&ctx)
}

#[inline(always)]
fn guard<const MESSAGES: bool>(ctx: &TcContext) -> i32 {
    let frame = SkbFrame::<true> { skb: ctx.as_ptr().cast() };
    // SAFETY: as in `decide_at_tc`.
    let priority = unsafe { &mut (*frame.skb).priority };
    if *priority == abi::TC_PRIO_INTERACTIVE {
        *priority = 0;
    }
    if is_traffic(&frame) { TC_ACT_UNSPEC } else { check::<MESSAGES>(frame.skb) }
}

#[inline(never)]
fn check<const MESSAGES: bool>(skb: *mut __sk_buff) -> i32 {
    let frame = SkbFrame::<true> { skb };
    let env = Kernel::<true> { ifindex: frame.ifindex() };
    if egress(&frame, &env) != Verdict::Drop {
        return TC_ACT_UNSPEC;
    }
    if MESSAGES {
        debug!(&TcContext::new(skb), "claim stopped on {}", env.ifindex);
    }
    TC_ACT_SHOT
}
