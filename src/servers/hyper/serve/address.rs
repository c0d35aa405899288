//! Limits the number of connections of each peer address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Number of open connections by address.
type Open = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// Limits the number of connections of each peer address. Addresses without connections use no memory.
#[derive(Debug)]
pub(super) struct AddressLimit {
    /// 0 disables the limit.
    max: usize,
    open: Open,
}

impl AddressLimit {
    pub(super) fn new(max: usize) -> Self {
        Self { max, open: Arc::default() }
    }

    /// Counts a connection of this peer until the permit is dropped, or returns `None` if the peer is at its limit.
    /// Peers without an address, on a Unix domain socket, are not limited.
    pub(super) fn admit(&self, peer: Option<IpAddr>) -> Option<AddressPermit> {
        let Some(peer) = peer.filter(|_| self.max > 0) else { return Some(AddressPermit(None)) };
        let peer = network(peer);
        let mut open = self.open.lock();
        let count = open.entry(peer).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        drop(open);
        Some(AddressPermit(Some((Arc::clone(&self.open), peer))))
    }
}

/// Returns the network whose connections are counted together: an IPv4 address, or the /64 of an IPv6 address, which is
/// the smallest that a customer or machine usually has. An IPv4-mapped IPv6 address counts as the IPv4 address.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

/// Permit of a connection in the limit of its address.
#[derive(Debug)]
pub(super) struct AddressPermit(Option<(Open, IpAddr)>);

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let Some((open, peer)) = &self.0 else { return };
        if let Entry::Occupied(mut count) = open.lock().entry(*peer) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_at_its_limit_does_not_affect_others() {
        let limit = AddressLimit::new(2);
        let of = |text: &str| limit.admit(Some(text.parse().unwrap()));
        let (one, two) = (of("10.0.0.1").unwrap(), of("::ffff:10.0.0.1").unwrap());
        assert!(of("10.0.0.1").is_none());
        assert!(of("10.0.0.2").is_some());
        drop(one);
        let three = of("10.0.0.1");
        assert!(three.is_some() && of("10.0.0.1").is_none());
        drop((two, three));
        assert!(limit.open.lock().is_empty());
    }

    #[test]
    fn ipv6_counts_by_the_network_of_64_bits() {
        let limit = AddressLimit::new(1);
        let of = |text: &str| limit.admit(Some(text.parse().unwrap()));
        let one = of("2001:db8:0:1::1");
        assert!(one.is_some() && of("2001:db8:0:1:ffff::9").is_none());
        assert!(of("2001:db8:0:2::1").is_some());
    }

    #[test]
    fn zero_is_no_limit() {
        let limit = AddressLimit::new(0);
        let peer = Some("10.0.0.1".parse().unwrap());
        let all: Vec<_> = (0..5000).map(|_| limit.admit(peer)).collect();
        assert!(all.iter().all(Option::is_some) && limit.open.lock().is_empty());
    }

    #[test]
    fn peers_without_an_address_are_not_limited() {
        let limit = AddressLimit::new(1);
        let all: Vec<_> = (0..100).map(|_| limit.admit(None)).collect();
        assert!(all.iter().all(Option::is_some) && limit.open.lock().is_empty());
    }
}
