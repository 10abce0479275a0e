//! Loading the programs, and the maps that they share with this process.

use super::{
    bpf,
    pins::{LinkPin, Pins, PinsError},
};
use crate::clock;
use aya::{
    Ebpf, EbpfLoader, TestRun as _,
    programs::{ProgramError, SchedClassifier, TestRunOptions, Xdp},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    time::Duration,
};

/// What is known of links without opening their pins: that is done once for each, and not at every
/// look.
#[derive(Debug, Default)]
pub struct KnownLinks {
    /// Ids of our guards, by the interface.
    pub(super) guards: BTreeMap<u32, u32>,
    /// Ids of the guards of other instances.
    pub(super) others: BTreeSet<u32>,
    /// Pins of ours, and everyone's guards by the interface: read at most once in a look.
    pub(super) pins: Option<BTreeSet<LinkPin>>,
    pub(super) everyones: Option<Vec<(u32, PathBuf)>>,
}

/// The stripped object that the build script made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xvip.bpf.o"));

/// The object that holds the programs and maps.
pub fn object() -> &'static [u8] {
    OBJECT
}

/// The object of `cargo xtask bench packets`; the binary does not contain it.
pub fn bench_object() -> &'static [u8] {
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench.bpf.o"))
}

/// What went wrong with a program.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The object could not be loaded.
    #[error("cannot load the eBPF object{hint}")]
    Load {
        /// What to do about it.
        hint: String,
        /// Why.
        #[source]
        source: Box<aya::EbpfError>,
    },
    /// A program is missing from the object or was rejected.
    #[error("cannot load program {program}")]
    Program {
        /// The program.
        program: &'static str,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// A program was rejected for lack of rights.
    #[error("cannot load program {program}: {why}")]
    Rights {
        /// The program.
        program: &'static str,
        /// Who refuses it, and what helps.
        why: String,
    },
    /// The kernel knows no XDP programs that read a frame in pieces, which a NIC with large frames
    /// needs.
    #[error("cannot load program {program}: XDP needs Linux 5.18 (multi-buffer frames)")]
    TooOld {
        /// The program.
        program: &'static str,
    },
    /// A program could not be attached.
    #[error("cannot attach {kind} to interface {interface}: {why}")]
    Attach {
        /// The kind of link.
        kind: &'static str,
        /// The interface.
        interface: String,
        /// Why.
        why: String,
    },
    /// None of the hooks that are allowed takes the program.
    #[error("nothing can answer on interface {interface}: {why}")]
    NoHook {
        /// The interface.
        interface: String,
        /// Why, for each hook.
        why: String,
    },
    /// Whether a program is still there could not be found out.
    #[error("cannot look at the programs of interface {interface}: {source}")]
    Look {
        /// The interface.
        interface: String,
        /// Why.
        source: io::Error,
    },
    /// Another program runs before the guard and could send frames around it.
    #[error("the egress guard is not the first program on {interface}: the interface is unguarded")]
    NotFirst {
        /// The interface.
        interface: String,
    },
    /// Userspace and BPF read different clocks.
    #[error(
        "CLOCK_BOOTTIME of this process differs from the kernel's by {0:?}: \
         xvip must not run in a time namespace with an offset"
    )]
    Clock(Duration),
    /// A pin could not be handled.
    #[error(transparent)]
    Pins(#[from] PinsError),
}

pub(super) type Result<T> = std::result::Result<T, AttachError>;

/// The loaded programs. Dropping it detaches nothing: links are pinned, programs live in their links.
#[derive(Debug)]
pub struct Programs {
    ebpf: Ebpf,
    /// The programs with messages are used.
    debug: bool,
    pub(super) pins: Pins,
    /// False on kernels before 6.6, once that is known.
    pub(super) tcx: bool,
    /// Ids of what is loaded.
    pub(super) ids: BTreeMap<&'static str, u32>,
    maps: Vec<(&'static str, OwnedFd)>,
    pub(super) known: KnownLinks,
}

impl Programs {
    /// Loads the object, with every map pinned (or taken from its pin), and all programs.
    pub fn load(pins: &Pins, log_level: u8, drop_on_loss: bool) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        let drop_on_loss = u8::from(drop_on_loss);
        loader.override_global("AYA_LOG_LEVEL", &log_level, true);
        loader.override_global("DROP_ON_LOSS", &drop_on_loss, true);
        for name in Pins::map_names() {
            loader.map_pin_path(name, pins.map(name));
        }
        let ebpf = loader.load(OBJECT).map_err(|source| AttachError::Load {
            hint: bpf::refusal(&source).map(|why| format!(": {why}")).unwrap_or_default(),
            source: Box::new(source),
        })?;
        let open = |name| -> Result<_> {
            let path = pins.map(name);
            let map = bpf::get(&path).map_err(|source| PinsError::Io { what: "open", path, source })?;
            Ok((name, map))
        };
        let maps = Pins::map_names().map(open).collect::<Result<_>>()?;
        let (pins, tcx) = (pins.clone(), super::host::tcx_allowed());
        let (debug, known) = (log_level > 0, KnownLinks::default());
        let mut programs = Self { ebpf, debug, pins, tcx, ids: BTreeMap::new(), maps, known };
        for program in ["xvip_ingress", "xvip_egress"] {
            let classifier = programs.classifier(program)?;
            classifier.load().map_err(rejected(program))?;
            let info = classifier.info().map_err(rejected(program))?;
            programs.ids.insert(program, info.id());
        }
        programs.check_clock()?;
        Ok(programs)
    }

