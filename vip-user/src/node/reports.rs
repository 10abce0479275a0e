//! What the programs report: claims of other stations, and their own log.

use super::{kernel::Kernel, pins::Pins};
use anyhow::Context as _;
use aya::maps::{Map, MapData, RingBuf};
use std::{io, os::fd::AsRawFd, time::Duration};
use tokio::{io::unix::AsyncFd, sync::mpsc};
use vip_common::abi::Claim;

/// How many claims are read from the ring buffer before each pause.
const CLAIMS_AT_ONCE: usize = 16;
const CLAIMS_PAUSE: Duration = Duration::from_millis(50);

/// Forwards the claims of other stations that the programs report, until the receiver is gone.
///
/// # Errors
/// If the ring buffer cannot be opened.
pub fn follow_claims(
    pins: &Pins,
    claims_to: mpsc::Sender<Claim>,
) -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let map = MapData::from_pin(pins.map("CLAIMS")).and_then(Map::from_map_data);
    let ring = map.and_then(RingBuf::<MapData>::try_from).context("cannot open map CLAIMS")?;
    let mut ring = when_readable(ring).context("cannot wait for claims")?;
    Ok(async move {
        while let Ok(mut ready) = ring.readable_mut().await {
            let ring = ready.get_inner_mut();
            let mut claims = Vec::new();
            while claims.len() < CLAIMS_AT_ONCE
                && let Some(item) = ring.next()
            {
                claims.extend(bytemuck::try_pod_read_unaligned::<Claim>(&item));
            }
            if claims.len() < CLAIMS_AT_ONCE {
                ready.clear_ready();
            }
            for claim in claims {
                if claims_to.send(claim).await.is_err() {
                    return;
                }
            }
            // A flood of claims must not delay renewals. Claims that do not fit into the ring buffer
            // are counted as lost.
            tokio::time::sleep(CLAIMS_PAUSE).await;
        }
    })
}

/// Makes an object of aya, which only exposes its raw descriptor, wait for input.
pub(super) fn when_readable<T: AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the types used here (ring buffer maps, sockets) own their descriptor. They return the
    // same one as long as they live.
    unsafe { AsyncFd::register(inner) }.map_err(|error| error.into_parts().1)
}

/// Writes the log of the programs to the log of this process.
pub fn follow_log(kernel: &mut Kernel) {
    let Some(programs) = kernel.programs() else { return };
    match aya_log::EbpfLogger::init(programs.ebpf()).map(when_readable) {
        Ok(Ok(mut logger)) => {
            tokio::spawn(async move {
                while let Ok(mut ready) = logger.readable_mut().await {
                    ready.get_inner_mut().flush();
                    ready.clear_ready();
                }
            });
        }
        Ok(Err(error)) => tracing::warn!(%error, "no log from the kernel"),
        Err(error) => tracing::warn!(%error, "no log from the kernel"),
    }
}
