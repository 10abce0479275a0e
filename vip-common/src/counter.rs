//! One named counter per outcome. The position is the index in the per-CPU `COUNTERS` map.

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)*) => {
        /// Outcomes that the programs count. New ones go to the end: the index is part of the ABI.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Counter { $($(#[doc = $doc])+ $variant,)* }

        impl Counter {
            /// All counters in index order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name shown in status and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

counters! {
    /// ARP requests answered.
    ArpAnswered = "arp_answered",
    /// Neighbour solicitations answered.
    NdAnswered = "nd_answered",
    /// Questions dropped: this node does not hold the VIP.
    QuestionNotHeld = "question_not_held",
    /// Questions dropped: the fence has run out.
    QuestionExpired = "question_expired",
    /// Questions dropped: the entry belongs to an earlier tenure than the fence.
    QuestionStale = "question_stale_generation",
    /// Questions dropped: the VIP is not answered on this interface.
    QuestionWrongInterface = "question_wrong_interface",
    /// Questions dropped: the interface is down.
    QuestionInterfaceDown = "question_interface_down",
    /// Questions dropped: malformed (RFC 826, RFC 4861 section 7.1.1).
    QuestionMalformed = "question_malformed",
    /// Questions dropped: the sender's address is not one of a single station.
    QuestionBadSender = "question_bad_sender",
    /// Questions dropped: the frame could not be resized or written for the answer.
    QuestionResizeFailed = "question_resize_failed",
    /// Claims let out: the fence is live.
    ClaimSent = "claim_sent",
    /// Claims stopped at egress: this node does not hold the VIP.
    ClaimNotHeld = "claim_not_held",
    /// Claims stopped at egress: the fence has run out.
    ClaimExpired = "claim_expired",
    /// Claims stopped at egress: the entry belongs to an earlier tenure than the fence.
    ClaimStale = "claim_stale_generation",
    /// Claims stopped at egress: the VIP is not answered on this interface.
    ClaimWrongInterface = "claim_wrong_interface",
    /// Claims stopped at egress: the interface is down.
    ClaimInterfaceDown = "claim_interface_down",
    /// Claims of other hosts that arrived, dropped or not.
    ForeignClaim = "foreign_claim",
    /// Claim events that were lost because the ring buffer was full.
    ClaimEventLost = "claim_event_lost",
    /// Frames stopped at egress: too many headers, or bytes that cannot be read, may hide a claim.
    ClaimHidden = "claim_hidden",
    /// IP packets to a VIP that were dropped because this node does not hold it (`on_loss: drop`).
    TrafficDropped = "traffic_dropped",
    /// Claims of other hosts that were dropped because no known node has that MAC
    /// (`guard_neighbours`).
    ForeignClaimDropped = "foreign_claim_dropped",
}
