//! What kind of place an address is: public, or one of the kinds that only a setting opens.
//!
//! Pure arithmetic over the special-purpose registries of IANA (RFC 6890 and its updates). An IPv6 form that carries an
//! IPv4 address inside (mapped, 6to4, NAT64) is what that address is, since that is where its packets go. What is not
//! known to be public is not public. Who may go there nevertheless is decided in [`crate::policy`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Somewhere on the Internet.
    Public,
    /// This machine.
    Loopback,
    /// A private network (RFC 1918, unique local and site-local IPv6).
    Private,
    /// The same link only.
    LinkLocal,
    /// Behind a provider's address translation (100.64.0.0/10).
    SharedSpace,
    /// Where clouds hand credentials to whoever asks from inside.
    Metadata,
    /// To many at once, the broadcast address included.
    Multicast,
    /// `0.0.0.0` and `::`, which most systems take for this machine.
    Unspecified,
    /// Set aside: for documentation, for tests, for transitions, or for the future.
    Reserved,
}

impl Class {
    /// In words, for messages.
    pub fn words(self) -> &'static str {
        match self {
            Self::Public => "a public address",
            Self::Loopback => "an address of this machine",
            Self::Private => "an address of a private network",
            Self::LinkLocal => "a link-local address",
            Self::SharedSpace => "an address of a provider's shared space",
            Self::Metadata => "the metadata service of a cloud",
            Self::Multicast => "a multicast or broadcast address",
            Self::Unspecified => "the unspecified address",
            Self::Reserved => "a reserved address",
        }
    }
}

/// The metadata services that are not at a link-local address only by being link-local: AWS, Google, Azure and most
/// others share the first; AWS's over IPv6; Alibaba's; Azure's wire server, which is in public space; Oracle's.
const METADATA_V4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];
/// AWS's tasks get theirs from here.
const METADATA_V4_TASKS: Ipv4Addr = Ipv4Addr::new(169, 254, 170, 2);
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254),
    // Google's.
    Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254),
];

/// What `address` is.
pub fn classify(address: IpAddr) -> Class {
    match address {
        IpAddr::V4(v4) => classify_v4(v4),
        IpAddr::V6(v6) => classify_v6(v6),
    }
}

/// The IPv4 address that an IPv6 address leads to, if it is of a form that carries one.
pub fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = address.segments();
    let pair = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match s {
        // Mapped, translated (RFC 2765), and the well-known NAT64 prefix (RFC 6052).
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        // 6to4: the relay is in the second and third group.
        | [0x2002, high, low, ..] => Some(pair(high, low)),
        // Compatible (deprecated), except :: and ::1, which are what they are.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 || low > 1 => Some(pair(high, low)),
        _ => None,
    }
}

fn classify_v4(address: Ipv4Addr) -> Class {
    if METADATA_V4.contains(&address) || address == METADATA_V4_TASKS {
        return Class::Metadata;
    }
    match address.octets() {
        [0, 0, 0, 0] => Class::Unspecified,
        [127, ..] => Class::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Class::Private,
        [169, 254, ..] => Class::LinkLocal,
        [100, 64..=127, ..] => Class::SharedSpace,
        [224..=239, ..] | [255, 255, 255, 255] => Class::Multicast,
        // This network; protocol assignments; documentation; 6to4 relays; benchmarks; the future.
        [0 | 240..=255, ..]
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => Class::Reserved,
        _ => Class::Public,
    }
}

fn classify_v6(address: Ipv6Addr) -> Class {
    if METADATA_V6.contains(&address) {
        return Class::Metadata;
    }
    if let Some(inner) = embedded(address) {
        return classify_v4(inner);
    }
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Class::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Class::Loopback,
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Class::Private,
        [0xfe80..=0xfebf, ..] => Class::LinkLocal,
        [0xff00..=0xffff, ..] => Class::Multicast,
        // Protocol assignments, Teredo among them; two ranges for documentation.
        [0x2001, 0x0000..=0x01ff | 0x0db8, ..] | [0x3fff, 0x0000..=0x0fff, ..] => Class::Reserved,
        [0x2000..=0x3fff, ..] => Class::Public,
        // Only 2000::/3 was ever handed out.
        _ => Class::Reserved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, expected: Class) {
        let parsed = address.parse().expect("an address");
        assert_eq!(classify(parsed), expected, "{address}");
    }

    #[test]
    fn ipv4_ranges_have_their_kind_at_both_ends() {
        for (first, last, class) in [
            ("0.0.0.1", "0.255.255.255", Class::Reserved),
            ("10.0.0.0", "10.255.255.255", Class::Private),
            ("100.64.0.0", "100.127.255.255", Class::SharedSpace),
            ("127.0.0.0", "127.255.255.255", Class::Loopback),
            ("169.254.0.0", "169.254.255.255", Class::LinkLocal),
            ("172.16.0.0", "172.31.255.255", Class::Private),
            ("192.0.0.0", "192.0.0.255", Class::Reserved),
            ("192.168.0.0", "192.168.255.255", Class::Private),
            ("198.18.0.0", "198.19.255.255", Class::Reserved),
            ("224.0.0.0", "239.255.255.255", Class::Multicast),
            ("240.0.0.0", "255.255.255.254", Class::Reserved),
        ] {
            check(first, class);
            check(last, class);
        }
        check("0.0.0.0", Class::Unspecified);
        check("255.255.255.255", Class::Multicast);
        for public in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.0",
            "223.255.255.255",
        ] {
            check(public, Class::Public);
        }
    }

    #[test]
    fn metadata_services_are_told_apart() {
        for address in [
            "169.254.169.254",
            "169.254.170.2",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
        ] {
            check(address, Class::Metadata);
        }
    }

    #[test]
    fn ipv6_forms_of_ipv4_are_what_they_carry() {
        for form in ["::ffff:10.0.0.1", "::ffff:0:10.0.0.1", "64:ff9b::10.0.0.1", "2002:a00:1::1", "::10.0.0.1"] {
            check(form, Class::Private);
        }
        check("::ffff:127.0.0.1", Class::Loopback);
        check("2002:7f00:1::", Class::Loopback);
        check("64:ff9b::8.8.8.8", Class::Public);
        check("::ffff:0.0.0.0", Class::Unspecified);
    }

    #[test]
    fn ipv6_ranges_have_their_kind() {
        check("::", Class::Unspecified);
        check("::1", Class::Loopback);
        check("fc00::1", Class::Private);
        check("fdff::1", Class::Private);
        check("fe80::1", Class::LinkLocal);
        check("fec0::1", Class::Private);
        check("ff02::1", Class::Multicast);
        check("2001::1", Class::Reserved);
        check("2001:db8::1", Class::Reserved);
        check("3fff::1", Class::Reserved);
        check("64:ff9b:1::1", Class::Reserved);
        check("100::1", Class::Reserved);
        check("4000::1", Class::Reserved);
        check("2606:4700::1111", Class::Public);
        check("2a00:1450::1", Class::Public);
    }
}
