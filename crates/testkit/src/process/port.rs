use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};

/// Below the ports that Linux gives to outgoing connections: none of those takes
/// a port from a server that is down for a moment.
const RANGE: std::ops::Range<u16> = 14_000..32_000;

/// A port of the loopback address that no other test takes, in this process or
/// in another, for as long as this lives. Servers can be stopped and started on
/// it.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    /// A name that only one socket of the machine can have. It is free again when
    /// the process ends, however it ends.
    _claim: UnixListener,
}

impl Port {
    /// Takes a port that nobody listens at.
    ///
    /// # Panics
    /// If the machine has none.
    pub(crate) fn reserve() -> Self {
        let start = fastrand::u16(RANGE);
        let candidates = (start..RANGE.end).chain(RANGE.start..start);
        candidates
            .filter_map(Self::claim)
            .find(|port| TcpListener::bind(port.address()).is_ok())
            .expect("a port is free")
    }

    /// Takes this port, if no other test has it.
    pub(crate) fn claim(number: u16) -> Option<Self> {
        let name = format!("larder-test-port-{number}");
        let name = UnixAddress::from_abstract_name(name).expect("the name is short");
        let claim = UnixListener::bind_addr(&name).ok()?;
        Some(Self { number, _claim: claim })
    }

    pub(crate) const fn number(&self) -> u16 {
        self.number
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once_and_can_be_had_again() {
        let port = Port::reserve();
        let number = port.number();
        assert!(Port::claim(number).is_none(), "it is taken");
        drop(port);
        assert_eq!(Port::claim(number).map(|port| port.number()), Some(number));
    }
}
