//! The two sysctls that unprivileged pods cannot set themselves: now, after the next boot, and back.

use super::{
    files::{State, folder_of, read_text, sync, write_new},
    show,
};
use crate::node::sysctl;
use anyhow::Context as _;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

const TEXT: &str = include_str!("../../../../deploy/kube-vip/sysctl.conf");
const NAME: &str = "90-xvip.conf";
/// As usual for files that are no secret.
const MODE: u32 = 0o644;

/// A file of sysctls that is written beside its place, where nothing reads it.
#[derive(Debug)]
pub(super) struct Prepared {
    new: PathBuf,
    path: PathBuf,
    before: Vec<Option<u32>>,
}

/// Tries everything that can fail. `None`: a file is there already, and is left as it is.
pub(super) fn prepare(folder: &Path) -> anyhow::Result<Option<Prepared>> {
    let path = folder.join(NAME);
    if fs::symlink_metadata(&path).is_ok() {
        show::say(&format!("{} is there already and stays", path.display()));
        return Ok(None);
    }
    let before = sysctl::SYSCTLS.map(|(name, _)| sysctl::read(name).ok());
    for ((name, _), value) in sysctl::SYSCTLS.into_iter().zip(before) {
        // The same value shows whether this process may write it.
        if let Some(value) = value {
            sysctl::write(name, value).with_context(|| format!("cannot set {name}"))?;
        }
    }
    let new = folder.join(format!(".{NAME}.new"));
    let prepared = Prepared { new, path, before: before.to_vec() };
    let written = write_new(&prepared.new, TEXT, (MODE, None));
    written.with_context(|| format!("cannot write {}", prepared.new.display()))?;
    Ok(Some(prepared))
}

impl Prepared {
    /// Notes what will be done. An earlier apply that was cut short has noted the true values.
    pub(super) fn note(&self, state: &mut State) {
        if state.before.is_empty() {
            state.before.clone_from(&self.before);
        }
        state.sysctls = Some(self.path.clone());
    }

    /// Puts the file into its place, and the values in force.
    pub(super) fn put(self) -> anyhow::Result<()> {
        let shown = self.path.display();
        // Unlike a rename, a link takes no file's place.
        fs::hard_link(&self.new, &self.path)
            .and_then(|()| sync(folder_of(&self.path)))
            .with_context(|| format!("cannot write {shown}"))?;
        for (name, value) in sysctl::SYSCTLS {
            sysctl::write(name, value).with_context(|| format!("cannot set {name}"))?;
        }
        show::say(&format!("wrote {shown}: arp_ignore and arp_announce, in force now"));
        Ok(())
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.new);
    }
}

/// Takes back what an apply has written. What somebody has changed since stays. A problem is only told,
/// so that kube-vip returns.
pub(super) fn back(state: &State) {
    let Some(path) = &state.sysctls else { return };
    let shown = path.display();
    let removed = match read_text(path) {
        Ok(text) if text == TEXT => fs::remove_file(path).map(|()| true),
        Ok(_) => {
            show::say(&format!("{shown} was changed since and stays"));
            Ok(false)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    };
    match removed {
        Ok(true) => show::say(&format!("removed {shown}")),
        Ok(false) => {}
        Err(error) => show::say(&format!("remove {shown} by hand: {error}")),
    }
    for ((name, ours), before) in sysctl::SYSCTLS.into_iter().zip(&state.before) {
        let Some(before) = before.filter(|before| *before != ours) else { continue };
        if sysctl::read(name).ok() == Some(ours)
            && let Err(error) = sysctl::write(name, before)
        {
            show::say(&format!("set {name} to {before} by hand: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::migrate::files::Stage;

    fn state() -> State {
        State {
            stage: Stage::Applying,
            node: "a".into(),
            manifest: "/x".into(),
            image: "xvip:1".into(),
            sysctls: None,
            before: vec![],
            shape: None,
        }
    }

    #[test]
    fn an_earlier_apply_has_noted_the_true_values() {
        let before = vec![Some(0), None];
        let (new, path) = ("/nowhere/new".into(), PathBuf::from("/nowhere/file"));
        let prepared = Prepared { new, path: path.clone(), before: before.clone() };
        for (noted, values) in [(vec![], before), (vec![Some(7), Some(7)], vec![Some(7), Some(7)])] {
            let mut state = State { before: noted, ..state() };
            prepared.note(&mut state);
            assert_eq!((state.sysctls, state.before), (Some(path.clone()), values));
        }
    }

    #[test]
    fn a_file_that_was_changed_since_stays() {
        let path = std::env::temp_dir().join(format!("xvip-sysctls-{}", std::process::id()));
        for (text, stays) in [(TEXT, false), ("net.ipv4.ip_forward = 1\n", true)] {
            fs::write(&path, text).unwrap();
            back(&State { sysctls: Some(path.clone()), ..state() });
            assert_eq!(path.exists(), stays, "{text}");
            let _ = fs::remove_file(&path);
        }
    }
}
