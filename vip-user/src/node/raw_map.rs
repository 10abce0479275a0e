//! Pinned maps by bpf(2): those whose value size is known only at run time (another version's), and
//! large ones, which are read many entries at a time. Aya makes two system calls for every entry.

use super::bpf::{call, get};
use aya::maps::MapInfo;
use bytemuck::AnyBitPattern;
use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
};

const UPDATE: libc::c_int = 2;
/// Linux 5.6.
const LOOKUP_BATCH: libc::c_int = 24;
/// Entries of the first batch. The kernel hands out whole buckets of a hash map.
const BATCH: usize = 1_024;

#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// A pinned map of any layout.
#[derive(Debug)]
pub struct RawMap {
    fd: OwnedFd,
    /// Bytes of a key.
    pub key_size: usize,
    /// Bytes of a value.
    pub value_size: usize,
}

impl RawMap {
    /// Opens what is pinned there; `None` if nothing is.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        let fd = match get(path) {
            Ok(fd) => fd,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let info = MapInfo::from_pin(path).map_err(io::Error::other)?;
        let (key_size, value_size) = (info.key_size() as usize, info.value_size() as usize);
        Ok(Some(Self { fd, key_size, value_size }))
    }

    /// All entries; an array has one for every index.
    pub fn entries(&self) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut entries = Vec::new();
        self.read(|key, value| entries.push((key.to_vec(), value.to_vec())))?;
        Ok(entries)
    }

    /// All entries, whose layout the caller knows.
    pub fn typed<K: AnyBitPattern, V: AnyBitPattern>(&self) -> io::Result<Vec<(K, V)>> {
        if self.key_size != size_of::<K>() || self.value_size != size_of::<V>() {
            return Err(io::Error::other("the map has another layout"));
        }
        let mut entries = Vec::new();
        self.read(|key, value| {
            entries.push((bytemuck::pod_read_unaligned(key), bytemuck::pod_read_unaligned(value)));
        })?;
        Ok(entries)
    }

    /// Stores a value. One that is shorter than the map's ends in zeros, one that is longer is cut.
    pub fn store(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if key.len() != self.key_size {
            let (ours, theirs) = (key.len(), self.key_size);
            return Err(io::Error::other(format!("a key has {theirs} bytes, not {ours}")));
        }
        let mut fitted = value.to_vec();
        fitted.resize(self.value_size, 0);
        let (map_fd, key) = (self.fd.as_raw_fd().cast_unsigned(), key.as_ptr() as u64);
        let value = fitted.as_ptr() as u64;
        call(UPDATE, &mut ElementAttr { map_fd, _pad: 0, key, value, flags: 0 }).map(drop)
    }

    /// Hands out each entry: key and value.
    fn read(&self, mut take: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        let (mut size, mut begun) = (BATCH, false);
        // Where the kernel goes on: a bucket of a hash map (4 bytes), or the last key of an array.
        let mut position = vec![0_u8; self.key_size.max(size_of::<u32>())];
        loop {
            let mut keys = vec![0_u8; size * self.key_size];
            let mut values = vec![0_u8; size * self.value_size];
            let at = position.as_mut_ptr() as u64;
            let mut attr = BatchAttr {
                in_batch: if begun { at } else { 0 },
                out_batch: at,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: size as u32,
                map_fd: self.fd.as_raw_fd().cast_unsigned(),
                elem_flags: 0,
                flags: 0,
            };
            let result = call(LOOKUP_BATCH, &mut attr).map_err(|error| (error.raw_os_error(), error));
            let ends = match result {
                Ok(_) => false,
                Err((Some(libc::ENOENT), _)) => true,
                // The next bucket has more entries than fit.
                Err((Some(libc::ENOSPC), _)) if attr.count == 0 && size < 64 * BATCH => {
                    size *= 2;
                    continue;
                }
                Err((_, error)) => return Err(error),
            };
            let found = keys.chunks_exact(self.key_size).zip(values.chunks_exact(self.value_size));
            found.take(attr.count as usize).for_each(|(key, value)| take(key, value));
            if ends {
                return Ok(());
            }
            begun = true;
        }
    }
}
