//! Maps with the types of their keys and values.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::error::LoaderError;
use crate::plain::Plain;
use crate::sys::{self, Cursor};

/// How many entries are read or written with one call.
const BATCH: usize = 4096;

/// A handle to a map. Clones share the descriptor; every operation is one or more system calls.
#[derive(Debug)]
pub(crate) struct Map<K, V> {
    fd: Arc<OwnedFd>,
    name: &'static str,
    types: PhantomData<fn(K) -> V>,
}

impl<K, V> Clone for Map<K, V> {
    fn clone(&self) -> Self {
        Self { fd: Arc::clone(&self.fd), name: self.name, types: PhantomData }
    }
}

impl<K: Plain, V: Plain> Map<K, V> {
    pub(crate) fn new(fd: OwnedFd, name: &'static str) -> Self {
        Self { fd: Arc::new(fd), name, types: PhantomData }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn get(&self, key: &K) -> Result<Option<V>, LoaderError> {
        sys::lookup(self.fd(), key).map_err(self.failed("read"))
    }

    pub(crate) fn set(&self, key: &K, value: &V) -> Result<(), LoaderError> {
        sys::update(self.fd(), key, value, sys::ANY).map_err(self.failed("write to"))
    }

    /// Sets an entry unless the key is there.
    pub(crate) fn set_new(&self, key: &K, value: &V) -> Result<bool, LoaderError> {
        match sys::update(self.fd(), key, value, sys::NO_EXIST) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            Err(error) => Err(self.failed("write to")(error)),
        }
    }

    /// Removes an entry; false if there was none.
    pub(crate) fn remove(&self, key: &K) -> Result<bool, LoaderError> {
        sys::delete(self.fd(), key).map_err(self.failed("remove from"))
    }

    /// Removes an entry and returns it.
    pub(crate) fn take(&self, key: &K) -> Result<Option<V>, LoaderError> {
        sys::take(self.fd(), key).map_err(self.failed("remove from"))
    }

    /// Sets many entries, with as few calls as possible.
    pub(crate) fn set_many(&self, keys: &[K], values: &[V]) -> Result<(), LoaderError> {
        for (keys, values) in keys.chunks(BATCH).zip(values.chunks(BATCH)) {
            let (done, result) = sys::update_batch(self.fd(), keys, values);
            match result {
                Ok(()) => {}
                Err(error) if is_unsupported(&error) => {
                    for (key, value) in keys.iter().zip(values).skip(done.min(keys.len())) {
                        self.set(key, value)?;
                    }
                }
                Err(error) => return Err(self.failed("write to")(error)),
            }
        }
        Ok(())
    }

    /// Reads all entries. Entries that come or go meanwhile may or may not be seen.
    pub(crate) fn dump(&self) -> Result<Vec<(K, V)>, LoaderError> {
        let mut all = Vec::new();
        let mut cursor = Cursor::default();
        let mut keys = vec![K::zero(); BATCH];
        let mut values = vec![V::zero(); BATCH];
        loop {
            match sys::lookup_batch(self.fd(), &mut cursor, &mut keys, &mut values) {
                Ok((count, more)) => {
                    all.extend(keys.iter().copied().zip(values.iter().copied()).take(count));
                    if !more {
                        return Ok(all);
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    keys.resize(keys.len() * 2, K::zero());
                    values.resize(values.len() * 2, V::zero());
                }
                Err(error) if is_unsupported(&error) => return self.walk(),
                Err(error) => return Err(self.failed("read")(error)),
            }
        }
    }

    /// Reads all entries one by one.
    pub(crate) fn walk(&self) -> Result<Vec<(K, V)>, LoaderError> {
        let mut all = Vec::new();
        let mut key = sys::next_key::<K>(self.fd(), None).map_err(self.failed("walk through"))?;
        while let Some(here) = key {
            if let Some(value) = self.get(&here)? {
                all.push((here, value));
            }
            key = sys::next_key(self.fd(), Some(&here)).map_err(self.failed("walk through"))?;
        }
        Ok(all)
    }

    pub(crate) fn failed(&self, operation: &'static str) -> impl Fn(io::Error) -> LoaderError + use<K, V> {
        let map = self.name;
        move |source| LoaderError::Map { operation, map, source }
    }
}

/// The kernel does not know batches for this kind of map.
fn is_unsupported(error: &io::Error) -> bool {
    const ENOTSUPP: i32 = 524;
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL | ENOTSUPP))
}

