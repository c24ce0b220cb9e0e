// The page: the question, its history, and the answer to it.

import { Component, html, render } from "./preact-htm.js";
import { Plan, Refusal, Search } from "./drawing.js";
import { Form } from "./form.js";
import { Solver } from "./solver.js";

const SETTLED_MS = 150;
const REST_MS = 350;

const encode = (question) => btoa(String.fromCharCode(...new TextEncoder().encode(JSON.stringify(question))));
const decode = (text) => JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))));

function save(name, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: "application/json" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const WORDS = { optimal: "optimal, proven", feasible: "a plan, not proven the best", infeasible: "proven infeasible" };

// Where the answer is below the form: its state and figures, in sight while the form is.
function Summary({ answer, error, running, stale, show }) {
  const waits = running || stale;
  const refused = answer?.status === "infeasible";
  return html`<div class="summary" id="summary"><span>
      ${error ? html`<strong class="bad">no answer: see below</strong>` : waits || !answer ? html`<strong>solving ...</strong>` : html`
        <strong class=${refused ? "bad" : "good"}>${WORDS[answer.status]}</strong>
        ${refused ? html` <span>repairs: ${answer.repairs.length}</span>` : answer.figures.slice(0, 3).map((one) => html` <span key=${one.name}>${one.name} <b>${one.value}</b></span>`)}`}
    </span><button type="button" onClick=${show}>Show the answer</button></div>`;
}

class Page extends Component {
  constructor() {
    super();
    this.state = { library: null, opened: null, question: null, past: [], future: [], asked: null, answer: null, rest: null,
      error: null, running: false, slow: false, known: [], stage: null, said: "", stale: false };
    this.solver = new Solver((message, asked) => this.hear(message, asked));
  }

  async componentDidMount() {
    const library = await (await fetch("library")).json();
    this.setState({ library });
    let shared = null;
    try {
      shared = location.hash.length > 1 ? decode(location.hash.slice(1)) : null;
    } catch {
      this.setState({ said: "the link is cut short; the page begins anew" });
    }
    const opened = await (await fetch(shared ? "opened/" + encodeURIComponent(shared.source) : "opened")).json();
    if (opened.kind === "opened") this.begin(opened, shared || opened.question);
    else if (shared) this.setState({ error: "the file of this link is not open here: open it again" });
  }

  begin(opened, question) {
    this.setState({ opened, question, past: [], future: [], answer: null, rest: null, error: null });
    this.solve(question);
  }

  // Each change is a step that can be undone; a slider that moves is one step.
  change = (question) => {
    const now = performance.now(), { past } = this.state;
    const same = now - (this.changed || 0) < 400;
    this.changed = now;
    this.setState({ past: same && past.length ? past : [...past, this.state.question], future: [] });
    this.solve(question);
  };

  undo = () => {
    const { past, future, question } = this.state;
    this.setState({ past: past.slice(0, -1), future: [question, ...future] });
    this.solve(past.at(-1));
  };

  redo = () => {
    const { past, future, question } = this.state;
    this.setState({ past: [...past, question], future: future.slice(1) });
    this.solve(future[0]);
  };

  solve(question) {
    this.setState({ question, stale: true });
    history.replaceState(null, "", "#" + encode(question));
    clearTimeout(this.settling);
    clearTimeout(this.resting);
    this.settling = setTimeout(() => this.solver.ask(question), SETTLED_MS);
  }

  hear(message, { question, rest }) {
    if (message.kind === "began") {
      this.setState({ running: true, known: [], stage: null });
      clearTimeout(this.slowing);
      this.slowing = setTimeout(() => this.setState({ slow: true }), 500);
    } else if (message.kind === "progress") this.setState({ stage: message });
    else if (message.kind === "bound") this.setState({ known: [...this.state.known.filter((one) => one.objective !== message.objective), message] });
    else if (message.kind === "asked") this.setState({ asked: message });
    else if (message.kind === "answer") {
      const stale = question !== this.state.question;
      this.done({ answer: message, rest: rest ? this.state.rest : null, error: null, stale });
      if (!rest && !stale) this.resting = setTimeout(() => this.solver.ask(question, true), REST_MS);
    } else if (message.kind === "rest" && question === this.state.question) this.setState({ rest: message });
    else if (message.kind === "error" && rest) this.setState({ said: message.message });
    else if (message.kind === "error") this.done({ error: message.message, answer: null, rest: null });
    else if (message.kind === "cancelled" && !rest) this.done({ said: "cancelled", answer: null, rest: null, stale: false });
  }

  done(changed) {
    clearTimeout(this.slowing);
    this.setState({ running: false, slow: false, said: "", ...changed });
  }

  open = async (event) => {
    const file = event.target.files[0];
    event.target.value = "";
    if (!file) return;
    let content;
    try {
      content = JSON.parse(await file.text());
    } catch (error) {
      return this.setState({ error: file.name + " is not JSON: " + error.message });
    }
    const body = JSON.stringify({ name: file.name, content });
    const response = await fetch("open", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    const opened = await response.json();
    if (response.ok) this.begin(opened, opened.question);
    else this.setState({ error: opened.message });
  };

  copy = async (text, what) => {
    try {
      await navigator.clipboard.writeText(text);
      this.setState({ said: what + " copied" });
    } catch {
      this.setState({ said: "the browser does not let the page copy: mark the text" });
    }
  };

  savePartition = async () => {
    const { opened } = this.state;
    save(opened.file, await (await fetch("partition/" + opened.id)).text());
  };

  render(_, state) {
    const { library, opened, question } = state;
    if (!library) return html`<p class="pad">One moment.</p>`;
    return html`
      <header><h1>nonn-plan: what if</h1>
        <span class="file">${opened ? `${opened.file}: ${opened.filters} filters in ${opened.communities.length} communities` : "no file is open"}</span>
        <button type="button" onClick=${this.undo} disabled=${!state.past.length}>Undo</button>
        <button type="button" onClick=${this.redo} disabled=${!state.future.length}>Redo</button>
        <button type="button" onClick=${() => this.copy(location.href, "link")} disabled=${!question}
          title="This page as it stands, as long as this server runs">Copy link</button>
        <button type="button" onClick=${() => save("plan.json", JSON.stringify(state.rest.plan, null, 2) + "\n")} disabled=${!state.rest}
          title="The plan, as the command writes it; nonn-plan ui plan.json opens it again">Save plan.json</button>
        <button type="button" onClick=${() => this.file.click()}>Open a file</button>
        <input type="file" hidden accept=".json,application/json" aria-label="plan.json or partition.json" ref=${(one) => (this.file = one)} onChange=${this.open} />
      </header>
      <main>${question ? html`
        <div><div class="column"><${Form} question=${question} library=${{ ...library, apart: opened.apart }} change=${this.change} /></div>
          <${Summary} ...${state} show=${() => this.column.scrollIntoView()} /></div>
        <div class="column" aria-busy=${state.running} ref=${(one) => (this.column = one)}>${this.answerColumn(state)}</div>` : html`
        <section class="card"><h2>Open a plan.json or a partition.json</h2>
          <p>Nothing leaves this machine: files are read by the server that runs here.</p>
          ${state.error && html`<p class="error" role="alert">${state.error}</p>`}</section>`}
      </main>`;
  }

  answerColumn({ answer, rest, error, asked, running, slow, known, stage, stale, said, opened }) {
    return html`
      <section class="card" aria-label="state">
        <div class="status" role="status" id="status" data-state=${running || stale ? (error ? "error" : "busy") : error ? "error" : answer ? answer.status : "none"}>
          ${running || (stale && !said && !error) ? html`<strong>solving ...</strong>` : answer && !stale ? html`<strong class=${answer.status === "infeasible" ? "bad" : "good"}>${WORDS[answer.status]}</strong>
            <span class="quiet">${answer.seconds.toFixed(2)} s</span>` : ""}
          ${running && slow && html`<button type="button" class="strong" onClick=${() => this.solver.cancel()}>Cancel</button>`}
          <span class="quiet">${said}</span>
        </div>
        ${error && html`<p class="error" role="alert">${error}</p>`}
        ${asked && html`<pre id="command" tabindex="0" aria-label="the command that asks the same">${asked.command}</pre>
          <div class="row"><button type="button" onClick=${() => this.copy(asked.command, "command")}>Copy the command</button>
          ${asked.fleet_file && html`<button type="button" onClick=${() => save("fleet.json", asked.fleet_file)}>Save its fleet.json</button>`}
          ${opened.notes.length > 0 && html`<button type="button" onClick=${this.savePartition}>Save ${opened.file}</button>`}</div>`}
        ${(opened.notes.length > 0 || answer?.warnings?.length > 0) && html`<ul class="warnings">
          ${[...opened.notes, ...(answer?.warnings || [])].map((one) => html`<li>${one}</li>`)}</ul>`}
      </section>
      ${running && slow && html`<${Search} known=${known} stage=${stage} />`}
      ${answer && !error && (answer.status === "infeasible" ? html`<${Refusal} ...${{ answer, rest }} take=${this.change} />` : html`<${Plan} ...${{ answer, rest }} />`)}`;
  }
}

render(html`<${Page} />`, document.getElementById("page"));
