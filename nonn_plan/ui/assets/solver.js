// Questions to the server, one at a time: the latest one counts, and a long one makes way for it.

const PATIENCE_MS = 900;

async function lines(response, each) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    parts.forEach((part) => each(JSON.parse(part)));
  }
}

export class Solver {
  constructor(hear) {
    this.hear = hear;
    this.running = null;
    this.waiting = null;
  }

  // Ask a question: what `nonn-plan plan` answers at once, and with `rest` all that it writes.
  ask(question, rest = false) {
    this.waiting = { question, rest };
    if (!this.running) return this.next();
    clearTimeout(this.timer);
    const since = performance.now() - this.running.began;
    this.timer = setTimeout(() => this.running?.stop.abort(), Math.max(0, PATIENCE_MS - since));
  }

  cancel() {
    this.waiting = null;
    this.running?.stop.abort();
  }

  async next() {
    const asked = this.waiting;
    this.waiting = null;
    clearTimeout(this.timer);
    if (!asked) return;
    const run = { began: performance.now(), stop: new AbortController() };
    this.running = run;
    if (!asked.rest) this.hear({ kind: "began" }, asked);
    try {
      const response = await fetch("answer", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(asked),
        signal: run.stop.signal,
      });
      if (response.ok) await lines(response, (message) => this.hear(message, asked));
      else this.hear(await response.json(), asked);
    } catch (error) {
      const stopped = error.name === "AbortError";
      const ended = { kind: this.waiting ? "replaced" : "cancelled" };
      this.hear(stopped ? ended : { kind: "error", message: LOST }, asked);
    }
    this.running = null;
    if (this.waiting) this.next();
    else this.hear({ kind: "idle" }, asked);
  }
}

const LOST = "the server does not answer: is `nonn-plan ui` still running?";
