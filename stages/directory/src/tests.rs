//! The directory as its users see it, on a real database.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use runtime::config::ByteSize;
use wire::secret::Secret;

use super::*;

fn config(folder: &Path) -> Config {
    Config {
        url: format!("sqlite:{}", folder.join("directory.db").display()),
        cache: ByteSize::mib(1),
        fresh_for: Duration::ZERO,
        absent_for: Duration::ZERO,
        stale_for: Duration::from_secs(3600),
        deadline: Duration::from_millis(200),
        alias_depth: 4,
        alias_members: 3,
        logins_at_once: 2,
        logins_waiting: 2,
    }
}

async fn directory(folder: &Path) -> Directory {
    let directory = Directory::open(config(folder)).await.unwrap();
    directory.add_domain("example.org", None, None).await.unwrap();
    directory.add_domain("alias.example", Some("example.org"), None).await.unwrap();
    directory.add_domain("all.example", None, Some("bob@example.org")).await.unwrap();
    for name in ["alice", "bob", "carol", "dave", "erin"] {
        add(&directory, &format!("{name}@example.org"), Kind::User).await.unwrap();
    }
    add(&directory, "postmaster@example.org", Kind::System).await.unwrap();
    add(&directory, "quarantine@example.org", Kind::System).await.unwrap();
    directory.set_status("dave@example.org", Status::Suspended).await.unwrap();
    for (address, target) in [
        ("two@example.org", "alice@example.org"),
        ("two@example.org", "bob@example.org"),
        ("more@example.org", "two@example.org"),
        ("more@example.org", "alice@example.org"),
        ("loop@example.org", "pool@example.org"),
        ("pool@example.org", "loop@example.org"),
        ("half@example.org", "nobody@example.org"),
        ("half@example.org", "dave@example.org"),
        ("half@example.org", "carol@example.org"),
    ] {
        directory.add_alias(address, target).await.unwrap();
    }
    directory
}

async fn add(directory: &Directory, address: &str, kind: Kind) -> anyhow::Result<Change> {
    let new =
        NewAccount { address, password: Secret::new("secret"), store: "s1", kind, quota_bytes: 0, quota_messages: 0 };
    directory.add_account(new).await
}

#[tokio::test]
async fn nothing_is_made_where_nothing_would_reach_it() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path()).await;
    let account = add(&directory, "frank@alias.example", Kind::User).await.unwrap_err().to_string();
    let alias = directory.add_alias("x@alias.example", "alice@example.org").await.unwrap_err().to_string();
    for (error, main) in [(account, "make frank@example.org"), (alias, "make x@example.org")] {
        assert!(error.contains("alias.example shares the addresses of example.org") && error.contains(main), "{error}");
    }
}

#[tokio::test]
async fn only_what_was_right_is_recognised() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path()).await;
    let recognised = async |user: &str, password: &str| directory.recognise(user, password).await.unwrap().is_some();
    assert!(!recognised("alice@example.org", "secret").await);
    assert!(directory.authenticate("alice@example.org", "secret").await.unwrap().is_some());
    assert!(directory.authenticate("nobody@example.org", "secret").await.unwrap().is_none());
    assert!(recognised("alice@example.org", "secret").await);
    assert!(!recognised("alice@example.org", "other").await);
    assert!(!recognised("nobody@example.org", "secret").await);
    // Others do not have their passwords hashed again because something was changed.
    directory.add_alias("some@example.org", "alice@example.org").await.unwrap();
    directory.forget_all();
    assert!(recognised("alice@example.org", "secret").await);
    directory.set_status("alice@example.org", Status::Suspended).await.unwrap();
    assert!(!recognised("alice@example.org", "secret").await);
}