    /// Pins again what is not pinned any more: somebody has removed a pin or mounted another bpffs.
    pub fn keep_pinned(&self) -> Result<()> {
        self.pins.create()?;
        for (name, map) in &self.maps {
            let path = self.pins.map(name);
            if !path.exists() {
                tracing::warn!(map = name, "its pin is gone and is put back");
                bpf::pin(&path, map.as_fd()).map_err(|source| PinsError::Io {
                    what: "pin",
                    path,
                    source,
                })?;
            }
        }
        Ok(())
    }

    /// Whether every map is pinned.
    pub fn are_pinned(&self) -> bool {
        self.maps.iter().all(|(name, _)| self.pins.map(name).exists())
    }

    /// The loaded object, for its ring buffer and for debug logs.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Loads what answers in XDP. It needs 5.18; before that TC answers. Older kernels refuse the flag
    /// before their verifier says a word.
    pub(super) fn load_xdp(&mut self) -> Result<&'static str> {
        let program = "xvip_xdp";
        let xdp = self.xdp(program)?;
        match xdp.load() {
            Ok(()) | Err(ProgramError::AlreadyLoaded) => {}
            Err(ProgramError::LoadError { io_error, verifier_log })
                if io_error.kind() == io::ErrorKind::InvalidInput
                    && verifier_log.to_string().is_empty() =>
            {
                return Err(AttachError::TooOld { program });
            }
            Err(error) => return Err(rejected(program)(error)),
        }
        let id = xdp.info().map_err(rejected(program))?.id();
        self.ids.insert(program, id);
        Ok(program)
    }

    /// Compares `CLOCK_BOOTTIME` with what programs read: a time namespace shifts only the former,
    /// and every fence would be off by as much.
    fn check_clock(&mut self) -> Result<()> {
        const TOLERANCE: Duration = Duration::from_millis(200);
        let xdp = self.xdp("xvip_clock")?;
        xdp.load().map_err(rejected("xvip_clock"))?;
        let frame = [0_u8; 64];
        let mut out = [0_u8; 64];
        let before = clock::boot();
        let options = TestRunOptions {
            data_in: Some(&frame),
            data_out: Some(&mut out),
            ..TestRunOptions::default()
        };
        xdp.test_run(options).map_err(rejected("xvip_clock"))?;
        let after = clock::boot();
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&out[..8]);
        let kernel = u64::from_ne_bytes(bytes);
        let off = before.0.saturating_sub(kernel).max(kernel.saturating_sub(after.0));
        let off = Duration::from_nanos(off);
        if off > TOLERANCE { Err(AttachError::Clock(off)) } else { Ok(()) }
    }

    pub(super) fn xdp(&mut self, program: &'static str) -> Result<&mut Xdp> {
        let found = self.ebpf.program_mut(self.variant(program)).map(TryInto::try_into);
        found.unwrap_or(Err(ProgramError::NotLoaded)).map_err(rejected(program))
    }

    /// The name that a program has in the object.
    fn variant(&self, program: &'static str) -> &'static str {
        match program {
            "xvip_xdp" if self.debug => "xvip_xdp_debug",
            "xvip_egress" if self.debug => "xvip_egress_debug",
            _ => program,
        }
    }

    pub(super) fn classifier(&mut self, program: &'static str) -> Result<&mut SchedClassifier> {
        let found = self.ebpf.program_mut(self.variant(program)).map(TryInto::try_into);
        found.unwrap_or(Err(ProgramError::NotLoaded)).map_err(rejected(program))
    }
}

fn rejected(program: &'static str) -> impl Fn(ProgramError) -> AttachError {
    move |source| match source {
        ProgramError::LoadError { ref io_error, .. } => match bpf::refusal(io_error) {
            Some(why) => AttachError::Rights { program, why },
            None => AttachError::Program { program, source: Box::new(source) },
        },
        source => AttachError::Program { program, source: Box::new(source) },
    }
}
