//! One server process: started on free ports, on an empty directory of its own or a given one, and gone when dropped.
//!
//! etcd and detcd get the same arguments, word for word. Each server leads a process group of its own, which is killed
//! as a whole, so nothing of it is left to disturb the next measurement.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::load::client::{Answer, CallError, Caller};
use crate::load::requests::Requests;
use crate::load::{KeyOrder, Shape, Workload};
use crate::table::cpu::CpuClock;
use crate::table::seat::Seat;

/// How long a server may take to answer its first put.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long one attempt at it may take.
const ATTEMPT_PATIENCE: Duration = Duration::from_secs(3);
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(20);
/// The same, where the time of a start is measured.
const READY_INTERVAL: Duration = Duration::from_millis(2);
/// How long a server may take to end when it is asked to.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
/// An answer to `/readyz` is a few lines.
const READY_BYTES_MAX: u64 = 64 << 10;
/// How much of a server's last words is shown.
const LAST_WORDS_BYTES: usize = 2000;

/// The servers that are compared.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// Ours.
    Detcd,
    /// The original.
    Etcd,
    /// The least that is possible.
    Floor,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Detcd => "detcd",
            Self::Etcd => "etcd",
            Self::Floor => "floor",
        })
    }
}

/// A server that cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The process or its files could not be made.
    #[error("{kind}: {error}")]
    Start {
        /// The server.
        kind: Kind,
        /// What went wrong.
        error: io::Error,
    },
    /// It ended instead of serving.
    #[error("{kind} ended with {status}: {last_words}")]
    Ended {
        /// The server.
        kind: Kind,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote.
        last_words: String,
    },
    /// It runs but does not answer.
    #[error("{kind} is not ready, or does not end, for long: {last_words}")]
    Silent {
        /// The server.
        kind: Kind,
        /// The end of what it wrote.
        last_words: String,
    },
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    address: SocketAddr,
    child: Child,
    home: TempDir,
    /// When the process was started.
    started: Instant,
}

impl Server {
    /// Starts the program with a new directory inside `parent` and waits until it has answered a put.
    pub async fn start(kind: Kind, program: &Path, parent: &Path) -> Result<Self, ServerError> {
        let mut server = Self::spawn(kind, program, parent).map_err(|error| ServerError::Start { kind, error })?;
        server.wait_until_ready().await?;
        Ok(server)
    }

    /// Starts the program on a directory, which stays, and waits until it says that it is ready. Also tells how long that took.
    pub async fn start_on(
        kind: Kind,
        program: &Path,
        parent: &Path,
        data: &Path,
    ) -> Result<(Self, Duration), ServerError> {
        let started = Self::spawn_on(kind, program, parent, Some(data));
        let mut server = started.map_err(|error| ServerError::Start { kind, error })?;
        let deadline = Instant::now() + START_PATIENCE;
        while Instant::now() < deadline {
            server.check_alive()?;
            if let Ok(Ok(true)) = timeout(ATTEMPT_PATIENCE, says_ready(server.address)).await {
                let took = server.started.elapsed();
                return Ok((server, took));
            }
            sleep(READY_INTERVAL).await;
        }
        Err(ServerError::Silent { kind, last_words: server.last_words() })
    }

    /// Asks it to end, and waits until it has.
    pub async fn stop(mut self) -> Result<(), ServerError> {
        let kind = self.kind;
        let on_error = |error| ServerError::Start { kind, error };
        kill(self.pid(), Signal::SIGTERM).map_err(|error| on_error(error.into()))?;
        let deadline = Instant::now() + STOP_PATIENCE;
        while Instant::now() < deadline {
            if self.child.try_wait().map_err(on_error)?.is_some() {
                return Ok(());
            }
            sleep(ATTEMPT_INTERVAL).await;
        }
        Err(ServerError::Silent { kind, last_words: self.last_words() })
    }

    /// Where it serves clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Its CPU clock.
    pub fn cpu_clock(&self) -> Result<CpuClock, Errno> {
        CpuClock::of(self.child.id())
    }

    fn spawn(kind: Kind, program: &Path, parent: &Path) -> io::Result<Self> {
        Self::spawn_on(kind, program, parent, None)
    }

    /// Starts a member of a cluster on its directory, which stays. It is not waited for.
    pub fn start_member(kind: Kind, program: &Path, parent: &Path, seat: &Seat) -> Result<Self, ServerError> {
        let spawned = home(kind, parent).and_then(|home| Self::spawn_in(home, kind, program, seat));
        spawned.map_err(|error| ServerError::Start { kind, error })
    }

    fn spawn_on(kind: Kind, program: &Path, parent: &Path, data: Option<&Path>) -> io::Result<Self> {
        let home = home(kind, parent)?;
        let data = data.map_or_else(|| home.path().join("data"), PathBuf::from);
        Self::spawn_in(home, kind, program, &Seat::alone(data)?)
    }

