// The question as a form: boards with their budgets, the objective, and all other options.

import { html, useState } from "./preact-htm.js";
import { PLACES, parse, place, valueAt, write } from "./quantity.js";

const FIRST_BUDGETS = ["memory", "flops"]; // the two of Eq. 2
const APART = ["flash", "ram"]; // of devices that have them apart
const AGREED = (texts) => (new Set(texts).size === 1 ? texts[0] : "");

export function Form({ question, library, change }) {
  return html`
    <section class="card" aria-labelledby="boards-title">
      <h2 id="boards-title">Boards and budgets</h2>
      <${AllBoards} ...${{ question, library, change }} />
      ${question.boards.map((board, index) => html`
        <${Board} key=${board.name + index} ...${{ board, index, question, library, change }} />`)}
      <${MoreBoards} ...${{ question, library, change }} />
    </section>
    <section class="card" aria-labelledby="objective-title">
      <h2 id="objective-title">Objective, most important first</h2>
      <${Objective} ...${{ question, library, change }} />
    </section>
    <section class="card" aria-labelledby="options-title">
      <h2 id="options-title">Students and requirements</h2>
      <${Options} ...${{ question, library, change }} />
    </section>`;
}

// Boards are called as the command would call them, where their names are of that kind.
export function renamed(boards) {
  if (!boards.every((board) => board.name.replace(/-[0-9]+$/, "") === board.device && !board.via)) return boards;
  const groups = new Map();
  for (const board of boards) {
    const key = [board.device, board.points, board.link].join(" ");
    groups.set(key, [...(groups.get(key) || []), board]);
  }
  const counts = {};
  return [...groups.values()].flat().map((board) => {
    counts[board.device] = (counts[board.device] || 0) + 1;
    return { ...board, name: board.device + "-" + counts[board.device] };
  });
}

const withBoards = (question, boards) => ({ ...question, boards: renamed(boards) });

function Budget({ budget, label, text, onText, shared }) {
  const value = parse(text, budget.unit);
  const at = value === null ? PLACES : place(value, budget.low, budget.high);
  const said = text || (shared ? "unlike" : "no limit asked for");
  const slide = (event) => onText(write(valueAt(Number(event.target.value), budget.low, budget.high), budget.unit));
  return html`<div class="budget">
    <span>${budget.option.replaceAll("_", " ")}</span>
    <input type="range" min="0" max=${PLACES} step="5" value=${at} onInput=${slide}
      aria-label=${label + ", slider"} aria-valuetext=${said} />
    <input type="text" value=${text} placeholder=${shared ? "" : budget.option === "memory" ? "device's" : "no limit"} aria-label=${label}
      title=${budget.help} onChange=${(event) => onText(event.target.value.trim())} />
  </div>`;
}

function Budgets({ library, labels, text, onText, shared, boards }) {
  const apart = boards.some((board) => library.apart.includes(board.device));
  const budgets = library.budgets.filter(({ option }) => apart || !APART.includes(option) || text(option));
  const draw = (budget) => html`<${Budget} key=${budget.option} budget=${budget} shared=${shared}
    label=${budget.option + " of " + labels} text=${text(budget.option)}
    onText=${(typed) => onText(budget.option, typed)} />`;
  const first = (budget) => FIRST_BUDGETS.includes(budget.option);
  return html`
    ${budgets.filter(first).map(draw)}
    <details><summary>further budgets</summary>${budgets.filter((budget) => !first(budget)).map(draw)}</details>`;
}

function AllBoards({ question, library, change }) {
  if (question.boards.length < 2) return null;
  const text = (option) => AGREED(question.boards.map((board) => board.budgets[option] || ""));
  const onText = (option, typed) => change({
    ...question,
    boards: question.boards.map((board) => ({ ...board, budgets: { ...board.budgets, [option]: typed } })),
  });
  return html`<fieldset><legend>all boards</legend>
    <${Budgets} ...${{ library, text, onText }} labels="all boards" shared=${true} boards=${question.boards} /></fieldset>`;
}

