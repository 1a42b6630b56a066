"use strict";

// Everything that a server sends is data: it becomes text nodes, never markup.
const $ = (id) => document.getElementById(id);
const state = { indexes: new Map(), asked: 0, hits: [], current: -1, like: null, filters: new Map() };
const WAIT_MS = 30;

function made(tag, text, name) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  return element;
}

async function request(path, body, method) {
  const headers = { "Content-Type": "application/json" };
  const key = sessionStorage.getItem("sbmini-key");
  if (key) headers.Authorization = "Bearer " + key;
  const options = { method: method || (body ? "POST" : "GET"), headers };
  if (body) options.body = JSON.stringify(body);
  const response = await fetch(path, options);
  if (response.status === 401) {
    await askForKey();
    return request(path, body, method);
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error ? answer.error.message : "status " + response.status);
  return answer;
}

let asking = null;
function askForKey() {
  asking = asking || new Promise((done) => {
    $("key").showModal();
    $("key-form").onsubmit = () => {
      sessionStorage.setItem("sbmini-key", $("key-value").value);
      asking = null;
      done();
    };
  });
  return asking;
}

function say(text, wrong) {
  $("status").textContent = text;
  $("status").className = wrong ? "wrong" : "";
}

// --- filters ---------------------------------------------------------------------------------------------------------

const quotedName = (name) => '"' + name.replaceAll('"', '""') + '"';
const quotedText = (text) => "'" + text.replaceAll("'", "''") + "'";

function filterOf() {
  const parts = [];
  for (const [name, fields] of state.filters) {
    const column = quotedName(name);
    if (fields.least && fields.least.value !== "") parts.push(`${column} >= ${Number(fields.least.value)}`);
    if (fields.most && fields.most.value !== "") parts.push(`${column} <= ${Number(fields.most.value)}`);
    if (fields.flag && fields.flag.value) parts.push(`${column} = ${fields.flag.value}`);
    if (fields.text && fields.text.value.trim()) parts.push(`${column} = ${quotedText(fields.text.value.trim())}`);
  }
  $("filter-count").textContent = parts.length ? `(${parts.length})` : "";
  return parts.length ? parts.join(" and ") : null;
}

function field(name, label, type) {
  const input = made("input");
  input.type = type;
  if (type === "number") input.step = "any";
  input.setAttribute("aria-label", label);
  input.placeholder = label.slice(name.length).trim() || "equals";
  input.addEventListener("input", soon);
  return input;
}

function makeFilters() {
  const index = state.indexes.get($("index").value);
  state.filters.clear();
  $("filter-fields").replaceChildren();
  const hidden = ["file_encoding", "file_places", "file_digest"];
  for (const [name, type] of Object.entries(index ? index.columns : {})) {
    if (!type || hidden.includes(name)) continue;
    const fields = {};
    const box = made("div");
    box.append(made("span", name));
    const row = made("div", undefined, "range");
    if (type === "integer" || type === "number") {
      fields.least = field(name, name + " from", "number");
      fields.most = field(name, name + " to", "number");
      row.append(fields.least, fields.most);
    } else if (type === "boolean") {
      fields.flag = made("select");
      fields.flag.setAttribute("aria-label", name);
      for (const [value, text] of [["", "any"], ["true", "true"], ["false", "false"]]) {
        const option = made("option", text);
        option.value = value;
        fields.flag.append(option);
      }
      fields.flag.addEventListener("change", soon);
      row.append(fields.flag);
    } else {
      fields.text = field(name, name, "text");
      row.append(fields.text);
    }
    box.append(row);
    state.filters.set(name, fields);
    $("filter-fields").append(box);
  }
  $("filters").hidden = state.filters.size === 0;
}

// --- search ----------------------------------------------------------------------------------------------------------

let timer = 0;
function soon() {
  clearTimeout(timer);
  timer = setTimeout(search, WAIT_MS);
}