#[tokio::test]
async fn who_receives() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path()).await;
    for (address, want) in [
        ("Alice@Example.org", Receives::Yes),
        ("alice+tag@example.org", Receives::Yes),
        ("\"Alice\"@example.org", Receives::Yes),
        ("\"alice\\+tag\"@example.org", Receives::Yes),
        ("\"al ice\"@example.org", Receives::Unknown),
        ("alice@alias.example", Receives::Yes),
        ("two@example.org", Receives::Yes),
        ("anybody@all.example", Receives::Yes),
        ("Postmaster", Receives::Yes),
        ("postmaster@all.example", Receives::Yes),
        ("dave@example.org", Receives::Suspended),
        ("nobody@example.org", Receives::Unknown),
        ("nobody+alice@example.org", Receives::Unknown),
        ("quarantine@example.org", Receives::Unknown),
        ("alice@elsewhere.example", Receives::NotLocal),
        ("nonsense", Receives::Unknown),
    ] {
        assert_eq!(directory.receives(address).await.unwrap(), want, "{address}");
    }
}

#[tokio::test]
async fn what_an_address_stands_for() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path()).await;
    for (address, targets, problems) in [
        ("alice+news@alias.example", &["alice@example.org"][..], &[][..]),
        ("more@example.org", &["alice@example.org", "bob@example.org"], &[]),
        ("any@all.example", &["bob@example.org"], &[]),
        (
            "half@example.org",
            &["carol@example.org"],
            &["nobody@example.org is not known", "dave@example.org is suspended"],
        ),
        ("\"Two\"@example.org", &["alice@example.org", "bob@example.org"], &[]),
        ("loop@example.org", &[], &["aliases lead back to loop@example.org, or too deep"]),
        ("nobody@example.org", &[], &["nobody@example.org is not known"]),
    ] {
        let expansion = directory.expand(address).await.unwrap();
        let got: Vec<_> = expansion.targets.iter().map(|target| target.account.address.as_str()).collect();
        let mut found: Vec<_> = expansion.problems.iter().map(ToString::to_string).collect();
        found.sort_by_key(|problem| problems.iter().position(|want| want == problem));
        assert_eq!(
            (got, found.iter().map(String::as_str).collect()),
            (targets.to_vec(), problems.to_vec()),
            "{address}"
        );
    }
    let tag = directory.expand("alice+news@example.org").await.unwrap().targets[0].tag.clone();
    assert_eq!(tag.as_deref(), Some("news"));
}

#[tokio::test]
async fn a_group_has_a_bound() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path()).await;
    for name in ["alice", "bob", "carol", "erin"] {
        directory.add_alias("all@example.org", &format!("{name}@example.org")).await.unwrap();
    }
    let expansion = directory.expand("all@example.org").await.unwrap();
    assert_eq!((expansion.targets.len(), expansion.problems), (0, vec![Problem::TooMany("all@example.org".into())]));
}

#[tokio::test]
async fn a_master_that_is_gone_is_not_an_absence() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path()).await;
    assert_eq!(directory.receives("alice@example.org").await.unwrap(), Receives::Yes);
    assert_eq!(directory.receives("nobody@example.org").await.unwrap(), Receives::Unknown);
    // In WAL mode no lock of another process keeps readers out; the connections themselves are taken away instead.
    directory.inner.master.pool.close().await;
    assert_eq!(directory.receives("alice@example.org").await.unwrap(), Receives::Yes, "served from before");
    assert!(directory.receives("bob@example.org").await.is_err(), "never asked for");
    assert!(directory.receives("nobody@example.org").await.is_err(), "an old absence is not a 550");
}

/// A process that was started while the file was away has made an empty one.
#[tokio::test]
async fn an_empty_directory_refuses_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open(config(folder.path())).await.unwrap();
    assert!(directory.receives("alice@example.org").await.is_err());
    directory.add_domain("example.org", None, None).await.unwrap();
    assert_eq!(directory.receives("alice@example.org").await.unwrap(), Receives::Unknown);
    assert_eq!(directory.receives("alice@elsewhere.example").await.unwrap(), Receives::NotLocal);
}

/// Connections hold on to the file that they have opened; they are let go of here as they are with time.
async fn let_go(directory: &Directory) {
    // One that was just used is given back in the background.
    while directory.inner.master.pool.size() > 0 {
        match directory.inner.master.pool.try_acquire() {
            Some(connection) => connection.close().await.unwrap(),
            None => tokio::task::yield_now().await,
        }
    }
}

