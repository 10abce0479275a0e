//! The timelines as one HTML page. Self-contained, without scripts.

use super::{timeline::Timeline, verdict::Owners};
use crate::escape::printable;
use std::fmt::Write as _;

const WIDTH: f64 = 900.0;
const COLOURS: [&str; 6] = ["#2f6db3", "#3b8f5a", "#8a5fb0", "#b0803a", "#3a94a5", "#7a7a3a"];
const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;\
color:#222;background:#fff}svg{width:100%;height:auto}.bad{color:#b02020}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}.bad{color:#ff7060}}";

/// The whole page.
pub fn page(timelines: &[Timeline]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>xvip probe</title>\
         <style>{STYLE}</style></head><body>\n<h1>Who answered</h1>\n"
    );
    for timeline in timelines {
        section(&mut page, timeline);
    }
    page.push_str("</body></html>\n");
    page
}

fn section(page: &mut String, timeline: &Timeline) {
    let end = timeline.spans.last().map_or(1, |span| span.to_ms).max(1) as f64;
    let letters = timeline.letters();
    let colour = |name: &str| {
        let index = letters.iter().position(|(other, _)| other == name).unwrap_or(0);
        COLOURS[index % COLOURS.len()]
    };
    let class = if timeline.two_owners_ms > 0 { " class=\"bad\"" } else { "" };
    let _ = writeln!(page, "<h2>{}</h2>\n<p{class}>{}</p>", timeline.vip, escape(&timeline.words()));
    let _ = writeln!(page, "<svg viewBox=\"0 0 {WIDTH} 62\" role=\"img\">");
    for span in &timeline.spans {
        let (x, width) = (span.from_ms as f64 / end * WIDTH, (span.to_ms - span.from_ms) as f64 / end);
        // A span shorter than a pixel is drawn one pixel wide.
        let width = (width * WIDTH).max(1.0);
        let fill = match span.owners {
            Owners::One => colour(&span.names[0]),
            Owners::Nobody => "#888888",
            Owners::Two => "#d02020",
        };
        let title = format!(
            "{} to {} ms: {}",
            span.from_ms,
            span.to_ms,
            if span.names.is_empty() { "nobody".into() } else { span.names.join(" and ") }
        );
        let _ = writeln!(
            page,
            "<rect x=\"{x:.1}\" y=\"4\" width=\"{width:.1}\" height=\"28\" fill=\"{fill}\"><title>{}</title></rect>",
            escape(&title)
        );
        if let Some(served) = span.served {
            let fill = if served { "#3b8f5a" } else { "#d02020" };
            let _ = writeln!(
                page,
                "<rect x=\"{x:.1}\" y=\"38\" width=\"{width:.1}\" height=\"8\" fill=\"{fill}\"/>"
            );
        }
    }
    let _ = writeln!(
        page,
        "<text x=\"0\" y=\"60\" font-size=\"11\" fill=\"currentColor\">0 s</text>\
         <text x=\"{WIDTH}\" y=\"60\" font-size=\"11\" text-anchor=\"end\" fill=\"currentColor\">{:.1} s</text></svg>",
        end / 1_000.0
    );
    let names: Vec<String> = letters
        .iter()
        .map(|(name, _)| {
            format!("<span style=\"color:{}\">&#9632;</span> {}", colour(name), escape(name))
        })
        .collect();
    let _ =
        writeln!(page, "<p>{} <span style=\"color:#888\">&#9632;</span> nobody</p>", names.join(" "));
}

fn escape(text: &str) -> String {
    printable(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
