//! What follows from the class of a name alone.

use crate::adapter::{
    gather::Gathered,
    table::{self, Class, Kind, Name},
};

/// Notes every name without effect, and refuses the names that are refused whatever the others say.
pub(in crate::adapter) fn by_class(gathered: &mut Gathered) {
    for name in table::all() {
        let Some(given) = gathered.values.get(name.id).cloned() else { continue };
        // Its value cannot be read, and that was said.
        if gathered.refused.iter().any(|refusal| refusal.name == name.id) {
            continue;
        }
        match name.class {
            Class::NoEffect => gathered.note(name, Some(given), name.why.into()),
            Class::Refused if is_off(gathered, name) => {
                gathered.note(name, Some(given), format!("nothing is lost: {}", off(name)));
            }
            Class::Refused => gathered.loses(name.id, name.why, instead(name)),
            // A mode that is off is what xvip wants.
            Class::Never if is_off(gathered, name) => {
                gathered.note(name, Some(given), "this is so here".into());
            }
            Class::Never => gathered.refuse(name.id, name.why, instead(name)),
            Class::Supported => {}
        }
    }
}

/// Whether the value asks for nothing.
fn is_off(gathered: &Gathered, name: &Name) -> bool {
    let is_egress = name.id.starts_with("egress_");
    match (name.kind, name.id) {
        (_, "leaderElectionType") => {
            gathered.text(name.id).is_none_or(|text| text.eq_ignore_ascii_case("kubernetes"))
        }
        _ if is_egress && !gathered.truth("svc_enable") => true,
        (Kind::Bool, _) => !gathered.truth(name.id),
        _ => gathered.text(name.id).is_none(),
    }
}

fn off(name: &Name) -> &'static str {
    if name.id.starts_with("egress_") { "it belongs to Services, which are off" } else { "it is off" }
}

fn instead(name: &Name) -> String {
    match name.kind {
        Kind::Bool => format!("set {}=false", name.id),
        _ if name.id == "leaderElectionType" => "set kubernetes".into(),
        _ if name.in_environment => format!("remove {}", name.id),
        _ => format!("remove --{}", name.id),
    }
}
