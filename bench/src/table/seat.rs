//! A member's place: its name, its addresses, its directory, its cluster; and the arguments that say so.

use std::array;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use super::server::Kind;

/// What etcd and detcd are started with, apart from addresses and the directory.
pub const COMMON_FLAGS: [&str; 3] =
    ["--log-level=error", "--snapshot-count=100000", "--quota-backend-bytes=8589934592"];

/// A member's place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seat {
    /// Its name.
    pub name: String,
    /// Where it serves clients.
    pub client: SocketAddr,
    /// Where it hears other members.
    pub peer: SocketAddr,
    /// Its directory.
    pub data: PathBuf,
    /// Everyone, as `--initial-cluster` wants it.
    pub cluster: String,
}

impl Seat {
    /// A place for one alone.
    pub fn alone(data: PathBuf) -> io::Result<Self> {
        let [(client, peer)] = free_addresses()?;
        Ok(Self { name: "default".to_owned(), client, peer, data, cluster: format!("default=http://{peer}") })
    }

    /// Places of a new cluster, with directories below `parent`.
    pub fn together<const N: usize>(parent: &Path) -> io::Result<[Self; N]> {
        let addresses = free_addresses::<N>()?;
        let names: [String; N] = array::from_fn(|i| format!("m{}", i + 1));
        let one = |(name, (_, peer)): (&String, &(SocketAddr, SocketAddr))| format!("{name}=http://{peer}");
        let cluster = names.iter().zip(&addresses).map(one).collect::<Vec<_>>().join(",");
        Ok(array::from_fn(|i| {
            let (name, (client, peer)) = (names[i].clone(), addresses[i]);
            Self { data: parent.join(&name), name, client, peer, cluster: cluster.clone() }
        }))
    }

    /// What a server is started with.
    pub fn arguments(&self, kind: Kind) -> Vec<String> {
        let Self { name, client, peer, data, cluster } = self;
        let data_dir = format!("--data-dir={}", data.display());
        if kind == Kind::Floor {
            return vec![data_dir, format!("--listen={client}")];
        }
        let mut arguments = vec![
            data_dir,
            format!("--name={name}"),
            format!("--listen-client-urls=http://{client}"),
            format!("--advertise-client-urls=http://{client}"),
            format!("--listen-peer-urls=http://{peer}"),
            format!("--initial-advertise-peer-urls=http://{peer}"),
            format!("--initial-cluster={cluster}"),
        ];
        arguments.extend(COMMON_FLAGS.map(str::to_owned));
        arguments
    }
}

/// Pairs of addresses of the loopback interface that nobody listens on.
fn free_addresses<const N: usize>() -> io::Result<[(SocketAddr, SocketAddr); N]> {
    let mut held = Vec::new();
    let mut free = || -> io::Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr();
        // Held until all are chosen, so that none is chosen twice.
        held.push(listener);
        address
    };
    let mut pairs = [(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv4Addr::LOCALHOST, 0))); N];
    for pair in &mut pairs {
        *pair = (free()?, free()?);
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etcd_and_detcd_are_started_alike() {
        let seat = Seat::alone("d".into()).expect("free ports");
        assert_ne!(seat.client, seat.peer);
        let etcd = seat.arguments(Kind::Etcd);
        assert_eq!(etcd, seat.arguments(Kind::Detcd));
        assert!(etcd.contains(&format!("--initial-cluster=default=http://{}", seat.peer)));
        assert!(etcd.contains(&"--snapshot-count=100000".to_owned()));
        let floor = seat.arguments(Kind::Floor);
        assert_eq!(floor, ["--data-dir=d".to_owned(), format!("--listen={}", seat.client)]);
    }

    #[test]
    fn members_know_each_other_and_share_nothing() {
        let seats = Seat::together::<3>(Path::new("p")).expect("free ports");
        for (i, seat) in seats.iter().enumerate() {
            assert_eq!(seat.cluster, seats[0].cluster);
            assert!(seat.cluster.contains(&format!("{}=http://{}", seat.name, seat.peer)));
            for other in &seats[..i] {
                assert!(seat.client != other.client && seat.peer != other.peer && seat.data != other.data);
            }
        }
    }
}
