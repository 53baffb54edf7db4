//! With other people's programs around: Postfix sends, rbldnsd lists, and what people read with are curl and Python's
//! imaplib and poplib.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;

use serde_json::json;
use tests::chain::{Chain, Clamd, wait_for};
use tests::clients::Smtp;
use tests::corpora;
use tests::servers::{Postfix, Rbldnsd};

/// Mails of each archive that are sent.
const SAMPLE: usize = 40;

/// Real mail where the corpora are there, and a few of our own.
fn sample() -> BTreeSet<Vec<u8>> {
    let mut mails = BTreeSet::new();
    for number in 0..20 {
        mails.insert(
            format!("From: a@b.example\r\nSubject: own {number}\r\n\r\n.\r\n..dots\r\n\u{e9}\r\n").into_bytes(),
        );
    }
    for set in ["spamassassin", "list-usrp", "list-lman", "newsletters"] {
        let Some(folder) = corpora::folder("spam") else { break };
        let all = corpora::unpack(&folder.join(set).join("ham.tar.zst"));
        let step = (all.len() / SAMPLE).max(1);
        // Postfix renames the line of an mbox file at the top, and mends a header that ends without an empty line.
        let plain = |mail: &Vec<u8>| {
            let header = mail.windows(4).position(|part| part == b"\r\n\r\n").map(|at| &mail[..at + 2]);
            !mail.starts_with(b"From ")
                && mail.len() < 2_000_000
                && header.is_some_and(|header| {
                    score::fields::fields(header).map(|f| f.raw.len()).sum::<usize>() == header.len()
                })
        };
        mails.extend(all.into_iter().step_by(step).map(|(_, mail)| corpora::with_crlf(&mail)).filter(plain));
    }
    mails
}

fn is_good_for_tests() -> [(&'static str, serde_json::Value); 2] {
    // What is spam is not asked here.
    [("/stages/score/junk", json!(1000)), ("/stages/score/reject", json!(1000))]
}

/// Which of these a mail is. The longest that fits: one mail's end may be another mail.
fn body_of<'a>(mail: &[u8], sent: &'a BTreeSet<Vec<u8>>) -> Option<&'a Vec<u8>> {
    sent.iter().filter(|body| mail.ends_with(body)).max_by_key(|body| body.len())
}

/// Each sent mail is there once, unaltered, behind what was put in front of it.
#[track_caller]
fn all_once(chain: &Chain, sent: &BTreeSet<Vec<u8>>) {
    let mut found: BTreeMap<&[u8], usize> = BTreeMap::new();
    let mails = chain.read("alice@example.org");
    for mail in &mails {
        let fits = body_of(mail, sent)
            .unwrap_or_else(|| panic!("nobody sent this: {}", String::from_utf8_lossy(&mail[..mail.len().min(3000)])));
        *found.entry(fits).or_default() += 1;
    }
    assert!(found.values().all(|&count| count == 1), "some came twice");
    assert_eq!(found.len(), sent.len(), "some were lost or altered");
}

#[test]
fn postfix_relays_real_mail_over_starttls() {
    let clamd = Clamd::start();
    let chain = Chain::start_all_with(&clamd, &is_good_for_tests());
    let postfix = Postfix::start(chain.smtp);
    let sent = sample();
    let mut smtp = Smtp::try_connect(postfix.port).unwrap();
    for mail in &sent {
        let reply = smtp.send("ann@sender.example", &["alice@example.org"], mail);
        assert!(reply.starts_with("250 "), "{reply}");
    }
    wait_for("Postfix to send all", || postfix.waiting() == 0);
    chain.settles();
    let log = postfix.log();
    assert!(log.contains("TLS connection established to 127.0.0.1"), "{log}");
    assert!(!log.contains("status=bounced"), "{log}");
    let count = sent.len() as u64;
    chain.books(&[("accepted", count), ("stored", count)]);
    all_once(&chain, &sent);
}

