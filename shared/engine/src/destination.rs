//! Where a URL leads to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Host and port of an absolute URL of `http` or `https` (RFC 3986, section 3.2).
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    host: &'a str,
    port: u16,
}

impl<'a> Destination<'a> {
    /// Where a URL leads to; `None` where it is no such URL.
    #[must_use]
    pub fn of(url: &'a str) -> Option<Self> {
        let (rest, port_of_scheme) = match url.strip_prefix("https://") {
            Some(rest) => (rest, 443),
            None => (url.strip_prefix("http://")?, 80),
        };
        let authority = rest.split(['/', '?', '#']).next()?;
        let authority = authority.rsplit_once('@').map_or(authority, |(_, authority)| authority);
        // An IPv6 address stands in brackets, with colons of its own.
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, port)) => (address, port.strip_prefix(':').unwrap_or(port)),
            None => authority.split_once(':').unwrap_or((authority, "")),
        };
        let port = if port.is_empty() { port_of_scheme } else { port.parse().ok()? };
        Some(Self { host: host.trim_end_matches('.'), port })
    }

    /// The host, an IPv6 address without its brackets.
    #[must_use]
    pub fn host(self) -> &'a str {
        self.host
    }

    /// Whether both lead to one place, as far as their texts tell: every spelling of this very machine is one (RFC 6761, section
    /// 6.3). What a name stands for nobody knows who does not look it up.
    #[must_use]
    pub fn is_same(self, other: Destination<'_>) -> bool {
        let same_address = || self.address().is_some_and(|address| Some(address) == other.address());
        self.port == other.port
            && (self.host.eq_ignore_ascii_case(other.host)
                || same_address()
                || (self.is_here() && other.is_here()))
    }

    /// Whether it leads where a machine is told of itself alone: to link-local addresses (RFC 3927; RFC 4291, section 2.5.6),
    /// the metadata services of clouds, and what is no host's address. An IPv6 address is also judged by the IPv4 ones that it
    /// stands for.
    #[must_use]
    pub fn is_for_machines(self) -> bool {
        const NAMES: [&str; 5] = [
            "instance-data",
            "instance-data.ec2.internal",
            "metadata",
            "metadata.goog",
            "metadata.google.internal",
        ];
        let Some(address) = self.address() else {
            return NAMES.iter().any(|name| self.host.eq_ignore_ascii_case(name));
        };
        let inside = match address {
            IpAddr::V4(_) => Vec::new(),
            IpAddr::V6(address) => addresses_inside(address),
        };
        is_of_machines(address) || inside.into_iter().any(|address| is_of_machines(address.into()))
    }

    /// Whether the host is a number in a form that only some read as an address: `127.1`, `0x7f000001` (URL standard, section
    /// 3.5, "ends in a number").
    #[must_use]
    pub fn is_odd_number(self) -> bool {
        let last = self.host.rsplit('.').next().unwrap_or_default();
        let digits = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
        let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
        let is_number =
            digits || hexadecimal.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
        is_number && self.address().is_none()
    }

    fn address(self) -> Option<IpAddr> {
        self.host.parse().ok().map(|address: IpAddr| address.to_canonical())
    }

    fn is_here(self) -> bool {
        let is_name =
            || self.host.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"));
        self.address().map_or_else(is_name, |address| address.is_loopback() || address.is_unspecified())
    }
}

/// Whether a machine is told of itself alone at an address, or it is no host's.
fn is_of_machines(address: IpAddr) -> bool {
    const SERVICES: [IpAddr; 4] = [
        IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
        IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
        IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    ];
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    is_link_local || address.is_unspecified() || address.is_multicast() || SERVICES.contains(&address)
}

