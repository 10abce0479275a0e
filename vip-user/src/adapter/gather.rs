//! Brings variables, flags and the file together. Variables win over flags, and flags over the file.

use super::{
    file,
    flags::Flags,
    report::{Given, Note, Refusal, Source},
    table::{self, Class, Kind, Name, WITHOUT},
    value,
};
use std::collections::BTreeMap;

/// What an operator has written down.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// The variables of the environment.
    pub environment: Vec<(String, String)>,
    /// The command line.
    pub flags: Flags,
    /// The path of the file that `--config-file` names, and its text or why it cannot be read.
    pub file: Option<(String, Result<String, String>)>,
}

/// The values in force, by the id of their name.
#[derive(Clone, Debug, Default)]
pub(super) struct Gathered {
    pub(super) values: BTreeMap<&'static str, Given>,
    pub(super) notes: Vec<Note>,
    pub(super) refused: Vec<Refusal>,
    /// The names whose loss is accepted, as they were written.
    pub(super) without: Vec<String>,
}

pub(super) fn gather(input: &Input) -> Gathered {
    let mut gathered = Gathered { refused: input.flags.refused.clone(), ..Gathered::default() };
    gathered.environment(&input.environment);
    for (name, given) in input.flags.given.iter().rev() {
        gathered.offer(name, given.clone());
    }
    if let Some((path, text)) = &input.file {
        gathered.file(path, text);
    }
    gathered
}

impl Gathered {
    fn environment(&mut self, variables: &[(String, String)]) {
        // A variable that is spelled as kube-vip spells it comes first.
        let exact = |variable: &str| table::of_id(variable).is_some_and(|name| name.in_environment);
        let (own, loose): (Vec<_>, Vec<_>) =
            variables.iter().partition(|(variable, _)| exact(variable));
        for (variable, text) in own.into_iter().chain(loose) {
            if table::plain(variable) == table::plain(WITHOUT) {
                self.without.extend(value::list(text).map(str::to_owned));
            } else if let Some(name) = table::of_variable(variable) {
                self.variable(name, variable, text);
            } else if table::looks_like_ours(variable) {
                self.unknown(variable, text);
            }
        }
    }

