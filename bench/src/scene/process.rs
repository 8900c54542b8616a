//! What a process and its directory take up, and what a stretch of time cost.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::table::cpu::CpuClock;

/// The unit of a file's allocated blocks, whatever the file system's own are.
const BLOCK_BYTES: u64 = 512;

/// Anonymous resident memory of a process in bytes: without the pages of files that it has mapped.
pub fn anonymous_bytes(process: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    rss_anon(&status).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no RssAnon in the process's status"))
}

fn rss_anon(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Bytes that are allocated to a file, or to all files below a directory. What is not there has none.
pub fn disk_bytes(path: &Path) -> io::Result<u64> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    if !metadata.is_dir() {
        return Ok(metadata.blocks() * BLOCK_BYTES);
    }
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        bytes += disk_bytes(&entry?.path())?;
    }
    Ok(bytes)
}

/// Copies a directory with all that is below it.
pub fn copy_directory(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_directory(&source, &target)?
        } else {
            fs::copy(&source, &target).map(drop)?
        }
    }
    Ok(())
}

/// Reads the clocks of a server and of the generator at the ends of a stretch of time.
#[derive(Debug)]
pub struct Meter {
    servers: Vec<CpuClock>,
    generator: CpuClock,
    began: Result<Reading, Errno>,
}

/// Processor times at one moment.
#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Instant,
    server: Duration,
    generator: Duration,
}

/// What a stretch of time cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Processor time of the server, or of all members of a cluster.
    pub server: Duration,
    /// Cores that the generator kept busy.
    pub generator: f64,
}

impl Meter {
    /// A meter that runs from now on.
    pub fn start(servers: impl IntoIterator<Item = CpuClock>) -> Result<Self, Errno> {
        let (servers, generator) = (servers.into_iter().collect::<Vec<_>>(), CpuClock::of(std::process::id())?);
        let began = Reading::now(&servers, generator);
        Ok(Self { servers, generator, began })
    }

    /// Forgets what was so far.
    pub fn restart(&mut self) {
        self.began = Reading::now(&self.servers, self.generator);
    }

    /// The cost since the start.
    pub fn read(&self) -> Result<Cost, Errno> {
        let (began, now) = (self.began?, Reading::now(&self.servers, self.generator)?);
        let generator = now.generator.saturating_sub(began.generator).as_secs_f64();
        let server = now.server.saturating_sub(began.server);
        Ok(Cost { server, generator: generator / now.at.duration_since(began.at).as_secs_f64() })
    }
}

impl Reading {
    fn now(servers: &[CpuClock], generator: CpuClock) -> Result<Self, Errno> {
        let server = servers.iter().map(|clock| clock.now()).sum::<Result<Duration, Errno>>()?;
        Ok(Self { at: Instant::now(), server, generator: generator.now()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_memory_is_read_from_the_status() {
        assert_eq!(rss_anon("VmRSS:\t 9 kB\nRssAnon:\t    3000 kB\nRssFile:\t 1 kB\n"), Some(3_072_000));
        assert_eq!(rss_anon("VmRSS:\t 9 kB\n"), None);
        let before = anonymous_bytes(std::process::id()).expect("ourselves");
        let kept = std::hint::black_box(vec![1_u8; 32 << 20]);
        let after = anonymous_bytes(std::process::id()).expect("ourselves");
        assert!(before + (16 << 20) < after, "{before} {after}");
        drop(kept);
    }

    #[test]
    fn what_is_allocated_counts_and_not_what_is_announced() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let inner = home.path().join("a").join("b");
        fs::create_dir_all(&inner).expect("an empty directory");
        fs::write(inner.join("full"), vec![1; 1 << 20]).expect("room");
        fs::File::create(home.path().join("hollow")).and_then(|file| file.set_len(1 << 30)).expect("room");
        let bytes = disk_bytes(home.path()).expect("it is there");
        assert!((1 << 20..2 << 20).contains(&bytes), "{bytes}");
        assert_eq!(disk_bytes(&inner.join("full")).expect("it is there"), bytes);
        assert_eq!(disk_bytes(&inner.join("none")).expect("nothing is no error"), 0);
    }

    #[test]
    fn a_copy_has_everything() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let (from, to) = (home.path().join("from"), home.path().join("to"));
        fs::create_dir_all(from.join("a")).expect("an empty directory");
        fs::write(from.join("a").join("one"), "1").expect("room");
        fs::write(from.join("two"), "22").expect("room");
        copy_directory(&from, &to).expect("a copy");
        assert_eq!(fs::read(to.join("a").join("one")).expect("copied"), b"1");
        assert_eq!(fs::read(to.join("two")).expect("copied"), b"22");
    }

    #[test]
    fn a_meter_counts_from_its_last_start() {
        let here = CpuClock::of(std::process::id()).expect("ourselves");
        let mut meter = Meter::start([here]).expect("ourselves");
        let until = Instant::now() + Duration::from_millis(60);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        assert!(Duration::from_millis(5) < meter.read().expect("alive").server);
        assert!(0.05 < meter.read().expect("alive").generator);
        let before = meter.read().expect("alive").server;
        meter.restart();
        assert!(meter.read().expect("alive").server < before);
    }
}
