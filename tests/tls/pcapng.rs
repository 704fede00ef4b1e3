//! A reader of captures: each block and each header field by field, checksums as well.

use std::net::SocketAddr;

/// A packet as a reader of the file sees it.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) time: u64,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) payload: Vec<u8>,
    /// Bytes of payload before any were left out.
    pub(crate) length: usize,
    pub(crate) inbound: bool,
    pub(crate) comment: String,
}

pub(crate) struct Captured {
    pub(crate) packets: Vec<Packet>,
    /// What the last block says: packets in all, and those that are missing.
    pub(crate) statistics: Option<(u64, u64)>,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_of(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap())
}

fn options(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut found = Vec::new();
    loop {
        let (code, length) = (u16_at(bytes, 0), usize::from(u16_at(bytes, 2)));
        if code == 0 {
            assert_eq!((length, bytes.len()), (0, 4), "the last option ends the block");
            return found;
        }
        found.push((code, bytes[4..4 + length].to_vec()));
        bytes = &bytes[4 + length.next_multiple_of(4)..];
    }
}

pub(crate) fn read(mut file: &[u8]) -> Captured {
    let mut captured = Captured { packets: Vec::new(), statistics: None };
    let mut kinds = Vec::new();
    while !file.is_empty() {
        let (kind, length) = (u32_at(file, 0), u32_at(file, 4) as usize);
        assert_eq!(length % 4, 0);
        assert_eq!(u32_at(file, length - 4) as usize, length, "both lengths of a block");
        let body = &file[8..length - 4];
        kinds.push(kind);
        match kind {
            0x0A0D_0D0A => {
                assert_eq!(u32_at(body, 0), 0x1A2B_3C4D);
                assert_eq!((u16_at(body, 4), u16_at(body, 6)), (1, 0), "version 1.0");
                assert_eq!(body[8..16], [0xFF; 8], "its length is not known");
                let writer = concat!("lariat ", env!("CARGO_PKG_VERSION")).as_bytes().to_vec();
                assert_eq!(options(&body[16..]), [(4, writer)]);
            }
            1 => {
                assert_eq!((u16_at(body, 0), u16_at(body, 2)), (101, 0));
                assert_eq!(u32_at(body, 4), 0, "packets are as long as they are");
                assert_eq!(options(&body[8..]), [(2, b"lariat".to_vec()), (9, vec![9])]);
            }
            5 => {
                let of = |code| {
                    let (_, value) =
                        options(&body[12..]).into_iter().find(|(found, _)| *found == code).unwrap();
                    u64_of(&value)
                };
                captured.statistics = Some((of(4), of(5)));
                let at = u64::from(u32_at(body, 4)) << 32 | u64::from(u32_at(body, 8));
                assert_eq!(at, captured.packets.last().map_or(0, |last: &Packet| last.time));
            }
            6 => captured.packets.push(packet(body)),
            other => panic!("a block of kind {other}"),
        }
        file = &file[length..];
    }
    assert_eq!(kinds[..2], [0x0A0D_0D0A, 1]);
    captured
}

fn packet(body: &[u8]) -> Packet {
    assert_eq!(u32_at(body, 0), 0);
    let time = u64::from(u32_at(body, 4)) << 32 | u64::from(u32_at(body, 8));
    let (held, whole) = (u32_at(body, 12) as usize, u32_at(body, 16) as usize);
    let options = options(&body[20 + held.next_multiple_of(4)..]);
    let flags = options.iter().find(|(code, _)| *code == 2).map(|(_, value)| u32_at(value, 0));
    let comment = options.iter().find(|(code, _)| *code == 1).map(|(_, value)| value.clone());
    let bytes = &body[20..20 + held];
    let be16 = |at: usize| u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap());
    let (header, from, to) = match bytes[0] >> 4 {
        4 => {
            assert_eq!(usize::from(be16(2)), whole);
            assert_eq!((bytes[9], sum(&[&bytes[..20]])), (6, 0));
            let octets = |at: usize| <[u8; 4]>::try_from(&bytes[at..at + 4]).unwrap();
            (20, octets(12).into(), octets(16).into())
        }
        6 => {
            assert_eq!((usize::from(be16(4)) + 40, bytes[6]), (whole, 6));
            let octets = |at: usize| <[u8; 16]>::try_from(&bytes[at..at + 16]).unwrap();
            (40, std::net::IpAddr::from(octets(8)), octets(24).into())
        }
        other => panic!("version {other} of IP"),
    };
    let tcp = &bytes[header..];
    let be32 = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().unwrap());
    let data = usize::from(tcp[12] >> 4) * 4;
    if held == whole {
        let addrs = if header == 20 { &bytes[12..20] } else { &bytes[8..40] };
        let length = (tcp.len() as u32).to_be_bytes();
        assert_eq!(sum(&[addrs, &[0, 0, 0, 6], &length, tcp]), 0, "the checksum of TCP");
    }
    Packet {
        time,
        from: SocketAddr::new(from, be16(header)),
        to: SocketAddr::new(to, be16(header + 2)),
        seq: be32(4),
        ack: be32(8),
        flags: tcp[13],
        payload: tcp[data..].to_vec(),
        length: whole - header - data,
        inbound: flags == Some(1),
        comment: String::from_utf8(comment.unwrap_or_default()).unwrap(),
    }
}

fn sum(parts: &[&[u8]]) -> u16 {
    let all = parts.concat();
    let pair = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u64 = all.chunks(2).map(pair).sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !(sum as u16)
}

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

impl Captured {
    /// The packets of each connection, in the order in which they begin.
    pub(crate) fn connections(&self) -> Vec<Vec<Packet>> {
        let ends = |packet: &Packet| match packet.inbound {
            true => (packet.from, packet.to),
            false => (packet.to, packet.from),
        };
        let mut found: Vec<(_, Vec<Packet>)> = Vec::new();
        for packet in &self.packets {
            match found.iter_mut().find(|(known, _)| *known == ends(packet)) {
                Some((_, packets)) => packets.push(packet.clone()),
                None => found.push((ends(packet), vec![packet.clone()])),
            }
        }
        found.into_iter().map(|(_, packets)| packets).collect()
    }
}

/// Follows one connection as a reader does: the bytes of each direction, those from the peer first.
pub(crate) fn follow(packets: &[Packet]) -> (Vec<u8>, Vec<u8>) {
    let (mut streams, mut next) = ([Vec::new(), Vec::new()], [0_u32; 2]);
    let mut last = 0;
    for (at, packet) in packets.iter().enumerate() {
        let side = usize::from(!packet.inbound);
        assert_eq!(packet.seq, next[side], "packet {at} is the next one of its direction");
        assert!(packet.flags & ACK == 0 || packet.ack == next[1 - side], "packet {at}");
        assert!(packet.time >= last, "time goes on");
        last = packet.time;
        streams[side].extend_from_slice(&packet.payload);
        next[side] += packet.length as u32 + u32::from(packet.flags & (SYN | FIN) != 0);
    }
    let flags: Vec<u8> = packets[..3].iter().map(|packet| packet.flags).collect();
    assert_eq!(flags, [SYN, SYN | ACK, ACK]);
    assert_ne!(packets[0].inbound, packets[1].inbound);
    let [received, sent] = streams;
    (received, sent)
}
