//! Which peers are trusted.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;

use crate::endpoint::Endpoint;

/// Networks of IP addresses: those of balancers.
///
/// ```
/// use lariat::proxy_protocol::Networks;
///
/// let networks = Networks::new(["10.0.0.0/8", "192.0.2.7", "fd00::/8"])?;
/// assert!(networks.contains(([10, 1, 2, 3], 80).into()));
/// assert!(!networks.contains(([192, 0, 2, 8], 80).into()));
/// # Ok::<(), lariat::proxy_protocol::InvalidNetwork>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<(IpAddr, u32)>);

impl Networks {
    /// Networks that are written as an address (`192.0.2.7`) or as one with the length of its
    /// prefix (`10.0.0.0/8`); bits behind the prefix mean nothing. An IPv4-mapped
    /// network such as `::ffff:10.0.0.0/104` is the same as `10.0.0.0/8`.
    ///
    /// # Errors
    ///
    /// A text is neither.
    pub fn new<T: AsRef<str>>(
        networks: impl IntoIterator<Item = T>,
    ) -> Result<Networks, InvalidNetwork> {
        let each = networks.into_iter().map(|text| {
            let text = text.as_ref();
            network(text).ok_or_else(|| InvalidNetwork(text.to_owned()))
        });
        each.collect::<Result<_, _>>().map(Networks)
    }

    /// Whether an address is in one of them. That of a Unix socket never is.
    pub fn contains(&self, endpoint: Endpoint) -> bool {
        let Some(ip) = endpoint.ip() else { return false };
        self.0.iter().any(|(network, prefix)| match (ip, network) {
            (IpAddr::V4(ip), IpAddr::V4(of)) => {
                (ip.to_bits() ^ of.to_bits()).leading_zeros() >= *prefix
            }
            (IpAddr::V6(ip), IpAddr::V6(of)) => {
                (ip.to_bits() ^ of.to_bits()).leading_zeros() >= *prefix
            }
            _ => false,
        })
    }
}

fn network(text: &str) -> Option<(IpAddr, u32)> {
    let (ip, prefix) = match text.split_once('/') {
        Some((ip, prefix)) => (ip, Some(prefix)),
        None => (text, None),
    };
    let ip: IpAddr = ip.parse().ok()?;
    let most: u32 = if ip.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        Some(_) => return None,
        None => most,
    };
    if prefix > most {
        return None;
    }
    // Peers with an IPv4 address are known by that, whichever way they come.
    Some(match ip {
        IpAddr::V6(v6) if prefix >= 96 => match v6.to_ipv4_mapped() {
            Some(v4) => (v4.into(), prefix - 96),
            None => (ip, prefix),
        },
        _ => (ip, prefix),
    })
}

/// A text that stands for no network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidNetwork(String);

impl fmt::Display for InvalidNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is no network; one looks like 10.0.0.0/8, 192.0.2.7 or fd00::/8", self.0)
    }
}

impl Error for InvalidNetwork {}