/// The file was moved away, another process has made an empty one, and this one comes upon it.
#[tokio::test]
async fn an_empty_file_in_its_place_takes_nobody_for_gone() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path()).await;
    let alice = directory.account("alice@example.org").await.unwrap().unwrap().id;
    assert_eq!(directory.receives("alice@example.org").await.unwrap(), Receives::Yes);
    assert_eq!(directory.receives("postmaster").await.unwrap(), Receives::Yes);
    let quarantine = directory.held_account().await.unwrap();
    let_go(&directory).await;
    let (file, aside) = (folder.path().join("directory.db"), folder.path().join("aside.db"));
    std::fs::rename(&file, &aside).unwrap();
    let error = Directory::open_existing(config(folder.path())).await.err().unwrap().to_string();
    assert!(error.contains("there is no directory") && !file.exists(), "{error}");
    drop(Directory::open(config(folder.path())).await.unwrap());
    for _ in 0..2 {
        assert_eq!(directory.receives("alice@example.org").await.unwrap(), Receives::Yes, "served from before");
        assert_eq!(directory.receives("postmaster").await.unwrap(), Receives::Yes);
        assert!(directory.receives("bob@example.org").await.is_err(), "never asked for");
        assert!(directory.still_has("alice@example.org", alice).await.unwrap());
        assert!(directory.still_has("alice@example.org", alice + 1).await.is_err());
        assert_eq!(directory.held_account().await.unwrap(), quarantine);
        assert!(directory.authenticate("alice@example.org", "secret").await.unwrap().is_some());
        assert!(directory.authenticate("bob@example.org", "secret").await.is_err(), "never asked for");
    }
}

#[tokio::test]
async fn a_file_that_was_moved_away_is_not_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path()).await;
    assert_eq!(directory.receives("alice@example.org").await.unwrap(), Receives::Yes);
    let (file, aside) = (folder.path().join("directory.db"), folder.path().join("aside.db"));
    let_go(&directory).await;
    std::fs::rename(&file, &aside).unwrap();
    assert_eq!(directory.receives("alice@example.org").await.unwrap(), Receives::Yes, "served from before");
    assert!(directory.receives("bob@example.org").await.is_err(), "never asked for");
    assert!(!file.exists());
    std::fs::write(&file, "garbage ".repeat(1000)).unwrap();
    assert!(directory.receives("bob@example.org").await.is_err(), "no database");
    std::fs::rename(&aside, &file).unwrap();
    assert_eq!(directory.receives("bob@example.org").await.unwrap(), Receives::Yes);
    assert_eq!(directory.receives("nobody@example.org").await.unwrap(), Receives::Unknown);
}

#[tokio::test]
async fn passwords() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path()).await;
    let login = async |user: &str, password: &str| directory.authenticate(user, password).await.unwrap().is_some();
    assert!(login("alice@example.org", "secret").await);
    assert!(login("ALICE@example.org", "secret").await, "and again, recognised");
    assert!(!login("alice@example.org", "Secret").await);
    assert!(!login("nobody@example.org", "secret").await);
    assert!(!login("dave@example.org", "secret").await, "suspended");
    directory.set_password("alice@example.org", "other").await.unwrap();
    assert!(!login("alice@example.org", "secret").await);
    assert!(login("alice@example.org", "other").await);
}

/// Whatever is logged of an account, its password is not.
#[tokio::test]
async fn no_password_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path()).await;
    let account = directory.account("alice@example.org").await.unwrap().unwrap();
    let password = Secret::new("hunter2");
    let (store, kind) = ("s1", Kind::User);
    let new = NewAccount { address: "x@example.org", password, store, kind, quota_bytes: 0, quota_messages: 0 };
    let lines = import::read("x@example.org hunter2").unwrap();
    let printed = format!("{account:?} {new:?} {lines:?} {:?}", import::hash_all(&lines).unwrap());
    assert!(!printed.contains("hunter2") && !printed.contains("argon2"), "{printed}");
}

