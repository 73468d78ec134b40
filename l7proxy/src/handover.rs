//! How one generation of the proxy hands over to the next: the sockets on which flows wait, and the lock.
//!
//! The next one connects, and is given descriptors: from then on both have the sockets, and what waits in their queues is
//! lost by the end of neither. When it has everything that it needs it says so, the old one stops accepting, and answers
//! with its account. What goes wrong before that answer leaves the old one what it was.
//!
//! ```text
//! old → new   FORM, with three descriptors: lock, listener of IPv4, of IPv6
//! new → old   READY
//! old → new   the account, 16 bytes
//! ```

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg, sockopt,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixListener;
use tokio::time::timeout;

use crate::lock::Lock;

/// Of these messages.
const FORM: u8 = 1;
const READY: u8 = b'r';
/// How many descriptors go over.
const DESCRIPTORS: usize = 3;
/// How long one waits for the other.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long nobody is waited for after the kernel refused.
const PAUSE: Duration = Duration::from_millis(50);

/// What a generation counts, and the next one goes on with.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Account {
    /// The next connection's number.
    pub numbers: u64,
    /// How often the sockets changed hands.
    pub handovers: u64,
}

impl Account {
    const BYTES: usize = 16;

    fn to_bytes(self) -> [u8; Self::BYTES] {
        (u128::from(self.numbers) << 64 | u128::from(self.handovers)).to_be_bytes()
    }

    fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let both = u128::from_be_bytes(bytes);
        let half = |number: u128| u64::try_from(number & u128::from(u64::MAX)).unwrap_or(0);
        Self { numbers: half(both >> 64), handovers: half(both) }
    }
}

/// The generation before, which goes on until it is told to stop.
#[derive(Debug)]
pub(crate) struct Predecessor {
    stream: UnixStream,
    pub(crate) lock: Lock,
    /// Of IPv4 and of IPv6.
    pub(crate) listeners: [TcpListener; 2],
}

impl Predecessor {
    /// Asks whoever listens at `socket` to hand over.
    ///
    /// # Errors
    /// Nobody does, or it is nobody who could.
    pub(crate) fn ask(socket: &Path, lock: &Path) -> anyhow::Result<Self> {
        let stream =
            UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
        check_peer(&stream)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let [own, four, six] = receive(&stream)?;
        let lock = Lock::given(own, lock)?;
        Ok(Self { stream, lock, listeners: [listener(four, false)?, listener(six, true)?] })
    }

    /// Has it stop accepting. Afterwards it has nothing any more but the connections that it carries.
    ///
    /// # Errors
    /// It is gone, or goes on: whoever cannot know must not begin.
    pub(crate) fn relieve(mut self) -> anyhow::Result<(Lock, [TcpListener; 2], Account)> {
        self.stream.write_all(&[READY])?;
        let mut account = [0; Account::BYTES];
        self.stream.read_exact(&mut account).context("it did not let go")?;
        Ok((self.lock, self.listeners, Account::from_bytes(account)))
    }
}

/// What is handed over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parcel<'p> {
    pub(crate) lock: BorrowedFd<'p>,
    pub(crate) listeners: [BorrowedFd<'p>; 2],
}

/// The generation that comes, and waits for this one to stop.
#[derive(Debug)]
pub(crate) struct Successor(tokio::net::UnixStream);

/// Waits for one that is ready. It never is, if it can be left waiting for ever.
pub(crate) async fn successor(door: &UnixListener, parcel: Parcel<'_>) -> Successor {
    loop {
        match door.accept().await {
            Ok((stream, _)) => match timeout(PATIENCE, offer(stream, parcel)).await {
                Ok(Ok(successor)) => return successor,
                Ok(Err(error)) => {
                    tracing::warn!(error = format!("{error:#}"), "nothing was handed over");
                }
                Err(_) => tracing::warn!("nothing was handed over: the other one is not ready in time"),
            },
            Err(error) => {
                tracing::warn!(%error, "nobody can ask for a hand-over");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn offer(mut stream: tokio::net::UnixStream, parcel: Parcel<'_>) -> anyhow::Result<Successor> {
    check_peer(&stream)?;
    stream.async_io(Interest::WRITABLE, || send(&stream, parcel)).await.context("send the sockets")?;
    let word = stream.read_u8().await.context("it ended before it was ready")?;
    anyhow::ensure!(word == READY, "it does not speak as a proxy does");
    Ok(Successor(stream))
}

impl Successor {
    /// Tells it to begin.
    ///
    /// # Errors
    /// It is gone. Nothing has changed then.
    pub(crate) async fn begin(mut self, account: Account) -> io::Result<()> {
        self.0.write_all(&account.to_bytes()).await
    }
}

/// Only root, and who this process runs as, may have the sockets, or offer some.
fn check_peer(stream: impl AsFd) -> anyhow::Result<()> {
    let peer = sockopt::socket_peercred(stream).context("ask who is at the other end")?;
    let is_ours = peer.uid.is_root() || peer.uid == rustix::process::geteuid();
    anyhow::ensure!(is_ours, "user {} is at the other end", peer.uid.as_raw());
    Ok(())
}

fn send(stream: impl AsFd, parcel: Parcel<'_>) -> io::Result<()> {
    let [four, six] = parcel.listeners;
    let descriptors = [parcel.lock, four, six];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(stream, &[IoSlice::new(&[FORM])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(stream: impl AsFd) -> anyhow::Result<[OwnedFd; DESCRIPTORS]> {
    let mut form = [0; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let length =
        recvmsg(stream, &mut [IoSliceMut::new(&mut form)], &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
    anyhow::ensure!(length > 0, "it has nothing to hand over");
    anyhow::ensure!(form == [FORM], "it hands over in the form {form:?}, not {FORM}");
    let rights = |message| {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message { Some(descriptors) } else { None }
    };
    let descriptors: Vec<OwnedFd> = control.drain().filter_map(rights).flatten().collect();
    <[OwnedFd; DESCRIPTORS]>::try_from(descriptors)
        .map_err(|given| anyhow::anyhow!("it hands over {} descriptors, not {DESCRIPTORS}", given.len()))
}

/// A socket that listens, as flows are redirected to it.
fn listener(descriptor: OwnedFd, is_six: bool) -> anyhow::Result<TcpListener> {
    anyhow::ensure!(sockopt::socket_acceptconn(&descriptor)?, "it hands over a socket that does not listen");
    let listener = TcpListener::from(descriptor);
    let place = listener.local_addr()?;
    let is_right = place.is_ipv6() == is_six && place.ip().is_loopback();
    anyhow::ensure!(is_right, "it hands over a socket at {place}");
    Ok(listener)
}

#[cfg(test)]
mod tests;
