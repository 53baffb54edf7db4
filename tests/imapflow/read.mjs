// imapflow as a client: lists, appends, searches, hears of a new message while it waits, moves, flags and deletes. What it
// has seen goes to the standard output as JSON, one line for each thing; tests/tests/imap_readers.rs looks at it.
import { ImapFlow } from 'imapflow';

const [host, port, user, pass, box] = process.argv.slice(2);
const options = {
    host, port: Number(port), secure: false, auth: { user, pass }, tls: { rejectUnauthorized: false }, logger: false,
};
const say = (what, value) => console.log(JSON.stringify({ what, value }));
const mail = (subject) => `From: a@b.example\r\nTo: ${user}\r\nSubject: ${subject}\r\n\r\nHello ${subject}\r\n`;

const client = new ImapFlow(options);
await client.connect();
say('secure', client.secureConnection);
say('folders', (await client.list()).map((folder) => folder.path).sort());
for (const subject of ['one', 'two', 'three']) {
    await client.append('INBOX', mail(subject), subject === 'two' ? ['\\Seen', '$Work'] : []);
}
const lock = await client.getMailboxLock('INBOX');
say('exists', client.mailbox.exists);
const seen = [];
for await (const message of client.fetch('1:*', { uid: true, flags: true, envelope: true, source: true, bodyStructure: true })) {
    seen.push([message.envelope.subject, [...message.flags].filter((flag) => flag !== '\\Recent').sort(),
        message.source.toString().endsWith(`Hello ${message.envelope.subject}\r\n`), message.bodyStructure.type]);
}
say('fetched', seen);
say('searched', await client.search({ subject: 'two' }));
say('unseen', await client.search({ seen: false }));

// Somebody else appends: told while this one is idle.
const heard = new Promise((resolve) => client.once('exists', (event) => resolve(event.count)));
const idling = client.idle();
const other = new ImapFlow(options);
await other.connect();
await other.append('INBOX', mail('four'));
await other.logout();
say('heard', await heard);

say('flagged', await client.messageFlagsAdd('1', ['\\Flagged', '\\Seen']));
say('moved', Boolean(await client.messageMove('2', box)));
say('copied', Boolean(await client.messageCopy('1', box)));
say('deleted', await client.messageDelete('2'));
const left = [];
for await (const message of client.fetch('1:*', { flags: true, envelope: true })) {
    left.push([message.envelope.subject, [...message.flags].filter((flag) => flag !== '\\Recent').sort()]);
}
say('left', left);
lock.release();
await idling.catch(() => {});
const status = await client.status(box, { messages: true, unseen: true });
say('status', [status.messages, status.unseen]);
await client.logout();
