//! What operators do: several nodes, accounts with limits, dead letters.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use serde_json::json;
use tests::chain::{Chain, Clamd, free_port, wait_for};
use tests::clients::{Smtp, eicar, maildrop};
use tests::load::Load;

fn send(chain: &Chain, to: &[&str], body: &[u8]) -> String {
    Smtp::connect(chain).send("s@elsewhere.example", to, body)
}

/// One mail for accounts on two nodes is one copy on each; held mail goes back to where it belongs.
#[test]
fn accounts_live_on_two_store_nodes() {
    let clamd = Clamd::start();
    let mut chain = Chain::start_all(&clamd);
    let pop3 = free_port();
    chain.start_node(
        "store",
        "node2",
        &[
            ("/stages/store/imap", json!([])),
            ("/stages/store/pop3", json!([format!("127.0.0.1:{pop3}")])),
            ("/stages/store/folder", json!("var/store2")),
        ],
    );
    let add = |store| chain.attempt(&["account", "add", "carol@example.org", "--store", store], "secret of carol\n");
    assert_eq!(add("node7"), None, "mail for a node that is not there would wait unseen");
    wait_for("the node to be known", || {
        add("node2").is_some_and(|said| said == "carol@example.org was made on node2\n")
    });
    let reply = send(&chain, &["alice@example.org", "carol@example.org"], b"Subject: both\r\n\r\nboth\r\n");
    assert!(reply.starts_with("250 "), "{reply}");
    chain.settles();
    assert_eq!(chain.read("alice@example.org").len(), 1);
    assert_eq!(maildrop(pop3, "carol@example.org", "secret of carol").len(), 1);
    clamd.pause();
    assert!(send(&chain, &["carol@example.org"], &eicar()).starts_with("250 "));
    clamd.resume();
    chain.settles();
    chain.books(&[("accepted", 3), ("stored", 2), ("held", 1)]);
    let listed = chain.command(&["held", "list"]);
    let number = listed.split(' ').next().unwrap().to_owned();
    assert!(chain.command(&["held", "show", &number]).contains("carol@example.org"));
    assert_eq!(chain.command(&["held", "release", &number]), "done\n");
    wait_for("the released mail", || maildrop(pop3, "carol@example.org", "secret of carol").len() == 2);
    assert!(chain.read("quarantine@example.org").is_empty());
    // A group with a full mailbox: the others have their copy, and the release brings them no second one.
    let full = ["account", "add", "dave@example.org", "--store", "node2", "--quota", "1KiB"];
    chain.command_with(&full, "secret of dave\n");
    for member in ["alice@example.org", "carol@example.org", "dave@example.org"] {
        chain.command(&["alias", "add", "group@example.org", member]);
    }
    let large = format!("Subject: large\r\n\r\n{}\r\n", "large ".repeat(200));
    assert!(send(&chain, &["group@example.org"], large.as_bytes()).starts_with("250 "));
    chain.settles();
    let listed = chain.command(&["held", "list"]);
    assert!(listed.contains("for dave@example.org") && listed.contains("is full"), "{listed}");
    let number = listed.split(' ').next().unwrap().to_owned();
    assert_eq!(chain.command(&["held", "release", &number]), "done\n");
    wait_for("the released mail", || maildrop(pop3, "dave@example.org", "secret of dave").len() == 1);
    assert_eq!(maildrop(pop3, "carol@example.org", "secret of carol").len(), 3);
    assert_eq!(chain.read("alice@example.org").len(), 2);
    chain.books(&[("accepted", 4), ("stored", 2), ("held", 2)]);
}

#[test]
fn two_accept_nodes_share_the_world() {
    let clamd = Clamd::start();
    let second = free_port();
    let mut chain = Chain::prepare(&clamd, &[]);
    chain.add_accept(second);
    chain.start("all");
    chain.start_node("accept", "node2", &[("/stages/accept/listen", json!([format!("127.0.0.1:{second}")]))]);
    let load = Load::start(&chain, 12);
    for round in 1..6 {
        wait_for("mail", || load.so_far() > 200 * round);
        chain.kill("accept");
        wait_for("more mail while one is away", || load.so_far() > 200 * round + 60);
        chain.start_node("accept", "node2", &[("/stages/accept/listen", json!([format!("127.0.0.1:{second}")]))]);
    }
    load.proves(&chain);
}

