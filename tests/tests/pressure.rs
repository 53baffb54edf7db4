//! The load generator against a whole chain: it proves what is true, and says so when it is not.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use serde_json::Value;
use tests::chain::{Chain, Clamd, wait_for};
use tests::clients::Smtp;
use tests::loadgen::{Running, accounts, verify, verify_over_pop3};

/// The mix of these tests: small texts, so that many mails take little time, and more of everything odd.
const MIX: [&str; 14] = [
    "--people",
    "40",
    "--median",
    "3000",
    "--attachments",
    "0.005",
    "--spam",
    "0.1",
    "--virus",
    "0.03",
    "--repeat",
    "0.2",
    "--retry",
    "200ms",
];

fn count(told: &Value, name: &str) -> u64 {
    told[name].as_u64().unwrap_or_else(|| panic!("{name} in {told}"))
}

/// How many mails the store has dealt with.
fn stored(chain: &Chain) -> usize {
    chain.log("store").matches("settled").count()
}

fn with_people(chain: &Chain) {
    let done = chain.command_with(&["account", "import", "-"], &accounts(40));
    assert!(done.starts_with("40 accounts were made"), "{done}");
}

#[test]
fn loadgen_proves_a_chain_that_is_killed() {
    let clamd = Clamd::start();
    let mut chain = Chain::start_parts(&clamd);
    with_people(&chain);
    // It sends for as long as something is killed, however long that takes.
    let load = ["--for", "1h", "--rate", "60", "--connections", "12", "--seed", "1", "--watch", "10"];
    let later = ["--verify-later", "--ledger", "ledger"];
    let run = Running::start(&chain, &[&MIX[..], &load[..], &later[..]].concat());
    for part in ["store", "accept", "nats", "deliver", "accept", "store", "scan"] {
        let before = stored(&chain);
        wait_for("mail to flow", || stored(&chain) >= before + 20);
        chain.kill(part);
        chain.start(part);
    }
    run.interrupt();
    let (went_well, told) = run.end();
    assert!(went_well, "{told}");
    assert!(count(&told, "deferred") > 0 && count(&told["to_mailbox"], "count") > 0, "{told}");
    // What comes twice may come long after nothing is missing any more.
    chain.settles();
    let (good, proof) = verify(&chain, "ledger");
    assert!(good, "{proof}");
    let all: u64 = ["delivered", "held", "refused", "unsent"].iter().map(|name| count(&proof, name)).sum();
    assert_eq!(all, count(&told, "copies"), "{proof}");
    let [delivered, held, refused] = ["delivered", "held", "refused"].map(|name| count(&proof, name));
    assert!(delivered > 100 && refused + held > 0, "{proof}");
    assert_eq!([count(&proof, "clean_withheld"), count(&proof, "unmarked")], [0, 0], "{proof}");
    println!("{proof}");
    chain.books(&[("stored", delivered), ("held", held), ("buried", 0)]);
}

/// The last message of a maildrop is taken away over POP3: its text.
fn take(chain: &Chain, user: &str) -> Vec<u8> {
    let mut mails = chain.read(user);
    let delete = format!("DELE {}\r\n", mails.len());
    let mut pop3 = BufReader::new(TcpStream::connect(("127.0.0.1", chain.pop3)).unwrap());
    let mut line = String::new();
    for command in ["", &format!("USER {user}\r\n"), "PASS chainmail\r\n", &delete, "QUIT\r\n"] {
        pop3.get_mut().write_all(command.as_bytes()).unwrap();
        line.clear();
        pop3.read_line(&mut line).unwrap();
        assert!(line.starts_with("+OK"), "{command}{line}");
    }
    mails.pop().unwrap()
}

/// The mail as it was sent: what the chain has put before it is gone.
fn as_sent(mail: &[u8]) -> Vec<u8> {
    let at = mail.windows(11).position(|part| part == b"X-Loadgen: ").unwrap();
    mail[at..].to_vec()
}

#[test]
fn loadgen_says_what_was_done_to_mailboxes() {
    let clamd = Clamd::start();
    let chain = Chain::start_all(&clamd);
    with_people(&chain);
    let quiet = [
        "--starttls",
        "--seed",
        "7",
        "--repeat",
        "0",
        "--spam",
        "0",
        "--virus",
        "0",
        "--mails",
        "120",
        "--recipients",
        "1",
        "--ledger",
        "ledger",
    ];
    let run = Running::start(&chain, &[&MIX[..6], &quiet[..]].concat());
    let (good, told) = run.end();
    assert!(good, "{told}");
    assert_eq!(count(&told["proof"], "delivered"), 120, "{told}");
    let mut smtp = Smtp::connect(&chain);
    let mut send = |user: &str, mail: &[u8]| {
        // Not what a sender sends again that has not heard its 250.
        let reply = smtp.send("other@elsewhere.example", &[user], mail);
        assert!(reply.starts_with("250"), "{reply}");
        chain.settles();
    };
    let [one, two] = ["u00001@example.org", "u00002@example.org"];
    let mail = as_sent(&take(&chain, one));
    let (good, told) = verify(&chain, "ledger");
    assert!(!good && count(&told, "lost") == 1, "{told}");
    let (good, told) = verify_over_pop3(&chain, "ledger");
    assert!(!good && [count(&told, "lost"), count(&told, "delivered")] == [1, 119], "{told}");
    let mut altered = mail.clone();
    let last = altered.len() - 3;
    altered[last] ^= 1;
    send(one, &altered);
    let (good, told) = verify(&chain, "ledger");
    assert!(!good && [count(&told, "lost"), count(&told, "altered")] == [0, 1], "{told}");
    take(&chain, one);
    send(one, &mail);
    let (good, told) = verify(&chain, "ledger");
    assert!(good, "as it was before: {told}");
    send(one, &mail);
    send(two, &mail);
    let (good, told) = verify(&chain, "ledger");
    assert!(!good && [count(&told, "doubled"), count(&told, "stray")] == [1, 1], "{told}");
}

/// Somebody who was sent only what is in the INBOX, and was kept.
fn with_kept_mail(chain: &Chain, ledger: &str) -> String {
    let ledger = std::fs::read_to_string(chain.folder().join(ledger)).unwrap();
    let fields = |line: &str| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
    let lines = ledger.lines().map(fields).filter(|fields| fields.len() == 5);
    let last: BTreeMap<_, _> = lines.map(|line| ((line[3].clone(), line[0].clone()), line)).collect();
    let is_kept = |person: &str| {
        let mut own = last.values().filter(|line| line[3] == person);
        own.all(|line| line[4] == "Kept" && line[2] == "Plain") && !chain.read(person).is_empty()
    };
    last.keys().map(|(person, _)| person.clone()).find(|person| is_kept(person)).expect("most mail is plain and kept")
}

#[test]
fn what_a_killed_loadgen_has_sent_can_be_proved() {
    let clamd = Clamd::start();
    let chain = Chain::start_all(&clamd);
    with_people(&chain);
    let load = ["--for", "1h", "--rate", "40", "--ledger", "ledger", "--seed", "3"];
    let run = Running::start(&chain, &[&MIX[..], &load[..]].concat());
    wait_for("mail to flow", || chain.log("all").matches("settled").count() > 200);
    drop(run);
    chain.settles();
    let (good, told) = verify(&chain, "ledger");
    assert!(good && count(&told, "delivered") > 20, "{told}");
    take(&chain, &with_kept_mail(&chain, "ledger"));
    let (good, told) = verify(&chain, "ledger");
    assert!(!good && count(&told, "lost") == 1, "{told}");
}