function Board({ board, index, question, library, change }) {
  const put = (changed) => change(withBoards(question, question.boards.map((one, i) => (i === index ? { ...one, ...changed } : one))));
  const links = library.links.includes(board.link) || !board.link ? library.links : [board.link, ...library.links];
  const duplicate = () => change(withBoards(question, question.boards.toSpliced(index + 1, 0, { ...board, name: freeName(question, board) })));
  const remove = () => change(withBoards(question, question.boards.toSpliced(index, 1)));
  return html`<fieldset><legend>${board.name}</legend>
    <div class="row">
      <label>link <select aria-label=${"link of " + board.name} onChange=${(event) => put({ link: event.target.value || null })}>
        ${!board.link && html`<option value="" selected>its device's own</option>`}
        ${links.map((link) => html`<option value=${link} selected=${link === board.link}>${link}</option>`)}
      </select></label>
      <label><input type="checkbox" checked=${board.points === "any"} aria-label=${"clock of " + board.name + " left open"}
        onChange=${(event) => put({ points: event.target.checked ? "any" : "named" })} /> clock left open</label>
    </div>
    <${Budgets} library=${library} labels=${board.name} boards=${[board]} text=${(option) => board.budgets[option] || ""}
      onText=${(option, typed) => put({ budgets: { ...board.budgets, [option]: typed } })} />
    <div class="row">
      <label>fails <input type="text" size="5" placeholder="never" value=${board.failure}
        aria-label=${"chance that " + board.name + " fails"} onChange=${(event) => put({ failure: event.target.value.trim() })} /></label>
      <button type="button" onClick=${duplicate} aria-label=${"duplicate " + board.name}>Duplicate</button>
      <button type="button" onClick=${remove} disabled=${question.boards.length < 2} aria-label=${"remove " + board.name}>Remove</button>
    </div>
  </fieldset>`;
}

function freeName(question, board) {
  const taken = question.boards.map((one) => one.name);
  let number = 1;
  while (taken.includes(board.device + "-" + number)) number += 1;
  return board.device + "-" + number;
}

function MoreBoards({ question, library, change }) {
  const [found, setFound] = useState(null);
  const search = async (event) => {
    const words = event.target.value.trim();
    if (!words) return setFound(null);
    const response = await fetch("devices?search=" + encodeURIComponent(words));
    setFound(await response.json());
  };
  const add = (device) => {
    const like = question.boards.at(-1);
    const board = { device: device.name, points: "named", link: device.link || "wired-100mbit", budgets: { ...like.budgets }, failure: like.failure, via: null };
    change(withBoards(question, [...question.boards, { ...board, name: freeName(question, board) }]));
  };
  const take = (event) => {
    const budgets = question.boards[0].budgets;
    const boards = library.fleets[event.target.value];
    if (boards) change({ ...question, boards: boards.map((board) => ({ ...board, budgets: { ...budgets }, failure: "" })) });
  };
  return html`
    <div class="option"><label for="search">Add a board: search the library</label>
      <input id="search" type="search" placeholder="pi 4b, a53, int8 ..." autocomplete="off" onInput=${search} /></div>
    ${found && html`<p class="quiet">${found.found} devices have these words in their names${found.found > found.devices.length ? "; the first of them:" : ""}</p>
    <ul class="found" aria-label="devices found">${found.devices.map((device) => html`<li key=${device.name}>
      <span><b>${device.name}</b> <small>${device.title}</small></span>
      <button type="button" onClick=${() => add(device)} aria-label=${"add " + device.name}>Add</button></li>`)}</ul>`}
    <div class="option"><label for="fleet">Or take a fleet of the library</label>
      <select id="fleet" onChange=${take}><option value="">choose ...</option>
        ${Object.keys(library.fleets).map((name) => html`<option value=${name}>${name}</option>`)}</select></div>`;
}

function Objective({ question, library, change }) {
  const text = question.options.objective || library.defaults.objective;
  const levels = text.split(",").map((level) => level.split(":"));
  const put = (changed) => change(withOption(question, library, "objective", changed.map((level) => level.filter(Boolean).join(":")).join(",")));
  const swap = (index) => put(levels.toSpliced(index, 2, levels[index + 1], levels[index]));
  const further = library.objectives.filter((name) => !levels.some(([known]) => known === name));
  return html`<ol class="levels">${levels.map(([name, tolerance], index) => html`<li key=${name}>
      <span>${index + 1}. ${name}</span>
      <label><small>may lose</small> <input type="text" value=${tolerance || ""} placeholder="0%" aria-label=${"tolerance of " + name}
        onChange=${(event) => put(levels.toSpliced(index, 1, [name, event.target.value.trim()]))} /></label>
      <button type="button" disabled=${index === 0} onClick=${() => swap(index - 1)} aria-label=${"move " + name + " up"}>↑</button>
      <button type="button" disabled=${index === levels.length - 1} onClick=${() => swap(index)} aria-label=${"move " + name + " down"}>↓</button>
      <button type="button" disabled=${levels.length < 2} onClick=${() => put(levels.toSpliced(index, 1))} aria-label=${"leave out " + name}>✕</button>
    </li>`)}</ol>
    <div class="row"><label>add <select aria-label="add an objective" onChange=${(event) => event.target.value && put([...levels, [event.target.value]])}>
      <option value="">choose ...</option>${further.map((name) => html`<option value=${name}>${name}</option>`)}</select></label></div>`;
}

// A question without an option that says the default.
function withOption(question, library, name, value) {
  const options = { ...question.options, [name]: value };
  const usual = library.defaults[name];
  if (value === "" || value === usual || value === String(usual ?? "") || (Array.isArray(value) && !value.length)) delete options[name];
  return { ...question, options };
}

const FIRST_OPTIONS = ["precision", "students", "at_least", "at_most", "survive", "teacher_network", "image", "classes"];
const LISTS = ["student", "minimise", "at_least", "at_most", "host", "outage"];
const CHOICES = {
  precision: ["fp32", "int8", "fp32,int8"],
  group0: ["replicated", "own-board", "either"],
  group0_copies: ["per-board", "per-student"],
};

function Options({ question, library, change }) {
  const names = Object.keys(library.options).filter((name) => !["objective", "minimise"].includes(name));
  const draw = (name) => html`<${Option} key=${name} ...${{ name, question, library, change }} />`;
  return html`${FIRST_OPTIONS.filter((name) => names.includes(name)).map(draw)}
    <details><summary>all other options</summary>${names.filter((name) => !FIRST_OPTIONS.includes(name)).map(draw)}</details>`;
}

function Option({ name, question, library, change }) {
  const value = question.options[name], usual = library.defaults[name], id = "option-" + name;
  const put = (typed) => change(withOption(question, library, name, typed));
  const flag = "--" + name.replaceAll("_", "-");
  if (typeof usual === "boolean") {
    return html`<div class="option"><label><input id=${id} type="checkbox" checked=${value ?? usual}
      onChange=${(event) => put(event.target.checked)} /> ${flag}</label><small>${library.options[name]}</small></div>`;
  }
  const text = LISTS.includes(name) ? (value || []).join(" ") : String(value ?? "");
  const chosen = text || String(usual ?? "");
  const control = CHOICES[name]
    ? html`<select id=${id} aria-describedby=${id + "-help"} onChange=${(event) => put(event.target.value)}>
        ${[...new Set([...CHOICES[name], chosen])].map((one) => html`<option value=${one} selected=${one === chosen}>${one}</option>`)}</select>`
    : html`<input id=${id} type="text" value=${text} placeholder=${usual ?? ""} aria-describedby=${id + "-help"}
        onChange=${(event) => put(LISTS.includes(name) ? event.target.value.split(/\s+/).filter(Boolean) : event.target.value.trim())} />`;
  return html`<div class="option"><label for=${id}>${flag}</label>${control}<small id=${id + "-help"}>${library.options[name]}</small></div>`;
}