async function search() {
  const query = $("query").value;
  const number = ++state.asked;
  if (!query.trim() && state.like === null) {
    show([]);
    const index = state.indexes.get($("index").value);
    say(index ? `${index.rows.toLocaleString("en")} rows, by ${index.model}` : "");
    return;
  }
  const body = { index: $("index").value, k: Number($("k").value), filter: filterOf(), excerpts: true };
  if (state.like !== null) body.like = state.like;
  else {
    body.query = query;
    body.by = document.querySelector("input[name=by]:checked").value;
  }
  const begun = performance.now();
  try {
    const answer = await request("search", body);
    if (number !== state.asked) return; // a later key was pressed
    const hits = answer.results[0].hits;
    show(hits);
    const ms = Math.round(performance.now() - begun);
    const what = state.like !== null ? ` like ${state.like}` : "";
    say(hits.length ? `${hits.length} hit${hits.length > 1 ? "s" : ""}${what}, ${ms} ms` : `no hits${what}`);
  } catch (error) {
    if (number === state.asked) say(String(error.message || error), true);
  }
}

// Text with the closest sentence and the query's words marked. Python counts code points, so the text is taken as such.
function marked(text, start, end, excerpt, whole) {
  const letters = Array.from(text);
  const spans = excerpt && !whole ? excerpt.sentences : [[start, end]];
  const closest = excerpt ? excerpt.closest : [0, 0];
  const words = excerpt ? excerpt.words : [];
  const root = document.createDocumentFragment();
  spans.forEach(([from, to], position) => {
    if (position) root.append(spans[position - 1][1] === from ? "" : " … ");
    const parent = !whole && closest[0] === from ? made("span", undefined, "closest") : document.createDocumentFragment();
    let at = from;
    for (const [a, b] of words) {
      if (a < at || b > to) continue;
      parent.append(letters.slice(at, a).join(""), made("mark", letters.slice(a, b).join("")));
      at = b;
    }
    parent.append(letters.slice(at, to).join(""));
    root.append(parent);
  });
  return root;
}

function placeOf(hit) {
  if (!hit.place) return "";
  const line = hit.place.first_line ? ":" + hit.place.first_line : hit.place.page ? ", page " + hit.place.page : "";
  return [hit.place.path + line, ...hit.place.headings].join(" > ");
}

function show(hits) {
  state.hits = hits;
  state.current = -1;
  $("hits").replaceChildren(...hits.map((hit, position) => {
    const item = made("li");
    const head = made("div", undefined, "hit-head");
    const open = made("button", String((hit.columns && hit.columns.title) || hit.id));
    open.type = "button";
    open.addEventListener("click", () => openRow(position));
    const scores = [`score ${hit.score.toFixed(3)}`, `cosine ${hit.cosine.toFixed(3)}`];
    if (hit.bm25 !== null) scores.push(`BM25 ${hit.bm25.toFixed(1)}`);
    head.append(open, made("span", scores.join("   "), "scores"));
    const text = made("p", undefined, "text");
    text.append(marked(hit.text, hit.start, hit.end, hit.excerpt, false));
    item.append(head);
    if (hit.place) item.append(made("p", placeOf(hit), "place"));
    item.append(text);
    return item;
  }));
}

function choose(position) {
  const items = $("hits").children;
  if (!items.length) return;
  state.current = Math.max(0, Math.min(position, items.length - 1));
  [...items].forEach((item, i) => (i === state.current ? item.setAttribute("aria-current", "true") : item.removeAttribute("aria-current")));
  items[state.current].scrollIntoView({ block: "nearest" });
}

function openRow(position) {
  const hit = state.hits[position];
  choose(position);
  $("row-title").textContent = hit.id;
  $("row-place").textContent = placeOf(hit);
  $("row-text").replaceChildren(marked(hit.text, 0, Array.from(hit.text).length, hit.excerpt, true));
  $("row-columns").replaceChildren(...Object.entries(hit.columns).flatMap(([name, value]) => [
    made("dt", name), made("dd", typeof value === "string" ? value : JSON.stringify(value)),
  ]));
  $("row-like").onclick = () => {
    $("row").close();
    state.like = hit.id;
    $("query").value = "";
    search();
  };
  $("row").showModal();
}