/// RFC 1047: the sender that never hears the 250 sends again. No second copy is made.
#[test]
fn accept_is_killed_while_postfix_sends() {
    let clamd = Clamd::start();
    let mut chain = Chain::start_parts_with(&clamd, &is_good_for_tests());
    let postfix = Postfix::start(chain.smtp);
    let sent: BTreeSet<Vec<u8>> = (0..400)
        .map(|number| {
            format!("From: a@b.example\r\nSubject: {number}\r\n\r\n{number} {}\r\n", "text ".repeat(100)).into_bytes()
        })
        .collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut smtp = Smtp::try_connect(postfix.port).unwrap();
            for mail in &sent {
                let reply = smtp.send("ann@sender.example", &["alice@example.org"], mail);
                assert!(reply.starts_with("250 "), "{reply}");
            }
        });
        for _ in 0..8 {
            std::thread::sleep(std::time::Duration::from_millis(400));
            chain.kill("accept");
            chain.start("accept");
        }
    });
    wait_for("Postfix to send all", || postfix.waiting() == 0);
    chain.settles();
    assert!(!postfix.log().contains("status=bounced"));
    all_once(&chain, &sent);
    let count = sent.len() as u64;
    chain.books(&[("accepted", count), ("stored", count)]);
}

/// The gate's first line to a client with this address.
fn greeting(chain: &Chain, client: Ipv4Addr) -> (String, Option<Smtp>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((client, 0)).into()).unwrap();
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], chain.smtp)).into()).unwrap();
    let mut smtp = Smtp::raw(TcpStream::from(socket)).unwrap();
    let line = smtp.reply().unwrap();
    (line, Some(smtp))
}

#[test]
fn lists_refuse_and_warn() {
    let clamd = Clamd::start();
    let lists = Rbldnsd::start(&[
        ("bl.example", ":127.0.0.2:Listed, see http://bl.example/$\n127.0.0.2\n:127.0.0.10:Dynamic\n127.0.0.6\n"),
        ("weak.example", ":127.0.0.3:Seen lately\n127.0.0.3\n"),
        ("broken.example", ":127.255.255.254:Open resolver\n0.0.0.0/1\n128.0.0.0/1\n"),
    ]);
    let settings = [
        ("/stages/gate/ask_private", json!(true)),
        ("/stages/gate/deadline", json!("10s")),
        ("/stages/gate/resolver", json!(format!("127.0.0.1:{}", lists.port))),
        (
            "/stages/gate/lists",
            json!([
                {"zone": "bl.example", "weight": 1.0, "codes": ["127.0.0.2-127.0.0.9"]},
                {"zone": "weak.example", "weight": 0.5},
                {"zone": "broken.example", "weight": 5.0},
                {"zone": "nobody.example", "weight": 5.0},
            ]),
        ),
    ];
    let chain = Chain::start_all_with(&clamd, &settings);
    let (line, _) = greeting(&chain, [127, 0, 0, 2].into());
    assert!(line.starts_with("554 5.7.1 ") && line.contains("bl.example"), "{line}");
    assert!(line.contains("http://bl.example/127.0.0.2"), "the list's own text: {line}");
    let (line, _) = greeting(&chain, [127, 0, 0, 6].into());
    assert!(line.starts_with("220 "), "an answer that does not count: {line}");
    let (line, _) = greeting(&chain, [127, 0, 0, 5].into());
    assert!(line.starts_with("220 "), "an error of a list is no listing, nor is a list that is not there: {line}");
    let (line, smtp) = greeting(&chain, [127, 0, 0, 3].into());
    assert!(line.starts_with("220 "), "too weak to refuse: {line}");
    let mut smtp = smtp.unwrap();
    smtp.command("EHLO mx.sender.example");
    let mail = b"From: s@sender.example\r\nTo: alice@example.org\r\nSubject: x\r\n\
                 Date: Tue, 24 Nov 2026 12:00:00 +0000\r\n\r\nx\r\n";
    let reply = smtp.send("s@sender.example", &["alice@example.org"], mail);
    assert!(reply.starts_with("250 "), "{reply}");
    chain.settles();
    let mails = chain.read("alice@example.org");
    let text = String::from_utf8_lossy(&mails[0]);
    assert!(text.contains("LISTED(3.0)"), "{text}");
    assert!(text.contains("Authentication-Results: localhost;"), "{text}");
}

