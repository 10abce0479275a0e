//! How much of each program the kernel's verifier looks at.

use crate::kernel_run::has_multi_buffer_xdp;
use aya::{
    EbpfLoader,
    programs::{Program, ProgramError, ProgramInfo},
};

/// How much of the verifier's log is kept: its end has the reason.
const TAIL: usize = 3_000;

/// The result of this kernel's verifier for every program of xvip: its name, and the number of
/// instructions that it looked at, or the reason of a refusal. Programs with messages are included
/// only with `debug`.
///
/// # Errors
/// If the object cannot be loaded.
pub fn verdicts(debug: bool) -> anyhow::Result<Vec<(String, Result<String, String>)>> {
    let mut object = EbpfLoader::new();
    let log_level = if debug { u8::MAX } else { 0 };
    object.override_global("AYA_LOG_LEVEL", &log_level, true);
    let mut ebpf = object.load(vip_user::node::programs::object())?;
    let mut rows = Vec::new();
    for (name, program) in ebpf.programs_mut() {
        if name.ends_with("_debug") && !debug {
            continue;
        }
        if matches!(program, Program::Xdp(_)) && name != "xvip_clock" && !has_multi_buffer_xdp()? {
            rows.push((name.to_owned(), Ok("not for kernels before 5.18".into())));
            continue;
        }
        let loaded = match program {
            Program::Xdp(xdp) => xdp.load().and_then(|()| xdp.info()),
            Program::SchedClassifier(tc) => tc.load().and_then(|()| tc.info()),
            _ => continue,
        };
        let verdict = loaded.map(|info| counts(&info)).map_err(|error| why(&error));
        rows.push((name.to_owned(), verdict));
    }
    rows.sort();
    Ok(rows)
}

fn counts(info: &ProgramInfo) -> String {
    // Kernels before 5.16 do not report this.
    let looked_at = info.verified_instruction_count().map_or("?".into(), |count| count.to_string());
    let size = info.size_translated().map_or("?".into(), |bytes| (bytes / 8).to_string());
    format!("{size:>6} instructions, {looked_at:>7} looked at of the 1000000 allowed")
}

fn why(error: &ProgramError) -> String {
    let text = format!("{error:?}");
    let start = text.char_indices().rev().nth(TAIL).map_or(0, |(at, _)| at);
    text[start..].replace("\\n", "\n").replace("\\t", " ")
}
