//! A real detcd process on free loopback ports, and a client for it. Killed when dropped.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use detcd_proto::etcdserverpb::kv_client::KvClient;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tonic::transport::{Channel, Endpoint};

const PATIENCE: Duration = Duration::from_secs(30);

/// Where a member lives.
pub(crate) struct Home {
    pub directory: PathBuf,
    pub client_port: u16,
    pub peer_port: u16,
    name: String,
    /// `--initial-cluster`, if the member is not alone.
    cluster: Option<String>,
    /// More arguments.
    args: Vec<String>,
}

/// A running process.
pub(crate) struct Member {
    child: Child,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Home {
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            client_port: free_port(),
            peer_port: free_port(),
            name: "a".to_owned(),
            cluster: None,
            args: Vec::new(),
        }
    }

    /// One of several. Its ports must be its own even while it does not run.
    pub(crate) fn of_cluster(directory: &Path, name: &str, client_port: u16, peer_port: u16) -> Self {
        std::fs::create_dir_all(directory).unwrap();
        let directory = directory.to_owned();
        Self { directory, client_port, peer_port, name: name.to_owned(), cluster: None, args: Vec::new() }
    }

    pub(crate) fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer_port)
    }

    /// As `--initial-cluster` has it.
    pub(crate) fn in_cluster(&self) -> String {
        format!("{}={}", self.name, self.peer_url())
    }

    /// From now on the member is started with this cluster and state.
    pub(crate) fn place(&mut self, cluster: &str, state: &str) {
        self.cluster = Some(cluster.to_owned());
        self.args = vec![format!("--initial-cluster-state={state}")];
    }

    /// From now on the member is started to go on alone.
    pub(crate) fn force(&mut self) {
        self.args.push("--force-new-cluster".to_owned());
    }

    /// The same with more arguments.
    pub(crate) fn with(mut self, args: &[&str]) -> Self {
        self.add(args);
        self
    }

    /// From now on the member is started with these arguments, too.
    pub(crate) fn add(&mut self, args: &[&str]) {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.join("data")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// The command that starts the member.
    pub(crate) fn command(&self) -> Command {
        let client = format!("http://127.0.0.1:{}", self.client_port);
        let peer = self.peer_url();
        let log = File::options().append(true).create(true).open(self.directory.join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_detcd"));
        command
            .env_clear()
            .args(["--name", &self.name, "--data-dir"])
            .arg(self.data_dir())
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .arg(format!("--initial-cluster={}", self.cluster.clone().unwrap_or_else(|| self.in_cluster())))
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        command
    }

    /// Starts the member without waiting for it.
    pub(crate) fn spawn(&self) -> Member {
        Member { child: self.command().spawn().unwrap() }
    }

    /// Starts the member and waits until it serves.
    pub(crate) async fn start(&self) -> (Member, KvClient<Channel>) {
        let mut member = self.spawn();
        let client = self.serves(&mut member).await;
        (member, client)
    }

    /// Waits until the member serves.
    pub(crate) async fn serves(&self, member: &mut Member) -> KvClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", self.client_port)).unwrap();
        let began = Instant::now();
        loop {
            if let Ok(channel) = endpoint.connect().await {
                let mut client = KvClient::new(channel);
                let probe = detcd_proto::etcdserverpb::RangeRequest { key: "probe".into(), ..Default::default() };
                if client.range(probe).await.is_ok() {
                    return client;
                }
            }
            let ended = member.child.try_wait().unwrap();
            assert!(ended.is_none() && began.elapsed() < PATIENCE, "no member: {ended:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// One HTTP/1.1 request; the whole answer as text.
    pub(crate) fn get(&self, port: u16, path: &str) -> String {
        self.request(port, &format!("GET {path}"), "", b"")
    }

    /// One HTTP/1.1 request of any kind; the whole answer as text.
    pub(crate) fn request(&self, port: u16, line: &str, headers: &str, body: &[u8]) -> String {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let len = body.len();
        let head = format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len}\r\n{headers}\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Member {
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, signal).unwrap();
    }

    /// Stops the process, and waits until none of its threads goes on: on a busy machine the others do, until the one that takes the signal has its turn.
    pub(crate) fn pause(&self) {
        self.signal(Signal::SIGSTOP);
        let (tasks, began) = (format!("/proc/{}/task", self.child.id()), Instant::now());
        // The state follows the name, which is in brackets.
        let is_stopped = |stat: String| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'));
        let goes_on = || {
            let threads = std::fs::read_dir(&tasks).unwrap().map(|task| task.unwrap().path().join("stat"));
            threads.filter_map(|stat| std::fs::read_to_string(stat).ok()).any(|stat| !is_stopped(stat))
        };
        while goes_on() {
            assert!(began.elapsed() < PATIENCE, "the process does not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for the process to end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "the process does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
