//! Asks the DNS lists: all at once, within one deadline. A list that does not answer counts as unknown; one that goes on like
//! that is left alone for a while, so that no client waits for it.

use std::net::IpAddr;
use std::time::Duration;

use futures::future::join_all;
use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::{RData, RecordType};
use runtime::breaker::{Advice, Breaker};
use runtime::{dns, telemetry};

use crate::config::{Config, List};
use crate::decide::{Heard, query_name};

/// The lists of the configuration, and which of them answer.
pub(crate) struct Lists {
    resolver: TokioResolver,
    deadline: Duration,
    all: Vec<(List, Breaker)>,
}

impl Lists {
    /// The lists, of which nothing is known yet.
    ///
    /// # Errors
    /// When the resolver cannot be set up.
    pub(crate) fn new(config: &Config) -> anyhow::Result<Self> {
        let resolver = dns::resolver(config.resolver, config.deadline)?;
        let all = config.lists.iter().map(|list| (list.clone(), Breaker::new(config.silence))).collect();
        Ok(Self { resolver, deadline: config.deadline, all })
    }

    /// What each list says about a client.
    pub(crate) async fn ask(&self, client: IpAddr) -> Vec<(&List, Heard)> {
        join_all(self.all.iter().map(|(list, breaker)| async move {
            if breaker.advice() == Advice::Leave {
                return (list, Heard::Nothing);
            }
            let heard = tokio::time::timeout(self.deadline, ask_one(&self.resolver, list, client)).await;
            let heard = heard.unwrap_or(Heard::Nothing);
            note(&list.zone, breaker, &heard);
            (list, heard)
        }))
        .await
    }
}

fn note(zone: &str, breaker: &Breaker, heard: &Heard) {
    if *heard == Heard::Nothing {
        if breaker.silent() {
            telemetry::dns_silent(zone, true);
            tracing::warn!(zone, "the list is silent; clients come in unlisted by it");
        }
    } else if breaker.answered() {
        telemetry::dns_silent(zone, false);
        tracing::info!(zone, "the list answers again");
    }
}

async fn ask_one(resolver: &TokioResolver, list: &List, client: IpAddr) -> Heard {
    let name = query_name(client, &list.zone);
    let answers = match resolver.lookup(name.clone(), RecordType::A).await {
        Ok(found) => found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::A(a) => Some(a.0),
                _ => None,
            })
            .collect::<Vec<_>>(),
        Err(error) if error.is_no_records_found() || error.is_nx_domain() => return Heard::NotListed,
        Err(error) => {
            tracing::debug!(zone = list.zone, %error, "a list did not answer");
            return Heard::Nothing;
        }
    };
    if answers.is_empty() {
        return Heard::NotListed;
    }
    Heard::Listed(answers, text(resolver, name).await)
}

/// The list's explanation; empty when it has none.
async fn text(resolver: &TokioResolver, name: String) -> String {
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

    /// Each client waited for all of the deadline, as long as one list was away.
    #[tokio::test]
    async fn a_silent_list_is_left_alone() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let settings = json!({
            "resolver": server.local_addr().unwrap().to_string(), "deadline": "300ms", "silent_after": 2,
            "lists": [{"zone": "away.example"}, {"zone": "there.example"}],
        });
        let lists = Lists::new(&Config::read(Section::root(settings, Rc::default()))).unwrap();
        let asked = Cell::new(0);
        // Nobody is on one list, and of the other nothing is heard.
        let served = async {
            let mut message = [0; 512];
            loop {
                let (length, from) = server.recv_from(&mut message).await.unwrap();
                asked.set(asked.get() + 1);
                if !message[..length].windows(4).any(|label| label == b"away") {
                    (message[2], message[3]) = (message[2] | 0x80, 0x83);
                    server.send_to(&message[..length], from).await.unwrap();
                }
            }
        };
        let clients = async {
            for number in 1..=10 {
                let before = asked.get();
                let heard: Vec<_> =
                    lists.ask([192, 0, 2, number].into()).await.into_iter().map(|(_, said)| said).collect();
                assert_eq!(heard, [Heard::Nothing, Heard::NotListed]);
                assert!(number <= 2 || asked.get() == before + 1, "{number}");
            }
        };
        tokio::select! {
            () = served => {}
            () = clients => {}
        }
    }
}
