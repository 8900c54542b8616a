"use strict";
// Draws what is in #data: time runs down, one lane for each member and each client, only what lies in the window of time that is looked at.
const data = JSON.parse(document.getElementById("data").textContent);
const HEIGHT = Math.max(560, Math.min(window.innerHeight - 120, 860));
const AXIS = 96, MAP = 26, MESSAGES_MAX = 1200, LABELS_MAX = 70, OPERATION_WIDTH = 13;
window.addEventListener("error", event => { document.body.dataset.error = event.message; });
const isCluster = data.members > 1;
const colours = { append: "#2f6fde", vote: "#e07b00", heartbeat: "#b9c1cd", read: "#14905a", snapshot: "#8e3ccb", other: "#7a8494" };
const shown = { heartbeats: false, answers: true, notes: true, holders: false };
let [from, to] = data.focus;

// Places.
const memberWidth = isCluster ? Math.max(120, Math.min(210, 560 / data.members)) : 150;
const clientWidth = Math.max(17, Math.min(26, 340 / Math.max(1, data.clients.length)));
const network = MAP + AXIS + 14;
const firstMember = network + (isCluster ? 46 : 24);
const memberAt = place => firstMember + memberWidth * (place + 0.32);
const firstClient = firstMember + memberWidth * data.members + 20;
const clientAt = new Map(data.clients.map((client, place) => [client, firstClient + clientWidth * (place + 0.5)]));
const wordsAt = firstClient + clientWidth * data.clients.length + 16;
const WIDTH = Math.max(wordsAt + 330, document.body.clientWidth);
const y = at => (at - from) / (to - from) * HEIGHT;
const seconds = (at, digits) => (at / 1e6).toFixed(digits) + " s";
const hue = term => `hsl(${(term * 137.5) % 360} 62%`;

// Elements.
const SVG = "http://www.w3.org/2000/svg";
function draw(parent, name, attributes, title) {
  const element = document.createElementNS(SVG, name);
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  if (title) draw(element, "title", {}).textContent = title;
  return parent.appendChild(element);
}
function write(parent, x, at, words, kind, anchor) {
  const element = draw(parent, "text", { x, y: at, class: kind || "", "text-anchor": anchor || "start" });
  element.textContent = words;
  return element;
}
const short = (words, max) => words.length > max ? words.slice(0, max - 1) + "…" : words;

const isUp = span => span[3] === "starting" || span[3] === "serving";

// From what happened to what was so from one moment to another.
function spans(list, read) {
  const open = new Map(), done = [];
  for (const item of list) {
    const [key, at, value] = read(item);
    if (open.has(key)) done.push([key, open.get(key)[0], at, open.get(key)[1]]);
    open.set(key, [at, value]);
  }
  for (const [key, [at, value]] of open) done.push([key, at, data.end, value]);
  return done;
}
const pauses = spans(data.stages.filter(item => /paused|resumed|down/.test(item[2])), item => item).filter(span => span[3] === "paused");
const stages = spans(data.stages.filter(item => !/paused|resumed/.test(item[2])), item => item);
// From a start to an end, whether it serves yet or not.
const lives = [];
for (const [place, begin, end, stage] of stages.filter(isUp)) {
  const last = lives.findLast(life => life[0] === place);
  if (last && last[2] === begin && stage === "serving") last[2] = end; else lives.push([place, begin, end]);
}
const roles = spans(data.roles, ([place, at, term, leads]) => [place, at, { term, leads }]);
const cuts = spans(data.cuts, ([at, ways]) => [0, at, ways]).filter(span => span[3].length);
const suspects = new Map(data.suspects.map(([operation, isFirst], place) => [operation, { number: place + 1, isFirst }]));
const overlaps = (begin, end) => begin <= to && end >= from;

function kindOf(words) {
  if (/^(append)/.test(words)) return "append";
  if (/vote|timeout/.test(words)) return "vote";
  if (/^heartbeat/.test(words)) return "heartbeat";
  if (/^read/.test(words)) return "read";
  return /^snapshot/.test(words) ? "snapshot" : "other";
}

