//! The bpf(2) calls that `aya` does not offer: batches, links by interface index, and everything the CNI plugin
//! needs without parsing an object. Layouts are those of the kernel's `union bpf_attr` (`linux/bpf.h`).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::plain::Plain;

/// Insert or replace.
pub(crate) const ANY: u64 = 0;
/// Insert only.
pub(crate) const NO_EXIST: u64 = 1;

/// `BPF_F_NO_PREALLOC`.
pub(crate) const NO_PREALLOC: u32 = 1;

const MAP_CREATE: u32 = 0;
const MAP_LOOKUP_ELEM: u32 = 1;
const MAP_UPDATE_ELEM: u32 = 2;
const MAP_DELETE_ELEM: u32 = 3;
const MAP_GET_NEXT_KEY: u32 = 4;
const OBJ_PIN: u32 = 6;
const OBJ_GET: u32 = 7;
const PROG_TEST_RUN: u32 = 10;
const PROG_GET_FD_BY_ID: u32 = 13;
const MAP_GET_FD_BY_ID: u32 = 14;
const OBJ_GET_INFO_BY_FD: u32 = 15;
const PROG_QUERY: u32 = 16;
const MAP_LOOKUP_AND_DELETE_ELEM: u32 = 21;
const MAP_LOOKUP_BATCH: u32 = 24;
const MAP_UPDATE_BATCH: u32 = 26;
const LINK_CREATE: u32 = 28;
const LINK_UPDATE: u32 = 29;
const LINK_GET_FD_BY_ID: u32 = 30;
const LINK_DETACH: u32 = 34;

const MAP_TYPE_HASH: u32 = 1;

/// Where a TCX program runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub(crate) enum TcxHook {
    /// `BPF_TCX_INGRESS`.
    Ingress = 46,
    /// `BPF_TCX_EGRESS`.
    Egress = 47,
}

/// Calls bpf(2) with an attribute of its own size.
fn bpf<T>(command: u32, attribute: &mut T) -> io::Result<i64> {
    // SAFETY: the kernel reads `size` bytes of `attribute` and takes the rest of its own as zero. Pointers inside
    // are made from references by the callers below, which outlive the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(result: i64) -> OwnedFd {
    #[expect(clippy::cast_possible_truncation, reason = "a file descriptor is an int")]
    // SAFETY: the call succeeded and returned a new descriptor that nobody else owns.
    unsafe {
        OwnedFd::from_raw_fd(result as i32)
    }
}

#[expect(clippy::cast_sign_loss, reason = "an open descriptor is not negative")]
fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