    fn variable(&mut self, name: &'static Name, variable: &str, text: &str) {
        // A Service called `lb` makes the kubelet set LB_PORT=tcp://…
        if name.id != variable {
            let link = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| text.starts_with(scheme));
            if link {
                return;
            }
        }
        // Only this name means something when it is empty.
        if text.is_empty() && name.id != "lb_class_name" {
            return;
        }
        let secret = Given::is_secret(Some(name), variable);
        let given =
            Given { spelled: variable.into(), value: text.into(), source: Source::Environment, secret };
        let upper_is_read = matches!(name.id, "instance_name" | "egress_clean");
        if name.id != variable && !(upper_is_read && variable == name.id.to_uppercase()) {
            let told = format!("kube-vip reads only {}; here this spelling counts too", name.id);
            self.note(name, Some(given.clone()), told);
        }
        self.offer(name, given);
    }

    fn unknown(&mut self, variable: &str, text: &str) {
        let known = table::all().filter(|name| name.in_environment).map(|name| name.id);
        // Some write the name of a flag or a key.
        let other = table::of_flag(variable).or_else(|| table::of_key(variable)).map(|name| name.id);
        let hint = other.or_else(|| table::nearest(variable, known));
        let hint = hint.map_or_else(String::new, |name| format!("; did you mean {name}?"));
        let secret = Given::is_secret(None, variable);
        let given =
            Given { spelled: variable.into(), value: text.into(), source: Source::Environment, secret };
        self.notes.push(Note {
            name: variable.into(),
            class: Class::NoEffect,
            given: Some(given),
            told: format!("no version of kube-vip reads this variable{hint}"),
        });
    }

    fn file(&mut self, path: &str, text: &Result<String, String>) {
        let read = match text {
            Ok(text) => file::parse(text),
            Err(error) => Err(error.clone()),
        };
        let entries = match read {
            Ok(entries) => entries,
            Err(why) => {
                let given = Given {
                    spelled: "config-file".into(),
                    value: path.into(),
                    source: Source::Flag,
                    secret: false,
                };
                return self.refused.push(Refusal {
                    name: "config-file".into(),
                    given: Some(given),
                    why: format!("the file cannot be read: {why}"),
                    instead: "name a file in JSON or YAML".into(),
                    waivable: false,
                });
            }
        };
        for file::Entry { key, value } in entries {
            let name = table::of_key(&key);
            let secret = Given::is_secret(name, &key);
            let given = Given { spelled: key.clone(), value, source: Source::File, secret };
            match name {
                Some(_) if given.value.is_empty() => {}
                Some(name) => {
                    if file::is_dropped_by_kube_vip(&key) && !self.values.contains_key(name.id) {
                        let told = "kube-vip ignores this key of its file; here it counts".into();
                        self.note(name, Some(given.clone()), told);
                    }
                    self.offer(name, given);
                }
                None => self.unknown_key(&key, given),
            }
        }
    }

    fn unknown_key(&mut self, key: &str, given: Given) {
        let known = table::all().map(|name| name.key).filter(|key| !key.is_empty());
        let hint = table::nearest(key, known);
        let hint = hint.map_or_else(String::new, |key| format!("; did you mean {key}?"));
        self.notes.push(Note {
            name: key.into(),
            class: Class::NoEffect,
            given: Some(given),
            told: format!("kube-vip does not take this key from its file{hint}"),
        });
    }

    /// Takes a value, unless a stronger source has given one.
    fn offer(&mut self, name: &'static Name, given: Given) {
        self.values.entry(name.id).or_insert(given);
    }

    pub(super) fn note(&mut self, name: &'static Name, given: Option<Given>, told: String) {
        self.notes.push(Note { name: name.id.into(), class: name.class, given, told });
    }

    pub(super) fn refuse(
        &mut self,
        id: &'static str,
        why: impl Into<String>,
        instead: impl Into<String>,
    ) {
        self.turn_away(id, why.into(), instead.into(), false);
    }

    /// Refuses something that `xvip_without` accepts.
    pub(super) fn loses(
        &mut self,
        id: &'static str,
        why: impl Into<String>,
        instead: impl Into<String>,
    ) {
        self.turn_away(id, why.into(), instead.into(), true);
    }

    fn turn_away(&mut self, id: &'static str, why: String, instead: String, waivable: bool) {
        let given = self.values.get(id).cloned();
        self.refused.push(Refusal { name: id.into(), given, why, instead, waivable });
    }

    /// Tells something about a supported name.
    pub(super) fn tell(&mut self, id: &'static str, told: impl Into<String>) {
        let Some(name) = table::of_id(id) else { return };
        let given = self.values.get(id).cloned();
        self.note(name, given, told.into());
    }

    /// The text that was given, without blanks around it.
    pub(super) fn text(&self, id: &str) -> Option<&str> {
        self.values.get(id).map(|given| given.value.trim()).filter(|text| !text.is_empty())
    }

    /// A truth value. One that cannot be read was refused by [`Self::check_forms`].
    pub(super) fn truth(&self, id: &str) -> bool {
        self.text(id).and_then(value::parse_bool).unwrap_or(false)
    }

    /// A whole number, as [`Self::truth`].
    pub(super) fn number(&self, id: &str) -> Option<i64> {
        self.text(id).and_then(value::parse_int)
    }

    /// Refuses supported names, and those that are refused when true, whose values have the wrong form.
    pub(super) fn check_forms(&mut self) {
        for name in table::all().filter(|name| name.class != Class::NoEffect) {
            let Some(text) = self.text(name.id).map(str::to_owned) else { continue };
            match name.kind {
                // kube-vip's own generator writes a number of seconds here.
                Kind::Bool if name.id == "vip_loseleadership" && value::parse_int(&text).is_some() => {}
                Kind::Bool if value::parse_bool(&text).is_none() => {
                    self.refuse(name.id, "it is neither true nor false", "set true or false");
                }
                Kind::Int if value::parse_int(&text).is_none() => {
                    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
                    let instead = match digits.as_str() {
                        "" => "set a whole number".to_owned(),
                        digits => format!("set {}={digits}, without a unit", name.id),
                    };
                    self.refuse(name.id, "it is no whole number", instead);
                }
                _ => {}
            }
        }
    }
}
