// A Restate service whose one handler is a chain of N durable steps, each of which adds one: service.mjs PORT.
// Restate calls it over HTTP/2 and journals each step's result before the next one begins.

// The SDK uses this since Node 22; Node 20 does not have it.
Promise.withResolvers ??= function () {
  let resolve, reject;
  const promise = new this((yes, no) => ([resolve, reject] = [yes, no]));
  return { promise, resolve, reject };
};

const restate = await import("@restatedev/restate-sdk");

const chain = restate.service({
  name: "Chain",
  handlers: {
    run: async (context, steps) => {
      let value = 0;
      for (let step = 0; step < steps; step++) {
        const before = value;
        value = await context.run(`step ${step}`, async () => before + 1);
      }
      return value;
    },
  },
});

await restate.serve({ services: [chain], port: Number(process.argv[2]) });