#[tokio::test]
async fn changes_by_others_are_seen_when_announced() {
    let folder = tempfile::tempdir().unwrap();
    let first = directory(folder.path()).await;
    let slow = Config { fresh_for: Duration::from_secs(3600), ..config(folder.path()) };
    let second = Directory::open(slow).await.unwrap();
    assert_eq!(second.receives("alice@example.org").await.unwrap(), Receives::Yes);
    let change = first.set_status("alice@example.org", Status::Suspended).await.unwrap();
    assert_eq!(second.receives("alice@example.org").await.unwrap(), Receives::Yes);
    second.forget(&Change::from_bytes(&change.to_bytes()).unwrap());
    assert_eq!(second.receives("alice@example.org").await.unwrap(), Receives::Suspended);
    first.set_status("alice@example.org", Status::Active).await.unwrap();
    second.forget_all();
    assert_eq!(second.receives("alice@example.org").await.unwrap(), Receives::Yes);
}

#[tokio::test]
async fn mistakes_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path()).await;
    let told = |result: anyhow::Result<Change>| format!("{:#}", result.unwrap_err());
    assert_eq!(
        told(add(&directory, "x@y.example", Kind::User).await),
        "the domain y.example does not exist; make it with: chainmail domain add y.example"
    );
    assert_eq!(told(add(&directory, "alice@example.org", Kind::User).await), "alice@example.org exists already");
    assert_eq!(told(directory.add_domain("example.org", None, None).await), "the domain example.org exists already");
    assert!(told(directory.remove_domain("example.org").await).contains("remove them first"));
    assert_eq!(
        told(directory.add_alias("alice@example.org", "bob@example.org").await),
        "alice@example.org is an account"
    );
    assert_eq!(told(directory.set_password("x@example.org", "p").await), "there is no account x@example.org");
    assert!(told(directory.remove_account("quarantine@example.org").await).contains("only an account of a person"));
}

#[tokio::test]
async fn a_number_is_never_given_twice() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path()).await;
    let number = async || directory.account("erin@example.org").await.unwrap().unwrap().id;
    let before = number().await;
    directory.remove_account("erin@example.org").await.unwrap();
    add(&directory, "erin@example.org", Kind::User).await.unwrap();
    assert!(number().await > before);
}

/// Its mail is in the store still, under that number.
#[tokio::test]
async fn a_directory_from_a_backup_gives_no_number_again() {
    let (folder, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let directory = directory(folder.path()).await;
    let copy = backup.path().join("directory.db").display().to_string();
    sqlx::query("VACUUM INTO ?").bind(copy).execute(&directory.inner.master.pool).await.unwrap();
    add(&directory, "frank@example.org", Kind::User).await.unwrap();
    let first = directory.account("frank@example.org").await.unwrap().unwrap().id;
    let directory = Directory::open(config(backup.path())).await.unwrap();
    add(&directory, "grace@example.org", Kind::User).await.unwrap();
    assert!(directory.account("grace@example.org").await.unwrap().unwrap().id > first);
}

/// An import had taken numbers ahead; the next account got one that a directory from a backup would have given again.
#[tokio::test]
async fn an_account_behind_an_import_has_no_number_ahead_of_the_clock() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path()).await;
    let ahead = async |milliseconds: i64| {
        let last = i64::try_from(runtime::clock::now().0).unwrap() + milliseconds;
        sqlx::query("UPDATE account_numbers SET last = ?")
            .bind(last)
            .execute(&directory.inner.master.pool)
            .await
            .unwrap();
    };
    ahead(1000).await;
    add(&directory, "frank@example.org", Kind::User).await.unwrap();
    let number = directory.account("frank@example.org").await.unwrap().unwrap().id;
    assert!(number <= i64::try_from(runtime::clock::now().0).unwrap());
    ahead(3_600_000).await;
    let error = add(&directory, "grace@example.org", Kind::User).await.unwrap_err().to_string();
    assert!(error.contains("ahead of the clock"), "{error}");
    assert_eq!(directory.account("grace@example.org").await.unwrap(), None);
    // Before minutes are spent on the passwords.
    let lines = import::read("grace@example.org hunter2").unwrap();
    let error = directory.check_import(&lines).await.unwrap_err().to_string();
    assert!(error.contains("ahead of the clock"), "{error}");
}

