//! The file format: blocks of pcapng, which Wireshark and tshark read.
//!
//! A file is a section header, the description of the one interface, a block per packet, and at the
//! end how many packets there were. Numbers are little-endian, times nanoseconds.

/// Packets begin with an IP header.
const LINKTYPE_RAW: u16 = 101;
const SECTION: u32 = 0x0A0D_0D0A;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;

/// The end of the connection that a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    In,
    Out,
}

/// A packet, and what its block says of it.
#[derive(Debug)]
pub(super) struct Packet {
    /// Nanoseconds since 1970.
    pub(super) time: u64,
    pub(super) direction: Direction,
    /// Headers, and the payload unless it is left out.
    pub(super) bytes: Vec<u8>,
    /// Bytes with the payload.
    pub(super) length: usize,
    pub(super) comment: Option<String>,
}

/// Appends what a file begins with.
pub(super) fn start(out: &mut Vec<u8>) {
    block(out, SECTION, |body| {
        body.extend_from_slice(&0x1A2B_3C4D_u32.to_le_bytes());
        body.extend_from_slice(&1_u16.to_le_bytes());
        body.extend_from_slice(&0_u16.to_le_bytes());
        body.extend_from_slice(&(-1_i64).to_le_bytes());
        option(body, 4, concat!("lariat ", env!("CARGO_PKG_VERSION")).as_bytes());
        end_of_options(body);
    });
    block(out, INTERFACE, |body| {
        body.extend_from_slice(&LINKTYPE_RAW.to_le_bytes());
        body.extend_from_slice(&0_u16.to_le_bytes());
        // No limit.
        body.extend_from_slice(&0_u32.to_le_bytes());
        option(body, 2, b"lariat");
        // Times are in units of 10^-9 seconds.
        option(body, 9, &[9]);
        end_of_options(body);
    });
}

/// Appends a packet.
pub(super) fn packet(out: &mut Vec<u8>, packet: &Packet) {
    block(out, PACKET, |body| {
        body.extend_from_slice(&0_u32.to_le_bytes());
        time(body, packet.time);
        body.extend_from_slice(&(packet.bytes.len() as u32).to_le_bytes());
        body.extend_from_slice(&(packet.length as u32).to_le_bytes());
        body.extend_from_slice(&packet.bytes);
        pad(body);
        let direction: u32 = match packet.direction {
            Direction::In => 1,
            Direction::Out => 2,
        };
        option(body, 2, &direction.to_le_bytes());
        if let Some(comment) = &packet.comment {
            option(body, 1, comment.as_bytes());
        }
        end_of_options(body);
    });
}

/// Appends what a file ends with: how many packets are in it, and how many are missing.
pub(super) fn statistics(out: &mut Vec<u8>, at: u64, packets: u64, dropped: u64) {
    block(out, STATISTICS, |body| {
        body.extend_from_slice(&0_u32.to_le_bytes());
        time(body, at);
        option(body, 4, &(packets + dropped).to_le_bytes());
        option(body, 5, &dropped.to_le_bytes());
        end_of_options(body);
    });
}

fn block(out: &mut Vec<u8>, kind: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut body = Vec::new();
    fill(&mut body);
    let length = (body.len() as u32 + 12).to_le_bytes();
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&length);
    out.extend_from_slice(&body);
    out.extend_from_slice(&length);
}

fn time(body: &mut Vec<u8>, at: u64) {
    body.extend_from_slice(&((at >> 32) as u32).to_le_bytes());
    body.extend_from_slice(&(at as u32).to_le_bytes());
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend_from_slice(&code.to_le_bytes());
    body.extend_from_slice(&(value.len() as u16).to_le_bytes());
    body.extend_from_slice(value);
    pad(body);
}

fn end_of_options(body: &mut Vec<u8>) {
    body.extend_from_slice(&[0; 4]);
}

/// Everything in a block begins at a multiple of four bytes.
fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}
