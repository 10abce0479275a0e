//! What the programs tell: claims of others, and their own log.

use super::{kernel::Kernel, pins::Pins};
use anyhow::Context as _;
use aya::maps::{Map, MapData, RingBuf};
use std::{io, os::fd::AsRawFd, time::Duration};
use tokio::{io::unix::AsyncFd, sync::mpsc};
use vip_common::abi::Claim;

/// Claims that are taken out of the ring buffer at once, and the pause after it.
const CLAIMS_AT_ONCE: usize = 16;
const CLAIMS_PAUSE: Duration = Duration::from_millis(50);

/// Hands on what the programs report of claims by other stations. Ends with the receiver.
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
            // A flood of claims must not crowd out renewals; what does not fit is counted as lost.
            tokio::time::sleep(CLAIMS_PAUSE).await;
        }
    })
}

/// Waits for a descriptor that aya hands out only in its raw form.
pub(super) fn when_readable<T: AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the types used here (ring buffer maps, sockets) own their descriptor, and return the same
    // one as long as they live.
    unsafe { AsyncFd::register(inner) }.map_err(|error| error.into_parts().1)
}

/// Brings the log of the programs into that of this process.
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
