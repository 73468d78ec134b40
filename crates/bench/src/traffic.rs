//! Traffic between two namespaces: request/response, connect/request/close, and one bulk stream.
//!
//! Both ends of a ping-pong are pinned to one core, so that its rate is the whole CPU cost of the path and not the
//! hypervisor's wake-up time.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::netns::Netns;

const PORT: u16 = 7000;

/// Two pods and their addresses.
#[derive(Debug)]
pub(crate) struct Path<'a> {
    pub(crate) client: &'a Netns,
    pub(crate) server: &'a Netns,
    pub(crate) server_ip: std::net::IpAddr,
}

/// How the ping-pong uses connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Pattern {
    /// One connection, one byte there and back.
    RequestResponse,
    /// A connection for each byte.
    ConnectRequestClose,
}

impl Path<'_> {
    /// Ping-pongs per second over `time`.
    pub(crate) fn ping_pong(&self, pattern: Pattern, time: Duration) -> Result<f64> {
        let address = SocketAddr::new(self.server_ip, PORT);
        let stop = AtomicBool::new(false);
        let listener =
            self.server.enter(|| TcpListener::bind(address))?.context("the server cannot listen")?;
        std::thread::scope(|scope| {
            let server = scope.spawn(|| pin(0).and_then(|()| echo(&listener, &stop)));
            let rate = self.client.enter(|| pin(0).and_then(|()| ping(address, pattern, time)))?;
            stop.store(true, Ordering::Relaxed);
            // Wakes the server out of accept.
            drop(self.client.enter(|| TcpStream::connect_timeout(&address, Duration::from_secs(1)))?);
            server.join().unwrap_or_else(|_| bail!("the server panicked"))?;
            rate
        })
    }

    /// One stream for `time`: gigabits per second, and CPU seconds per gigabit over all cores.
    pub(crate) fn bulk(&self, time: Duration) -> Result<(f64, f64)> {
        let address = SocketAddr::new(self.server_ip, PORT);
        let listener =
            self.server.enter(|| TcpListener::bind(address))?.context("the server cannot listen")?;
        let busy = busy_seconds()?;
        #[expect(clippy::disallowed_methods, reason = "measuring is this program's purpose")]
        let start = Instant::now();
        let received = std::thread::scope(|scope| {
            let sink = scope.spawn(|| pin(1).and_then(|()| drain(&listener)));
            self.client.enter(|| pin(0).and_then(|()| pour(address, time)))??;
            sink.join().unwrap_or_else(|_| bail!("the sink panicked"))
        })?;
        let gigabits = received as f64 * 8.0 / 1e9;
        Ok((gigabits / start.elapsed().as_secs_f64(), (busy_seconds()? - busy) / gigabits))
    }
}

fn pin(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).context("cannot pin a thread to a core")
}

fn echo(listener: &TcpListener, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut byte = [0; 1];
        while let Ok(1) = stream.read(&mut byte) {
            if stream.write_all(&byte).is_err() {
                break;
            }
        }
    }
    Ok(())
}

fn ping(address: SocketAddr, pattern: Pattern, time: Duration) -> Result<f64> {
    let mut stream = None;
    let mut count = 0_u64;
    let mut byte = [1; 1];
    #[expect(clippy::disallowed_methods, reason = "measuring is this program's purpose")]
    let start = Instant::now();
    while start.elapsed() < time {
        let mut open = match stream.take() {
            Some(open) => open,
            None => connect(address)?,
        };
        open.write_all(&byte)?;
        open.read_exact(&mut byte)?;
        count += 1;
        match pattern {
            Pattern::RequestResponse => stream = Some(open),
            // A reset instead of TIME_WAIT: otherwise the ports run out and the measurement measures that.
            Pattern::ConnectRequestClose => {
                rustix::net::sockopt::set_socket_linger(&open, Some(Duration::ZERO))?
            }
        }
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).context("cannot connect")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    Ok(stream)
}

fn pour(address: SocketAddr, time: Duration) -> Result<()> {
    let mut stream = connect(address)?;
    let block = vec![0_u8; 128 << 10];
    #[expect(clippy::disallowed_methods, reason = "measuring is this program's purpose")]
    let start = Instant::now();
    while start.elapsed() < time {
        stream.write_all(&block)?;
    }
    Ok(())
}

fn drain(listener: &TcpListener) -> Result<u64> {
    let (mut stream, _) = listener.accept()?;
    let mut block = vec![0_u8; 256 << 10];
    let mut total = 0;
    loop {
        match stream.read(&mut block)? {
            0 => return Ok(total),
            count => total += count as u64,
        }
    }
}

/// Seconds all cores have spent not idle since boot, soft interrupts included.
fn busy_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal …
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|index| ticks.get(*index)).sum::<f64>();
    Ok(busy / 100.0)
}