function drawAxis(svg) {
  const steps = [1, 2, 5].flatMap(step => [1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7].map(ten => step * ten)).sort((a, b) => a - b);
  const step = steps.find(step => step / (to - from) * HEIGHT > 44) || 2e7;
  const digits = Math.max(0, 6 - Math.floor(Math.log10(step)));
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) {
    draw(svg, "line", { x1: MAP + AXIS, x2: WIDTH, y1: y(at), y2: y(at), stroke: "#eef0f4" });
    write(svg, MAP + AXIS - 8, y(at) + 4, seconds(at, digits), "faint", "end");
  }
}

function drawCuts(svg) {
  for (const [, begin, end, ways] of cuts.filter(span => overlaps(span[1], span[2]))) {
    const words = "cut: " + ways.map(([a, b]) => `m${a}→m${b}`).join(" ");
    const top = Math.max(0, y(begin)), bottom = Math.min(HEIGHT, y(end));
    draw(svg, "rect", { x: network - 8, y: top, width: firstMember + memberWidth * data.members - network, height: Math.max(2, bottom - top), fill: "#c8102e", opacity: 0.06 }, words);
    draw(svg, "rect", { x: network - 8, y: top, width: 5, height: Math.max(2, bottom - top), fill: "#c8102e" }, words);
    const at = Math.min(HEIGHT - 60, top + 12);
    write(svg, network, at, "cut", "red");
    if (bottom - top > 34) ways.slice(0, 6).forEach(([a, b], place) => write(svg, network, at + 13 * (place + 1), `${a}→${b}`, "message"));
  }
}

function drawMembers(svg) {
  for (let place = 0; place < data.members; place++) {
    draw(svg, "line", { x1: memberAt(place), x2: memberAt(place), y1: 0, y2: HEIGHT, stroke: "#b9c1cd", "stroke-dasharray": "2 5" });
  }
  for (const [place, begin, end, stage] of stages.filter(span => isUp(span) && overlaps(span[1], span[2]))) {
    const top = Math.max(-5, y(begin)), height = Math.min(HEIGHT + 5, y(end)) - top;
    const fill = stage === "starting" ? "#e6e9ef" : isCluster ? "#d5dae2" : "#a9c7f5";
    draw(svg, "rect", { x: memberAt(place) - 7, y: top, width: 14, height: Math.max(1, height), fill, stroke: "#9aa4b2", rx: 2 }, `m${place} ${stage} ${seconds(begin, 6)} – ${seconds(end, 6)}`);
  }
  for (const [place, begin, end, { term, leads }] of roles.filter(span => overlaps(span[1], span[2]))) {
    for (const up of lives.filter(span => span[0] === place && overlaps(span[1], span[2]) && span[1] < end && span[2] > begin)) {
      const top = Math.max(0, y(Math.max(begin, up[1]))), bottom = Math.min(HEIGHT, y(Math.min(end, up[2])));
      if (bottom <= top) continue;
      const half = leads ? 11 : 6;
      draw(svg, "rect", { x: memberAt(place) - half, y: top, width: 2 * half, height: Math.max(1, bottom - top), fill: `${hue(term)} ${leads ? 52 : 86}%)`, stroke: leads ? `${hue(term)} 30%)` : "none", rx: 2 }, `m${place} ${leads ? "leads" : "follows"} in term ${term}`);
      if (bottom - top > 12) write(svg, memberAt(place) - half - 4, top + 11, leads ? `leads t${term}` : `t${term}`, leads ? "" : "faint", "end");
    }
  }
  for (const [place, begin, end] of pauses.filter(span => overlaps(span[1], span[2]))) {
    draw(svg, "rect", { x: memberAt(place) - 13, y: Math.max(0, y(begin)), width: 26, height: Math.max(2, Math.min(HEIGHT, y(end)) - Math.max(0, y(begin))), fill: "url(#hatch)", stroke: "#565f6d" }, `paused ${seconds(begin, 6)} – ${seconds(end, 6)}`);
  }
}

