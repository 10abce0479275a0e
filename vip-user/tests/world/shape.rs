//! The coverage of a simulation: shapes of states, and the inputs that met them.

use std::{collections::BTreeSet, fmt};
use vip_user::model::{
    agent::Event,
    lease::{
        election::{Input, Source, Written},
        state::State,
    },
    time::BootNs,
};

/// A state without its numbers, and the kind of input that arrived in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape {
    state: &'static str,
    /// Whether the fence is live.
    live: bool,
    /// While holding, whether a newer version is known. While waiting, whether the Lease was released.
    /// While leaving, whether the kernel is silent.
    marked: bool,
    /// Writes in flight, at most two.
    in_flight: usize,
    input: &'static str,
}

impl Shape {
    /// `None`: the event is no input to an election, or is not counted.
    pub fn of(now: BootNs, state: &State, event: &Event) -> Option<Self> {
        let input = match event {
            Event::Seen(_, Source::Quorum(_), Some(_)) => "read",
            Event::Seen(_, Source::Quorum(_), None) => "read of nothing",
            Event::Seen(_, Source::Watch, _) => "watch event",
            Event::Silenced(_, true) => "silenced",
            Event::Silenced(_, false) => "not silenced",
            Event::Stop => "leave",
            Event::Tick => "timer",
            Event::Election(_, input) => Self::input(input)?,
            _ => return None,
        };
        let (state, live, marked, in_flight) = Self::state(now, state);
        Some(Self { state, live, marked, in_flight, input })
    }

    fn input(input: &Input) -> Option<&'static str> {
        Some(match input {
            Input::Written { outcome: Written::Stored(_), .. } => "stored",
            Input::Written { outcome: Written::Conflict, .. } => "conflict",
            Input::Written { outcome: Written::Failed, .. } => "failed write",
            Input::Written { outcome: Written::KeptBack, .. } => "write kept back",
            Input::NotLowered(_) => "fence not lowered",
            Input::ReadFailed => "failed read",
            Input::Observed(..)
            | Input::Silenced
            | Input::HandOver(_)
            | Input::Leave
            | Input::Listed(..)
            | Input::Heard(..)
            | Input::Visited(..)
            | Input::Tick => return None,
        })
    }

    fn state(now: BootNs, state: &State) -> (&'static str, bool, bool, usize) {
        match state {
            State::Unknown => ("unknown", false, false, 0),
            State::Waiting(waiting) => {
                let taking = usize::from(waiting.taking.is_some());
                let state = if waiting.seen.is_some() { "waiting" } else { "waiting for nothing" };
                (state, false, waiting.released, taking)
            }
            State::Holding(holding) => {
                ("holding", now < holding.until, holding.stale, holding.in_flight.len().min(2))
            }
            State::Leaving(holding) => {
                ("leaving", now < holding.until, holding.silent, holding.in_flight.len().min(2))
            }
            State::Left | State::Moved => ("left", false, false, 0),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { state, live, marked, in_flight, input } = *self;
        let word = |yes: bool, word: &'static str| if yes { word } else { "" };
        let mark = if state == "holding" {
            ", stale"
        } else if state == "leaving" {
            ", silent"
        } else {
            ", released"
        };
        let (live, mark) = (word(live, ", live"), word(marked, mark));
        write!(f, "{state}{live}{mark}, {in_flight} on the way: {input}")
    }
}

/// The number of shapes of each state, as a table.
pub fn report(shapes: &BTreeSet<Shape>) -> String {
    let states: BTreeSet<&str> = shapes.iter().map(|shape| shape.state).collect();
    let count = |state: &str| shapes.iter().filter(|shape| shape.state == state).count();
    let rows: Vec<String> =
        states.iter().map(|state| format!("  {state:<20} {:>3}", count(state))).collect();
    format!("{} shapes of state and input:\n{}", shapes.len(), rows.join("\n"))
}