// --- texts beside each other -----------------------------------------------------------------------------------------

async function compare() {
  const texts = $("texts").value.split("\n").map((text) => text.trim()).filter(Boolean);
  const number = ++state.asked;
  if (texts.length < 2 || texts.length > 10) {
    $("compare-status").textContent = `two to ten texts are compared; there ${texts.length === 1 ? "is 1" : "are " + texts.length}`;
    $("matrix").replaceChildren();
    return;
  }
  try {
    const answer = await request("v1/embeddings", { input: texts });
    if (number !== state.asked) return;
    $("compare-status").textContent = "";
    drawMatrix(texts, answer.data.map((part) => part.embedding));
  } catch (error) {
    if (number === state.asked) $("compare-status").textContent = String(error.message || error);
  }
}

function drawMatrix(texts, vectors) {
  const short = (text) => (text.length > 60 ? text.slice(0, 59) + "…" : text);
  const rows = [made("tr")];
  rows[0].append(made("td"), ...texts.map((_, i) => made("th", String(i + 1))));
  texts.forEach((text, i) => {
    const row = made("tr");
    const head = made("th", `${i + 1}  ${short(text)}`);
    head.scope = "row";
    row.append(head, ...vectors.map((other) => made("td", other.reduce((sum, x, at) => sum + x * vectors[i][at], 0).toFixed(3))));
    rows.push(row);
  });
  $("matrix").replaceChildren(...rows);
}

// --- the page --------------------------------------------------------------------------------------------------------

function view(name) {
  for (const other of ["search", "compare"]) {
    $(other).hidden = other !== name;
    if (other === name) $("show-" + other).setAttribute("aria-current", "page");
    else $("show-" + other).removeAttribute("aria-current");
  }
  if (name === "compare") compare();
  else $("query").focus();
}

document.addEventListener("keydown", (event) => {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName);
  if (document.querySelector("dialog[open]") || $("search").hidden) return;
  if (event.key === "/" && !typing) {
    event.preventDefault();
    $("query").focus();
    $("query").select();
  } else if (event.key === "ArrowDown" && (document.activeElement === $("query") || !typing)) {
    event.preventDefault();
    choose(state.current + 1);
  } else if (event.key === "ArrowUp" && (document.activeElement === $("query") || !typing)) {
    event.preventDefault();
    choose(state.current - 1);
  } else if (event.key === "Enter" && document.activeElement === $("query") && state.current >= 0) {
    event.preventDefault();
    openRow(state.current);
  }
});

function typed() {
  state.like = null;
  soon();
}

async function begin() {
  $("show-search").addEventListener("click", () => view("search"));
  $("show-compare").addEventListener("click", () => view("compare"));
  $("form").addEventListener("submit", (event) => event.preventDefault());
  $("query").addEventListener("input", typed);
  $("index").addEventListener("change", () => { state.like = null; makeFilters(); search(); });
  $("k").addEventListener("change", search);
  $("texts").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(compare, 150); });
  $("row-close").addEventListener("click", () => $("row").close());
  for (const radio of document.querySelectorAll("input[name=by]")) radio.addEventListener("change", search);
  try {
    const { indexes } = await request("indexes");
    for (const index of indexes) {
      state.indexes.set(index.name, index);
      const option = made("option", index.name);
      option.value = index.name;
      $("index").append(option);
    }
    if (!indexes.length) {
      view("compare");
      $("show-search").disabled = true;
      return;
    }
    makeFilters();
    await search();
    $("query").focus();
  } catch (error) {
    say(String(error.message || error), true);
  }
}

begin();