/// A list server that says nothing costs its deadline, and nobody his mail.
#[test]
fn silent_lists_count_as_unknown() {
    let clamd = Clamd::start();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let settings = [
        ("/stages/gate/ask_private", json!(true)),
        ("/stages/gate/deadline", json!("200ms")),
        ("/stages/gate/resolver", json!(silent.local_addr().unwrap().to_string())),
        ("/stages/gate/lists", json!([{"zone": "bl.example"}])),
    ];
    let chain = Chain::start_all_with(&clamd, &settings);
    let (line, _) = greeting(&chain, [127, 0, 0, 2].into());
    assert!(line.starts_with("220 "), "{line}");
}

fn python(script: &str, arguments: &[&str]) -> String {
    let done = Command::new("python3").args(["-c", script]).args(arguments).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn people_read_with_what_they_have() {
    let clamd = Clamd::start();
    let chain = Chain::start_all_with(&clamd, &[("/stages/score/reject", json!(1000))]);
    let mut smtp = Smtp::connect(&chain);
    let good = b"From: Ann <ann@sender.example>\r\nTo: alice@example.org\r\nSubject: good\r\n\
                 Date: Tue, 24 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@sender.example>\r\n\r\nHello\r\n";
    let spam = b"From: \"bank@bank.example\" <x@evil.example>\r\nFrom: y@evil.example\r\n\
                 Subject: WIN A MILLION NOW\r\n\r\nHello\r\n";
    for mail in [&good[..], &spam[..]] {
        let reply = smtp.send("ann@sender.example", &["alice@example.org"], mail);
        assert!(reply.starts_with("250 "), "{reply}");
    }
    clamd.pause();
    let reply = smtp.send("ann@sender.example", &["alice@example.org"], &tests::clients::eicar());
    assert!(reply.starts_with("250 "), "{reply}");
    clamd.resume();
    chain.settles();
    let script = "import imaplib, sys\nc = imaplib.IMAP4('127.0.0.1', int(sys.argv[1]))\n\
                  c.login(sys.argv[2], 'chainmail')\nfor box in sys.argv[3:]:\n    kind, data = c.select(box)\n    \
                  assert kind == 'OK', data\n    \
                  kind, found = c.search(None, 'ALL')\n    for number in found[0].split():\n        \
                  kind, mail = c.fetch(number, '(BODY.PEEK[])')\n        \
                  print(box, mail[0][1].decode().split('Subject: ')[1].split('\\r')[0])\nc.logout()\n";
    let port = chain.imap.to_string();
    assert_eq!(python(script, &[&port, "alice@example.org", "INBOX", "Junk"]), "INBOX good\nJunk WIN A MILLION NOW\n");
    assert_eq!(python(script, &[&port, "quarantine@example.org", "INBOX"]), "INBOX look\n");
    let script = "import poplib, sys\nc = poplib.POP3('127.0.0.1', int(sys.argv[1]))\n\
                  c.user('alice@example.org')\nc.pass_('chainmail')\n\
                  print(c.stat()[0], len(c.uidl()[1]), c.top(1, 0)[1][0].decode())\n\
                  print(c.retr(1)[1][-1].decode())\nc.dele(1)\nc.rset()\nc.quit()\n";
    assert_eq!(python(script, &[&chain.pop3.to_string()]), "1 1 Return-Path: <ann@sender.example>\nHello\n");
    for (url, wanted) in [
        (format!("imap://127.0.0.1:{port}/INBOX;UID=1"), "Subject: good"),
        (format!("imap://127.0.0.1:{port}/Junk;UID=1"), "Subject: WIN A MILLION NOW"),
        (format!("pop3://127.0.0.1:{}/1", chain.pop3), "Subject: good"),
    ] {
        let done = Command::new("curl").args(["-sS", "--user", "alice@example.org:chainmail", &url]).output().unwrap();
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success() && text.contains(wanted), "{url}: {text} {done:?}");
    }
    chain.books(&[("accepted", 3), ("stored", 2), ("held", 1)]);
}

