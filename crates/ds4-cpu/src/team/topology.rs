//! Which processors a team may use: one per physical core, within the process's affinity.

/// One processor number per physical core that this process may run on, in ascending order.
///
/// Empty where the operating system does not say (anything but Linux): the team then does not pin.
pub(crate) fn physical_cores() -> Vec<usize> {
    let allowed = allowed_processors();
    let mut cores = Vec::new();
    let mut seen_siblings: Vec<String> = Vec::new();
    for &cpu in &allowed {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        match std::fs::read_to_string(path) {
            Ok(siblings) if seen_siblings.contains(&siblings) => {}
            Ok(siblings) => {
                seen_siblings.push(siblings);
                cores.push(cpu);
            }
            // A container may hide the topology: then every allowed processor counts as a core.
            Err(_) => cores.push(cpu),
        }
    }
    cores
}

/// Number of threads a team has when the user does not say: the physical cores this process may use.
pub fn default_thread_count() -> usize {
    let cores = physical_cores().len();
    if cores > 0 {
        cores
    } else {
        std::thread::available_parallelism().map_or(1, usize::from)
    }
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "thread affinity has no safe wrapper in std")]
fn allowed_processors() -> Vec<usize> {
    // SAFETY: all-zero bytes are a valid (empty) cpu_set_t.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a writable cpu_set_t of the size passed; pid 0 is the calling thread.
    let status = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    if status != 0 {
        return Vec::new();
    }
    (0..libc::CPU_SETSIZE as usize)
        // SAFETY: `cpu` is below CPU_SETSIZE, the number of bits in the set.
        .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) })
        .collect()
}

#[cfg(not(target_os = "linux"))]
fn allowed_processors() -> Vec<usize> {
    Vec::new()
}

/// Binds the calling thread to one processor. Best effort: a refusal changes speed, not results.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "thread affinity has no safe wrapper in std")]
pub(crate) fn pin_current_thread(cpu: usize) {
    if cpu >= libc::CPU_SETSIZE as usize {
        return;
    }
    // SAFETY: all-zero bytes are a valid (empty) cpu_set_t; `cpu` is below its number of bits; the
    // kernel only reads the set during the call.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

/// Binds the calling thread to one processor: not supported here, so nothing happens.
#[cfg(not(target_os = "linux"))]
pub(crate) fn pin_current_thread(_cpu: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_core_and_no_processor_twice() {
        assert!(default_thread_count() >= 1);
        let cores = physical_cores();
        assert!(cores.is_sorted_by(|a, b| a < b));
        assert!(cores.len() <= std::thread::available_parallelism().unwrap().get().max(1));
    }
}
