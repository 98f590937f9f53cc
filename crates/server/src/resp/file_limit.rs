//! How many files, and so connections, this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are open besides connections: databases, logs, the runtime.
const OTHER_FILES: usize = 512;

/// Raises the limit so that this many clients can connect, as far as the system
/// allows, and returns how many can.
pub fn raise_file_limit(clients: usize) -> usize {
    let wanted = (clients + OTHER_FILES) as u64;
    let limit = getrlimit(Resource::Nofile);
    let Some(soft) = limit.current.filter(|&soft| soft < wanted) else { return clients };
    let raised = limit.maximum.map_or(wanted, |hard| hard.min(wanted));
    let is_raised = raised > soft
        && setrlimit(Resource::Nofile, Rlimit { current: Some(raised), ..limit }).is_ok();
    let files = if is_raised { raised } else { soft };
    usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(OTHER_FILES).clamp(1, clients)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_it_goes() {
        assert_eq!(raise_file_limit(1), 1);
        let most = raise_file_limit(usize::MAX / 4);
        assert!(most < usize::MAX / 4);
        assert_eq!(raise_file_limit(most), most);
    }
}
