//! Bodies while they arrive: within limits of size and time, and so that nobody who is slow keeps others out.
//!
//! Nothing is known of a sender before its body is there, since the signature is over the body. So a place for reading is
//! never refused: when there is none left, the one that has been reading longest gives its place up, first among those of
//! the same address, else among those of the address that holds the most. A true sender's body is there within a moment;
//! whoever trickles loses the place that it holds. Memory is bounded the same way, by the bytes that all hold together.
//!
//! Not here: rates, which are counted after the proof ([`super::limits`]).

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Mutex,
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::StatusCode,
};
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::No;
use crate::refusal::Refusal;

/// Time for a request's body to arrive.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// How much may arrive at a time.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// Bodies of all senders; below the number of connections, so that others still get through.
    pub all: usize,
    /// Of one trigger.
    pub trigger: usize,
    /// Of one address.
    pub peer: usize,
    /// Bytes of all that is not there in full.
    pub bytes: u64,
}

impl Default for Places {
    fn default() -> Self {
        Self { all: 256, trigger: 64, peer: 32, bytes: 256 << 20 }
    }
}

/// The bodies that are arriving.
#[derive(Debug, Default)]
pub struct Arrivals {
    places: Places,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    /// By number: the lowest has been here longest.
    bodies: BTreeMap<u64, Arriving>,
}

#[derive(Debug)]
struct Arriving {
    trigger: String,
    peer: IpAddr,
    bytes: u64,
    gives_way: CancellationToken,
}

/// One body's place, held until it is dropped.
#[derive(Debug)]
pub struct Place<'a> {
    arrivals: &'a Arrivals,
    number: u64,
    gives_way: CancellationToken,
}

impl Arrivals {
    /// With other limits.
    #[cfg(test)]
    fn within(places: Places) -> Self {
        Self { places, open: Mutex::default() }
    }

    /// A place for one more body; somebody else's if there is none left.
    pub fn begin(&self, trigger: &str, peer: IpAddr) -> Place<'_> {
        let peer = network(peer);
        let mut open = self.open.lock().expect("no holder of this lock panics");
        open.make_way(self.places.peer, |body| body.peer == peer);
        open.make_way(self.places.trigger, |body| body.trigger == trigger);
        open.make_way(self.places.all, |_| true);
        let number = open.next;
        open.next += 1;
        let gives_way = CancellationToken::new();
        let trigger = trigger.to_owned();
        open.bodies.insert(number, Arriving { trigger, peer, bytes: 0, gives_way: gives_way.clone() });
        Place { arrivals: self, number, gives_way }
    }
}

impl Open {
    /// Lets the slowest go while there are too many to take one more.
    fn make_way(&mut self, most: usize, counts: impl Fn(&Arriving) -> bool) {
        while self.bodies.values().filter(|body| counts(body)).count() >= most.max(1) {
            let mut held: HashMap<IpAddr, u64> = HashMap::new();
            for body in self.bodies.values().filter(|body| counts(body)) {
                *held.entry(body.peer).or_default() += 1;
            }
            let Some(number) = self.oldest_of_most(&held, &counts) else { return };
            self.let_go(number);
        }
    }

    /// The body that has been arriving longest, of the address that holds the most.
    fn oldest_of_most(&self, held: &HashMap<IpAddr, u64>, counts: impl Fn(&Arriving) -> bool) -> Option<u64> {
        let most = held.values().max()?;
        let of_most = |body: &Arriving| counts(body) && held.get(&body.peer) == Some(most);
        self.bodies.iter().find(|(_, body)| of_most(body)).map(|(number, _)| *number)
    }

    fn let_go(&mut self, number: u64) {
        if let Some(body) = self.bodies.remove(&number) {
            body.gives_way.cancel();
        }
    }
}

impl Place<'_> {
    /// More of this body is here. Whoever holds the most gives way when that is more than fits.
    fn grow(&self, bytes: u64) {
        let mut open = self.arrivals.open.lock().expect("no holder of this lock panics");
        if let Some(body) = open.bodies.get_mut(&self.number) {
            body.bytes += bytes;
        }
        while open.bodies.values().map(|body| body.bytes).sum::<u64>() > self.arrivals.places.bytes {
            let mut held: HashMap<IpAddr, u64> = HashMap::new();
            for body in open.bodies.values() {
                *held.entry(body.peer).or_default() += body.bytes;
            }
            let Some(number) = open.oldest_of_most(&held, |body| body.bytes > 0) else { return };
            open.let_go(number);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.arrivals.open.lock().expect("no holder of this lock panics").bodies.remove(&self.number);
    }
}

/// Whoever has one address of IPv6 has all that share its first half.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
    }
}