/// What is remembered says that there is no such account, or another one; the master knows better.
#[tokio::test]
async fn no_account_is_taken_for_gone_by_an_old_memory() {
    let folder = tempfile::tempdir().unwrap();
    let long = Duration::from_secs(3600);
    let config = Config { fresh_for: long, absent_for: long, ..config(folder.path()) };
    let (here, elsewhere) = (directory(folder.path()).await, Directory::open(config).await.unwrap());
    assert!(elsewhere.account("frank@example.org").await.unwrap().is_none());
    add(&here, "frank@example.org", Kind::User).await.unwrap();
    let first = here.account("frank@example.org").await.unwrap().unwrap().id;
    assert!(elsewhere.account("frank@example.org").await.unwrap().is_none(), "it is remembered so");
    assert!(elsewhere.still_has("frank@example.org", first).await.unwrap());
    here.remove_account("frank@example.org").await.unwrap();
    assert!(!here.still_has("frank@example.org", first).await.unwrap());
    add(&here, "frank@example.org", Kind::User).await.unwrap();
    assert!(!here.still_has("frank@example.org", first).await.unwrap(), "another one of this address");
}

/// Whoever holds on to an account hears of what others do with it, and looks again if something may have been missed.
#[tokio::test]
async fn changes_are_heard() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path()).await;
    let mut changes = directory.changes();
    let before = directory.account("alice@example.org").await.unwrap().unwrap();
    assert!(before.still_lets_in(Some(&before)) && !before.still_lets_in(None));
    directory.add_domain("third.example", None, None).await.unwrap();
    directory.set_status("alice@example.org", Status::Suspended).await.unwrap();
    assert_eq!(changes.next().await, Changed::Account("alice@example.org".into()));
    assert!(!before.still_lets_in(directory.account("alice@example.org").await.unwrap().as_ref()));
    directory.set_status("alice@example.org", Status::Active).await.unwrap();
    assert!(before.still_lets_in(directory.account("alice@example.org").await.unwrap().as_ref()));
    directory.set_password("alice@example.org", "secret").await.unwrap();
    assert!(!before.still_lets_in(directory.account("alice@example.org").await.unwrap().as_ref()), "it may be stolen");
    directory.forget_all();
    let mut heard = Vec::new();
    while heard.last() != Some(&Changed::Any) {
        heard.push(changes.next().await);
    }
    assert_eq!(heard.len(), 3);
    tokio::time::timeout(Duration::from_secs(60), changes.next()).await.unwrap();
}

/// The broker was away when the account was removed: what others remember of it has an end.
#[tokio::test]
async fn a_removal_that_was_not_announced_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { fresh_for: Duration::from_millis(100), ..config(folder.path()) };
    let (here, elsewhere) = (directory(folder.path()).await, Directory::open(config).await.unwrap());
    let account = elsewhere.authenticate("erin@example.org", "secret").await.unwrap().unwrap().id;
    here.remove_account("erin@example.org").await.unwrap();
    let asked = async || {
        while elsewhere.recognise("erin@example.org", "secret").await.unwrap().is_some()
            || elsewhere.still_has("erin@example.org", account).await.unwrap()
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), asked()).await.unwrap();
}

/// It had the domain and not its accounts, and no later run made them.
#[tokio::test]
async fn a_first_run_that_breaks_off_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open(config(folder.path())).await.unwrap();
    let (password, store, kind) = (Secret::new("known"), "s1", Kind::User);
    let new =
        |address| NewAccount { address, password: password.clone(), store, kind, quota_bytes: 0, quota_messages: 0 };
    let twice = [new("alice@example.org"), new("Alice@example.org")];
    directory.make_first_run("example.org", &twice).await.unwrap_err();
    assert!(directory.is_empty().await.unwrap() && directory.first_run().await.unwrap().is_empty());
    directory.make_first_run("Example.org", &[new("alice@example.org"), new("bob@example.org")]).await.unwrap();
    assert!(directory.authenticate("bob@example.org", "known").await.unwrap().is_some());
    assert_eq!(directory.first_run().await.unwrap(), ["alice@example.org", "bob@example.org"]);
}

