//! The machine as far as a start depends on it, and the gate for architectures that nobody has tried.

/// What the caller found out about this machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Machine {
    /// The architecture by Go's name ([`go_arch`]).
    pub arch: String,
    /// `ETCD_UNSUPPORTED_ARCH`, if set.
    pub unsupported_arch: Option<String>,
    /// How many file descriptors this process may hold.
    pub fd_limit: u64,
}

/// Descriptors that are kept for files and peers; the rest is for client connections.
pub const FDS_RESERVED: u64 = 150;

/// What the gate says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Gate {
    /// A supported architecture.
    Supported,
    /// Not supported, but the operator insists.
    AtOwnRisk,
    /// Not supported.
    Closed,
}

impl Machine {
    /// Whether this architecture may run.
    #[must_use]
    pub fn gate(&self) -> Gate {
        match self.arch.as_str() {
            "amd64" | "arm64" | "ppc64le" | "s390x" => Gate::Supported,
            arch if self.unsupported_arch.as_deref() == Some(arch) => Gate::AtOwnRisk,
            _ => Gate::Closed,
        }
    }

    /// How many client connections a listener takes at most.
    #[must_use]
    pub const fn client_connections_max(&self) -> u64 {
        self.fd_limit.saturating_sub(FDS_RESERVED)
    }
}

/// Go's name of an architecture from Rust's (`std::env::consts::ARCH`).
#[must_use]
pub fn go_arch(rust_arch: &str) -> &str {
    match rust_arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        "loongarch64" => "loong64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_architecture_opens_the_gate() {
        let gate = |arch: &str, asked: Option<&str>| {
            Machine { arch: arch.to_owned(), unsupported_arch: asked.map(str::to_owned), fd_limit: 1024 }.gate()
        };
        assert_eq!(gate("amd64", None), Gate::Supported);
        assert_eq!(gate("s390x", Some("riscv64")), Gate::Supported);
        assert_eq!(gate("riscv64", None), Gate::Closed);
        assert_eq!(gate("riscv64", Some("amd64")), Gate::Closed);
        assert_eq!(gate("riscv64", Some("riscv64")), Gate::AtOwnRisk);
        assert_eq!(go_arch("x86_64"), "amd64");
        assert_eq!(go_arch("riscv64"), "riscv64");
    }
}
