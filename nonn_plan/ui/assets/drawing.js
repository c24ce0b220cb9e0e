// The answer as pictures and tables.

import { html, useState } from "./preact-htm.js";

const COLOURS = 6;
const digits = (value) => (value === null || value === undefined ? "-" : String(Number(value.toPrecision(7))));

export function Plan({ answer, rest }) {
  const names = answer.boards.flatMap((board) => board.students.map((student) => student.name));
  const colour = (name) => "s" + ([...new Set(names)].indexOf(name) % COLOURS);
  return html`
    <section class="card" aria-label="figures"><dl class="figures">
      ${answer.figures.map((one) => html`<div key=${one.name}><dt>${one.name}</dt>
        <dd class="value">${one.value}</dd><dd class="quiet">${one.beside}</dd></div>`)}</dl></section>
    <section class="card" aria-labelledby="placement-title"><h2 id="placement-title">Boards with their students</h2>
      <div class="boards">${answer.boards.map((board) => html`<${Board} key=${board.name} board=${board} colour=${colour} />`)}</div>
      ${answer.joint.map((one) => html`<p class="quiet">${one.students.join(", ")} share one G0 on ${one.board}</p>`)}</section>
    <section class="card" aria-labelledby="gantt-title"><h2 id="gantt-title">One image</h2><${Gantt} timeline=${answer.timeline} /></section>
    <section class="card" id="proof" aria-labelledby="proof-title"><h2 id="proof-title">Proof</h2><${Proof} stages=${answer.stages} /></section>
    <${TradeOff} rest=${rest} />
    <section class="card"><details><summary>What the command says of it</summary>
      <ul>${answer.sentences.map((one) => html`<li>${one}</li>`)}</ul></details></section>`;
}

function Board({ board, colour }) {
  const idle = !board.students.length && !board.group0;
  return html`<div class=${"board" + (idle ? " idle" : "")} data-board=${board.name}>
    <h3>${board.name}</h3><small>${board.device}, ${board.link}</small>
    ${idle && html`<p class="quiet">no student</p>`}
    ${board.group0 && html`<div class="student s5">G0, which sends its maps to all others</div>`}
    ${board.students.map((student) => html`<div key=${student.name} class=${"student " + colour(student.name)}>
      <b>${student.name}</b>${student.copy ? " (copy)" : ""} ${student.network}, ${student.precision}<br />
      <small>mimics ${student.filters} filters; ${student.text}</small></div>`)}
    ${board.duty && html`<p class="quiet duty">${board.duty}</p>`}
    ${board.bars.map((bar) => html`<div class="bar" key=${bar.noun}>
      <div class="track" role="img" aria-label=${`${bar.noun} of ${board.name}: ${bar.used} of ${bar.limit}, ${bar.slack} left`}>
        <div class=${"fill" + (bar.share > 0.95 ? " tight" : "")} style=${{ width: Math.min(100, 100 * bar.share) + "%" }}></div></div>
      <div class="numbers"><span>${bar.noun} ${bar.used} of ${bar.limit}</span><span>slack ${bar.slack}</span></div></div>`)}
  </div>`;
}

const KINDS = ["send", "compute", "reply", "join"];

function Gantt({ timeline }) {
  const lanes = new Map();
  for (const row of timeline.rows) lanes.set(row.actor, [...(lanes.get(row.actor) || []), row]);
  const share = (ms) => (100 * ms) / timeline.total_ms;
  const kind = (row) => (KINDS.includes(row.activity) ? row.activity : "other");
  const kinds = [...new Set(timeline.rows.map(kind))];
  const told = (row) => `${row.activity} ${row.start.toFixed(2)} to ${row.end.toFixed(2)} ms`;
  return html`<div class="gantt">
      ${[...lanes].map(([actor, rows]) => html`<span class="name">${actor}</span>
        <div class="lane" role="img" aria-label=${actor + ": " + rows.map(told).join("; ")}>${rows.map((row) => html`
          <i class=${kind(row)} title=${told(row)} style=${{ left: share(row.start) + "%", width: share(row.end - row.start) + "%" }}></i>`)}</div>`)}
      <span></span><div class="axis"><span>0 ms</span><span>${(timeline.total_ms / 2).toFixed(1)}</span><span>${timeline.total_ms.toFixed(1)} ms</span></div>
    </div><div class="key">${kinds.map((one) => html`<span><i class=${one}></i>${one}</span>`)}</div>`;
}