/// Its tables were added to those of another program, and the mode of its journal was changed.
#[tokio::test]
async fn a_database_of_something_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new().create_if_missing(true);
    let options = options.filename(folder.path().join("directory.db"));
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    sqlx::query("CREATE TABLE pictures (id INTEGER)").execute(&pool).await.unwrap();
    let file = folder.path().join("directory.db");
    let before = std::fs::read(&file).unwrap();
    let error = Directory::open(config(folder.path())).await.err().unwrap().to_string();
    assert!(std::fs::read(&file).unwrap() == before, "its bytes have changed");
    assert!(error.contains("a database of something else, with a table \"pictures\""), "{error}");
    let tables = sqlx::query("SELECT name FROM sqlite_schema").fetch_all(&pool).await.unwrap();
    assert_eq!(tables.len(), 1);
}

#[tokio::test]
async fn an_answer_from_before_a_change_is_not_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path()).await;
    let alice = directory.account("alice@example.org").await.unwrap().unwrap();
    let change = directory.remove_account("alice@example.org").await.unwrap();
    let slow = async {
        directory.forget(&change);
        Ok(crate::master::Entry::Account(alice.clone()))
    };
    directory.inner.cache.get("address:alice@example.org".to_owned(), slow).await.unwrap();
    assert!(!directory.still_has("alice@example.org", alice.id).await.unwrap());
}

/// Every connection is in use: whoever asks waits for the deadline.
#[tokio::test]
async fn a_mail_does_not_wait_for_a_master_that_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let hour = Duration::from_secs(3600);
    drop(directory(folder.path()).await);
    let directory = Directory::open(Config { deadline: hour, fresh_for: hour, ..config(folder.path()) }).await.unwrap();
    let alice = directory.account("alice@example.org").await.unwrap().unwrap().id;
    let mut busy = Vec::new();
    while busy.len() < 4 {
        busy.push(directory.inner.master.pool.acquire().await.unwrap());
    }
    let at_once = async |account| {
        let asked = directory.still_has("alice@example.org", account);
        tokio::time::timeout(Duration::from_secs(1), asked).await.ok().map(Result::unwrap)
    };
    assert_eq!(at_once(alice).await, Some(true), "it is remembered");
    assert_eq!(at_once(alice + 1).await, None, "no is not said from memory");
    directory.forget_all();
    assert_eq!(at_once(alice).await, None, "a change may have been missed");
    drop(busy);
    assert_eq!(at_once(alice).await, Some(true));
}

async fn imported(directory: &Directory, list: &str) -> anyhow::Result<Vec<Change>> {
    let lines = import::read(list)?;
    directory.check_import(&lines).await?;
    directory.import(&import::hash_all(&lines)?, "s2").await
}

/// Each was found only after all passwords were hashed, one for each try, and without its line.
#[tokio::test]
async fn whoever_cannot_be_made_is_told_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path()).await;
    let list = "# x\nalice@example.org aaa\nnew@example.org aaa\nx@elsewhere.example aaa\ntwo@example.org aaa\n";
    let told = directory.check_import(&import::read(list).unwrap()).await.unwrap_err().to_string();
    let want = [
        "line 2: alice@example.org exists already",
        "line 4: the domain elsewhere.example does not exist; make it with: chainmail domain add elsewhere.example",
        "line 5: two@example.org exists already",
    ];
    assert_eq!(told, want.join("\n"));
    directory.inner.master.pool.close().await;
    assert!(directory.check_import(&import::read(list).unwrap()).await.unwrap_err().is::<Unsure>());
}

/// The import waits for its numbers: its accounts were made in a domain that was gone, or in the place of an alias.
#[tokio::test]
async fn what_has_changed_since_an_import_looked_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path()).await;
    directory.add_domain("third.example", None, None).await.unwrap();
    for (list, want) in [
        ("new@example.org aaa\nx@third.example aaa\n", "the domain third.example is not there any more"),
        ("new@example.org aaa\ny@example.org aaa\n", "y@example.org exists already"),
    ] {
        let lines = import::read(list).unwrap();
        directory.check_import(&lines).await.unwrap();
        let accounts = import::hash_all(&lines).unwrap();
        if want.contains("third") {
            directory.remove_domain("third.example").await.unwrap();
        } else {
            directory.add_alias("y@example.org", "alice@example.org").await.unwrap();
        }
        assert_eq!(directory.import(&accounts, "s2").await.unwrap_err().to_string(), want);
        assert_eq!(directory.account("new@example.org").await.unwrap(), None);
    }
}

