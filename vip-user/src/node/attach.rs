//! Loading the programs and attaching them. Links are pinned, so they outlive the process, and
//! replaced atomically, so that a restart loses no frame.

use super::{
    clock,
    pins::{LinkKind, LinkPin, Pins, PinsError},
};
use crate::config::Attach;
use aya::{
    Ebpf, EbpfLoader, TestRun as _,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType, TestRunOptions, Xdp, XdpMode,
        links::{FdLink, LinkError, PinnedLink},
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact},
    },
};
use std::{io, path::Path, time::Duration};

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

/// Fixed place of our filter on kernels before tcx (6.6): a restart finds and replaces it.
const CLSACT_PRIORITY: u16 = 1;
const CLSACT_HANDLE: TcHandle = TcHandle::new(0, 0x7869);

/// What loading needs, for messages.
const RIGHTS: &str =
    "the process needs CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_SYS_ADMIN (or root)";

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
    /// A program was rejected for lack of rights: without CAP_PERFMON the verifier allows no variable
    /// offsets into packets, which options and VLAN tags need.
    #[error("cannot load program {program}: {RIGHTS}")]
    Rights {
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

type Result<T> = std::result::Result<T, AttachError>;

/// The loaded programs. Dropping it detaches nothing: links are pinned, programs live in their links.
#[derive(Debug)]
pub struct Programs {
    ebpf: Ebpf,
    pins: Pins,
    tcx: bool,
}

impl Programs {
    /// Loads the object, with every map pinned (or taken from its pin), and all programs.
    pub fn load(pins: &Pins, log_level: u8) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        loader.override_global("AYA_LOG_LEVEL", &log_level, true);
        for name in Pins::map_names() {
            loader.map_pin_path(name, pins.map(name));
        }
        let ebpf = loader.load(OBJECT).map_err(|source| AttachError::Load {
            hint: if permission_denied(&source) { format!(": {RIGHTS}") } else { String::new() },
            source: Box::new(source),
        })?;
        let mut programs = Self { ebpf, pins: pins.clone(), tcx: true };
        for program in ["xvip_ingress", "xvip_egress"] {
            let classifier = programs.classifier(program)?;
            classifier.load().map_err(rejected(program))?;
        }
        programs.check_clock()?;
        Ok(programs)
    }

    /// The loaded object, for its ring buffer and for debug logs.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Attaches the egress guard as the first program, or replaces the one that is there.
    pub fn attach_guard(&mut self, interface: &str, ifindex: u32) -> Result<()> {
        self.attach_tc(interface, ifindex, LinkKind::Guard)?;
        self.check_guard(interface)
    }

    /// Whether the guard is the first program at TC egress.
    pub fn check_guard(&mut self, interface: &str) -> Result<()> {
        if !self.tcx {
            return Ok(());
        }
        let ours = self.classifier("xvip_egress")?.info().map(|info| info.id());
        let first = SchedClassifier::query_tcx(interface, TcAttachType::Egress)
            .ok()
            .and_then(|(_, programs)| programs.first().map(aya::programs::ProgramInfo::id));
        if ours.ok().is_some_and(|ours| Some(ours) == first) {
            Ok(())
        } else {
            Err(AttachError::NotFirst { interface: interface.into() })
        }
    }

    /// Attaches what answers: native XDP, TC ingress or generic XDP, as asked for. Says what is in
    /// force and, after a fallback, why.
    pub fn attach_ingress(
        &mut self,
        interface: &str,
        ifindex: u32,
        mode: Attach,
    ) -> Result<(LinkKind, Option<String>)> {
        let (kind, why) = match mode {
            Attach::Native => (self.attach_xdp(interface, ifindex, LinkKind::Native)?, None),
            Attach::Generic => (self.attach_xdp(interface, ifindex, LinkKind::Generic)?, None),
            Attach::Tc => (self.attach_tc(interface, ifindex, LinkKind::TcIngress)?, None),
            Attach::Auto => match self.attach_xdp(interface, ifindex, LinkKind::Native) {
                Ok(kind) => (kind, None),
                Err(error) => {
                    let why = error.to_string();
                    (self.attach_tc(interface, ifindex, LinkKind::TcIngress)?, Some(why))
                }
            },
        };
        for pin in self.pins.links() {
            let other = pin.kind != kind && pin.kind != LinkKind::Guard;
            if pin.interface == interface && other {
                self.pins.remove(&self.pins.link(&pin))?;
            }
        }
        Ok((kind, why))
    }

    fn attach_xdp(&mut self, interface: &str, ifindex: u32, kind: LinkKind) -> Result<LinkKind> {
        let program = self.load_xdp()?;
        let pin = LinkPin { interface: interface.into(), ifindex, kind };
        let path = self.pins.link(&pin);
        let mode = if kind == LinkKind::Native { XdpMode::Driver } else { XdpMode::Skb };
        let failed =
            |why: String| AttachError::Attach { kind: kind.name(), interface: interface.into(), why };
        let xdp = self.xdp(program)?;
        if let Some(old) = pinned(&path).map_err(&failed)? {
            let link = old.try_into().map_err(|error: LinkError| failed(error.to_string()))?;
            match xdp.attach_to_link(link) {
                Ok(id) => {
                    // Dropping the taken link closes a descriptor; the pin keeps the link.
                    drop(xdp.take_link(id));
                    return Ok(kind);
                }
                Err(error) if is_dead_link(&error) => {}
                Err(error) => return Err(failed(describe(&error))),
            }
        }
        self.pins.remove(&path)?;
        let xdp = self.xdp(program)?;
        let id = xdp.attach_to_if_index(ifindex, mode).map_err(|error| failed(describe(&error)))?;
        let link = xdp.take_link(id).map_err(|error| failed(describe(&error)))?;
        let link: FdLink = link.try_into().map_err(|error: LinkError| failed(error.to_string()))?;
        link.pin(&path).map_err(|error| failed(error.to_string()))?;
        Ok(kind)
    }

    /// Programs for multi-buffer frames need 5.18; before that the plain one is loaded.
    fn load_xdp(&mut self) -> Result<&'static str> {
        for program in ["xvip_xdp", "xvip_xdp_linear"] {
            let xdp = self.xdp(program)?;
            match xdp.load() {
                Ok(()) | Err(ProgramError::AlreadyLoaded) => return Ok(program),
                Err(_) if program == "xvip_xdp" => {}
                Err(error) => return Err(rejected(program)(error)),
            }
        }
        unreachable_program()
    }

    fn attach_tc(&mut self, interface: &str, ifindex: u32, kind: LinkKind) -> Result<LinkKind> {
        let (program, direction) = match kind {
            LinkKind::Guard => ("xvip_egress", TcAttachType::Egress),
            _ => ("xvip_ingress", TcAttachType::Ingress),
        };
        let pin = LinkPin { interface: interface.into(), ifindex, kind };
        let path = self.pins.link(&pin);
        let failed =
            |why: String| AttachError::Attach { kind: kind.name(), interface: interface.into(), why };
        let classifier = self.classifier(program)?;
        if let Some(old) = pinned(&path).map_err(&failed)? {
            let link = old.try_into().map_err(|error: LinkError| failed(error.to_string()))?;
            match classifier.attach_to_link(link) {
                Ok(id) => {
                    drop(classifier.take_link(id));
                    return Ok(kind);
                }
                Err(error) if is_dead_link(&error) => {}
                Err(error) => return Err(failed(describe(&error))),
            }
        }
        self.pins.remove(&path)?;
        let classifier = self.classifier(program)?;
        let order = TcAttachOptions::TcxOrder(LinkOrder::first());
        match classifier.attach_with_options(interface, direction, order) {
            Ok(id) => {
                let link = classifier.take_link(id).map_err(|error| failed(describe(&error)))?;
                let link: FdLink =
                    link.try_into().map_err(|error: LinkError| failed(error.to_string()))?;
                link.pin(&path).map_err(|error| failed(error.to_string()))?;
            }
            // tcx came with 6.6; before that, EINVAL.
            Err(error) if errno(&error) == Some(libc::EINVAL) => {
                attach_clsact(classifier, interface, direction).map_err(failed)?;
                self.tcx = false;
            }
            Err(error) => return Err(failed(describe(&error))),
        }
        Ok(kind)
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

    fn xdp(&mut self, program: &'static str) -> Result<&mut Xdp> {
        let found = self.ebpf.program_mut(program).map(TryInto::try_into);
        found.unwrap_or(Err(ProgramError::NotLoaded)).map_err(rejected(program))
    }

    fn classifier(&mut self, program: &'static str) -> Result<&mut SchedClassifier> {
        let found = self.ebpf.program_mut(program).map(TryInto::try_into);
        found.unwrap_or(Err(ProgramError::NotLoaded)).map_err(rejected(program))
    }
}

