//! The allocator, and what it and the system are told about memory.
//!
//! Requests are many small buffers that one thread makes and another drops: glibc's allocator spent a tenth of a put's time on them.

/// Everything that this process allocates comes from here.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Whether this process gets huge pages for what it touches from now on. The system clears each one whole at its first byte and keeps it while any of it is in use. While a store is loaded that
/// takes more time and memory than it is worth: most of the system's part of a start went into clearing. For the buffers of requests, which are used again and again, they save
/// a twentieth to a tenth of the processor.
pub(crate) fn let_huge_pages(are_wanted: bool) {
    // A system that knows no such pages has nothing to refuse.
    let _ = nix::sys::prctl::set_thp_disable(!are_wanted);
}

/// Gives back to the system what this thread freed and the allocator keeps for its next wishes. Worth it after a load, which gathers and sorts in buffers that nothing later needs.
#[expect(unsafe_code, reason = "a call into the allocator that takes no pointer and has no condition")]
pub(crate) fn give_back() {
    // SAFETY: it may be called at any time by any thread.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