/// A list whose columns are swapped begins with passwords.
#[test]
fn all_that_is_wrong_is_told_and_no_password() {
    let told = import::read("hunter2 a@example.org\n\nb@example.org $ecret$1\nc@example.org good\nhunter3\n");
    let want = "line 1: it does not begin with an address: the @ is missing\nline 3: this is a hash of another kind";
    let told = told.unwrap_err().to_string();
    assert!(told.starts_with(want) && told.ends_with("\nline 5: no password follows the address"), "{told}");
    assert!(!told.contains("hunter") && !told.contains("ecret"));
    let told = import::read(&"x y\n".repeat(25)).unwrap_err().to_string();
    assert!(told.lines().count() == 21 && told.ends_with("\nand 5 more lines are wrong"), "{told}");
}

#[tokio::test]
async fn many_accounts_are_made_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path()).await;
    let ready = crate::login::hash("ready").unwrap();
    let list = format!("# moved in\n  new@example.org \t two  words\n \nHashed@example.org\t{ready}\n");
    let changes = imported(&directory, &list).await.unwrap();
    assert_eq!(
        changes.iter().map(Change::key).collect::<Vec<_>>(),
        ["address:new@example.org", "address:hashed@example.org"]
    );
    for (address, password) in [("new@example.org", "two  words"), ("hashed@example.org", "ready")] {
        let account = directory.authenticate(address, password).await.unwrap().unwrap();
        assert_eq!((account.store.as_str(), account.kind, account.status), ("s2", Kind::User, Status::Active));
        assert!(account.id <= i64::try_from(runtime::clock::now().0).unwrap(), "the number lies before the clock");
    }
    // Nobody is made when somebody cannot be.
    for list in ["other@example.org aaa\nnew@example.org bbb\n", "other@example.org aaa\nx@elsewhere.example bbb\n"] {
        imported(&directory, list).await.unwrap_err();
        assert_eq!(directory.account("other@example.org").await.unwrap(), None);
    }
    let mut numbers: Vec<i64> = directory.accounts("").await.unwrap().iter().map(|account| account.id).collect();
    let count = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), count);
}

#[test]
fn lists_that_are_wrong() {
    for (list, want) in [
        ("a@example.org", "line 1: no password follows the address"),
        ("a@example.org xyz\n\nnobody xyz\n", "line 3: it does not begin with an address: the @ is missing"),
        ("a@example.org ", "line 1: an account needs a password"),
        ("a+b@example.org xyz", "line 1: its address holds a plus sign, which separates the tag of an address"),
        ("a@example.org xyz\nA@example.org xyz\n", "line 2: a@example.org stands in line 1 already"),
        ("a@example.org $argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ", "line 1: the hash is not whole"),
        ("a@example.org $argon2id$v=x$y", "line 1: the hash cannot be read: "),
        ("a@example.org $argon2id$v=7$m=64,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo", "line 1: the hash cannot be read: "),
        ("a@example.org $argon2id$v=19$m=1,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo", "line 1: the hash cannot be read: "),
        (
            "a@example.org $argon2id$v=19$m=64,t=1,p=1$c2FsdA$aGFzaGhhc2hoYXNo",
            "line 1: the salt of the hash is shorter",
        ),
        ("a@example.org x ", "line 1: a blank that nobody sees ends the password"),
        ("a@example.org x\t\r\n", "line 1: a blank that nobody sees ends the password"),
    ] {
        let told = format!("{:#}", import::read(list).unwrap_err());
        assert!(told.starts_with(want), "{told}");
    }
    assert_eq!(import::read("").unwrap(), []);
}

