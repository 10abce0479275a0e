//! Runs a kube-vip manifest: turns kube-vip's variables, flags and file into a [`Config`]. Nothing here
//! reads the host; what must be asked of it comes in through a [`World`].

mod file;
pub mod flags;
mod gather;
mod health;
pub mod lease;
pub mod manifest;
pub mod report;
pub mod rights;
mod rules;
pub mod show;
pub mod table;
#[cfg(test)]
mod tests;
mod value;

use crate::config::Config;
use gather::Gathered;
pub use gather::Input;
use lease::Search;
use report::{Note, Refusal};
use std::{collections::BTreeSet, net::IpAddr};
pub use value::parse_bool;

/// What the adapter must ask the host.
pub trait World {
    /// Whether this path is a regular file.
    fn is_file(&self, path: &str) -> bool;
    /// The namespace of the pod's service account.
    fn service_namespace(&self) -> Option<String>;
    /// The addresses to which a name resolves.
    fn resolve(&self, name: &str) -> Vec<IpAddr>;
}

/// What kube-vip's settings mean here.
#[derive(Clone, Debug)]
pub struct Adapted {
    /// The configuration. It is complete even if something is refused, and must not be used then.
    pub config: Config,
    /// What an operator should know. Escape it before it is shown.
    pub notes: Vec<Note>,
    /// Why xvip does not run. Escape it before it is shown.
    pub refused: Vec<Refusal>,
    /// Losses that `xvip_without` accepts. Each stays a problem while xvip runs.
    pub without: Vec<Refusal>,
    /// Where the Lease may be.
    pub search: Search,
    /// Every name that is set or has a default, for `xvip config show`.
    pub rows: Vec<show::Row>,
}

/// Turns kube-vip's settings into a configuration.
pub fn adapt(input: &Input, world: &dyn World) -> Adapted {
    let mut gathered = gather::gather(input);
    gathered.check_forms();
    let mut config = Config::default();
    rules::classes::by_class(&mut gathered);
    rules::modes::apply(&mut gathered);
    rules::vips::apply(&mut gathered, &mut config, world);
    let search = rules::lease::apply(&mut gathered, &mut config, world);
    rules::api::apply(&mut gathered, &mut config, input, world);
    rules::host::apply(&mut gathered, &mut config);
    rules::ports::apply(&mut gathered, &mut config);
    health::apply(&mut gathered, &mut config, world);
    rules::checked::apply(&mut gathered, &config);
    let rows = show::rows(&gathered);
    let without = accept(&mut gathered);
    let Gathered { notes, refused, .. } = gathered;
    Adapted { config, notes, refused, without, search, rows }
}

/// Takes the refusals away whose loss is accepted, and returns them.
fn accept(gathered: &mut Gathered) -> Vec<Refusal> {
    let wanted: BTreeSet<String> = gathered.without.iter().map(|name| table::plain(name)).collect();
    let is_accepted =
        |refusal: &Refusal| refusal.waivable && wanted.contains(&table::plain(&refusal.name));
    let (accepted, refused): (Vec<_>, Vec<_>) =
        std::mem::take(&mut gathered.refused).into_iter().partition(is_accepted);
    for name in &gathered.without {
        let lost = |refusal: &Refusal| table::plain(&refusal.name) == table::plain(name);
        let told = match table::of_variable(name).or_else(|| table::of_flag(name)) {
            _ if accepted.iter().any(lost) => continue,
            // Whether another Lease is in use is not known yet.
            Some(known) if known.id == "vip_leasename" => continue,
            None => "xvip_without names it, but kube-vip has no such setting",
            Some(_) if refused.iter().any(lost) => {
                "xvip_without names it, but this refusal cannot be accepted"
            }
            Some(_) => "xvip_without names it, but nothing is lost by it",
        };
        gathered.notes.push(Note {
            name: name.clone(),
            class: table::Class::NoEffect,
            given: None,
            told: told.into(),
        });
    }
    gathered.refused = refused;
    accepted
}
