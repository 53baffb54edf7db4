//! No mail reaches a mailbox unscanned, by whatever way: disguised, in a chain whose order was changed, in several
//! rounds.
#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tests::chain::{Chain, Clamd, wait_for};
use tests::clients::{Smtp, eicar};

fn send(chain: &Chain, mail: &[u8]) -> String {
    Smtp::connect(chain).send("s@elsewhere.example", &["alice@example.org"], mail)
}

/// How many mails wait for a stage; none when that is not known at the moment.
fn listed(chain: &Chain, stage: &str) -> Option<u64> {
    known(chain, stage, "waiting")
}

/// What the chain knows of a stage.
fn known(chain: &Chain, stage: &str, what: &str) -> Option<u64> {
    let status = chain.attempt(&["status", "--json"], "")?;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    status["stages"][stage][what].as_u64()
}

/// A mail may begin with bytes by which a scanner takes it for another kind of file. For its reader it is a mail.
#[test]
fn no_disguise_hides_a_virus() {
    let clamd = Clamd::start();
    let chain = Chain::start_all_with(&clamd, &[("/stages/accept/verdict_wait", json!("1min"))]);
    let virus = eicar();
    let virus = STANDARD.encode(&virus[virus.windows(4).position(|at| at == b"\r\n\r\n").map_or(0, |at| at + 4)..]);
    for magic in ["GIF89a: 1", "MZ: 1", "%PDF-1.4: 1", "{\\rtf: 1", "PK\u{3}\u{4}: 1", "\tblank", "Rar!: 1", "no field"]
    {
        let mail = format!(
            "{magic}\r\nFrom: a@elsewhere.example\r\nSubject: look\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b\r\n\
             Content-Type: application/octet-stream; name=x.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n\
             {virus}\r\n--b--\r\n"
        );
        let reply = send(&chain, mail.as_bytes());
        assert!(reply.starts_with("550 5.7.1 Message refused: virus found: Eicar"), "{magic}: {reply}");
    }
    chain.settles();
    assert!(chain.read("alice@example.org").is_empty());
}