/// One login could take 4 GiB, and whoever knew the address could try as often as they liked.
#[test]
fn a_ready_hash_has_a_price_that_is_bounded() {
    for (costs, want) in [
        ("m=262144,t=3,p=16", None),
        ("m=65536,t=10,p=4", None),
        // One address of such an account kept everybody else from logging in.
        ("m=262144,t=10,p=1", Some("2621440 KiB in all passes (m*t=2621440), and 786432 at most")),
        ("m=262145,t=1,p=1", Some("262145 KiB of memory (m=262145), and 262144 at most")),
        ("m=4194304,t=1,p=1", Some("4194304 KiB of memory (m=4194304), and 262144 at most")),
        ("m=64,t=11,p=1", Some("11 passes (t=11), and 10 at most")),
        ("m=1024,t=1,p=17", Some("17 lanes (p=17), and 16 at most")),
    ] {
        let read = import::read(&format!("a@example.org $argon2id$v=19${costs}$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo"));
        match (read, want) {
            (Ok(_), None) => {}
            (Err(error), Some(want)) => {
                let told = format!("{error:#}");
                assert!(told.starts_with("line 1: each login would take ") && told.contains(want), "{told}");
            }
            (read, _) => panic!("{costs}: {read:?}"),
        }
    }
}

/// `"frank"@x` was kept so before it was known for `frank@x`, and nobody found it any more.
#[tokio::test]
async fn what_was_kept_with_needless_quotes_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let before = directory(folder.path()).await;
    for name in ["frank", "grace", "henry"] {
        add(&before, &format!("{name}@example.org"), Kind::User).await.unwrap();
    }
    let keep = async |sql: &'static str| {
        sqlx::query(sql).execute(&before.inner.master.pool).await.unwrap();
    };
    keep(r#"UPDATE accounts SET address = '"frank"@example.org' WHERE address = 'frank@example.org'"#).await;
    keep(r#"UPDATE accounts SET address = '"al.ice"@example.org' WHERE address = 'grace@example.org'"#).await;
    keep(r#"UPDATE accounts SET address = '"a b"@example.org' WHERE address = 'henry@example.org'"#).await;
    keep("INSERT INTO aliases VALUES ('al.ice@example.org', 'bob@example.org')").await;
    keep(r#"INSERT INTO aliases VALUES ('"tw\o"@example.org', 'carol@example.org')"#).await;
    keep(r#"INSERT INTO aliases VALUES ('"two"@example.org', 'bob@example.org')"#).await;
    keep(r#"INSERT INTO aliases VALUES ('all@example.org', '"frank"@example.org')"#).await;
    drop(before);
    // As often as it is opened.
    drop(Directory::open(config(folder.path())).await.unwrap());
    let directory = Directory::open(config(folder.path())).await.unwrap();
    for (address, want) in [
        (r#""frank"@example.org"#, &["frank@example.org"][..]),
        ("frank@example.org", &["frank@example.org"]),
        (r#""a b"@example.org"#, &[r#""a b"@example.org"#]),
        // It is the alias's, and was before.
        ("al.ice@example.org", &["bob@example.org"]),
        ("two@example.org", &["alice@example.org", "bob@example.org", "carol@example.org"]),
    ] {
        let targets = directory.expand(address).await.unwrap().targets;
        let found: Vec<_> = targets.iter().map(|target| target.account.address.as_str()).collect();
        assert_eq!(found, want, "{address}");
    }
    assert!(directory.authenticate("frank@example.org", "secret").await.unwrap().is_some());
    directory.remove_alias("all@example.org", Some(r#""frank"@example.org"#)).await.unwrap();
    // The one that nobody finds goes by its own spelling alone, and the other stays.
    assert!(directory.remove_account("al.ice@example.org").await.is_err());
    directory.remove_account(r#""al.ice"@example.org"#).await.unwrap();
    assert_eq!(directory.accounts("al.ice").await.unwrap(), []);
    assert_eq!(directory.expand("al.ice@example.org").await.unwrap().targets.len(), 1);
    assert!(directory.remove_account(r#""al.ice"@example.org"#).await.is_err(), "there is none any more");
}
