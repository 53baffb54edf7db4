//! Asks the DNS lists: all at once, within one deadline. A list that does not answer counts as unknown; one that goes
//! on like that is left alone for a while, so that no client waits for it.

use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::join_all;
use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::{RData, RecordType};
use runtime::breaker::{Advice, Breaker};
use runtime::{dns, telemetry};
use tokio::time::{Instant, timeout_at};

use crate::config::{Config, List};
use crate::decide::{Heard, query_name};

/// The lists of the configuration, and which of them answer.
pub(crate) struct Lists {
    resolver: TokioResolver,
    /// Finds out whether a list is there again.
    prober: TokioResolver,
    deadline: Duration,
    all: Vec<(List, Breaker)>,
}

impl Lists {
    /// The lists, of which nothing is known yet.
    ///
    /// # Errors
    /// When the resolver cannot be set up.
    pub(crate) fn new(config: &Config) -> anyhow::Result<Self> {
        let (address, deadline) = (config.resolver, config.deadline);
        let (resolver, prober) = (dns::resolver(address, deadline)?, dns::forgetful(address, deadline)?);
        let all = config.lists.iter().map(|list| (list.clone(), Breaker::new(config.silence))).collect();
        Ok(Self { resolver, prober, deadline, all })
    }

    /// What each list says about a client.
    pub(crate) async fn ask(&self, client: IpAddr) -> Vec<(&List, Heard)> {
        let ask = async |(list, breaker)| (list, self.ask_one(list, breaker, client).await);
        join_all(self.all.iter().map(|(list, breaker)| ask((list, breaker)))).await
    }

    async fn ask_one(&self, list: &List, breaker: &Breaker, client: IpAddr) -> Heard {
        let resolver = match breaker.advice() {
            Advice::Ask => &self.resolver,
            Advice::Try => &self.prober,
            Advice::Leave => return Heard::Nothing,
        };
        let (asked, name) = (Instant::now(), query_name(client, &list.zone));
        let end = asked + self.deadline;
        let mut answer = pin!(addresses(resolver, &name));
        // What is there before anybody was asked is remembered: it does not tell whether the list is there now.
        let (answer, is_remembered) = match answer.as_mut().now_or_never() {
            Some(answer) => (Ok(answer), true),
            None => (timeout_at(end, answer).await, false),
        };
        let is_there = match &answer {
            Ok(Ok(_)) => Some(true),
            // With an error the name server answers for a list that does not; what fails here tells nothing of either.
            Ok(Err(error)) => (matches!(error, NetError::Dns(_)) || dns::is_silence(error)).then_some(false),
            Err(_) => Some(false),
        };
        if let (Some(is_there), false) = (is_there, is_remembered) {
            note(&list.zone, breaker, asked, is_there);
        }
        match answer {
            Ok(Ok(none)) if none.is_empty() => Heard::NotListed,
            // It is listed, even if the list's words come too late.
            Ok(Ok(found)) => {
                Heard::Listed(found, timeout_at(end, text(&self.resolver, &name)).await.unwrap_or_default())
            }
            Ok(Err(error)) => {
                tracing::debug!(list.zone, %error, "a list did not answer");
                Heard::Nothing
            }
            Err(_) => Heard::Nothing,
        }
    }
}

fn note(zone: &str, breaker: &Breaker, asked: Instant, is_there: bool) {
    if is_there && breaker.answered() {
        telemetry::dns_silent(zone, false);
        tracing::info!(zone, "the list answers again");
    } else if !is_there && breaker.silent(asked) {
        telemetry::dns_silent(zone, true);
        tracing::warn!(zone, "the list is silent; clients come in unlisted by it");
    }
}

/// The addresses that stand for the listings of a client; none when it is not listed.
async fn addresses(resolver: &TokioResolver, name: &str) -> Result<Vec<Ipv4Addr>, NetError> {
    let found = match resolver.lookup(name, RecordType::A).await {
        Err(error) if error.is_no_records_found() || error.is_nx_domain() => return Ok(Vec::new()),
        found => found?,
    };
    let addresses = found.answers().iter().filter_map(|record| match &record.data {
        RData::A(a) => Some(a.0),
        _ => None,
    });
    Ok(addresses.collect())
}