function Proof({ stages }) {
  return html`<table class="stack"><thead><tr><th>goal</th><th class="number">this plan</th><th class="number">best</th>
      <th class="number">bound</th><th class="number">gap</th><th>proof</th></tr></thead>
    <tbody>${stages.map((one) => html`<tr key=${one.objective}>
      <td data-name="goal">${one.wanted} ${one.objective}${one.unit && one.unit !== one.objective ? ", " + one.unit : ""}</td>
      <td class="number" data-name="this plan">${digits(one.value)}</td><td class="number" data-name="best">${digits(one.best)}</td>
      <td class="number" data-name="bound">${digits(one.bound)}</td>
      <td class="number" data-name="gap">${one.gap_pct === null ? "-" : one.gap_pct.toFixed(2) + " %"}</td>
      <td data-name="proof">${one.proven ? "proven" : "not proven"}${one.tolerance_pct ? `; later goals may take ${one.tolerance_pct} %` : ""}</td></tr>`)}</tbody></table>`;
}

const COLUMNS = [
  ["way", "way", (value) => value],
  ["latency", "latency, ms", (value) => value?.toFixed(1)],
  ["accuracy", "accuracy, %", (value) => value?.toFixed(1)],
  ["energy", "energy, mJ", (value) => value?.toFixed(1)],
  ["boards", "boards", (value) => value],
  ["fits", "fits", (value) => value],
];

function TradeOff({ rest }) {
  const [order, setOrder] = useState({ column: null, down: false });
  if (!rest) return html`<section class="card"><h2>One network, or the teacher alone</h2><p class="quiet">being compared ...</p></section>`;
  const rows = sorted(rest.alternatives, order);
  const sort = (column) => setOrder({ column, down: order.column === column && !order.down });
  const arrow = (column) => (order.column === column ? (order.down ? " ↓" : " ↑") : "");
  const aria = (column) => (order.column === column ? (order.down ? "descending" : "ascending") : "none");
  const why = rows.filter((row) => row.reason);
  return html`<section class="card" aria-labelledby="trade-title"><h2 id="trade-title">Students, one network, or the teacher alone</h2>
    <div class="sorting row"><label>sort by <select aria-label="sort the table by" onChange=${(event) => sort(event.target.value)}>
      <option value="">as found</option>${COLUMNS.map(([column, title]) => html`<option value=${column} selected=${order.column === column}>${title}</option>`)}</select></label></div>
    <table class="stack" id="trade-off"><thead><tr>${COLUMNS.map(([column, title]) => html`
      <th class=${column === "way" || column === "fits" ? "" : "number"} aria-sort=${aria(column)}><button type="button" onClick=${() => sort(column)}>${title}${arrow(column)}</button></th>`)}</tr></thead>
    <tbody>${rows.map((row) => html`<tr key=${row.way}>${COLUMNS.map(([column, title, text]) => html`
      <td class=${column === "way" || column === "fits" ? "" : "number"} data-name=${title}>${text(row[column] ?? undefined) ?? "-"}</td>`)}</tr>`)}</tbody></table>
    ${why.length > 0 && html`<ul class="quiet">${why.map((row) => html`<li key=${row.way}>${row.way}: ${row.reason}</li>`)}</ul>`}</section>`;
}

// Rows by a column, what is not known last; as found without a column.
function sorted(rows, { column, down }) {
  if (!column) return rows;
  const known = rows.filter((row) => row[column] !== null), unknown = rows.filter((row) => row[column] === null);
  known.sort((one, other) => (one[column] < other[column] ? -1 : one[column] > other[column] ? 1 : 0));
  return [...(down ? known.reverse() : known), ...unknown];
}

export function Refusal({ answer, rest, take }) {
  return html`<section class="card" aria-labelledby="conflict-title"><h2 id="conflict-title">Proven: these cannot hold together</h2>
      <ul>${answer.conflict.map((one) => html`<li>${one}</li>`)}</ul>
      <p class="quiet">${answer.irreducible ? "Without any one of them the others can." : "Not all of them are proven necessary."}</p></section>
    <section class="card" aria-labelledby="repairs-title"><h2 id="repairs-title">Repairs: with each of them alone there is a plan</h2>
      <div class="repairs">${answer.repairs.map((one) => html`<button type="button" key=${one.text} onClick=${() => take(one.question)}>
        ${one.text}${one.least ? "" : " (not proven the least)"}</button>`)}
        ${answer.repairs.length === 0 && html`<p>No repair was found.</p>`}</div></section>
    <${TradeOff} rest=${rest} />`;
}

export function Search({ known, stage }) {
  return html`<section class="card" aria-label="search under way">
    <p>${stage ? `${stage.what}${stage.total ? `, ${stage.done + 1} of ${stage.total}` : ""}` : "stating the question"}</p>
    ${known.length > 0 && html`<table class="stack"><thead><tr><th>goal</th><th class="number">best so far</th><th class="number">bound</th></tr></thead>
      <tbody>${known.map((one) => html`<tr key=${one.objective}><td data-name="goal">${one.objective}${one.unit ? ", " + one.unit : ""}</td>
        <td class="number" data-name="best so far">${digits(one.value)}</td><td class="number" data-name="bound">${digits(one.bound)}</td></tr>`)}</tbody></table>`}
  </section>`;
}