/// The raw bytes, within their limits of size and time.
pub(super) async fn read(
    place: Option<&Place<'_>>,
    body: Body,
    length: Option<u64>,
    max_bytes: u64,
    limit: Duration,
) -> Result<Bytes, No> {
    let too_large = || {
        let detail = format!("the body is larger than {max_bytes} bytes, the limit here");
        No::new("body_too_large", Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail))
    };
    if length.is_some_and(|n| n > max_bytes) {
        return Err(too_large());
    }
    let reading = async {
        let mut bytes = Vec::new();
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| {
                No::new("body_unreadable", Refusal::invalid("body_unreadable", "the body ended before its end"))
            })?;
            if (bytes.len() + chunk.len()) as u64 > max_bytes {
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
            if let Some(place) = place {
                place.grow(chunk.len() as u64);
            }
        }
        Ok(Bytes::from(bytes))
    };
    let gives_way = async {
        match place {
            Some(place) => place.gives_way.cancelled().await,
            None => std::future::pending().await,
        }
    };
    let slow = |detail: String| No::new("body_slow", Refusal::new(StatusCode::REQUEST_TIMEOUT, "body_slow", detail));
    tokio::select! {
        // What is there in full is taken, whoever wants its place.
        biased;
        read = tokio::time::timeout(limit, reading) => match read {
            Ok(read) => read,
            Err(_) => Err(slow(format!("the body did not arrive within {} s", limit.as_secs_f64()))),
        },
        () = gives_way => {
            Err(slow("others were waiting, and this body took longest to arrive; send it again".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn small() -> Arrivals {
        Arrivals::within(Places { all: 4, trigger: 3, peer: 2, bytes: 100 })
    }

    async fn answer(
        place: Option<&Place<'_>>,
        body: Body,
        length: Option<u64>,
        max_bytes: u64,
    ) -> Result<Bytes, (&'static str, u16)> {
        let limit = Duration::from_millis(50);
        read(place, body, length, max_bytes, limit).await.map_err(|no| (no.counted, no.response.status().as_u16()))
    }

    /// A body of which nothing more ever comes.
    fn endless(begin: &'static str) -> Body {
        let begun = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(begin))]);
        Body::from_stream(begun.chain(futures::stream::pending()))
    }

    #[tokio::test]
    async fn a_body_is_cut_off_at_its_limit_whatever_it_announces() {
        let read = |text: &'static str, length, limit| answer(None, Body::from(text), length, limit);
        assert_eq!(read("12345", Some(5), 5).await, Ok(Bytes::from("12345")));
        assert_eq!(read("12345", None, 4).await, Err(("body_too_large", 413)));
        assert_eq!(read("12345", Some(1), 4).await, Err(("body_too_large", 413)));
        assert_eq!(read("", Some(6), 5).await, Err(("body_too_large", 413)));
    }

    #[tokio::test]
    async fn a_body_that_does_not_arrive_in_time_is_given_up() {
        assert_eq!(answer(None, endless("1"), Some(5), 5).await, Err(("body_slow", 408)));
    }

    #[tokio::test]
    async fn a_newcomer_takes_the_place_of_the_slowest_of_its_address_first() {
        let arrivals = small();
        let (stranger, sender) = (address("192.0.2.1"), address("192.0.2.2"));
        let places = [arrivals.begin("t", stranger), arrivals.begin("t", sender), arrivals.begin("u", stranger)];
        let third = arrivals.begin("t", stranger);
        let given_up: Vec<bool> = places.iter().map(|p| p.gives_way.is_cancelled()).collect();
        assert_eq!(given_up, [true, false, false]);
        assert_eq!(answer(Some(&places[0]), endless("1"), None, 5).await, Err(("body_slow", 408)));
        assert_eq!(answer(Some(&third), Body::from("1"), None, 5).await, Ok(Bytes::from("1")));
    }

    #[test]
    fn who_holds_the_most_gives_way_and_not_who_came_first() {
        let arrivals = small();
        let first = arrivals.begin("a", address("192.0.2.9"));
        let many = [arrivals.begin("b", address("2001:db8::1")), arrivals.begin("c", address("2001:db8::2"))];
        let last = arrivals.begin("d", address("192.0.2.7"));
        let newcomer = arrivals.begin("e", address("192.0.2.8"));
        assert!(many[0].gives_way.is_cancelled(), "both are of one network, and it is the older one");
        assert!(![&first, &many[1], &last, &newcomer].iter().any(|p| p.gives_way.is_cancelled()));
        // Places are given back.
        drop((first, many, last, newcomer));
        assert!(arrivals.open.lock().expect("no holder panics").bodies.is_empty());
    }

    #[test]
    fn bytes_that_are_not_there_in_full_are_bounded() {
        let arrivals = small();
        let (hog, sender) = (arrivals.begin("a", address("192.0.2.1")), arrivals.begin("b", address("192.0.2.2")));
        hog.grow(70);
        sender.grow(20);
        assert!(!hog.gives_way.is_cancelled());
        sender.grow(20);
        assert!(hog.gives_way.is_cancelled() && !sender.gives_way.is_cancelled());
    }
}
