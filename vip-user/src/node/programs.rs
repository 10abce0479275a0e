//! Loads the programs, and the maps that they share with this process.

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

/// Facts about links that are kept from look to look, so that each pin is opened only once.
#[derive(Debug, Default)]
pub struct KnownLinks {
    /// Ids of our guards, by the index of the interface.
    pub(super) guards: BTreeMap<u32, u32>,
    /// Ids of the guards of other instances.
    pub(super) others: BTreeSet<u32>,
    /// Our pins, and the guards of all instances by interface. They are listed at most once in a look.
    pub(super) pins: Option<BTreeSet<LinkPin>>,
    pub(super) everyones: Option<Vec<(u32, PathBuf)>>,
}

/// The stripped object, from the build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xvip.bpf.o"));

/// The object that holds the programs and maps.
pub fn object() -> &'static [u8] {
    OBJECT
}

/// The object of `cargo xtask bench packets`; the binary does not contain it.
pub fn bench_object() -> &'static [u8] {
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench.bpf.o"))
}

/// Why a program cannot be loaded, attached or looked at.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The object could not be loaded.
    #[error("cannot load the eBPF object{hint}")]
    Load {
        /// What helps; may be empty.
        hint: String,
        /// The cause.
        #[source]
        source: Box<aya::EbpfError>,
    },
    /// A program is missing from the object or was rejected.
    #[error("cannot load program {program}")]
    Program {
        /// The name of the program.
        program: &'static str,
        /// The cause.
        #[source]
        source: Box<ProgramError>,
    },
    /// A program was rejected for lack of rights.
    #[error("cannot load program {program}: {why}")]
    Rights {
        /// The name of the program.
        program: &'static str,
        /// What refuses it, and what helps.
        why: String,
    },
    /// The kernel has no XDP programs that read a frame in pieces, which a NIC with large frames needs.
    #[error("cannot load program {program}: XDP needs Linux 5.18 (multi-buffer frames)")]
    TooOld {
        /// The name of the program.
        program: &'static str,
    },
    /// A program could not be attached.
    #[error("cannot attach {kind} to interface {interface}: {why}")]
    Attach {
        /// The kind of link.
        kind: &'static str,
        /// The interface.
        interface: String,
        /// The reason.
        why: String,
    },
    /// None of the allowed hooks accepts the program.
    #[error("nothing can answer on interface {interface}: {why}")]
    NoHook {
        /// The interface.
        interface: String,
        /// The reason of each hook.
        why: String,
    },
    /// The kernel could not be asked whether a program is still attached.
    #[error("cannot look at the programs of interface {interface}: {source}")]
    Look {
        /// The interface.
        interface: String,
        /// The cause.
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

/// The loaded programs. Dropping this detaches nothing: links are pinned, and programs live in their
/// links.
#[derive(Debug)]
pub struct Programs {
    ebpf: Ebpf,
    /// Whether the programs with messages are used.
    debug: bool,
    pub(super) pins: Pins,
    /// Whether to attach with tcx. It becomes false once a kernel before 6.6 has refused it.
    pub(super) tcx: bool,
    /// The ids of the loaded programs.
    pub(super) ids: BTreeMap<&'static str, u32>,
    maps: Vec<(&'static str, OwnedFd)>,
    pub(super) known: KnownLinks,
}

impl Programs {
    /// Loads the object and the programs at TC. Every map is pinned, or is taken from its pin.
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

    /// Pins again the maps whose pins are gone: an administrator may have removed a pin, or mounted
    /// another bpffs.
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

    /// Loads the program that answers in XDP. It needs 5.18; on older kernels TC answers. Those refuse
    /// the flag before their verifier writes anything.
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

    /// Compares `CLOCK_BOOTTIME` with the clock that programs read. A time namespace shifts only the
    /// former, and every fence would be wrong by that much.
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

    /// The name of a program in the object, with or without messages.
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
