//! The C library's calls that change a file, taken over for this test's process: each goes to the system as it would, and what it did is recorded.
//!
//! LMDB's C code and the standard library are linked to these, because a program's own symbols go before the C library's.
#![expect(unsafe_code, reason = "the C library's own functions, with its own promises about pointers")]

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::libc::{self, c_char, c_int, c_long, c_uint, c_void, iovec, off_t, size_t, ssize_t};

use super::recorder;

/// Where a write goes that names no place.
fn place(fd: c_int) -> u64 {
    // SAFETY: a number is asked for.
    u64::try_from(unsafe { libc::lseek(fd, 0, libc::SEEK_CUR) }).unwrap_or(0)
}

fn is_synchronous(fd: c_int) -> bool {
    // SAFETY: a number is asked for.
    unsafe { libc::fcntl(fd, libc::F_GETFL) & libc::O_DSYNC != 0 }
}

fn on_written(fd: c_int, offset: u64, bytes: &[u8], written: c_long) -> ssize_t {
    if let Some(bytes) = usize::try_from(written).ok().and_then(|length| bytes.get(..length)) {
        recorder::on_write(fd, offset, bytes, is_synchronous(fd));
    }
    written as ssize_t
}

/// The bytes of a list of buffers, one behind the other.
unsafe fn gathered(buffers: *const iovec, count: c_int) -> Vec<u8> {
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: the caller of the C function promised so many buffers, each as long as it says.
    let each = unsafe { std::slice::from_raw_parts(buffers, count) };
    each.iter()
        // SAFETY: as above.
        .flat_map(|buffer| unsafe { std::slice::from_raw_parts(buffer.iov_base.cast::<u8>(), buffer.iov_len) })
        .copied()
        .collect()
}

unsafe fn write_at(fd: c_int, bytes: *const c_void, length: size_t, offset: off_t) -> ssize_t {
    // SAFETY: handed on as they came.
    let written = unsafe { libc::syscall(libc::SYS_pwrite64, fd, bytes, length, offset) };
    // SAFETY: the caller of the C function promised so many bytes.
    let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), length) };
    on_written(fd, offset.unsigned_abs(), bytes, written)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite(fd: c_int, bytes: *const c_void, length: size_t, offset: off_t) -> ssize_t {
    // SAFETY: handed on as they came.
    unsafe { write_at(fd, bytes, length, offset) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(fd: c_int, bytes: *const c_void, length: size_t, offset: off_t) -> ssize_t {
    // SAFETY: handed on as they came.
    unsafe { write_at(fd, bytes, length, offset) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwritev(fd: c_int, buffers: *const iovec, count: c_int, offset: off_t) -> ssize_t {
    // SAFETY: handed on as they came; the place is in the first of two words.
    let written = unsafe { libc::syscall(libc::SYS_pwritev, fd, buffers, c_long::from(count), offset, 0) };
    // SAFETY: handed on as they came.
    on_written(fd, offset.unsigned_abs(), &unsafe { gathered(buffers, count) }, written)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn writev(fd: c_int, buffers: *const iovec, count: c_int) -> ssize_t {
    let offset = place(fd);
    // SAFETY: handed on as they came.
    let written = unsafe { libc::syscall(libc::SYS_writev, fd, buffers, c_long::from(count)) };
    // SAFETY: handed on as they came.
    on_written(fd, offset, &unsafe { gathered(buffers, count) }, written)
}

fn done(fd: c_int, result: c_long, record: impl FnOnce(c_int)) -> c_int {
    if result == 0 {
        record(fd);
    }
    result as c_int
}

#[unsafe(no_mangle)]
extern "C" fn fdatasync(fd: c_int) -> c_int {
    // SAFETY: numbers only.
    done(fd, unsafe { libc::syscall(libc::SYS_fdatasync, fd) }, recorder::on_sync)
}

#[unsafe(no_mangle)]
extern "C" fn fsync(fd: c_int) -> c_int {
    // SAFETY: numbers only.
    done(fd, unsafe { libc::syscall(libc::SYS_fsync, fd) }, recorder::on_sync)
}

fn resize(fd: c_int, size: off_t) -> c_int {
    // SAFETY: numbers only.
    done(fd, unsafe { libc::syscall(libc::SYS_ftruncate, fd, size) }, |fd| recorder::on_resize(fd, size.unsigned_abs()))
}

#[unsafe(no_mangle)]
extern "C" fn ftruncate(fd: c_int, size: off_t) -> c_int {
    resize(fd, size)
}

#[unsafe(no_mangle)]
extern "C" fn ftruncate64(fd: c_int, size: off_t) -> c_int {
    resize(fd, size)
}

fn allocate(fd: c_int, mode: c_int, offset: off_t, length: off_t) -> c_int {
    assert_eq!((mode, offset), (0, 0), "nobody asks for more than room from the start on");
    // SAFETY: numbers only.
    let result = unsafe { libc::syscall(libc::SYS_fallocate, fd, mode, offset, length) };
    done(fd, result, |fd| recorder::on_allocate(fd, length.unsigned_abs()))
}

#[unsafe(no_mangle)]
extern "C" fn fallocate(fd: c_int, mode: c_int, offset: off_t, length: off_t) -> c_int {
    allocate(fd, mode, offset, length)
}

#[unsafe(no_mangle)]
extern "C" fn fallocate64(fd: c_int, mode: c_int, offset: off_t, length: off_t) -> c_int {
    allocate(fd, mode, offset, length)
}

unsafe fn path(text: *const c_char) -> PathBuf {
    // SAFETY: the caller of the C function promised a string that ends.
    PathBuf::from(OsStr::from_bytes(unsafe { CStr::from_ptr(text) }.to_bytes()))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    let here = libc::AT_FDCWD;
    // SAFETY: handed on as they came.
    let result = unsafe { libc::syscall(libc::SYS_renameat2, here, from, here, to, c_uint::MIN) };
    // SAFETY: handed on as they came.
    done(0, result, |_| recorder::on_rename(&unsafe { path(from) }, &unsafe { path(to) }))
}

unsafe fn remove(directory: c_int, name: *const c_char, flags: c_int) -> c_int {
    // SAFETY: handed on as it came.
    let name_path = unsafe { path(name) };
    let whole = match directory {
        libc::AT_FDCWD => name_path,
        _ => recorder::path_of(directory).unwrap_or_default().join(name_path),
    };
    // SAFETY: handed on as they came.
    let result = unsafe { libc::syscall(libc::SYS_unlinkat, directory, name, flags) };
    done(0, result, |_| recorder::on_remove(Path::new(&whole)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn unlinkat(directory: c_int, name: *const c_char, flags: c_int) -> c_int {
    // SAFETY: handed on as they came.
    unsafe { remove(directory, name, flags) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn unlink(name: *const c_char) -> c_int {
    // SAFETY: handed on as they came.
    unsafe { remove(libc::AT_FDCWD, name, 0) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rmdir(name: *const c_char) -> c_int {
    // SAFETY: handed on as they came.
    unsafe { remove(libc::AT_FDCWD, name, libc::AT_REMOVEDIR) }
}
