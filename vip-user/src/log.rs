//! The log of the daemon, on standard error.

use crate::{
    config::{LogConfig, LogFormat, LogLevel},
    escape,
};
use std::{
    io::{self, IsTerminal},
    time::Duration,
};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, field::MakeExt as _, fmt::format::debug_fn};

/// The most log lines that may wait for the reader.
const LOG_LINES: usize = 4_096;
/// How long the end of the process waits for those lines.
const LOG_END: Duration = Duration::from_millis(1_200);

/// The target of what an operator asks for by a signal. It is written whatever the level is.
pub const STATE: &str = "state";

/// Writes the rest of the log at the end, within [`LOG_END`].
pub struct LogEnd(Option<WorkerGuard>);

impl Drop for LogEnd {
    fn drop(&mut self) {
        let (ended, end) = std::sync::mpsc::channel();
        let guard = self.0.take();
        // If nothing reads the log, the guard's own error message may hang too.
        let waits = std::thread::Builder::new().spawn(move || {
            drop(guard);
            let _ = ended.send(());
        });
        if waits.is_ok() {
            let _ = end.recv_timeout(LOG_END);
        }
    }
}

/// Starts the log. A separate thread writes the lines, because in a pod standard error is a pipe whose
/// reader may hang. Lines that find no room are lost.
pub fn start(config: &LogConfig) -> LogEnd {
    let appender = NonBlockingBuilder::default().buffered_lines_limit(LOG_LINES);
    let (stderr, guard) = appender.thread_name("xvip-log").finish(io::stderr());
    let level = match config.level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(filter(config.level, level)));
    // A failed write is not reported, because the report would go to the same log.
    let log = tracing_subscriber::fmt().log_internal_errors(false);
    let log = log.with_env_filter(filter).with_writer(stderr.clone());
    let log = log.with_ansi(has_colours(&io::stderr()));
    // A field may hold text from outside: a Lease, the API, the name of an interface.
    match config.format {
        LogFormat::Text => {
            let fields = debug_fn(escape::log_field).delimited(" ");
            log.fmt_fields(fields).with_target(false).init();
        }
        LogFormat::Json => {
            log.json().flatten_event(true).with_writer(escape::JsonLog(stderr)).init();
        }
    }
    LogEnd(Some(guard))
}

/// The filter of the log. The client library logs each failed request at ERROR, without naming the
/// server. xvip logs the outcome of its requests itself, so these lines show only when debugging.
/// `RUST_LOG` replaces this filter.
fn filter(level: LogLevel, word: &str) -> String {
    let word = format!("{word},{STATE}=info");
    if matches!(level, LogLevel::Debug | LogLevel::Trace) {
        return word;
    }
    let libraries =
        ["h2", "hyper", "hyper_util", "kube", "kube_client", "rustls", "tower", "tower_http"];
    libraries.iter().fold(word, |filter, library| format!("{filter},{library}=off"))
}

/// Whether the output is a terminal and `NO_COLOR` is empty or not set.
pub fn has_colours(output: &impl IsTerminal) -> bool {
    output.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_written_at_every_level() {
        for (level, word) in
            [(LogLevel::Error, "error"), (LogLevel::Warn, "warn"), (LogLevel::Debug, "debug")]
        {
            let filter = filter(level, word);
            assert!(filter.starts_with(&format!("{word},state=info")), "{filter}");
        }
    }
}