/// The IPv4 addresses that an IPv6 one may be translated to or go through on its way: IPv4-compatible ones (RFC 4291, section
/// 2.5.5.1), `64:ff9b::/96` (RFC 6052, section 2.1), all that one of `64:ff9b:1::/48` may be, as its network alone knows how long
/// its prefix is (RFC 8215, section 3; RFC 6052, section 2.2), 6to4 (RFC 3056, section 2), and server and client of Teredo
/// (RFC 4380, section 4).
fn addresses_inside(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let bits = address.to_bits();
    let last = Ipv4Addr::from_bits(bits as u32);
    match address.segments() {
        [0, 0, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => vec![last],
        [0x64, 0xff9b, 1, ..] => {
            // The octet behind the first 64 bits is no part of an address.
            let without_octet = (bits >> 64 << 56) | (bits & ((1 << 56) - 1));
            let behind = |prefix: u32| Ipv4Addr::from_bits((without_octet >> (88 - prefix)) as u32);
            let all = [behind(48), behind(56), behind(64), last];
            // What is read at a wrong place is zeros in most cases, which lead nowhere.
            all.into_iter().filter(|address| !matches!(address.octets(), [0, ..])).collect()
        }
        [0x2002, ..] => vec![Ipv4Addr::from_bits((bits >> 80) as u32)],
        [0x2001, 0, ..] => {
            vec![Ipv4Addr::from_bits((bits >> 64) as u32), Ipv4Addr::from_bits(!(bits as u32))]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_urls_lead_to_one_place_however_they_are_spelled() {
        let check = |a: &str, b: &str, expect: bool| {
            let (one, other) = (Destination::of(a).unwrap(), Destination::of(b).unwrap());
            assert_eq!((one.is_same(other), other.is_same(one)), (expect, expect), "{a} {b}");
        };
        check("https://a.example", "https://A.example:443/x?y#z", true);
        check("https://a.example.", "https://user@a.example", true);
        check("http://a.example", "https://a.example", false);
        check("http://a.example:443", "https://a.example", true);
        check("https://a.example", "https://b.example", false);
        for here in [
            "127.0.0.1",
            "127.9.9.9",
            "localhost",
            "shop.localhost",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "0.0.0.0",
        ] {
            check(&format!("http://{here}:17101"), "http://127.0.0.1:17101", true);
            check(&format!("http://{here}:17102"), "http://127.0.0.1:17101", false);
        }
        check("http://[2001:db8::1]", "http://[2001:db8:0:0::1]", true);
        check("http://[::ffff:192.0.2.1]", "http://192.0.2.1", true);
        check("http://192.0.2.1", "http://192.0.2.2", false);
        for odd in ["", "a.example", "ftp://a.example", "http://a:b", "http://a:65536"] {
            assert!(Destination::of(odd).is_none(), "{odd}");
        }
    }

    #[test]
    fn what_machines_are_told_of_themselves_is_known() {
        let check = |host: &str, machines: bool, odd: bool| {
            let url = format!("http://{host}/latest");
            let to = Destination::of(&url).unwrap();
            assert_eq!((to.is_for_machines(), to.is_odd_number()), (machines, odd), "{host}");
        };
        for host in [
            "169.254.169.254",
            "[fe80::1]:80",
            "[::ffff:169.254.169.254]",
            "metadata.google.internal.",
            "100.100.100.200",
            "[fd00:ec2::254]",
            "0.0.0.0",
            "224.0.0.1",
            "[::169.254.169.254]",
            "[64:ff9b::169.254.169.254]",
            "[64:ff9b::6464:64c8]",
            "[64:ff9b:1::169.254.169.254]",
            "[64:ff9b:1:a9fe:a9:fe00::]",
            "[64:ff9b:1:7a9:fe:a9fe::]",
            "[64:ff9b:1:7:a9:fea9:fe00:0]",
            "[64:ff9b:1:7:8:9:a9fe:a9fe]",
            "[2002:a9fe:a9fe::1]",
            "[2001:0:a9fe:a9fe::1]",
            "[2001:0:808:808:0:0:5601:5601]",
        ] {
            check(host, true, false);
        }
        for host in ["127.1", "0x7f000001", "2130706433", "0177.0.0.1", "1.2.3.4.5", "a.0x1"] {
            check(host, false, true);
        }
        for host in [
            "127.0.0.1",
            "10.0.0.1",
            "a.example",
            "1a.example",
            "metadata.example",
            "7.shop",
            "[::1]",
            "[fd00::1]",
            "[2001:db8::a9fe:a9fe]",
            "[64:ff9b::8.8.8.8]",
            "[64:ff9b:1::8.8.8.8]",
            "[64:ff9b:1:808:8:800::]",
            "[2002:808:808::1]",
            "[2001:0:808:808:0:0:f7f7:f7f7]",
        ] {
            check(host, false, false);
        }
    }
}
