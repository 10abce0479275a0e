//! The rules that turn kube-vip's values into a configuration, a file for each subject.

pub(super) mod api;
pub(super) mod checked;
pub(super) mod classes;
pub(super) mod host;
pub(super) mod lease;
pub(super) mod modes;
pub(super) mod ports;
pub(super) mod vips;
