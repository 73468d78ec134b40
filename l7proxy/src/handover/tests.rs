use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::PathBuf;

use tempfile::TempDir;
use tokio::task::{JoinHandle, spawn_blocking};

use super::*;

/// A generation that runs: what it has.
struct Old {
    directory: TempDir,
    lock: Lock,
    listeners: [TcpListener; 2],
}

impl Old {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let lock = Lock::take(&directory.path().join("lock")).unwrap().unwrap();
        let listeners = ["127.0.0.1:0", "[::1]:0"].map(|place| TcpListener::bind(place).unwrap());
        Self { directory, lock, listeners }
    }

    fn door(&self) -> UnixListener {
        UnixListener::bind(self.places().0).unwrap()
    }

    fn places(&self) -> (PathBuf, PathBuf) {
        (self.directory.path().join("door"), self.directory.path().join("lock"))
    }

    fn parcel(&self) -> Parcel<'_> {
        Parcel { lock: self.lock.as_fd(), listeners: self.listeners.each_ref().map(|own| own.as_fd()) }
    }

    /// Somebody who asks it.
    fn asked(&self) -> JoinHandle<anyhow::Result<Predecessor>> {
        let (door, lock) = self.places();
        spawn_blocking(move || Predecessor::ask(&door, &lock))
    }
}

const ACCOUNT: Account = Account { numbers: u64::MAX - 1, handovers: 7 };

#[tokio::test]
async fn what_waits_in_the_sockets_is_the_next_ones() {
    let old = Old::new();
    let door = old.door();
    let places = old.listeners.each_ref().map(|own| own.local_addr().unwrap());
    let waiting = places.map(|place| std::net::TcpStream::connect(place).unwrap());
    let asked = old.asked();
    let asking = tokio::spawn(async move { asked.await.unwrap().unwrap() });
    let relieved = async {
        let predecessor = asking.await.unwrap();
        spawn_blocking(move || predecessor.relieve()).await.unwrap()
    };
    let give = async { successor(&door, old.parcel()).await.begin(ACCOUNT).await.unwrap() };
    let (relieved, ()) = tokio::join!(relieved, give);
    let (lock, listeners, account) = relieved.unwrap();
    assert_eq!(account, ACCOUNT);
    drop(door);
    let (door, path) = old.places();
    let Old { directory: _directory, lock: old_lock, listeners: old_listeners } = old;
    drop((old_lock, old_listeners));
    for (listener, own) in listeners.iter().zip(&waiting) {
        assert_eq!(listener.accept().unwrap().1, own.local_addr().unwrap());
    }
    assert!(Predecessor::ask(&door, &path).is_err(), "the old one is gone");
    assert!(Lock::take(&path).unwrap().is_none());
    drop(lock);
    assert!(Lock::take(&path).unwrap().is_some());
}

/// One that dies before it is ready changes nothing, and the next one is served.
#[tokio::test]
async fn who_is_not_ready_is_given_nothing() {
    let old = Old::new();
    let door = old.door();
    let asked = [old.asked(), old.asked()];
    let both = async {
        let [first, second] = asked;
        drop(first.await.unwrap().unwrap());
        let predecessor = second.await.unwrap().unwrap();
        spawn_blocking(move || predecessor.relieve()).await.unwrap().unwrap().2
    };
    let give = async { successor(&door, old.parcel()).await.begin(ACCOUNT).await.unwrap() };
    let (account, ()) = tokio::join!(both, give);
    assert_eq!(account, ACCOUNT);
}

/// Whoever does not hear that the old one has stopped does not begin.
#[tokio::test]
async fn without_an_account_nobody_begins() {
    let old = Old::new();
    let door = old.door();
    let asked = old.asked();
    let relieved = async {
        let predecessor = asked.await.unwrap().unwrap();
        spawn_blocking(move || predecessor.relieve()).await.unwrap()
    };
    let refuse = async { drop(successor(&door, old.parcel()).await) };
    let (relieved, ()) = tokio::join!(relieved, refuse);
    assert_eq!(relieved.unwrap_err().to_string(), "it did not let go");
}

/// Who is gone when it is to begin is noticed.
#[tokio::test]
async fn who_is_gone_is_not_handed_to() {
    let old = Old::new();
    let door = old.door();
    let mut stream = UnixStream::connect(old.places().0).unwrap();
    stream.write_all(&[READY]).unwrap();
    let ready = successor(&door, old.parcel()).await;
    drop(stream);
    assert!(ready.begin(ACCOUNT).await.is_err());
}

/// Sends what is given to whoever asks.
fn pretender(given: impl FnOnce(&UnixStream) + Send + 'static) -> (TempDir, anyhow::Error) {
    let directory = tempfile::tempdir().unwrap();
    let door = directory.path().join("door");
    let listener = StdUnixListener::bind(&door).unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        given(&stream);
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // Not before the other one has read.
        let _end = stream.read(&mut [0]);
    });
    let lock = directory.path().join("lock");
    let held = Lock::take(&lock).unwrap().unwrap();
    let error = Predecessor::ask(&door, &lock).unwrap_err();
    thread.join().unwrap();
    drop(held);
    (directory, error)
}

#[test]
fn who_is_no_proxy_is_not_believed() {
    let check = |wanted: &str, given: fn(&UnixStream)| {
        let (_directory, error) = pretender(given);
        assert!(format!("{error:#}").contains(wanted), "{wanted}: {error:#}");
    };
    check("nothing to hand over", |_| {});
    check("in the form", |mut stream| stream.write_all(b"HTTP/1.1 400\r\n\r\n").unwrap());
    check("0 descriptors", |mut stream| stream.write_all(&[FORM]).unwrap());
    check("is not", |stream| {
        let old = Old::new();
        send(stream, old.parcel()).unwrap();
    });
}

#[test]
fn sockets_of_others_are_not_taken() {
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = std::net::TcpStream::connect(listening.local_addr().unwrap()).unwrap();
    let everywhere = TcpListener::bind("0.0.0.0:0").unwrap();
    assert!(listener(connected.into(), false).unwrap_err().to_string().contains("does not listen"));
    assert!(listener(everywhere.into(), false).unwrap_err().to_string().contains("a socket at 0.0.0.0"));
    assert!(listener(listening.try_clone().unwrap().into(), true).is_err(), "of the other family");
    assert!(listener(listening.into(), false).is_ok());
}

#[test]
fn accounts_go_over_as_they_are() {
    for account in [ACCOUNT, Account::default(), Account { numbers: 1, handovers: u64::MAX }] {
        assert_eq!(Account::from_bytes(account.to_bytes()), account);
    }
}