    fn spawn_in(home: TempDir, kind: Kind, program: &Path, seat: &Seat) -> io::Result<Self> {
        let log = File::create(home.path().join("log"))?;
        let address = seat.client;
        let started = Instant::now();
        let child = Command::new(program)
            .args(seat.arguments(kind))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        Ok(Self { kind, address, child, home, started })
    }

    async fn wait_until_ready(&mut self) -> Result<(), ServerError> {
        let deadline = Instant::now() + START_PATIENCE;
        while Instant::now() < deadline {
            self.check_alive()?;
            // Until then there may be no listener, or one without a leader behind it.
            if let Ok(Ok(Answer::Message(_))) = timeout(ATTEMPT_PATIENCE, put_once(self.address)).await {
                return Ok(());
            }
            sleep(ATTEMPT_INTERVAL).await;
        }
        Err(ServerError::Silent { kind: self.kind, last_words: self.last_words() })
    }

    fn check_alive(&mut self) -> Result<(), ServerError> {
        let kind = self.kind;
        match self.child.try_wait().map_err(|error| ServerError::Start { kind, error })? {
            Some(status) => Err(ServerError::Ended { kind, status, last_words: self.last_words() }),
            None => Ok(()),
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("the kernel's process ids are positive"))
    }

    fn last_words(&self) -> String {
        let log = fs::read(self.home.path().join("log")).unwrap_or_default();
        let tail = &log[log.len().saturating_sub(LAST_WORDS_BYTES)..];
        String::from_utf8_lossy(tail).trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its id is certainly its own only while nobody has waited for it.
        if let Ok(None) = self.child.try_wait() {
            let _ = killpg(self.pid(), Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// A directory for what a server writes, and for its data if it has no other.
fn home(kind: Kind, parent: &Path) -> io::Result<TempDir> {
    fs::create_dir_all(parent)?;
    tempfile::Builder::new().prefix(&format!("{kind}-")).tempdir_in(parent)
}

/// The first line that the program prints when asked for its version.
pub fn version(program: &Path) -> io::Result<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}

/// Whether `/readyz` answers that all is well.
async fn says_ready(server: SocketAddr) -> io::Result<bool> {
    let mut socket = TcpStream::connect(server).await?;
    socket.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    socket.take(READY_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 200 "))
}

async fn put_once(server: SocketAddr) -> Result<Answer, CallError> {
    let shape = Shape { workload: Workload::Put, key_order: KeyOrder::Sequential, keys: 1, value_bytes: 16, seed: 0 };
    Caller::connect(server).await?.call(Requests::new(shape).draw(0)).await
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn shell(kind: Kind) -> io::Result<Server> {
        // `/bin/sh --data-dir=…` ends at once with a complaint about its option.
        Server::spawn(kind, Path::new("/bin/sh"), &std::env::temp_dir())
    }

    #[tokio::test]
    async fn a_program_that_ends_is_told_with_its_last_words() {
        let mut server = shell(Kind::Etcd).expect("a shell");
        match server.wait_until_ready().await {
            Err(ServerError::Ended { kind: Kind::Etcd, status, last_words }) => {
                assert!(!status.success());
                assert!(!last_words.is_empty());
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_dropped_server_leaves_no_process_and_no_directory() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let path = home.path().to_owned();
        let child = Command::new("sleep").arg("60").process_group(0).spawn().expect("sleep is everywhere");
        let id = child.id();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        drop(Server { kind: Kind::Floor, address, child, home, started: Instant::now() });
        assert!(!path.exists());
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }

    #[tokio::test]
    async fn only_a_good_answer_says_ready() {
        for (answer, ready) in [("HTTP/1.1 200 OK", true), ("HTTP/1.1 503 Service Unavailable", false), ("", false)] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let address = listener.local_addr().expect("it is bound");
            let server = tokio::spawn(async move {
                let (mut socket, _) = listener.accept().await.expect("a client");
                let mut request = [0; 16];
                socket.read_exact(&mut request).await.expect("a request");
                assert_eq!(&request, b"GET /readyz HTTP");
                socket.write_all(format!("{answer}\r\n\r\n").as_bytes()).await.expect("a reader");
                socket.shutdown().await.expect("a reader");
                // What is not read would turn the end into a reset.
                socket.read_to_end(&mut Vec::new()).await.expect("the rest of the request");
            });
            assert_eq!(says_ready(address).await.expect("an answer"), ready, "{answer}");
            server.await.expect("no panic");
        }
    }

    #[tokio::test]
    async fn a_stopped_server_has_ended() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let child = Command::new("sleep").arg("60").process_group(0).spawn().expect("sleep is everywhere");
        let id = child.id();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let server = Server { kind: Kind::Floor, address, child, home, started: Instant::now() };
        server.stop().await.expect("it ends when asked");
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }

    #[test]
    fn a_program_that_is_not_there_has_no_version() {
        assert!(version(Path::new("/nonexistent/etcd")).is_err());
    }
}
