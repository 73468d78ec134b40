//! The handle: one netlink socket, requests with an acknowledgement, and listings that are repeated until they
//! are consistent.

use std::fmt::Display;
use std::io;

use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use crate::{Error, Netns, NetnsError};

/// The kernel builds answers of at most 32 KiB; twice that is room for one message with many attributes.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How often a listing is started again because the kernel's tables changed meanwhile.
const LISTING_ATTEMPTS_MAX: u32 = 10;
/// Length of a netlink message header.
const HEADER_LEN: usize = 16;
/// The attribute of an acknowledgement that holds the kernel's explanation as text.
const NLMSGERR_ATTR_MSG: u16 = 1;

/// A handle to the links, addresses, routes and neighbours of one network namespace.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// What an error names: operation and object.
#[derive(Clone, Copy)]
pub(crate) struct Task<'a> {
    pub(crate) operation: &'static str,
    pub(crate) object: &'a dyn Display,
}

impl Task<'_> {
    fn transfer(self, source: io::Error) -> Error {
        Error::Transfer { operation: self.operation, object: self.object.to_string(), source }
    }

    pub(crate) fn answer(self, reason: impl Display) -> Error {
        Error::Answer {
            operation: self.operation,
            object: self.object.to_string(),
            reason: reason.to_string(),
        }
    }

    fn refused(self, message: &ErrorMessage) -> Error {
        Error::Refused {
            operation: self.operation,
            object: self.object.to_string(),
            explanation: explanation(&message.header),
            source: message.to_io(),
        }
    }
}

impl Netlink {
    /// A handle to the namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn open() -> Result<Self, Error> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(Error::Open)?;
        socket.bind_auto().map_err(Error::Open)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(Error::Open)?;
        socket.set_cap_ack(true).map_err(Error::Open)?;
        socket.set_ext_ack(true).map_err(Error::Open)?;
        // Without it (kernels before 4.20) listings are filtered here only, which costs time, not correctness.
        socket.set_netlink_get_strict_chk(true).ok();
        Ok(Self { socket, sequence: 0 })
    }

    /// A handle to the namespace `netns`; the calling thread stays where it is.
    ///
    /// # Errors
    /// [`NetnsError`]: entering the namespace or opening the socket failed.
    pub fn open_in(netns: &Netns) -> Result<Self, NetnsError> {
        netns.run(Self::open)?.map_err(NetnsError::Netlink)
    }

    /// Sends `request` and waits for its acknowledgement; messages that come before it are returned.
    pub(crate) fn request(
        &mut self,
        task: Task<'_>,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        self.send(task, request, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        self.receive(task).map(|(messages, _)| messages)
    }

    /// Sends `request` as a listing and returns all rows, again from the start if the tables changed meanwhile.
    pub(crate) fn list(
        &mut self,
        task: Task<'_>,
        request: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        for _ in 0..LISTING_ATTEMPTS_MAX {
            self.send(task, request.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            match self.receive(task) {
                Ok((messages, false)) => return Ok(messages),
                Ok((_, true)) => {}
                Err(Error::Transfer { source, .. })
                    if Errno::from_io_error(&source) == Some(Errno::NOBUFS) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Unstable {
            operation: task.operation,
            object: task.object.to_string(),
            attempts: LISTING_ATTEMPTS_MAX,
        })
    }

    fn send(&mut self, task: Task<'_>, request: RouteNetlinkMessage, flags: u16) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(request);
        message.header.flags = flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        loop {
            match self.socket.send(&bytes, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(task.transfer(error)),
                Ok(_) => return Ok(()),
            }
        }
    }

    /// Reads up to the end of the current request's answer. The flag says that a listing was interrupted.
    fn receive(&mut self, task: Task<'_>) -> Result<(Vec<RouteNetlinkMessage>, bool), Error> {
        let mut messages = Vec::new();
        let mut interrupted = false;
        let mut buffer = Vec::with_capacity(ANSWER_BYTES_MAX);
        loop {
            self.receive_datagram(task, &mut buffer)?;
            let mut rest = buffer.as_slice();
            while !rest.is_empty() {
                let (message, after) = split_message(task, rest)?;
                rest = after;
                if message.header.sequence_number != self.sequence {
                    continue; // what is left of an earlier listing that was given up
                }
                interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => messages.push(inner),
                    NetlinkPayload::Error(error) if error.code.is_none() => {
                        return Ok((messages, interrupted));
                    }
                    NetlinkPayload::Error(error) => return Err(task.refused(&error)),
                    NetlinkPayload::Done(done) if done.code == 0 => return Ok((messages, interrupted)),
                    NetlinkPayload::Done(done) => {
                        let error = io::Error::from_raw_os_error(done.code.saturating_abs());
                        return Err(task.transfer(error));
                    }
                    NetlinkPayload::Overrun(_) => {
                        return Err(task.transfer(io::Error::from(Errno::NOBUFS)));
                    }
                    _ => {} // no-operation messages, and what later versions of the protocol may add
                }
            }
        }
    }

    fn receive_datagram(&mut self, task: Task<'_>, buffer: &mut Vec<u8>) -> Result<(), Error> {
        loop {
            buffer.clear();
            match self.socket.recv(buffer, RecvFlags::TRUNC.bits().cast_signed()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(task.transfer(error)),
                Ok(len) if len > buffer.len() => {
                    return Err(task.answer(format_args!("a message of {len} bytes was cut off")));
                }
                Ok(_) => return Ok(()),
            }
        }
    }
}

/// Decodes the first message of `bytes` and returns what follows it.
fn split_message<'a>(
    task: Task<'_>,
    bytes: &'a [u8],
) -> Result<(NetlinkMessage<RouteNetlinkMessage>, &'a [u8]), Error> {
    let len = bytes.first_chunk::<4>().map_or(0, |len| u32::from_ne_bytes(*len)) as usize;
    let Some(message) = bytes.get(..len).filter(|message| message.len() >= HEADER_LEN) else {
        return Err(task.answer("a message is shorter than it says"));
    };
    let message = NetlinkMessage::deserialize(message).map_err(|error| task.answer(error))?;
    Ok((message, bytes.get(len.next_multiple_of(4)..).unwrap_or_default()))
}

/// The kernel's words from an extended acknowledgement: attributes after the header of the refused request.
fn explanation(payload: &[u8]) -> Option<String> {
    let mut rest = payload.get(HEADER_LEN..)?;
    while let Some((header, _)) = rest.split_first_chunk::<4>() {
        let [len_low, len_high, kind_low, kind_high] = *header;
        let len = usize::from(u16::from_ne_bytes([len_low, len_high]));
        let value = rest.get(4..len)?;
        if u16::from_ne_bytes([kind_low, kind_high]) & 0x3fff == NLMSGERR_ATTR_MSG {
            let text = value.strip_suffix(&[0]).unwrap_or(value);
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        rest = rest.get(len.next_multiple_of(4)..)?;
    }
    None
}