/// The list's explanation; empty when it has none.
async fn text(resolver: &TokioResolver, name: &str) -> String {
    let Ok(found) = resolver.lookup(name, RecordType::TXT).await else { return String::new() };
    let texts = found.answers().iter().filter_map(|record| match &record.data {
        RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
        _ => None,
    });
    texts.take(1).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::Cell;
    use std::rc::Rc;

    use runtime::config::Section;
    use serde_json::json;
    use tokio::net::UdpSocket;

    use super::*;

    /// Lists of a name server that listens here, or of this one.
    async fn lists(resolver: Option<&str>, zones: &[&str], silent_for: &str) -> (UdpSocket, Lists) {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let here = server.local_addr().unwrap().to_string();
        let zones: Vec<_> = zones.iter().map(|zone| json!({"zone": zone})).collect();
        let settings = json!({
            "resolver": resolver.unwrap_or(&here), "deadline": "300ms", "silent_after": 2, "silent_for": silent_for,
            "lists": zones,
        });
        (server, Lists::new(&Config::read(Section::root(settings, Rc::default()))).unwrap())
    }

    /// Answers what `answer` makes of a question, if it makes something of it.
    async fn serve(server: &UdpSocket, answer: impl Fn(&[u8]) -> Option<Vec<u8>>) {
        let mut message = [0; 512];
        loop {
            let (length, from) = server.recv_from(&mut message).await.unwrap();
            if let Some(answer) = answer(&message[..length]) {
                server.send_to(&answer, from).await.unwrap();
            }
        }
    }

    fn no(question: &[u8]) -> Option<Vec<u8>> {
        let mut message = question.to_vec();
        (message[2], message[3]) = (message[2] | 0x80, 0x83);
        Some(message)
    }

    /// That it is listed; nothing is said of the text.
    fn listed(question: &[u8]) -> Option<Vec<u8>> {
        let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
        let mut message = question[..end].to_vec();
        let is_address = message[end - 4..end - 2] == [0, 1];
        // A response with one answer, and nothing after it (RFC 1035 section 4.1).
        message[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4, 127, 0, 0, 2]);
        is_address.then_some(message)
    }

    async fn ask(lists: &Lists, number: u8) -> Vec<Heard> {
        lists.ask([192, 0, 2, number].into()).await.into_iter().map(|(_, said)| said).collect()
    }

    /// Each client waited for all of the deadline, as long as one list was away.
    #[tokio::test]
    async fn a_silent_list_is_left_alone() {
        let (server, lists) = lists(None, &["away.example", "there.example"], "10s").await;
        let asked = Cell::new(0);
        // Nobody is on one list, and of the other nothing is heard.
        let served = serve(&server, |question| {
            asked.set(asked.get() + 1);
            if question.windows(4).any(|label| label == b"away") { None } else { no(question) }
        });
        let clients = async {
            for number in 1..=10 {
                let before = asked.get();
                assert_eq!(ask(&lists, number).await, [Heard::Nothing, Heard::NotListed]);
                assert!(number <= 2 || asked.get() == before + 1, "{number}");
            }
        };
        tokio::select! {
            () = served => {}
            () = clients => {}
        }
    }

    /// Who came again was answered from memory, and the list was taken to be there: all others waited, for ever.
    #[tokio::test]
    async fn what_is_remembered_does_not_say_that_a_list_is_there() {
        let (server, lists) = lists(None, &["bl.example"], "200ms").await;
        let (asked, is_away) = (Cell::new(0), Cell::new(false));
        let served = serve(&server, |question| {
            asked.set(asked.get() + 1);
            if is_away.get() { None } else { no(question) }
        });
        let clients = async {
            assert_eq!(ask(&lists, 99).await, [Heard::NotListed]);
            is_away.set(true);
            assert_eq!(ask(&lists, 1).await, [Heard::Nothing]);
            assert_eq!(ask(&lists, 99).await, [Heard::NotListed], "it is remembered");
            assert_eq!(ask(&lists, 2).await, [Heard::Nothing]);
            let before = asked.get();
            // It is left alone, and when the time has come it is really asked.
            while asked.get() == before {
                assert_eq!(ask(&lists, 99).await, [Heard::Nothing]);
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = served => {}
            () = clients => {}
        }
    }

    /// Its text was waited for together with its answer, and a listed client came in when that was late.
    #[tokio::test]
    async fn who_is_listed_is_so_without_the_text() {
        let (server, lists) = lists(None, &["bl.example"], "10s").await;
        let clients = async {
            for number in 1..=4 {
                let want = Heard::Listed(vec![[127, 0, 0, 2].into()], String::new());
                assert_eq!(ask(&lists, number).await, [want], "{number}");
            }
        };
        tokio::select! {
            () = serve(&server, listed) => {}
            () = clients => {}
        }
    }

    /// Without descriptors no list could be asked, and all were taken for silent. Here nothing can be sent.
    #[tokio::test]
    async fn what_fails_in_this_process_is_no_silence() {
        let (_server, lists) = lists(Some("127.0.0.1:0"), &["bl.example"], "10s").await;
        for number in 1..=5 {
            assert_eq!(ask(&lists, number).await, [Heard::Nothing]);
        }
        assert_eq!(lists.all[0].1.advice(), Advice::Ask);
    }
}