function drawMessages(svg) {
  let inView = data.messages.filter(([begin, end]) => overlaps(begin, end));
  inView = inView.filter(([, , , , , words]) => (shown.heartbeats || !/^heartbeat/.test(words)) && (shown.answers || !/accepted|answered|granted|refused|rejected/.test(words)));
  const every = Math.ceil(inView.length / MESSAGES_MAX);
  if (every > 1) inView = inView.filter((message, place) => place % every === 0 || message[4] !== "arrived");
  const hasLabels = inView.length <= LABELS_MAX, written = [];
  for (const [begin, end, a, b, fate, words, again] of inView.slice(0, 3 * MESSAGES_MAX)) {
    const isLost = fate !== "arrived" && fate !== "under way" && fate !== "held";
    const colour = isLost ? "#c8102e" : colours[kindOf(words)];
    const side = Math.sign(b - a) * 12, x1 = memberAt(a) + side, x2 = memberAt(b) - side;
    // What is lost at once is drawn as far as it would have come.
    const reach = isLost && end - begin < 1 ? 0.4 : 1;
    const xEnd = x1 + (x2 - x1) * reach, yEnd = reach < 1 ? y(begin) + 8 : y(end);
    const title = `${seconds(begin, 6)} m${a} → m${b}: ${words}\n${fate} ${seconds(end, 6)}${again ? ", and again " + seconds(again, 6) : ""}`;
    const line = draw(svg, "line", { x1, y1: y(begin), x2: xEnd, y2: yEnd, stroke: colour, "stroke-width": isLost ? 1.4 : 1.1, "stroke-dasharray": isLost ? "4 3" : "none" }, title);
    if (isLost) write(svg, xEnd, yEnd + 4, "×", "red", "middle");
    else line.setAttribute("marker-end", `url(#arrow-${kindOf(words)})`);
    if (again) draw(svg, "line", { x1, y1: y(begin), x2, y2: y(again), stroke: colour, "stroke-dasharray": "1 3", "marker-end": `url(#arrow-${kindOf(words)})` }, title);
    const x = x1 + (x2 - x1) * 0.5, at = y(begin) + (yEnd - y(begin)) * (reach < 1 ? 1 : 0.5) - 3;
    const room = Math.floor(Math.abs(x2 - x1) / 5.6);
    if (hasLabels && !written.some(([left, top]) => Math.abs(left - x) < memberWidth * 0.9 && Math.abs(top - at) < 11)) {
      write(svg, x, at, short(words.replace(/ commit \d+$/, "").replace(/"(\\.|[^"])*"?/g, "…"), room), "message", "middle");
      written.push([x, at]);
    }
  }
  return [inView.length, every];
}

function drawNotes(svg) {
  if (!shown.notes) return;
  const last = new Map();
  for (const [place, at, words] of data.notes) {
    if (!overlaps(at, at) || place < 0 && !shown.holders && /^(holder|watcher)/.test(words) || /^(cut|mended|pause|resume|Options)/.test(words)) continue;
    const x = place < 0 ? wordsAt : memberAt(place), isBad = /^(crash|order|replaced)|fail|full|is slow|is lost|Fault/.test(words);
    if (place >= 0) draw(svg, "circle", { cx: x, cy: y(at), r: 3.5, fill: isBad ? "#c8102e" : "#1d2430" }, `${seconds(at, 6)} ${words}`);
    if (last.has(place) && y(at) - last.get(place) < 12) continue;
    last.set(place, y(at));
    write(svg, place < 0 ? x : x + 14, y(at) + 4, short(words, place < 0 ? Math.floor((WIDTH - wordsAt) / 6) : isCluster ? 26 : 20), isBad ? "red" : place < 0 ? "faint" : "");
  }
}

function colourOf(ask, told) {
  if (/^unknown|^nothing/.test(told)) return "#f2a33a";
  if (/^(rejected|refused)/.test(told)) return "#b9c1cd";
  return /^(get|stream|hash)/.test(ask) ? "#67b98f" : "#5b8def";
}

function drawOperations(svg) {
  const callouts = [];
  for (const [client, begin, end, invoked, ask, told] of data.operations) {
    const until = end === null ? data.end : end;
    if (!overlaps(begin, until)) continue;
    const x = clientAt.get(client), top = Math.max(-4, y(begin)), height = Math.max(3, Math.min(HEIGHT + 4, y(until)) - top);
    const suspect = suspects.get(invoked), edge = suspect ? (suspect.isFirst ? "#c8102e" : "#d97f00") : "none";
    draw(svg, "rect", { x: x - OPERATION_WIDTH / 2, y: top, width: OPERATION_WIDTH, height, rx: 2, fill: colourOf(ask, told), stroke: edge, "stroke-width": suspect ? 3 : 0 }, `client ${client}, operation ${invoked}, ${seconds(begin, 6)} – ${end === null ? "never" : seconds(end, 6)}\n${ask}\n${told}`);
    if (suspect) callouts.push({ x, at: Math.max(10, Math.min(HEIGHT - 30, top + height / 2)), suspect, words: [`client ${client}: ${ask}`, told], edge });
  }
  callouts.sort((one, other) => one.at - other.at);
  let free = 14;
  for (const { x, at, suspect, words, edge } of callouts) {
    const place = Math.max(free, Math.min(at, HEIGHT - 40));
    free = place + 42;
    draw(svg, "path", { d: `M ${x + 8} ${at} L ${wordsAt - 4} ${place}`, stroke: edge, fill: "none", "stroke-width": 1.5 });
    draw(svg, "rect", { x: wordsAt - 2, y: place - 13, width: WIDTH - wordsAt - 4, height: 36, fill: "#fff", stroke: edge, rx: 4 });
    draw(svg, "circle", { cx: wordsAt + 12, cy: place + 5, r: 9, fill: edge });
    const number = write(svg, wordsAt + 12, place + 9, suspect.number, "", "middle");
    number.setAttribute("style", "fill:#fff;stroke:none;font-weight:700");
    const room = Math.floor((WIDTH - wordsAt - 40) / 6.1);
    write(svg, wordsAt + 27, place + 1, short(words[0], room));
    write(svg, wordsAt + 27, place + 16, short("→ " + words[1], room), suspect.isFirst ? "red" : "");
  }
}

// The whole run beside the window, to find one's way: terms, crashes, where the promise broke.
function drawMap(svg) {
  const at = moment => moment / Math.max(1, data.end) * HEIGHT;
  draw(svg, "rect", { x: 0, y: 0, width: MAP - 8, height: HEIGHT, fill: "#f1f3f6" });
  for (const [, begin, end, { term, leads }] of roles) {
    if (leads) draw(svg, "rect", { x: 2, y: at(begin), width: 8, height: Math.max(1, at(end) - at(begin)), fill: `${hue(term)} 60%)` }, `term ${term}`);
  }
  for (const [, moment, words] of data.notes) if (/^crash/.test(words)) draw(svg, "rect", { x: 11, y: at(moment), width: 6, height: 1.5, fill: "#c8102e" }, words);
  for (const [, begin, end] of cuts) draw(svg, "rect", { x: 0, y: at(begin), width: 2, height: Math.max(1, at(end) - at(begin)), fill: "#c8102e" });
  if (data.at !== null) draw(svg, "path", { d: `M ${MAP} ${at(data.at)} l -8 -5 l 0 10 z`, fill: "#c8102e" });
  draw(svg, "rect", { x: 0.5, y: at(from), width: MAP - 9, height: Math.max(2, at(to) - at(from)), fill: "#1d2430", opacity: 0.25, stroke: "#1d2430" });
}

function define(svg) {
  const definitions = draw(svg, "defs", {});
  for (const kind in colours) {
    const marker = draw(definitions, "marker", { id: `arrow-${kind}`, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" });
    draw(marker, "path", { d: "M 0 1 L 8 4 L 0 7 z", fill: colours[kind] });
  }
  const hatch = draw(definitions, "pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
  draw(hatch, "rect", { width: 6, height: 6, fill: "#ffffff", opacity: 0.55 });
  draw(hatch, "line", { x1: 0, y1: 0, x2: 0, y2: 6, stroke: "#565f6d", "stroke-width": 2 });
}

function redraw() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("width", WIDTH);
  svg.setAttribute("height", HEIGHT);
  define(svg);
  drawAxis(svg);
  if (isCluster) drawCuts(svg);
  drawMembers(svg);
  const [count, every] = drawMessages(svg);
  drawNotes(svg);
  if (data.at !== null && overlaps(data.at, data.at)) {
    draw(svg, "line", { x1: MAP + AXIS, x2: wordsAt - 6, y1: y(data.at), y2: y(data.at), stroke: "#c8102e", "stroke-width": 2, "stroke-dasharray": "8 4" }, "the promise broke");
  }
  drawOperations(svg);
  drawMap(svg);
  document.getElementById("diagram").replaceChildren(svg);
  const part = every > 1 ? `, one message in ${every} (closer shows all)` : "";
  document.querySelector("#tools .where").textContent = `${seconds(from, 6)} – ${seconds(to, 6)} of ${seconds(data.end, 1)}${isCluster ? `, ${count} messages${part}` : ""}`;
}

function look(begin, end) {
  const length = Math.max(200, Math.min(end - begin, data.end * 1.02 + 1000));
  from = Math.max(-length * 0.05, Math.min(begin, data.end - length * 0.5));
  to = from + length;
  redraw();
}
const zoom = (factor, around = (from + to) / 2) => look(around - (around - from) * factor, around + (to - around) * factor);

function tools() {
  const bar = document.getElementById("tools");
  const button = (words, act) => { const made = document.createElement("button"); made.textContent = words; made.onclick = act; bar.append(made); };
  button(data.at === null ? "beginning" : "where it broke", () => look(...data.focus));
  button("whole run", () => look(0, data.end));
  button("closer +", () => zoom(0.5));
  button("farther −", () => zoom(2));
  button("earlier ↑", () => look(from - (to - from) * 0.6, to - (to - from) * 0.6));
  button("later ↓", () => look(from + (to - from) * 0.6, to + (to - from) * 0.6));
  const words = { heartbeats: "heartbeats", answers: "answers", notes: "notes", holders: "lease holders and watchers" };
  for (const name in words) {
    if (!isCluster && /heartbeats|answers/.test(name)) continue;
    const label = document.createElement("label"), box = document.createElement("input");
    box.type = "checkbox";
    box.checked = shown[name];
    box.onchange = () => { shown[name] = box.checked; redraw(); };
    label.append(box, " " + words[name]);
    bar.append(label);
  }
  const where = document.createElement("span");
  where.className = "where";
  bar.append(where);
}

function settle() {
  const lanes = document.getElementById("lanes"), left = lanes.getBoundingClientRect().left + window.scrollX - document.getElementById("diagram").getBoundingClientRect().left;
  for (const lane of lanes.querySelectorAll(".lane")) {
    const x = lane.dataset.member !== undefined ? memberAt(+lane.dataset.member) : clientAt.get(+lane.dataset.client);
    lane.style.left = `${x - left}px`;
  }
  const title = (x, words) => { const made = document.createElement("span"); made.className = "lane title"; made.style.left = `${x}px`; made.style.transform = "none"; made.textContent = words; lanes.append(made); };
  title(MAP + 30, "time");
  if (isCluster) title(network - 8, "network");
  if (data.clients.length) title(firstClient - 42, "clients");
  title(wordsAt, "what contradicts, and everybody else");
}

function listen() {
  const diagram = document.getElementById("diagram");
  diagram.addEventListener("wheel", event => {
    event.preventDefault();
    const around = from + event.offsetY / HEIGHT * (to - from), step = (to - from) * event.deltaY / 1200;
    if (event.ctrlKey || event.metaKey) zoom(event.deltaY > 0 ? 1.25 : 0.8, around); else look(from + step, to + step);
  }, { passive: false });
  diagram.addEventListener("click", event => {
    if (event.offsetX > MAP) return;
    const at = event.offsetY / HEIGHT * data.end, half = (to - from) / 2;
    look(at - half, at + half);
  });
  document.addEventListener("keydown", event => {
    const act = { "+": () => zoom(0.5), "-": () => zoom(2), ArrowDown: () => look(from + (to - from) / 8, to + (to - from) / 8), ArrowUp: () => look(from - (to - from) / 8, to - (to - from) / 8) }[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  for (const row of document.querySelectorAll("tr[data-operation]")) {
    row.onclick = () => {
      const found = data.operations.find(operation => operation[3] === +row.dataset.operation);
      if (found) { const half = Math.max(20000, ((found[2] ?? found[1]) - found[1]) * 2); look(found[1] - half, (found[2] ?? found[1]) + half); }
    };
  }
}

document.getElementById("legend").textContent = "Wheel: earlier and later; with Ctrl: closer and farther; the strip at the left is the whole run. Pointing at something tells all about it. "
  + (isCluster ? "Wide, dark: leads; each term has its colour. Arrows: blue append, orange vote, green read, violet snapshot; red and dashed: did not arrive. " : "")
  + "Operations: blue writes, green reads, grey refused, orange unknown.";
tools();
settle();
listen();
redraw();
// A page that is opened with #check presses all its buttons, and says how much it drew.
if (location.hash === "#check") {
  let drawn = 0;
  for (const control of [...document.querySelectorAll("#tools button, #tools input, tr[data-operation]"), ...document.querySelectorAll("#tools button")]) {
    control.click();
    drawn += document.querySelectorAll("#diagram svg *").length;
  }
  document.body.dataset.drawn = drawn;
}
