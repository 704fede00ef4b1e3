//! IP packets with TCP segments, as if the clear bytes had been on a network.

use std::net::{IpAddr, SocketAddr};

const TCP: u8 = 6;
pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;

/// One segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) payload: &'a [u8],
}

impl Segment<'_> {
    /// The IP packet with the segment in it; without its payload if `headers_only`. Also how long
    /// it is with the payload. The checksums are those of the whole.
    pub(super) fn packet(&self, headers_only: bool) -> (Vec<u8>, usize) {
        let tcp = self.header();
        let length = tcp.len() + self.payload.len();
        let mut packet = match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => v4(from.octets(), to.octets(), length),
            (from, to) => v6(v6_octets(from), v6_octets(to), length),
        };
        let whole = packet.len() + length;
        packet.extend_from_slice(&tcp);
        if !headers_only {
            packet.extend_from_slice(self.payload);
        }
        (packet, whole)
    }

    fn header(&self) -> Vec<u8> {
        let mut tcp = Vec::with_capacity(32);
        tcp.extend_from_slice(&self.from.port().to_be_bytes());
        tcp.extend_from_slice(&self.to.port().to_be_bytes());
        tcp.extend_from_slice(&self.seq.to_be_bytes());
        tcp.extend_from_slice(&self.ack.to_be_bytes());
        // The largest window there is, so that nobody takes a reader for a slow one: 65,535 times
        // 2^14, as the option of the first segments says.
        let options: &[u8] = if self.flags & SYN != 0 { &[3, 3, 14, 0] } else { &[] };
        let words = (20 + options.len()) / 4;
        tcp.extend_from_slice(&[(words as u8) << 4, self.flags, 0xFF, 0xFF, 0, 0, 0, 0]);
        tcp.extend_from_slice(options);
        let sum = checksum(&[&self.pseudo_header(tcp.len()), &tcp, self.payload]);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        tcp
    }

    /// What the checksum covers besides the segment.
    fn pseudo_header(&self, header: usize) -> Vec<u8> {
        let mut pseudo = Vec::with_capacity(40);
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                pseudo.extend_from_slice(&from.octets());
                pseudo.extend_from_slice(&to.octets());
            }
            (from, to) => {
                pseudo.extend_from_slice(&v6_octets(from));
                pseudo.extend_from_slice(&v6_octets(to));
            }
        }
        pseudo.extend_from_slice(&u32::from(TCP).to_be_bytes());
        pseudo.extend_from_slice(&((header + self.payload.len()) as u32).to_be_bytes());
        pseudo
    }
}

fn v6_octets(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
    }
}

/// The header of an IPv4 packet with `length` bytes in it.
fn v4(from: [u8; 4], to: [u8; 4], length: usize) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend_from_slice(&((20 + length) as u16).to_be_bytes());
    // No identification, not to be fragmented, 64 hops.
    header.extend_from_slice(&[0, 0, 0x40, 0, 64, TCP, 0, 0]);
    header.extend_from_slice(&from);
    header.extend_from_slice(&to);
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

/// The header of an IPv6 packet with `length` bytes in it.
fn v6(from: [u8; 16], to: [u8; 16], length: usize) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend_from_slice(&(length as u16).to_be_bytes());
    header.extend_from_slice(&[TCP, 64]);
    header.extend_from_slice(&from);
    header.extend_from_slice(&to);
    header
}

/// The Internet checksum, RFC 1071, of parts that all but the last have an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        let pairs = part.chunks_exact(2);
        if let [last] = pairs.remainder() {
            sum += u64::from(*last) << 8;
        }
        sum += pairs.map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u64>();
    }
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_rfc_1071() {
        let example = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&[&example]), !0xddf2);
        assert_eq!(checksum(&[&example[..6], &example[6..]]), !0xddf2);
        assert_eq!(checksum(&[&[0xFF]]), !0xFF00, "an odd byte is the high one");
        // A header of a packet that was on a network.
        let header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8,
            0x00, 0x01, 0xc0, 0xa8, 0x00, 0xc7,
        ];
        assert_eq!(checksum(&[&header]), 0);
    }

    #[test]
    fn a_packet_has_the_lengths_and_sums_of_its_family() {
        for (from, to, headers) in [
            ("10.0.0.1:1000", "10.0.0.2:80", 40),
            ("[::1]:1000", "[fe80::2]:80", 60),
            ("10.0.0.1:1000", "[::2]:80", 60),
        ] {
            for payload in [&b""[..], b"odd", b"even"] {
                let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
                let segment = Segment { from, to, seq: 7, ack: 9, flags: ACK | PSH, payload };
                let (packet, whole) = segment.packet(false);
                assert_eq!((packet.len(), whole), (headers + payload.len(), packet.len()));
                let tcp = &packet[headers - 20..];
                let pseudo = segment.pseudo_header(20);
                assert_eq!(checksum(&[&pseudo, tcp]), 0);
                assert_eq!(segment.packet(true), (packet[..headers].to_vec(), whole));
            }
        }
    }
}
