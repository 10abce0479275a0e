//! Any text as a configuration file. Nothing panics, and an accepted file gives usable settings.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;
use vip_user::config::Config;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(config) = Config::parse(Path::new("fuzzed.yaml"), text) else { return };
    let timing = config.timing();
    let (hold, wait) = (timing.hold(timing.duration_s), timing.wait(timing.duration_s));
    assert!(hold < wait, "a holder that outlasts its taker: {hold:?}, {wait:?}");
    assert!(timing.renew_every * 2 <= hold, "two attempts do not fit: {timing:?}");
    assert!(!config.vips.is_empty() && !config.interfaces.is_empty());
    assert!(!config.settings(text, "node").is_empty());
});
