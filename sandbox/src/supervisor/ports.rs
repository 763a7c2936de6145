//! Free ports for the parts.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use rand::RngExt as _;

/// Below the range from which Linux takes the local ports of outgoing connections (32768 and up): a part
/// that was stopped finds its port free when it starts again, which an ephemeral port does not promise.
const PORT_RANGE: std::ops::Range<u16> = 15_000..32_000;
const ATTEMPTS_MAX: u32 = 1_000;

/// No free port was found.
#[derive(Debug, thiserror::Error)]
#[error("no free port on 127.0.0.1 between {} and {} after {ATTEMPTS_MAX} attempts", PORT_RANGE.start, PORT_RANGE.end)]
pub struct NoFreePort;

/// `N` distinct loopback addresses on which nothing listens. Chosen at random, so that sandboxes which start
/// at the same moment do not all try the same one.
///
/// # Errors
/// [`NoFreePort`] when the range is nearly full.
pub fn free<const N: usize>() -> Result<[SocketAddr; N], NoFreePort> {
    let mut held = Vec::with_capacity(N);
    for _ in 0..ATTEMPTS_MAX {
        if held.len() == N {
            break;
        }
        let port = rand::rng().random_range(PORT_RANGE);
        // Held until all are chosen, so that no port is chosen twice.
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push((listener, SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
        }
    }
    let addresses: Vec<SocketAddr> = held.iter().map(|(_, address)| *address).collect();
    addresses.try_into().map_err(|_| NoFreePort)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_are_distinct_and_can_be_bound() {
        let ports = free::<16>().unwrap();
        let mut sorted = ports.to_vec();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), 16);
        assert!(ports.iter().all(|address| PORT_RANGE.contains(&address.port())));
    }
}
