//! Reads a command line as kube-vip's flag library does: `--name value`, `--name=value`, `--name` of a
//! truth value, `-n value`. Names are compared without case, dashes and underscores.

use super::{
    report::{Given, Refusal, Source},
    table::{self, Kind, Name},
};

/// The flags of a command line.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// Flags that set a name of the table, in the order in which they were given.
    pub given: Vec<(&'static Name, Given)>,
    /// The file that `--config-file` names.
    pub config_file: Option<String>,
    /// Flags of xvip itself and of the generator, with their values.
    pub own: Vec<(&'static str, String)>,
    /// What cannot be read.
    pub refused: Vec<Refusal>,
}

/// A flag that a subcommand has besides the settings.
#[derive(Clone, Copy, Debug)]
pub struct Own {
    /// Its name.
    pub name: &'static str,
    /// Whether a value must follow.
    pub takes_value: bool,
}

impl Flags {
    /// The value of an own flag, if it was given; the last one counts.
    pub fn own(&self, name: &str) -> Option<&str> {
        self.own.iter().rfind(|(own, _)| *own == name).map(|(_, value)| value.as_str())
    }

    /// Whether an own flag without a value was given.
    pub fn has(&self, name: &str) -> bool {
        self.own(name).is_some_and(|value| super::value::parse_bool(value).unwrap_or(false))
    }
}

/// Reads a command line. Nothing is lost silently: what cannot be read is refused.
pub fn parse(arguments: &[String], own: &[Own]) -> Flags {
    let mut flags = Flags::default();
    let mut rest = arguments.iter().map(String::as_str).peekable();
    while let Some(argument) = rest.next() {
        let Some((word, written)) = split(argument, own) else {
            flags.refuse(argument, None, "it is no flag", "flags begin with two dashes");
            continue;
        };
        let known = own.iter().find(|own| table::plain(own.name) == table::plain(word));
        let (takes_value, of_table) = match (known, table::of_flag(word)) {
            (Some(own), _) => (own.takes_value, None),
            (None, Some(name)) => (name.kind != Kind::Bool, Some(name)),
            (None, None) => {
                let instead = nearest(word, own);
                flags.refuse(argument, None, "no version of kube-vip has this flag", &instead);
                // Its value must not be taken for another flag.
                if written.is_none() && rest.peek().is_some_and(|next| !next.starts_with('-')) {
                    rest.next();
                }
                continue;
            }
        };
        let value = match written {
            Some(value) => Some(value),
            None if takes_value => rest.next().map(str::to_owned),
            None => Some("true".into()),
        };
        match (value, known, of_table) {
            (None, ..) => flags.refuse(word, None, "its value is missing", ""),
            (Some(value), Some(own), _) => flags.own.push((own.name, value)),
            (Some(value), None, Some(name)) if name.id == "config-file" => {
                flags.config_file = Some(value).filter(|path| !path.is_empty());
            }
            (Some(value), None, Some(name)) => flags.set(name, word, value),
            (Some(_), None, None) => {}
        }
    }
    flags
}

impl Flags {
    fn set(&mut self, name: &'static Name, spelled: &str, value: String) {
        let secret = Given::is_secret(Some(name), spelled);
        let given = Given { spelled: spelled.into(), value, source: Source::Flag, secret };
        // Lists collect their values.
        if matches!(name.id, "bgp_peers" | "etcdEndpoints")
            && let Some((_, before)) = self.given.iter_mut().find(|(known, _)| known.id == name.id)
        {
            before.value = format!("{},{}", before.value, given.value);
            return;
        }
        self.given.push((name, given));
    }

    /// What follows the name may be a secret.
    fn refuse(&mut self, argument: &str, given: Option<Given>, why: &str, instead: &str) {
        let name = argument.split('=').next().unwrap_or_default();
        let (name, why, instead) = (name.to_owned(), why.into(), instead.into());
        self.refused.push(Refusal { name, given, why, instead, waivable: false });
    }
}

/// The name of a flag, and the value that is written in the same word; `None` if it is no flag.
fn split<'a>(argument: &'a str, own: &[Own]) -> Option<(&'a str, Option<String>)> {
    let word = argument.strip_prefix('-').filter(|word| !word.is_empty())?;
    let is_short = !word.starts_with('-');
    let word = word.trim_start_matches('-');
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (word, None),
    };
    let letter = word.get(..1).filter(|letter| is_short && table::of_flag(letter).is_some());
    match letter {
        // As `-nkube-system`.
        Some(letter) if name.len() > 1 && takes_value(name, own).is_none() => {
            Some((letter, Some(word[1..].to_owned())))
        }
        _ => Some((name, value)),
    }
}

