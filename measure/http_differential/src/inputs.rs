//! Inputs made of pieces, most of them right.

/// Splitmix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// One of `all`; the first of them most of the time.
    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        if self.below(16) < 15 { all[0] } else { all[self.below(all.len())] }
    }
}

pub(crate) fn make(seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed);
    let mut bytes = Vec::new();
    for _ in 0..1 + dice.below(3) {
        request(&mut dice, &mut bytes);
    }
    // A byte changed, lost or doubled.
    for _ in 0..dice.below(3) {
        if dice.below(2) == 0 && !bytes.is_empty() {
            let at = dice.below(bytes.len());
            match dice.below(4) {
                0 => drop(bytes.remove(at)),
                1 => bytes.insert(at, bytes[at]),
                2 => bytes[at] = b"\r\n \t:;,0aF\0\x0b\x7f\xff"[dice.below(14)],
                _ => bytes[at] ^= 1 << dice.below(8),
            }
        }
    }
    bytes
}

fn request(dice: &mut Dice, bytes: &mut Vec<u8>) {
    let mut put = |text: &str| bytes.extend_from_slice(text.as_bytes());
    put(dice.of(&["", "\r\n", "\n"]));
    put(dice.of(&["POST", "GET", "PUT", "OPTIONS", "FOO", "get", "G,T"]));
    put(dice.of(&[" ", "  ", "\t"]));
    put(dice.of(&["/", "/a?b=c", "/%20", "http://x/y", "*", "x", "/a b", "//x", "/a;b=(c)'*!"]));
    put(dice.of(&[" ", "  "]));
    put(dice.of(&["HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1", "HTTP/1.01"]));
    put(dice.of(&["\r\n", "\n", "\r"]));
    put(dice.of(&["Host: x\r\n", "", "host:x:80\r\n", "Host: x\r\nHost: x\r\n", "Host : x\r\n"]));
    put(dice.of(&["", "A: b\r\n", "A:\r\n", "A: b\r\n c\r\n", "A b\r\n", ": b\r\n", "A: \x01\r\n"]));
    let framing = dice.below(4);
    if framing == 1 || framing == 3 {
        put(dice.of(&["Content-Length", "content-length", "Content-Length ", "Content_Length"]));
        put(dice.of(&[": 5\r\n", ":5\r\n", ": +5\r\n", ": 5, 5\r\n", ": 0x5\r\n", ": 05\r\n",
            ": 5\r\nContent-Length: 5\r\n", ": 5\r\nContent-Length: 6\r\n", ": -5\r\n", ": \r\n",
            ": 18446744073709551621\r\n", ": 5\n", ":\t5\t\r\n"]));
    }
    if framing == 2 || (framing == 3 && dice.below(4) == 0) {
        put(dice.of(&["Transfer-Encoding", "transfer-encoding", "Transfer-Encoding "]));
        put(dice.of(&[": chunked\r\n", ": Chunked\r\n", ":chunked \r\n", ": gzip, chunked\r\n",
            ": chunked, gzip\r\n", ": xchunked\r\n", ": chunked, chunked\r\n", ": identity\r\n",
            ": \x0bchunked\r\n", ": chunked\r\nTransfer-Encoding: identity\r\n", ": ,chunked\r\n"]));
    }
    put(dice.of(&["", "Connection: close\r\n", "Connection: keep-alive\r\n"]));
    put(dice.of(&["\r\n", "\n"]));
    match framing {
        1 | 3 => put("hello"),
        2 => {
            for _ in 0..dice.below(3) {
                put(dice.of(&["5", "05", "5;a=b", "5 ", " 5", "5;a=\"b\"", "0x5", "+5", "5;a\nb",
                    "10000000000000005", "5 ;a", "5;\rX"]));
                put(dice.of(&["\r\n", "\n", "\r"]));
                put("hello");
                put(dice.of(&["\r\n", "\n", "", "\r", "!\r\n"]));
            }
            put(dice.of(&["0\r\n\r\n", "00\r\n\r\n", "0\r\nA: b\r\n\r\n", "0\r\nA b\r\n\r\n", "0\n\n",
                "0;a\r\n\r\n", "0\r\n", "0\r\nA: b\n\r\n", "0\r\n \r\n\r\n"]));
        }
        _ => {}
    }
}