/// Sets an option of a socket that is a number.
pub(crate) fn set_socket_option(socket: &impl AsFd, level: i32, option: i32, value: u32) -> io::Result<()> {
    #[expect(clippy::cast_possible_truncation, reason = "four bytes")]
    let length = size_of::<u32>() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: an open socket, and a number of that length that outlives the call.
    let result = unsafe { libc::setsockopt(fd, level, option, std::ptr::from_ref(&value).cast(), length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The state of a TCP socket, `TCP_ESTABLISHED` and so on: the first byte of `struct tcp_info`.
pub(crate) fn tcp_state(socket: &impl AsFd) -> io::Result<u8> {
    let mut state = 0_u8;
    let mut length: libc::socklen_t = 1;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: an open socket, and one byte and a length of one that outlive the call.
    let result = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_TCP,
            libc::TCP_INFO,
            std::ptr::from_mut(&mut state).cast(),
            std::ptr::from_mut(&mut length),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(state) }
}

fn address_of<T>(value: &T) -> u64 {
    std::ptr::from_ref(value) as u64
}

fn address_of_mut<T>(value: &mut T) -> u64 {
    std::ptr::from_mut(value) as u64
}

#[repr(C)]
struct Element {
    map: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The value under `key`.
pub(crate) fn lookup<K: Plain, V: Plain>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = V::zero();
    let mut call = Element {
        map: raw(map),
        reserved: 0,
        key: address_of(key),
        value: address_of_mut(&mut value),
        flags: 0,
    };
    found(bpf(MAP_LOOKUP_ELEM, &mut call)).map(|found| found.then_some(value))
}

/// The values of all possible CPUs under `key`, each padded to eight bytes.
pub(crate) fn lookup_bytes<K: Plain>(map: BorrowedFd<'_>, key: &K, values: &mut [u64]) -> io::Result<bool> {
    let mut call = Element {
        map: raw(map),
        reserved: 0,
        key: address_of(key),
        value: values.as_mut_ptr() as u64,
        flags: 0,
    };
    found(bpf(MAP_LOOKUP_ELEM, &mut call))
}

/// Sets the value under `key`.
pub(crate) fn update<K: Plain, V: Plain>(
    map: BorrowedFd<'_>,
    key: &K,
    value: &V,
    flags: u64,
) -> io::Result<()> {
    let mut call =
        Element { map: raw(map), reserved: 0, key: address_of(key), value: address_of(value), flags };
    bpf(MAP_UPDATE_ELEM, &mut call).map(drop)
}

/// Sets the values of all possible CPUs under `key`, each padded to eight bytes.
pub(crate) fn update_bytes<K: Plain>(map: BorrowedFd<'_>, key: &K, values: &[u64]) -> io::Result<()> {
    let mut call = Element {
        map: raw(map),
        reserved: 0,
        key: address_of(key),
        value: values.as_ptr() as u64,
        flags: ANY,
    };
    bpf(MAP_UPDATE_ELEM, &mut call).map(drop)
}

/// Removes `key`; false if it was not there.
pub(crate) fn delete<K: Plain>(map: BorrowedFd<'_>, key: &K) -> io::Result<bool> {
    let mut call = Element { map: raw(map), reserved: 0, key: address_of(key), value: 0, flags: 0 };
    found(bpf(MAP_DELETE_ELEM, &mut call))
}

/// Removes `key` and returns what it held.
pub(crate) fn take<K: Plain, V: Plain>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = V::zero();
    let mut call = Element {
        map: raw(map),
        reserved: 0,
        key: address_of(key),
        value: address_of_mut(&mut value),
        flags: 0,
    };
    found(bpf(MAP_LOOKUP_AND_DELETE_ELEM, &mut call)).map(|found| found.then_some(value))
}

/// The key after `key`, or the first.
pub(crate) fn next_key<K: Plain>(map: BorrowedFd<'_>, key: Option<&K>) -> io::Result<Option<K>> {
    let mut next = K::zero();
    let mut call = Element {
        map: raw(map),
        reserved: 0,
        key: key.map_or(0, address_of),
        value: address_of_mut(&mut next),
        flags: 0,
    };
    found(bpf(MAP_GET_NEXT_KEY, &mut call)).map(|found| found.then_some(next))
}

fn found(result: io::Result<i64>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Where a batched walk through a map stands. Hash maps keep a bucket number here, others a key.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    place: [u64; 8],
    started: bool,
}

/// Reads up to `keys.len()` entries and returns how many, and whether there are more. `values` has room for that
/// many values of the map (of a per-CPU map: for all CPUs). `ENOSPC`: a bucket has more entries than there is room for.
pub(crate) fn lookup_batch<K: Plain, V: Plain>(
    map: BorrowedFd<'_>,
    cursor: &mut Cursor,
    keys: &mut [K],
    values: &mut [V],
) -> io::Result<(usize, bool)> {
    let mut next = Cursor { place: [0; 8], started: true };
    let mut call = Batch {
        in_batch: if cursor.started { address_of(&cursor.place) } else { 0 },
        out_batch: address_of_mut(&mut next.place),
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: u32::try_from(keys.len()).unwrap_or(u32::MAX),
        map: raw(map),
        element_flags: 0,
        flags: 0,
    };
    let more = found(bpf(MAP_LOOKUP_BATCH, &mut call))?;
    *cursor = next;
    Ok((call.count as usize, more))
}

/// Sets many entries; returns how many were set before an error.
pub(crate) fn update_batch<K: Plain, V: Plain>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> (usize, io::Result<()>) {
    let count = keys.len().min(values.len());
    let mut call = Batch {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: u32::try_from(count).unwrap_or(u32::MAX),
        map: raw(map),
        element_flags: ANY,
        flags: 0,
    };
    let result = bpf(MAP_UPDATE_BATCH, &mut call).map(drop);
    (call.count as usize, result)
}

#[repr(C)]
struct Create {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner_map: u32,
    numa_node: u32,
    name: [u8; 16],
}

/// A hash map of its own, without preallocation. `name` has at most 15 bytes.
pub(crate) fn create_hash<K: Plain, V: Plain>(name: &str, max_entries: u32) -> io::Result<OwnedFd> {
    let mut call = Create {
        kind: MAP_TYPE_HASH,
        key_size: size_u32::<K>(),
        value_size: size_u32::<V>(),
        max_entries,
        flags: NO_PREALLOC,
        inner_map: 0,
        numa_node: 0,
        name: [0; 16],
    };
    for (place, byte) in call.name.iter_mut().take(15).zip(name.bytes()) {
        *place = byte;
    }
    bpf(MAP_CREATE, &mut call).map(owned)
}

fn size_u32<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}