/// Whether a value follows this flag; `None` if there is no such flag.
fn takes_value(name: &str, own: &[Own]) -> Option<bool> {
    let known = own.iter().find(|own| table::plain(own.name) == table::plain(name));
    known.map(|own| own.takes_value).or_else(|| Some(table::of_flag(name)?.kind != Kind::Bool))
}

/// How many words of a command line are its flags and their values, until the first other word.
pub fn leading(arguments: &[String], own: &[Own]) -> usize {
    let mut count = 0;
    while let Some((name, written)) = arguments.get(count).and_then(|word| split(word, own)) {
        let has_value = written.is_none() && takes_value(name, own) == Some(true);
        count += 1 + usize::from(has_value);
    }
    count.min(arguments.len())
}

fn nearest(word: &str, own: &[Own]) -> String {
    let known = table::all().flat_map(|name| name.flags.split(' ')).filter(|flag| flag.len() > 1);
    let found = table::nearest(word, known.chain(own.iter().map(|own| own.name)));
    found.map_or_else(String::new, |flag| format!("did you mean --{flag}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Flags {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        parse(
            &words,
            &[Own { name: "check", takes_value: false }, Own { name: "image", takes_value: true }],
        )
    }

    fn pairs(flags: &Flags) -> Vec<(&'static str, &str)> {
        flags.given.iter().map(|(name, given)| (name.id, given.value.as_str())).collect()
    }

    #[test]
    fn flags_are_read_as_kube_vip_reads_them() {
        let flags =
            read("--arp --interface eth0 --vip=192.0.2.1 -n kube-system --controlplane=false --LOG 4");
        let wanted = [
            ("vip_arp", "true"),
            ("vip_interface", "eth0"),
            ("vip_address", "192.0.2.1"),
            ("cp_namespace", "kube-system"),
            ("cp_enable", "false"),
            ("vip_loglevel", "4"),
        ];
        assert_eq!(pairs(&flags), wanted);
        assert!(flags.refused.is_empty(), "{:?}", flags.refused);
    }

    #[test]
    fn a_value_may_stick_to_a_flag_of_one_letter() {
        for line in ["-nkube-system", "-n=kube-system", "-n kube-system"] {
            assert_eq!(pairs(&read(line)), [("cp_namespace", "kube-system")], "{line}");
        }
        assert_eq!(pairs(&read("-nx=y")), [("cp_namespace", "x=y")]);
        assert_eq!(pairs(&read("-arp")), [("vip_arp", "true")], "older manifests have it so");
    }

    #[test]
    fn what_may_be_a_secret_is_not_repeated() {
        let flags = read("--peerPassword2=hunter2 stray=hunter2 --unknown hunter2");
        assert!(!format!("{:?}", flags.refused).contains("hunter2"), "{:?}", flags.refused);
        let names: Vec<&str> = flags.refused.iter().map(|refused| refused.name.as_str()).collect();
        assert_eq!(names, ["--peerPassword2", "stray", "--unknown"]);
    }

    #[test]
    fn own_flags_and_the_file_are_kept_apart() {
        let flags =
            read("--check --config-file /etc/kv.yaml --image registry/xvip:1 --prometheusHTTPServer=");
        assert!(flags.has("check"));
        assert_eq!(flags.own("image"), Some("registry/xvip:1"));
        assert_eq!(flags.config_file.as_deref(), Some("/etc/kv.yaml"));
        assert_eq!(pairs(&flags), [("prometheus_server", "")]);
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_a_hint() {
        let flags = read("--servicesInterfaces eth1 stray --leaseName");
        let names: Vec<&str> = flags.refused.iter().map(|refused| refused.name.as_str()).collect();
        assert_eq!(names, ["--servicesInterfaces", "stray", "leaseName"]);
        assert_eq!(flags.refused[0].instead, "did you mean --serviceInterface?");
        assert!(flags.given.is_empty());
    }
}
