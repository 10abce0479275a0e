//! Log lines for changes of leadership, in the words that users of kube-vip search for.

use crate::model::news::{Notice, TakeReason};
use std::{net::IpAddr, time::Duration};

/// The value of the label `reason` in metrics.
pub const fn reason(notice: &Notice) -> &'static str {
    match notice {
        Notice::TookOver(TakeReason::Released) => "released",
        Notice::TookOver(TakeReason::Expired) => "expired",
        Notice::TookOver(TakeReason::Created) => "created",
        Notice::Regained => "regained",
        Notice::Adopted => "adopted",
        Notice::Lost(_) => "lost",
        Notice::Following(_) => "following",
        Notice::Foreign { .. } => "foreign",
        Notice::Missing => "missing",
        Notice::Reasserted => "reasserted",
        Notice::Lapsed => "lapsed",
        Notice::Yields { .. } => "yields",
        Notice::NobodyTook => "nobody_took",
        Notice::Released => "gave_up",
        Notice::ReleaseFailed => "release_failed",
    }
}

/// The most VIPs that one line of the log names.
const MAX_NAMED: usize = 8;

/// Logs that announcements of these VIPs begin.
pub fn log_broadcast(vips: &[IpAddr], lease: &str) {
    tracing::info!(lease, "Broadcasting ARP for {}", named(vips));
}

/// Logs that VIPs which are no longer answered are served for this long.
pub fn log_remains(vips: &[IpAddr], lease: &str, linger: Duration) {
    tracing::info!(lease, ?linger, "VIP addresses remain on interface: {}", named(vips));
}

/// Logs that VIPs are served no longer, because their time is over.
pub fn log_cleaned_up(vips: &[IpAddr], lease: &str) {
    tracing::info!(lease, "cleaned up preserved VIP {}", named(vips));
}

fn named(vips: &[IpAddr]) -> String {
    let named: Vec<String> = vips.iter().take(MAX_NAMED).map(IpAddr::to_string).collect();
    let more = vips.len().saturating_sub(MAX_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    named.join(", ") + &more
}

/// Logs one change of a Lease (`namespace/name`) as seen by `node`.
pub fn log_notice(notice: &Notice, lease: &str, node: &str) {
    match notice {
        Notice::TookOver(reason) => {
            let why = match reason {
                TakeReason::Released => "the holder released it",
                TakeReason::Expired => "the holder was silent for too long",
                TakeReason::Created => "there was no holder",
            };
            tracing::info!(lease, node, why, "Acquired leadership, took over VIP as new leader");
        }
        Notice::Regained => tracing::info!(lease, node, "leadership regained"),
        Notice::Adopted => tracing::info!(lease, node, "leadership preserved across a restart"),
        Notice::Lost(holder) => tracing::warn!(lease, %holder, "lost leadership"),
        Notice::Following(holder) => tracing::info!(lease, %holder, "new leader elected"),
        Notice::Foreign { holder, own_name: false } => {
            tracing::warn!(lease, %holder, "the leader is not xvip; it is waited out");
        }
        Notice::Foreign { holder, own_name: true } => tracing::warn!(
            lease, %holder, "another program on this node holds the Lease; its frames pass"
        ),
        Notice::Missing => tracing::info!(lease, "the Lease does not exist"),
        Notice::Reasserted => {
            tracing::warn!(lease, "the Lease was lost under a live fence; written again");
        }
        Notice::Lapsed => {
            tracing::warn!(lease, "leadership lapsed: no write was confirmed in time");
        }
        Notice::Yields { to, fitness } => {
            tracing::warn!(lease, node, %to, ?fitness, "giving way to a node that can serve better");
        }
        Notice::NobodyTook => {
            tracing::warn!(lease, node, "nobody has taken the Lease; leadership stays here");
        }
        Notice::Released => tracing::info!(lease, node, "leadership released"),
        Notice::ReleaseFailed => {
            tracing::warn!(lease, "leadership could not be released; it runs out");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_a_few_vips() {
        let vips: Vec<IpAddr> = (1..=10).map(|last| IpAddr::from([192, 0, 2, last])).collect();
        assert_eq!(named(&vips[..2]), "192.0.2.1, 192.0.2.2");
        assert!(named(&vips).ends_with("192.0.2.8 and 2 more"), "{}", named(&vips));
    }
}