#[test]
fn a_full_mailbox_holds_what_does_not_fit() {
    let clamd = Clamd::start();
    let chain = Chain::start_all(&clamd);
    chain.command_with(&["account", "add", "dave@example.org", "--messages", "1"], "secret of dave\n");
    for number in 0..3 {
        let reply = send(&chain, &["dave@example.org"], format!("Subject: {number}\r\n\r\n{number}\r\n").as_bytes());
        assert!(reply.starts_with("250 "), "{reply}");
    }
    chain.settles();
    assert_eq!(maildrop(chain.pop3, "dave@example.org", "secret of dave").len(), 1);
    chain.books(&[("accepted", 3), ("stored", 1), ("held", 2)]);
    assert_eq!(chain.command(&["held", "list"]).lines().count(), 2);
}

/// How many dead letters there are; none when the broker does not say so at the moment.
fn letters(chain: &Chain) -> Option<usize> {
    chain.attempt(&["dead", "list"], "").map(|listed| listed.lines().count())
}

/// clamd goes on, and answers: it has first to work off what it was asked meanwhile, and who waits for it is buried
/// again.
fn resume(clamd: &Clamd) {
    clamd.resume();
    wait_for("clamd to answer", || clamd.knows());
}

/// How many messages a stream has, by the broker's own word; none when it gives none.
fn messages(chain: &Chain, stream: &str) -> Option<u64> {
    let settings = std::fs::read_to_string(chain.folder().join("pipeline.yaml")).unwrap();
    let settings: serde_json::Value = serde_json::from_str(&settings).unwrap();
    let address = settings["broker"]["url"].as_str().unwrap().trim_start_matches("nats://").to_owned();
    let mut broker = std::net::TcpStream::connect(address).unwrap();
    broker.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let asked = format!("CONNECT {{}}\r\nSUB in 1\r\nPUB $JS.API.STREAM.INFO.{stream} in 0\r\n\r\n");
    std::io::Write::write_all(&mut broker, asked.as_bytes()).unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(broker)).map_while(Result::ok);
    let said = lines.find(|line| line.contains("stream_info_response"))?;
    serde_json::from_str::<serde_json::Value>(&said).unwrap()["state"]["messages"].as_u64()
}

#[test]
fn dead_letters_are_replayed_or_dropped() {
    let clamd = Clamd::start();
    let chain = Chain::start_all_with(
        &clamd,
        &[
            ("/stages/scan/deadline", json!("4s")),
            ("/stages/scan/work/warn_after", json!("1s")),
            ("/stages/scan/work/give_up_after", json!("1s")),
            ("/stages/accept/verdict_wait", json!("200ms")),
        ],
    );
    clamd.pause();
    for number in 0..2 {
        let reply = send(&chain, &["alice@example.org"], format!("Subject: {number}\r\n\r\n{number}\r\n").as_bytes());
        assert!(reply.starts_with("250 "), "{reply}");
    }
    wait_for("the burial", || letters(&chain) == Some(2));
    chain.settles();
    chain.books(&[("accepted", 2), ("buried", 2), ("stored", 0)]);
    resume(&clamd);
    // One that cannot be read hides no other.
    chain.publish("mail.dead.odd", "no letter");
    wait_for("the odd letter", || letters(&chain) == Some(3));
    let listed = chain.command(&["dead", "list"]);
    assert!(listed.contains("scan") && listed.contains("3 unreadable"), "{listed}");
    let number = listed.split_whitespace().next().unwrap().to_owned();
    assert!(chain.command(&["dead", "show", &number]).contains("alice@example.org"));
    chain.command(&["dead", "replay", &number]);
    wait_for("the replayed mail", || chain.read("alice@example.org").len() == 1);
    chain.command(&["dead", "drop", "all"]);
    chain.command(&["dead", "drop", "3"]);
    assert_eq!(chain.command(&["dead", "list"]).lines().count(), 0);
    chain.settles();
    wait_for("the bodies of what was dropped to go", || messages(&chain, "BODIES") == Some(0));
    let status = chain.command(&["status", "--json"]);
    assert!(status.contains("\"balanced\":true") || status.contains("\"balanced\": true"), "{status}");
}

