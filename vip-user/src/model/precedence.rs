//! Work on the host waits for elections, but not for long.

use super::time::BootNs;
use std::time::Duration;

/// The longest time that work waits. With many Leases, some election always has something to do.
const LIMIT: Duration = Duration::from_millis(300);

/// When due work was first put off, and until when it waits now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Precedence(Option<(BootNs, BootNs)>);

impl Precedence {
    /// Whether work that is due at `due` must wait for an election that is due at `next`. Call this in
    /// every turn.
    pub fn puts_off(&mut self, now: BootNs, due: BootNs, next: Option<BootNs>) -> bool {
        let since = self.0.map_or(now, |(since, _)| since);
        let end = since.after(LIMIT);
        let until = next.filter(|_| due <= now && now < end).map(|next| next.min(end));
        self.0 = until.map(|until| (since, until));
        until.is_some()
    }

    /// When the loop must wake for work that is due at `due`.
    pub fn wake_at(&self, due: BootNs) -> BootNs {
        self.0.map_or(due, |(_, until)| due.max(until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> BootNs {
        BootNs(ms * 1_000_000)
    }

    #[test]
    fn work_waits_for_the_next_election_and_no_longer() {
        let mut elections = Precedence::default();
        assert!(!elections.puts_off(ms(0), ms(5), Some(ms(7))), "nothing is due");
        assert!(elections.puts_off(ms(5), ms(5), Some(ms(7))));
        assert_eq!(elections.wake_at(ms(5)), ms(7));
        assert!(!elections.puts_off(ms(7), ms(5), None));
        assert_eq!(elections.wake_at(ms(5)), ms(5));
    }

    /// Other events cause turns in between. In an earlier version each of them restarted the limit.
    #[test]
    fn work_is_not_put_off_for_good_where_an_election_is_always_near() {
        let (mut elections, mut waited) = (Precedence::default(), 0);
        // Some election has something to do every 10 ms, and an event causes a turn every 3 ms.
        while elections.puts_off(ms(waited), ms(0), Some(ms(waited / 10 * 10 + 10))) {
            assert!(elections.wake_at(ms(0)) > ms(waited) && elections.wake_at(ms(0)) <= ms(300));
            waited += 3;
        }
        assert_eq!(waited, 300);
    }
}
