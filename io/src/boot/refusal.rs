//! Why a start is refused: typed, in etcd's words where etcd has some, and with what the operator should look at next.
//!
//! Invariant: a refusal is an answer, not an accident. Nothing was written to the data directory when one is returned.

use detcd_core::ids::MemberId;

use super::url::UrlFault;

/// A start that will not happen.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// This machine's architecture is not one that etcd supports.
    #[error("Refusing to run etcd on unsupported architecture since ETCD_UNSUPPORTED_ARCH is not set")]
    Architecture {
        /// The architecture, by Go's name.
        arch: String,
    },
    /// Too few file descriptors to serve anybody.
    #[error("file descriptor limit of etcd process is too low; please set higher")]
    FdLimit {
        /// The limit.
        limit: u64,
    },
    /// `member` and `proxy` side by side.
    #[error("invalid datadir; both member and proxy directories exist")]
    MemberAndProxy,
    /// The directory of a proxy of etcd's second API.
    #[error("v2 http proxy has already been deprecated in 3.6")]
    Proxy,
    /// The path is the inner directory of a member.
    #[error("data directory looks like the inside of a member: it holds {}", .names.join(", "))]
    InsideMember {
        /// The names that tell.
        names: Vec<String>,
    },
    /// A directory that etcd wrote, without its log.
    #[error("data directory holds a store of etcd (member/snap/db) but no log")]
    EtcdStoreWithoutLog,
    /// Both stores.
    #[error("data directory holds two stores: member/lmdb of detcd and member/snap/db of etcd")]
    TwoStores,
    /// A store without a log.
    #[error("data directory holds a store (member/lmdb) but no log")]
    StoreWithoutLog,
    /// Something is not what it has to be.
    #[error("data directory is damaged: {path}: {cause}")]
    Damaged {
        /// The path that is wrong.
        path: String,
        /// What is wrong with it.
        cause: String,
    },
    /// No file can be made.
    #[error("cannot access data directory: {path}: {cause}")]
    NotWritable {
        /// The directory.
        path: String,
        /// The system's answer.
        cause: String,
    },
    /// Another process runs on the directory.
    #[error("data directory is in use by another process: {path} is locked")]
    Locked {
        /// The locked file.
        path: String,
    },
    /// `--initial-cluster` does not parse.
    #[error("error setting up initial cluster: {0}")]
    InitialCluster(#[from] UrlFault),
    /// `--initial-cluster` does not name this member.
    #[error("couldn't find local name {name:?} in the initial cluster configuration")]
    NoLocalName {
        /// `--name`.
        name: String,
    },
    /// `--initial-cluster` and `--initial-advertise-peer-urls` contradict each other.
    #[error("{text}")]
    AdvertiseMismatch {
        /// etcd's text.
        text: String,
    },
    /// A URL twice.
    #[error("initial cluster {cluster} has duplicate url")]
    DuplicateUrl {
        /// The initial cluster, sorted.
        cluster: String,
    },
    /// Joining, but nobody is named who could be joined.
    #[error("cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs")]
    NobodyToJoin,
    /// It runs already, or has run.
    #[error("member {member} has already been bootstrapped")]
    AlreadyBootstrapped {
        /// The member.
        member: MemberId,
    },
    /// The cluster that runs is not the one that was named.
    #[error("error validating peerURLs: {cause}")]
    JoinMismatch {
        /// What differs.
        cause: String,
    },
    /// The member has left its cluster for good.
    #[error(
        "the member has been permanently removed from the cluster; the data-dir used by this member must be removed"
    )]
    Removed,
    /// More learners than this member was told to take.
    #[error("membership: too many learner members in cluster")]
    TooManyLearners,
    /// Something etcd can do and detcd cannot yet.
    #[error("{what} is not built yet in detcd")]
    NotBuilt {
        /// What was asked.
        what: String,
        /// The reason's label.
        reason: &'static str,
    },
}

impl Refusal {
    /// The `reason` label of `etcd_bootstrap_errors_total`. A closed set: it is a metric's label.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Architecture { .. } => "unsupported_arch",
            Self::FdLimit { .. } => "fd_limit",
            Self::MemberAndProxy | Self::Proxy => "proxy_dir",
            Self::InsideMember { .. } => "wrong_dir",
            Self::EtcdStoreWithoutLog => "etcd_dir",
            Self::TwoStores | Self::StoreWithoutLog | Self::Damaged { .. } => "damaged_dir",
            Self::NotWritable { .. } => "not_writable",
            Self::Locked { .. } => "locked",
            Self::InitialCluster(_) | Self::NoLocalName { .. } | Self::DuplicateUrl { .. } => "initial_cluster",
            Self::AdvertiseMismatch { .. } => "advertise_urls",
            Self::NobodyToJoin | Self::JoinMismatch { .. } => "join",
            Self::AlreadyBootstrapped { .. } => "already_bootstrapped",
            Self::Removed => "removed",
            Self::TooManyLearners => "too_many_learners",
            Self::NotBuilt { reason, .. } => reason,
        }
    }

    /// What the operator should look at, for the log line. Empty where the text already says it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Architecture { arch } => {
                format!("set ETCD_UNSUPPORTED_ARCH={arch} to run on {arch} at your own risk")
            }
            Self::FdLimit { limit } => format!("the limit is {limit}; raise it with ulimit -n or LimitNOFILE="),
            Self::MemberAndProxy => "keep the directory that belongs to this member and move the other one away".to_owned(),
            Self::Proxy => "choose another --data-dir: this one belonged to a proxy of etcd's v2 API".to_owned(),
            Self::InsideMember { .. } => "set --data-dir to the directory that contains 'member'".to_owned(),
            Self::EtcdStoreWithoutLog => {
                "was etcd started with --wal-dir? Give the same one; this directory is left untouched".to_owned()
            }
            Self::TwoStores => {
                "etcd has probably run here after detcd; move one of the stores away only if you know which is newer".to_owned()
            }
            Self::StoreWithoutLog => {
                "was this member started with --wal-dir before? Give the same one; a store without its log is not started".to_owned()
            }
            Self::Damaged { .. } => "nothing was changed; check the path, its type and its permissions".to_owned(),
            Self::NotWritable { .. } => "check the owner and mode of the directory and whether the file system is read-only".to_owned(),
            Self::Locked { .. } => "is another detcd running with the same --data-dir?".to_owned(),
            Self::InitialCluster(_) => "--initial-cluster is a list of name=http://host:port".to_owned(),
            Self::NoLocalName { .. } => "--name must be one of the names in --initial-cluster".to_owned(),
            Self::AdvertiseMismatch { .. } => {
                "the URLs given for this member in --initial-cluster and in --initial-advertise-peer-urls must be the same".to_owned()
            }
            Self::DuplicateUrl { .. } => "each peer URL may belong to one member only".to_owned(),
            Self::NobodyToJoin => "--initial-cluster must also name the members that run".to_owned(),
            Self::AlreadyBootstrapped { .. } => {
                "this member has lost its data directory: remove it from the cluster and add it anew, with --initial-cluster-state=existing".to_owned()
            }
            Self::JoinMismatch { .. } => "--initial-cluster must name exactly the members that 'member list' shows, this one among them".to_owned(),
            Self::Removed => "a removed member cannot come back: add a new one, with an empty data directory".to_owned(),
            Self::TooManyLearners => "--max-learners must be the same for all members".to_owned(),
            Self::NotBuilt { .. } => String::new(),
        }
    }

    /// The exit code: 1 for all of them, as in etcd.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        1
    }
}