/// One letter of two is lost: its mail goes round again by itself, the other waits for its operator.
#[test]
fn a_lost_letter_is_missed_though_others_are_there() {
    let clamd = Clamd::start();
    let settings = [
        ("/stages/scan/deadline", json!("4s")),
        ("/stages/scan/work/give_up_after", json!("1s")),
        ("/stages/accept/verdict_wait", json!("200ms")),
    ];
    let chain = Chain::start_parts_with(&clamd, &settings);
    // Who cannot be scanned within the deadline is buried: so short that a test comes to that, and long for a scan.
    clamd.pause();
    for number in [1, 2] {
        let mail = format!("Subject: {number}\r\n\r\nx\r\n");
        assert!(send(&chain, &["alice@example.org"], mail.as_bytes()).starts_with("250 "));
        wait_for("the burial", || letters(&chain) == Some(number));
    }
    chain.settles();
    resume(&clamd);
    chain.publish("$JS.API.STREAM.MSG.DELETE.DEAD", r#"{"seq": 1}"#);
    // Another stream is lost, too: then all is looked after.
    chain.delete_stream("SCORE");
    wait_for("the first mail", || chain.read("alice@example.org").len() == 1);
    chain.settles();
    chain.books(&[("accepted", 2), ("stored", 1), ("buried", 1)]);
    assert_eq!(chain.command(&["dead", "list"]).lines().count(), 1);
}

/// The broker's disk holds the dead letters; the mail itself is in the journal.
#[test]
fn what_is_buried_outlives_the_broker() {
    let clamd = Clamd::start();
    let mut chain = Chain::start_parts_with(
        &clamd,
        &[
            ("/stages/scan/deadline", json!("4s")),
            ("/stages/scan/work/give_up_after", json!("1s")),
            ("/stages/accept/verdict_wait", json!("200ms")),
        ],
    );
    // Who cannot be scanned within the deadline is buried: so short that a test comes to that, and long for a scan.
    clamd.pause();
    assert!(send(&chain, &["alice@example.org"], b"Subject: x\r\n\r\nx\r\n").starts_with("250 "));
    wait_for("the burial", || letters(&chain) == Some(1));
    chain.settles();
    chain.books(&[("accepted", 1), ("buried", 1)]);
    chain.kill("nats");
    chain.wipe_broker();
    resume(&clamd);
    chain.start("nats");
    wait_for("the mail", || chain.read("alice@example.org").len() == 1);
    chain.settles();
    chain.books(&[("accepted", 1), ("buried", 0), ("stored", 1)]);
}

#[test]
fn a_damaged_store_is_found_while_the_node_runs() {
    let clamd = Clamd::start();
    let chain = Chain::start_all(&clamd);
    assert!(send(&chain, &["alice@example.org"], b"Subject: x\r\n\r\nx\r\n").starts_with("250 "));
    chain.settles();
    let said = chain.command(&["store", "verify"]);
    assert!(said.contains("1 messages, 1 bodies, ") && said.ends_with(": sound\n"), "{said}");
    let packs = std::fs::read_dir(chain.folder().join("var/store")).unwrap().map(|entry| entry.unwrap().path());
    let mut packs = packs.map(|shard| shard.join("packs/000001.pack"));
    let pack = packs.find(|pack| pack.metadata().is_ok_and(|pack| pack.len() > 0)).unwrap();
    let mut bytes = std::fs::read(&pack).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    assert_eq!(chain.attempt(&["store", "verify"], ""), None, "it ends with 1");
}

/// The account goes while copies wait for its node: those are held, the alias's other member has its own.
#[test]
fn an_account_is_removed_while_its_mail_waits() {
    let clamd = Clamd::start();
    let mut chain = Chain::start_parts_with(&clamd, &[("/stages/accept/verdict_wait", json!("500ms"))]);
    chain.command_with(&["account", "add", "dave@example.org"], "secret of dave\n");
    for member in ["alice@example.org", "dave@example.org"] {
        chain.command(&["alias", "add", "group@example.org", member]);
    }
    chain.kill("store");
    for to in ["group@example.org", "dave@example.org"] {
        assert!(send(&chain, &[to], b"Subject: x\r\n\r\nx\r\n").starts_with("250 "));
    }
    wait_for("the copies", || {
        let status = chain.attempt(&["status", "--json"], "");
        status.is_some_and(|status| {
            let status: serde_json::Value = serde_json::from_str(&status).unwrap();
            status["stages"]["store"]["waiting"] == 2
        })
    });
    chain.command(&["account", "remove", "dave@example.org"]);
    chain.start("store");
    chain.settles();
    assert_eq!(chain.read("alice@example.org").len(), 1);
    let listed = chain.command(&["held", "list"]);
    assert_eq!(listed.matches("for dave@example.org").count(), 2, "{listed}");
    assert_eq!(listed.matches("the account dave@example.org was removed").count(), 2, "{listed}");
}
