//! The demo as one HTML page: a timeline per fault. Self-contained, without scripts.

use crate::{
    faults::{Fault, Outcome, Recording},
    verdict::settings,
};
use std::fmt::Write as _;
use vip_user::model::timing::Timing;

const WIDTH: f64 = 920.0;
const LEFT: f64 = 110.0;
const ROW: f64 = 26.0;
const TOP: f64 = 24.0;
/// Events closer together than this are drawn as one bar. Probes leave every 5 ms.
const JOINED_MS: f64 = 40.0;

/// What each fault does, for readers who have never seen one.
const fn explained(fault: Fault) -> &'static str {
    match fault {
        Fault::PlannedStop => "The owner is told to stop. It goes silent, then gives the Lease up.",
        Fault::Kill => "The owner's process is killed. Its kernel answers until the fence runs out.",
        Fault::Freeze => "The owner's process stands still for two leases, then goes on.",
        Fault::CgroupFrozen => "The owner's container is frozen for two leases, then thawed.",
        Fault::Throttled => "The owner's container has 1 % of a CPU for two leases.",
        Fault::Reboot => "The owner's host reboots: pins and addresses are gone, the boot id is new.",
        Fault::LinkDown => "The owner's cable is pulled.",
        Fault::ApiCut => "The owner alone cannot reach the Kubernetes API any more.",
        Fault::ApiHangs => "The API takes connections and answers nobody for three leases.",
        Fault::ApiRefuses => "Nothing listens where the API was for three leases.",
        Fault::RollingRestart => "All nodes are stopped and started, one after the other.",
    }
}

/// The whole page.
pub fn page(timing: &Timing, nodes: &[(String, [u8; 6])], results: &[(Outcome, Recording)]) -> String {
    let kept = results.iter().filter(|(outcome, _)| outcome.kept()).count();
    let claims: usize = results.iter().map(|(outcome, _)| outcome.claims).sum();
    let two = results.iter().map(|(outcome, _)| outcome.two_owner_ms).fold(0.0, f64::max);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>xvip: {kept} of {} faults survived</title>\n<style>{STYLE}</style></head><body>\n\
         <h1>xvip under {} faults</h1>\n\
         <p class=\"verdict {}\">{kept} of {} kept the promise. Two nodes claimed one VIP for \
         {two:.0} ms, in {claims} claims on the wire.</p>\n\
         <p>Three nodes, an API and two clients in network namespaces. {}. Each picture shows who \
         claimed the virtual IPs on the wire (announcements and answers, by node), and what a user's \
         pings saw. At no point may two nodes' bars overlap in time.</p>\n\
         <p class=\"legend\"><i class=\"n0\"></i>a node claims the VIPs <i class=\"user\"></i>pings are \
         answered <i class=\"lost\"></i>pings are lost <i class=\"fault\"></i>the fault begins \
         <i class=\"healed\"></i>it is taken back</p>\n",
        results.len(),
        results.len(),
        if kept == results.len() { "ok" } else { "bad" },
        results.len(),
        settings(timing)
    );
    for (outcome, recording) in results {
        page.push_str(&section(nodes, outcome, recording));
    }
    page.push_str("</body></html>\n");
    page
}

fn section(nodes: &[(String, [u8; 6])], outcome: &Outcome, recording: &Recording) -> String {
    let sentence = format!(
        "{} Nobody answered for {:.0} ms, users noticed {:.0} ms; at most {:.0} ms are allowed ({}).",
        explained(outcome.fault),
        outcome.dark_asked_ms,
        outcome.dark_felt_ms,
        outcome.bound.1,
        outcome.bound.0
    );
    let class = if outcome.kept() { "ok" } else { "bad" };
    let mut text = format!(
        "<section><h2>{} <span class=\"{class}\">{}</span></h2>\n<p>{sentence}</p>\n",
        outcome.fault.name(),
        if outcome.kept() { "kept" } else { "BROKEN" }
    );
    text.push_str(&picture(nodes, outcome, recording));
    text.push_str("</section>\n");
    text
}

/// The scale of one picture.
struct Scale {
    from: u64,
    to: u64,
}

impl Scale {
    fn x(&self, at: u64) -> f64 {
        let share = at.saturating_sub(self.from) as f64 / (self.to - self.from).max(1) as f64;
        LEFT + share.min(1.0) * (WIDTH - LEFT - 10.0)
    }
}