/// A few of each kind, for where the corpora are not.
fn own_malformed() -> Vec<String> {
    let odd = |head: &str, body: &str| format!("From: a@b.example\nMIME-Version: 1.0\n{head}\n\n{body}\n");
    let mut mails = vec![
        String::new(),
        "no header at all".to_owned(),
        ": empty name\n\nx".to_owned(),
        " folded first line\nSubject: x\n\nx".to_owned(),
        odd("Content-Type: multipart/mixed", "--b\n\nno boundary named"),
        odd("Content-Type: multipart/mixed; boundary=\"\"", "--\n\nempty boundary\n----"),
        odd("Content-Type: multipart/mixed; boundary=b", "--b\nContent-Type: text/plain\n\nnever ended"),
        odd("Content-Type: multipart/mixed; boundary=b", "no parts at all"),
        odd("Content-Type: ;;;==;\"", "nonsense of a type"),
        odd("Content-Transfer-Encoding: base64", "!!!! this is ==== no base64"),
        odd("Content-Transfer-Encoding: quoted-printable", "=ZZ = =\n=4"),
        odd("Content-Transfer-Encoding: x-unknown", "what is that"),
        odd("Content-Type: text/plain; charset=\"no such\"", "letters"),
        odd("Subject: =?utf-8?Q?broken", "half an encoded word"),
        odd("Subject: =?x?B?=?=?==?=", "another"),
        odd("Content-Disposition: attachment; filename*0*=utf-8''%zz; filename*2=x", "parts of a name"),
        odd("To: \"unclosed <a@b>, (((((", "address"),
        odd("Date: Thu, 99 Foo 99999 99:99:99 +9999", "date"),
        odd("Content-Type: message/rfc822", ""),
    ];
    mails.push(format!("From: a@b.example\n{}\ndeep", "Content-Type: message/rfc822\n\n".repeat(200)));
    let parts: String =
        (0..200).map(|n| format!("--b{n}\nContent-Type: multipart/mixed; boundary=b{}\n\n", n + 1)).collect();
    mails.push(odd("Content-Type: multipart/mixed; boundary=b0", &parts));
    mails.push(odd(&format!("References: {}", "<a@b> ".repeat(2000).trim_end()), "many"));
    mails
}

/// Malformed mail of all kinds: delivered unaltered, held or refused with a reason, and nothing is stuck.
#[test]
fn malformed_mail_comes_through() {
    let clamd = Clamd::start();
    let chain = Chain::start_all_with(&clamd, &is_good_for_tests());
    let mut mails: BTreeSet<Vec<u8>> =
        own_malformed().into_iter().map(|mail| corpora::with_crlf(mail.as_bytes())).collect();
    if let Some(folder) = corpora::folder("mime") {
        mails.extend(corpora::all(&folder).into_iter().map(|(_, mail)| corpora::with_crlf(&mail)));
        assert!(mails.len() > 500, "{}", mails.len());
    }
    let mut kept = BTreeSet::new();
    let mut smtp = Smtp::connect(&chain);
    for (number, mail) in mails.iter().enumerate() {
        if number % 50 == 49 {
            smtp = Smtp::connect(&chain);
        }
        let reply = smtp.send("s@elsewhere.example", &["alice@example.org"], mail);
        match reply.get(..1) {
            Some("2") => drop(kept.insert(mail.clone())),
            Some("5") => println!("{reply}"),
            _ => panic!("{reply}"),
        }
    }
    println!("{} of {} taken", kept.len(), mails.len());
    assert!(kept.len() * 10 > mails.len() * 9);
    chain.settles();
    assert!(!chain.log("all").contains("panicked at stages/"), "our own code panicked");
    // What has too many layers for clamd is held.
    let listed = chain.command(&["held", "list"]);
    assert!(listed.lines().all(|line| line.contains("not wholly scanned")), "{listed}");
    print!("{listed}");
    let held = chain.read("quarantine@example.org");
    for mail in &held {
        let body = body_of(mail, &kept).unwrap().clone();
        kept.remove(&body);
    }
    all_once(&chain, &kept);
    chain.books(&[("buried", 0), ("stored", kept.len() as u64), ("held", held.len() as u64)]);
}
