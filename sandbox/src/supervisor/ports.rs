//! Free ports for the parts, claimed for as long as the sandbox lives.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net;

use rand::RngExt as _;

/// Below the range from which Linux takes the local ports of outgoing connections (32768 and up): a part
/// that was stopped finds its port free when it starts again, which an ephemeral port does not promise.
const PORTS: std::ops::Range<u16> = 15_000..32_000;
/// Ports of one claim, a divisor of the range's length.
const BLOCK: u16 = 20;
const ATTEMPTS_MAX: u32 = 1_000;

/// No free ports were found.
#[derive(Debug, thiserror::Error)]
#[error("no {BLOCK} free ports in a row on 127.0.0.1 between {} and {} after {ATTEMPTS_MAX} attempts", PORTS.start, PORTS.end)]
pub struct NoFreePort;

/// Ports that no other sandbox takes, although nothing listens on them yet or any more.
///
/// A part binds its port seconds after the port was chosen, and again after it was killed. Until then another
/// sandbox would find it free. So sandboxes agree on blocks of ports, each by an abstract Unix socket of a known
/// name: it leaves no file, belongs to the same network namespace as the ports, and goes with its process.
#[derive(Debug)]
pub struct Claim {
    first: u16,
    _held: net::UnixListener,
}

impl Claim {
    /// Claims a block in which nothing listens, chosen at random.
    ///
    /// # Errors
    /// [`NoFreePort`] when the range is nearly full.
    pub fn new() -> Result<Self, NoFreePort> {
        let blocks = (PORTS.end - PORTS.start) / BLOCK;
        (0..ATTEMPTS_MAX)
            .find_map(|_| Self::of_block(rand::rng().random_range(0..blocks)))
            .ok_or(NoFreePort)
    }

    fn of_block(block: u16) -> Option<Self> {
        let name = format!("throughline-sandbox-ports-{block}");
        let name = net::SocketAddr::from_abstract_name(name).ok()?;
        let claim = Self {
            first: PORTS.start + block * BLOCK,
            _held: net::UnixListener::bind_addr(&name).ok()?,
        };
        claim
            .addresses::<{ BLOCK as usize }>()
            .iter()
            .all(|address| TcpListener::bind(address).is_ok())
            .then_some(claim)
    }

    /// The first `N` loopback addresses of the block.
    #[must_use]
    pub fn addresses<const N: usize>(&self) -> [SocketAddr; N] {
        const { assert!(N <= BLOCK as usize, "a claim has fewer ports") }
        let mut port = self.first;
        std::array::from_fn(|_| {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            port += 1;
            address
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn claims_that_live_together_share_no_port() {
        let claims: Vec<Claim> = (0..40).map(|_| Claim::new().unwrap()).collect();
        let ports: BTreeSet<u16> = claims
            .iter()
            .flat_map(|claim| claim.addresses::<{ BLOCK as usize }>())
            .map(|address| address.port())
            .collect();
        assert_eq!(ports.len(), 40 * usize::from(BLOCK));
        assert!(ports.iter().all(|port| PORTS.contains(port)));
    }

    #[test]
    fn a_block_is_free_again_when_its_claim_is_gone() {
        let claim = Claim::new().unwrap();
        let block = (claim.first - PORTS.start) / BLOCK;
        assert!(Claim::of_block(block).is_none());
        drop(claim);
        assert!(Claim::of_block(block).is_some());
    }

    #[test]
    fn a_block_in_which_something_listens_is_not_taken() {
        let claim = Claim::new().unwrap();
        let block = (claim.first - PORTS.start) / BLOCK;
        let _listener = TcpListener::bind(claim.addresses::<3>()[2]).unwrap();
        drop(claim);
        assert!(Claim::of_block(block).is_none());
    }
}
