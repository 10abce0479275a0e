//! Statistics of many measurements, as numbers and as a picture.

/// The median, the 99th percentile and the maximum, in whole milliseconds.
pub fn summary(values: impl Iterator<Item = f64>) -> String {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (p50, p99) = (percentile(&values, 50), percentile(&values, 99));
    let max = values.last().copied().unwrap_or(f64::NAN);
    format!("{p50:.0} / {p99:.0} / {max:.0} ms")
}

/// The smallest value that is not below `percent` of all (nearest rank) of sorted values.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

/// A page with the table and the picture.
pub fn page(table: &str, plot: &str, slack_ms: f64) -> String {
    format!(
        "# Failover, measured\n\n\
         Made by `cargo xtask bench failover`, which appends runs to a file and makes this page of all of them. Three nodes, a real\n\
         kube-apiserver with etcd and two clients, each a network namespace of one machine. A listener on the bridge timestamps\n\
         every frame that claims a VIP; one client asks by ARP and neighbour solicitation every 5 ms (\"asked\"), another sends\n\
         echoes through its own neighbour cache (\"felt\"). Both families are probed in every run, and the worse one counts.\n\
         Labs may run beside each other (`--jobs`): that costs the last percent some milliseconds.\n\n\
         {table}\n\n\
         \"xvip 3/0.6\": a lease of 3 s, renewed every 0.6 s. \"keepalived 1\": an advertisement every second. A bound is what follows\n\
         from the lease plus {slack_ms:.0} ms for one commit, one announcement and a busy machine. keepalived asks no API. \"Two owners\"\n\
         is the time from the first claim of a second node to the last one of the first.\n\n\
         ![Dark times of all runs]({plot})\n\n\
         ## At home\n\n\
         ```\n\
         cargo xtask bench failover --runs 10 --peer keepalived --results target/failover.jsonl\n\
         ```\n\n\
         It needs root, and goes on where it was when it is interrupted. `cargo xtask demo --kube` shows eleven faults once.\n"
    )
}

/// An SVG with a row for each series: a dot for each value, a line at its bound.
pub fn plot(series: &[(String, Vec<f64>, Option<f64>)]) -> String {
    const ROW: usize = 26;
    const LEFT: f64 = 270.0;
    const WIDTH: f64 = 560.0;
    let all = series.iter().flat_map(|(_, values, bound)| values.iter().copied().chain(*bound));
    let most = all.fold(1.0, f64::max) * 1.05;
    let x = |ms: f64| LEFT + ms / most * WIDTH;
    let height = ROW * (series.len() + 2);
    let mut parts = vec![format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 860 {height}\" font-family=\"sans-serif\" font-size=\"12\">\
         <rect width=\"860\" height=\"{height}\" fill=\"white\"/>"
    )];
    for (row, (name, values, bound)) in series.iter().enumerate() {
        let y = ROW * (row + 1);
        parts.push(format!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>",
            LEFT - 10.0,
            y + 4
        ));
        parts.push(format!(
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\" stroke=\"#ddd\"/>",
            LEFT + WIDTH
        ));
        for value in values {
            parts.push(format!(
                "<circle cx=\"{:.1}\" cy=\"{y}\" r=\"3\" fill=\"#1f77b4\" fill-opacity=\"0.4\"/>",
                x(*value)
            ));
        }
        if let Some(bound) = bound {
            let at = x(*bound);
            parts.push(format!(
                "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{}\" y2=\"{}\" stroke=\"#d62728\" stroke-width=\"2\"/>",
                y - 9,
                y + 9
            ));
        }
    }
    let foot = ROW * (series.len() + 1) + 8;
    parts.push(format!("<text x=\"{LEFT}\" y=\"{foot}\">0</text>"));
    parts.push(format!(
        "<text x=\"{}\" y=\"{foot}\" text-anchor=\"end\">{most:.0} ms without an answer; red: the bound</text>",
        LEFT + WIDTH
    ));
    parts.push("</svg>\n".into());
    parts.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred = (1..=100).map(f64::from);
        assert_eq!(summary(hundred), "50 / 99 / 100 ms");
        assert_eq!(summary([7.0].into_iter()), "7 / 7 / 7 ms");
    }
}