/// A mail of this archive's size hardly counts; what it unpacks to has `zeros` bytes and a virus behind them.
fn archive(zeros: usize) -> Vec<u8> {
    let script = "import io, sys, zipfile
out = io.BytesIO()
with zipfile.ZipFile(out, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('x.bin', bytes(int(sys.argv[1])) + sys.argv[2].encode())
sys.stdout.buffer.write(out.getvalue())";
    let virus = String::from_utf8(eicar()).unwrap();
    let virus = virus.split("\r\n\r\n").nth(1).unwrap().trim_end();
    let done = Command::new("python3").args(["-c", script, &zeros.to_string(), virus]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let lines =
        STANDARD.encode(done.stdout).into_bytes().chunks(76).map(|line| [line, b"\r\n"].concat()).collect::<Vec<_>>();
    let header = format!(
        "Subject: {zeros}\r\nMIME-Version: 1.0\r\nContent-Type: application/zip; name=x.zip\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n"
    );
    [header.into_bytes(), lines.concat()].concat()
}

/// clamd unpacks only so much. What it has not looked at is not clean, and no virus either.
#[test]
fn a_large_member_of_an_archive_is_scanned_or_held() {
    const MB: usize = 1_000_000;
    let clamd = Clamd::start();
    let settings = [("/stages/accept/verdict_wait", json!("1min")), ("/stages/scan/deadline", json!("50s"))];
    let chain = Chain::start_all_with(&clamd, &settings);
    for zeros in [20 * MB, 35 * MB, 95 * MB] {
        let reply = send(&chain, &archive(zeros));
        assert!(reply.starts_with("550 5.7.1 Message refused: virus found: Eicar"), "{zeros}: {reply}");
    }
    let reply = send(&chain, &archive(120 * MB));
    assert!(reply.starts_with("250 "), "{reply}");
    chain.settles();
    assert!(chain.read("alice@example.org").is_empty());
    let list = chain.command(&["held", "list"]);
    assert!(list.contains("not wholly scanned: Heuristics.Limits.Exceeded"), "{list}");
    let number = list.split(' ').next().unwrap_or_default();
    assert!(chain.attempt(&["held", "release", number], "").is_none(), "nobody has scanned it");
    assert_eq!(chain.command(&["held", "release", number, "--unscanned"]), "done\n");
    assert_eq!(chain.read("alice@example.org").len(), 1);
}

/// What waits in the stream of a stage that is the last one now has not been scanned by the others.
#[test]
fn a_chain_in_another_order_delivers_nothing_unscanned() {
    let clamd = Clamd::start();
    let mut chain = Chain::start_parts(&clamd);
    chain.kill("score");
    for mail in [&eicar()[..], b"Subject: good\r\n\r\ngood\r\n"] {
        let reply = send(&chain, mail);
        assert!(reply.starts_with("250 "), "{reply}");
    }
    for part in ["scan", "deliver"] {
        chain.kill(part);
    }
    chain.change("/chain", &json!(["scan", "score"]));
    for part in ["score", "scan", "deliver"] {
        chain.start(part);
    }
    chain.settles();
    let mails = chain.read("alice@example.org");
    assert_eq!(mails.len(), 1);
    let text = String::from_utf8_lossy(&mails[0]).into_owned();
    assert!(text.contains("Subject: good\r\n") && text.contains("X-Chainmail-Scan: clean\r\n"), "{text}");
    assert_eq!(chain.read("quarantine@example.org").len(), 1);
    chain.books(&[("accepted", 2), ("stored", 1), ("held", 1)]);
}

/// While the scanner is away a mail is sent round again. The second round must not deliver what the first is held for.
#[test]
fn a_virus_that_goes_round_twice_is_held_once() {
    let clamd = Clamd::start();
    let mut chain = Chain::start_parts_with(&clamd, &[("/stages/accept/journal/refill_first", json!("1s"))]);
    chain.kill("store");
    clamd.pause();
    let reply = send(&chain, &eicar());
    assert!(reply.starts_with("250 "), "{reply}");
    wait_for("a second round", || listed(&chain, "scan").is_some_and(|count| count >= 2));
    clamd.resume();
    wait_for("both verdicts", || ["scan", "deliver"].iter().all(|stage| listed(&chain, stage) == Some(0)));
    chain.start("store");
    chain.settles();
    assert!(chain.read("alice@example.org").is_empty());
    assert_eq!(chain.read("quarantine@example.org").len(), 1);
    chain.books(&[("accepted", 1), ("stored", 0), ("held", 1)]);
}

/// Spam that was accepted before it was scored is held. Its release is a matter of taste only once it has been scanned.
#[test]
fn what_is_held_as_spam_has_been_scanned() {
    let clamd = Clamd::start();
    let mut chain = Chain::start_parts_with(&clamd, &[("/stages/score/reject", json!(6.0))]);
    chain.kill("score");
    let spam = b"From: <x@bank.example>, <y@evil.example>\r\nFrom: a@b.example\r\nno field\r\n\r\nspam\r\n";
    let reply = send(&chain, spam);
    assert!(reply.starts_with("250 "), "{reply}");
    chain.start("score");
    chain.settles();
    chain.books(&[("accepted", 1), ("stored", 0), ("held", 1)]);
    let held = chain.read("quarantine@example.org");
    assert!(String::from_utf8_lossy(&held[0]).contains("X-Chainmail-Scan: clean\r\n"), "{held:?}");
    let list = chain.command(&["held", "list"]);
    let number = list.split(' ').next().unwrap_or_default();
    assert_eq!(chain.command(&["held", "release", number]), "done\n");
    assert_eq!(chain.read("alice@example.org").len(), 1);
}

/// A clamd without its signatures answers PING and calls everything clean, whether it was started like that or lost
/// them.
#[test]
fn a_scanner_that_knows_nothing_is_not_believed() {
    let clamd = Clamd::start_ignorant();
    let mut chain = Chain::prepare(&clamd, &[]);
    chain.start_again("all");
    for round in 0..2 {
        wait_for("/ready to say so", || chain.ready().contains("does not find the EICAR test file"));
        for mail in [format!("Subject: good {round}\r\n\r\ngood\r\n").as_bytes(), &eicar()] {
            let mail = [format!("X-Round: {round}\r\n").as_bytes(), mail].concat();
            let reply = send(&chain, &mail);
            assert!(reply.starts_with("250 "), "{reply}");
        }
        wait_for("the mails to wait", || listed(&chain, "scan") == Some(2));
        assert_eq!(chain.read("alice@example.org").len(), round);
        clamd.learn();
        wait_for("/ready", || chain.ready().starts_with("HTTP/1.1 200"));
        chain.settles();
        assert_eq!(chain.read("alice@example.org").len(), round + 1);
        let held = round as u64 + 1;
        chain.books(&[("accepted", 2 * held), ("stored", held), ("held", held)]);
        clamd.forget();
    }
}

/// What clamd calls clean after it has lost its signatures goes nowhere, however short a while ago it still had them.
#[test]
fn a_scanner_is_not_believed_from_the_moment_in_which_it_forgets() {
    let clamd = Clamd::start_ignorant();
    clamd.learn();
    wait_for("clamd to learn", || clamd.knows());
    let chain = Chain::start_all_with(&clamd, &[("/stages/accept/verdict_wait", json!("0s"))]);
    let (sent, enough) = (AtomicUsize::new(0), AtomicBool::new(false));
    let forgotten = thread::scope(|scope| {
        scope.spawn(|| {
            // Bounded, so that a test that fails comes to its end.
            while !enough.load(Ordering::SeqCst) && sent.load(Ordering::SeqCst) < 5000 {
                let number = sent.fetch_add(1, Ordering::SeqCst);
                let mail = if number.is_multiple_of(2) { b"\r\ngood\r\n".to_vec() } else { eicar() };
                let reply = send(&chain, &[format!("X-Number: {number}\r\n").as_bytes(), &mail].concat());
                assert!(reply.starts_with("250 "), "{reply}");
            }
        });
        let went_on = |more| {
            let until = sent.load(Ordering::SeqCst) + more;
            wait_for("more mails", || sent.load(Ordering::SeqCst) >= until);
        };
        went_on(10);
        clamd.forget();
        wait_for("clamd to forget", || !clamd.knows());
        let forgotten = sent.load(Ordering::SeqCst);
        went_on(20);
        enough.store(true, Ordering::SeqCst);
        forgotten
    });
    let sent = sent.into_inner();
    wait_for("the mails to wait", || listed(&chain, "scan").is_some_and(|count| count >= (sent - forgotten) as u64));
    for mail in chain.read("alice@example.org") {
        let text = String::from_utf8_lossy(&mail).into_owned();
        let number = text.lines().find_map(|line| line.strip_prefix("X-Number: ")).unwrap();
        let number: usize = number.parse().unwrap();
        assert!(number < forgotten && number.is_multiple_of(2), "{forgotten}: {text}");
    }
    clamd.learn();
    chain.settles();
    let (sent, held) = (sent as u64, sent as u64 / 2);
    chain.books(&[("accepted", sent), ("stored", sent - held), ("held", held)]);
}

/// What a mail with an attachment is made of: bytes that say nothing, so many, and a virus behind them.
fn behind(bytes: u32) -> Vec<u8> {
    let noise = (0..bytes).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]);
    let virus = String::from_utf8(eicar()).unwrap();
    let virus = virus.split("\r\n\r\n").nth(1).unwrap().trim_end().bytes();
    let lines = STANDARD.encode(noise.chain(virus).collect::<Vec<_>>()).into_bytes();
    let lines = lines.chunks(76).map(|line| [line, b"\r\n"].concat()).collect::<Vec<_>>().concat();
    let header = "Subject: look\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream; name=x.bin\r\n\
                  Content-Transfer-Encoding: base64\r\n\r\n";
    [header.as_bytes(), &lines].concat()
}

/// A clamd leaves out what it cannot write of an attachment and calls the rest clean, and the test file is found all
/// the same: it is small.
#[test]
fn a_scanner_without_room_is_not_believed() {
    let clamd = Clamd::start_with_room("1m");
    let mail = behind(500_000);
    assert_eq!(clamd.says(&mail), "stream: OK\0", "this is what it is not believed");
    assert!(clamd.knows());
    let mut chain = Chain::prepare(&clamd, &[]);
    chain.start_again("all");
    wait_for("/ready to say so", || chain.ready().contains("512MiB must stay free (stages.scan.temporary_free)"));
    let reply = send(&chain, &mail);
    assert!(reply.starts_with("250 "), "{reply}");
    // It waits also before it was tried.
    wait_for("the scan to fail", || known(&chain, "scan", "failures").is_some_and(|failures| failures >= 1));
    wait_for("the mail to wait", || listed(&chain, "scan") == Some(1));
    assert!(chain.read("alice@example.org").is_empty());
    clamd.enlarge("600m");
    wait_for("/ready", || chain.ready().starts_with("HTTP/1.1 200"));
    chain.settles();
    assert!(chain.read("alice@example.org").is_empty());
    chain.books(&[("accepted", 1), ("held", 1)]);
}
