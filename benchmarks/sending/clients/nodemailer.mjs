// Nodemailer with its pool: as many connections as ordered, each for any number of mails.
//
//     node nodemailer.mjs FOLDER ORDER
//
// FOLDER is where it is installed. It imports first and then starts the clock, like all others.

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";

const order = JSON.parse(process.argv[3]);
const nodemailer = createRequire(`${process.argv[2]}/`)("nodemailer");
const LINE = "The quick brown fox jumps over the lazy dog and runs off home again.\n";

const memory = (field) =>
  Number(readFileSync("/proc/self/status", "ascii").match(new RegExp(`^${field}:\\s+(\\d+)`, "m"))[1]) * 1024;

function mail(number) {
  const to = Array.from({ length: order.recipients }, (_, n) => `user${number}.${n}@corp.example`);
  const common = { from: "etl@corp.example", to };
  if (order.rows) {
    const [name, address, amount] = lines[number].split(",");
    const movements = Array.from({ length: 10 }, (_, n) => `<tr><td>${n + 1}</td><td>${name}</td><td>${amount}</td></tr>\n`);
    return {
      ...common,
      to: address,
      subject: `Statement for ${name}`,
      html: `<html><body><p>Dear ${name},</p><p>your balance is ${amount}. The last movements:</p><table>
${movements.join("")}</table><p>Yours,<br>the treasury</p></body></html>`,
      attachments: [{ path: order.file }],
    };
  }
  if (order.file) return { ...common, subject: `Mail ${number}`, attachments: [{ path: order.file }] };
  const text = `Mail ${number}\n` + LINE.repeat(order.octets / LINE.length + 1);
  return { ...common, subject: `Mail ${number}`, text: text.slice(0, order.octets - 1) + "\n" };
}

writeFileSync("/proc/self/clear_refs", "5");
const held = memory("VmRSS");
const cpuBefore = process.cpuUsage();
const wallBefore = process.hrtime.bigint();

const lines = order.rows ? readFileSync(order.rows, "utf8").split("\n").slice(1) : [];
const pool = nodemailer.createTransport({
  pool: true,
  host: "127.0.0.1",
  port: order.port,
  maxConnections: order.connections,
  maxMessages: Infinity,
  secure: false,
  ignoreTLS: !order.tls,
  requireTLS: order.tls,
});
let next = 0;
let sent = 0;
async function keepBusy() {
  while (next < order.mails) {
    const info = await pool.sendMail(mail(next++));
    sent += info.rejected.length ? 0 : 1;
  }
}
// One more in flight than there are connections for each, so that none waits for us.
await Promise.all(Array.from({ length: 2 * order.connections }, keepBusy));
pool.close();

const wall = Number(process.hrtime.bigint() - wallBefore) / 1e9;
const cpu = process.cpuUsage(cpuBefore);
console.log(JSON.stringify({ sent, wall, cpu: (cpu.user + cpu.system) / 1e6, peak: memory("VmHWM") - held }));