#[repr(C)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Pins an object at a path on a bpffs.
pub(crate) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut call = Object { path: path.as_ptr() as u64, fd: raw(fd), flags: 0 };
    bpf(OBJ_PIN, &mut call).map(drop)
}

/// Opens a pinned object.
pub(crate) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut call = Object { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    bpf(OBJ_GET, &mut call).map(owned)
}

/// Opens a pinned map for reading only.
pub(crate) fn open_pin_to_read(path: &Path) -> io::Result<OwnedFd> {
    const READ_ONLY: u32 = 1 << 3;
    let path = c_path(path)?;
    let mut call = Object { path: path.as_ptr() as u64, fd: 0, flags: READ_ONLY };
    bpf(OBJ_GET, &mut call).map(owned)
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

#[repr(C)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Opens the map with this id.
pub(crate) fn map_by_id(id: u32) -> io::Result<OwnedFd> {
    bpf(MAP_GET_FD_BY_ID, &mut ById { id, next_id: 0, open_flags: 0 }).map(owned)
}

/// Opens the program with this id.
pub(crate) fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    bpf(PROG_GET_FD_BY_ID, &mut ById { id, next_id: 0, open_flags: 0 }).map(owned)
}

/// Opens the link with this id.
pub(crate) fn link_by_id(id: u32) -> io::Result<OwnedFd> {
    bpf(LINK_GET_FD_BY_ID, &mut ById { id, next_id: 0, open_flags: 0 }).map(owned)
}

#[repr(C)]
struct Info {
    fd: u32,
    length: u32,
    info: u64,
}

fn info<T>(fd: BorrowedFd<'_>, into: &mut T) -> io::Result<()> {
    let mut call = Info { fd: raw(fd), length: size_u32::<T>(), info: address_of_mut(into) };
    bpf(OBJ_GET_INFO_BY_FD, &mut call).map(drop)
}

/// The beginning of `struct bpf_link_info` of a TCX link.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct LinkInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) program_id: u32,
    reserved: u32,
    /// 0 once the interface is gone.
    pub(crate) ifindex: u32,
    pub(crate) hook: u32,
}

/// What a link is attached to.
pub(crate) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut into = LinkInfo::default();
    info(link, &mut into)?;
    Ok(into)
}

/// The beginning of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Debug, Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_length: u32,
    xlated_length: u32,
    jited: u64,
    xlated: u64,
    load_time: u64,
    created_by: u32,
    map_count: u32,
    map_ids: u64,
    name: [u8; 16],
}

/// Id and name of a program.
pub(crate) fn program_info(program: BorrowedFd<'_>) -> io::Result<(u32, String)> {
    let mut into = ProgramInfo::default();
    info(program, &mut into)?;
    let name = into.name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok((into.id, String::from_utf8_lossy(name).into_owned()))
}

/// The beginning of `struct bpf_map_info`.
#[repr(C)]
#[derive(Debug, Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

/// The number under which the kernel knows a map.
pub(crate) fn map_id(map: BorrowedFd<'_>) -> io::Result<u32> {
    let mut into = MapInfo::default();
    info(map, &mut into)?;
    Ok(into.id)
}

