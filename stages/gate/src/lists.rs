//! Asks the DNS lists: all at once, within one deadline. A list that does not answer counts as unknown.

use std::net::IpAddr;
use std::time::Duration;

use futures::future::join_all;
use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::{RData, RecordType};

use crate::config::List;
use crate::decide::{Heard, query_name};

/// What each list says about a client.
pub(crate) async fn ask<'a>(
    resolver: &TokioResolver,
    lists: &'a [List],
    client: IpAddr,
    deadline: Duration,
) -> Vec<(&'a List, Heard)> {
    join_all(lists.iter().map(|list| async move {
        let heard = tokio::time::timeout(deadline, ask_one(resolver, list, client)).await;
        (list, heard.unwrap_or(Heard::Nothing))
    }))
    .await
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