fn picture(nodes: &[(String, [u8; 6])], outcome: &Outcome, recording: &Recording) -> String {
    let (at, end) = outcome.span;
    let from = recording.claims.first().map_or(at, |claim| claim.at_ns.min(at));
    let scale = Scale { from, to: end };
    let rows = nodes.len() + 1;
    let height = TOP + ROW * rows as f64 + 26.0;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"timeline of {}\">\n",
        outcome.fault.name()
    );
    for (row, (name, _)) in nodes.iter().enumerate() {
        let claims = recording.claims.iter().filter(|claim| claim.node == row).map(|claim| claim.at_ns);
        row_label(&mut svg, row, name);
        bars(&mut svg, &scale, row, &format!("n{row}"), name, claims.collect());
    }
    let users = nodes.len();
    row_label(&mut svg, users, "a user's pings");
    // A lost ping of one VIP is shown, even if the other VIP answers.
    let lost: Vec<u64> =
        recording.echoes.open_echoes.values().copied().filter(|at| *at < end).collect();
    let answered = recording.echoes.answers.values().flatten().map(|(at, _)| *at);
    bars(&mut svg, &scale, users, "user", "answered", answered.collect());
    bars(&mut svg, &scale, users, "lost", "lost", lost);
    let bottom = TOP + ROW * rows as f64;
    for (class, instant) in [("fault", Some(at)), ("healed", outcome.healed)] {
        if let Some(instant) = instant {
            let x = scale.x(instant);
            let _ = writeln!(
                svg,
                "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"8\" y2=\"{bottom}\"/>"
            );
        }
    }
    axis(&mut svg, &scale, at, bottom);
    svg.push_str("</svg>\n");
    svg
}

fn row_label(svg: &mut String, row: usize, name: &str) {
    let y = TOP + ROW * row as f64;
    let _ = writeln!(
        svg,
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{name}</text>\
         <line class=\"base\" x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{:.0}\" y2=\"{:.0}\"/>",
        LEFT - 8.0,
        y + 15.0,
        WIDTH - 10.0,
        y + 11.0,
        y + 11.0
    );
}

/// Instants as bars: instants close together make one bar, and a single one stays visible.
fn bars(svg: &mut String, scale: &Scale, row: usize, class: &str, what: &str, mut instants: Vec<u64>) {
    instants.sort_unstable();
    let joined = |a: &u64, b: &u64| (b.saturating_sub(*a) as f64) < JOINED_MS * 1e6;
    for bar in instants.chunk_by(joined) {
        let (first, last) = (bar[0], bar[bar.len() - 1]);
        let (x, y) = (scale.x(first), TOP + ROW * row as f64 + 3.0);
        let width = (scale.x(last) - x).max(1.5);
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.0}\" width=\"{width:.1}\" height=\"16\">\
             <title>{what}: {} frames in {:.0} ms</title></rect>",
            bar.len(),
            (last - first) as f64 / 1e6
        );
    }
}

/// Seconds since the fault.
fn axis(svg: &mut String, scale: &Scale, at: u64, y: f64) {
    let seconds = (scale.to - at) as f64 / 1e9;
    let step = if seconds > 8.0 { 2 } else { 1 };
    for second in (0..=seconds as u64).step_by(step) {
        let x = scale.x(at + second * 1_000_000_000);
        let _ = writeln!(
            svg,
            "<line class=\"base\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{y:.0}\" y2=\"{:.0}\"/>\
             <text class=\"tick\" x=\"{x:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{second} s</text>",
            y + 4.0,
            y + 17.0
        );
    }
}

const STYLE: &str = "
body{font:16px/1.5 system-ui,sans-serif;max-width:960px;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
h1{margin-bottom:.2rem} h2{font-size:1.1rem;margin:1.6rem 0 0} section p{margin:.1rem 0 .3rem;color:#57606a}
.verdict{font-weight:600} .ok{color:#1a7f37} .bad{color:#cf222e} h2 span{font-size:.85rem;margin-left:.5rem}
svg{width:100%;height:auto;font:12px system-ui,sans-serif;background:#f6f8fa;border-radius:6px}
svg text{fill:#57606a} .base{stroke:#d0d7de} line.fault{stroke:#cf222e;stroke-width:1.5;stroke-dasharray:4 3}
line.healed{stroke:#1a7f37;stroke-width:1.5;stroke-dasharray:4 3}
rect.n0{fill:#0969da} rect.n1{fill:#bc4c00} rect.n2{fill:#8250df} rect.user{fill:#a7d7b3} rect.lost{fill:#cf222e}
.legend i{display:inline-block;width:14px;height:12px;margin:0 .3rem 0 1rem;border-radius:2px;vertical-align:-1px}
i.n0{background:linear-gradient(90deg,#0969da 33%,#bc4c00 33% 66%,#8250df 66%)} i.user{background:#a7d7b3}
i.lost{background:#cf222e} i.fault{width:3px!important;background:#cf222e} i.healed{width:3px!important;background:#1a7f37}
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}svg{background:#161b22}
svg text,section p{fill:#9198a1;color:#9198a1}.base{stroke:#30363d}}
";

#[cfg(test)]
mod tests;