/// How many entries a map takes.
pub(crate) fn map_capacity(map: BorrowedFd<'_>) -> io::Result<u32> {
    let mut into = MapInfo::default();
    info(map, &mut into)?;
    Ok(into.max_entries)
}

#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    program: u32,
    ifindex: u32,
    hook: u32,
    flags: u32,
    relative: u32,
    reserved: u32,
    expected_revision: u64,
}

/// Attaches a program to an interface of this network namespace, after those that are there already.
pub(crate) fn create_tcx_link(program: BorrowedFd<'_>, ifindex: u32, hook: TcxHook) -> io::Result<OwnedFd> {
    let mut call = LinkCreate { program: raw(program), ifindex, hook: hook as u32, ..LinkCreate::default() };
    bpf(LINK_CREATE, &mut call).map(owned)
}

#[repr(C)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// Replaces a link's program. There is no moment without one.
pub(crate) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut call = LinkUpdate { link: raw(link), program: raw(program), flags: 0, old_program: 0 };
    bpf(LINK_UPDATE, &mut call).map(drop)
}

#[repr(C)]
struct LinkDetach {
    link: u32,
}

/// Takes a link's program from its interface now. The last descriptor or pin of a link does so as well, but the
/// kernel gets to it later, and until then the same program cannot be attached again.
pub(crate) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf(LINK_DETACH, &mut LinkDetach { link: raw(link) }).map(drop)
}

#[repr(C)]
#[derive(Default)]
struct Query {
    ifindex: u32,
    hook: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    count: u32,
    reserved: u32,
    program_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// How many programs at one hook are looked at.
const ATTACHED_MAX: usize = 64;

/// The (program id, link id) pairs at an interface's hook, in the order in which they run.
pub(crate) fn query_tcx(ifindex: u32, hook: TcxHook) -> io::Result<Vec<(u32, u32)>> {
    let mut programs = [0_u32; ATTACHED_MAX];
    let mut links = [0_u32; ATTACHED_MAX];
    let mut call = Query {
        ifindex,
        hook: hook as u32,
        program_ids: programs.as_mut_ptr() as u64,
        link_ids: links.as_mut_ptr() as u64,
        count: u32::try_from(ATTACHED_MAX).unwrap_or(u32::MAX),
        ..Query::default()
    };
    if !found(bpf(PROG_QUERY, &mut call))? {
        return Ok(Vec::new());
    }
    Ok(programs.into_iter().zip(links).take(call.count as usize).collect())
}

#[repr(C)]
#[derive(Default)]
struct RunProgram {
    program: u32,
    return_value: u32,
    data_in_length: u32,
    data_out_length: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_in_length: u32,
    context_out_length: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    reserved: u32,
}

/// Runs a classifier on `packet` `repeat` times; `context` is a `struct __sk_buff`. Returns its verdict and the
/// mean duration in nanoseconds, and leaves the packet as the last run made it in `packet`.
pub(crate) fn run_program(
    program: BorrowedFd<'_>,
    packet: &mut Vec<u8>,
    context: &[u32],
    repeat: u32,
) -> io::Result<(u32, u32)> {
    let input = packet.clone();
    packet.resize(input.len() + 256, 0);
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let mut call = RunProgram {
        program: raw(program),
        data_in: input.as_ptr() as u64,
        data_in_length: length(input.len()),
        data_out: packet.as_mut_ptr() as u64,
        data_out_length: length(packet.len()),
        context_in: context.as_ptr() as u64,
        context_in_length: length(size_of_val(context)),
        repeat,
        ..RunProgram::default()
    };
    bpf(PROG_TEST_RUN, &mut call)?;
    packet.truncate(call.data_out_length as usize);
    Ok((call.return_value, call.duration))
}

/// The index of an interface of this network namespace.
pub(crate) fn ifindex(name: &str) -> io::Result<u32> {
    let name = CString::new(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    // SAFETY: a terminated string.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 { Err(io::Error::last_os_error()) } else { Ok(index) }
}

/// A second descriptor for the same object.
pub(crate) fn duplicate(fd: &impl AsFd) -> io::Result<OwnedFd> {
    fd.as_fd().try_clone_to_owned()
}