fn unreachable_program() -> Result<&'static str> {
    Err(rejected("xvip_xdp")(ProgramError::NotLoaded))
}

/// On kernels without tcx the filter lives in the clsact qdisc and needs no pin.
fn attach_clsact(
    classifier: &mut SchedClassifier,
    interface: &str,
    direction: TcAttachType,
) -> std::result::Result<(), String> {
    // It may be there already: the attachment tells.
    let _ = qdisc_add_clsact(interface);
    let options =
        NlOptions { priority: CLSACT_PRIORITY, handle: CLSACT_HANDLE, ..NlOptions::default() };
    let id = classifier
        .attach_with_options(interface, direction, TcAttachOptions::Netlink(options))
        .or_else(|_| {
            let link = SchedClassifierLink::attached(
                interface,
                direction,
                CLSACT_PRIORITY,
                CLSACT_HANDLE,
                None,
            );
            link.map_err(ProgramError::from).and_then(|link| classifier.attach_to_link(link))
        })
        .map_err(|error| describe(&error))?;
    // The filter must outlive the process; dropping the link would remove it.
    std::mem::forget(classifier.take_link(id).map_err(|error| describe(&error))?);
    Ok(())
}

fn pinned(path: &Path) -> std::result::Result<Option<FdLink>, String> {
    match PinnedLink::from_pin(path) {
        Ok(link) => Ok(Some(link.into())),
        Err(LinkError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(error.to_string()),
    }
}

/// The interface of the link is gone: `bpf_link_update` says ENOLINK.
fn is_dead_link(error: &ProgramError) -> bool {
    errno(error) == Some(libc::ENOLINK)
}

fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    }
}

fn describe(error: &ProgramError) -> String {
    match error {
        ProgramError::SyscallError(error) => match error.io_error.raw_os_error() {
            Some(libc::EBUSY) => "another XDP program is attached there".into(),
            Some(libc::EOPNOTSUPP) => "the driver has no native XDP".into(),
            _ => error.io_error.to_string(),
        },
        other => other.to_string(),
    }
}

fn rejected(program: &'static str) -> impl Fn(ProgramError) -> AttachError {
    move |source| match source {
        ProgramError::LoadError { io_error, .. }
            if io_error.kind() == io::ErrorKind::PermissionDenied =>
        {
            AttachError::Rights { program }
        }
        source => AttachError::Program { program, source: Box::new(source) },
    }
}

fn permission_denied(error: &aya::EbpfError) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
        {
            return true;
        }
        source = error.source();
    }
    false
}