/// How many CPUs the kernel reserves per-CPU values for.
pub(crate) fn possible_cpus() -> Result<usize, LoaderError> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible").map_err(LoaderError::Cpus)?;
    let last = text.trim().rsplit([',', '-']).next().unwrap_or_default();
    let last: usize = last.parse().map_err(|error| {
        LoaderError::Cpus(io::Error::new(io::ErrorKind::InvalidData, format!("{text:?}: {error}")))
    })?;
    Ok(last + 1)
}

/// A map with one value per CPU.
#[derive(Clone, Debug)]
pub(crate) struct PerCpuMap<K, V> {
    map: Map<K, V>,
    cpus: usize,
}

impl<K: Plain, V: Plain> PerCpuMap<K, V> {
    pub(crate) fn new(fd: OwnedFd, name: &'static str) -> Result<Self, LoaderError> {
        Ok(Self { map: Map::new(fd, name), cpus: possible_cpus()? })
    }

    /// The values of all CPUs, or nothing if there is no such key.
    pub(crate) fn get(&self, key: &K) -> Result<Vec<V>, LoaderError> {
        let words = size_of::<V>().div_ceil(8);
        let mut values = vec![0_u64; words * self.cpus];
        let found = sys::lookup_bytes(self.map.fd(), key, &mut values).map_err(self.map.failed("read"))?;
        if !found {
            return Ok(Vec::new());
        }
        Ok(split(&values))
    }

    /// Reads all entries of an array, with as few calls as possible.
    pub(crate) fn dump_array(&self) -> Result<Vec<(K, Vec<V>)>, LoaderError> {
        let words = size_of::<V>().div_ceil(8) * self.cpus;
        let mut all = Vec::new();
        let mut cursor = Cursor::default();
        let mut keys = vec![K::zero(); BATCH];
        let mut values = vec![0_u64; words * BATCH];
        loop {
            let (count, more) = sys::lookup_batch(self.map.fd(), &mut cursor, &mut keys, &mut values)
                .map_err(self.map.failed("read"))?;
            let read = keys.iter().copied().zip(values.chunks_exact(words));
            all.extend(read.take(count).map(|(key, values)| (key, split(values))));
            if !more {
                return Ok(all);
            }
        }
    }

    /// Sets the values of all CPUs to zero.
    pub(crate) fn clear(&self, key: &K) -> Result<(), LoaderError> {
        let zeros = vec![0_u64; size_of::<V>().div_ceil(8) * self.cpus];
        sys::update_bytes(self.map.fd(), key, &zeros).map_err(self.map.failed("write to"))
    }

    /// The keys that are there now.
    pub(crate) fn keys(&self) -> Result<Vec<K>, LoaderError> {
        let mut keys = Vec::new();
        let mut key = sys::next_key::<K>(self.map.fd(), None).map_err(self.map.failed("walk through"))?;
        while let Some(here) = key {
            keys.push(here);
            key = sys::next_key(self.map.fd(), Some(&here)).map_err(self.map.failed("walk through"))?;
        }
        Ok(keys)
    }

    /// Removes an entry; false if there was none.
    pub(crate) fn remove(&self, key: &K) -> Result<bool, LoaderError> {
        self.map.remove(key)
    }
}

/// The values of the CPUs, each padded to eight bytes.
fn split<V: Plain>(values: &[u64]) -> Vec<V> {
    let words = size_of::<V>().div_ceil(8);
    values
        .chunks_exact(words)
        .map(|chunk| {
            // SAFETY: `chunk` has at least the size of a `V`, every bit pattern is one, and it is aligned to eight
            // bytes, more than any plain type needs.
            unsafe { chunk.as_ptr().cast::<V>().read() }
        })
        .collect()
}
