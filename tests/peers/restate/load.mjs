// Clients in closed loops against Restate's ingress: load.mjs PORT STEPS AT_ONCE WARM_UP_SECONDS SECONDS.
// Each asks for a chain on a connection of its own and waits for its result. Prints `warm` when what
// counts begins, and then one line of JSON.

import http from "node:http";

const [port, steps, atOnce, warmUp, seconds] = process.argv.slice(2).map(Number);
const agent = new http.Agent({ keepAlive: true, maxSockets: atOnce });

function chain() {
  return new Promise((resolve, reject) => {
    const options = { host: "127.0.0.1", port, path: "/Chain/run", method: "POST", agent };
    const request = http.request({ ...options, headers: { "content-type": "application/json" } }, (response) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (piece) => (body += piece));
      response.on("end", () => {
        if (response.statusCode === 200 && Number(body) === steps) resolve();
        else reject(new Error(`${response.statusCode}: ${body}`));
      });
    });
    request.on("error", reject);
    request.end(String(steps));
  });
}

async function loops(duration) {
  const times = [];
  const began = performance.now();
  const client = async () => {
    while (performance.now() - began < duration * 1000) {
      const one = performance.now();
      await chain();
      times.push(performance.now() - one);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, client));
  return { times, seconds: (performance.now() - began) / 1000 };
}

await loops(warmUp);
console.log("warm");
const { times, seconds: took } = await loops(seconds);
times.sort((a, b) => a - b);
console.log(JSON.stringify({ runs: times.length, seconds: took, p50_ms: times[Math.floor(times.length / 2)] }));
process.exit(0);
