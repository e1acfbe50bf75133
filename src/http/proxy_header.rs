//! The header with which a proxy announces the client of a connection: the PROXY protocol, versions 1 and 2
//! (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>). Only headers of trusted proxies are
//! read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The prefix of each header of version 1, and the length of the longest one, including its line end.
const V1: &[u8] = b"PROXY ";
const V1_LEN_MAX: usize = 107;

/// The prefix of each header of version 2.
const V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_LEN_MIN: usize = 16;

/// The longest header of version 2 that is accepted: the longest addresses, and space for the extensions
/// (TLVs) after them, which are ignored. A proxy sends more only if it was configured to.
pub(super) const HEADER_LEN_MAX: usize = 536;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// Part of a header; more must arrive.
    Part,
    Whole {
        /// The length of the header; the bytes after it are the client's.
        len: usize,
        /// The client's address. `None` if the connection is the proxy's own (a health check), or the proxy
        /// does not know the client.
        source: Option<SocketAddr>,
    },
    /// Not such a header.
    Garbage,
}

/// Parses a header from the first bytes of a connection.
pub(super) fn read(bytes: &[u8]) -> Read {
    let begins = |signature: &[u8]| {
        let len = bytes.len().min(signature.len());
        bytes[..len] == signature[..len]
    };
    if begins(V1) {
        v1(bytes)
    } else if begins(V2) {
        v2(bytes)
    } else {
        Read::Garbage
    }
}

/// A line of text such as `PROXY TCP4 192.0.2.1 192.0.2.9 56324 443`.
fn v1(bytes: &[u8]) -> Read {
    let within = &bytes[..bytes.len().min(V1_LEN_MAX)];
    let Some(end) = within.windows(2).position(|two| two == b"\r\n") else {
        return if within.len() < V1_LEN_MAX { Read::Part } else { Read::Garbage };
    };
    let whole = |source| Read::Whole { len: end + 2, source };
    let Ok(line) = std::str::from_utf8(&bytes[V1.len().min(end)..end]) else { return Read::Garbage };
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        ["UNKNOWN", ..] => whole(None),
        [family @ ("TCP4" | "TCP6"), source, destination, port, to] => {
            let address = |text: &str| match family {
                "TCP4" => Ipv4Addr::from_str(text).ok().map(IpAddr::from),
                _ => Ipv6Addr::from_str(text).ok().map(IpAddr::from),
            };
            match (address(source), address(destination), port_of(port), port_of(to)) {
                (Some(source), Some(_), Some(port), Some(_)) => whole(Some(SocketAddr::new(source, port))),
                _ => Read::Garbage,
            }
        }
        _ => Read::Garbage,
    }
}

/// Digits only, without leading zeros.
fn port_of(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    is_plain.then(|| text.parse().ok())?
}

