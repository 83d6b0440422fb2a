// Node's @parse/node-apn: one notification to many recipients at a time.
const fs = require("node:fs");
const apn = require("@parse/node-apn");

const AT_ONCE = 1000;

async function main() {
  const job = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
  const tokens = fs.readFileSync(job.tokens_file, "utf8").split(/\s+/).filter(Boolean);
  const at = new URL(job.info.url);
  const provider = new apn.Provider({
    token: { key: job.info.key_file, keyId: job.info.key_id, teamId: job.info.team_id },
    production: true,
    address: at.hostname,
    port: Number(at.port),
    ca: fs.readFileSync(job.info.ca_file),
  });
  const notification = new apn.Notification({
    topic: job.info.topic,
    pushType: "alert",
    alert: { title: job.title, body: job.body },
    payload: job.data,
  });
  const send = async (to) => (await provider.send(notification, to)).sent.length;
  if ((await send(tokens.slice(0, 1))) !== 1) throw new Error("node-apn's push was not accepted");
  const began = process.hrtime.bigint();
  const spent = process.cpuUsage();
  const passed = () => Number(process.hrtime.bigint() - began) / 1e9;
  let accepted = 0;
  for (let start = 0; start < tokens.length && passed() < job.seconds; start += AT_ONCE) {
    accepted += await send(tokens.slice(start, start + AT_ONCE));
  }
  const cpu = process.cpuUsage(spent);
  console.log(
    JSON.stringify({ accepted, seconds: passed(), cpu_seconds: (cpu.user + cpu.system) / 1e6 }),
  );
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
