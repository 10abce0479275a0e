//! Any bytes as a Lease that the API returns, to a candidate and to a holder. Nothing panics, a
//! read alone raises no fence, and a holder is deposed or stays holder.
#![no_main]

use k8s_openapi::api::coordination::v1::Lease;
use libfuzzer_sys::fuzz_target;
use vip_user::{
    cluster::lease::record,
    model::{
        effects::FenceChange,
        fitness::Fitness,
        lease::{
            election::{Election, Identity, Input, Source, Written},
            state::State,
        },
        time::{BootNs, Now},
        timing::Timing,
    },
};

fuzz_target!(|bytes: &[u8]| {
    let Ok(lease) = serde_json::from_slice::<Lease>(bytes) else { return };
    let record = record(&lease);
    for mut election in [Some(candidate()), holder()].into_iter().flatten() {
        let read = |ms| Source::Quorum(at(ms).boot);
        for (ms, source) in
            [(10, read(10)), (20, Source::Watch), (5_000, read(5_000)), (5_010, read(20))]
        {
            let input = Input::Observed(source, Some(record.clone()));
            let turn = election.step(at(ms), input);
            assert!(!turn.fences.iter().any(FenceChange::is_new), "a fence rose from a reading");
            let _ = election.wake_at(at(ms).boot);
        }
        let _ = election.set_fitness(Fitness::Unable, Vec::new());
        for write in election.step(at(20_000), Input::Tick).writes() {
            let failed = Input::Written { id: write.id, outcome: Written::Failed };
            let _ = election.step(at(20_001), failed);
        }
    }
});

fn at(ms: u64) -> Now {
    Now { boot: BootNs((100_000 + ms) * 1_000_000), wall_us: 1_700_000_000_000_000 + ms as i64 * 1_000 }
}

fn candidate() -> Election {
    let me = Identity { node: "a".into(), process: "p".into(), boot_id: "b".into() };
    let timing = Timing::of(3);
    Election::new(me, timing, 0, None)
}

/// An election that has created its Lease and holds it for a short time.
fn holder() -> Option<Election> {
    let mut election = candidate();
    let before = |ms: u64| {
        let Now { boot, wall_us } = at(0);
        Now { boot: BootNs(boot.0 - (20_000 - ms) * 1_000_000), wall_us }
    };
    let mut turn = election.step(before(0), Input::Observed(Source::Quorum(before(0).boot), None));
    for ms in (1..200).map(|step| step * 100) {
        let now = before(ms);
        if let Some(write) = turn.writes().next() {
            let stored = write.stored("u".into(), 1_000);
            let outcome = Written::Stored(stored);
            let _ = election.step(now, Input::Written { id: write.id, outcome });
            return matches!(election.state(), State::Holding(_)).then_some(election);
        }
        turn = election.step(now, Input::Tick);
    }
    None
}