/// Signature, version and command, family and transport, length of the rest, addresses, extensions.
fn v2(bytes: &[u8]) -> Read {
    let Some(head) = bytes.get(..V2_LEN_MIN) else { return Read::Part };
    let (version, command, family) = (head[12] >> 4, head[12] & 0xf, head[13]);
    let len = V2_LEN_MIN + usize::from(u16::from_be_bytes([head[14], head[15]]));
    if version != 2 || command > 1 || len > HEADER_LEN_MAX {
        return Read::Garbage;
    }
    let Some(header) = bytes.get(..len) else { return Read::Part };
    let addresses = &header[V2_LEN_MIN..];
    let port = |at: usize| u16::from_be_bytes([addresses[at], addresses[at + 1]]);
    let source = match (command, family) {
        // The proxy's own connection, whatever the rest says.
        (0, _) => None,
        (_, 0x11) if addresses.len() >= 12 => {
            addresses.first_chunk::<4>().map(|ip| SocketAddr::new((*ip).into(), port(8)))
        }
        (_, 0x21) if addresses.len() >= 36 => {
            addresses.first_chunk::<16>().map(|ip| SocketAddr::new((*ip).into(), port(32)))
        }
        // The client is unknown to the proxy, or reached it by something other than TCP.
        (_, 0x00 | 0x12 | 0x22 | 0x31 | 0x32) => None,
        _ => return Read::Garbage,
    };
    Read::Whole { len, source }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2_header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&V2[..], &[0x20 | command, family], &len, rest].concat()
    }

    fn whole(bytes: &[u8], source: Option<&str>) {
        let expected = Read::Whole { len: bytes.len(), source: source.map(|source| source.parse().unwrap()) };
        assert_eq!(read(bytes), expected, "{bytes:?}");
        let with_more = [bytes, b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(read(&with_more), expected, "what comes behind it does not matter");
        for len in 0..bytes.len() {
            assert_eq!(read(&bytes[..len]), Read::Part, "{len} of {bytes:?}");
        }
    }

    #[test]
    fn headers_of_version_1_are_read() {
        for (line, source) in [
            ("PROXY TCP4 192.0.2.1 192.0.2.9 56324 443", Some("192.0.2.1:56324")),
            ("PROXY TCP6 2001:db8::1 2001:db8::9 1 65535", Some("[2001:db8::1]:1")),
            ("PROXY TCP6 ::ffff:192.0.2.1 ::1 0 443", Some("[::ffff:192.0.2.1]:0")),
            ("PROXY UNKNOWN", None),
            ("PROXY UNKNOWN ffff::1 ffff::2 65535 65535", None),
        ] {
            whole(format!("{line}\r\n").as_bytes(), source);
        }
    }

    #[test]
    fn headers_of_version_2_are_read() {
        let v4 = [&[192, 0, 2, 1, 192, 0, 2, 9][..], &56_324_u16.to_be_bytes(), &[1, 187]].concat();
        let v6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1], &[0; 16], &[0, 80, 1, 187]].concat();
        let tlv = [3, 0, 4, 1, 2, 3, 4];
        whole(&v2_header(1, 0x11, &v4), Some("192.0.2.1:56324"));
        whole(&v2_header(1, 0x21, &v6), Some("[2001:db8::1]:80"));
        whole(&v2_header(1, 0x11, &[&v4[..], &tlv].concat()), Some("192.0.2.1:56324"));
        whole(&v2_header(1, 0x21, &[&v6[..], &[0; 484]].concat()), Some("[2001:db8::1]:80"));
        whole(&v2_header(0, 0x00, &[]), None);
        whole(&v2_header(0, 0x11, &v4), None);
        whole(&v2_header(1, 0x00, &tlv), None);
        whole(&v2_header(1, 0x31, &[b'/'; 216]), None);
    }

    #[test]
    fn what_is_no_header_is_told_apart_at_once() {
        let long_v1 = [&b"PROXY TCP4 "[..], &[b'1'; 100]].concat();
        let wrong: &[&[u8]] = &[
            b"GET / HTTP/1.1\r\n",
            b"\x16\x03\x01",
            b"PROXY TCP4 192.0.2.1 192.0.2.9 56324\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.9 56324 443 1\r\n",
            b"PROXY TCP4 192.0.2.1  192.0.2.9 56324 443\r\n",
            b"PROXY TCP4 2001:db8::1 2001:db8::9 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.9 056324 443\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.9 +1 443\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.9 65536 443\r\n",
            b"PROXY TCP5 192.0.2.1 192.0.2.9 1 443\r\n",
            b"PROXY \xff\xff\r\n",
            b"PROXY \r\n",
            &long_v1,
            &v2_header(2, 0x11, &[0; 12]),
            &v2_header(1, 0x11, &[0; 11]),
            &v2_header(1, 0x21, &[0; 35]),
            &v2_header(1, 0x41, &[0; 36]),
            &v2_header(1, 0x11, &[0; 521]),
            &[&V2[..], &[0x11, 0x11, 0, 12]].concat(),
        ];
        for bytes in wrong {
            assert_eq!(read(bytes), Read::Garbage, "{bytes:?}");
        }
    }

    fn beginning() -> impl Strategy<Value = Vec<u8>> {
        let signatures = prop_oneof![
            Just(Vec::new()),
            Just(V1.to_vec()),
            Just(b"PROXY TCP4 1.2.3.4 5.6.7.8 ".to_vec()),
            Just(V2.to_vec()),
            Just([&V2[..], &[0x21, 0x11, 0, 12]].concat()),
            Just([&V2[..], &[0x21, 0x21, 0, 40]].concat()),
        ];
        (signatures, prop::collection::vec(any::<u8>(), 0..700)).prop_map(|(a, b)| [a, b].concat())
    }

    proptest! {
        /// Nothing panics, and no header is longer than its bound, or than the bytes that arrived.
        #[test]
        fn garbage_is_bounded(bytes in beginning()) {
            match read(&bytes) {
                Read::Part => prop_assert!(bytes.len() < HEADER_LEN_MAX),
                Read::Whole { len, .. } => prop_assert!(len <= bytes.len().min(HEADER_LEN_MAX)),
                Read::Garbage => {}
            }
        }

        /// Once decided, the outcome stays the same when more bytes arrive.
        #[test]
        fn more_bytes_change_nothing(bytes in beginning(), at in 0_usize..700) {
            let first = read(&bytes[..at.min(bytes.len())]);
            prop_assert!(first == Read::Part || first == read(&bytes));
        }

        #[test]
        fn what_proxies_write_is_read(source in any::<SocketAddr>(), to in any::<SocketAddr>(), tlv in prop::collection::vec(any::<u8>(), 0..480)) {
            let (family, code) = if source.is_ipv4() { ("TCP4", 0x11) } else { ("TCP6", 0x21) };
            let to = if source.is_ipv4() == to.is_ipv4() { to.ip() } else { source.ip() };
            let plain = SocketAddr::new(source.ip(), source.port());
            let line = format!("PROXY {family} {} {to} {} {}\r\n", source.ip(), source.port(), 443);
            prop_assert_eq!(read(line.as_bytes()), Read::Whole { len: line.len(), source: Some(plain) });
            let octets = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            let addresses = [octets(source.ip()), octets(to), source.port().to_be_bytes().to_vec(), vec![1, 187], tlv].concat();
            let header = v2_header(1, code, &addresses);
            prop_assert_eq!(read(&header), Read::Whole { len: header.len(), source: Some(plain) });
        }
    }
}
